"""Trainings in order, a few minutes at a time: each command goes on where the last one stopped.

    cd benchmarks && IASOLVE_DATA=data python -m gpu.trainings --minutes 8 --runs runs
    cd benchmarks && python -m gpu.trainings --quick --runs runs        # a tiny network on the processor

The configurations are trained one after the other, each to the number of images that it names: priors to bundle, then
the paper's sizes, each with its vanilla twin; of a configuration with a reader, the hierarchy and then the reader. A
command stops at the last validation that its minutes allow and says what is left; the state stays in ``--runs``.
What is finished is copied to ``--out``, cut into files of at most 15 MB (``cat NAME.part* > NAME`` joins them).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from iasolve.training import Status, TrainingConfig, load_config, train

ROOT = Path(__file__).parents[2]
ORDER = (
    *(f"iasolve/priors/weights/{name}.toml" for name in ("photo-grey-128", "photo-128", "mri-any-128")),
    *(f"benchmarks/configs/cifar10-paper{twin}.toml" for twin in ("", "-vanilla")),
    *(f"benchmarks/configs/mri-complex-128-paper{twin}.toml" for twin in ("", "-vanilla")),
)
LARGEST = 15_000_000


class TimeIsUp(Exception):  # noqa: N818 - says what happened
    """The command's minutes are over; the checkpoint is that of the last validation."""


class Clock:
    """Ends a training at a validation after which another window would not fit.

    Parameters
    ----------
    end : float
        ``time.monotonic()`` that is not to be passed.
    """

    def __init__(self, end: float) -> None:
        self.end, self.last = end, time.monotonic()

    def __call__(self, status: Status) -> None:
        """Called by the training."""
        if status.stage != "validation":
            return
        now, window = time.monotonic(), time.monotonic() - self.last
        self.last = now
        if now + window > self.end:
            raise TimeIsUp


def tiny(folder: Path) -> list[TrainingConfig]:
    """A configuration of seconds, with the images that it needs, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(size=(40, 16, 16))
    smooth = np.cumsum(np.cumsum(noise, 1), 2)
    np.savez(folder / "smooth.npz", images=smooth - smooth.min((1, 2), keepdims=True) + 1)
    five = [8] * 5
    table = {
        "name": "smooth",
        "network": {"size": 16, "grid_cap": 8, "widths": five, "layers": [1] * 5, "latents": [2] * 5}
        | {"encoder_blocks": [1] * 5},
        "data": {"path": "smooth.npz"},
        "degradations": [{"sigma": [0.01, 1.0]}],
        "optimisation": {"images": 96, "batch": 8, "validate_every": 16},
        "reader": {"widths": [8, 8], "blocks": [1, 1], "embedding": 8, "crop": 8},
    }
    return [TrainingConfig.from_dict(table, folder)]


def work(configs: list[TrainingConfig], runs: Path, out: Path, end: float, device: str) -> list[str]:
    """Train until the time is up; what is left to do."""
    left = []
    for config in configs:
        for part in ("hierarchy", "reader") if config.reader is not None else ("hierarchy",):
            name = config.name + ("" if part == "hierarchy" else f"-{part}")
            folder, done = runs / name, runs / name / "done"
            if done.exists():
                continue
            if time.monotonic() >= end:
                left.append(name)
                continue
            resume = (folder / "checkpoint.safetensors").is_file()
            start = runs / config.name / f"{config.name}.safetensors" if part == "reader" and not resume else None
            try:
                path = train(config, folder, resume=resume, init=start, device=device, part=part, callback=Clock(end))
            except TimeIsUp:
                row = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
                left.append(f"{name} ({row['images']} of its images seen)")
                continue
            deliver([path, path.with_suffix(".json"), folder / "log.jsonl"], out / name)
            done.touch()
    return left


def deliver(paths: list[Path], folder: Path) -> None:
    """Copy files, large ones in parts."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        content = path.read_bytes()
        if len(content) <= LARGEST:
            shutil.copy(path, folder / path.name)
            continue
        for number, begin in enumerate(range(0, len(content), LARGEST)):
            (folder / f"{path.name}.part{number}").write_bytes(content[begin : begin + LARGEST])


def main() -> None:
    """Train, and say what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="of this command, its start aside")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, help="finished priors and logs; by default RUNS/finished")
    parser.add_argument("--only", default="", help="parts of the configurations' names, divided by commas")
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if not asked.quick and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: --quick trains a tiny network on the processor")
    end = time.monotonic() + 60 * asked.minutes
    configs = tiny(asked.runs / "quick") if asked.quick else [load_config(ROOT / path) for path in ORDER]
    configs = [c for c in configs if any(word in c.name for word in asked.only.split(","))]
    left = work(configs, asked.runs, asked.out or asked.runs / "finished", end, "cpu" if asked.quick else "cuda")
    print(f"left: {', '.join(left)}; the same command goes on" if left else "all are finished")


if __name__ == "__main__":
    main()
