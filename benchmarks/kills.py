"""Runs of the program that are killed at random moments and begun again, for ``robustness.py``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iasolve.cli import main
from iasolve.samples import load_samples

__all__ = ["FAULTS", "SIGNALS", "count_kills"]

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
IMAGES = 6


class Undisturbed(NamedTuple):
    """What a run gives that nobody disturbs: the bytes of its images, and after how many seconds it ended."""

    files: dict[str, bytes]
    end: float


def count_kills(count: int, seed: int, folder: Path) -> dict[str, dict[str, int]]:
    """Kill folder runs, and runs of a volume in pieces, ``count`` times by each signal; what came of them."""
    folder.mkdir(parents=True)
    samples = np.asarray(load_samples().images, np.float32).reshape(-1, 32, 4, 32, 4).mean((2, 4))
    # small, in colour: what is asked is not how long an image takes, but what becomes of its files
    images = np.stack([samples[number % len(samples)] + number for number in range(IMAGES)])[..., np.newaxis].repeat(
        3, -1
    )
    source, volume = folder / "in", folder / "volume.npy"
    source.mkdir()
    for number, image in enumerate(images):
        np.save(source / f"{number}.npy", image)
    np.save(volume, images)
    rng = np.random.default_rng(seed)
    # one image at a time, so that a volume has as many pieces as slices
    options = ["--sigma", "5", "--recipe", "fast", "--prior", "cifar10", "--batch-size", "1"]
    kinds = {
        "folder": ([str(source), "{}"], ["--resume"]),
        "volume": ([str(volume), "{}/volume.npy"], []),
    }
    found = {}
    for kind, (places, again) in kinds.items():
        _run(folder / f"{kind}-first", places, options)  # starts the server
        undisturbed = _run(folder / f"{kind}-whole", places, options)
        for name in SIGNALS:
            tally: Counter[str] = Counter()
            for number in range(count):
                moment = float(rng.uniform(0, undisturbed.end))
                out = folder / f"{kind}-{name}-{number}"
                tally.update(_killed(out, places, options, again, undisturbed, (name, moment)))
            found[f"{kind}, {name}"] = {
                "count": count,
                **{key: tally[key] for key in FAULTS},
                "reached": tally["reached"],
            }
    return found


FAULTS = ("partial", "unsealed", "not resumed", "leftovers")
"""A file that is not what it should be; a report without its result; another result in the end; hidden files."""


# processes of a server that has imported what takes seconds: kills come while the program works
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["iasolve.cli.answer", "iasolve.cli.solvers", "iasolve.cli.commands.denoise"])


def _program(out: Path, places: Sequence[str], options: Sequence[str]) -> ForkServerProcess:
    out.mkdir(exist_ok=True)
    process = _CONTEXT.Process(target=_main, args=(["denoise", *(place.format(out) for place in places), *options],))
    process.start()
    return process


def _main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what runs in the background
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    main(arguments)


def _images(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.npy")}


def _run(out: Path, places: Sequence[str], options: Sequence[str]) -> Undisturbed:
    begun = time.perf_counter()
    process = _program(out, places, options)
    process.join()
    if process.exitcode:
        raise SystemExit(f"the undisturbed run ended with {process.exitcode}")
    return Undisturbed(_images(out), time.perf_counter() - begun)


def _killed(
    out: Path,
    places: Sequence[str],
    options: Sequence[str],
    again: Sequence[str],
    undisturbed: Undisturbed,
    kill: tuple[str, float],
) -> dict[str, int]:
    """What was wrong with one run after the kill, and with the next."""
    process = _program(out, places, options)
    time.sleep(kill[1])
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, getattr(signal, kill[0]))
    process.join()
    before = list(out.rglob("*"))
    tally = {
        "reached": bool(before) and process.exitcode != 0,
        "partial": any(undisturbed.files[name] != data for name, data in _images(out).items()),
        "unsealed": any(not path.with_name(path.stem).exists() for path in out.glob("*.json")),
    }
    done = undisturbed.files == _images(out) and all((out / f"{name}.json").is_file() for name in undisturbed.files)
    # where a single result is there already, it is refused, and what the killed process left hidden is removed
    process = _program(out, places, [*options, *again])
    process.join()
    tally["not resumed"] = (not done and process.exitcode != 0) or _images(out) != undisturbed.files
    tally["leftovers"] = any(path.name.startswith(".") for path in out.iterdir())
    return {key: int(value) for key, value in tally.items()}
