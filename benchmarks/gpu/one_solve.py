"""One 128 x 128 denoising: as a user calls it, its networks as one CUDA graph, many at once; beside the roofline.

    cd benchmarks && python -m gpu.one_solve                # a CUDA device; about two minutes
    cd benchmarks && python -m gpu.one_solve --quick        # the same code on the processor: a look, not a result

``iasolve.solve`` decides on the processor what to do next, so that not all of it can be recorded. What is recorded is
what its time should be spent in: the Wiener estimate and the reader's readings, one (recipe ``fast``) or four mirrored
ones (``denoise``, which reads the hierarchy besides). The roofline is the larger of two times: the counted FLOPs at the
rate of a large matrix product, and the bytes at the rate of a large copy, both measured in this run. Bytes are
estimated, from above: every operator is taken to read its inputs from memory and to write its outputs there.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import common
import iasolve
from iasolve.evidence import Folded, wiener_posterior
from iasolve.operators import GaussianNoise, Identity
from iasolve.samples import load_samples
from iasolve.spectrum import fft2

SIGMA = 0.1
VIEWS = {"fast": 1, "denoise": 4}
TARGETS = {"fast": 2.0, "denoise": 10.0}
"""Milliseconds of one solve on a data-centre GPU."""


class Counted(TorchDispatchMode):
    """FLOPs of convolutions and matrix products, and bytes of all operators' inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        # a view moves nothing
        if not func.is_view:
            self.bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        return out


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median of several runs, after two that are not counted."""
    taken = []
    for turn in range(repeats + 2):
        wait(device)
        begun = time.perf_counter()
        call()
        wait(device)
        if turn >= 2:
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def rates(device: torch.device, repeats: int) -> tuple[float, float]:
    """FLOP/s of a large matrix product in the precision that readings have, and bytes/s of a large copy."""
    side, half = (8192, False) if device.type == "cuda" else (1024, True)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if half else torch.float32)
    copied = torch.empty(2**28 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(copied)
    product = seconds(lambda: a @ a, device, repeats)
    return 2 * side**3 / product, 2 * copied.nbytes / seconds(lambda: target.copy_(copied), device, repeats)


def networks(prior: Any, y: Tensor, views: int) -> Callable[[], Tensor]:
    """The part of a solve that the networks are in, on a measurement that stays where it is."""
    ways = [(), (-1,), (-2,), (-2, -1)][:views]

    @torch.no_grad()
    def run() -> Tensor:
        turned = torch.cat([y.flip(way) for way in ways])
        folded = Folded(fft2(turned), torch.full_like(turned, SIGMA**2))
        reading = prior.read(wiener_posterior(folded, prior.power, is_complex=False))
        parts = reading.estimate.split(len(y))
        return torch.stack([part.flip(way) for part, way in zip(parts, ways, strict=True)]).mean(0)

    return run


def recorded(call: Callable[[], Tensor], device: torch.device) -> Callable[[], Any]:
    """A call as a CUDA graph; on a processor the call itself."""
    if device.type != "cuda":
        return call
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="on the processor, few repeats; no table is written")
    parser.add_argument("--prior", default="mri-t1-128")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    asked = parser.parse_args()
    if not asked.quick and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: --quick runs the same code on the processor")
    device = torch.device("cpu" if asked.quick else "cuda")
    repeats, batches = (2, (1, 2)) if asked.quick else (20, (1, 16, 64, 256, 1024))
    prior = iasolve.load_prior(asked.prior).to(str(device))
    image = torch.from_numpy(load_samples().images[:1]).float()[:, None].to(device)
    image = image / image.square().mean().sqrt()
    y = image + SIGMA * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(device)
    operator, noise = Identity((1, *image.shape[-2:])), GaussianNoise(SIGMA)
    product, copy = rates(device, repeats)
    rows, found = [], {}
    for recipe, views in VIEWS.items():

        def solve(count: int, recipe: str = recipe) -> Any:
            many = y.expand(count, -1, -1, -1)
            return iasolve.solve(many, operator, prior, noise=noise, recipe=recipe, warn=False, batch_size=count)

        call = networks(prior, y, views)
        with Counted() as counted:
            call()
        whole, eager = (seconds(one, device, repeats) for one in (lambda: solve(1), call))
        graph = seconds(recorded(call, device), device, repeats)
        bound = max(counted.flops / product, counted.bytes / copy)
        each = {count: count / seconds(lambda: solve(count), device, max(2, repeats // 4)) for count in batches}  # noqa: B023
        found[recipe] = {
            "solve": whole,
            "networks": eager,
            "recorded": graph,
            "roofline": bound,
            "flops": counted.flops,
            "bytes": counted.bytes,
            "images_per_second": each,
        }
        best = max(each, key=lambda count: each[count])
        rows.append(
            [
                recipe,
                *(f"{1e3 * value:.3g}" for value in (whole, eager, graph, bound)),
                f"{counted.flops / 1e9:.3g}",
                f"{counted.bytes / 1e6:.3g}",
                f"{each[best]:.4g} ({best} at once)",
                f"{TARGETS[recipe]:g} ms",
            ]
        )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor, one look"
    header = ["recipe", "solve, ms", "networks, ms", "recorded, ms", "roofline, ms", "GFLOP", "MB, estimated"]
    text = (
        f"# One solve on a GPU\n\n{common.stamp(common.provenance(0, prior))} Device: {name}. Matrix product "
        f"{product / 1e12:.3g} TFLOP/s, copy {copy / 1e9:.3g} GB/s.\n\n"
        + common.table([*header, "images a second", "target of a solve"], rows)
    )
    print(text)
    if not asked.quick:
        common.write("gpu_one_solve", {"about": common.provenance(0, prior, device=name), **found}, text, asked.out)


if __name__ == "__main__":
    main()
