"""What reading in a process apart costs, for ``robustness.py``: processor time, which other programs do not disturb."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from mutations import FORMATS

import iasolve
from iasolve import files
from iasolve.files import formats
from iasolve.operators import GaussianNoise, Identity
from iasolve.samples import load_samples

__all__ = ["KINDS", "cost_of_worker"]

KINDS = ("png", "dcm", "mat 5", "fastMRI h5")
SOLVED = 20
"""Files that are solved, to compare with."""


def cost_of_worker(count: int, folder: Path) -> dict[str, dict[str, float]]:
    """Read ``count`` good files of 128 x 128 pixels of each kind, apart and here: processor time a file, in ms.

    ``ratio`` is that of a folder run: reading apart and solving by the recipe ``fast``, over reading here and solving.
    The start of the worker is in it.
    """
    image = np.asarray(load_samples().images, np.float32).reshape(-1, 128, 128)[0]
    pixels = (255 * image / image.max()).astype(np.uint8)
    solving = _solving(pixels)
    folder.mkdir(parents=True)
    FORMATS["png"].save(folder / "first.png", pixels)
    start = _processor_time(lambda: files.read_image(folder / "first.png"))
    found = {}
    for kind in KINDS:
        own = folder / kind.replace(" ", "-")
        own.mkdir(parents=True)
        paths = [own / f"{number:04}{FORMATS[kind].suffix}" for number in range(count)]
        for number, path in enumerate(paths):
            FORMATS[kind].save(path, np.roll(pixels, number, axis=1))
        read = FORMATS[kind].read
        read(paths[0])  # libraries are imported, here and there, and the worker runs
        apart = _processor_time(lambda: [read(path) for path in paths]) / count  # noqa: B023
        with mock.patch.object(formats, "read_apart", lambda function, path, *rest: function(path, *rest)):
            read(paths[0])
            here = _processor_time(lambda: [read(path) for path in paths]) / count  # noqa: B023
        found[kind] = {
            "files": count,
            "here_ms": round(1e3 * here, 2),
            "apart_ms": round(1e3 * apart, 2),
            "solving_ms": round(1e3 * solving, 1),
            "start_ms": round(1e3 * start, 0),
            "ratio": round((apart + solving + start / count) / (here + solving), 3),
        }
    return found


def _solving(pixels: np.ndarray) -> float:
    """Processor seconds that the recipe ``fast`` takes for one of these images."""
    prior = iasolve.load_prior("mri-t1-128")
    y = torch.from_numpy(pixels[np.newaxis, np.newaxis].astype(np.float32))

    def solve() -> None:
        iasolve.solve(y, Identity((1, 128, 128)), prior, noise=GaussianNoise(5.0), recipe="fast")

    solve()
    return _processor_time(lambda: [solve() for _ in range(SOLVED)]) / SOLVED


def _processor_time(work: Callable[[], object]) -> float:
    """Seconds that this process and its worker compute for the work."""
    before, here = _of_children(), time.process_time()
    work()
    return time.process_time() - here + _of_children() - before


def _of_children() -> float:
    """Of those that run now; resolved to a hundredth of a second."""
    ticks = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
