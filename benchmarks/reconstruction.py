"""Reconstruction of test slices against total variation and others: the main table.

    python benchmarks/reconstruction.py                 # 64 test slices, all tasks
    python benchmarks/reconstruction.py --quick         # a minute, a few slices, for a look
    python benchmarks/reconstruction.py --volume T1.nii.gz   # slices of a head from another scanner

Baselines' weights are tuned per task on validation slices, on a grid whose optimum may not lie at its edge; total
variation is solved to convergence, also in its stronger non-negative form. Sigma is in units of the image's
standard deviation. Conjugate symmetry of magnitude images makes 4x lines an easier problem than it sounds: a
real image knows k and -k from either; the fraction of frequencies known after folding is printed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import torch
import typer
from block_matching import bm3d_deblur, bm3d_denoise
from denoisers import nonlocal_means, wavelet_denoise
from peers import LEARNED, learned_estimates
from ridge import RidgeFromBins
from torch import Tensor

import common
import iasolve
from common import RECIPES, TASKS, Task
from iasolve import classical
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise, gaussian_kernel
from iasolve.priors import HVAEPrior

mpl.use("Agg")
from matplotlib import pyplot as plt

TV_GRID = {"denoise 0.1": 6.0, "denoise 0.3": 2.8, "denoise 1.0": 1.1, "lines 4x": 40.0, "lines 8x": 60.0}
"""Where the search for the total-variation weight starts, per task (unit standard deviation)."""


def tune(score: Callable[[float], float], start: float, factor: float = 1.25) -> tuple[float, list[float]]:
    """Maximise ``score`` over ``start * factor ** n``: in strides of four, then one by one, to no edge of the grid."""
    scores: dict[int, float] = {}
    best = 0
    for stride in (4, 1):
        while True:
            for n in (best - stride, best, best + stride):
                if n not in scores:
                    scores[n] = score(start * factor**n)
            if best == (best := max(scores, key=lambda n: scores[n])):
                break
    return start * factor**best, [start * factor**n for n in sorted(scores)]


class Baselines:
    """Classical methods for one task, tuned on validation slices."""

    def __init__(self, task: Task, validation: Tensor, train: Tensor, seed: int) -> None:
        self.task = task
        groups = common.measure(task, validation, seed + 1000)
        folded = common.folded_measurement(task, groups)
        self.settings: dict[str, Any] = {}
        self.power = torch.fft.fft2(train, norm="ortho").abs().square().mean(0)
        start = TV_GRID.get(task.name, 20.0)
        # of 81 bins total variation makes little (19.1 dB against ridge's 19.5 on validation) in thousands of steps
        self.reference = "ridge" if task.kind == "low-pass" else "total variation"
        kinds = (("total variation", False), ("total variation, x >= 0", True))
        for name, nonnegative in kinds if task.kind != "low-pass" else ():

            def score(weight: float, nonnegative: bool = nonnegative) -> float:
                return float(common.psnr(self._tv(folded, weight, nonnegative), validation).mean())

            weight, grid = tune(score, start)
            self.settings[name] = {"weight": weight, "grid": grid}
            start = weight
        if task.kind == "denoise":
            scored = {h: self._score_nlm(groups[0].y, validation, h) for h in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)}
            self.settings["non-local means"] = {"h": max(scored, key=lambda h: scored[h]), "grid": sorted(scored)}
        self.ridge: RidgeFromBins | None = None
        if task.kind == "low-pass":
            bins = torch.isfinite(folded.variance[0, 0])
            noise = float(folded.variance[0, 0][bins].max().sqrt())
            self.ridge = RidgeFromBins.choose(train[:, 0], validation[:, 0], bins, noise, [10.0**-k for k in range(7)])
            self.settings["ridge"] = {"ridge": self.ridge.ridge}

    def _score_nlm(self, y: Tensor, validation: Tensor, h: float) -> float:
        out = nonlocal_means(y[:16], self.task.sigma, h=h * self.task.sigma)
        return float(common.psnr(out, validation[:16]).mean())

    @staticmethod
    def _tv(folded: common.Folded, weight: float, nonnegative: bool) -> Tensor:
        return classical.total_variation(
            1 / folded.variance, folded.value, weight, tolerance=1e-4, max_iterations=4000, nonnegative=nonnegative
        ).image

    def estimates(self, groups: list[common.Group]) -> dict[str, tuple[Tensor, float]]:
        """Every baseline's images and processor seconds per image."""
        folded = common.folded_measurement(self.task, groups)
        y = groups[0].y
        methods: dict[str, Callable[[], Tensor]] = {
            "input": lambda: torch.cat([g.operator.adjoint(g.y) for g in groups]),
            "Wiener": lambda: classical.wiener(1 / folded.variance, folded.value, self.power),
        }
        for name in [n for n in self.settings if n.startswith("total variation")]:
            weight = self.settings[name]["weight"]
            methods[name] = lambda w=weight, n=name: self._tv(folded, w, n.endswith("0"))
        if self.task.kind == "denoise":
            h = self.settings["non-local means"]["h"] * self.task.sigma
            methods["non-local means"] = lambda: nonlocal_means(y, self.task.sigma, h=h)
            methods["wavelet"] = lambda: wavelet_denoise(y, self.task.sigma, shifts=3)
            methods["BM3D"] = lambda: bm3d_denoise(y, self.task.sigma)
        if self.task.kind == "blur":
            methods["BM3D"] = lambda: bm3d_deblur(y, self.task.sigma, gaussian_kernel(self.task.value))
        if self.ridge is not None:
            ridge = self.ridge
            methods["ridge"] = lambda: ridge.predict(folded.value[:, 0])[:, None]
        return {name: common.timed(method, len(y)) for name, method in methods.items()}


