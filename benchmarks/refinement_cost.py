"""What refinement costs: the four ways to refine on one problem, and their layer evaluations and FLOPs, counted.

Seconds do not depend on the weights: the networks are untrained. The FLOPs of a step are a polynomial of at most the
second degree in the layers per scale, and so are its layer evaluations: three shallow networks tell those of any depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import quality
import torch
from counting import CountedPrior
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import common
from iasolve import HVAEPrior, Prior
from iasolve.inference.objective import OBJECTIVES, Noise, Objective, RingTerm
from iasolve.inference.passes import descend
from iasolve.inference.refine import Candidate, judge, parts_of, refine
from iasolve.networks import HVAE, NetworkConfig
from iasolve.priors.hierarchy import Hierarchy, values
from iasolve.problem.options import Watch
from iasolve.spectrum import scales_of


class Arm(NamedTuple):
    """A way to refine."""

    name: str
    decoder: str
    schedule: str


PER_LATENT = Arm("vanilla per latent", "vanilla", "sequential")
VANILLA_JOINT = Arm("vanilla joint", "vanilla", "joint")
SEQUENTIAL = Arm("IA sequential", "separable", "sequential")
JOINT = Arm("IA joint", "separable", "joint")
ARMS = (PER_LATENT, VANILLA_JOINT, SEQUENTIAL, JOINT)


def layer_evaluations(arm: Arm, layers: Sequence[int]) -> int:
    """Layer evaluations, forward and backward, of one step of every latent, by formula."""
    depth = sum(layers)
    if arm.schedule == "joint":
        return depth
    if arm.decoder == "vanilla":
        return depth * (depth + 1) // 2
    return sum(m * (m + 1) // 2 for m in layers)


def uniform(config: NetworkConfig, layers: int, **changes: Any) -> NetworkConfig:
    """A network like ``config``, whose scales are alike, with other layers per scale, and maybe of another size."""
    count = len(scales_of(changes.get("size", config.size)))
    alike = {name: (getattr(config, name)[-1],) * count for name in ("widths", "latents", "encoder_blocks")}
    return replace(config, **(alike | {"layers": (layers,) * count} | changes))


def untrained(config: NetworkConfig, decoder: str, seed: int) -> HVAEPrior:
    """A prior with the weights that training starts from."""
    torch.manual_seed(seed)
    return HVAEPrior(HVAE(replace(config, decoder=decoder)), f"untrained {decoder}", {})


class Workbench:
    """One problem, a noisy fully sampled measurement, with everything that can be called and timed on it.

    Parameters
    ----------
    prior : Prior
    batch : int
    objective : {"variational", "map"}
    seed : int
        Of image and draws.
    device : torch.device or str
        Where the prior is.
    """

    def __init__(self, prior: Prior, batch: int, objective: str, seed: int, device: torch.device | str = "cpu") -> None:
        self.prior, self.batch, self.objective, self.seed = prior, batch, objective, seed
        spectrum = prior.spectrum
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, prior.channels, spectrum.size, spectrum.size)
        dtype = torch.complex64 if spectrum.is_complex else torch.float32
        self.image = torch.randn(shape, generator=generator, dtype=dtype).to(device)
        self.profile = torch.full((batch, 2, len(spectrum.scales)), 0.5, device=device)
        self.stop = torch.full((batch,), len(spectrum.scales) - 1, device=device)
        folded = prior.rings(spectrum.transform(self.image))
        variances = [torch.full_like(v.real, 0.1) for v in folded]
        weights = prior.rings(spectrum.weight.to(device))
        betas = [1.0] * len(spectrum.scales)
        self.term = RingTerm(folded, variances, prior.sigma_x, spectrum, weights, betas)
        with torch.no_grad():
            self.features = prior.encode(self.image, self.profile)
            self.guess = descend(prior, self.features, self.stop)

    @torch.no_grad()
    def amortized(self) -> Tensor:
        """One amortized pass: encoder, decoder, image."""
        features = self.prior.encode(self.image, self.profile)
        found = descend(self.prior, features, self.stop)
        return self.prior.spectrum.inverse(self.prior.assemble(found.contributions))

    def decoder(self) -> tuple[Tensor, ...]:
        """The decoder alone, forward and backward: gradients of its contributions in all latents, nothing else."""
        latents = [z.clone().requires_grad_(True) for z in self.guess.latents]
        way = Hierarchy(self.prior, self.batch).descend(values(latents))
        found = self.prior.contributions(list(way.done.contexts))
        return torch.autograd.grad(found, latents, [torch.ones_like(h) for h in found])

    @torch.no_grad()
    def refine(self, schedule: str, steps: int) -> None:
        """Steps of every latent; from comparing the guess to the refined pass that :func:`iasolve.solve` reads off."""
        keys = {"steps": steps, "schedule": schedule, "objective": self.objective}
        recipe = common.changed(quality.PAPER_SETTING, **keys).steps
        noise = Noise(self.seed, self.image.device, self.image.real.dtype)
        hierarchy = Hierarchy(self.prior, self.batch, self.features, self.stop)
        objective = Objective(self.prior, hierarchy, self.term, OBJECTIVES[self.objective], noise, 1)
        parts = parts_of(hierarchy, recipe.blocks, self.prior.separable)
        widths = [q.log_std for q in self.guess.posteriors]
        judgement = judge(objective, parts, self.guess, widths)
        refine(objective, parts, Candidate(self.guess, widths, judgement), recipe, Watch())


class StepFlops(TorchDispatchMode):
    """FLOPs of convolutions and matrix products, those of gradient steps apart from all others.

    Attributes
    ----------
    with_gradient, without_gradient : int
        As of :class:`counting.CountedPrior`; a convolution's backward pass belongs to the step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.with_gradient = self.without_gradient = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **(kwargs or {}), out_val=out)
            if torch.is_grad_enabled() or func._overloadpacket is torch.ops.aten.convolution_backward:
                self.with_gradient += flops
            else:
                self.without_gradient += flops
        return out


class Cost(NamedTuple):
    """Of refinement: layer evaluations and FLOPs of one step of every latent, and FLOPs of what is done once."""

    evaluations: int
    flops: int
    once: int

    def of(self, steps: int) -> int:
        """FLOPs of so many steps."""
        return steps * self.flops + self.once


def count(config: NetworkConfig, arm: Arm, objective: str, seed: int) -> Cost:
    """The cost of refining one image, counted while it is done."""
    # from four steps on, a joint schedule compares as many iterates however many steps it takes
    steps = 4 if arm.schedule == "joint" else 1
    prior = CountedPrior(untrained(config, arm.decoder, seed))
    bench = Workbench(prior, 1, objective, seed)
    prior.reset()
    with StepFlops() as flops:
        bench.refine(arm.schedule, steps)
    return Cost(prior.with_gradient // steps, flops.with_gradient // steps, flops.without_gradient)


def extend(values: Sequence[int], layers: int) -> int:
    """The value at ``layers`` of the parabola through those at 1, 2 and 3."""
    one, two, three = values
    return one + (layers - 1) * (two - one) + (layers - 1) * (layers - 2) // 2 * (three - 2 * two + one)


class Counted:
    """Costs of networks like ``config`` with any number of layers per scale."""

    def __init__(self, config: NetworkConfig, objective: str, seed: int) -> None:
        self.shallow = {arm: [count(uniform(config, m), arm, objective, seed) for m in (1, 2, 3)] for arm in ARMS}

    def cost(self, arm: Arm, layers: int) -> Cost:
        """The cost of an arm at a depth."""
        return Cost(*(extend(values, layers) for values in zip(*self.shallow[arm], strict=True)))
