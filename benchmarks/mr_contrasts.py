"""MR of other contrasts and organs: noise, 4x k-space lines and blur, at 128 and 256 pixels.

    python benchmarks/mr_contrasts.py                   # everything
    python benchmarks/mr_contrasts.py --quick           # two minutes, one slice of three sets at 128, for a look
    python benchmarks/mr_contrasts.py --only "acdc"     # parts of the sets' names

Slices of the test part of ``mri-any-256.npz``, grouped by source and contrast, whose subjects are in no training part.
``siat_t2`` is left out: it holds images that older papers tested on. At 256 a slice is as the file has it, smaller ones
in zeros; at 128, 2 x 2 pixels are averaged. Sigma is in units of the image's standard deviation, tasks as in the main
table. Total variation's weight is tuned for each task and size on the validation part.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from block_matching import bm3d_deblur, bm3d_denoise
from comparison import Scores
from reconstruction import tune
from torch import Tensor

import common
import iasolve
from common import RECIPES, TASKS, Task
from iasolve import Recipe, load_recipe
from iasolve.classical import total_variation
from iasolve.inference.solve import without_steps
from iasolve.operators import GaussianNoise, gaussian_kernel
from iasolve.training.data import find

LEFT_OUT = "siat_t2"
TV_START = {"denoise": 2.0, "lines": 40.0, "blur": 10.0}


def slices(part: str, size: int) -> dict[str, Tensor]:
    """Slices ``(n, 1, size, size)`` of unit standard deviation by source and contrast."""
    with np.load(find("mri-any-256.npz"), allow_pickle=False) as data:
        keep = (data["split"] == part) & (data["source"] != LEFT_OUT)
        names = np.array([f"{s}, {c}" for s, c in zip(data["source"][keep], data["contrast"][keep], strict=True)])
        images = torch.from_numpy(data["images"][keep].astype(np.float32))[:, None]
    factor = images.shape[-1] // size
    images = torch.nn.functional.avg_pool2d(images, factor)
    images = images / images.flatten(1).std(1, correction=0)[:, None, None, None]
    return {str(name): images[torch.from_numpy(names == name)] for name in np.unique(names)}


def tv(task: Task, groups: list[common.Group], weight: float, iterations: int) -> Tensor:
    """Total variation, ``x >= 0``."""
    folded = common.folded_measurement(task, groups)
    precision, value = 1 / folded.variance, folded.value
    return total_variation(precision, value, weight, nonnegative=True, max_iterations=iterations).image


def tuned(task: Task, images: Tensor, seed: int, quick: bool) -> float:
    """The weight of total variation that is best on validation slices."""
    trials = common.measure(task, images, seed + 1000)
    iterations = 60 if quick else 500
    return tune(
        lambda weight: float(common.psnr(tv(task, trials, weight, iterations), images).mean()),
        TV_START[task.kind],
        2.0 if quick else 1.25,
    )[0]


def compare(task: Task, images: Tensor, weight: float, prior: Any, recipes: tuple[str, ...], seed: int) -> Scores:
    """Every method on one set's slices."""
    groups = common.measure(task, images, seed)
    quick = len(recipes) == 1
    methods: dict[str, Callable[[], Tensor]] = {
        "input": lambda: torch.cat([g.operator.adjoint(g.y) for g in groups]),
        "TV, x >= 0": partial(tv, task, groups, weight, 100 if quick else 2000),
    }
    if task.kind == "denoise":
        methods["BM3D"] = lambda: bm3d_denoise(torch.cat([g.y for g in groups]), task.sigma)
    if task.kind == "blur":
        kernel = gaussian_kernel(task.value)
        methods["BM3D"] = lambda: bm3d_deblur(torch.cat([g.y for g in groups]), task.sigma, kernel)
    for name in recipes:
        recipe = without_steps(load_recipe(name), prior)

        def ours(recipe: Recipe = recipe) -> Tensor:
            noise = GaussianNoise(task.sigma)
            results = [iasolve.solve(g.y, g.operator, prior, noise=noise, recipe=recipe, seed=seed) for g in groups]
            return torch.cat([r.image for r in results])

        methods[f"iasolve {name}"] = ours
    scores = Scores()
    scores.run(methods, images)
    return scores


