"""Choose the recipes' views, passes and steps on validation slices.

    python benchmarks/tune_recipes.py                     # all tasks; writes results/tune_recipes.{json,md}
    python benchmarks/tune_recipes.py --only lines

For every task and setting: mean PSNR over validation slices and the paired gain over the amortized guess. The
values in ``recipes/*.toml`` are read off this table by hand.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

import common
import iasolve
from common import RECIPES, TASKS
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise


def candidates(views: str, passes: str, ends: str, steps: str, offsets: str, sizes: str) -> Iterator[dict[str, Any]]:
    """Changes to a recipe: moved views, further passes, gradient steps, and passes with steps."""
    counts, numbers = [int(n) for n in passes.split(",")], [int(n) for n in steps.split(",")]
    guess = {"passes": 0, "steps": 0, "views": 1, "refined_views": 0, "variables": "latents"}
    for number in map(int, views.split(",")):
        yield guess | {"views": number}
    for count, end in itertools.product(counts, map(float, ends.split(","))):
        yield guess | {"passes": count, "coupling_end": end}
    for number, size in itertools.product(numbers, map(float, sizes.split(","))):
        steps_of = {"steps": number, "step_size": size}
        yield guess | steps_of | {"schedule": "joint", "objective": "variational", "optimizer": "adam"}
        for count in (0, max(counts)):
            again = guess | {"passes": count} | steps_of | {"schedule": "whole"}
            yield again | {"objective": "map", "optimizer": "adam"}
    newton = {"schedule": "whole", "optimizer": "lbfgs", "step_size": 0.1}
    for objective, count in itertools.product(("map", "expected"), (0, max(counts))):
        quasi = guess | newton | {"passes": count, "objective": objective}
        for number in numbers:
            yield quasi | {"steps": number, "variables": "latents"}
        for number in map(int, offsets.split(",")):
            yield quasi | {"steps": number, "variables": "offsets"}
    # of the moved views some are refined
    for number, count in itertools.product(map(int, offsets.split(",")), map(int, views.split(","))):
        for refined in sorted({max(1, count // 2), count}):
            many = {"views": count, "refined_views": refined, "steps": number}
            yield guess | newton | many | {"objective": "expected", "variables": "offsets"}


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Prior, by name or path")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Validation slices")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of slices, masks and noise")] = 0,
    only: Annotated[str, typer.Option(help="Comma-separated parts of task names")] = "",
    views: Annotated[str, typer.Option(help="Numbers of views to try")] = "4",
    passes: Annotated[str, typer.Option(help="Numbers of passes to try")] = "8",
    ends: Annotated[str, typer.Option(help="Last coupling levels to try")] = "0.05",
    steps: Annotated[str, typer.Option(help="Numbers of steps to try")] = "10,25",
    offsets: Annotated[str, typer.Option(help="Numbers of steps of offsets to try")] = "3,5,10",
    sizes: Annotated[str, typer.Option(help="Step sizes of Adam to try")] = "0.1",
    quick: Annotated[bool, typer.Option(help="2 slices, few settings: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the search."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    if quick:
        count, views, passes, ends, steps, offsets, sizes = 2, "2", "2", "0.05", "5", "2", "0.05"
    loaded = iasolve.load_prior(prior)
    images = common.pick(common.slices(data, "validation"), count, seed)
    grid = list(candidates(views, passes, ends, steps, offsets, sizes))
    report: dict[str, Any] = {"about": common.provenance(seed, loaded, images=count, part="validation"), "tasks": {}}
    lines = [f"# Recipes on {count} validation slices\n"]
    lines.append(f"Prior {loaded.name}, {report['about']['prior_images_seen']} images seen; seed {seed}.\n")
    for task in common.chosen(TASKS, only):
        groups = common.measure(task, images, seed)

        def score(recipe: Any, task: Any = task, groups: Any = groups) -> tuple[Any, float, float]:
            """PSNR per image, objective in nats, seconds per image."""
            noise = GaussianNoise(task.sigma)
            found = [iasolve.solve(g.y, g.operator, loaded, noise=noise, recipe=recipe, seed=seed) for g in groups]
            nats = sum(float(row["after"].sum()) for r in found for row in r.scales) / len(images)
            seconds = sum(r.seconds for r in found) / len(images)
            return common.psnr(torch.cat([r.image for r in found]), images), nats, seconds

        guess, nats, seconds = score(iasolve.load_recipe("fast"))
        base = iasolve.load_recipe(RECIPES[task.kind])
        entry = [{"changes": {}, "psnr": float(guess.mean()), "gain": 0.0, "nats": nats, "seconds": seconds}]
        shown = {}
        for changes in track(grid, description=task.name):
            found, nats, seconds = score(common.changed(base, **changes))
            gain = mean_interval(found - guess)
            label = (
                ", ".join(f"{k} {v}" for k, v in changes.items() if common.changed(base, **{k: v}) != base)
                or "the recipe"
            )
            shown[label] = [label, f"{found.mean():.2f}", common.signed(gain)]
            shown[label] += [f"{nats:.0f}", f"{seconds:.2f}"]
            entry.append(
                {"changes": changes, "psnr": float(found.mean()), "gain": gain[0], "nats": nats, "seconds": seconds}
            )
        rows = sorted(shown.values(), key=lambda row: -float(row[1]))
        report["tasks"][task.name] = {"guess": float(guess.mean()), "settings": entry}
        lines.append(
            f"\n## {task.name}: guess {guess.mean():.2f} dB, objective {entry[0]['nats']:.0f} nats, "
            f"{entry[0]['seconds']:.2f} s\n"
        )
        lines.append(common.table(["changes", "PSNR dB", "over the guess (95 %)", "objective", "s / image"], rows))
        common.write("tune_recipes-quick" if quick else "tune_recipes", report, "\n".join(lines), out)
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
