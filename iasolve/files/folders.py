"""Inputs in a folder, and outputs that may be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import PathInput, UnreadableFile, WriteError
from .formats import IMAGE_SUFFIXES, companions, suffix_of

__all__ = ["guard_output", "list_inputs", "require_writable"]


def list_inputs(folder: PathInput, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Files in a folder that can be read, not those of its subfolders.

    Parameters
    ----------
    folder : str or os.PathLike[str]
        An existing folder.
    suffixes : iterable of str
        Those to list; case and leading dot do not matter.

    Returns
    -------
    list of Path
        Sorted by name; empty if there are none. Hidden files and ``.json`` sidecars are never among them.

    Raises
    ------
    UnreadableFile
        If the folder is missing, no folder, or not accessible.
    """
    wanted = {"." + suffix.lower().lstrip(".") for suffix in suffixes} - {".json"}
    root = Path(folder)
    try:
        entries = sorted(root.iterdir())
    except FileNotFoundError as error:
        raise UnreadableFile(root, "no such folder", "an existing folder", "Check the path") from error
    except NotADirectoryError as error:
        raise UnreadableFile(root, "this is a file", "a folder", "Give the file as a single input") from error
    except (OSError, ValueError) as error:
        raise UnreadableFile(
            root, f"cannot be listed ({error})", "a readable folder", "Check its permissions"
        ) from error
    return [
        entry for entry in entries if not entry.name.startswith(".") and suffix_of(entry) in wanted and entry.is_file()
    ]


def guard_output(path: PathInput, overwrite: bool = False) -> Path:
    """Check, before the work is done, that its result may be written to ``path``.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Output to be.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    WriteError
        If it is a folder, if its folder is missing or not writable, or if it exists and may not be replaced.
    """
    target = Path(path)
    parent = target.parent
    # functions of os.path: those of pathlib raise where a folder may not be searched
    if os.path.isdir(target):
        raise WriteError(target, "this is a folder", "the name of a file", "Add a file name to the path")
    if not os.path.isdir(parent):
        raise WriteError(
            target,
            f"the folder {parent} does not exist",
            "an existing folder",
            f"Create it first: mkdir -p {parent}",
        )
    for file in (target, *companions(target)):
        if os.path.exists(file) and not os.path.isfile(file):
            raise WriteError(file, "this is a device or a pipe", "the name of a file", "Choose another name")
        if os.path.exists(file) and not overwrite:
            raise WriteError(file, "the file exists already", "a new name", "Choose another name, or allow overwriting")
    require_writable(parent, target)
    longest = longest_name(parent)
    if len(os.fsencode(target.name)) > longest:
        raise WriteError(target, "the name is too long", f"at most {longest} bytes", "Choose a shorter one")
    return target


def longest_name(folder: PathInput) -> int:
    """Bytes that the name of a file in a folder may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # of other systems
        return 255


def require_writable(folder: PathInput, target: PathInput) -> None:
    """Check that files may be made in an existing folder.

    Raises
    ------
    WriteError
        Of ``target``, for which it is asked.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(target, f"the folder {folder} is not writable", "a writable folder", "Choose another one")
