"""Deblurring and denoising with IA-HVAE against the vanilla HVAE: the paper's Figure 4, with figures of merit.

    python benchmarks/fig4_inverse_problems.py --quick

*Deblurring*: bins up to scale 8 are measured without noise, the rest comes from the prior. *Denoising*: N(0, 1) noise
on images of unit variance. Both decoders get the same steps, of the same size: IA-HVAE scale by scale, as in the paper,
and all scales at once; vanilla all latents at once through its whole decoder (per latent, the paper's way, costs too
much). The same closing; temperature 0. With encoders that were trained on clean images, as in the paper, and with
encoders that were trained on degraded ones too. A clean encoder is not asked about scales that were not measured: its
guess stops at scale 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import quality
import torch
import typer
from torch import Tensor

import common
import iasolve
from iasolve import metrics
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise, Identity, LinearOperator, LowPass
from iasolve.spectrum import fft2

mpl.use("Agg")
from matplotlib import pyplot as plt

KEPT = 8
TASKS = ("deblur", "denoise")
MEASURES: dict[str, Callable[[Any, Any], float]] = {"psnr": metrics.psnr, "ssim": metrics.ssim, "nmse": metrics.nmse}


class Method(NamedTuple):
    """An encoder's training, a decoder, and its refinement."""

    encoder: str
    decoder: str
    steps: int
    schedule: str = "joint"

    def __str__(self) -> str:
        """As tables and pictures call it."""
        name = "vanilla" if self.decoder == "vanilla" else "IA-HVAE"
        if not self.steps:
            return f"{name}, amortized"
        return f"{name}, N = {self.steps}" + (" at once" if self.schedule == "whole" else "")


def methods_of(encoder: str, steps: int) -> list[Method]:
    """The guess and its refinements; of IA-HVAE scale by scale, and all scales at once as vanilla always is."""
    ours = [Method(encoder, "separable", 0), Method(encoder, "separable", steps)]
    ours.append(Method(encoder, "separable", steps, "whole"))
    return [*ours, Method(encoder, "vanilla", 0), Method(encoder, "vanilla", steps)]


def measurement(task: str, images: Tensor, seed: int) -> tuple[LinearOperator, Tensor, float]:
    """Operator, measured images, and noise level."""
    shape = tuple(images.shape[1:])
    if task == "deblur":
        operator: LinearOperator = LowPass(KEPT, shape, images.dtype)
        return operator, operator(images), 0.0
    noisy = GaussianNoise(1.0).sample(images, torch.Generator().manual_seed(seed))
    return Identity(shape, images.dtype), noisy, 1.0


class Answers(NamedTuple):
    """Of every method: images, their figures of merit, and seconds an image."""

    images: dict[Method, Tensor]
    merits: dict[Method, dict[str, np.ndarray]]
    seconds: dict[Method, float]


def answer(
    task: str,
    images: Tensor,
    methods: dict[Method, iasolve.HVAEPrior],
    recipe: iasolve.Recipe,
    seed: int,
    batch: int,
    advance: Callable[[Method], object],
) -> tuple[Tensor, Answers]:
    """The measurement of a task, and what every method makes of it; the recipe is the same for all."""
    operator, y, sigma = measurement(task, images, seed)
    found = Answers({}, {}, {})
    for method, prior in methods.items():
        stop = KEPT if task == "deblur" and method.encoder == "clean" else "all"
        own = recipe.changed(steps=method.steps, schedule=method.schedule, guess_stop=stop)
        result = iasolve.solve(
            y, operator, prior, noise=GaussianNoise(sigma), recipe=own, seed=seed, batch_size=batch, warn=False
        )
        found.images[method] = result.image
        found.merits[method] = merits(result.image, images)
        found.seconds[method] = result.seconds / len(images)
        advance(method)
    return y, found


def merits(estimates: Tensor, images: Tensor) -> dict[str, np.ndarray]:
    """PSNR in dB, SSIM and NMSE of each image."""
    pairs = list(zip(estimates.numpy(), images.numpy(), strict=True))
    return {name: np.array([measure(e, r) for e, r in pairs]) for name, measure in MEASURES.items()}


