"""The IA-HVAE paper's inner loop as it stands there: Algorithm 1 with an L1 loss and raw latents.

Latent by latent, coarse to fine. A step completes the scale with the layers after the latent, compares the scale's
contribution with the measured bins of its ring (sum of absolute real and imaginary parts), and goes down the gradient
of ``beta * loss - log p(z)`` in the latent itself: lambda 0.001, beta 1, 25 steps, no closing step. The paper prints
the log prior with the other sign, by which the prior would repel the latent.

The library's steps are counted in standard deviations of the posterior and weigh the data by their likelihood; nothing
but this file takes the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve import Prior
from iasolve.evidence import Folded
from iasolve.inference.objective import OBJECTIVES
from iasolve.networks import Gaussian
from iasolve.priors.hierarchy import START, Hierarchy, Node, posterior_mean, values

STEPS, SIZE, BETA = 25, 0.001, 1.0


class RingLoss:
    """L1 distance of a scale's contribution from the measured bins of its ring, over the full grid."""

    def __init__(self, prior: Prior, folded: Folded) -> None:
        spectrum = prior.spectrum
        self.targets, self.variances = (prior.rings(spectrum.half(t)) for t in folded)
        self.weights = prior.rings(spectrum.weight.to(self.variances[0]))

    def __call__(self, scale: int, contribution: Tensor) -> Tensor:
        """``(B,)``, of a contribution ``(B, C, n_s)``."""
        off = contribution - self.targets[scale]
        measured = torch.isfinite(self.variances[scale]) * self.weights[scale]
        return ((off.real.abs() + off.imag.abs()) * measured).flatten(1).sum(1)


def paper_loop(
    prior: Prior, features: list[Tensor] | None, folded: Folded, steps: int = STEPS, size: float = SIZE
) -> list[Tensor]:
    """Latents of a separable prior after the paper's loop, coarse to fine.

    Parameters
    ----------
    prior : Prior
    features : list of Tensor, optional
        The encoder's of the measurement; None starts from the prior (iterative inference).
    folded : Folded
        The measurement on the full grid ``(B, C, N, N)``, in the prior's units.
    steps : int
    size : float
        Lambda, in the latents' own units.
    """
    hierarchy = Hierarchy(prior, len(folded.value), features)
    loss = RingLoss(prior, folded)
    done, latents = START, []
    for number, scale in enumerate(hierarchy.scale_of):
        with torch.no_grad():
            (node,) = hierarchy.descend(posterior_mean, done, number + 1).nodes
            z = node.posterior.mean
        end = max(n for n, owner in enumerate(hierarchy.scale_of) if owner == scale) + 1
        for _ in range(steps):
            moved = z.detach().requires_grad_(True)

            def choose(node: Node, moved: Tensor = moved, number: int = number) -> Tensor:
                return moved if node.number == number else node.posterior.mean

            way = hierarchy.descend(choose, done, end)
            fit = loss(scale, prior.contribution(scale, way.done.contexts[scale]))
            cost = sum(
                OBJECTIVES["map"].of(Gaussian(z, z), node.prior).flatten(1).sum(1)
                for z, node in zip(way.latents, way.nodes, strict=True)
            )
            (gradient,) = torch.autograd.grad((BETA * fit + cost).sum(), moved)
            z = z - size * gradient
        latents.append(z)
        with torch.no_grad():
            done = hierarchy.descend(values([z], number), done, number + 1).done
    return latents
