"""The errors of this package: what was found, what was expected, what to do next, and in which file."""

from __future__ import annotations

import os

__all__ = ["FileError", "PathInput", "UnfitData", "UnreadableFile", "WriteError"]

PathInput = str | os.PathLike[str]


class FileError(Exception):
    """A file that cannot be read, used or written.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The file in question.
    found, expected, advice : str
        What is the case, what should have been, and what to do about it. All three are part of the message;
        none ends in a full stop.

    Examples
    --------
    >>> from iasolve.files import read_image
    >>> try:
    ...     read_image("gone.png")
    ... except FileError as error:
    ...     print(error.path)
    gone.png
    """

    def __init__(self, path: PathInput, found: str, expected: str, advice: str) -> None:
        # All parts go to Exception.args, so that the error survives pickling between processes.
        super().__init__(os.fspath(path), found, expected, advice)
        self.path = os.fspath(path)
        self.found = found
        self.expected = expected
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.path}: {self.found}. Expected {self.expected}. {self.advice}."


class UnreadableFile(FileError):  # noqa: N818 - says what the file is
    """The file is missing, of an unknown kind, truncated or corrupt.

    Examples
    --------
    >>> from iasolve.files import read_image
    >>> try:
    ...     read_image("gone.png")
    ... except UnreadableFile as error:
    ...     print(error)
    gone.png: no such file. Expected an existing file. Check the spelling of the path.
    """


class UnfitData(FileError):  # noqa: N818
    """The file can be read, but what it holds cannot be used here.

    Examples
    --------
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from iasolve.files import read_image
    >>> with TemporaryDirectory() as folder:
    ...     np.save(path := Path(folder) / "empty.npy", np.zeros((0, 4)))
    ...     try:
    ...         read_image(path)
    ...     except UnfitData as error:
    ...         print(error.found)
    the array is empty, shape (0, 4)
    """


class WriteError(FileError):
    """A result that cannot be written: wrong kind of file, no room, no permission, already there.

    Examples
    --------
    >>> import numpy as np
    >>> from iasolve.files import write_image
    >>> try:
    ...     write_image("result.png", np.zeros((8, 8)))
    ... except WriteError as error:
    ...     print(error.expected)
    numbers of shape (pages, channels, H, W) with 1 or 3 channels
    """
