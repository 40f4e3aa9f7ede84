"""The exact posterior mean where a circular convolution is seen through a window: a camera's picture of a larger scene.

``y = S (K x) + n``: ``K`` is circular on a grid that is larger than the picture, ``S`` picks the pixels that are seen.
If those outside were known, all would be diagonal. So the unknown is ``z``, what would be measured there: there is
little of it. With ``C = |K|^2 V + sigma^2``, the covariance of a whole measurement, the most likely ``z`` solves

``(C^-1)_outside z = -(C^-1)_outside,seen y``,

and ``x* = V K^H C^-1 (y, z)``. Conjugate gradients on images need ten times the iterations: what only the frame around
a picture shows is badly conditioned there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.classical.conjugate import conjugate_gradients
from iasolve.operators.window import Window
from iasolve.spectrum import filtered, largest_radius

__all__ = ["WindowedSolution", "solve_window"]

SMOOTH = 0.5
"""Of the preconditioner: around a frame of ``w`` pixels, what is smoother than ``SMOOTH / w`` cycles per pixel is known
from both sides, and varies no more than what has that frequency. With 0.5 as many iterations as pixels in a kernel's
side suffice; 1 and 2 take two and four times as many (camera shakes, photographs)."""


class WindowedSolution(NamedTuple):
    """``image`` ``x*``, iterations, and their relative residual ``(B,)``."""

    image: Tensor
    iterations: int
    residual: Tensor


def solve_window(
    window: Window, y: Tensor, noise: Tensor, x0: Tensor, variance: Tensor, start: Tensor, iterations: int, least: float
) -> WindowedSolution:
    """``argmin |y - S K x|^2 / noise + |x - x0|^2_V``.

    Parameters
    ----------
    window : Window
    y : Tensor
        ``(B, C, h, w)``, the pixels that are seen.
    noise : Tensor
        ``(B, 1, 1, 1)`` variance of a value.
    x0, start : Tensor
        ``(B, C, H, W)``; ``start`` is a solution as far as it is known.
    variance : Tensor
        ``V`` of each frequency, broadcastable to them.
    iterations : int
    least : float
        Where iterations end: see :func:`iasolve.classical.conjugate_gradients`.
    """
    transfer = window.transfer.to(x0.dtype if x0.is_complex() else x0.dtype.to_complex())
    hidden = (~window.seen).to(y.real.dtype)

    whole = transfer.abs().square() * variance + noise
    inverse, smooth = 1 / whole, _capped(whole, window.seen)
    measured = torch.zeros_like(x0)
    measured[..., window.seen] = y.flatten(-2).to(x0.dtype)
    measured = measured - (1 - hidden) * filtered(x0, transfer)
    found = conjugate_gradients(
        lambda z: hidden * filtered(z, inverse),
        -hidden * filtered(measured, inverse),
        lambda z: hidden * filtered(z, smooth),
        hidden * filtered(start - x0, transfer),
        iterations,
        10 * torch.finfo(y.real.dtype).eps,
        least,
    )
    image = x0 + filtered(measured + found.solution, variance * transfer.conj() * inverse)
    return WindowedSolution(image, found.iterations, found.residual)


def _capped(whole: Tensor, seen: Tensor) -> Tensor:
    """The covariance, of frequencies that the frame's width is no more than half of as that of those."""
    height, width = seen.shape
    frame = max(height - int(seen.any(1).sum()), width - int(seen.any(0).sum()), 1)
    radius = largest_radius(height, width).to(whole.device)
    limit = min(SMOOTH / frame, 0.45)
    ring = (radius > 0.9 * limit) & (radius < 1.1 * limit + 1 / min(height, width))
    return torch.minimum(whole, whole[..., ring].mean(-1)[..., None, None])
