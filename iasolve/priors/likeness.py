"""How like its training data a prior finds an image: the evidence lower bound, and the power of coarse rings.

The bound alone is one-sided: a smooth photograph is easy to encode and gets a high one. What gives it away is how
its energy is shared among the coarse rings (a head stands before air; a photograph fills its frame).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iasolve.priors.bound import distortion, follow
from iasolve.priors.prior import Prior
from iasolve.spectrum import Spectrum

__all__ = ["coarse_rings", "image_elbo", "ring_distance", "ring_statistics"]


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
    batch, dims = len(images), images[0].numel()
    known = images.real.new_ones(batch, 2, len(prior.spectrum.scales))
    found = follow(prior, prior.encode(images, known), batch)
    return -(found.kl + distortion(prior, images, found.contributions)) / dims


def coarse_rings(spectrum: Spectrum) -> list[int]:
    """Indices of the rings that :func:`ring_statistics` is of."""
    return [i for i, s in enumerate(spectrum.scales) if s <= max(4, spectrum.size // 8)]


def _ring_log_power(spectrum: Spectrum, images: Tensor) -> Tensor:
    """Log power of the coarse rings, up to an eighth of the size, ``(B, R)``: noise and blur hardly reach them."""
    power = spectrum.ring_means(spectrum.transform(images).abs().square()).mean(dim=1)
    return torch.log(power[:, coarse_rings(spectrum)] + 1e-12)


def ring_statistics(spectrum: Spectrum, images: Tensor) -> dict[str, Any] | None:
    """Mean and standard deviation of the coarse rings' log power over validation images, and their largest distance.

    For the card. ``images`` are ``(n, C, N, N)`` in the prior's units; fewer than ten say nothing of a spread: None.
    """
    if len(images) < 10:
        return None
    values = _ring_log_power(spectrum, images)
    mean, std = values.mean(0), values.std(0).clamp_min(1e-3)
    return {
        "mean": [round(float(v), 5) for v in mean],
        "std": [round(float(v), 5) for v in std],
        "largest_distance": round(float(((values - mean) / std).abs().max()), 4),
    }


def ring_distance(prior: Prior, images: Tensor) -> Tensor:
    """Largest distance of an image's coarse rings from the validation images', in their standard deviations, ``(B,)``.

    NaN for a prior whose card does not have the statistics.
    """
    known = prior.card.get("validation", {}).get("coarse_rings")
    if known is None:
        return torch.full((len(images),), torch.nan, device=images.device, dtype=images.real.dtype)
    values = _ring_log_power(prior.spectrum, images)
    mean, std = (torch.tensor(known[k], device=values.device, dtype=values.dtype) for k in ("mean", "std"))
    return ((values - mean) / std).abs().amax(-1)
