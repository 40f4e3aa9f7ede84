"""What the measurement says of an image: the questions that every likelihood answers, and the exact one.

Model: ``x = x0 + e`` with ``x0`` the decoded image and ``e ~ N(0, V)``, ``V`` a variance per frequency;
``y = A x + n``. Images are ``(B, C, H, W)`` on the image grid, in the prior's units.

:class:`DiagonalLikelihood`: after folding, every frequency is on its own and everything is exact.

Any other linear ``A``: :mod:`iasolve.problem.operator_likelihood`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.evidence import Folded
from iasolve.spectrum import RingGrid, fft2, half, ifft2, irfft2, rfft2

__all__ = ["DiagonalLikelihood", "Draw", "Likelihood", "Solution", "Solves", "Value", "white_noise"]

Draw = Callable[[tuple[int, ...]], Tensor]
"""``draw(shape)``: standard normal values ``(B or 1, *shape)``."""


class Solution(NamedTuple):
    """``image``: ``x*``; ``product``: spectrum of the normal equations' matrix times it, where it is known.

    A solve that starts from a solution for the same ``V`` needs no application of the operator to begin with.
    """

    image: Tensor
    product: Tensor | None = None


class Value(NamedTuple):
    """``nats`` ``(B,)``, and the ``solution`` from which the next evaluation may start."""

    nats: Tensor
    solution: Solution | None


class Solves(NamedTuple):
    """What conjugate gradients came to: applications of ``A^H A``, and the last solve's relative residual ``(B,)``."""

    applications: int
    residual: Tensor


class Likelihood(Protocol):
    """What refinement, closing and sampling ask of a measurement."""

    is_complex: bool

    @property
    def folded(self) -> Folded | None:
        """The measurement of each frequency, where each was measured by itself; else None."""

    @property
    def other(self) -> Callable[[Tensor, float], Likelihood] | None:
        """The likelihood of other values ``(B, *out_shape)`` in the same noise, solved within a tolerance.

        None where frequencies are known.
        """

    @property
    def solves(self) -> Solves | None:
        """The cost so far; None where nothing is iterated."""

    def value(self, x0: Tensor, variance: Tensor, start: Solution | None = None) -> Value:
        """Minus log marginal likelihood of ``y`` given ``x0``, up to a constant; differentiable in ``x0``.

        An iterative one takes a few iterations from ``start`` (from ``x0`` without).
        """

    def settled(self, x0: Tensor, variance: Tensor) -> Tensor:
        """The same value ``(B,)``, exact enough for comparisons."""

    def solve(self, x0: Tensor, variance: Tensor, iterations: int = 200, start: Solution | None = None) -> Solution:
        """``x*``, the posterior mean of the image given ``x0`` and ``y``; an iterative solve begins at ``start``."""

    def mean(self, x0: Tensor, variance: Tensor, iterations: int = 200) -> Tensor:
        """``x*`` from a cold start."""

    def draw(self, x0: Tensor, variance: Tensor, noise: Draw) -> tuple[Tensor, Tensor]:
        """``x*`` and one draw from ``p(x | x0, y)``."""

    def spread(self, variance: Tensor) -> Tensor | None:
        """Variance of a pixel given ``x0`` and ``y``, broadcastable; None where it is not known in closed form."""

    def misfit(self, x0: Tensor, variance: Tensor) -> Tensor:
        """Root mean square of the residual over what noise and decoder leave unexplained, ``(B,)``: about 1."""

    def unexplained(self, x0: Tensor, variance: Tensor, rings: RingGrid, most: Tensor) -> Tensor:
        """``V`` raised ring by ring where the residual shows more than noise and ``V`` explain, ``(B, C, H, W)``.

        ``most`` ``(C, S)`` bounds it. One standard error less than estimated: chance alone raises no ring.
        """

    def precision_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest weight that the data give any frequency, about, ``(B, 1, 1, 1)`` each."""

    def precision(self, x: Tensor, floor: Tensor) -> Tensor:
        """``A^H N^-1 A x``, ``N`` the noise in the units of a frequency's ``V``, taken for at least ``floor``."""

    def information(self, floor: Tensor, noise: Draw | None = None) -> Tensor:
        """``A^H N^-1 y``, ``(B, C, H, W)``; with ``noise``, of a measurement with as much noise again."""

    def mean_precision(self, floor: Tensor) -> Tensor:
        """Roughly, what :meth:`precision` multiplies each frequency by, for preconditioning; broadcastable."""

    def note(self, residual: Tensor) -> None:
        """Take note of how a solve with :meth:`precision` ended, for the report."""


