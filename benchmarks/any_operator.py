"""Operators that no network was trained for and that are not diagonal in Fourier space, against total variation.

    python benchmarks/any_operator.py                       # some twenty minutes on one core
    python benchmarks/any_operator.py --only "radon,pixels" # parts of the names
    python benchmarks/any_operator.py --quick

Test slices, the same recipe for every operator. Total variation is bounded to x >= 0, which is the better of the two,
solved to convergence, its weight tuned for each operator on validation slices. Noise is a fraction of the measurement's
root mean square. The last columns let iasolve estimate the noise level.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import torch
import typer
from reconstruction import tune
from torch import Tensor

import common
import iasolve
from iasolve.classical.sense import total_variation_sense
from iasolve.metrics import mean_interval
from iasolve.operators import (
    BlockAverage,
    Convolution,
    GaussianNoise,
    LinearOperator,
    NonUniformFourier,
    PixelMask,
    Radon,
    gaussian_kernel,
    motion_kernel,
)

mpl.use("Agg")
from matplotlib import pyplot as plt

SIZE = 128
SHAPE = (1, SIZE, SIZE)
RECIPES = ("fast", "compressed-sensing")


def radial(spokes: int) -> Tensor:
    """Positions ``(spokes, 2 SIZE, 2)`` on straight lines through the centre of k-space, cycles per field of view."""
    angles = torch.arange(spokes) * torch.pi / spokes
    along = (torch.arange(2 * SIZE) - SIZE) / 2
    return torch.stack([torch.outer(angles.sin(), along), torch.outer(angles.cos(), along)], dim=-1)


@dataclass(frozen=True)
class Case:
    """``noise``: a fraction of the measurement's root mean square; ``weight``: where the tuning of TV begins."""

    name: str
    make: Callable[[], LinearOperator]
    noise: float
    weight: float

    def measured(self, images: Tensor, seed: int) -> tuple[LinearOperator, Tensor, float]:
        """The operator, measurements and the noise level; what the operator never sees stays 0."""
        operator = self.make()
        clean = operator(images)
        sigma = self.noise * float(clean.abs().square().mean().sqrt())
        y = GaussianNoise(sigma).sample(clean, torch.Generator().manual_seed(seed))
        blind = operator(torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))) == 0
        return operator, torch.where(blind, torch.zeros_like(y), y), sigma


CASES = (
    Case("radon, 18 angles", lambda: Radon(np.linspace(0, 180, 18, endpoint=False), SHAPE, circle=False), 0.02, 20.0),
    Case("radial k-space, 24 spokes", lambda: NonUniformFourier(radial(24), SHAPE), 0.02, 20.0),
    Case("30 % of the pixels", lambda: PixelMask(_some_pixels(0.3), SHAPE), 0.05, 10.0),
    Case("2 x 2 pixels in one", lambda: BlockAverage(2, SHAPE), 0.02, 20.0),
    Case("blur 2 px, no boundary", lambda: Convolution(gaussian_kernel(2.0), SHAPE, boundary="valid"), 0.05, 10.0),
    Case(
        "motion 9 px, reflecting boundary", lambda: Convolution(motion_kernel(9.0, 30.0), SHAPE, boundary="reflect"),
        0.02, 20.0,
    ),
)  # fmt: skip


def _some_pixels(share: float) -> Tensor:
    return torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(0)) < share


