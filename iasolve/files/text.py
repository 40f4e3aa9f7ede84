"""Text files of settings: cards, recipes, configurations, arguments, reports."""

from __future__ import annotations

import errno
import os

from .errors import PathInput

__all__ = ["read_text"]

LARGEST_TEXT = 2**26
"""Bytes; the largest that iasolve writes, a report of a long volume, has a few million."""


def read_text(path: PathInput) -> str:
    """The text of a file of settings, in UTF-8.

    Devices and pipes are read as well as files (``--recipe <(..)`` in a shell), but not those that never end.

    Parameters
    ----------
    path : str or os.PathLike[str]

    Returns
    -------
    str

    Raises
    ------
    OSError
        If it cannot be read, or is longer than 64 MB.
    UnicodeDecodeError
        If it is not UTF-8.
    """
    with open(path, "rb") as file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"more than {LARGEST_TEXT >> 20} MB, which no text of settings has", os.fspath(path))
    return data.decode("utf-8")
