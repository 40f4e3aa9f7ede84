"""Text files of settings: cards, recipes, configurations, arguments, reports."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from .errors import PathInput

__all__ = ["parse_json", "read_text"]

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
    try:
        file = open(path, "rb")  # noqa: SIM115
    except ValueError as error:  # a name that no file can have
        raise OSError(str(error)) from None
    with file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"more than {LARGEST_TEXT >> 20} MB, which no text of settings has", os.fspath(path))
    return data.decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises
    ------
    ValueError
        Also where brackets stand in brackets thousands of times: :func:`json.loads` raises ``RecursionError`` then.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"brackets within brackets, too many of them ({error})") from None
