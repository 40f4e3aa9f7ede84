"""Amortized, iterative and hybrid inference of clean images, at several numbers of steps: the paper's Table 1.

    python benchmarks/table1_inference_quality.py --quick                    # a look
    python benchmarks/table1_inference_quality.py --only cifar10 --count 256

As in the paper: clean images, beta 1, closing off, temperature 0, encoders trained on clean images. Rows: the amortized
guess; *iterative*, from the prior without encoder (points are refined: a posterior as wide as the prior says nothing);
*hybrid*, steps from the guess; and the vanilla HVAE, hybrid by joint steps through its whole decoder. A last comparison
tells which part of what many steps gain 25 of them reach. Step sizes are those that ``tune_clean.py`` chose on
validation images.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import frechet
import matplotlib as mpl
import numpy as np
import quality
import torch
import typer
from clean_inference import FROM_GUESS, METHODS, NAMES, Found, Setting, share_of_gain, tuned_settings
from quality import percent, spread
from rich.progress import Progress, TaskID
from torch import Tensor

import common
from iasolve.metrics import mean_interval

mpl.use("Agg")
from matplotlib import pyplot as plt

FEATURES = Path(__file__).parent / "features" / "cifar10-classifier.safetensors"
PAPER = {
    "cifar10": {"set": "CIFAR-10, lossless", "mse": {5: -1.0, 25: -2.2}, "seconds": {0: 0.051, 25: 0.156}},
    "mri-complex": {"set": "fastMRI", "mse": {5: -1.9, 25: -8.1}, "seconds": {}},
}
"""The paper's figures: change of the MSE in per cent at so many hybrid steps, and seconds an image."""


def extractor_of(path: Path | None) -> tuple[Callable[[Tensor], Tensor], str]:
    """The feature extractor, and what its distance is called."""
    if path is None:
        from classifier import load_features

        features, card = load_features(FEATURES)
        name = f"Frechet distance of features of a {card['name']} (test accuracy {100 * card['test_accuracy']:.0f} %)"
        return features, f"{name}, which is no FID"
    if path.suffix == ".pth":
        from inception import load_inception

        return load_inception(path), "FID"
    try:
        return torch.jit.load(str(path), map_location="cpu").eval(), f"Frechet distance of {path.name}"
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"{path} is neither a .pth state dict nor a TorchScript module: {error}") from None


def summarise(found: Found, base: Found | None, distance: tuple[float, float, float]) -> dict[str, Any]:
    """A row's means, intervals and paired differences."""
    entry: dict[str, Any] = {
        "mse": mean_interval(found.mse),
        "negative_elbo": mean_interval(-found.elbo),
        "nll": mean_interval(found.nll),
        "frechet": distance,
        "seconds": found.seconds,
    }
    if base is not None:
        entry["mse_change"] = quality.change_of_mean(found.mse, base.mse)
        entry["negative_elbo_change"] = mean_interval(base.elbo - found.elbo)
        entry["nll_change"] = mean_interval(found.nll - base.nll)
        entry["not_worse"] = float((found.mse <= base.mse).mean())
    return entry


def line(method: str, steps: int, found: Found, entry: dict[str, Any]) -> list[str]:
    """A row of the Markdown table."""
    changes = ["-", "-"]
    if "mse_change" in entry:
        changes = [percent(entry["mse_change"]), common.signed(entry["negative_elbo_change"], 4)]
    bound = "-" if method == "iterative" else spread(-found.elbo)
    if method == "iterative":
        changes[1] = "-"
    value, low, _ = entry["frechet"]
    distance = f"{value:.3f} ± {value - low:.3f}"
    name = NAMES.get(method, method) if steps else {"vanilla": "vanilla HVAE, amortized"}.get(method, method)
    cells = [name, str(steps), spread(found.mse, 5), changes[0], bound, changes[1], spread(found.nll, 3)]
    return [*cells, distance, f"{found.seconds:.3f}"]


def long_table(entries: list[dict[str, Any]]) -> str:
    """What many steps gain, and how much of it fewer reach."""
    rows = []
    for entry in entries:
        shares = ["-" if entry[key] is None else percent(entry[key]).replace("+", "") for key in ("mse", "elbo")]
        gains = [percent(entry["mse_change"]), common.signed(entry["negative_elbo_change"], 4)]
        rows.append([NAMES.get(entry["method"], entry["method"]), *gains, *shares, f"{entry['seconds']:.2f}"])
    reached = f"N = {entries[0]['steps']} reaches"
    return common.table(["method", "MSE", "-ELBO / dim", f"{reached}, MSE", f"{reached}, ELBO", "s / image"], rows)


