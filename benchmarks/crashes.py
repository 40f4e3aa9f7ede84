"""Crashes injected into an overwriting commit, for ``robustness.py``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from iasolve import files

__all__ = ["count_crashes"]

SHAPES = {"old": (1, 1, 6, 5), "new": (1, 1, 4, 7)}


class Crash(BaseException):
    """Nobody catches it, as nobody catches a power cut."""


def count_crashes(folder: Path) -> dict[str, int]:
    """Crash after every replacement, removal and flush; count what is neither all old nor all new."""
    folder.mkdir(parents=True, exist_ok=True)
    tally = {"count": 0, "mixed": 0, "partial": 0}
    for suffix in (".npy", ".cfl", ".tif", ".nii.gz", ".h5"):
        moment = 0
        while True:
            moment += 1
            _write(folder, suffix, "old")
            if not _crashes(lambda suffix=suffix: _write(folder, suffix, "new"), moment):  # type: ignore[misc]
                break
            tally["count"] += 1
            try:
                ages = {age for name in ("a", "std") if (age := _age(folder / f"{name}{suffix}"))}
            except files.FileError:
                tally["partial"] += 1
                continue
            report = folder / f"a{suffix}.json"
            sealed = json.loads(report.read_text())["age"] if report.exists() else None
            tally["mixed"] += len(ages) > 1 or (sealed is not None and ages != {sealed})
    return tally


def _write(folder: Path, suffix: str, age: str) -> None:
    values = np.full(SHAPES[age], len(age), np.float32)
    with files.write_together():
        files.write_image(folder / f"a{suffix}", values)
        files.write_image(folder / f"std{suffix}", values)
        files.write_json(folder / f"a{suffix}.json", {"age": age})


def _age(path: Path) -> str | None:
    if not path.exists():
        return None
    shape = files.read_image(path).pixels.shape
    return next(age for age, known in SHAPES.items() if known == shape)


def _crashes(work: Callable[[], None], moment: int) -> bool:
    """Whether there was such a moment in this work."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            result = function(*arguments, **options)
            count += 1
            if count == moment:
                raise Crash
            return result

        return call

    with (
        mock.patch("os.replace", counted(os.replace)),
        mock.patch("os.fsync", counted(os.fsync)),
        mock.patch("pathlib.Path.unlink", counted(Path.unlink)),
    ):
        try:
            work()
        except Crash:
            return True
    return False
