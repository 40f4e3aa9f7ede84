"""How well a measurement chooses its prior: test images of all bundled grey priors, every task.

    python benchmarks/prior_choice.py                   # 24 test images of each prior, all tasks
    python benchmarks/prior_choice.py --quick           # two images, one task: a look, not a result

Each prior solves each measurement with the recipe ``fast``, and the choice is compared with what came out best. A
choice is called wrong where its result lies more than 0.1 dB below the best prior's.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from error_bars import test_images

import common
import iasolve
from common import TASKS, Task
from iasolve.inference import choose_prior
from iasolve.operators import GaussianNoise

PRIORS = ("mri-t1-128", "mri-any-128", "photo-grey-128")
WRONG = 0.1
"""dB."""

HEADER = ("task", "test images of", "images")
FIGURES = ("lost, dB", "most, dB", "CPU s, choice", "CPU s, `fast`")


def compare(group: common.Group, task: Task, priors: list[Any], seed: int) -> dict[str, Any]:
    """PSNR of every prior's result for one measurement, the choice, and processor seconds of choice and solution."""
    noise = GaussianNoise(task.sigma)
    begun = time.process_time()
    chosen = choose_prior(group.y, group.operator, priors, noise=noise, seed=seed).prior.name
    middle = time.process_time()
    found = {}
    for prior in priors:
        result = iasolve.solve(group.y, group.operator, prior, noise=noise, recipe="fast", seed=seed)
        found[prior.name] = float(common.psnr(result.image, group.images)[0])
    ended = time.process_time()
    return {
        "chosen": chosen,
        "psnr": found,
        "lost": max(found.values()) - found[chosen],
        "seconds": [middle - begun, (ended - middle) / len(priors)],
    }


def main(
    count: Annotated[int, typer.Option(help="Test images of each prior")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of masks and noise")] = 0,
    quick: Annotated[bool, typer.Option(help="2 images of each prior, one task: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the table. Data are looked for in the folder that IASOLVE_DATA names."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    priors = [iasolve.load_prior(name) for name in PRIORS]
    about = {p.name: common.provenance(seed, p, images=2 if quick else count) for p in priors}
    cases: list[dict[str, Any]] = []
    rows = []
    for task in TASKS[1:2] if quick else TASKS:
        for name in PRIORS:
            images = test_images(name, 2 if quick else count)
            found = [
                compare(group, task, priors, seed)
                for number in range(len(images))
                for group in common.measure(task, images[number : number + 1], seed + number)
            ]
            cases += [{"task": task.name, "images": name} | one for one in found]
            lost = np.array([one["lost"] for one in found])
            taken = " ".join(str(sum(one["chosen"] == other for one in found)) for other in PRIORS)
            choice, solution = np.array([one["seconds"] for one in found]).mean(0)
            figures = [f"{lost.mean():.3f}", f"{lost.max():.2f}", f"{choice:.2f}", f"{solution:.2f}"]
            rows.append([task.name, name, len(found), taken, int((lost > WRONG).sum()), *figures])
            typer.echo(" | ".join(map(str, rows[-1])), err=True)
    lost = np.array([case["lost"] for case in cases])
    wrong = int((lost > WRONG).sum())
    text = [
        "# The choice among priors\n",
        __doc__.split("\n\n")[-1],
        *(common.stamp(one) + "\n" for one in about.values()),
        f"Wrong: {wrong} of {len(cases)} ({100 * wrong / len(cases):.1f} %). Lost on average: {lost.mean():.3f} dB.\n",
        common.table([*HEADER, f"chosen: {', '.join(PRIORS)}", "wrong", *FIGURES], rows),
    ]
    report = {"about": about, "wrong": wrong, "cases": cases}
    common.write(f"prior_choice{'-quick' if quick else ''}", report, "\n".join(text), out)


if __name__ == "__main__":
    typer.run(main)
