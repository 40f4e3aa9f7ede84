"""Deblurring and denoising with IA-HVAE against the vanilla HVAE: the paper's Figure 4, with figures of merit.

    python benchmarks/fig4_inverse_problems.py --quick

*Deblurring*: bins up to scale 8 are measured without noise, the rest comes from the prior. *Denoising*: N(0, 1) noise
on images of unit variance. Both decoders get the same steps, of the same size: IA-HVAE scale by scale, as in the paper;
vanilla all latents at once through its whole decoder (per latent, the paper's way, costs too much). And both get the
kind of steps that was best for them: objective, optimizer, variables, step size and, of IA-HVAE, schedule, chosen per
encoder and task by the mean PSNR of validation images. The same closing; temperature 0. With encoders that were trained
on clean images, as in the paper, and with encoders that were trained on degraded ones too. A clean encoder is not asked
about scales that were not measured: its guess stops at scale 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
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


class Steps(NamedTuple):
    """Kind and size of refinement steps, as a recipe has them."""

    objective: str
    optimizer: str
    step_size: float
    schedule: str = "joint"
    variables: str = "latents"

    def __str__(self) -> str:
        """As pages call it."""
        optimizer = {"adam": "Adam", "lbfgs": "quasi-Newton"}[self.optimizer]
        what = " of offsets" if self.variables == "offsets" else ""
        return f"{self.objective}, {optimizer} {self.step_size:g}{what}" + (
            ", all scales at once" if self.schedule == "whole" else ""
        )


SAME = Steps("variational", "adam", 0.1)
"""What both decoders take alike; a vanilla decoder moves all latents at once whatever the schedule."""
KINDS = (
    SAME,
    Steps("variational", "adam", 0.03),
    Steps("variational", "adam", 0.3),
    Steps("variational", "adam", 0.3, "whole", "offsets"),
    Steps("map", "adam", 0.03),
    Steps("map", "adam", 0.03, "whole"),
    Steps("expected", "lbfgs", 0.3, "whole"),
    Steps("map", "lbfgs", 0.1, "whole", "offsets"),
    Steps("expected", "lbfgs", 0.1, "whole", "offsets"),
)
"""What is chosen from. Quasi-Newton steps scale by scale end worse than the guess (``tune_clean.py``)."""


class Method(NamedTuple):
    """An encoder's training, a decoder, and its refinement, of the same kind for all or chosen."""

    encoder: str
    decoder: str
    steps: int
    chosen: bool = False

    def __str__(self) -> str:
        """As tables and pictures call it."""
        name = "vanilla" if self.decoder == "vanilla" else "IA-HVAE"
        if not self.steps:
            return f"{name}, amortized"
        return f"{name}, N = {self.steps}" + (", chosen" if self.chosen else "")


def methods_of(encoder: str, steps: int) -> list[Method]:
    """The guess, its refinement with the steps that all take, and with those chosen for it."""
    return [
        Method(encoder, decoder, number, chosen)
        for decoder in ("separable", "vanilla")
        for number, chosen in ((0, False), (steps, False), (steps, True))
    ]


class Problem(NamedTuple):
    """A task's measurement ``y`` of images."""

    task: str
    images: Tensor
    operator: LinearOperator
    y: Tensor
    sigma: float


def problem_of(task: str, images: Tensor, seed: int) -> Problem:
    """The images, measured."""
    shape = tuple(images.shape[1:])
    if task == "deblur":
        operator = LowPass(KEPT, shape, images.dtype)
        return Problem(task, images, operator, operator(images), 0.0)
    noisy = GaussianNoise(1.0).sample(images, torch.Generator().manual_seed(seed))
    return Problem(task, images, Identity(shape, images.dtype), noisy, 1.0)


class Answers(NamedTuple):
    """Of every method: images, their figures of merit, and seconds an image."""

    images: dict[Method, Tensor]
    merits: dict[Method, dict[str, np.ndarray]]
    seconds: dict[Method, float]


