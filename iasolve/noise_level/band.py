"""Whether the outer part of an image's k-space is empty, as after zero-filled interpolation."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.operators.base import as_floating
from iasolve.spectrum import fft2

__all__ = ["filled_fraction"]

_DROP = 30.0  # power inside the edge over power outside
_SMALLEST = 32
_STEP = 2  # frequencies over which the edge falls
_CORE = 8  # an image with less k-space than one in so many is blurred, not interpolated
_LEAST = 12  # frequencies inside the edge: among fewer, the power of any image falls as fast


def filled_fraction(image: Tensor) -> tuple[float, float]:
    """Share of rows and columns of k-space that hold anything, of an image ``(C, H, W)``, real or complex.

    Scanners and viewers enlarge images by zeros around k-space. Then the power falls at one frequency by a factor, and
    stays low. (1, 1) where there is no such edge; (0.5, 0.5) for an image that was interpolated to twice its size.
    Interpolation in pixels and blur leave no edge: see :func:`iasolve.noise_level.ring_levels`.

    Notes
    -----
    The edge is where the power falls, within two frequencies, to less than a thirtieth, and no frequency beyond reaches
    a quarter of that before the edge. Images narrower than 32 pixels count as filled.

    Examples
    --------
    >>> import torch
    >>> noise = torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    >>> filled_fraction(noise)
    (1.0, 1.0)
    """
    planes = as_floating(image).reshape(-1, *image.shape[-2:])
    unit = float(planes.abs().max())
    if unit == 0 or min(planes.shape[-2:]) < _SMALLEST:
        return 1.0, 1.0
    planes = planes.to(torch.promote_types(planes.dtype, torch.float64)) / unit
    power = fft2(planes - planes.mean((-2, -1), keepdim=True)).abs().square().mean(0)
    return _filled(power), _filled(power.T)


def _filled(power: Tensor) -> float:
    """Share of the rows of ``power`` ``(H, W)`` (unshifted) that are filled."""
    rows, columns = power.shape
    # edges of the image put a cross of power through the middle of k-space, hence the median over columns; the lowest
    # columns only, as the others may be empty
    width = columns // _CORE
    row = torch.cat([power[:, 1 : width + 1], power[:, -width:]], dim=1).median(dim=1).values
    pairs = torch.stack([row[: rows // 2 + 1], row.flip(0).roll(1)[: rows // 2 + 1]])
    lesser, greater = pairs.amin(0), pairs.amax(0)
    sharpest, edge = _DROP, len(lesser)
    for last in range(max(rows // (2 * _CORE), _LEAST), len(lesser) - _STEP - 2):
        inside, beyond = lesser[last - 2 : last + 1].median(), greater[last + _STEP :]
        # no frequency beyond stands out either
        drop = float(inside / torch.maximum(beyond.median(), beyond.max() / 8).clamp_min(torch.finfo(row.dtype).tiny))
        if drop > sharpest:
            sharpest, edge = drop, last
    return 1.0 if edge == len(lesser) else (2 * edge + 1) / rows