def paper_table(name: str, entries: dict[tuple[str, int], dict[str, Any]]) -> str:
    """The paper's figures, marked as theirs, beside ours."""
    paper = PAPER[name]
    rows = []
    for steps, value in paper["mse"].items():
        ours = [entries.get((method, steps)) for method in FROM_GUESS]
        found = [percent(entry["mse_change"]) if entry else "not run" for entry in ours]
        rows.append([f"MSE, hybrid N = {steps} against amortized", f"{value:+.1f} %", *found])
    for steps, value in paper["seconds"].items():
        ours = [entries.get((method if steps else "amortized", steps)) for method in FROM_GUESS]
        found = [f"{entry['seconds']:.3f}" if entry else "not run" for entry in ours]
        rows.append([f"seconds an image, N = {steps}", f"{value:.3f}", *found])
    return common.table(["", f"paper, theirs ({paper['set']})", "here", "here, all scales at once"], rows)


def figure(report: dict[str, Any], path: Path) -> None:
    """MSE against the number of steps; change of the MSE and of the bound against the amortized guess."""
    sets = report["sets"]
    grid, axes = plt.subplots(len(sets), 3, figsize=(12, 3.2 * len(sets)), squeeze=False, layout="constrained")
    titles = ("MSE", "MSE against amortized, %", "-ELBO against amortized, nats/dim")
    for row, (name, entry) in zip(axes, sets.items(), strict=True):
        for method in dict.fromkeys(r["method"] for r in entry["rows"] if r["method"] != "amortized"):
            curves(row, method, entry["rows"])
        theirs = PAPER[name]["mse"]
        row[1].plot(list(theirs), list(theirs.values()), "kx", label="paper, theirs")
        row[0].set_yscale("log")
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(f"{quality.TITLES[name]}: {title}", fontsize=8)
            axis.set_xlabel("steps", fontsize=8)
            axis.tick_params(labelsize=7)
    # all panels share their colours; a legend in one of them would cover a curve
    known = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    grid.legend(known.values(), known.keys(), loc="outside lower center", ncols=len(known), fontsize=7)
    grid.savefig(path, dpi=100)
    plt.close(grid)


def curves(axes: Any, method: str, rows: list[dict[str, Any]]) -> None:
    """A method's curves in the three panels of a data set."""
    own = [r for r in rows if r["method"] == method or (method in FROM_GUESS and r["method"] == "amortized")]
    steps, style = [r["steps"] for r in own], {"fmt": "o-", "ms": 3, "capsize": 2, "label": NAMES.get(method, method)}
    style["color"] = f"C{METHODS.index(method)}"  # the same in all panels
    axes[0].errorbar(steps, [r["mse"][0] for r in own], **style)
    if method == "iterative":  # not comparable with the guess: off the scale by far
        return
    for axis, key, factor in ((axes[1], "mse_change", 100), (axes[2], "negative_elbo_change", 1)):
        mean, low, high = factor * np.array([r.get(key, (0, 0, 0)) for r in own]).T
        axis.errorbar(steps, mean, yerr=[mean - low, high - mean], **style)


def page(name: str, entry: dict[str, Any], lines: list[list[str]], distance: str) -> list[str]:
    """A data set's part of the Markdown."""
    header = ["method", "N", "MSE", "against own amortized (95 %)", "-ELBO / dim", "against own amortized (95 %)"]
    header += ["NLL / latent", "Frechet", "s / image"]
    out = [f"\n## {quality.TITLES[name]}, {entry['images']} test images\n"]
    out.append(quality.NOTES[name] + "\n")
    out.append(common.table(header, lines))
    out.append(f"\nFrechet: {distance}.\n")
    if entry["long"]:
        out.append(f"What N = {entry['long'][0]['many']} gains, {entry['long'][0]['images']} images:\n")
        out.append(long_table(entry["long"]))
    found = {(r["method"], r["steps"]): r for r in entry["rows"]}
    out.append(paper_table(name, found))
    return out