class Setting(NamedTuple):
    """What the methods have in common."""

    recipe: iasolve.Recipe
    seed: int
    batch: int

    def solve(self, problem: Problem, method: Method, prior: iasolve.HVAEPrior, kind: Steps) -> iasolve.Result:
        """The method's answer."""
        stop = KEPT if problem.task == "deblur" and method.encoder == "clean" else "all"
        recipe = common.changed(self.recipe, steps=method.steps, guess_stop=stop, **kind._asdict())
        noise = GaussianNoise(problem.sigma)
        return iasolve.solve(
            problem.y,
            problem.operator,
            prior,
            noise=noise,
            recipe=recipe,
            seed=self.seed,
            batch_size=self.batch,
            warn=False,
        )


def choose(
    problem: Problem,
    method: Method,
    prior: iasolve.HVAEPrior,
    setting: Setting,
    advance: Callable[[int], object],
) -> dict[Steps, float]:
    """Mean PSNR of validation images under every kind of steps, the best first."""
    scores: dict[Steps, float] = {}
    for kind in KINDS:
        # to a vanilla decoder the schedules are one
        if method.decoder == "separable" or kind._replace(schedule="joint") not in scores:
            found = setting.solve(problem, method, prior, kind).image
            scores[kind] = float(merits(found, problem.images)["psnr"].mean())
        advance(len(problem.images))
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def answer(
    problem: Problem,
    methods: dict[Method, iasolve.HVAEPrior],
    kinds: dict[Method, Steps],
    setting: Setting,
    advance: Callable[[int], object],
) -> Answers:
    """What every method makes of a measurement, with its own kind of steps or else the same."""
    found = Answers({}, {}, {})
    for method, prior in methods.items():
        result = setting.solve(problem, method, prior, kinds.get(method, SAME))
        found.images[method] = result.image
        found.merits[method] = merits(result.image, problem.images)
        found.seconds[method] = result.seconds / len(problem.images)
        advance(len(problem.images))
    return found


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
        ours, theirs = ([m for m in found if m.encoder == encoder and m.decoder == d] for d in ("separable", "vanilla"))
        pairs += list(zip(ours, theirs, strict=True))
        pairs += [(refined, guess) for guess, *others in (ours, theirs) for refined in others]
    for first, second in pairs:
        difference = compare(found, first, second)
        report["differences"].append({"first": first._asdict(), "second": second._asdict(), **difference})
        cells = [common.signed(difference[name], digits[name]) for name in MEASURES]
        differences.append([first.encoder, f"{first} over {second}", *cells])
    names = ["PSNR dB", "SSIM", "NMSE"]
    text = common.table(["encoder", "method", *names, "s / image"], rows)
    text += "\nPaired differences (95 %):\n\n" + common.table(["encoder", "", *names], differences)
    return report, text


