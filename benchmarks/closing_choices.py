"""What the closing is worth: its error model, and the bound x >= 0, on validation slices.

    python benchmarks/closing_choices.py               # minutes; writes results/closing_choices.{json,md}
    python benchmarks/closing_choices.py --quick       # 2 slices: a look, not a result

The first guess alone (recipe ``fast``, one view), closed in five ways: not at all, with the decoder error the same
everywhere (``stationary``) or following the image (``local``), both with the bound and ``local`` without. Gains are
paired, over ``stationary`` with the bound.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

import common
import iasolve
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise

CLOSINGS = {
    "none": ("none", True),
    "stationary": ("stationary", True),
    "local": ("local", True),
    "stationary, no bound": ("stationary", False),
    "local, no bound": ("local", False),
}
TASKS = tuple(task for task in common.TASKS if task.name in ("denoise 0.1", "denoise 0.3", "lines 4x", "blur 2 px"))


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Prior, by name or path")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Validation slices")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of slices, masks and noise")] = 0,
    quick: Annotated[bool, typer.Option(help="2 slices: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Measure every closing on every task."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    count = 2 if quick else count
    loaded = iasolve.load_prior(prior)
    images = common.pick(common.slices(data, "validation"), count, seed)
    about = common.provenance(seed, loaded, images=count, part="validation")
    report: dict[str, Any] = {"about": about, "tasks": {}}
    lines = [f"# The closing on {count} validation slices\n", f"{common.stamp(about)} Recipe `fast` with one view.\n"]
    for task in track(TASKS, description="tasks"):
        groups = common.measure(task, images, seed)
        scores = {}
        for name, (error, bound) in CLOSINGS.items():
            recipe = common.changed(iasolve.load_recipe("fast"), error=error, views=1)
            # of the prior's answer alone, whatever the solver would put in its place
            options = {"noise": GaussianNoise(task.sigma), "recipe": recipe, "nonnegative": bound, "fallback": False}
            solved = [iasolve.solve(g.y, g.operator, loaded, warn=False, seed=seed, **options).image for g in groups]
            scores[name] = common.psnr(torch.cat(solved), images)
        base = scores["stationary"]
        report["tasks"][task.name] = {name: found.tolist() for name, found in scores.items()}
        rows = [[n, f"{found.mean():.2f}", common.signed(mean_interval(found - base))] for n, found in scores.items()]
        lines += [f"\n## {task.name}\n", common.table(["closing", "PSNR dB", "over stationary (95 %)"], rows)]
        common.write("closing_choices-quick" if quick else "closing_choices", report, "\n".join(lines), out)
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