def rows_of(
    setting: Setting,
    extractor: Callable[[Tensor], Tensor],
    methods: list[str],
    numbers: list[int],
    bar: Progress,
    task: TaskID,
) -> tuple[dict[str, Any], list[list[str]]]:
    """All rows of a data set, for the report and for the page; each is paired with its own prior's guess."""
    images = setting.images
    todo = [("amortized", 0)]
    todo += [(m, n) for m in methods for n in numbers if m != "amortized" and (n or m not in FROM_GUESS)]
    bar.update(task, total=len(todo) * len(images))
    entry: dict[str, Any] = {"images": len(images), "rows": []}
    lines: list[list[str]] = []
    guesses: dict[bool, Found] = {}
    seen = frechet.features_of(extractor, frechet.as_rgb(images, images))
    for method, steps in todo:
        bar.update(task, description=f"{method}, {steps} steps")
        found = setting.run(method, steps, len(images), partial(bar.advance, task))
        base = guesses.get(method == "vanilla")
        guesses.setdefault(method == "vanilla", found)
        shown = frechet.features_of(extractor, frechet.as_rgb(found.image, images))
        summary = summarise(found, base, frechet.jackknife(seen, shown))
        entry["rows"].append({"method": method, "steps": steps, **summary})
        lines.append(line(method, steps, found, summary))
    return entry, lines


def main(
    data: quality.Data = None,
    cifar10: quality.Cifar10 = "cifar10-clean",
    cifar10_vanilla: quality.Twin = "cifar10-clean-vanilla",
    mri: quality.ComplexMri = "mri-complex-128-clean",
    mri_vanilla: quality.Twin = "mri-complex-128-clean-vanilla",
    only: quality.Only = "",
    count: Annotated[int, typer.Option(help="CIFAR-10 test images; 0: all 10,000")] = 256,
    mri_count: Annotated[int, typer.Option(help="MR test slices; 0: all")] = 64,
    steps: Annotated[str, typer.Option(help="Numbers of steps")] = "0,5,10,20,25,50",
    methods: Annotated[str, typer.Option(help="Which rows")] = ",".join(METHODS),
    many: Annotated[int, typer.Option(help="Steps of the reference that tells what there is to gain; 0: none")] = 500,
    many_count: Annotated[int, typer.Option(help="Images of that reference")] = 16,
    tuned: quality.Tuned = None,
    features: Annotated[
        Path | None, typer.Option(help="pt_inception-2015-12-05-6726825d.pth, or a TorchScript module of your own")
    ] = None,
    batch: quality.Batch = 32,
    seed: quality.Seed = 0,
    quick: quality.Quick = False,
    out: quality.Out = common.RESULTS,
) -> None:
    """Run the table."""
    if quick:
        count, mri_count, steps, many, many_count = 4, 4, "0,5", 10, 2
    numbers = sorted({int(n) for n in steps.split(",")} | {0})
    wanted = methods.split(",")
    if unknown := set(wanted) - set(METHODS):
        raise SystemExit(f"--methods: no {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    sets = {"cifar10": (cifar10, cifar10_vanilla, count), "mri-complex": (mri, mri_vanilla, mri_count)}
    sets = quality.chosen_sets(sets, only)
    extractor, distance = extractor_of(features)
    chosen = tuned_settings(tuned)
    name = f"table1_inference_quality{'-quick' if quick else ''}{'-' + only if only else ''}"
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"about": {}, "frechet": distance, "settings": chosen, "sets": {}}
    everyone: list[Any] = []
    text: list[str] = []
    with quality.progress_bar() as bar:
        for data_set, (prior, vanilla, images_count) in sets.items():
            images = quality.images_of(data_set, "test", images_count, seed, data)
            priors = {"separable": quality.loaded(prior, images)}
            if "vanilla" in wanted:
                priors["vanilla"] = quality.loaded(vanilla, images)
            everyone += priors.values()
            setting = Setting(images, priors, chosen.get(data_set, {}), seed, batch)
            task = bar.add_task(data_set, total=None)
            entry, lines = rows_of(setting, extractor, wanted, numbers, bar, task)
            entry["long"] = []
            few = 25 if 25 in numbers else max(numbers)
            for method in (m for m in FROM_GUESS if many and m in wanted):
                task = bar.add_task(f"{data_set}, {method}, {many} steps", total=3 * min(many_count, len(images)))
                advance = partial(bar.advance, task)
                entry["long"].append(share_of_gain(setting, method, few, many, many_count, advance))
            report["sets"][data_set] = entry
            text += page(data_set, entry, lines, distance)
            report["about"] = common.provenance(
                seed, everyone[0], priors=[p.name for p in everyone], load=os.getloadavg(), batch=batch
            )
            head = ["# Inference of clean images: amortized, iterative, hybrid\n"]
            head.append(quality.describe(report["about"], everyone))
            common.write(name, report, "\n".join(head + text), out)
            figure(report, out / f"{name}.png")
    typer.echo("\n".join(head + text))


if __name__ == "__main__":
    typer.run(main)
