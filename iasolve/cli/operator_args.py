"""The arguments of an operator's factory, from a TOML file.

TOML has neither arrays of numbers on disk nor torch's types, so two tables of one key stand for them:
``{ array = "FILE" }``, with ``FILE`` beside the TOML file, and ``{ dtype = "complex64" }``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from iasolve.cli.errors import UnfitInput
from iasolve.files import read_measurement, read_text, split_key

__all__ = ["arrays_in", "fill", "read_arguments"]


def read_arguments(path: Path | None) -> dict[str, Any]:
    """The arguments as they are written, for :func:`fill` and for reports; none without a file.

    Raises
    ------
    UnfitInput
        When it cannot be read, or is no TOML.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise UnfitInput(
            f"{path}: cannot be read ({error.strerror}). Expected a TOML file with the operator's arguments. Check the "
            "path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UnfitInput(
            f"{path}: not valid TOML ({error}). Expected the operator's arguments, as in: in_shape = [1, 128, 128]. "
            "Correct it"
        ) from None


def fill(value: Any, folder: Path) -> Any:
    """The arguments with arrays and types in place of the tables that stand for them.

    Parameters
    ----------
    value : object
        What TOML can hold.
    folder : Path
        Where relative paths start.

    Raises
    ------
    FileError, UnfitInput
        When there is no such array or type.
    """
    if isinstance(value, list):
        return [fill(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"} and isinstance(value["array"], str):
        return read_measurement(folder / value["array"]).values
    if set(value) == {"dtype"} and isinstance(value["dtype"], str):
        return _dtype(value["dtype"])
    return {key: fill(item, folder) for key, item in value.items()}


def arrays_in(value: Any) -> list[str]:
    """Names of the files that :func:`fill` reads arrays from."""
    if isinstance(value, list):
        return [name for item in value for name in arrays_in(item)]
    if not isinstance(value, dict):
        return []
    if set(value) == {"array"} and isinstance(value["array"], str):
        return [str(split_key(value["array"])[0])]
    return [name for item in value.values() for name in arrays_in(item)]


def _dtype(name: str) -> Any:
    import torch

    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise UnfitInput(
            f"dtype {name!r}: no such type in torch. Expected float32, float64, complex64 or complex128. "
            "Correct the operator's arguments"
        )
    return found
