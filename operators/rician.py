"""The noise of magnitude images: Rician."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_floating
from iasolve.operators.noise import GaussianNoise, Whitened

__all__ = ["RicianNoise", "rician_mean", "rician_variance"]

_WINDOWS = (1.5, 4.0)  # standard deviations of the windows of local second moments, pixels
_AGREES = 2.0  # standard errors within which the wide window's moment may stand for the narrow one's


def rician_mean(signal: Tensor) -> Tensor:
    """Mean of ``|a + n|``, ``n`` complex with unit variance in each part: ``sqrt(pi / 2) L_1/2(-a^2 / 2)``.

    Koay and Basser, J. Magn. Reson. 179:317, 2006, equation 2, with the Laguerre function written by the exponentially
    scaled Bessel functions, so that no signal is too large.
    """
    half = signal.square() / 4
    scaled = (1 + 2 * half) * torch.special.i0e(half) + 2 * half * torch.special.i1e(half)
    return math.sqrt(math.pi / 2) * scaled


def rician_variance(signal: Tensor) -> Tensor:
    """Variance of the same: ``2 + a^2 - mean^2``, from ``2 - pi / 2`` in air to 1 (Koay and Basser's ``xi``)."""
    # the difference of two large numbers loses its digits: beyond, 1 - 1 / (2 a^2)
    wide = signal.double()
    exact = 2 + wide.square() - rician_mean(wide).square()
    return torch.where(wide < 100, exact, 1 - 0.5 / wide.square().clamp_min(1)).to(signal.dtype)


@dataclass(frozen=True)
class RicianNoise:
    """Noise of magnitudes: ``y = |clean + n|``, ``n`` complex Gaussian; ``clean`` real, not negative.

    Where there is signal, ``y`` is about ``clean + sigma^2 / (2 clean)`` with noise of ``sigma``; in air it has mean
    ``1.253 sigma`` and noise of ``0.655 sigma``. Samples and moments are exact (Rice 1944; Koay and Basser
    2006). Whitening takes the mean of the noise off each pixel, at the signal that the second moment of its
    neighbourhood tells, and leaves white Gaussian noise of ``sigma``: an upper bound in air.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise in the real part, and in the imaginary part, in the measurement's units: what
        tissue shows.

    Examples
    --------
    >>> y = RicianNoise(0.1).sample(torch.zeros(256, 256), torch.Generator().manual_seed(0))
    >>> abs(float(y.mean()) - 0.1253) < 0.002, abs(float(y.std()) - 0.0655) < 0.002
    (True, True)
    """

    sigma: float

    follows_measurement: ClassVar[bool] = True
    """Whitening depends on the measurement: :func:`iasolve.solve` whitens the items of a batch one by one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"the level of Rician noise must be positive and finite, got {self.sigma}")

    def mean(self, clean: Tensor) -> Tensor:
        """Mean of the measurement."""
        return self.sigma * rician_mean(_magnitude(clean, "clean values") / self.sigma)

    def variance(self, clean: Tensor) -> Tensor:
        """Variance of the measurement."""
        return self.sigma**2 * rician_variance(_magnitude(clean, "clean values") / self.sigma)

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The magnitude of ``clean`` plus complex noise.

        Raises
        ------
        ValueError
            For complex, negative or NaN values.
        """
        clean = _magnitude(clean, "clean values")
        noise = torch.randn((2, *clean.shape), dtype=clean.dtype, device=clean.device, generator=generator)
        return torch.hypot(clean + self.sigma * noise[0], self.sigma * noise[1])

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """The measurement less the noise's mean, the operator as it is, white noise of ``sigma``.

        Raises
        ------
        ValueError
            For complex or negative values, k-space, and measurements that are no images ``(..., H, W)``.
        """
        if operator.codomain in ("kspace", "spectrum") or operator.out_dtype.is_complex or y.ndim < 2:
            raise ValueError(
                f"Rician noise is of magnitude images, the operator puts out {operator.out_shape} {operator.out_dtype}"
                ": the noise of k-space and of complex images is Gaussian"
            )
        return Whitened(self.debiased(y), operator, GaussianNoise(self.sigma))

    def debiased(self, y: Tensor, clean: Tensor | None = None) -> Tensor:
        """``y - (mean(clean) - clean)``: mean ``clean`` where ``clean`` is right, 0 in air; values may be negative.

        Parameters
        ----------
        y : Tensor
            Magnitudes ``(..., H, W)``.
        clean : Tensor, optional
            The signal as far as it is known, e.g. ``A x`` of a first solution. Without it, it is taken from the mean
            ``m`` of ``y^2`` about each pixel, ``clean^2 = m - 2 sigma^2``, through a Gaussian window of 4 pixels, or
            of 1.5 pixels where the two differ by more than their noise, and taken for 0 within one standard error.
        """
        y = _magnitude(y, "measured values")
        if clean is None:
            clean = self._local_signal(y)
        return y - (self.mean(clean) - clean)

    def _local_signal(self, y: Tensor) -> Tensor:
        squares = (y / self.sigma).square()
        narrow, wide = (_smoothed(squares, width) - 2 for width in _WINDOWS)
        # variance of y^2 is 4 + 4 a^2; a Gaussian window averages 4 pi width^2 pixels
        errors = [
            (4 + 4 * power.clamp_min(0)).sqrt() / math.sqrt(4 * math.pi * width**2)
            for power, width in zip((narrow, wide), _WINDOWS, strict=True)
        ]
        agree = (narrow - wide).abs() < _AGREES * errors[0]
        power, error = torch.where(agree, wide, narrow), torch.where(agree, errors[1], errors[0])
        return self.sigma * torch.where(power > error, power, torch.zeros_like(power)).sqrt()


def _smoothed(image: Tensor, width: float) -> Tensor:
    """Gaussian mean of ``(..., H, W)``, of the pixels there are at the border."""
    reach = math.ceil(3 * width)
    t = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    window = torch.exp(-0.5 * (t / width).square())

    def along(values: Tensor, kernel: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(values, kernel, padding=(kernel.shape[-2] // 2, kernel.shape[-1] // 2))

    planes = torch.stack([image.reshape(-1, *image.shape[-2:]), torch.ones_like(image).reshape(-1, *image.shape[-2:])])
    planes = along(along(planes.flatten(0, 1)[:, None], window[None, None, :, None]), window[None, None, None, :])
    sums, weights = planes.reshape(2, *image.shape)
    return sums / weights


def _magnitude(values: Tensor, name: str) -> Tensor:
    if values.is_complex() or not bool((values >= 0).all()):
        raise ValueError(
            f"Rician noise is of magnitudes: the {name} must be real and not negative or NaN, got {values.dtype}"
            + ("" if values.is_complex() else f" down to {float(values.min()):.3g}")
        )
    return as_floating(values)
