"""The output as scales are added, coarse to fine: the paper's Figure 3.

    python benchmarks/fig3_scales.py --quick

The decoder is separable: the sum of the first contributions is the final image without its finer rings. Hybrid
inference of clean images, beta 1, closing off. The dotted line is what the rings that are missing cost by themselves,
the least error that so many scales allow.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import quality
import torch
import typer
from clean_inference import FROM_GUESS, infer, recipe_of, tuned_settings
from torch import Tensor

import common
import iasolve
from iasolve.operators import LowPass

mpl.use("Agg")
from matplotlib import pyplot as plt


def partial_sums(images: Tensor, scales: tuple[int, ...]) -> list[Tensor]:
    """Images without the rings beyond each scale, ``(n, C, N, N)`` each."""
    return [LowPass(s, tuple(images.shape[1:]), images.dtype)(images) for s in scales]


def errors(partial: list[Tensor], images: Tensor) -> np.ndarray:
    """MSE of each image at each number of scales, ``(S, n)``."""
    return torch.stack([(p - images).abs().square().mean((-3, -2, -1)) for p in partial]).numpy()


def panel(axes: Any, partial: list[Tensor], images: Tensor, scales: tuple[int, ...], found: np.ndarray) -> None:
    """Rows of images: partial sums with their mean MSE above, the original last."""
    # a constant shown by its own brightest value would be white, whatever it is
    shown = [quality.on_screen(p, images) for p in [*partial, images]]
    for column, content in enumerate(shown):
        for row in range(len(axes)):
            axes[row, column].imshow(content[row], cmap="gray", vmin=0, vmax=1)
            axes[row, column].axis("off")
        last = column == len(scales)
        title = "image" if last else f"up to {scales[column]}\nMSE {found[column].mean():.4f}"
        axes[0, column].set_title(title, fontsize=7)


def figure(shown: dict[str, dict[str, Any]], rows: int, path: Path) -> None:
    """Pictures of each data set, and MSE against the number of scales."""
    width = max(len(entry["scales"]) for entry in shown.values()) + 1
    size = (1.15 * width + 3.2, (1.35 * rows + 0.4) * len(shown))
    grid = plt.figure(figsize=size, layout="constrained")
    parts = grid.subfigures(len(shown), 2, width_ratios=[1.15 * width, 3.2], squeeze=False)
    for (pictures, curve), (name, entry) in zip(parts, shown.items(), strict=True):
        scales = entry["scales"]
        axes = pictures.subplots(rows, len(scales) + 1, squeeze=False)
        panel(axes, entry["partial"], entry["images"], scales, entry["mse"])
        pictures.suptitle(quality.TITLES[name], fontsize=8)
        axis = curve.subplots()
        axis.plot(range(1, len(scales) + 1), entry["mse"].mean(1), "o-", ms=3, label="output")
        axis.plot(range(1, len(scales)), entry["least"].mean(1)[:-1], ":", color="black", label="missing rings alone")
        axis.set_yscale("log")
        axis.set_xlabel("scales", fontsize=7)
        axis.set_ylabel("MSE", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=6)
    grid.savefig(path, dpi=80)
    plt.close(grid)


def main(
    data: quality.Data = None,
    cifar10: quality.Cifar10 = "cifar10-clean",
    mri: quality.ComplexMri = "mri-complex-128-clean",
    only: quality.Only = "",
    count: Annotated[int, typer.Option(help="Test images of each set")] = 32,
    rows: Annotated[int, typer.Option(help="Images shown of each set")] = 2,
    steps: Annotated[int, typer.Option(help="Steps of hybrid inference")] = 25,
    method: Annotated[str, typer.Option(help="hybrid: scale by scale; whole: all scales at once")] = "hybrid",
    tuned: quality.Tuned = None,
    batch: quality.Batch = 32,
    seed: quality.Seed = 0,
    quick: quality.Quick = False,
    out: quality.Out = common.RESULTS,
) -> None:
    """Make the figure."""
    if quick:
        count, steps = 4, 2
    if method not in FROM_GUESS:
        raise SystemExit(f"--method {method}: there are {', '.join(FROM_GUESS)}")
    sets = quality.chosen_sets({"cifar10": cifar10, "mri-complex": mri}, only)
    settings = tuned_settings(tuned)
    name = f"fig3_scales{'-quick' if quick else ''}{'-' + only if only else ''}"
    out.mkdir(parents=True, exist_ok=True)
    shown: dict[str, dict[str, Any]] = {}
    priors: list[iasolve.HVAEPrior] = []
    with quality.progress_bar() as bar:
        for data_set, source in sets.items():
            images = quality.images_of(data_set, "test", count, seed, data)
            prior = quality.loaded(source, images)
            priors.append(prior)
            recipe = recipe_of(method, steps, settings.get(data_set, {}).get(method, {}))
            task = bar.add_task(data_set, total=len(images))
            found = infer(prior, images, recipe, seed, batch, lambda n, t=task: bar.advance(t, n))
            scales = prior.spectrum.scales
            partial = partial_sums(found.image, scales)
            least = errors(partial_sums(images, scales), images)
            shown[data_set] = {"scales": scales, "partial": partial, "images": images, "least": least}
            shown[data_set]["mse"] = errors(partial, images)
    about = common.provenance(
        seed, priors[0], priors=[p.name for p in priors], images=count, steps=steps, method=method
    )
    report: dict[str, Any] = {"about": about | {"load": os.getloadavg()}, "sets": {}}
    text = ["# The output as scales are added\n", quality.describe(about, priors)]
    text.append(f"Hybrid inference of {count} clean test images, {steps} steps ({method}), beta 1, closing off.\n")
    for data_set, entry in shown.items():
        lines, cells = [], []
        for scale, mse, least in zip(entry["scales"], entry["mse"], entry["least"], strict=True):
            lines.append([str(scale), quality.spread(mse, 5), quality.spread(least, 5)])
            cells.append({"scale": scale, "mse": quality.mean_interval(mse), "least": quality.mean_interval(least)})
        report["sets"][data_set] = cells
        text.append(f"\n## {quality.TITLES[data_set]}\n\n{quality.NOTES[data_set]}\n")
        text.append(common.table(["scales up to", "MSE (95 %)", "missing rings alone"], lines))
    common.write(name, report, "\n".join(text), out)
    figure(shown, min(rows, count), out / f"{name}.png")
    typer.echo("\n".join(text))


if __name__ == "__main__":
    typer.run(main)
