"""Sampling masks: k-space masks drawn by ``fastmri.data.subsample``, centred (DC in the middle), and their checks.

A mask asked for an acceleration rarely has it exactly: :func:`acceleration` reports what really came out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import as_tensor

__all__ = ["acceleration", "as_mask", "line_mask", "mask_from_fastmri", "point_mask"]


def as_mask(mask: Tensor | np.ndarray, *shapes: tuple[int, ...]) -> Tensor:
    """A float32 copy of ``mask``, broadcast to the first of ``shapes`` that it fits.

    Raises
    ------
    ValueError
        When it does not broadcast, holds other values than 0 and 1, or samples nothing.
    """
    given = as_tensor(mask)
    fitting = [shape for shape in shapes if _fits(given.shape, shape)]
    if not fitting:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"the mask has shape {tuple(given.shape)}, expected one broadcastable to {expected}")
    values = torch.broadcast_to(given, fitting[0])
    if not bool(((values == 0) | (values == 1)).all()):
        raise ValueError(
            f"the mask holds {_odd_value(values):.4g}, expected only 0 and 1 (or False and True): use mask != 0 if it "
            "marks samples otherwise, WeightedGaussianNoise if it weighs them"
        )
    if not bool(values.any()):
        raise ValueError("the mask samples nothing: at least one entry must be 1")
    # a copy, so that what happens to the caller's mask later does not change the operator
    return values.to(torch.float32, copy=True).contiguous()


def _odd_value(values: Tensor) -> complex:
    odd = values[(values != 0) & (values != 1)]
    return complex(odd[0]) if odd.is_complex() else float(odd[0])


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    aligned = zip(reversed(given), reversed(shape), strict=False)
    return len(given) <= len(shape) and all(a in (1, b) for a, b in aligned)


def acceleration(mask: Tensor) -> float:
    """Number of k-space positions over the number sampled, of a mask ``(..., H, W)``.

    Examples
    --------
    >>> import torch
    >>> acceleration(torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]))
    2.6666666666666665
    """
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


def mask_from_fastmri(function: Callable[..., Any], shape: tuple[int, int], seed: int | None = 0) -> Tensor:
    """The mask that one of fastmri's mask functions draws for k-space of a shape.

    Parameters
    ----------
    function : callable
        A ``fastmri.data.subsample.MaskFunc``, from ``create_mask_for_mask_type`` or of one's own: called as
        ``function((H, W, 2), None, seed)``, it returns a mask broadcastable to ``(H, W, 1)``, and a count.
    shape : (int, int)
        ``(H, W)`` of the k-space.
    seed : int, optional
        Seed of the draw; None goes on with the function's own random state.

    Returns
    -------
    Tensor
        Boolean ``(H, W)``, centred.

    Raises
    ------
    ValueError
        When what the function returns does not broadcast to ``(H, W, 1)``.

    Examples
    --------
    >>> from fastmri.data.subsample import RandomMaskFunc
    >>> mask = mask_from_fastmri(RandomMaskFunc([0.08], [4]), (64, 128), seed=1)
    >>> mask.shape, round(acceleration(mask), 2)
    (torch.Size([64, 128]), 3.28)
    """
    drawn, _ = function((*shape, 2), None, seed)
    try:
        mask = torch.broadcast_to(as_tensor(drawn), (*shape, 1))
    except RuntimeError:
        raise ValueError(
            f"the mask function drew a mask of shape {tuple(drawn.shape)}, expected one broadcastable to {(*shape, 1)}"
        ) from None
    return (mask[..., 0] > 0).contiguous()


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

    Examples
    --------
    >>> mask = line_mask((64, 128), acceleration=4, centre_fraction=0.08)
    >>> mask.shape, bool((mask == mask[0]).all())
    (torch.Size([64, 128]), True)
    """
    if not 1 <= acceleration < math.inf:
        raise ValueError(f"acceleration must be at least 1 and finite, got {acceleration}")
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
        lines = torch.zeros(count, dtype=torch.bool)
        start = (count - centre + 1) // 2
        lines[start : start + centre] = True
    else:
        function = getattr(_subsample(), classes[kind])([centre_fraction], [acceleration])
        lines = mask_from_fastmri(function, (1, count), seed)[0]
    return (lines[None, :] if axis == -1 else lines[:, None]).expand(shape).contiguous()


def point_mask(shape: tuple[int, int], acceleration: float, centre_fraction: float, *, seed: int = 0) -> Tensor:
    """Independent random points with a density that falls off from the fully sampled centre square.

    Density is proportional to ``(1 - r)^2`` with ``r`` the Chebyshev radius over the half width (the usual
    variable density of compressed sensing, Lustig et al. 2007), scaled to the target acceleration.

    Returns
    -------
    Tensor
        Boolean ``(H, W)``, centred.

    Examples
    --------
    >>> mask = point_mask((64, 64), acceleration=4, centre_fraction=0.1)
    >>> round(acceleration(mask)), bool(mask[32, 32])
    (4, True)
    """
    if not 1 <= acceleration < math.inf:
        raise ValueError(f"acceleration must be at least 1 and finite, got {acceleration}")
    if not 0 <= centre_fraction <= 1:
        raise ValueError(f"centre_fraction must lie in [0, 1], got {centre_fraction}")
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