def compare(found: dict[Method, dict[str, np.ndarray]], first: Method, second: Method) -> dict[str, Any]:
    """Paired differences, first less second, with 95 % intervals."""
    return {name: mean_interval(found[first][name] - found[second][name]) for name in MEASURES}


def results(answers: Answers) -> tuple[dict[str, Any], str]:
    """A task's part of the report and of the page."""
    found, seconds = answers.merits, answers.seconds
    digits = {"psnr": 2, "ssim": 3, "nmse": 4}
    report: dict[str, Any] = {"methods": [], "differences": []}
    rows, differences = [], []
    for method, values in found.items():
        entry = {name: mean_interval(v) for name, v in values.items()}
        report["methods"].append({**method._asdict(), **entry, "seconds": seconds[method]})
        cells = [quality.spread(values[name], digits[name]) for name in MEASURES]
        rows.append([method.encoder, str(method), *cells, f"{seconds[method]:.3f}"])
    pairs = []
    for encoder in dict.fromkeys(m.encoder for m in found):
        guess, *refined = (m for m in found if m.encoder == encoder and m.decoder == "separable")
        other, theirs = (m for m in found if m.encoder == encoder and m.decoder == "vanilla")
        pairs += [(guess, other), *((m, theirs) for m in refined), *((m, guess) for m in refined), (theirs, other)]
    for first, second in pairs:
        difference = compare(found, first, second)
        report["differences"].append({"first": first._asdict(), "second": second._asdict(), **difference})
        cells = [common.signed(difference[name], digits[name]) for name in MEASURES]
        differences.append([first.encoder, f"{first} over {second}", *cells])
    names = ["PSNR dB", "SSIM", "NMSE"]
    text = common.table(["encoder", "method", *names, "s / image"], rows)
    text += "\nPaired differences (95 %):\n\n" + common.table(["encoder", "", *names], differences)
    return report, text


def log_magnitude(images: Tensor) -> np.ndarray:
    """Of the first image's spectrum, channels averaged, frequency 0 in the middle, ``(H, W)``."""
    return torch.fft.fftshift(torch.log10(fft2(images[:1]).abs().mean(1) + 1e-3), dim=(-2, -1))[0].numpy()


def figure(name: str, pictures: dict[str, dict[str, Tensor]], path: Path) -> None:
    """Per task a row of images and a row of spectra; a column for the image, the measurement, and every method."""
    width = max(len(columns) for columns in pictures.values())
    size = (1.3 * width, 2.75 * len(pictures))
    grid, axes = plt.subplots(2 * len(pictures), width, figsize=size, squeeze=False, layout="constrained")
    for row, (task, columns) in enumerate(pictures.items()):
        image = columns["image"]
        top = image[:1].abs().amax()
        spectrum = log_magnitude(image)
        for column, (title, content) in enumerate(columns.items()):
            shown = (content[:1].abs() if content.is_complex() else content[:1]) / top
            shown = shown.clamp(0, 1)[0].movedim(0, -1).numpy()
            upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
            upper.imshow(shown if shown.shape[-1] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)
            lower.imshow(log_magnitude(content), cmap="magma", vmin=spectrum.min(), vmax=spectrum.max())
            upper.set_title(f"{task}\n{title}" if column == 0 else title, fontsize=6)
    for axis in axes.flat:
        axis.axis("off")
    grid.suptitle(quality.TITLES[name], fontsize=9)
    grid.savefig(path, dpi=85)
    plt.close(grid)