def run(groups: list[common.Group], task: Task, prior: Any, recipe: Any, seed: int) -> list[Any]:
    """Results of all groups."""
    noise = GaussianNoise(task.sigma)
    return [iasolve.solve(g.y, g.operator, prior, noise=noise, recipe=recipe, seed=seed) for g in groups]


def iasolve_estimates(
    groups: list[common.Group], task: Task, prior: Any, seed: int, samples: int
) -> tuple[dict[str, tuple[Tensor, float]], float]:
    """Images of iasolve and processor seconds per image, and the coverage of the stated 90 % interval."""
    recipe = iasolve.load_recipe(RECIPES[task.kind])
    fast = iasolve.load_recipe("fast")
    count = sum(len(g.images) for g in groups)
    out = {}

    for name, chosen in (
        ("iasolve amortized, no closing", common.changed(fast, error="none")),
        ("iasolve amortized", fast),
        ("iasolve refined, no closing", common.changed(recipe, error="none")),
        ("iasolve refined", recipe),
        *([("iasolve without steps", common.changed(recipe, steps=0))] if recipe.takes_steps else []),
    ):
        results, seconds = common.timed(partial(run, groups, task, prior, chosen, seed), count)
        out[name] = (torch.cat([r.image for r in results]), seconds)
    sampled, seconds = common.timed(partial(run, groups, task, prior, recipe.changed(samples=samples), seed), count)
    out["iasolve one sample"] = (torch.cat([r.samples[0] for r in sampled]), seconds)
    out[f"iasolve mean of {samples}"] = (torch.cat([r.samples.mean(0) for r in sampled]), seconds)
    hits = [(r.image - g.images).abs() <= 1.6449 * r.std for r, g in zip(sampled, groups, strict=True)]
    return out, float(torch.cat(hits).float().mean())


SCHEDULES: dict[str, dict[str, Any]] = {
    "all scales at once": {
        "schedule": "whole",
        "objective": "expected",
        "optimizer": "lbfgs",
        "variables": "offsets",
        "step_size": 0.1,
    },
    "all scales at once, Adam": {"schedule": "whole", "objective": "map", "optimizer": "adam", "step_size": 0.1},
    "scale by scale": {"schedule": "joint", "objective": "variational", "optimizer": "adam", "step_size": 0.03},
}
"""Step sizes as found on clean validation slices."""


