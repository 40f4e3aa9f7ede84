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
    """The file is missing, of an unknown kind, truncated or corrupt."""


class UnfitData(FileError):  # noqa: N818
    """The file can be read, but what it holds cannot be used here."""


class WriteError(FileError):
    """A result that cannot be written: wrong kind of file, no room, no permission, already there."""
