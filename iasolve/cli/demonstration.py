"""The demo: three degradations of the bundled samples, total variation against iasolve."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

import iasolve
from iasolve.classical import total_variation
from iasolve.cli.errors import INTERRUPTED, UsageError
from iasolve.cli.figures import Panel, draw_panels
from iasolve.cli.folders import make_folders
from iasolve.cli.options import Printing, Running
from iasolve.cli.outputs import as_usage
from iasolve.cli.priors import open_prior
from iasolve.cli.reporter import Reporter, plain
from iasolve.cli.solver import choose_device
from iasolve.evidence import fold
from iasolve.files import atomic_write, guard_output, write_json, write_together
from iasolve.metrics import psnr, ssim
from iasolve.operators import (
    CircularBlur,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    acceleration,
    gaussian_kernel,
    line_mask,
)
from iasolve.priors import Prior
from iasolve.report import Entry, write_report
from iasolve.samples import load_samples
from iasolve.spectrum import reflect

__all__ = ["demonstrate"]

Array = NDArray[Any]

_SAMPLES = 8
_SYMMETRY = "since the k-space of a real image is symmetric"
_METHODS = ("input", "total variation", "iasolve")


@dataclass(frozen=True)
class Problem:
    """One row of the demo; noise levels in standard deviations of the image.

    ``weight`` is total variation's, for images of root mean square 1. It was tuned for this very task on images of
    the validation set (training classes), so total variation is shown at its best: the optimum of a grid, not at its
    edge. Values: noise 3.24 and lines 47 from the project's benchmark; blur 0.7 from the grid 0.1, 0.2, 0.35, 0.5,
    0.7, 1, 2, 4, 8 on 20 images (25.93 dB; 25.91 at 0.5, 25.89 at 1).
    """

    name: str
    operator: LinearOperator
    sigma: float
    recipe: str
    weight: float
    notes: str
    shown: int


def demonstrate(out: Path, prior: str, seed: int, running: Running, printing: Printing) -> None:
    """Degrade, solve, compare, and write ``iasolve-demo.png``, ``.md``, ``.json`` and ``.html``.

    Parameters
    ----------
    out : Path
        Folder, created if it is missing.
    prior : str
        Name or path.
    seed : int
        Of noise, mask and samples.
    running : Running
    printing : Printing

    Raises
    ------
    PriorError, DeviceError, UsageError, typer.Exit
    """
    begun = time.perf_counter()
    reporter = Reporter(printing)
    loaded = open_prior(prior)
    samples = load_samples()
    size = loaded.spectrum.size
    if samples.images.shape[1:] != (size, size) or loaded.spectrum.is_complex or loaded.channels != 1:
        raise UsageError(f"--prior {prior}: the samples are grey images of 128 x 128, this prior is {loaded!r}")
    device = choose_device(running.device)
    loaded = loaded if device == "cpu" else loaded.to(device)
    make_folders([out])
    names = [out / f"iasolve-demo.{suffix}" for suffix in ("png", "md", "json", "html")]
    for name in names:
        as_usage(lambda name=name: guard_output(name, overwrite=True))  # type: ignore[misc]
    images = torch.from_numpy(samples.images.astype(np.float32))[:, None]
    # each image's standard deviation becomes 1, so that one noise level fits all
    truth = images / images.std((-3, -2, -1), keepdim=True)
    problems = _problems((1, size, size), seed)
    results: list[dict[str, Any]] = []
    rows: list[list[Panel]] = []
    looks: list[Entry] = []
    try:
        with reporter.progress("demo", len(problems) * len(truth)) as advance:
            for number, problem in enumerate(problems):
                done = number * len(truth)
                advance(done, problem.name)

                def report_images(images: int, _: int, done: int = done, name: str = problem.name) -> None:
                    advance(done + images, name)

                result, row, entries = _solve(problem, truth, loaded, seed, running.batch_size, report_images)
                results.append(result)
                rows.append(row)
                looks += entries
    except KeyboardInterrupt:
        reporter.error("interrupted: nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    report = plain(
        {
            "iasolve": iasolve.__version__,
            "command": "demo",
            "prior": {"name": loaded.name, "sha256": loaded.card.get("sha256")},
            "seed": seed,
            "device": device,
            "seconds": time.perf_counter() - begun,
            "samples": {"numbers": samples.numbers, "attribution": samples.attribution},
            "tasks": results,
        },
        7,
    )
    table = _table(results)
    with write_together():
        draw_panels(names[0], rows, [f"{p.name}\n{p.notes}" for p in problems])
        with atomic_write(names[1]) as handle:
            handle.write(_markdown(report, problems, table).encode())
        write_json(names[2], report)
        write_report(names[3], looks, title="iasolve demo", notes=[samples.attribution])
    reporter.table(table)
    reporter.say(
        f"mean PSNR in dB and SSIM of {len(truth)} images; {report['seconds']:.0f} s on {device}; prior {loaded.name}"
    )
    reporter.say(f"{problems[1].name}: {problems[1].notes}, {_SYMMETRY}")
    reporter.say("wrote " + ", ".join(str(name) for name in names))
    reporter.result(report)


def _problems(shape: tuple[int, int, int], seed: int) -> tuple[Problem, ...]:
    mask = line_mask(shape[1:], 4, 0.08, seed=seed)
    plain_mask = torch.fft.ifftshift(mask).float()
    both = acceleration(torch.maximum(plain_mask, reflect(plain_mask)))
    lines = f"{acceleration(mask):.1f}x, {both:.1f}x in effect"
    return (
        Problem("noise", Identity(shape), 0.3, "denoise", 3.24, "sigma 0.3", 0),
        Problem("k-space lines", KSpaceMask(mask, shape), 0.02, "compressed-sensing", 47.0, lines, 2),
        Problem("blur", CircularBlur(gaussian_kernel(2.0), shape), 0.05, "deblur", 0.7, "2 pixels, sigma 0.05", 3),
    )


def _solve(
    problem: Problem,
    truth: Tensor,
    prior: Prior,
    seed: int,
    batch_size: int | None,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Any], list[Panel], list[Entry]]:
    operator = problem.operator
    noise = GaussianNoise(problem.sigma)
    y = noise.sample(operator(truth), torch.Generator().manual_seed(seed))
    if isinstance(operator, KSpaceMask):
        y = y * operator.mask
    begun = time.perf_counter()
    classical = _total_variation(problem, y, truth)
    between = time.perf_counter()
    solved = iasolve.solve(
        y,
        operator,
        prior,
        noise=noise,
        recipe=problem.recipe,
        samples=_SAMPLES,
        seed=seed,
        batch_size=batch_size,
        callback=lambda status: progress(status.image, status.images),
        warn=False,
    )
    seconds = {"total variation": between - begun, "iasolve": time.perf_counter() - between}
    before = operator.adjoint(y) if isinstance(operator, KSpaceMask) else y
    pictures = {"input": before, "total variation": classical, "iasolve": solved.image}
    scores = {
        method: {
            "psnr": [psnr(a, b) for a, b in zip(pictures[method], truth, strict=True)],
            "ssim": [ssim(a, b) for a, b in zip(pictures[method], truth, strict=True)],
        }
        for method in _METHODS
    }
    result = {
        "task": problem.name,
        "notes": problem.notes,
        "sigma": problem.sigma,
        "recipe": problem.recipe,
        "tv_weight": problem.weight,
        "seconds": seconds,
        "scores": scores,
        "mean": {m: {key: float(np.mean(v)) for key, v in s.items()} for m, s in scores.items()},
    }
    k = problem.shown
    high = float(np.percentile(truth[k], 99.8))
    row = [Panel(truth[k, 0].numpy(), "reference", 0.0, high)]
    for method in _METHODS:
        first = "zero-filled" if method == "input" and isinstance(operator, KSpaceMask) else method
        row.append(Panel(pictures[method][k, 0].numpy(), f"{first}, {scores[method]['psnr'][k]:.1f} dB", 0.0, high))
    assert solved.std is not None
    spread = solved.std[k, 0].numpy()
    row.append(Panel(spread, "error bar (std)", 0.0, float(np.percentile(spread, 99.9)), "magma"))
    entries = [_entry(problem, number, before, y, solved) for number in range(len(truth))]
    return result, row, entries


def _entry(problem: Problem, number: int, before: Tensor, y: Tensor, solved: iasolve.Result[Tensor]) -> Entry:
    """One image of a task on the page."""
    assert solved.std is not None
    image = solved.image[number, 0]
    scales = [{k: float(v[number]) if isinstance(v, Tensor) else v for k, v in row.items()} for row in solved.scales]
    return Entry(
        f"{problem.name}, image {number + 1}",
        image.numpy(),
        before=before[number, 0].numpy(),
        std=solved.std[number, 0].numpy(),
        residual=(y[number] - problem.operator(solved.image[number])).numpy(),
        residual_domain="kspace" if isinstance(problem.operator, KSpaceMask) else "image",
        sigma=problem.sigma,
        scales=scales,
        seconds=solved.seconds / len(before),
        settings={"task": problem.name, "notes": problem.notes, "recipe": problem.recipe, "seed": solved.seed},
    )


def _total_variation(problem: Problem, y: Tensor, truth: Tensor) -> Tensor:
    transfer = problem.operator.transfer()
    assert transfer is not None
    folded = fold(problem.operator.to_grid(y), transfer, problem.sigma, real_image=True, complex_noise=y.is_complex())
    # the weight is in units of one over the image's, and knows the true root mean square here
    weight = problem.weight / truth.square().mean((-2, -1)).sqrt()
    return total_variation(1 / folded.variance, folded.value, weight, nonnegative=True).image


def _table(results: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["", *_METHODS]]
    rows += [[f"{r['task']}, {r['notes']}", *(_cell(r["mean"][method]) for method in _METHODS)] for r in results]
    return rows


def _cell(mean: dict[str, float]) -> str:
    return f"{mean['psnr']:.2f} / {mean['ssim']:.3f}"


def _markdown(report: dict[str, Any], problems: tuple[Problem, ...], table: list[list[str]]) -> str:
    lines = [
        "# iasolve demo",
        "",
        f"Mean PSNR (dB) / SSIM of {len(report['samples']['numbers'])} test slices; the input is noisy, zero-filled, "
        "or blurred.",
        "",
        "| task | " + " | ".join(table[0][1:]) + " |",
        "|---|" + "---|" * (len(table[0]) - 1),
    ]
    lines += ["| " + " | ".join(row) + " |" for row in table[1:]]
    lines += [
        "",
        f"- {problems[1].name}: fastMRI random mask, {problems[1].notes}, {_SYMMETRY}; complex noise of "
        f"{problems[1].sigma:g}.",
        "- Noise levels are in standard deviations of the image. Total variation is solved to convergence, with its "
        "weight tuned for each task on validation images.",
        f"- Prior {report['prior']['name']} (sha256 {str(report['prior']['sha256'])[:12]}..), iasolve "
        f"{report['iasolve']}, seed {report['seed']}, {report['seconds']:.0f} s on {report['device']}.",
        f"- {report['samples']['attribution']}.",
        "",
        "Not for clinical use.",
        "",
    ]
    return "\n".join(lines)
