"""Finding the file that a path names."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import PathInput, UnfitData, UnreadableFile
from .formats import KEYED_SUFFIXES, suffix_of

__all__ = ["locate", "split_key"]


def split_key(path: PathInput) -> tuple[Path, str | None]:
    """Split ``"file.npz:key"`` (all of :data:`KEYED_SUFFIXES`) into the file and the key.

    Parameters
    ----------
    path : str or os.PathLike[str]
        A path, with or without a key after a colon.

    Returns
    -------
    tuple of (Path, str or None)
        The key is None where none is given, or where a file of the whole name exists.
    """
    text = os.fspath(path)
    stem, colon, key = text.rpartition(":")
    if colon and key and stem.lower().endswith(KEYED_SUFFIXES) and not os.path.exists(text):
        return Path(stem), key
    return Path(text), None


def locate(path: PathInput, suffixes: tuple[str, ...], key: str | None = None) -> tuple[Path, str, str | None]:
    """Check that ``path`` is a non-empty regular file with one of ``suffixes``.

    Parameters
    ----------
    path : str or os.PathLike[str]
        File to read; may carry a key, see :func:`split_key`.
    suffixes : tuple of str
        Lower-case suffixes with their dots.
    key : str, optional
        Key given apart from the path; it wins over one in the path.

    Returns
    -------
    tuple of (Path, str, str or None)
        The file, its lower-case suffix, and the key.

    Raises
    ------
    UnreadableFile
        Missing, a folder, empty, not accessible, or of another kind.
    UnfitData
        If a key is given for a kind of file that has none.
    """
    source, own_key = split_key(path)
    key = own_key if key is None else key
    kind = suffix_of(source)
    known = ", ".join(suffixes)
    try:
        exists, is_file = source.exists(), source.is_file()
        size = source.stat().st_size if is_file else 0
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise UnreadableFile(
            source, f"cannot be accessed ({error})", "a readable file", "Check the name and the permissions"
        ) from error
    if not exists:
        parent = source.parent
        where = "" if parent.is_dir() else f" (the folder {parent} does not exist either)"
        raise UnreadableFile(source, f"no such file{where}", "an existing file", "Check the spelling of the path")
    if not is_file:
        found = "this is a folder" if source.is_dir() else "this is not a regular file"
        raise UnreadableFile(source, found, f"one file ({known})", "Name a file inside it")
    if kind not in suffixes:
        raise UnreadableFile(
            source,
            f"files with suffix {kind!r} are not read here" if kind else "the name has no suffix",
            f"one of {known}",
            "Convert the file, or give it the suffix of what it holds",
        )
    if size == 0:
        raise UnreadableFile(source, "the file is empty (0 bytes)", f"a {kind} file", "Copy or export it again")
    if key is not None and kind not in KEYED_SUFFIXES:
        keyed = ", ".join(suffix for suffix in suffixes if suffix in KEYED_SUFFIXES)
        raise UnfitData(source, f"the key {key!r} was given", f"a key for {keyed} files only", "Leave the key out")
    return source, kind, key
