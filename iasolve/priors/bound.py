"""The evidence lower bound of images under a posterior that refinement may have moved, and the latents' prior density.

Additive constants, ``log(2 pi) / 2`` for every real number, are left out everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.networks import Gaussian, kl_divergence
from iasolve.priors.hierarchy import Hierarchy, Node
from iasolve.priors.prior import Prior

__all__ = ["Bound", "bound", "distortion", "follow"]


class Followed(NamedTuple):
    """What one way down the hierarchy costs.

    ``kl`` and ``nll`` ``(B,)``: ``KL(q || p)`` and ``-log p(z | context)`` summed over latents, nats; ``latents``: how
    many numbers that are per image; ``contributions``: of every scale.
    """

    kl: Tensor
    nll: Tensor
    latents: int
    contributions: list[Tensor]


def follow(
    prior: Prior,
    features: list[Tensor] | None,
    batch: int,
    offsets: Sequence[Sequence[Tensor]] | None = None,
    draw: Callable[[tuple[int, ...]], Tensor] | None = None,
) -> Followed:
    """Go down with every latent at its posterior mean, moved by its offset, plus a draw.

    Parameters
    ----------
    prior : Prior
    features : list of Tensor, optional
        The encoder's; without them the posterior is the prior.
    batch : int
        Images.
    offsets : optional
        Per scale and layer, in posterior standard deviations.
    draw : callable, optional
        Standard normal values of a shape ``(B, ...)``; without it latents are at the means.
    """
    shifts = None if offsets is None else [shift for scale in offsets for shift in scale]
    posteriors: list[Gaussian] = []

    def choose(node: Node) -> Tensor:
        q = node.posterior
        if shifts is not None:
            q = q._replace(mean=q.mean + q.std * shifts[node.number])
        posteriors.append(q)
        return q.mean if draw is None else q.mean + q.std * draw(tuple(q.mean.shape))

    way = Hierarchy(prior, batch, features).descend(choose)
    kl = nll = torch.zeros(batch, device=prior.device, dtype=prior.power.dtype)
    for node, q, z in zip(way.nodes, posteriors, way.latents, strict=True):
        p = node.prior
        kl = kl + kl_divergence(q, p).flatten(1).sum(1)
        nll = nll + (0.5 * ((z - p.mean) / p.std).square() + p.log_std).flatten(1).sum(1)
    return Followed(kl, nll, sum(z[0].numel() for z in way.latents), prior.contributions(list(way.done.contexts)))


def distortion(prior: Prior, images: Tensor, contributions: list[Tensor]) -> Tensor:
    """``-log p(x | z)`` of images ``(B, C, N, N)`` in nats, ``(B,)``."""
    spectrum = prior.spectrum
    residual = (spectrum.transform(images) - prior.assemble(contributions)).abs().square()
    variance = prior.sigma_x.square()
    bins = spectrum.bins(residual.device)
    factor = 1.0 if images.is_complex() else 0.5
    return factor * (spectrum.ring_sums(residual) / variance + bins * variance.log()).sum((-2, -1))


class Bound(NamedTuple):
    """``elbo`` ``(B,)``, nats per dimension of the image; ``nll`` ``(B,)``, nats per latent dimension.

    ``nll`` is ``-log p(z)`` at the posterior's (moved) means: how typical of the prior the solution's latents are.
    """

    elbo: Tensor
    nll: Tensor


@torch.no_grad()
def bound(
    prior: Prior,
    images: Tensor,
    offsets: Sequence[Sequence[Tensor]] | None = None,
    *,
    encoder: bool = True,
    draws: int = 4,
    seed: int = 0,
) -> Bound:
    """The bound of clean images, an average over draws of their latents.

    With offsets it stays a lower bound: of the posterior ``N(mean + std * offset, std)`` in every context.

    Parameters
    ----------
    prior : Prior
    images : Tensor
        ``(B, C, N, N)`` in the prior's units (root mean square 1).
    offsets : optional
        Per scale and layer, as :attr:`iasolve.Result.offsets` has them; None: the amortized posterior.
    encoder : bool
        Whether the posterior is the encoder's, or the prior (iterative inference).
    draws : int
        Even; every second draw is the negative of the one before.
    seed : int
        The same seed gives the same draws, so that posteriors can be compared.
    """
    if draws < 2 or draws % 2:
        raise ValueError(f"draws must be even and at least 2, got {draws}")
    batch = len(images)
    dims = images[0].numel()
    features = None
    if encoder:
        features = prior.encode(images, images.real.new_ones(batch, 2, len(prior.spectrum.scales)))
    total = images.real.new_zeros(batch)
    for number in range(draws):
        # a pair shares its generator's seed and differs in sign
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number // 2)
        sign = math.copysign(1.0, 0.5 - number % 2)

        def draw(shape: tuple[int, ...], generator: torch.Generator = generator, sign: float = sign) -> Tensor:
            return (sign * torch.randn(shape, generator=generator)).to(images.device, images.real.dtype)

        found = follow(prior, features, batch, offsets, draw)
        total = total + found.kl + distortion(prior, images, found.contributions)
    centre = follow(prior, features, batch, offsets)
    return Bound(-total / draws / dims, centre.nll / centre.latents)
