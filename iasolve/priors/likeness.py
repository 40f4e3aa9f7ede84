"""How like its training data a prior finds an image: the evidence lower bound."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.networks import kl_divergence
from iasolve.priors.prior import Prior

__all__ = ["image_elbo"]


@torch.no_grad()
def image_elbo(prior: Prior, images: Tensor) -> Tensor:
    """ELBO of images in nats per dimension, latents at their posterior means.

    Parameters
    ----------
    prior : Prior
    images : Tensor
        ``(B, C, N, N)`` in the prior's units (root mean square 1).

    Returns
    -------
    Tensor
        ``(B,)``.
    """
    spectrum = prior.spectrum
    batch, dims = len(images), images[0].numel()
    known = images.real.new_ones(batch, 2, len(spectrum.scales))
    features = prior.encode(images, known)
    context: Tensor | None = None
    cost = images.real.new_zeros(batch)
    contributions = []
    for index in range(len(spectrum.scales)):
        context = prior.enter(index, context, batch)
        for layer in prior.layers(index):
            p, feature = layer.prior(context)
            q = layer.posterior(context, features[index], p)
            cost = cost + kl_divergence(q, p).flatten(1).sum(1)
            context = layer.update(context, q.mean, feature)
        contributions.append(prior.contribution(index, context))
    residual = (spectrum.transform(images) - prior.assemble(contributions)).abs().square()
    variance = prior.sigma_x.square()
    bins = spectrum.bins_per_ring.to(residual.device)
    factor = 1.0 if images.is_complex() else 0.5
    distortion = factor * (spectrum.ring_sums(residual) / variance + bins * variance.log()).sum((-2, -1))
    return -(cost + distortion) / dims
