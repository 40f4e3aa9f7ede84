"""Choose the recipes' objective, step size and number of steps on validation slices.

    python benchmarks/tune_recipes.py                     # all tasks; writes results/tune_recipes.{json,md}
    python benchmarks/tune_recipes.py --only lines

For every task and setting: mean PSNR over validation slices and the paired gain over the amortized guess. The
values in ``recipes/*.toml`` are read off this table by hand.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

import common
import iasolve
from common import RECIPES, TASKS
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Prior, by name or path")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Validation slices")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of slices, masks and noise")] = 0,
    only: Annotated[str, typer.Option(help="Comma-separated parts of task names")] = "",
    steps: Annotated[str, typer.Option(help="Numbers of steps to try")] = "25,50",
    sizes: Annotated[str, typer.Option(help="Step sizes to try")] = "0.02,0.05,0.1",
    quick: Annotated[bool, typer.Option(help="2 slices, few settings: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the search."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    if quick:
        count, steps, sizes = 2, "5", "0.05"
    loaded = iasolve.load_prior(prior)
    images = common.pick(common.slices(data, "validation"), count, seed)
    grid = list(
        itertools.product(
            ("variational", "map"), [int(n) for n in steps.split(",")], [float(s) for s in sizes.split(",")]
        )
    )
    report: dict[str, Any] = {"about": common.provenance(seed, loaded, images=count, part="validation"), "tasks": {}}
    lines = [f"# Recipes on {count} validation slices\n"]
    lines.append(f"Prior {loaded.name}, {report['about']['prior_images_seen']} images seen; seed {seed}.\n")
    for task in TASKS:
        if only and not any(o in task.name for o in only.split(",")):
            continue
        operator, y = common.measure(task, images, seed)
        noise = GaussianNoise(task.sigma)
        guess = common.psnr(iasolve.solve(y, operator, loaded, noise=noise, recipe="fast").image, images)
        rows = []
        entry = []
        base = iasolve.load_recipe(RECIPES[task.kind])
        for objective, number, size in track(grid, description=task.name):
            recipe = base.changed(objective=objective, steps=number, step_size=size)
            result = iasolve.solve(y, operator, loaded, noise=noise, recipe=recipe, seed=seed)
            found = common.psnr(result.image, images)
            gain, low, high = mean_interval(found - guess)
            rows.append([objective, number, size, f"{found.mean():.2f}", f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"])
            entry.append(
                {"objective": objective, "steps": number, "step_size": size, "psnr": float(found.mean()), "gain": gain}
            )
        rows.sort(key=lambda row: -float(str(row[3])))
        report["tasks"][task.name] = {"guess": float(guess.mean()), "settings": entry}
        lines.append(f"\n## {task.name}: guess {guess.mean():.2f} dB\n")
        lines.append(common.table(["objective", "steps", "step size", "PSNR dB", "over the guess (95 %)"], rows))
        common.write("tune_recipes-quick" if quick else "tune_recipes", report, "\n".join(lines), out)
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
