"""What a measurement tells about the image: folding, Wiener estimate, evidence profile (diagonal operators).

Everything lives on the unshifted full frequency grid, orthonormal transform. A measurement through an operator
with transfer function ``D`` is ``Y_k = D_k h_k + n_k``. It is reduced to one value and one noise variance per
bin: ``y^_k = h_k + noise`` with ``E|noise|^2 = variance_k``, infinite where the bin was not measured.

For a real image ``h(-k) = conj(h(k))``, so bins ``k`` and ``-k`` measure the same number and are *folded* by
weighted least squares::

    1 / variance_k = (|D_k|^2 + |D_-k|^2) / (c sigma^2)
    y^_k = (conj(D_k) Y_k + D_-k conj(Y_-k)) / (|D_k|^2 + |D_-k|^2)

with ``c = 1`` for complex noise (independent at ``k`` and ``-k``) and ``c = 2`` for real noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.spectrum import RingGrid, Spectrum, ifft2, power_at, reflect, rings_at

__all__ = ["Evidence", "Folded", "WienerPosterior", "evidence", "fold", "profile", "wiener", "wiener_posterior"]

# Below this fraction of the largest |D|, dividing by D returns rounding errors, not data.
_UNMEASURED = 1e-6


class Folded(NamedTuple):
    """A measurement reduced to the full grid.

    ``value`` ``(..., H, W)`` complex (0 where not measured), ``variance`` the same shape, real, in [0, inf].
    """

    value: Tensor
    variance: Tensor


class Evidence(NamedTuple):
    """What the encoder is given: ``image`` ``(..., C, N, N)`` and ``profile`` ``(..., 2, S)``."""

    image: Tensor
    profile: Tensor


class WienerPosterior(NamedTuple):
    """What a stationary Gaussian prior makes of a measurement: the reader's input, at any image size.

    ``mean`` ``(B, C, H, W)``: the Wiener estimate, real or complex as the image is. ``rho`` ``(B, C, H, W)``: weight
    of the data at each frequency, 1 where it was measured exactly, 0 where it was not measured; the variance left is
    ``P (1 - rho)``. ``profile`` ``(B, 2, S)``: see :func:`profile`.
    """

    mean: Tensor
    rho: Tensor
    profile: Tensor


def fold(y: Tensor, transfer: Tensor, sigma: Tensor | float, *, real_image: bool, complex_noise: bool) -> Folded:
    """Reduce a diagonal measurement to one value and one noise variance per frequency.

    Parameters
    ----------
    y : Tensor
        ``(..., H, W)`` complex: the measurement on the full grid, ``W^H y`` (unshifted).
    transfer : Tensor
        ``D``, broadcastable to ``y``, real or complex.
    sigma : Tensor or float
        Root mean square of a noise value, broadcastable to ``y``'s leading axes with two axes appended.
    real_image : bool
        Whether the image is real; then bins ``k`` and ``-k`` are folded.
    complex_noise : bool
        Whether the noise is complex (k-space) or real (the transform of a real noise image).
    """
    d = transfer.to(y.dtype)
    numerator = d.conj() * y
    gain = (d.real.square() + d.imag.square()).expand(y.shape)
    count = 1.0
    if real_image:
        numerator = numerator + reflect(numerator).conj()
        gain = gain + reflect(gain)
        count = 1.0 if complex_noise else 2.0
    peak = gain.amax(dim=(-2, -1), keepdim=True)
    measured = gain > peak * _UNMEASURED**2
    safe = torch.where(measured, gain, torch.ones_like(gain))
    value = torch.where(measured, numerator / safe, torch.zeros_like(numerator))
    sigma = torch.as_tensor(sigma, dtype=gain.dtype, device=gain.device)
    variance = torch.where(measured, count * sigma.square() / safe, torch.full_like(gain, torch.inf))
    return Folded(value, variance)


def wiener(folded: Folded, power: Tensor) -> tuple[Tensor, Tensor]:
    """Wiener estimate and its weights ``rho = P / (P + variance)``.

    Parameters
    ----------
    folded : Folded
        ``(..., H, W)``.
    power : Tensor
        ``P``, mean power of each frequency, broadcastable.

    Returns
    -------
    estimate : Tensor
        Spectrum ``rho y^``, ``(..., H, W)`` complex.
    rho : Tensor
        In [0, 1]: 1 where the data determine the bin, 0 where they say nothing.
    """
    rho = power / (power + folded.variance)
    return rho * folded.value, rho


def profile(rho: Tensor, rings: RingGrid) -> Tensor:
    """Evidence profile ``(..., 2, S)`` of weights ``(..., C, H, W)`` on the full grid: ring means of rho and of rho^2.

    A ring that has no bins on this grid, as the coarse ones of a small image, takes the values of the next finer ring
    that has.
    """
    means = rings.means(torch.stack([rho, rho.square()], dim=-4).mean(dim=-3))
    return means[..., rings.held]


def evidence(folded: Folded, power: Tensor, spectrum: Spectrum) -> Evidence:
    """The encoder's input for a folded measurement ``(..., C, N, N)`` of an image of the prior's own size."""
    estimate, rho = wiener(folded, power)
    image = ifft2(estimate)
    rings = rings_at((spectrum.size, spectrum.size), spectrum.size, rho.device)
    return Evidence(image if spectrum.is_complex else image.real, profile(rho, rings))


def wiener_posterior(folded: Folded, power: Tensor, *, is_complex: bool) -> WienerPosterior:
    """Posterior of a stationary Gaussian image of power ``P`` given a folded measurement ``(B, C, H, W)``.

    Parameters
    ----------
    folded : Folded
        On the full grid, in the units of ``power``.
    power : Tensor
        ``(C, N, N)``, of the prior's own size; brought to the measurement's by :func:`power_at`.
    is_complex : bool
        Whether the image is complex.
    """
    shape = folded.value.shape[-2], folded.value.shape[-1]
    estimate, rho = wiener(folded, power_at(power, shape))
    mean = ifft2(estimate) if is_complex else ifft2(estimate).real
    return WienerPosterior(mean, rho, profile(rho, rings_at(shape, power.shape[-1], rho.device)))
