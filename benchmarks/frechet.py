"""Frechet distance between two sets of images in the space of a feature extractor.

``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``, with ``m`` and ``C`` the features' means and covariances: the
squared 2-Wasserstein distance between Gaussians (Frechet 1957; Dowson and Landau 1982). With the pooled features of the
Inception network it is known as FID (Heusel et al. 2017); with any other features it is not called that.

The estimate from ``n`` images is biased upwards, the more, the fewer images there are for each feature. The jackknife
over groups of images takes the leading part of the bias away and gives an interval.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iasolve.metrics import mean_interval

__all__ = ["as_rgb", "distance_of_gaussians", "features_of", "frechet_distance", "jackknife"]

Values = NDArray[np.float64]


def _root(covariance: Values) -> Values:
    """Symmetric square root of a covariance."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T


def distance_of_gaussians(mean1: Values, covariance1: Values, mean2: Values, covariance2: Values) -> float:
    """The squared Frechet distance between ``N(mean1, covariance1)`` and ``N(mean2, covariance2)``.

    ``tr (C1 C2)^(1/2)`` is taken of the symmetric ``C1^(1/2) C2 C1^(1/2)``, which has the same eigenvalues and stays
    real where a covariance is singular, as it is for fewer images than features.
    """
    root = _root(covariance1)
    cross = np.linalg.eigvalsh(root @ covariance2 @ root)
    # of a singular product, zeros come out as rounding, whose root would be a thousand times as much
    cross = np.where(cross > len(cross) * np.finfo(cross.dtype).eps * cross.max(), cross, 0)
    trace = np.trace(covariance1) + np.trace(covariance2) - 2 * np.sqrt(cross).sum()
    return float(np.square(mean1 - mean2).sum() + trace)


def frechet_distance(first: Values, second: Values) -> float:
    """Between two sets of features, ``(n, d)`` and ``(m, d)``.

    Raises
    ------
    ValueError
        For sets of fewer than two, or of different widths.
    """
    for values in (first, second):
        if values.ndim != 2 or len(values) < 2 or values.shape[1] != first.shape[1]:
            raise ValueError(f"need features (n, d) and (m, d), n and m >= 2, got {first.shape} and {second.shape}")
    moments = [(v.mean(0), np.atleast_2d(np.cov(v, rowvar=False))) for v in (first, second)]
    return distance_of_gaussians(*moments[0], *moments[1])


def jackknife(first: Values, second: Values, groups: int = 20) -> tuple[float, float, float]:
    """Distance of paired sets ``(n, d)`` with the leading part of its bias taken away, and its 95 % interval.

    Images are left out group by group, from both sets at once. The estimate can come out below 0.
    """
    count = len(first)
    groups = min(groups if first.shape[1] <= 512 else 5, count // 2)  # thousands of features take seconds a group
    whole = frechet_distance(first, second)
    member = np.arange(count) % groups
    without = np.array([frechet_distance(first[member != g], second[member != g]) for g in range(groups)])
    return mean_interval(groups * whole - (groups - 1) * without)


def as_rgb(images: Tensor, reference: Tensor) -> Tensor:
    """Images as an extractor takes them: ``(n, 3, H, W)`` in [0, 1]; magnitudes of complex ones.

    1 is the largest value of the image's ``reference``: a reconstruction is not brightened by its own outliers.
    """
    shown, top = (x.abs() if x.is_complex() else x for x in (images, reference))
    shown = (shown / top.amax((-3, -2, -1), keepdim=True).clamp_min(1e-12)).clamp(0, 1)
    return shown.expand(-1, 3, -1, -1) if shown.shape[1] == 1 else shown


@torch.no_grad()
def features_of(extractor: Callable[[Tensor], Tensor], images: Tensor, batch: int = 64) -> Values:
    """Features ``(n, d)``, float64, of images as :func:`as_rgb` gives them."""
    return torch.cat([extractor(part).flatten(1) for part in images.split(batch)]).double().numpy()
