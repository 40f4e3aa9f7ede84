"""What each part of a prior is worth: hierarchy, reader, passes, views, steps; by task, with error by ring.

    python benchmarks/ablation.py             # 64 test slices
    python benchmarks/ablation.py --quick     # 4 slices, for a look

All rows of a task are of the same measurements, the test slices of ``reconstruction.py``. The *hierarchy* is the prior
without its reader, as in version 0.1.0; *joined* is the mean of reader and hierarchy. Answers are the prior's own: the
fallback to a linear estimate is off. Seconds are of the processor, one thread, reading included.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import common
import iasolve
from common import RECIPES, TASKS, Task
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise
from iasolve.spectrum import fft2, rings_at


def variants(prior: iasolve.HVAEPrior, recipe: iasolve.Recipe) -> dict[str, tuple[Any, iasolve.Recipe]]:
    """Prior and recipe of each row."""
    hierarchy = iasolve.HVAEPrior(prior.network, prior.name, prior.card, prior.path)
    reader = iasolve.ReaderPrior(prior.reader, prior.name, prior.card, prior.path) if prior.reader else None
    plain, steps = {"count": 0}, {"count": recipe.steps.most or 3}
    one = recipe.changed(views=1, passes=plain, steps=plain)
    rows: dict[str, tuple[Any, iasolve.Recipe]] = {"hierarchy, one guess": (hierarchy, one)}
    if recipe.passes.count:
        rows["hierarchy, passes and steps"] = (hierarchy, recipe.changed(steps=steps))
    else:
        rows["hierarchy, 4 views, 2 of them with steps"] = (hierarchy, recipe.changed(views=4, steps=steps))
    if reader is not None:
        rows["reader, one reading (fast)"] = (reader, one)
        rows["reader, 4 views"] = (reader, one.changed(views=4))
        if recipe.passes.count:
            rows["reader, passes"] = (reader, recipe.changed(steps=plain))
        else:
            rows["joined, 4 views (the recipe)"] = (prior, recipe)
        rows["joined, with steps" + (" (the recipe)" if recipe.passes.count else "")] = (
            prior,
            recipe.changed(steps=steps),
        )
    return rows


def by_ring(estimates: Tensor, references: Tensor, size: int) -> list[float]:
    """Mean squared error of each ring, over the whole error of the images."""
    ring, count = rings_at((references.shape[-2], references.shape[-1]), size)
    squared = fft2(estimates - references).abs().square().mean((0, 1)).flatten()
    sums = squared.new_zeros(len(count)).index_add(0, ring.flatten(), squared)
    return [float(v) for v in sums / squared.numel()]


def measured(
    groups: list[common.Group], task: Task, prior: Any, recipe: iasolve.Recipe, seed: int
) -> tuple[Tensor, float, float]:
    """Images, coverage of the stated 90 % interval, and processor seconds an image, without error bars."""
    images, hits, seconds = [], [], 0.0
    for group in groups:
        asked: dict[str, Any] = {"noise": GaussianNoise(task.sigma), "seed": seed, "warn": False, "fallback": False}
        begun = time.process_time()
        images.append(iasolve.solve(group.y, group.operator, prior, recipe=recipe, **asked).image)
        seconds += time.process_time() - begun
        sampled = iasolve.solve(group.y, group.operator, prior, recipe=recipe, samples=8, **asked)
        hits.append((sampled.image - group.images).abs() <= 1.6449 * sampled.std)
    whole = torch.cat(images)
    return whole, float(torch.cat(hits).float().mean()), seconds / len(whole)


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Prior, by name or path")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Slices")] = 64,
    part: Annotated[str, typer.Option(help="test, or validation while tuning")] = "test",
    only: Annotated[str, typer.Option(help="Comma-separated parts of task names")] = "",
    seed: Annotated[int, typer.Option(help="Seed of slices, masks and noise")] = 0,
    quick: Annotated[bool, typer.Option(help="4 slices: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the table."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    loaded = iasolve.load_prior(prior)
    references = common.pick(common.slices(data, part), 4 if quick else count, seed)
    about = common.provenance(seed, loaded, images=len(references), part=part, threads=torch.get_num_threads())
    report: dict[str, Any] = {"about": about, "tasks": {}}
    lines = [f"# What each part is worth: {len(references)} {part} slices\n", common.stamp(about) + "\n"]
    for task in common.chosen(TASKS, only):
        typer.echo(task.name, err=True)
        groups = common.measure(task, references, seed)
        entry: dict[str, Any] = {}
        rows, first = [], None
        for name, (who, recipe) in variants(loaded, iasolve.load_recipe(RECIPES[task.kind])).items():
            images, covered, seconds = measured(groups, task, who, recipe, seed)
            value = common.psnr(images, references)
            first = value if first is None else first
            rings = by_ring(images, references, loaded.spectrum.size)
            entry[name] = {"psnr": float(value.mean()), "coverage_90": covered, "seconds": seconds, "rings": rings}
            share = " ".join(f"{1e3 * v:.2f}" for v in rings[3:])
            gain = common.signed(mean_interval(value - first))
            rows.append([name, f"{value.mean():.2f}", gain, f"{100 * covered:.0f} %", f"{seconds:.2f}", share])
        report["tasks"][task.name] = entry
        scales = ", ".join(str(s) for s in loaded.spectrum.scales[3:])
        header = ["", "PSNR", "over the first row", "90 % covers", "seconds", f"error of rings {scales}, thousandths"]
        lines += [f"\n## {task.name}\n", common.table(header, rows)]
    name = f"ablation{'' if part == 'test' else '-' + part}{'-quick' if quick else ''}"
    common.write(name, report, "\n".join(lines) + "\n", out)


if __name__ == "__main__":
    typer.run(main)
