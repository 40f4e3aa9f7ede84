"""The log of a training run: a row of figures, in JSON, for each validation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeAlias

from iasolve.files.atomic import atomic_write

__all__ = ["Row", "append_row", "cut_log"]

Row: TypeAlias = dict[str, float | str | list[float]]
"""Figures by name; ``note`` is a text, where there is something to say."""


def append_row(path: Path, row: Row) -> None:
    """Add a row, and wait until it is on the disk: the checkpoint that follows must not be there without it."""
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
        log.flush()
        os.fsync(log.fileno())


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
        return float(json.loads(line)["images"])
    except (ValueError, TypeError, KeyError):
        return float("inf")
