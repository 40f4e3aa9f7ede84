"""What a folder of small files spends on reading, solving and writing, and what doing them side by side would win.

    python benchmarks/small_files.py [--quick] [--files 32] [--turns 3]

The files are noisy heads of 128 x 128 pixels. Each is read, solved and written by what ``iasolve denoise`` calls, on
one thread; the clock is stopped between. *Side by side*: a thread reads the next file and another writes the last one
while this one is solved. *Together*: 8 images are solved as one batch. Writes benchmarks/results/small_files.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import RESULTS, commit, table
from iasolve.cli.answer import Work, write
from iasolve.cli.commands.denoise import task
from iasolve.cli.outputs import Outputs
from iasolve.cli.settings import Settings
from iasolve.cli.solver import Solver
from iasolve.cli.sources import Source
from iasolve.files import ImageFile, write_image
from iasolve.recipe import load_recipe
from iasolve.samples import load_samples

SIGMA, TOGETHER = 20.0, 8
STEPS = ("read", "solve", "write")


class Folder:
    """Files in a folder, and the steps of one of them."""

    def __init__(self, place: Path, suffix: str, count: int, solver: Solver) -> None:
        self.solver, self.place = solver, place
        self.paths = [place / f"{n:03}{suffix}" for n in range(count)]
        heads, generator = load_samples().images, np.random.default_rng(0)
        kind = np.dtype(np.float32 if suffix == ".npy" else np.uint8)
        for n, path in enumerate(self.paths):
            noisy = heads[n % len(heads)] + generator.normal(0, SIGMA, heads[0].shape)
            values = noisy.clip(0, 255).round() if kind == np.uint8 else noisy
            pixels = values.astype(kind)[None, None]
            write_image(path, pixels, ImageFile(path, suffix, pixels, kind))

    def read(self, path: Path) -> Source:
        """As ``iasolve denoise`` opens it."""
        return self.solver.task.read(path)

    def solve(self, source: Source) -> tuple[Work, Any]:
        """Its answer."""
        work = Work(self.solver, source)
        return work, work.finish()

    def write(self, path: Path, solved: tuple[Work, Any]) -> None:
        """The result and its report."""
        write(*solved, Outputs(self.place / "out" / path.name))

    def one_after_another(self) -> dict[str, list[tuple[float, float]]]:
        """Seconds, and processor seconds, of each step of each file."""
        spent: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
        for path in self.paths:
            marks = [(time.perf_counter(), time.process_time())]
            source = self.read(path)
            marks.append((time.perf_counter(), time.process_time()))
            solved = self.solve(source)
            marks.append((time.perf_counter(), time.process_time()))
            self.write(path, solved)
            marks.append((time.perf_counter(), time.process_time()))
            for step, (a, b), (c, d) in zip(STEPS, marks, marks[1:], strict=False):
                spent[step].append((c - a, d - b))
        return spent

    def side_by_side(self) -> None:
        """The same, with a reader and a writer beside the solver."""
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            following = reader.submit(self.read, self.paths[0])
            for path, after in zip(self.paths, [*self.paths[1:], None], strict=True):
                source = following.result()
                if after is not None:
                    following = reader.submit(self.read, after)
                written = writer.submit(self.write, path, self.solve(source))
            written.result()

    def together(self, count: int) -> tuple[float, float]:
        """Processor seconds of solving an image alone, and as one of ``count``."""
        sources = [self.read(path) for path in self.paths[:count]]
        joined = np.concatenate([np.asarray(one.y) for one in sources])
        part = self.solver.part(sources[0], slice(0, 1))
        begun = time.process_time()
        for source in sources:
            self.solver.solve(self.solver.part(source, slice(0, 1)))
        alone = time.process_time() - begun
        many = part._replace(source=replace(part.source, y=joined.astype(part.source.y.dtype)))
        begun = time.process_time()
        self.solver.solve(many)
        return alone / count, (time.process_time() - begun) / count


def measured(folder: Folder, turns: int, recipe: str) -> list[str]:
    """A row of the table."""
    spent: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
    ratios, batches = [], []
    for _ in range(turns):
        begun = time.perf_counter()
        for step, values in folder.one_after_another().items():
            spent[step] += values
        between = time.perf_counter()
        folder.side_by_side()
        ratios.append((between - begun) / (time.perf_counter() - between))
        batches.append(folder.together(min(TOGETHER, len(folder.paths))))
    each = {
        step: [1e3 * statistics.median(v[which] for v in values) for which in (0, 1)] for step, values in spent.items()
    }
    alone, together = (statistics.median(values) for values in zip(*batches, strict=True))
    around = sum(each[step][0] for step in ("read", "write"))
    return [
        f"`{recipe}`, {folder.paths[0].suffix}",
        *(f"{each[step][0]:.1f} ({each[step][1]:.1f})" for step in STEPS),
        f"{1 + around / each['solve'][0]:.3f}",
        f"{statistics.median(ratios):.2f}",
        f"{alone / together:.2f}",
    ]


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two files, one turn: a look, not a result")
    parser.add_argument("--files", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=["fast"])
    asked = parser.parse_args()
    count, turns = (2, 1) if asked.quick else (asked.files, asked.turns)
    torch.set_num_threads(1)
    rows = []
    for recipe in asked.recipes[:1] if asked.quick else asked.recipes:
        settings = Settings(
            sigma=SIGMA,
            offset=None,
            noise="auto",
            recipe=load_recipe(recipe),
            prior="mri-t1-128",
            seed=0,
            fit="auto",
            tile=None,
            overlap=None,
            device="cpu",
            batch_size=None,
            memory="1.5GB",
        )
        solver = Solver(task(), settings)
        for suffix in (".npy", ".png"):
            with tempfile.TemporaryDirectory() as place:
                (Path(place) / "out").mkdir()
                folder = Folder(Path(place), suffix, count, solver)
                folder.solve(folder.read(folder.paths[0]))  # convolutions are compiled
                rows.append(measured(folder, turns, recipe))
    text = "\n".join(
        [
            "# Folders of small files",
            "",
            f"Commit {commit()}, {count} images of 128 x 128, prior mri-t1-128, one thread; medians of {turns} turns.",
            "",
            table(
                ["recipe and format", "read, ms (processor)", "solve", "write", "most to win", "won", "8 together"],
                rows,
            ),
            "*Most to win*: (read + solve + write) / solve, what reading and writing beside solving could give at "
            "most. *Won*: what a reader thread and a writer thread did give. *8 together*: processor seconds of images "
            "solved one by one over those of the same images solved as one batch.",
        ]
    )
    print(text)
    if not asked.quick:
        (RESULTS / "small_files.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
