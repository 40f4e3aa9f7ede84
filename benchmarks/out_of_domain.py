"""What becomes of images from outside the prior's world: solved, compared with linear estimate, input and TV.

    IASOLVE_DATA=folder python benchmarks/out_of_domain.py --recipe "" # all kinds, about 25 minutes of one core
    python benchmarks/out_of_domain.py --quick                         # five kinds, no data set, under a minute

Writes ``out_of_domain.md`` and ``out_of_domain.json`` into ``benchmarks/results``, anew after every kind: what was done
is there when a run is ended early. The noise level is told. The linear estimate is the Wiener filter with the prior's
power; total variation has the best of five weights, found with the truth. Figures are PSNR in dB, its peak the range of
the true image, so that an offset does not matter.
"""

from __future__ import annotations

import time
import warnings
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from strange_images import QUICK, strange_images
from torch import Tensor

import iasolve
from common import RESULTS, pick, provenance, psnr, slices, stamp, table, write
from iasolve.classical import total_variation, total_variation_sense
from iasolve.evidence import fold
from iasolve.operators import (
    CircularBlur,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    PixelMask,
    gaussian_kernel,
    line_mask,
)
from iasolve.problem.options import Options
from iasolve.problem.pose import pose

WEIGHTS = (0.5, 2.0, 8.0, 30.0, 100.0)
"""Of total variation, over the image's standard deviation."""

LINEAR = "mri-t1-128"
"""The prior whose power the linear estimate has, where the measurement chooses one."""

MARGIN, CLEAR = 0.2, 0.5
"""dB: how far below the linear estimate or the input a result may lie; by how much total variation wins clearly."""


class Degradation(NamedTuple):
    """``sigma`` in standard deviations of the image."""

    name: str
    sigma: float

    def operator(self, shape: tuple[int, int, int]) -> LinearOperator:
        """The forward operator."""
        if self.name.startswith("blur"):
            return CircularBlur(gaussian_kernel(min(2.0, min(shape[1:]) / 16)), shape)
        if self.name.startswith("lines"):
            return KSpaceMask(line_mask(shape[1:], 4, 0.08, seed=1), shape)
        if self.name.endswith("pixels"):
            known = torch.rand(shape[1:], generator=torch.Generator().manual_seed(1)) < 0.5
            return PixelMask(known, shape)
        if self.name.startswith("noise"):
            return Identity(shape)
        raise ValueError(f"no operator for {self.name!r}")


TASKS = (
    Degradation("noise 0.05", 0.05),
    Degradation("noise 0.3", 0.3),
    Degradation("blur 2 px", 0.03),
    Degradation("lines 4x", 0.02),
    Degradation("half the pixels", 0.02),
)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Five kinds and two tasks.")] = False,
    recipe: Annotated[str, typer.Option(help="Ready recipe; empty: the one made for each task.")] = "fast",
    prior: Annotated[str, typer.Option(help="Name or path; auto: chosen by each measurement.")] = "auto",
    own: Annotated[int, typer.Option(help="Test images of the prior's own data, for false warnings.")] = 48,
    seed: Annotated[int, typer.Option(help="Of noise and samples.")] = 0,
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Solve every kind of image under every task, print and write the table."""
    torch.set_num_threads(1)
    loaded = None if prior == "auto" else iasolve.load_prior(prior)
    makers = strange_images()
    if quick:
        makers = {name: makers[name] for name in QUICK if name in makers}
    tasks = TASKS[1:4:2] if quick else TASKS
    # in a random order, so that a run that is ended early is a sample
    order = np.random.default_rng(seed).permutation(len(makers))
    names = [list(makers)[n] for n in order]
    begun, rows = time.perf_counter(), []
    false: dict[str, tuple[int, int, int]] = {}

    about = provenance(seed, loaded or _linear_prior(), recipe=recipe or "the task's", chosen=prior)

    def save() -> dict[str, str]:
        about["seconds"] = round(time.perf_counter() - begun)
        summary = {"kinds of images there are": str(len(makers)), **summarise(rows, false)}
        write("out_of_domain", {"about": about, "summary": summary, "rows": rows}, markdown(about, summary, rows), out)
        return summary

    for task in () if quick or not own else tasks[1::2]:
        false[task.name] = false_warnings(task, loaded, recipe, own, seed, data)
        print(task.name, false[task.name], flush=True)
    for name in names:
        for task in tasks:
            maker = makers[name]
            rows.append({"image": name, **measure(maker(), task, loaded, recipe, seed)})
            print(
                f"{name:32s} {task.name:16s}", *(f"{rows[-1][k]:7.2f}" for k in FIGURES), rows[-1]["used"], flush=True
            )
        save()
    print(table(("what", "of how many"), list(save().items())))


FIGURES = ("result", "linear", "input", "tv")


def measure(image: np.ndarray, task: Degradation, prior: Any, recipe: str, seed: int) -> dict[str, Any]:
    """One image under one task; without a prior, the measurement chooses one."""
    truth = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    # a constant image has no standard deviation, and noise is told against its value
    unit = float(truth.double().std()) or float(truth.abs().max()) or 1.0
    operator = task.operator((1, *image.shape))
    noise = GaussianNoise(task.sigma * unit)
    y = noise.sample(operator(truth), torch.Generator().manual_seed(seed))
    if isinstance(operator, KSpaceMask | PixelMask):
        y = y * operator.mask
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", iasolve.UnlikePriorWarning)
        result = iasolve.solve(y, operator, prior, noise=noise, recipe=recipe or None, seed=seed)
    warned = any(issubclass(w.category, iasolve.UnlikePriorWarning) for w in caught)
    seen = operator.adjoint(y)
    return {
        "task": task.name,
        "size": "x".join(map(str, image.shape)),
        "result": score(result.image, truth),
        "linear": score(linear(y, operator, prior or _linear_prior(), noise.sigma), truth),
        "input": score(seen, truth),
        "tv": variation(y, operator, noise.sigma, unit, truth),
        "used": result.prior_used[0],
        "offset": float(result.offset),
        "warned": warned,
        "seconds": round(result.seconds, 2),
    }


def score(estimate: Tensor, truth: Tensor) -> float:
    """PSNR in dB; of a constant image, against its value."""
    if float(truth.max()) == float(truth.min()):
        return float(10 * torch.log10(truth.max().square() / (estimate - truth).square().mean()))
    # in units in which no square underflows
    unit = truth.abs().max()
    return float(psnr(estimate / unit, truth / unit)[0])


@cache
def _linear_prior() -> Any:
    return iasolve.load_prior(LINEAR)


def linear(y: Tensor, operator: LinearOperator, prior: Any, sigma: float) -> Tensor:
    """The Wiener estimate with the prior's power."""
    problem = pose(y, operator, prior, torch.tensor([sigma]), Options(), whole=True)
    return problem.crop(problem.gain.reshape(-1, 1, 1, 1) * problem.estimate)