def clean_refinement(images: Tensor, prior: Any, seed: int) -> dict[str, Any]:
    """Hybrid against amortized on clean images, of the hierarchy alone: N = 25, beta 1, closing off.

    A reader gives back what was measured without noise.
    """
    prior = HVAEPrior(prior.network, prior.name, prior.card, prior.path)
    operator = iasolve.operators.Identity(tuple(images.shape[1:]))

    def mse(recipe: Any) -> Any:
        found = iasolve.solve(images, operator, prior, noise=GaussianNoise(0.0), recipe=recipe, seed=seed).image
        return (found - images).square().mean((-3, -2, -1)).numpy()

    start = common.changed(iasolve.load_recipe("fast"), error="none")
    amortized = mse(start)
    out: dict[str, Any] = {}
    for name, how in SCHEDULES.items():
        hybrid = mse(common.changed(start, steps=25, beta=1.0, **({"variables": "latents"} | how)))
        change = hybrid / amortized - 1
        mean, low, high = mean_interval(change)
        out[name] = {
            **how,
            "amortized_mse": float(amortized.mean()),
            "hybrid_mse": float(hybrid.mean()),
            "relative_change": mean,
            "interval": [low, high],
            "not_worse": float((change <= 0).mean()),
        }
    return out


def clean_summary(clean: dict[str, Any]) -> str:
    """What refinement does to the squared error of clean images."""
    text = "Clean images, the hierarchy alone, 25 steps, no closing, mean squared error against amortized:"
    for name, found in clean.items():
        low, high = found["interval"]
        text += (
            f" {name} {100 * found['relative_change']:+.1f} % (95 % interval {100 * low:+.1f} to {100 * high:+.1f} %),"
            f" not worse on {100 * found['not_worse']:.0f} % of the images;"
        )
    return text.removesuffix(";") + ".\n"


