"""Where results go, checked before the work starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iasolve.cli.errors import UsageError
from iasolve.files import (
    ImageFile,
    WriteError,
    can_carry,
    companions,
    guard_output,
    require_carry,
    stem_of,
    suffix_of,
    takes_results,
)

__all__ = ["Outputs", "as_usage", "in_folder", "real_path", "std_type"]

_CARRIES_ANYTHING = ".npy"


@dataclass(frozen=True)
class Outputs:
    """The files of one result.

    Attributes
    ----------
    image : Path
        OUT.
    std, figure : Path or None
        Where asked for.

    Raises
    ------
    UsageError
        For ``.``, ``..`` and ``/``, which name no file.
    """

    image: Path
    std: Path | None = None
    figure: Path | None = None

    def __post_init__(self) -> None:
        for path in (self.image, self.std, self.figure):
            if path is not None and path.name in ("", ".."):
                raise UsageError(f"{path}: this is a folder. Expected the name of a file. Add a file name to the path")

    @property
    def sidecar(self) -> Path:
        """``OUT.json``: the whole name and ``.json``, so that ``a.png`` and ``a.tif`` have one each."""
        return self.image.with_name(self.image.name + ".json")

    @property
    def roles(self) -> dict[str, Path]:
        """Every file that will be written but the sidecar, by what it is."""
        named = {"image": self.image, "std": self.std, "figure": self.figure}
        files = {role: path for role, path in named.items() if path is not None}
        return files | {f"{role}{p.suffix}": p for role, path in files.items() for p in companions(path)}

    @property
    def all(self) -> list[Path]:
        """Every file that will be written."""
        return [*self.roles.values(), self.sidecar]

    def guard(self, inputs: Iterable[Path], overwrite: bool) -> None:
        """Refuse outputs that cannot be written, collide, or would replace something.

        Raises
        ------
        UsageError
        """
        if self.figure is not None and self.figure.suffix.lower() != ".png":
            raise UsageError(f"--figure {self.figure}: figures are PNG files; give a name that ends in .png")
        taken = {real_path(path): f"the input {path}" for path in inputs}
        for path in self.all:
            real = real_path(path)
            if real in taken:
                raise UsageError(f"{path} is {taken[real]} already: give each file a name of its own")
            taken[real] = f"the output {path}"
            as_usage(lambda path=path: guard_output(path, overwrite), "; --overwrite replaces it")  # type: ignore[misc]

    def require_carry(self, like: ImageFile) -> None:
        """Refuse kinds of files that cannot hold the result.

        Raises
        ------
        UsageError
        """
        as_usage(lambda: require_carry(self.image, like))
        if self.std is not None:
            std = self.std
            as_usage(lambda: require_carry(std, dtype=std_type(like), pages=like.pages, channels=like.channels))


def real_path(path: Path) -> Path:
    """Where a path leads.

    Raises
    ------
    UsageError
        For links that go round in a circle.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{path}: it leads nowhere ({error}): choose another name") from None


def std_type(like: ImageFile) -> np.dtype[Any]:
    """Type of the standard deviation's values: single precision, double where the result has it."""
    return np.dtype(np.float64 if like.dtype in (np.float64, np.complex128) else np.float32)


def as_usage(check: object, existing: str = "") -> None:
    """Run a check whose :class:`WriteError` is, before any work is done, a matter of the command line."""
    assert callable(check)
    try:
        check()
    except WriteError as error:
        raise UsageError(str(error).rstrip(".") + (existing if "exists already" in error.found else "")) from None


def in_folder(
    sources: list[Path], out: Path, std: Path | None, figure: Path | None, *, grey: bool = True
) -> dict[Path, Outputs]:
    """Outputs of a folder's files: the same names, with another suffix only where the kind cannot carry the result.

    Parameters
    ----------
    sources : list of Path
        The input files.
    out, std, figure : Path or None
        Folders.
    grey : bool
        Whether results are real, with one channel.

    Returns
    -------
    dict of Path to Outputs

    Raises
    ------
    UsageError
        When two inputs would have the same output.
    """
    stems = Counter(stem_of(path) for path in sources)
    outputs: dict[Path, Outputs] = {}
    for path in sources:
        # a.png and a.tif side by side: keep both names whole
        base = stem_of(path) if stems[stem_of(path)] == 1 else path.name
        suffix = suffix_of(path)
        same = takes_results(path, grey)
        name = path.name if same else base + _CARRIES_ANYTHING
        keeps = same and can_carry(suffix, np.float32)
        outputs[path] = Outputs(
            out / name,
            None if std is None else std / (path.name if keeps else base + _CARRIES_ANYTHING),
            None if figure is None else figure / f"{base}.png",
        )
    seen: dict[Path, Path] = {}
    for path, names in outputs.items():
        for target in names.all:
            if target in seen:
                raise UsageError(f"{path.name} and {seen[target].name} would both be written to {target}: rename one")
            seen[target] = path
    return outputs