def choice(scores: dict[Method, dict[Steps, float]]) -> tuple[list[dict[str, Any]], str]:
    """What was tried on validation images, for the report and for the page, the chosen one first."""
    tried, rows = [], []
    for method, ranked in scores.items():
        kinds = [{**kind._asdict(), "psnr": psnr} for kind, psnr in ranked.items()]
        tried.append({"encoder": method.encoder, "decoder": method.decoder, "kinds": kinds})
        kind = next(iter(ranked))
        words = f"{kind}".removesuffix(", all scales at once") if method.decoder == "vanilla" else f"{kind}"
        levels = (f"{level:.2f}" for level in (ranked[kind], ranked[SAME], min(ranked.values())))
        rows.append([method.encoder, str(method), words, *levels])
    header = ["encoder", "method", "kind", "PSNR dB", f"with {SAME}", "worst tried"]
    return tried, common.table(header, rows)


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
        spectrum = log_magnitude(image)
        for column, (title, content) in enumerate(columns.items()):
            upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
            upper.imshow(quality.on_screen(content[:1], image[:1])[0], cmap="gray", vmin=0, vmax=1)
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
    mri: Annotated[str, typer.Option(help="Evidence-trained prior of complex images")] = "mri-complex-128",
    mri_vanilla: quality.Twin = "mri-complex-128-vanilla",
    mri_clean: Annotated[str, typer.Option(help="Clean-trained prior of complex images")] = "mri-complex-128-clean",
    mri_clean_vanilla: Annotated[str, typer.Option(help="Its vanilla twin")] = "mri-complex-128-clean-vanilla",
    only: quality.Only = "",
    encoders: Annotated[str, typer.Option(help="Which trainings of the encoder")] = "clean,evidence",
    count: Annotated[int, typer.Option(help="Test images of each set")] = 64,
    steps: Annotated[int, typer.Option(help="Steps of hybrid inference")] = 25,
    choosing: Annotated[int, typer.Option(help="Validation images of each set that choose the kind of steps")] = 32,
    closing: Annotated[bool, typer.Option(help="Close with the measurement, both decoders alike")] = True,
    batch: quality.Batch = 32,
    seed: Annotated[int, typer.Option(help="Seed of images, phases, noise and draws")] = 0,
    quick: quality.Quick = False,
    out: quality.Out = common.RESULTS,
) -> None:
    """Make the figure and its table."""
    if quick:
        count, steps, choosing = 4, 2, 2
    sources = {
        "cifar10": {"clean": (cifar10_clean, cifar10_clean_vanilla), "evidence": (cifar10, cifar10_vanilla)},
        "mri-complex": {"clean": (mri_clean, mri_clean_vanilla), "evidence": (mri, mri_vanilla)},
    }
    setting = Setting(common.changed(quality.PAPER_SETTING, error="stationary" if closing else "none"), seed, batch)
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
            validation = quality.images_of(data_set, "validation", choosing, seed, data)
            validation = validation / validation.std((-3, -2, -1), keepdim=True)
            chosen_ones = [m for m in methods if m.chosen]
            amount = len(chosen_ones) * len(KINDS) * len(validation) + len(methods) * len(images)
            advance = partial(bar.advance, bar.add_task(data_set, total=len(TASKS) * amount))
            report["sets"][data_set] = {}
            text.append(f"\n## {quality.TITLES[data_set]}, {len(images)} test images\n\n{quality.NOTES[data_set]}\n")
            pictures: dict[str, dict[str, Tensor]] = {}
            for task in TASKS:
                tuning, problem = (problem_of(task, some, seed) for some in (validation, images))
                scores = {m: choose(tuning, m, methods[m], setting, advance) for m in chosen_ones}
                kinds = {m: next(iter(ranked)) for m, ranked in scores.items()}
                found = answer(problem, methods, kinds, setting, advance)
                named = {f"{m.encoder} encoder\n{m}": image for m, image in found.images.items()}
                pictures[task] = {"image": images, "measurement": problem.y, **named}
                report["sets"][data_set][task], page = results(found)
                tried, choices = choice(scores)
                report["sets"][data_set][task]["tried"] = tried
                text += [f"\n### {task}\n\n{page}", f"Chosen on {len(validation)} validation images:\n\n{choices}"]
            figure(data_set, pictures, out / f"{name}-{data_set}.png")
    report["about"] = common.provenance(
        seed,
        everyone[0],
        priors=[p.name for p in everyone],
        images=count,
        validation_images=choosing,
        recipe=common.changed(setting.recipe, steps=steps, **SAME._asdict()).to_dict(),
        load=os.getloadavg(),
    )
    head = [
        "# Deblurring and denoising: IA-HVAE against the vanilla HVAE\n",
        quality.describe(report["about"], everyone),
    ]
    head.append(
        f"Deblurring: bins up to scale {KEPT} measured without noise; denoising: N(0, 1) noise on unit variance. "
        f"{steps} steps ({SAME}, all latents of a scale at once, vanilla all of the hierarchy's; or the kind that was "
        f"chosen on validation images), {'with' if closing else 'no'} closing, temperature 0.\n"
    )
    common.write(name, report, "\n".join(head + text), out)
    typer.echo("\n".join(head + text))


if __name__ == "__main__":
    typer.run(main)
