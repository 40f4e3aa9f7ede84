"""Where the time of one 128 x 128 denoising goes, and what share of the core's speed convolutions reach.

    python benchmarks/inference_profile.py [--repeats 9] [--size 128] [--quick]

Processor seconds of one thread, by stage and by convolution, of the recipes ``fast`` and ``denoise``; each stage
without the stages inside of it; transposed convolutions are the reader's own. A convolution's FLOPs are those of its
definition. They are compared with matrix products of 1024 x 1024, which take turns with the solves: in the precision of
the reader, and in single precision, which is the hierarchy's. Writes benchmarks/results/inference_profile.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch import nn

import common
import iasolve
from iasolve.operators import GaussianNoise, Identity
from iasolve.samples import load_samples

SIGMA = 0.1
STAGES = {
    "reader": ("priors.trained:TrainedPrior.read",),
    "hierarchy": ("priors.trained:HVAEPrior.encode", "priors.hierarchy:Hierarchy.descend"),
    "spectra of the hierarchy": ("priors.trained:HVAEPrior.assemble",),
    "does the prior fit": ("inference.solve:verdict",),
    "posing": ("inference.view:pose",),
    "closing": ("inference.view:Closing.image",),
    "report": ("inference.solve:residual_of", "inference.solve:likeness_of"),
}
"""What is timed, ``module:name`` in iasolve; what is left of a solve is 'rest'."""

NETWORKS = ("convolutions", "reader", "hierarchy")
"""Stages that are the networks' own."""


class Stopwatch:
    """Processor seconds of stages, each without those inside of it, and the convolutions one by one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.convolutions: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self._open: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body."""
        begun = time.process_time()
        self._open.append(0.0)
        try:
            yield
        finally:
            taken = time.process_time() - begun
            self.seconds[name] += taken - self._open.pop()
            if self._open:
                self._open[-1] += taken

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as a stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return call

    def convolved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``_conv_forward`` as a stage, with its FLOPs."""

        def call(layer: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
            begun = time.process_time()
            with self.stage("convolutions"):
                out = function(layer, x, weight, bias)
            _, inside, height, width = weight.shape
            kind = f"{height} x {width}, {x.shape[1]} to {out.shape[1]}, on {out.shape[-2]} x {out.shape[-1]}"
            entry = self.convolutions[kind]
            entry[0] += 1
            entry[1] += time.process_time() - begun
            entry[2] += 2 * out.numel() * inside * height * width
            return out

        return call


@contextmanager
def watching(watch: Stopwatch) -> Iterator[None]:
    """Time the stages in the body."""
    with ExitStack() as patches:
        for stage, places in STAGES.items():
            for place in places:
                module, _, name = place.partition(":")
                owner: Any = import_module(f"iasolve.{module}")
                *path, last = name.split(".")
                for step in path:
                    owner = getattr(owner, step)
                patches.enter_context(mock.patch.object(owner, last, watch.timed(stage, getattr(owner, last))))
        forward = nn.Conv2d._conv_forward
        patches.enter_context(mock.patch.object(nn.Conv2d, "_conv_forward", watch.convolved(forward)))
        yield


def product_rate(dtype: torch.dtype, side: int = 1024) -> float:
    """FLOP/s of a matrix product."""
    a = torch.randn(side, side).to(dtype)
    a @ a
    begun = time.process_time()
    a @ a
    return 2 * side**3 / (time.process_time() - begun)


def profile(recipe: str, prior: Any, size: int, repeats: int) -> dict[str, Any]:
    """Medians of the stages' seconds, sums over the convolutions, and the matrix product's rate between."""
    head = torch.from_numpy(load_samples().images[:1]).float()
    head = (head / head.square().mean().sqrt()).tile(1, size // 128, size // 128)
    y = head + SIGMA * torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
    operator, noise = Identity(tuple(head.shape)), GaussianNoise(SIGMA)  # type: ignore[arg-type]
    iasolve.solve(y, operator, prior, noise=noise, recipe=recipe, warn=False)
    dtype = torch.bfloat16 if prior.halves else torch.float32
    runs, rates, singles, kinds = [], [], [], Stopwatch().convolutions
    for _ in range(repeats):
        watch = Stopwatch()
        with watching(watch), watch.stage("rest"):
            iasolve.solve(y, operator, prior, noise=noise, recipe=recipe, warn=False)
        runs.append(watch.seconds)
        rates.append(product_rate(dtype))
        singles.append(product_rate(torch.float32))
        for kind, entry in watch.convolutions.items():
            kinds[kind] = [a + b / repeats for a, b in zip(kinds[kind], entry, strict=True)]
    stages = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in ("convolutions", *STAGES, "rest")}
    total, flops = sum(stages.values()), sum(entry[2] for entry in kinds.values())
    return {
        "seconds": total,
        "stages": stages,
        "networks_share": sum(stages[name] for name in NETWORKS) / total,
        "convolution_gflops": flops / stages["convolutions"] / 1e9,
        "product_gflops": statistics.median(rates) / 1e9,
        "single_gflops": statistics.median(singles) / 1e9,
        "product_type": str(dtype).removeprefix("torch."),
        "convolutions": {kind: {"calls": n, "seconds": s, "flops": f} for kind, (n, s, f) in kinds.items()},
    }


def tables(found: dict[str, dict[str, Any]]) -> str:
    """Stages, and the convolutions that take longest."""
    stages = ["convolutions", *STAGES, "rest"]
    rows = [
        *(
            [s, *(f"{1e3 * one['stages'][s]:.1f} ({one['stages'][s] / one['seconds']:.0%})" for one in found.values())]
            for s in stages
        ),
        ["**all**", *(f"**{1e3 * one['seconds']:.1f}**" for one in found.values())],
        ["networks' share", *(f"{one['networks_share']:.0%}" for one in found.values())],
        ["convolutions, GFLOP/s", *(f"{one['convolution_gflops']:.1f}" for one in found.values())],
        ["matrix product, GFLOP/s", *(f"{one['product_gflops']:.1f}, {one['product_type']}" for one in found.values())],
        ["in single precision", *(f"{one['single_gflops']:.1f}" for one in found.values())],
        [
            "convolutions' share of the product",
            *(f"{one['convolution_gflops'] / one['product_gflops']:.0%}" for one in found.values()),
        ],
    ]
    text = common.table(["processor ms", *found], rows)
    for recipe, one in found.items():
        slowest = sorted(one["convolutions"].items(), key=lambda item: -item[1]["seconds"])[:8]
        text += f"\nConvolutions of `{recipe}` that take longest:\n\n" + common.table(
            ["kernel, channels, grid", "calls", "ms", "GFLOP/s"],
            [
                [kind, f"{c['calls']:.0f}", f"{1e3 * c['seconds']:.1f}", f"{c['flops'] / c['seconds'] / 1e9:.1f}"]
                for kind, c in slowest
            ],
        )
    return text


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--size", type=int, default=128, help="a multiple of 128: the sample is laid side by side")
    parser.add_argument("--prior", default="mri-t1-128")
    parser.add_argument("--quick", action="store_true", help="once; no table is written")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    prior = iasolve.load_prior(asked.prior)
    repeats = 1 if asked.quick else asked.repeats
    found = {recipe: profile(recipe, prior, asked.size, repeats) for recipe in ("fast", "denoise")}
    about = common.provenance(0, prior, size=asked.size, repeats=repeats)
    text = f"# Where the time goes\n\n{common.stamp(about)} Medians of {repeats}.\n\n{tables(found)}"
    print(text)
    if not asked.quick:
        common.write("inference_profile", {"about": about, **found}, text)


if __name__ == "__main__":
    main()
