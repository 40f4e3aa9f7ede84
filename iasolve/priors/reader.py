"""The reader of a prior on disk: ``NAME.reader.safetensors`` and its card, beside the weights of the hierarchy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from iasolve.networks import Reader, ReaderConfig
from iasolve.priors.checkpoint import PriorError, filled, verify

__all__ = ["load_reader", "reader_beside"]


def reader_beside(path: Path) -> Path | None:
    """Path of the reader that belongs to the weights ``NAME.safetensors``, if there is one."""
    reader = path.with_name(f"{path.stem}.reader.safetensors")
    return reader if reader.is_file() else None


def load_reader(path: Path) -> tuple[Reader, dict[str, Any]]:
    """The reader (float32, evaluation mode) at ``NAME.reader.safetensors``, and its card.

    Raises
    ------
    PriorError
        When a file is missing, damaged, or does not fit the architecture that the card describes.
    """
    card = verify(path)
    if card.get("kind") != "reader":
        raise PriorError(f"{path} is no reader: its card says kind {card.get('kind')!r}")
    try:
        config = ReaderConfig.from_dict(card["architecture"])
        reader = filled(lambda: Reader(config), load(path.read_bytes()))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PriorError(f"the weights {path} do not fit their card: {error}") from None
    return reader, card
