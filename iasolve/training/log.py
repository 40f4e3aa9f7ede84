"""The log of a training run: a row of figures, in JSON, for each validation."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TypeAlias

from iasolve.files.atomic import atomic_write
from iasolve.files.text import parse_json

__all__ = ["Row", "append_row", "begin_log", "cut_log"]

Row: TypeAlias = dict[str, float | str | list[float]]
"""Figures by name; ``note`` is a text, where there is something to say."""


def begin_log(path: Path, row: Row) -> None:
    """Write the first row, in place of another run's log.

    Raises
    ------
    WriteError
    """
    with atomic_write(path) as log:
        log.write(_line(row))


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()


def append_row(path: Path, row: Row) -> None:
    """Add a row, and wait until it is on the disk: the checkpoint that follows must not be there without it.

    Raises
    ------
    OSError
        Where it cannot be written; no part of it is left then.
    """
    rest = memoryview(_line(row))
    with path.open("ab", buffering=0) as log:
        before = log.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[log.write(rest) :]
            os.fsync(log.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                log.truncate(before)
            raise OSError(error.errno, error.strerror, str(path)) from error  # writing tells no name


def cut_log(path: Path, images: int) -> None:
    """Remove the rows after ``images``, and a row that a kill cut off: the resumed run writes them again."""
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and _images(line) <= images]
    if kept != lines:
        with atomic_write(path) as log:
            log.writelines(kept)


def _images(line: bytes) -> float:
    """Images of a row; infinite for what is no row."""
    try:
        return float(parse_json(line)["images"])
    except (ValueError, TypeError, KeyError):
        return float("inf")
