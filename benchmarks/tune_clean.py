"""Choose the steps of ``table1_inference_quality.py`` on validation images; writes results/tune_clean.{json,md}.

    python benchmarks/tune_clean.py --only cifar10

Per data set and method, every combination of objective, optimizer, variables and step size at N = 25, on images that
training left out and that are no test images. Chosen is the lowest MSE among the combinations that do not make the
evidence bound worse; of points (iterative inference), which have no bound, the lowest MSE.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import quality
import typer
from clean_inference import Found, Setting
from quality import percent

import common
from iasolve.metrics import mean_interval

SIZES = {"adam": "0.02,0.05,0.1,0.2", "gradient": "0.01,0.03,0.1,0.3", "lbfgs": "0.1,0.3"}
METHODS = ("hybrid", "whole", "vanilla", "iterative")


def candidates(method: str, sizes: dict[str, list[float]]) -> Iterator[dict[str, Any]]:
    """Changes to the recipe."""
    for objective, optimizer in itertools.product(("variational", "map", "expected"), sizes):
        if optimizer == "lbfgs":
            # it needs an objective without draws
            fits = objective != "variational"
        elif method == "iterative":
            # it starts far off: Adam with steps in units of the prior
            fits = (objective, optimizer) == ("map", "adam")
        else:
            fits = objective != "expected"
        for size in sizes[optimizer] if fits else ():
            changes = {"objective": objective, "optimizer": optimizer, "step_size": size}
            yield changes
            if optimizer == "lbfgs" and method in ("whole", "vanilla"):
                # a vanilla decoder's latents move all at once whatever the schedule
                yield changes | {"variables": "offsets", "schedule": "whole"}


def judged(changes: dict[str, Any], found: Found, base: Found) -> dict[str, Any]:
    """A candidate's paired comparison with the amortized guess."""
    return {
        "changes": changes,
        "mse_change": quality.change_of_mean(found.mse, base.mse),
        "negative_elbo_change": mean_interval(base.elbo - found.elbo),
        "seconds": found.seconds,
    }


def best(entries: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """The lowest MSE among those that do not make the bound worse; the least bad bound where all do."""
    allowed = [e for e in entries if method == "iterative" or e["negative_elbo_change"][0] <= 0]
    if not allowed:
        return min(entries, key=lambda e: e["negative_elbo_change"][0])
    return min(allowed, key=lambda e: e["mse_change"][0])


def main(
    data: quality.Data = None,
    cifar10: quality.Cifar10 = "cifar10-clean",
    cifar10_vanilla: quality.Twin = "cifar10-clean-vanilla",
    mri: quality.ComplexMri = "mri-complex-128-clean",
    mri_vanilla: quality.Twin = "mri-complex-128-clean-vanilla",
    only: quality.Only = "",
    methods: Annotated[str, typer.Option(help="Which methods")] = ",".join(METHODS),
    count: Annotated[int, typer.Option(help="Validation images of each set")] = 32,
    steps: Annotated[int, typer.Option(help="Steps")] = 25,
    adam: Annotated[str, typer.Option(help="Step sizes of Adam")] = SIZES["adam"],
    gradient: Annotated[str, typer.Option(help="Step sizes of gradient steps")] = SIZES["gradient"],
    lbfgs: Annotated[str, typer.Option(help="First steps of quasi-Newton steps")] = SIZES["lbfgs"],
    batch: quality.Batch = 32,
    seed: quality.Seed = 0,
    quick: quality.Quick = False,
    out: quality.Out = common.RESULTS,
) -> None:
    """Run the search; data sets and methods that are not asked for keep what the results have of them."""
    if quick:
        count, steps, adam, gradient, lbfgs = 4, 2, "0.05", "0.03", "0.1"
    sizes = {
        name: [float(size) for size in given.split(",")]
        for name, given in {"adam": adam, "gradient": gradient, "lbfgs": lbfgs}.items()
    }
    name = f"tune_clean{'-quick' if quick else ''}"
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"about": {}, "chosen": {}, "tried": {}}
    if (out / f"{name}.json").is_file():
        report |= json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    sources = quality.chosen_sets({"cifar10": (cifar10, cifar10_vanilla), "mri-complex": (mri, mri_vanilla)}, only)
    with quality.progress_bar() as bar:
        for data_set, (separable, vanilla) in sources.items():
            images = quality.images_of(data_set, "validation", count, seed, data)
            for method in methods.split(","):
                prior = quality.loaded(vanilla if method == "vanilla" else separable, images)
                grid = list(candidates(method, sizes))
                task = bar.add_task(f"{data_set}, {method}", total=(len(grid) + 1) * len(images))
                setting = Setting(images, {"separable": prior, "vanilla": prior}, {}, seed, batch)
                advance = partial(bar.advance, task)
                base = setting.run(method, 0, len(images), advance)
                entries = []
                for changes in grid:
                    found = replace(setting, chosen={method: changes}).run(method, steps, len(images), advance)
                    entries.append(judged(changes, found, base))
                report["chosen"].setdefault(data_set, {})[method] = best(entries, method)["changes"]
                report["tried"].setdefault(data_set, {})[method] = entries
                about = common.provenance(seed, prior, images=len(images), steps=steps, load=os.getloadavg())
                report["about"].setdefault(data_set, {})[method] = about
                common.write(name, report, page(report), out)
    typer.echo(page(report))


def page(report: dict[str, Any]) -> str:
    """Everything tried, what was chosen in bold."""
    lines = ["# Steps of clean inference, chosen on validation images\n"]
    for data_set, methods in report["tried"].items():
        for method, entries in methods.items():
            about = report["about"][data_set][method]
            lines.append(f"\n## {quality.TITLES[data_set]}, {method}\n")
            lines.append(
                f"Prior `{about['prior']}`, {about['prior_images_seen']} images seen; {about['images']} validation "
                f"images, {about['steps']} steps; commit {about['commit']}; seed {about['seed']}.\n"
            )
            rows = []
            for entry in entries:
                changes = entry["changes"]
                mark = "**" if changes == report["chosen"][data_set][method] else ""
                words = [f"{mark}{changes[key]}{mark}" for key in ("objective", "optimizer", "step_size")]
                words.insert(2, f"{mark}{changes.get('variables', 'latents')}{mark}")
                bound = "-" if method == "iterative" else common.signed(entry["negative_elbo_change"], 4)
                rows.append([*words, percent(entry["mse_change"]), bound, f"{entry['seconds']:.3f}"])
            header = [
                "objective",
                "optimizer",
                "variables",
                "step size",
                "MSE against N = 0",
                "-ELBO / dim against N = 0",
                "s / image",
            ]
            lines.append(common.table(header, rows))
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
