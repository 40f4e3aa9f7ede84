"""Error bars: how often the truth lies in the 90 % interval, for each bundled prior and task, image and part of it.

    python benchmarks/error_bars.py                     # 24 test images of each prior, all tasks
    python benchmarks/error_bars.py --quick             # two images, one task: a look, not a result
    python benchmarks/error_bars.py --only "photo"      # parts of the priors' names

A pixel counts as covered where the truth lies within 1.645 error bars of the result. A mean over all pixels hides much:
an error bar that is too long in smooth parts and too short in texture may be right on average. So pixels are told apart
by how much there is to see around them, in five parts of equal size, and images one by one.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import mr_contrasts
import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F

import common
import iasolve
from common import RECIPES, TASKS, Task
from iasolve.inference.solve import without_steps
from iasolve.operators import GaussianNoise
from iasolve.training.config import load_config
from iasolve.training.data import find
from iasolve.training.folder import read_images
from iasolve.training.partition import load_partition

WEIGHTS = Path(__file__).parents[1] / "iasolve" / "priors" / "weights"
PRIORS = ("mri-t1-128", "mri-any-128", "photo-grey-128", "photo-128")
NINETY = 1.645
PARTS = 5


def test_images(prior: str, count: int) -> Tensor:
    """Test images of a bundled prior, ``(count, C, 128, 128)``, of unit standard deviation."""
    if prior == "mri-t1-128":
        found = common.pick(common.slices(None, "test"), count, 0)
    elif prior == "mri-any-128":
        found = _spread(torch.cat(list(mr_contrasts.slices("test", 128).values())), count)
    else:
        if prior == "photo-grey-128":
            pictures = [pixels for _, pixels in read_images(find("bsd68-gray.zip"), channels=1)]
        else:
            path = WEIGHTS / f"{prior}.toml"
            pictures = load_partition(load_config(path).data.sources[1], path.parent).test
        middles = [p[:, (p.shape[1] - 128) // 2 :, (p.shape[2] - 128) // 2 :][:, :128, :128] for p in pictures]
        found = _spread(torch.from_numpy(np.stack(middles).astype(np.float32)), count)
    return found / found.std((1, 2, 3), keepdim=True)


def _spread(images: Tensor, count: int) -> Tensor:
    return images[torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()]


def parts_of(images: Tensor) -> Tensor:
    """Number 0 to 4 of the part ``(B, 1, H, W)`` that a pixel is in: by the contrast of the truth in 5 x 5 pixels."""
    grey = images.mean(1, keepdim=True)
    contrast = F.avg_pool2d(grey.square(), 5, 1, 2) - F.avg_pool2d(grey, 5, 1, 2).square()
    bounds = torch.linspace(0, 1, PARTS + 1)[1:-1]
    numbers = [torch.bucketize(one.flatten(), one.flatten().quantile(bounds)) for one in contrast]
    return torch.stack(numbers).reshape(contrast.shape)


def covered(prior: Any, task: Task, recipe: str, images: Tensor, samples: int, seed: int) -> dict[str, Any]:
    """Shares of pixels in the 90 % interval, and the mean square of the error over that of the error bar."""
    chosen = without_steps(iasolve.load_recipe(recipe), prior)
    if chosen.takes_steps:
        chosen = chosen.changed(samples=samples)
    groups = common.measure(task, images, seed)
    noise = GaussianNoise(task.sigma)
    results = [iasolve.solve(g.y, g.operator, prior, noise=noise, recipe=chosen, seed=seed) for g in groups]
    bar = torch.cat([r.std for r in results if r.std is not None])
    error = (torch.cat([r.image for r in results]) - images).abs()
    inside = (error < NINETY * bar).float()
    part = parts_of(images).expand_as(images)
    each = inside.mean((1, 2, 3))
    return {
        "whole": float(inside.mean()),
        "parts": [float(inside[part == n].mean()) for n in range(PARTS)],
        "images": [float(each.min()), float(each.max())],
        "squared": float(error.square().mean() / bar.square().mean()),
    }


def main(
    count: Annotated[int, typer.Option(help="Test images of each prior")] = 24,
    only: Annotated[str, typer.Option(help="Comma-separated parts of the priors' names")] = "",
    samples: Annotated[int, typer.Option(help="Of recipes whose error bar takes samples")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of masks, noise and samples")] = 0,
    quick: Annotated[bool, typer.Option(help="2 images of the first prior, one task: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the table. Data are looked for in the folder that IASOLVE_DATA names."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    names = [n for n in PRIORS if not only or any(part in n for part in only.split(","))][: 1 if quick else None]
    if not names:
        raise SystemExit(f"--only {only}: no such prior; there are {', '.join(PRIORS)}")
    report: dict[str, Any] = {"about": {}, "priors": {}}
    text = ["# Error bars\n", __doc__.split("\n\n")[-1]]
    for name in names:
        prior = iasolve.load_prior(name)
        images = test_images(name, 2 if quick else count)
        about = common.provenance(seed, prior, images=len(images), samples=samples)
        report["about"][name], report["priors"][name] = about, {}
        rows = []
        for task in TASKS[1:2] if quick else TASKS:
            for recipe in dict.fromkeys(("fast", RECIPES[task.kind])):
                found = covered(prior, task, recipe, images, samples, seed)
                report["priors"][name][f"{task.name}, {recipe}"] = found
                shares = " ".join(f"{100 * share:.0f}" for share in found["parts"])
                low, high = (f"{100 * share:.0f}" for share in found["images"])
                squared = f"{found['squared']:.2f}"
                rows.append([task.name, recipe, f"{100 * found['whole']:.0f}", shares, f"{low} to {high}", squared])
                typer.echo(f"{name}: {' | '.join(rows[-1])}", err=True)
        header = ["task", "recipe", "covered, %", "smooth to textured, %", "single images, %", "squared error / bar"]
        text += [f"## {name}\n", f"{len(images)} test images. {common.stamp(about)}\n", common.table(header, rows)]
        common.write(f"error_bars{'-quick' if quick else ''}", report, "\n".join(text), out)


if __name__ == "__main__":
    typer.run(main)
