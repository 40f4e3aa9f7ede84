"""The data term: what the likelihood says of a decoded image, and the closing step.

Model: ``x = x0 + e`` with ``x0`` the decoded image and ``e ~ N(0, V)``, ``V`` a variance per frequency;
``y = A x + n``. Data terms answer the same questions on the image grid: the data term of an image with its
gradient, the posterior mean ``x*`` of the image given ``x0`` and ``y``, and draws from that posterior.

*Diagonal* ``A``: after folding, every frequency is on its own and everything is exact.

*Any other linear* ``A``: :mod:`iasolve.inference.general_data`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from iasolve.evidence import Folded
from iasolve.spectrum import fft2, ifft2

__all__ = ["DataModel", "DiagonalData", "white_noise"]


class DataModel(Protocol):
    """What refinement, closing and sampling ask of a measurement; images ``(B, C, H, W)``, prior's units."""

    def term(self, x0: Tensor, variance: Tensor) -> Tensor:
        """Minus log marginal likelihood of ``y`` given ``x0``, up to a constant, ``(B,)``; differentiable in ``x0``."""

    def settled(self, x0: Tensor, variance: Tensor) -> Tensor:
        """The same value, exact enough for comparisons and independent of earlier calls."""

    def posterior_mean(
        self, x0: Tensor, variance: Tensor, iterations: int = 200, start: Tensor | None = None
    ) -> Tensor:
        """``x*``; an iterative solve begins at ``start``, at ``x0`` without one."""

    def precision_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest weight that the data give any frequency, about, ``(B, 1, 1, 1)`` each."""

    def posterior_draw(
        self, x0: Tensor, variance: Tensor, noise: Callable[[tuple[int, ...]], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """``x*`` and one draw from ``p(x | x0, y)``; ``noise(shape)`` gives standard normal values."""

    def misfit(self, x0: Tensor, variance: Tensor) -> Tensor:
        """Root mean square of the residual over what noise and decoder leave unexplained, ``(B,)``: about 1."""

    def precision(self, x: Tensor, floor: Tensor) -> Tensor:
        """``A^H N^-1 A x``, ``N`` the noise in the units of a frequency's ``V``, taken for at least ``floor``."""

    def information(self, floor: Tensor, noise: Callable[[tuple[int, ...]], Tensor] | None = None) -> Tensor:
        """``A^H N^-1 y``, ``(B, C, H, W)``; with ``noise``, of a measurement with as much noise again."""

    def mean_precision(self, floor: Tensor) -> Tensor:
        """Roughly, what :meth:`precision` multiplies each frequency by, for preconditioning; broadcastable."""

    def solved(self, residual: Tensor) -> None:
        """Take note of how a solve with :meth:`precision` ended."""


class DiagonalData:
    """Exact data term of a folded measurement.

    Parameters
    ----------
    folded : Folded
        ``(B, C, H, W)``, full grid, prior's units.
    is_complex : bool
        Whether images are complex.
    """

    def __init__(self, folded: Folded, is_complex: bool) -> None:
        self.folded, self.is_complex = folded, is_complex
        # over the full grid a real image's bins count twice, hence the half
        self.factor = 1.0 if is_complex else 0.5

    def _residual(self, x0: Tensor, variance: Tensor) -> Tensor:
        r = fft2(x0) - self.folded.value
        return (r.real.square() + r.imag.square()) / (self.folded.variance + variance)

    def term(self, x0: Tensor, variance: Tensor) -> Tensor:
        """``sum_k |h_k - y^_k|^2 / (2 (1/Lambda_k + V_k))``; without the half for complex images."""
        return self.factor * self._residual(x0, variance).flatten(1).sum(1)

    def settled(self, x0: Tensor, variance: Tensor) -> Tensor:
        """The same as :meth:`term`."""
        return self.term(x0, variance)

    def posterior_mean(
        self, x0: Tensor, variance: Tensor, iterations: int = 200, start: Tensor | None = None
    ) -> Tensor:
        """``h + g (y^ - h)`` with ``g = V / (V + 1/Lambda)``; exact, whatever ``iterations`` and ``start``."""
        h = fft2(x0)
        gain = variance / (variance + self.folded.variance)
        return self._image(h + gain * (self.folded.value - h))

    def precision_range(self) -> tuple[Tensor, Tensor]:
        """See :class:`DataModel`."""
        variance = self.folded.variance.flatten(1).clamp_min(1e-8)
        return (1 / variance.amax(1)).reshape(-1, 1, 1, 1), (1 / variance.amin(1)).reshape(-1, 1, 1, 1)

    def posterior_draw(
        self, x0: Tensor, variance: Tensor, noise: Callable[[tuple[int, ...]], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The mean plus a draw with variance ``V (1/Lambda) / (V + 1/Lambda)`` in each bin."""
        mean = self.posterior_mean(x0, variance)
        white = white_noise(noise, tuple(x0.shape[1:]), self.is_complex)
        return mean, mean + self._image(self.posterior_variance(variance).sqrt() * fft2(white))

    def posterior_variance(self, variance: Tensor) -> Tensor:
        """Variance of each bin given ``x0`` and ``y``, ``(B, C, H, W)``."""
        v = self.folded.variance
        return torch.where(torch.isinf(v), variance.expand_as(v), variance * v / (variance + v))

    def surplus(self, x0: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """``|y^ - h|^2 - 1/Lambda`` of each bin and its weight ``(V + 1/Lambda)^-2``, ``(B, C, H, W)``.

        The first estimates what ``x0`` leaves unexplained, with variance proportional to the inverse of the second;
        both are 0 where nothing was measured.
        """
        v = self.folded.variance.expand(x0.shape)
        measured = torch.isfinite(v)
        r = fft2(x0) - self.folded.value
        squared = r.real.square() + r.imag.square()
        weight = (variance + v).square().reciprocal()
        zero = torch.zeros_like(squared)
        return torch.where(measured, squared - v, zero), torch.where(measured, weight, zero)

    def misfit(self, x0: Tensor, variance: Tensor) -> Tensor:
        """See :class:`DataModel`."""
        measured = torch.isfinite(self.folded.variance).flatten(1).sum(1).clamp_min(1)
        return (self._residual(x0, variance).flatten(1).sum(1) / measured).sqrt()

    def precision(self, x: Tensor, floor: Tensor) -> Tensor:
        """See :class:`DataModel`."""
        return self._image(fft2(x) / torch.maximum(self.folded.variance, floor))

    def information(self, floor: Tensor, noise: Callable[[tuple[int, ...]], Tensor] | None = None) -> Tensor:
        """See :class:`DataModel`."""
        v = self.folded.variance
        value = self.folded.value
        if noise is not None:
            white = fft2(white_noise(noise, tuple(value.shape[1:]), self.is_complex))
            value = value + torch.where(torch.isfinite(v), v, 0.0).sqrt() * white
        return self._image(torch.where(torch.isfinite(v), value, 0.0) / torch.maximum(v, floor))

    def mean_precision(self, floor: Tensor) -> Tensor:
        """See :class:`DataModel`."""
        return 1 / torch.maximum(self.folded.variance, floor)

    def solved(self, residual: Tensor) -> None:
        """Nothing is told of diagonal data's solves."""

    def _image(self, h: Tensor) -> Tensor:
        x = ifft2(h)
        return x if self.is_complex else x.real


def white_noise(noise: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...], is_complex: bool) -> Tensor:
    """Unit root mean square noise of an image's or a measurement's kind from draws of real normal values."""
    first = noise(shape)
    return torch.complex(first, noise(shape)) / 2**0.5 if is_complex else first