def variation(y: Tensor, operator: LinearOperator, sigma: float, unit: float, truth: Tensor) -> float:
    """Total variation, the best weight of five."""
    transfer = operator.transfer()
    if transfer is None:
        images = (total_variation_sense(operator, y / unit, sigma / unit, w, max_iterations=300) for w in WEIGHTS)
        return max(score(unit * found.image, truth) for found in images)
    scaled = operator.to_grid(y) / unit
    folded = fold(scaled, transfer, sigma / unit, real_image=True, complex_noise=y.is_complex())
    precision = 1 / folded.variance
    found = [
        total_variation(precision[0], folded.value[0], w, tolerance=1e-3, max_iterations=200).image for w in WEIGHTS
    ]
    return max(score(unit * image[None], truth) for image in found)


def false_warnings(
    task: Degradation, prior: Any, recipe: str, count: int, seed: int, data: Path | None
) -> tuple[int, int, int]:
    """Of the prior's own test images: how many fell back, how many were warned about, and how many there were."""
    fallen = warned = 0
    images = pick(slices(data, "test"), count, seed)
    for number, image in enumerate(images):
        found = measure(image[0].numpy(), task, prior, recipe, seed + number)
        fallen += found["used"] == "gaussian"
        warned += found["warned"]
    return fallen, warned, len(images)


def summarise(rows: list[dict[str, Any]], false: dict[str, tuple[int, int, int]]) -> dict[str, str]:
    """The counts of the issue."""
    below = [r for r in rows if r["result"] < max(r["linear"], r["input"]) - MARGIN]
    under = [r for r in rows if r["result"] < r["linear"] - MARGIN]
    beaten = [r for r in rows if r["tv"] > r["result"] + CLEAR]
    summary = {
        f"of them done here ({len({r['task'] for r in rows})} tasks each)": str(len({r["image"] for r in rows})),
        f"results more than {MARGIN} dB below the linear estimate": f"{len(under)} of {len(rows)}",
        f"more than {MARGIN} dB below linear estimate or input, the better": f"{len(below)} of {len(rows)}",
        "the Gaussian answered": f"{sum(r['used'] == 'gaussian' for r in rows)} of {len(rows)}",
        f"warned, of those where TV wins by {CLEAR} dB": f"{sum(r['warned'] for r in beaten)} of {len(beaten)}",
    }
    for name, (fallen, warned, count) in false.items():
        summary[f"own test images, {name}: fell back; warned"] = f"{fallen}; {warned} of {count}"
    return summary


def markdown(about: dict[str, Any], summary: dict[str, str], rows: list[dict[str, Any]]) -> str:
    """The tables."""
    worst = sorted(rows, key=lambda r: r["result"] - max(r["linear"], r["input"]))[:10]

    def cells(row: dict[str, Any]) -> list[str]:
        figures = [f"{row[key]:.2f}" for key in FIGURES]
        return [row["image"], row["size"], row["task"], *figures, row["used"], "yes" if row["warned"] else "no"]

    header = ("image", "size", "task", "result", "linear", "input", "TV", "answered", "warned")
    return (
        f"# Images from outside the prior's world\n\n{stamp(about)} Recipe {about['recipe']}, "
        f"{about['seconds']} s. PSNR in dB, peak = the image's range; the noise level is told; TV with the best of "
        f"{len(WEIGHTS)} weights by the truth; prior {about['chosen']}.\n\n"
        + table(("what", "found"), list(summary.items()))
        + "\nThe ten that lie lowest against linear estimate or input, the better:\n\n"
        + table(header, [cells(row) for row in worst])
        + "\nAll:\n\n"
        + table(header, [cells(row) for row in rows])
    )


if __name__ == "__main__":
    typer.run(main)
