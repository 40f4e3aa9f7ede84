"""Measurements of classical solvers for operators that are diagonal in Fourier space, and the Wiener filter.

A measurement comes folded: per bin of the unshifted full grid a precision ``Lambda_k >= 0`` (0 where nothing was
measured, ``inf`` where the measurement is exact) and a folded spectrum ``y^_k`` with ``y^_{-k} = conj(y^_k)``, so that
with ``h = fft2(x)`` (orthonormal), of a real image, the negative log likelihood is::

    1/2 * sum over the full grid of Lambda_k |h_k - y^_k|^2
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.spectrum import reflect

__all__ = ["FoldedData", "check_folded", "half_to_image", "wiener"]


class FoldedData(NamedTuple):
    """A checked measurement as a batch of half grids ``(B, H, W // 2 + 1)``."""

    precision: Tensor
    spectrum: Tensor
    shape: torch.Size  # of the image, leading dimensions included

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.shape[-2], self.shape[-1]


def check_folded(precision: Tensor, folded: Tensor) -> FoldedData:
    """Half grids of a measurement ``(..., H, W)`` and the precision of its bins.

    Raises
    ------
    ValueError
        When the two do not go together, or are no spectrum of a real image.
    """
    shapes = f"precision {tuple(precision.shape)}, folded {tuple(folded.shape)}"
    if precision.is_complex() or not folded.is_complex():
        raise ValueError(f"need a real precision and complex folded, got {precision.dtype}, {folded.dtype}")
    if folded.ndim < 2 or precision.shape[-2:] != folded.shape[-2:] or 0 in folded.shape:
        raise ValueError(f"precision and folded must share a non-empty full grid (..., H, W): {shapes}")
    try:
        shape: torch.Size = torch.broadcast_shapes(precision.shape, folded.shape)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"the leading dimensions do not broadcast: {shapes}") from error
    dtype = torch.promote_types(torch.promote_types(precision.dtype, folded.real.dtype), torch.float32)
    height, width = shape[-2:]
    precision = precision.to(dtype).expand(shape).reshape(-1, height, width)
    if not bool((precision >= 0).all()):
        raise ValueError("precision must be non-negative and not NaN")
    folded = folded.to(dtype.to_complex()).expand(shape).reshape(-1, height, width)
    # Folding divides 0 by 0 where nothing was measured; whatever stands there must not leak.
    folded = torch.where(precision > 0, folded, torch.zeros((), dtype=folded.dtype, device=folded.device))
    if not bool(torch.isfinite(torch.view_as_real(folded)).all()):
        raise ValueError("folded must be finite wherever precision is positive")
    asymmetry = (folded - reflect(folded).conj()).abs().amax((-2, -1))
    if not torch.allclose(precision, reflect(precision), rtol=1e-3, atol=0.0) or bool(
        (asymmetry > 1e-3 * folded.abs().amax((-2, -1))).any()
    ):
        raise ValueError("not folded: need precision(-k) = precision(k) and folded(-k) = conj(folded(k))")
    half = width // 2 + 1
    return FoldedData(precision[..., :half].contiguous(), folded[..., :half].contiguous(), shape)


def half_to_image(half: Tensor, grid: tuple[int, int]) -> Tensor:
    """Image ``(..., H, W)`` of a half grid ``(..., H, W // 2 + 1)``."""
    image: Tensor = torch.fft.irfft2(half, s=grid, norm="ortho")
    return image


def wiener(precision: Tensor, folded: Tensor, power: Tensor) -> Tensor:
    """Wiener estimate, ``h = P / (P + 1 / Lambda) y^``: the posterior mean under a stationary Gaussian prior.

    Parameters
    ----------
    precision : Tensor
        ``Lambda``, ``(..., H, W)``, real, unshifted full grid. 0 gives ``h = 0``, ``inf`` gives ``h = y^``.
    folded : Tensor
        ``y^``, ``(..., H, W)``, complex, Hermitian-symmetric. Ignored where ``Lambda`` is 0.
    power : Tensor
        The prior's power spectrum ``P_k = E |h_k|^2``, broadcastable to ``(..., H, W)``, non-negative.

    Returns
    -------
    Tensor
        Real image ``(..., H, W)``.

    Raises
    ------
    ValueError
        On shapes that do not fit (both are named), a negative precision or power, or a spectrum that is not
        Hermitian-symmetric.

    Examples
    --------
    >>> import torch
    >>> spectrum = torch.fft.fft2(torch.ones(1, 1, 8, 8), norm="ortho")
    >>> estimate = wiener(torch.ones(1, 1, 8, 8), spectrum, torch.ones(1, 8, 8))
    >>> estimate.shape, round(float(estimate[0, 0, 0, 0]), 4)
    (torch.Size([1, 1, 8, 8]), 0.5)
    """
    data = check_folded(precision, folded)
    try:
        power = power.to(data.precision).expand(data.shape)
    except RuntimeError as error:
        raise ValueError(f"power {tuple(power.shape)} does not broadcast to {tuple(data.shape)}") from error
    if not bool((power >= 0).all()):
        raise ValueError("power must be non-negative and not NaN")
    power = power.reshape(-1, *data.grid)[..., : data.precision.shape[-1]]
    gain = power / (power + 1 / data.precision)
    gain = torch.where(torch.isinf(data.precision), torch.ones_like(gain), gain)  # 0 / 0 where P is 0, too
    gain = torch.where(data.precision == 0, torch.zeros_like(gain), gain)
    return half_to_image(gain * data.spectrum, data.grid).reshape(data.shape)
