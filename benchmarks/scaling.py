"""Files per second of a folder for 1 and 2 worker processes, the cost of a task, and the bytes that it moves.

    python benchmarks/scaling.py [--quick] [--files N] [--recipe denoise]

One process, then ``Cluster(workers=1)`` and ``Cluster(workers=2)``, in turns, on the same images of 128 x 128; workers
are started before the clock is. The law: a client hands tasks out and takes results in at so many a second, whatever
the workers, so that ``N`` workers solve ``min(N / t, 1 / c)`` files a second, ``t`` being a file's time and ``c`` the
client's. Writes benchmarks/results/scaling.md.
"""

from __future__ import annotations

import argparse
import os
import pickle
import time
from typing import Any

import numpy as np

import iasolve
from common import RESULTS, commit
from iasolve.cluster import Cluster, _Pin, _solve
from iasolve.operators import GaussianNoise, Identity
from iasolve.samples import load_samples


def nothing(y: Any) -> Any:
    """A task that only moves its image there and back."""
    return y


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


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--recipe", default="denoise")
    parser.add_argument("--prior", default="mri-t1-128")
    asked = parser.parse_args()
    count, recipe = (4, "fast") if asked.quick else (asked.files, asked.recipe)
    prior, operator = iasolve.load_prior(asked.prior), Identity((1, 128, 128))
    heads, generator = load_samples().images, np.random.default_rng(0)
    images = [(heads[n % len(heads)] + generator.normal(0, 20, heads[0].shape))[None] for n in range(count)]
    options = {"noise": GaussianNoise(20.0), "recipe": recipe, "warn": False, "memory": "1.5GB"}
    pin = _Pin(str(prior.path), prior.card.get("sha256"))
    single = [image.astype(np.float32) for image in images]
    tasks = [(pin, "cpu", y, operator, options) for y in single]
    first = iasolve.solve(single[0], operator, prior, **options)
    begun = time.perf_counter()
    for y in single:
        iasolve.solve(y, operator, prior, **options)
    alone = len(single) / (time.perf_counter() - begun)
    rows = [f"| one process | {alone:.3f} | |"]
    rates = {}
    for workers in (1, 2):
        with Cluster(workers=workers) as cluster:
            rate(cluster, _solve, tasks[: 2 * workers])  # weights are loaded, and convolutions compiled
            rates[workers] = rate(cluster, _solve, tasks)
            empty = rate(cluster, nothing, [(y,) for y in single] * (1 if asked.quick else 10))
        rows.append(f"| {workers} worker(s) | {rates[workers]:.3f} | {1e3 / empty:.1f} |")
    sent, back = (len(pickle.dumps(one)) for one in (tasks[0], first))
    limit = empty
    text = [
        "# Scaling",
        "",
        f"Commit {commit()}, prior {asked.prior}, recipe {recipe}, {count} images of 128 x 128, {os.cpu_count()} "
        "processors as the system counts them.",
        "",
        "| | files a second | empty task, ms |",
        "| --- | --- | --- |",
        *rows,
        "",
        f"2 workers over 1: {rates[2] / rates[1]:.2f}. A task: {sent / 1e3:.0f} kB there, {back / 1e3:.0f} kB back.",
        "",
        f"By the law, one client feeds at most {limit:.0f} tasks a second, that is {limit / rates[1]:.0f} workers of "
        f"this speed, and 1,000 workers would solve {min(1000 * rates[1], limit):.0f} files a second.",
    ]
    print("\n".join(text))
    if not asked.quick:
        (RESULTS / "scaling.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