def main(
    data: quality.Data = None,
    cifar10: Annotated[str, typer.Option(help="Evidence-trained prior, by name or path")] = "cifar10",
    cifar10_vanilla: quality.Twin = "cifar10-vanilla",
    cifar10_clean: Annotated[str, typer.Option(help="Clean-trained prior")] = "cifar10-clean",
    cifar10_clean_vanilla: Annotated[str, typer.Option(help="Its vanilla twin")] = "cifar10-clean-vanilla",
    mri: Annotated[str, typer.Option(help="Evidence-trained prior of complex images")] = "mri-complex-128-200k",
    mri_vanilla: quality.Twin = "mri-complex-128-200k-vanilla",
    mri_clean: Annotated[str, typer.Option(help="Clean-trained prior of complex images")] = "mri-complex-128-clean",
    mri_clean_vanilla: Annotated[str, typer.Option(help="Its vanilla twin")] = "mri-complex-128-clean-vanilla",
    only: quality.Only = "",
    encoders: Annotated[str, typer.Option(help="Which trainings of the encoder")] = "clean,evidence",
    count: Annotated[int, typer.Option(help="Test images of each set")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of hybrid inference")] = 25,
    objective: Annotated[str, typer.Option(help="variational or map, for both decoders")] = "variational",
    step_size: Annotated[float, typer.Option(help="Of Adam, for both decoders")] = 0.1,
    closing: Annotated[bool, typer.Option(help="Close with the measurement, both decoders alike")] = True,
    batch: quality.Batch = 32,
    seed: Annotated[int, typer.Option(help="Seed of images, phases, noise and draws")] = 0,
    quick: quality.Quick = False,
    out: quality.Out = common.RESULTS,
) -> None:
    """Make the figure and its table."""
    if quick:
        count, steps = 4, 2
    sources = {
        "cifar10": {"clean": (cifar10_clean, cifar10_clean_vanilla), "evidence": (cifar10, cifar10_vanilla)},
        "mri-complex": {"clean": (mri_clean, mri_clean_vanilla), "evidence": (mri, mri_vanilla)},
    }
    recipe = quality.PAPER_SETTING.changed(closing=closing, objective=objective, step_size=step_size)
    endings = ["-quick" if quick else "", f"-{only}" if only else "", "" if closing else "-no-closing"]
    name = "fig4_inverse_problems" + "".join(endings)
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"about": {}, "sets": {}}
    everyone: list[iasolve.HVAEPrior] = []
    text: list[str] = []
    with quality.progress_bar() as bar:
        for data_set, trainings in quality.chosen_sets(sources, only).items():
            images = quality.images_of(data_set, "test", count, seed, data)
            images = images / images.std((-3, -2, -1), keepdim=True)
            methods: dict[Method, iasolve.HVAEPrior] = {}
            for encoder in encoders.split(","):
                if encoder not in trainings:
                    raise SystemExit(f"--encoders: no {encoder!r}; there are {', '.join(trainings)}")
                priors = dict(zip(("separable", "vanilla"), trainings[encoder], strict=True))
                loaded = {decoder: quality.loaded(source, images) for decoder, source in priors.items()}
                everyone += loaded.values()
                methods |= {m: loaded[m.decoder] for m in methods_of(encoder, steps)}
            bar_task = bar.add_task(data_set, total=len(TASKS) * len(methods) * len(images))
            report["sets"][data_set] = {}
            text.append(f"\n## {quality.TITLES[data_set]}, {len(images)} test images\n\n{quality.NOTES[data_set]}\n")
            pictures: dict[str, dict[str, Tensor]] = {}
            for task in TASKS:

                def advance(
                    method: Method, t: Any = bar_task, of: str = f"{data_set}, {task}", n: int = len(images)
                ) -> None:
                    bar.update(t, advance=n, description=f"{of}, {method.encoder} {method}")

                y, found = answer(task, images, methods, recipe, seed, batch, advance)
                named = {f"{m.encoder} encoder\n{m}": image for m, image in found.images.items()}
                pictures[task] = {"image": images, "measurement": y, **named}
                report["sets"][data_set][task], page = results(found)
                text.append(f"\n### {task}\n\n{page}")
            figure(data_set, pictures, out / f"{name}-{data_set}.png")
    report["about"] = common.provenance(
        seed, everyone[0], priors=[p.name for p in everyone], images=count, recipe=recipe.changed(steps=steps).to_dict()
    ) | {"load": os.getloadavg()}
    head = [
        "# Deblurring and denoising: IA-HVAE against the vanilla HVAE\n",
        quality.describe(report["about"], everyone),
    ]
    head.append(
        f"Deblurring: bins up to scale {KEPT} measured without noise; denoising: N(0, 1) noise on unit variance. "
        f"{steps} steps ({objective}, Adam, step size {step_size:g}), all latents of a scale at once or all of the "
        "hierarchy's (vanilla always); "
        f"{'with' if closing else 'no'} closing, temperature 0.\n"
    )
    common.write(name, report, "\n".join(head + text), out)
    typer.echo("\n".join(head + text))


if __name__ == "__main__":
    typer.run(main)
