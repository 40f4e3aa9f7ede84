"""Sampling masks for k-space, drawn by ``fastmri.data.subsample``, centred (DC in the middle).

A mask asked for an acceleration rarely has it exactly: :func:`acceleration` reports what really came out.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["acceleration", "line_mask", "point_mask"]


def acceleration(mask: Tensor) -> float:
    """Number of k-space positions over the number sampled, of a mask ``(..., H, W)``."""
    sampled = int(torch.count_nonzero(mask))
    if sampled == 0:
        raise ValueError("the mask samples nothing: at least one entry must be non-zero")
    return mask.numel() / sampled


def _subsample() -> Any:
    with warnings.catch_warnings():
        # fastmri's own dependencies warn on import; nothing a user of a mask could act on
        warnings.simplefilter("ignore")
        from fastmri.data import subsample
    return subsample


def line_mask(
    shape: tuple[int, int],
    acceleration: float,
    centre_fraction: float,
    *,
    kind: str = "random",
    axis: int = -1,
    seed: int = 0,
) -> Tensor:
    """Cartesian lines: whole rows or columns of k-space, the centre fully sampled.

    Parameters
    ----------
    shape : (int, int)
        ``(H, W)`` of the k-space.
    acceleration : float
        Target acceleration, at least 1.
    centre_fraction : float
        Fraction of lines in the fully sampled centre, in (0, 1].
    kind : {"random", "equispaced"}
        ``fastmri.data.subsample.RandomMaskFunc`` or ``EquiSpacedMaskFunc``-like spacing with the number of
        lines adjusted for the centre (``EquispacedMaskFractionFunc``).
    axis : {-1, -2}
        Axis along which lines are chosen: -1 (as in fastMRI) samples whole columns.
    seed : int
        Seed of the draw.

    Returns
    -------
    Tensor
        Boolean ``(H, W)``, centred.

    Raises
    ------
    ValueError
        For an impossible acceleration, centre fraction, kind or axis.
    """
    if acceleration < 1:
        raise ValueError(f"acceleration must be at least 1, got {acceleration}")
    if not 0 < centre_fraction <= 1:
        raise ValueError(f"centre_fraction must lie in (0, 1], got {centre_fraction}")
    if axis not in (-1, -2):
        raise ValueError(f"axis must be -1 (columns) or -2 (rows), got {axis}")
    classes = {"random": "RandomMaskFunc", "equispaced": "EquispacedMaskFractionFunc"}
    if kind not in classes:
        raise ValueError(f"kind must be one of {sorted(classes)}, got {kind!r}")
    count = shape[axis]
    centre = max(1, round(count * centre_fraction))
    # fastmri rounds the fraction itself, possibly to no line at all: DC is always sampled here
    centre_fraction = max(centre_fraction, 1 / count)
    if centre * acceleration >= count:
        # the centre alone fills the budget: fastmri would ask for a negative number of further lines
        lines = np.zeros(count, dtype=bool)
        start = (count - centre + 1) // 2
        lines[start : start + centre] = True
    else:
        function = getattr(_subsample(), classes[kind])([centre_fraction], [acceleration])
        drawn, _ = function((1, count, 2), None, seed)
        lines = drawn.reshape(count).numpy() > 0
    mask = torch.from_numpy(lines)
    return (mask[None, :] if axis == -1 else mask[:, None]).expand(shape).contiguous()


def point_mask(shape: tuple[int, int], acceleration: float, centre_fraction: float, *, seed: int = 0) -> Tensor:
    """Independent random points with a density that falls off from the fully sampled centre square.

    Density is proportional to ``(1 - r)^2`` with ``r`` the Chebyshev radius over the half width (the usual
    variable density of compressed sensing, Lustig et al. 2007), scaled to the target acceleration.

    Returns
    -------
    Tensor
        Boolean ``(H, W)``, centred.
    """
    if acceleration < 1:
        raise ValueError(f"acceleration must be at least 1, got {acceleration}")
    height, width = shape
    y = np.abs(np.arange(height) - height // 2)[:, None] / (height / 2)
    x = np.abs(np.arange(width) - width // 2)[None, :] / (width / 2)
    r = np.minimum(np.maximum(y, x), 1.0)
    centre = r <= centre_fraction
    density = (1 - r) ** 2 + 0.02
    wanted = height * width / acceleration
    low, high = 0.0, 1e4
    for _ in range(60):
        factor = (low + high) / 2
        expected = np.where(centre, 1.0, np.minimum(1.0, factor * density)).sum()
        low, high = (factor, high) if expected < wanted else (low, factor)
    probability = np.where(centre, 1.0, np.minimum(1.0, low * density))
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < probability)