def summary(cases: dict[str, dict[str, Scores]]) -> str:
    """For each task, by how much the best of iasolve is ahead of each classical method, and on how many sets."""
    rows = []
    for task, sets in cases.items():
        ours = [n for n in next(iter(sets.values())).psnr if n.startswith("iasolve")][-1]
        for rival in ("BM3D", "TV, x >= 0"):
            gaps = [float(np.mean(s.psnr[ours]) - np.mean(s.psnr[rival])) for s in sets.values() if rival in s.psnr]
            if gaps:
                ahead = f"{sum(g > 0 for g in gaps)} of {len(gaps)}"
                rows.append([task, ours, rival, f"{np.mean(gaps):+.2f}", f"{min(gaps):+.2f}", ahead])
    return common.table(["task", "method", "against", "mean over sets, dB", "worst set, dB", "sets ahead"], rows)


def main(
    prior: Annotated[str, typer.Option(help="Prior, by name or path")] = "mri-any-128",
    count: Annotated[int, typer.Option(help="Slices of each set, evenly spread")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of masks and noise")] = 0,
    sizes: Annotated[str, typer.Option(help="Comma-separated: 128, 256")] = "128,256",
    only: Annotated[str, typer.Option(help="Comma-separated parts of the sets' names")] = "",
    quick: Annotated[bool, typer.Option(help="1 slice of 3 sets at 128, fewer tasks: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the tables. The data file is looked for in the folder that IASOLVE_DATA names."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    loaded = iasolve.load_prior(prior)
    names = (
        ("denoise 0.3", "lines 4x", "blur 2 px")
        if quick
        else tuple(t.name for t in TASKS if t.kind in TV_START and t.name != "lines 8x")
    )
    tasks = [task for task in TASKS if task.name in names]
    report: dict[str, Any] = {"about": common.provenance(seed, loaded, quick=quick, left_out=LEFT_OUT), "sizes": {}}
    text = ["# MR of other contrasts and organs\n", common.stamp(report["about"]) + "\n"]
    name = f"mr_contrasts{'-quick' if quick else ''}"
    for size in (128,) if quick else tuple(int(s) for s in sizes.split(",")):
        sets = {n: v for n, v in slices("test", size).items() if not only or any(o in n for o in only.split(","))}
        if not sets:
            raise SystemExit(f"--only {only}: no such set; there are {'; '.join(slices('test', size))}")
        sets = dict(list(sets.items())[:3]) if quick else sets
        tuning = torch.cat(
            [v[:: max(1, len(v) // 4)][: 1 if quick else 4] for v in slices("validation", size).values()]
        )
        cases: dict[str, dict[str, Scores]] = {}
        details = []
        for task in tasks:
            weight = tuned(task, tuning, seed, quick)
            recipes = ("fast",) if quick else ("fast", RECIPES[task.kind])
            cases[task.name] = {}
            for set_name, images in sets.items():
                few = min(len(images), 1 if quick else count)
                picks = np.linspace(0, len(images) - 1, few).round().astype(int)
                scores = compare(task, images[torch.from_numpy(picks)], weight, loaded, recipes, seed)
                scores.say(f"{size}, {task.name}, {set_name}")
                cases[task.name][set_name] = scores
                rival = "BM3D" if "BM3D" in scores.psnr else "TV, x >= 0"
                details += [f"\n### {size} x {size}, {task.name}, {set_name}, {few} slices\n", scores.table(rival)]
        report["sizes"][size] = {t: {s: v.to_dict() for s, v in c.items()} for t, c in cases.items()}
        text += [f"\n## {size} x {size}\n", summary(cases), *details]
        common.write(name, report, "\n".join(text), out)
    typer.echo("\n".join(text))


if __name__ == "__main__":
    typer.run(main)