def run_case(case: Case, prior: Any, x: Tensor, validation: Tensor, seed: int, quick: bool) -> dict[str, Any]:
    """PSNR of every slice, and processor seconds a slice, by method."""
    operator, y, sigma = case.measured(validation, seed + 1000)

    def tv(y: Tensor, sigma: float, weight: float) -> Tensor:
        return total_variation_sense(
            operator, y, sigma, weight, nonnegative=True, max_iterations=50 if quick else 1000
        ).image

    weight, grid = tune(
        lambda w: float(common.psnr(tv(y, sigma, w), validation).mean()), case.weight, 2.0 if quick else 1.5
    )
    operator, y, sigma = case.measured(x, seed)

    def ours(recipe: str, known: bool) -> iasolve.Result:
        noise = GaussianNoise(sigma) if known else None
        return iasolve.solve(y, operator, prior, noise=noise, recipe=recipe, seed=seed)

    methods: dict[str, Callable[[], Any]] = {"total variation, x >= 0": lambda: tv(y, sigma, weight)}
    for recipe in RECIPES[:1] if quick else RECIPES:
        methods[f"iasolve {recipe}"] = lambda recipe=recipe: ours(recipe, True)  # type: ignore[misc]
    methods["noise level estimated"] = lambda: ours("fast" if quick else "compressed-sensing", False)
    found: dict[str, Any] = {"weight": weight, "grid": grid, "sigma": sigma, "methods": {}, "images": {}}
    for name, method in methods.items():
        result, seconds = common.timed(method, len(x))
        image = result if isinstance(result, Tensor) else result.image
        found["methods"][name] = {"psnr": common.psnr(image, x).ravel().tolist(), "seconds": seconds}
        found["images"][name] = image[0, 0]
        if name == "noise level estimated":
            found["estimated"] = (torch.as_tensor(result.sigma) / sigma).tolist()
        typer.echo(f"{case.name}, {name}: {np.mean(found['methods'][name]['psnr']):.2f} dB, {seconds:.1f} s")
    return found


def panel(found: dict[str, dict[str, Any]], truth: Tensor, path: Path) -> None:
    """The first slice of every case."""
    names = [n for n in next(iter(found.values()))["images"] if n != "noise level estimated"]
    figure, axes = plt.subplots(
        len(found),
        1 + len(names),
        figsize=(2.2 * (1 + len(names)), 2.3 * len(found)),
        layout="constrained",
        squeeze=False,
    )
    for row, (case, entry) in zip(axes, found.items(), strict=True):
        shown = {"truth": truth, **{n: entry["images"][n] for n in names}}
        for axis, (name, image) in zip(row, shown.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=float(truth.max()))
            axis.set_xticks([])
            axis.set_yticks([])
            score = "" if name == "truth" else f"\n{entry['methods'][name]['psnr'][0]:.1f} dB"
            axis.set_title(f"{name}{score}", fontsize=7)
        row[0].set_ylabel(case, fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Name or path")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Test slices")] = 12,
    validation: Annotated[int, typer.Option(help="Validation slices for the weights of total variation")] = 4,
    only: Annotated[str, typer.Option(help="Comma-separated parts of case names")] = "",
    seed: Annotated[int, typer.Option(help="Of slices and noise")] = 0,
    quick: Annotated[bool, typer.Option(help="Two slices, no refinement: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the benchmark and write Markdown, JSON and the picture."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    if quick:
        count, validation = 2, 1
    loaded = iasolve.load_prior(prior)
    x = common.pick(common.slices(data, "test"), count, seed)
    held = common.pick(common.slices(data, "validation"), validation, seed + 1000)
    found = {case.name: run_case(case, loaded, x, held, seed, quick) for case in common.chosen(CASES, only)}
    name = "any_operator-quick" if quick else "any_operator"
    panel(found, x[0, 0], out / f"{name}.png")
    rows = []
    for case, entry in found.items():
        entry.pop("images")
        scores = {n: np.array(m["psnr"]) for n, m in entry["methods"].items()}
        reference = scores["total variation, x >= 0"]
        best = scores[f"iasolve {'fast' if quick else 'compressed-sensing'}"]
        ratio = entry["estimated"]
        seconds = [f"{m['seconds']:.1f}" for n, m in entry["methods"].items() if n != "noise level estimated"]
        rows.append(
            [
                case,
                *(f"{s.mean():.2f}" for n, s in scores.items() if n != "noise level estimated"),
                common.signed(mean_interval(best - reference)),
                f"{scores['noise level estimated'].mean():.2f}",
                f"{min(ratio):.2f} to {max(ratio):.2f}",
                " / ".join(seconds),
            ]
        )
    report = common.provenance(seed, loaded, quick=quick, count=count, cases=found)
    shown = RECIPES[:1] if quick else RECIPES
    header = ["operator", "TV, x >= 0", *shown, "over TV, dB (95 %)", "noise level estimated", "its ratio", "s / slice"]
    text = f"# Other operators\n\nMean PSNR in dB over {count} test slice(s), 128x128. {common.stamp(report)}\n\n"
    text += "`--quick`: a look, no result.\n\n" if quick else ""
    text += common.table(header, rows)
    text += (
        "\nCPU seconds: total variation, then the recipes. `noise level estimated`: the last recipe, no `noise` told.\n"
    )
    common.write(name, report, text, out)
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