class DiagonalLikelihood:
    """Exact, of a folded measurement.

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

    solves = other = None

    def value(self, x0: Tensor, variance: Tensor, start: Solution | None = None) -> Value:
        """``sum_k |h_k - y^_k|^2 / (2 (1/Lambda_k + V_k))``; without the half for complex images."""
        return Value(self.factor * self._residual(x0, variance).flatten(1).sum(1), None)

    def settled(self, x0: Tensor, variance: Tensor) -> Tensor:
        """The same as :meth:`value`."""
        return self.value(x0, variance).nats

    def solve(self, x0: Tensor, variance: Tensor, iterations: int = 200, start: Solution | None = None) -> Solution:
        """Exact, whatever ``iterations`` and ``start``."""
        return Solution(self.mean(x0, variance))

    def mean(self, x0: Tensor, variance: Tensor, iterations: int = 200) -> Tensor:
        """``h + g (y^ - h)`` with ``g = V / (V + 1/Lambda)``."""
        value, known = self.folded
        if self.is_complex:
            h = fft2(x0)
        else:
            # a real image's spectrum is one half twice, and so are what was folded and V
            h, value, known, variance = rfft2(x0), half(value), half(known), half(variance)
        gain = variance / (variance + known)
        if torch.is_grad_enabled():
            h = h + gain * (value - h)
        else:
            # the same in place: of a large image every array counts
            change = value - h
            change *= gain
            h += change
            del change, gain
        return ifft2(h) if self.is_complex else irfft2(h, x0.shape[-1])

    def precision_range(self) -> tuple[Tensor, Tensor]:
        """See :class:`Likelihood`."""
        variance = self.folded.variance.flatten(1).clamp_min(1e-8)
        return (1 / variance.amax(1)).reshape(-1, 1, 1, 1), (1 / variance.amin(1)).reshape(-1, 1, 1, 1)

    def draw(self, x0: Tensor, variance: Tensor, noise: Draw) -> tuple[Tensor, Tensor]:
        """The mean plus a draw with variance ``V (1/Lambda) / (V + 1/Lambda)`` in each bin."""
        mean = self.mean(x0, variance)
        white = white_noise(noise, tuple(x0.shape[1:]), self.is_complex)
        return mean, mean + self._image(self.posterior_variance(variance).sqrt() * fft2(white))

    def spread(self, variance: Tensor) -> Tensor:
        """The mean over the full grid, the same for every pixel: all is stationary."""
        return self.posterior_variance(variance).mean((-2, -1), keepdim=True)

    def posterior_variance(self, variance: Tensor) -> Tensor:
        """Variance of each bin given ``x0`` and ``y``, ``(B, C, H, W)``."""
        v = self.folded.variance
        return torch.where(torch.isinf(v), variance.expand_as(v), variance * v / (variance + v))

    def unexplained(self, x0: Tensor, variance: Tensor, rings: RingGrid, most: Tensor) -> Tensor:
        """By the moment estimator of a variance component.

        Each bin's ``|y^ - h|^2 - 1/Lambda`` estimates what ``x0`` leaves unexplained, with variance proportional to
        ``(V + 1/Lambda)^2``.
        """
        v = self.folded.variance.expand(x0.shape)
        measured = torch.isfinite(v)
        r = fft2(x0) - self.folded.value
        squared = r.real.square() + r.imag.square()
        weight = (variance + v).square().reciprocal()
        zero = torch.zeros_like(squared)
        surplus, weight = torch.where(measured, squared - v, zero), torch.where(measured, weight, zero)
        total = rings.sums(weight)
        level = rings.sums(weight * surplus) / total.clamp_min(1e-30)
        # of a real image k and -k are one number: half as many independent bins
        count = 1.0 if self.is_complex else 2.0
        error = (2 * count / total.clamp_min(1e-30)).sqrt()
        level = torch.where(total > 0, level - error, torch.zeros_like(level))
        level = torch.minimum(level, most)
        base = variance.expand(x0.shape)
        return torch.where(rings.inside, torch.maximum(base, rings.spread(level)), base)

    def misfit(self, x0: Tensor, variance: Tensor) -> Tensor:
        """See :class:`Likelihood`."""
        measured = torch.isfinite(self.folded.variance).flatten(1).sum(1).clamp_min(1)
        return (self._residual(x0, variance).flatten(1).sum(1) / measured).sqrt()

    def precision(self, x: Tensor, floor: Tensor) -> Tensor:
        """See :class:`Likelihood`."""
        return self._image(fft2(x) / torch.maximum(self.folded.variance, floor))

    def information(self, floor: Tensor, noise: Draw | None = None) -> Tensor:
        """See :class:`Likelihood`."""
        v = self.folded.variance
        value = self.folded.value
        if noise is not None:
            white = fft2(white_noise(noise, tuple(value.shape[1:]), self.is_complex))
            value = value + torch.where(torch.isfinite(v), v, 0.0).sqrt() * white
        return self._image(torch.where(torch.isfinite(v), value, 0.0) / torch.maximum(v, floor))

    def mean_precision(self, floor: Tensor) -> Tensor:
        """See :class:`Likelihood`."""
        return 1 / torch.maximum(self.folded.variance, floor)

    def note(self, residual: Tensor) -> None:
        """Nothing: reports are of operators that are not diagonal."""

    def _image(self, h: Tensor) -> Tensor:
        x = ifft2(h)
        return x if self.is_complex else x.real


def white_noise(noise: Draw, shape: tuple[int, ...], is_complex: bool) -> Tensor:
    """Unit root mean square noise of an image's or a measurement's kind from draws of real normal values."""
    first = noise(shape)
    return torch.complex(first, noise(shape)) / 2**0.5 if is_complex else first
