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

__all__ = ["coarse_rings", "edge_share", "image_elbo", "level_share", "ring_distance", "ring_statistics"]


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


def edge_share(images: Tensor) -> Tensor:
    """Share of an object's gradient that lies in the steepest tenth of its pixels, ``(B,)``: 1 where regions are flat.

    Of images of flat regions, such as masks, phantoms and discs, total variation makes more than a prior over
    photographs or scans does. The object is what differs from the image's border by a twentieth of the range: however
    much air there is around it, the share is the same.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)``, real or complex, in any unit.

    Returns
    -------
    Tensor
        ``(B,)``; 0 where there is no object, as in a constant image, or an image of a single row or column.
    """
    grey, object_ = _object_of(images)
    corner, below, right = (
        (slice(None, -1), slice(None, -1)),
        (slice(1, None), slice(None, -1)),
        (slice(None, -1), slice(1, None)),
    )
    steep = ((grey[:, *below] - grey[:, *corner]).square() + (grey[:, *right] - grey[:, *corner]).square()).sqrt()
    inside = object_[:, *corner] | object_[:, *below] | object_[:, *right]
    ordered = torch.where(inside, steep, 0.0).flatten(1).sort(dim=1, descending=True).values.cumsum(1)
    count = inside.flatten(1).sum(1)
    if not ordered.shape[1]:
        return grey.new_zeros(len(grey))
    tenth = ordered.gather(1, (count // 10 - 1).clamp_min(0)[:, None])[:, 0]
    return torch.where(ordered[:, -1] > 0, tenth / ordered[:, -1].clamp_min(torch.finfo(grey.dtype).tiny), 0.0)


def level_share(images: Tensor) -> Tensor:
    """Share of an object's pixels that are of one of its two commonest greys, ``(B,)``: 1 for a mask or a bar code.

    A grey is 7.5 % of the image's range; the object is that of :func:`edge_share`.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)``, real or complex, in any unit.

    Returns
    -------
    Tensor
        ``(B,)``; 0 where there is no object, as in a constant image.
    """
    grey, object_ = _object_of(images)
    return torch.stack([_commonest(one, inside) for one, inside in zip(grey, object_, strict=True)])


_BINS = 40
"""Of an image's range; three neighbours are one grey."""


def _commonest(grey: Tensor, inside: Tensor) -> Tensor:
    lowest, range_ = grey.min(), grey.max() - grey.min()
    if not bool(inside.any()) or not float(range_) > 0:
        return grey.new_zeros(())
    bins = ((grey[inside] - lowest) * (_BINS / range_)).long().clamp_max(_BINS - 1)
    counts = torch.bincount(bins, minlength=_BINS).double()
    found = 0.0
    for _ in range(2):
        three = torch.nn.functional.conv1d(counts[None, None], counts.new_ones(1, 1, 3), padding=1)[0, 0]
        best = int(three.argmax())
        found += float(three[best])
        counts[max(0, best - 1) : best + 2] = 0
    return grey.new_tensor(found / bins.numel())


def _object_of(images: Tensor) -> tuple[Tensor, Tensor]:
    """Grey images ``(B, H, W)``, and where they differ from their border by a twentieth of the largest difference."""
    grey = (images.abs() if images.is_complex() else images).mean(1)
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], dim=1).median(1).values
    height = (grey - border[:, None, None]).abs()
    return grey, height > 0.05 * height.amax((1, 2), keepdim=True)
