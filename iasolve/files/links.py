"""HDF5 files that take data from other files: read only where the user says so.

External storage, external links and virtual data sets name files by path, so a file of a stranger could have any file
of the user's read and, worked upon, sent back.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .errors import UnfitData

__all__ = ["links_are_trusted", "require_own", "trust_links"]

_trusted: ContextVar[bool] = ContextVar("_trusted", default=False)


def trust_links(trusted: bool) -> None:
    """Say whether HDF5 files may take data from other files, from now on."""
    _trusted.set(trusted)


def links_are_trusted() -> bool:
    """Whether they may."""
    return _trusted.get()


def require_own(item: Any, path: Path) -> None:
    """Refuse an HDF5 object that is not, or not only, in its file.

    Parameters
    ----------
    item : h5py.Group, h5py.Dataset or other
        What was found under a name.
    path : Path
        The file that was opened.

    Raises
    ------
    UnfitData
        Unless :func:`links_are_trusted`.
    """
    import h5py

    if links_are_trusted() or not isinstance(item, h5py.Group | h5py.Dataset):
        return
    kind = None
    if Path(item.file.filename).resolve() != path.resolve():
        kind = "an external link"
    elif isinstance(item, h5py.Dataset):
        if item.is_virtual:
            kind = "a virtual data set"
        elif item.external:
            kind = "external storage"
    if kind is not None:
        raise UnfitData(
            path,
            f"{item.name!r} is {kind}: its data stand in another file",
            "data in the file itself",
            "Copy all into one file (h5repack), or add --trust-links if you know who made it",
        )
