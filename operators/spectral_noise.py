"""Gaussian noise whose level depends on the frequency: interpolated, filtered, demosaiced or compressed images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_floating
from iasolve.operators.noise import GaussianNoise, Whitened
from iasolve.operators.whitening import FrequencyFilter
from iasolve.spectrum import fft2, frequencies, ifft2

__all__ = ["SpectralNoise"]

# Lowest level over the highest: what single precision can divide by. A ring without noise counts as measured exactly.
_LOWEST = 1e-3


@dataclass(frozen=True)
class SpectralNoise:
    """Stationary Gaussian noise with one level per ring of frequencies.

    A frequency of ``f`` cycles per pixel, ``f = max(|ky| / H, |kx| / W)``, belongs to ring ``i`` of ``n`` equally wide
    ones where ``i / (2 n) <= f < (i + 1) / (2 n)``, the last ring including 0.5. So one model serves images of any
    size. The noise of frequency ``k`` of the orthonormal Fourier transform has variance ``levels[i]^2``; white noise
    of level ``sigma`` is ``n`` times ``sigma``. Channels are independent and share the levels.

    Attributes
    ----------
    levels : tuple of float
        Root mean square of a noise value per ring, from the lowest frequencies to the highest, in the measurement's
        units: of a complex value where the measurement is complex. Not negative, not all 0.

    Raises
    ------
    ValueError
        For levels that are missing, negative, not finite or all 0.

    Examples
    --------
    >>> noise = SpectralNoise((1.0, 1.0, 0.5, 0.0))  # nothing above 3/8 cycles per pixel
    >>> y = noise.sample(torch.zeros(1, 256, 256), torch.Generator().manual_seed(0))
    >>> abs(float(y.std()) - noise.sigma) < 0.01, round(noise.sigma, 2)
    (True, 0.57)
    """

    levels: tuple[float, ...]

    def __init__(self, levels: Sequence[float] | Tensor) -> None:
        values = tuple(float(level) for level in levels)
        if not values or not all(math.isfinite(v) and v >= 0 for v in values) or max(values) == 0:
            raise ValueError(
                f"the noise levels of frequency rings must be finite, not negative and not all 0, got {values}: for "
                "data without noise use GaussianNoise(0)"
            )
        object.__setattr__(self, "levels", values)

    @property
    def sigma(self) -> float:
        """Root mean square of a noise value, all frequencies together, on a large square grid."""
        n = len(self.levels)
        # ring i of a square grid holds ((i + 1)^2 - i^2) / n^2 of the frequencies
        return math.sqrt(sum((2 * i + 1) * level**2 for i, level in enumerate(self.levels)) / n**2)

    def on_grid(self, shape: tuple[int, int]) -> Tensor:
        """Level of each frequency of an image ``(H, W)``: float64, unshifted full grid."""
        fy, fx = (frequencies(n).abs().double() / n for n in shape)
        f = torch.maximum(fy[:, None], fx[None, :])
        ring = (2 * len(self.levels) * f).long().clamp_max(len(self.levels) - 1)
        return torch.tensor(self.levels, dtype=torch.float64)[ring]

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``clean`` ``(..., H, W)`` plus noise of the same kind, real or complex."""
        clean = as_floating(clean)
        white = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        noise = ifft2(self._levels(clean) * fft2(white))
        return clean + (noise if clean.is_complex() else noise.real)

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """Every frequency divided by its level and multiplied by :attr:`sigma`: white noise of that level.

        The filter is diagonal in Fourier space, so operators that put out images or k-space keep the exact path. Rings
        below a thousandth of the highest level are taken for that: practically exact.

        Raises
        ------
        ValueError
            When the measurement is no image or k-space ``(C, H, W)``, or has values that never depend on the image,
            such as masked pixels: noise that is stationary covers all of them.
        """
        shape = operator.out_shape
        if len(shape) != 3:
            raise ValueError(
                f"noise with a level per frequency is of images or k-space (C, H, W), the operator puts out {shape}: "
                "use GaussianNoise or WeightedGaussianNoise"
            )
        if operator.codomain is None:
            _refuse_masked(operator)
        weights = self.sigma / self.on_grid((shape[1], shape[2])).clamp_min(_LOWEST * max(self.levels))
        whitening = FrequencyFilter(weights, shape, operator.out_dtype, basis=operator.codomain or "image")
        whitening = whitening.to(y.device)
        return Whitened(whitening(y), whitening @ operator, GaussianNoise(self.sigma))

    def _levels(self, like: Tensor) -> Tensor:
        if like.ndim < 2:
            raise ValueError(f"noise with a level per frequency is of images (..., H, W), got {tuple(like.shape)}")
        return self.on_grid((like.shape[-2], like.shape[-1])).to(like.device, like.real.dtype)


def _refuse_masked(operator: LinearOperator) -> None:
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(operator.in_shape, dtype=operator.in_dtype, generator=generator).to(operator.device)
    unseen = int((operator(probe) == 0).sum())
    if unseen:
        raise ValueError(
            f"{unseen} values of the measurement never depend on the image (masked pixels?), and noise with a level "
            "per frequency covers whole images: use GaussianNoise, or cut the image to where it was measured"
        )
