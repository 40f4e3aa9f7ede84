"""Files per second of one process and of 1 and 2 workers, the cost of a task, and the bytes that it moves.

    python benchmarks/scaling.py [--quick] [--files 64] [--turns 3] [--recipe denoise]

On an otherwise idle machine of at least two cores. One process with one thread and with all, and one and two workers
with one thread each, take turns on the same images of 128 x 128; workers are started before the clock is. The law: a
client hands tasks out and takes results in at ``1 / c`` a second whatever the workers, so that ``N`` workers solve
``min(N / t, 1 / c)`` tasks a second, ``t`` being a worker's time for one. Writes benchmarks/results/scaling.md.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

import iasolve
from common import RESULTS, commit, table
from iasolve.cluster import Cluster
from iasolve.cluster.mapping import pinned, solve_pinned
from iasolve.operators import GaussianNoise, Identity
from iasolve.samples import load_samples

SIGMA = 20.0


def nothing(y: Any) -> Any:
    """A task that only moves its image there and back."""
    return y


def used() -> tuple[float, float]:
    """Processor seconds of this process so far: its own, and the system's for it."""
    times = os.times()
    return times.user, times.system


def rate(cluster: Cluster, function: Any, tasks: list[tuple[Any, ...]]) -> float:
    """Tasks a second."""
    begun, waiting = time.perf_counter(), []
    for arguments in tasks:
        waiting.append(cluster.submit(function, *arguments))
        while not cluster.room:
            cluster.result(waiting.pop(0))
    for future in waiting:
        cluster.result(future)
    return len(tasks) / (time.perf_counter() - begun)


def alone(solve: Callable[[Any], Any], images: list[np.ndarray], threads: int) -> float:
    """Images a second in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        begun = time.perf_counter()
        for y in images:
            solve(y)
        return len(images) / (time.perf_counter() - begun)
    finally:
        torch.set_num_threads(before)


@contextmanager
def workers(count: int) -> Iterator[Cluster]:
    """Workers of one thread each: that is what a second core adds."""
    with Cluster(workers=count) as cluster:
        cluster._client.run(torch.set_num_threads, 1)
        yield cluster


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few images, one turn: a look, not a result")
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recipe", default="denoise")
    parser.add_argument("--prior", default="mri-t1-128")
    asked = parser.parse_args()
    count, turns, recipe = (4, 1, "fast") if asked.quick else (asked.files, asked.turns, asked.recipe)
    prior, operator = iasolve.load_prior(asked.prior), Identity((1, 128, 128))
    heads, generator = load_samples().images, np.random.default_rng(0)
    images = [
        (heads[n % len(heads)] + generator.normal(0, SIGMA, heads[0].shape))[None].astype(np.float32)
        for n in range(count)
    ]
    options = {"noise": GaussianNoise(SIGMA), "recipe": recipe, "warn": False, "memory": "1.5GB"}
    pin = pinned(prior)
    tasks = [(pin, "cpu", y, operator, options) for y in images]

    def solve(y: Any) -> Any:
        return iasolve.solve(y, operator, prior, **options)

    first, cores = solve(images[0]), os.cpu_count() or 1
    rates: dict[str, list[float]] = {}
    with workers(1) as one, workers(2) as two:
        for cluster in (one, two):
            # weights are loaded, and convolutions compiled
            rate(cluster, solve_pinned, tasks[: 2 * cluster.size])
        before = one.result(one.submit(used))
        for _ in range(turns):
            for name, measure in {
                "one process, one thread": lambda: alone(solve, images, 1),
                f"one process, {cores} threads": lambda: alone(solve, images, cores),
                "1 worker": lambda: rate(one, solve_pinned, tasks),
                "2 workers": lambda: rate(two, solve_pinned, tasks),
                "2 workers, empty tasks": lambda: rate(two, nothing, [(y,) for y in images] * 4),
            }.items():
                rates.setdefault(name, []).append(measure())
        own, system = ((b - a) / (turns * count) for a, b in zip(before, one.result(one.submit(used)), strict=True))
    each = {name: statistics.median(values) for name, values in rates.items()}
    limit = each.pop("2 workers, empty tasks")
    sent, back = (len(pickle.dumps(one)) for one in (tasks[0], first))
    text = "\n".join(
        [
            "# Scaling",
            "",
            f"Commit {commit()}, prior {asked.prior}, recipe {recipe}, {count} images of 128 x 128, {cores} processors "
            f"as the system counts them; medians of {turns}.",
            "",
            table(["", "images a second"], [[name, f"{value:.3f}"] for name, value in each.items()]),
            f"A solve takes a worker {own:.2f} s of its own and {system:.2f} s of the system's. "
            f"2 workers over 1: {each['2 workers'] / each['1 worker']:.2f}. An empty task takes the client "
            f"{1e3 / limit:.1f} ms. A task: {sent / 1e3:.0f} kB there, {back / 1e3:.0f} kB back.",
            "",
            f"By the law, one client feeds at most {limit:.0f} tasks a second, that is {limit / each['1 worker']:.0f} "
            f"workers of this speed, and 1,000 workers would solve {min(1000 * each['1 worker'], limit):.0f} images a "
            "second. A task of a volume holds as many of its images as the memory of a worker takes, so that the limit "
            "is one of tasks, not of images. Folders of single small images go faster through several commands, each "
            "with a part of the files.",
        ]
    )
    print(text)
    if not asked.quick:
        (RESULTS / "scaling.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
