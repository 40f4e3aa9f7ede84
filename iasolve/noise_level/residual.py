"""What a solution leaves of the measurement, against what noise alone would leave."""

from __future__ import annotations

from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator

__all__ = ["BANDS", "ResidualReport", "residual_of"]

Array = TypeVar("Array")
"""Torch's arrays, or numpy's."""

BANDS = 16
"""Bands of frequency in a report; fewer in images of fewer than 32 pixels."""


class ResidualReport(TypedDict, Generic[Array]):
    """What the image leaves of the measurement, over what noise alone would leave: about 1, or a little less.

    ``whole``: root mean square of all values, per image; ``bands``: of each band of frequency, coarse to fine,
    ``(..., R)``. See :func:`residual_of`.
    """

    whole: Array
    bands: Array


@torch.no_grad()
def residual_of(y: Tensor, operator: LinearOperator, image: Tensor, sigma: Tensor) -> ResidualReport[Tensor]:
    """Root mean square of ``y - A x`` over the noise level: of all values, and band by band.

    Parameters
    ----------
    y : Tensor
        Measurements ``(B, *out_shape)`` with white noise. Values of the residual that are exactly 0 were not measured.
    operator : LinearOperator
        ``A``. Its codomain says what frequencies are: those of images, or the entries of k-space.
    image : Tensor
        ``x``, ``(B, C, H, W)``.
    sigma : Tensor
        Noise level ``(B,)``: root mean square of a noise value.

    Returns
    -------
    ResidualReport
        ``whole`` ``(B,)`` and ``bands`` ``(B, R)``: R bands of equal width from frequency zero to the highest that the
        grid holds, NaN where nothing was measured. ``R = 0`` where the measurement is neither image nor k-space. All
        NaN where the noise level is 0.
    """
    left = y - operator(image.to(operator.in_dtype))
    power = left.abs().double().square()
    unit = torch.where(sigma > 0, sigma, torch.nan).double()
    counted = power > 0
    whole = (power.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1)).sqrt() / unit
    if operator.codomain is None:
        return {"whole": whole, "bands": whole.new_empty(len(y), 0)}
    if operator.codomain == "image":
        # white noise that is known at a share of the pixels has that share of its power at every frequency
        share = counted.flatten(1).double().mean(1).clamp_min(1e-30).reshape(-1, *[1] * (left.ndim - 1))
        spectrum = torch.fft.fftshift(torch.fft.fft2(left, norm="ortho"), dim=(-2, -1))
        power, counted = spectrum.abs().double().square() / share, torch.ones_like(counted)
    elif operator.codomain == "spectrum":
        power, counted = (torch.fft.fftshift(v, dim=(-2, -1)) for v in (power, counted))
    height, width = power.shape[-2:]
    count = max(1, min(BANDS, height // 2, width // 2))
    band = _band(height, width, count, power.device).expand(power.shape)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(y), count).scatter_add_(1, band.flatten(1), values.flatten(1))

    return {"whole": whole, "bands": (total(power) / total(counted.double())).sqrt() / unit[:, None]}


def _band(height: int, width: int, count: int, device: Any) -> Tensor:
    """Number of the band that each frequency of the centred grid lies in, ``(height, width)``."""
    y, x = ((torch.arange(n, device=device) - n // 2).abs().double() / max(n / 2, 1) for n in (height, width))
    return (torch.maximum(y[:, None], x[None, :]) * count).long().clamp_max(count - 1)
