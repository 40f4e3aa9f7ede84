"""What all formats within HDF5 share: opening a file, and finding its own groups and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..links import require_own
from ..source import decoding, require_plausible, require_room

__all__ = ["find", "items", "load", "opened"]

Array = NDArray[Any]


@contextmanager
def opened(path: Path, expected: str = "a complete HDF5 file") -> Iterator[Any]:
    """An ``h5py.File``, read only; whatever the library raises in the body becomes an :class:`UnreadableFile`."""
    import h5py

    with decoding(path, expected), h5py.File(path, "r") as file:
        yield file


def find(group: Any, name: str, path: Path) -> Any:
    """The group or data set of this name, or None; :class:`UnfitData` where it stands in another file."""
    item = group.get(name)
    require_own(item, path)
    return item


def items(group: Any, path: Path) -> list[tuple[str, Any]]:
    """Names and what they name, but links that lead nowhere; :class:`UnfitData` where one leads to another file."""
    found = [(str(name), find(group, name, path)) for name in group]
    return [(name, item) for name, item in found if item is not None]


def load(data: Any, path: Path, part: slice | None = None) -> Array:
    """The values of a data set, or of these entries of its first axis.

    Raises
    ------
    UnreadableFile
        If it declares more than the file can hold, or than there is room for.
    """
    require_plausible(int(data.nbytes), path)
    whole = len(data) if part is not None else 1
    count = len(range(*part.indices(whole))) if part is not None else 1
    require_room(int(data.size) * count // max(1, whole), path)
    return np.asarray(data[()] if part is None else data[part])
