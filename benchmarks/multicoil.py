"""Multi-coil k-space: held-out k-space error on a real slice, PSNR on simulated ones.

    python benchmarks/multicoil.py                 # everything
    python benchmarks/multicoil.py --quick         # about a minute, for a look
    python benchmarks/multicoil.py --part full     # the fully measured slice

*Real*: the bundled slice (8 coils, 8x undersampled) has no ground truth. A tenth of the measured positions outside the
sampled centre is hidden from every method, which then predicts it: relative error of the prediction. The baselines'
weights are chosen by the error on another tenth; iasolve has nothing to choose, its noise level is estimated. Maps come
from the same ESPIRiT for all; real images carry the estimated phase, complex ones need none. What is hidden holds
noise, which nothing predicts: its share, by the estimated level (an upper bound), is told beside the errors.

*Full*: real k-space with a truth, see measured_coils.py.

*Simulated*: test slices seen by 8 birdcage coils, 4x lines, sigma in units of the image's standard deviation, maps
given to all methods. Weights of total variation are tuned on validation slices.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import torch
import typer
from coil_methods import RECIPES, Seen, classical_methods, hide, own_methods, tuned
from measured_coils import full_slice
from reconstruction import tune
from torch import Tensor

import common
import iasolve
from iasolve.classical.sense import total_variation_sense
from iasolve.metrics import mean_interval
from iasolve.operators import (
    GaussianNoise,
    SensitivityEncoding,
    acceleration,
    birdcage_maps,
    centred_ifft2,
    compress_coils,
    line_mask,
    root_sum_of_squares,
)
from iasolve.reconstruction.multicoil import pose_coils
from iasolve.samples import load_kspace

mpl.use("Agg")
from matplotlib import pyplot as plt

SIGMA, COILS = 0.02, 8


# ------------------------------------------------------------------------------------------- real data


def real_slice(priors: list[Any], seed: int, draws: int, quick: bool, out: Path) -> tuple[dict[str, Any], str]:
    """Held-out error of every method."""
    y = torch.from_numpy(load_kspace().kspace)
    if quick:  # lower resolution and fewer coils: another, easier problem
        y = compress_coils(y[:, 43:187, 34:146], 4).kspace
    generator = torch.Generator().manual_seed(seed)
    methods = classical_methods(quick)
    for prior in priors:
        methods += own_methods(prior, seed, quick)
    errors: dict[str, list[float]] = {m.name: [] for m in methods}
    weights: dict[str, float] = {}
    pictures: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    floors = []
    for draw in range(draws):
        rest, hidden = hide(y, generator)
        seen = Seen(rest)
        floors.append(seen.sigma * int((hidden != 0).sum()) ** 0.5 / float(torch.linalg.vector_norm(hidden)))
        if draw == 0:
            fewer, chosen_by = hide(rest, generator)
            trial = Seen(fewer)
            for method in methods:
                if method.start is not None:
                    weights[method.name] = tuned(method, trial, chosen_by)
        for method in methods:
            error, image, took = method.error(seen, hidden, weights.get(method.name, 0.0))
            errors[method.name].append(error)
            if draw == 0:
                pictures[method.name], seconds[method.name] = image[0].abs(), took
                typer.echo(f"{method.name}: {error:.4f}, {took:.1f} s")
    name = "multicoil-quick" if quick else "multicoil"
    shown = {"zero-filled, root sum of squares": root_sum_of_squares(centred_ifft2(y))[0]}
    shown |= {n: p for n, p in pictures.items() if n != "zero-filled" and "real" not in n}
    panel(shown, out / f"{name}.png")
    posed = pose_coils(y, is_complex=priors[0].spectrum.is_complex)
    results = {
        m.name: {"error": errors[m.name], "weight": weights.get(m.name), "seconds": seconds[m.name]} for m in methods
    }
    rows = [
        [n, f"{np.mean(r['error']):.3f}", "" if r["weight"] is None else f"{r['weight']:.3g}", f"{r['seconds']:.1f}"]
        for n, r in results.items()
    ]
    size = "x".join(map(str, y.shape[1:]))
    text = f"{len(y)} coils, {size}, {posed.facts['acceleration']:.2f}x; mean of {draws} draw(s) of what is hidden. "
    text += f"Noise alone: {np.mean(floors):.3f}.\n\n"
    return {"facts": posed.facts, "noise_alone": floors, "methods": results}, text + common.table(
        ["method", "held-out error", "weight", "s"], rows
    )


def panel(shown: dict[str, Tensor], path: Path) -> None:
    """The images side by side, each up to its own brightest."""
    columns = (len(shown) + 1) // 2
    figure, axes = plt.subplots(2, columns, figsize=(2.4 * columns, 6.8), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image) in zip(axes.flat, shown.items(), strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=float(np.percentile(image, 99.5)))
        axis.set_title(name.replace(", ", "\n"), fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


# -------------------------------------------------------------------------------------- simulated data


def simulated(
    prior: Any, data: Path | None, seed: int, count: int, validation: int, quick: bool
) -> tuple[dict[str, Any], str]:
    """PSNR of test slices through birdcage coils."""
    if prior.spectrum.is_complex:
        raise SystemExit("the simulated slices are real: choose a prior over real images, or --part real")
    maps = birdcage_maps((128, 128), COILS).to(torch.complex64)
    operator = SensitivityEncoding(maps, line_mask((128, 128), 4, 0.08, seed=seed), torch.float32)

    def measured(part: str, number: int, draw: int) -> tuple[Tensor, Tensor]:
        x = common.pick(common.slices(data, part), number, seed)
        y = GaussianNoise(SIGMA).sample(operator(x), torch.Generator().manual_seed(draw))
        return x, operator.mask * y

    def tv(y: Tensor, weight: float, nonnegative: bool) -> Tensor:
        return total_variation_sense(operator, y, SIGMA, weight, nonnegative=nonnegative).image

    images, y = measured("validation", validation, seed + 1000)
    weights, start = {}, 4.0
    for name, nonnegative in (("TV-SENSE", False), ("TV-SENSE, x >= 0", True)):

        def score(weight: float, nonnegative: bool = nonnegative) -> float:
            return float(common.psnr(tv(y, weight, nonnegative), images).mean())

        weights[name] = start = tune(score, start, 2.0 if quick else 1.25)[0]
    x, y = measured("test", count, seed)
    methods: dict[str, Callable[[], Tensor]] = {
        "zero-filled": lambda: operator.adjoint(y),
        "TV-SENSE": lambda: tv(y, weights["TV-SENSE"], False),
        "TV-SENSE, x >= 0": lambda: tv(y, weights["TV-SENSE, x >= 0"], True),
    }
    for recipe in RECIPES[:1] if quick else RECIPES:
        methods[f"iasolve {recipe}"] = lambda recipe=recipe: (
            iasolve.solve(  # type: ignore[misc]
                y, operator, prior, noise=GaussianNoise(SIGMA), recipe=recipe, seed=seed
            ).image
        )
    results: dict[str, Any] = {}
    rows = []
    for name, method in methods.items():
        estimate, seconds = common.timed(method, count)
        scores = common.psnr(estimate, x).ravel()
        results[name] = {"psnr": scores.tolist(), "seconds": seconds, "weight": weights.get(name)}
        typer.echo(f"{name}: {scores.mean():.2f} dB")
    for name, found in results.items():
        over = np.array(found["psnr"]) - np.array(results["TV-SENSE"]["psnr"])
        rows.append(
            [
                name,
                f"{np.mean(found['psnr']):.2f}",
                common.signed(mean_interval(over)),
                f"{found['seconds']:.1f}",
            ]
        )
    text = f"{count} test slice(s), {COILS} coils, {acceleration(operator.mask):.2f}x lines, sigma {SIGMA}.\n\n"
    return {"methods": results}, text + common.table(
        ["method", "PSNR dB", "over TV-SENSE, dB (95 %)", "CPU s / image"], rows
    )


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Name or path.")] = "mri-t1-128",
    complex_prior: Annotated[str, typer.Option(help="One over complex images, for the real slice; '' for none.")] = (
        "mri-complex-128"
    ),
    part: Annotated[str, typer.Option(help="all, real, full or simulated.")] = "all",
    count: Annotated[int, typer.Option(help="Test slices.")] = 12,
    validation: Annotated[int, typer.Option(help="Validation slices for the weights of total variation.")] = 6,
    draws: Annotated[int, typer.Option(help="How often another part of the k-space is hidden.")] = 3,
    seed: Annotated[int, typer.Option(help="Of slices, masks, noise and what is hidden.")] = 0,
    quick: Annotated[bool, typer.Option(help="Two slices, one draw, lower resolution, no refinement.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = common.RESULTS,
) -> None:
    """Run the benchmark and write Markdown, JSON and the picture."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    if quick:
        count, validation, draws = 2, 1, 1
    loaded = iasolve.load_prior(prior)
    report: dict[str, Any] = common.provenance(seed, loaded, quick=quick)
    lines = [
        "# Multi-coil k-space\n",
        common.stamp(report) + "\n",
    ]
    if quick:
        lines.append("`--quick`: a look, no result. Lower resolution, 4 coils, no refinement.\n")
    if part not in ("all", "real", "full", "simulated"):
        raise SystemExit(f"--part must be all, real, full or simulated, got {part}")
    priors = [loaded] + ([iasolve.load_prior(complex_prior)] if complex_prior else [])
    if part in ("all", "full"):
        report["full"], text = full_slice(priors, seed, quick)
        lines += ["## Fully measured slice: root sum of squares of all data\n", text]
    if part in ("all", "real"):
        report["real_priors"] = [[p.name, p.card["training"]["images"], p.card["sha256"]] for p in priors]
        report["real"], text = real_slice(priors, seed, draws, quick, out)
        lines += ["## Real slice: held-out k-space\n", text]
    if part in ("all", "simulated"):
        report["simulated"], text = simulated(loaded, data, seed, count, validation, quick)
        lines += ["## Simulated coils\n", text]
    common.write("multicoil-quick" if quick else "multicoil", report, "\n".join(lines), out)
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