def panel(task: Task, references: Tensor, shown: dict[str, Tensor], path: Path) -> None:
    """One slice: reference, input, the methods."""
    figure, axes = plt.subplots(1, len(shown) + 1, figsize=(2.4 * (len(shown) + 1), 2.7))
    top = float(references[0].max())
    for axis, (name, image) in zip(axes, {"reference": references, **shown}.items(), strict=True):
        axis.imshow(image[0, 0], cmap="gray", vmin=0, vmax=top)
        axis.set_title(name, fontsize=7)
        axis.axis("off")
    figure.suptitle(task.name, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def summary(tasks: dict[str, Any]) -> str:
    """One row a task, mean PSNR in dB."""
    rows = []
    for task, entry in tasks.items():
        found = {name: m["psnr"] for name, m in entry["methods"].items()}
        classical_ones = {n: p for n, p in found.items() if n != "input" and not n.startswith(("iasolve", *LEARNED))}
        best = max(classical_ones, key=lambda n: classical_ones[n])
        first = found.get("total variation", found.get("ridge"))
        rows.append(
            [task, f"{found['input']:.2f}", f"{first:.2f}", f"{best} {found[best]:.2f}"]
            + [f"{found[n]:.2f}" for n in ("iasolve amortized", "iasolve refined")]
            + [f"{found['iasolve refined'] - first:+.2f}", f"{100 * entry['coverage_90']:.0f} %"]
        )
    header = ["task", "input", "TV (ridge)", "best classical", "iasolve, guess", "iasolve", "over TV", "90 % covers"]
    return common.table(header, rows)


def main(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    prior: Annotated[str, typer.Option(help="Prior, by name or path")] = "mri-t1-128",
    count: Annotated[int, typer.Option(help="Test slices")] = 64,
    samples: Annotated[int, typer.Option(help="Posterior samples")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of slices, masks and noise")] = 0,
    part: Annotated[str, typer.Option(help="test, or validation while tuning")] = "test",
    volume: Annotated[
        Path | None, typer.Option(help="NIfTI volume of another scanner's head (2 mm), in place of the test slices")
    ] = None,
    only: Annotated[str, typer.Option(help="Comma-separated parts of task names")] = "",
    peers: Annotated[Path | None, typer.Option(help="Folder of learned peers, of peers.py, to compare with")] = None,
    quick: Annotated[bool, typer.Option(help="4 slices, 2 samples, a small grid: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the table."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    if quick:
        count, samples = 4, 2
    loaded = iasolve.load_prior(prior)
    if volume is not None:
        part = "other-scanner"
    references = common.slices(data, part) if volume is None else common.volume_slices(volume)
    references = common.pick(references, count, seed)
    count = len(references)
    train = common.slices(data, "train")
    validation = common.pick(common.slices(data, "validation"), 8 if quick else 32, seed)
    name = f"reconstruction{'' if part == 'test' else '-' + part}{'-quick' if quick else ''}"
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "about": common.provenance(
            seed, loaded, images=count, part=part, samples=samples, volume=volume.name if volume else None
        ),
        "clean": clean_refinement(references, loaded, seed),
        "tasks": {},
    }
    lines = [
        f"# Reconstruction of {count} {part} slices\n",
        common.stamp(report["about"]) + "\n",
        clean_summary(report["clean"]),
    ]
    start = len(lines)
    for task in common.chosen(TASKS, only):
        typer.echo(task.name, err=True)
        baselines = Baselines(task, validation, train[:: 8 if quick else 1], seed)
        groups = common.measure(task, references, seed)
        known = float(torch.isfinite(common.folded_measurement(task, groups).variance).float().mean())
        estimates = baselines.estimates(groups)
        if peers is not None:
            estimates |= learned_estimates(peers, task, groups, validation, seed)
        ours, covered = iasolve_estimates(groups, task, loaded, seed, samples)
        estimates |= ours
        scores = {n: (common.psnr(e, references), common.ssim(e, references), s) for n, (e, s) in estimates.items()}
        reference = scores[baselines.reference][0]
        rows = []
        entry: dict[str, Any] = {
            "known_fraction": known,
            "coverage_90": covered,
            "settings": baselines.settings,
            "methods": {},
        }
        for method, (p, s, seconds) in scores.items():
            gain = mean_interval(p - reference)
            rows.append(
                [
                    method,
                    f"{p.mean():.2f}",
                    f"{s.mean():.3f}",
                    common.signed(gain),
                    f"{seconds:.3f}",
                ]
            )
            entry["methods"][method] = {
                "psnr": float(p.mean()),
                "ssim": float(s.mean()),
                "psnr_over_reference": list(gain),
                "seconds": seconds,
            }
        change, low, high = mean_interval(scores["iasolve refined"][0] - scores["iasolve amortized"][0])
        entry["refined_over_amortized"] = [change, low, high]
        report["tasks"][task.name] = entry
        lines.append(f"\n## {task.name}\n")
        lines.append(
            f"Known frequencies after folding: {100 * known:.1f} %. "
            f"Coverage of the 90 % interval: {100 * covered:.1f} %. "
            f"Refined over amortized: {change:+.2f} dB ({low:+.2f} to {high:+.2f}).\n"
        )
        lines.append(
            common.table(["method", "PSNR dB", "SSIM", f"over {baselines.reference}, dB (95 %)", "CPU s / image"], rows)
        )
        names = ("input", baselines.reference, "iasolve amortized", "iasolve refined")
        picked = {n: estimates[n][0] for n in names}
        panel(task, references, picked, out / f"{name}-{task.name.replace(' ', '-')}.png")
        whole = [*lines[:start], summary(report["tasks"]), *lines[start:]]
        common.write(name, report, "\n".join(whole), out)
    typer.echo("\n".join(whole))


if __name__ == "__main__":
    typer.run(main)
