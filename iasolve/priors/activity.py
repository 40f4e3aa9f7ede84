"""How much each latent layer says of an image: active units and KL divergence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iasolve.networks import kl_divergence
from iasolve.priors.hierarchy import Hierarchy, posterior_mean
from iasolve.priors.prior import Prior

__all__ = ["THRESHOLD", "latent_activity"]

THRESHOLD = 0.01
"""Variance over images above which a unit counts as active (Burda et al. 2016)."""


@torch.no_grad()
def latent_activity(prior: Prior, images: Tensor, batch_size: int = 32) -> list[dict[str, Any]] | None:
    """Active units and mean KL of every layer, for the card; None of fewer than two images.

    A unit, one number of a latent map, is *active* when the variance over images of its posterior mean is above
    :data:`THRESHOLD`. Posteriors are taken top-down along the posterior means. The mean of a layer that says nothing
    still follows its prior's mean, which the coarser latents move: such a layer shows active units, but no KL.

    Parameters
    ----------
    prior : Prior
    images : Tensor
        ``(n, C, N, N)`` in the prior's units (root mean square 1).
    batch_size : int
        Images at a time.

    Returns
    -------
    list of dict
        Per layer, coarse to fine: its ``scale``, ``units``, how many are ``active``, and ``kl``, nats per image.
    """
    if len(images) < 2:
        return None
    scales = prior.spectrum.scales
    totals: list[tuple[Tensor, Tensor, Tensor]] = []
    owners: list[int] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(prior.device)
        features = prior.encode(batch, batch.real.new_ones(len(batch), 2, len(scales)))
        nodes = Hierarchy(prior, len(batch), features).descend(posterior_mean).nodes
        owners = [scales[node.scale] for node in nodes]
        sums = []
        for node in nodes:
            q = node.posterior
            mean, cost = q.mean.double(), kl_divergence(q, node.prior).double().sum()
            sums.append((mean.sum(0), mean.square().sum(0), cost))
        totals = [(a + d, b + e, c + f) for (a, b, c), (d, e, f) in zip(totals, sums, strict=True)] if totals else sums
    rows: list[dict[str, Any]] = []
    for scale, (first, second, cost) in zip(owners, totals, strict=True):
        variance = second / len(images) - (first / len(images)).square()
        active = int((variance > THRESHOLD).sum())
        kl = round(float(cost) / len(images), 4)
        rows.append({"scale": scale, "units": variance.numel(), "active": active, "kl": kl})
    return rows
