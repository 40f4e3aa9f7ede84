"""The data term: what the likelihood says of a decoded image, and the closing step.

Model: ``x = x0 + e`` with ``x0`` the decoded image and ``e ~ N(0, V)``, ``V`` a variance per frequency;
``y = A x + n``. Both classes answer the same questions on the image grid: the data term of an image with its
gradient, the posterior mean ``x*`` of the image given ``x0`` and ``y``, and draws from that posterior.

*Diagonal* ``A``: after folding, every frequency is on its own and everything is exact.

*Any other linear* ``A``: ``x* = argmin |y - A x|^2 / (c sigma^2) + |x - x0|^2_V / f`` by preconditioned
conjugate gradients (``c = 1, 2`` for complex and real noise; ``f = 2`` for real images, 1 for complex ones). By
the envelope theorem the gradient of the marginal likelihood is ``(x0 - x*) / V``.

*When to stop.* An iteration of conjugate gradients lowers the exponent of the posterior by a known number of nats.
Iterations end when that is little against the posterior's own width: an error that lowers the exponent by ``n e``
nats in ``n`` pixels is ``sqrt(2 e)`` standard deviations of the posterior large. Relative residuals say nothing of
the kind, for the weights span orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.evidence import Folded
from iasolve.operators.base import LinearOperator, as_declared
from iasolve.spectrum import fft2, ifft2

__all__ = [
    "TOLERANCE",
    "ConjugateGradients",
    "DataModel",
    "DiagonalData",
    "GeneralData",
    "Solves",
    "conjugate_gradients",
    "white_noise",
]


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


TOLERANCE = 1e-4
"""Nats per pixel; what is left then is about ten times as much, 0.04 standard deviations of the posterior."""


class ConjugateGradients(NamedTuple):
    """``product``: the matrix times the solution; ``residual``: relative, ``(B,)``, in the preconditioner's norm."""

    solution: Tensor
    product: Tensor
    iterations: int
    residual: Tensor


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor],
    right: Tensor,
    precondition: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int,
    tolerance: float,
    least: float = 0.0,
    product: Tensor | None = None,
) -> ConjugateGradients:
    """Preconditioned conjugate gradients on a batch ``(B, ...)``, each item with its own scalars.

    An item that has converged keeps its solution unchanged, so a batch gives what single solves give. It has when its
    relative residual is below ``tolerance``, or it is below a hundredth and an iteration lowered
    ``x^H M x - 2 Re right^H x`` by less than ``least``.
    ``product``, the matrix times ``start`` where it is known, saves one application.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        product = a.conj() * b
        value = product.real if product.is_complex() else product
        return value.flatten(1).sum(1)

    def spread(a: Tensor) -> Tensor:
        return a.reshape(-1, *([1] * (right.ndim - 1)))

    x = start
    r = right - (matrix(x) if product is None else product)
    z = precondition(r)
    p = z
    rz = dot(r, z)
    size = dot(right, precondition(right)).clamp_min(torch.finfo(rz.dtype).tiny)
    goal, coarse = tolerance**2 * size, _COARSE**2 * size
    used = 0
    active = rz > goal
    for _ in range(iterations):
        if not bool(active.any()):
            break
        q = matrix(p)
        alpha = torch.where(active, rz / dot(p, q).clamp_min(torch.finfo(rz.dtype).tiny), 0.0)
        x = x + spread(alpha) * p
        r = r - spread(alpha) * q
        z = precondition(r)
        new = dot(r, z)
        beta = torch.where(active, new / rz.clamp_min(torch.finfo(rz.dtype).tiny), 0.0)
        p = z + spread(beta) * p
        lowered, rz = alpha * rz, torch.where(active, new, rz)
        # an iteration may gain little long before the end, where few values are measured: the residual has a say
        active = active & (rz > goal) & ((lowered > least) | (rz > coarse))
        used += 1
    return ConjugateGradients(x, right - r, used, (rz / goal * tolerance**2).sqrt())


_FEW = 0.1
"""Measured values a pixel, below which an operator counts as one that leaves most directions unseen."""

_COARSE = 0.01
"""Relative residual above which solves go on, however little an iteration gains."""


class Solves(NamedTuple):
    """What the solves of a data term came to: applications of ``A^H A``, and the last solve's relative residual."""

    applications: int
    residual: Tensor


class _Solved(NamedTuple):
    """Where the next solve may begin without an application: a solution, its ``V``, and the matrix times it."""

    solution: Tensor
    variance: Tensor
    product: Tensor


class GeneralData:
    """Data term of any linear operator, through conjugate gradients.

    Parameters
    ----------
    operator : LinearOperator
        From the image grid ``(C, H, W)``.
    y : Tensor
        ``(B, *out_shape)``, in the prior's units.
    sigma : Tensor
        ``(B,)`` root mean square noise, the same units. Zero is replaced by a thousandth of the root mean square
        of ``y``: the exact limit has no unique solution off the range of ``A``.
    iterations : int
        Conjugate-gradient iterations of one evaluation of the data term, warm-started from the last.
    tolerance : float
        Where all other solves end, in nats per pixel; 0 for as far as the precision goes.

    Attributes
    ----------
    solves : Solves
    """

    def __init__(
        self,
        operator: LinearOperator,
        y: Tensor,
        sigma: Tensor,
        iterations: int = 8,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.operator, self.y, self.iterations, self.tolerance = operator, y, iterations, tolerance
        self.gram = operator.gram
        self.is_complex = operator.is_complex
        floor = 1e-3 * y.abs().square().flatten(1).mean(1).sqrt()
        self.sigma = torch.maximum(sigma, floor)
        # weight of |y - A x|^2 in the exponent, and of |x - x0|^2_V
        self.weight = 1 / self.sigma.square() / (1.0 if y.is_complex() else 2.0)
        self.factor = 1.0 if self.is_complex else 0.5
        self.backprojection = self._adjoint(y)
        self.solves = Solves(0, y.real.new_zeros(len(y)))
        self._warm: Tensor | None = None
        self._last: _Solved | None = None
        self.mean_gain = self._mean_gain()

    def _adjoint(self, y: Tensor) -> Tensor:
        return as_declared(self.operator.adjoint(y), self.operator.in_dtype)

    def _mean_gain(self) -> float:
        # Mean of the diagonal of A^H A, by one random probe, for the preconditioner. Where few values are measured,
        # almost all directions are not: then the preconditioner is V, and as many iterations as values end the solve.
        if self.y[0].numel() < _FEW * math.prod(self.operator.in_shape):
            return 0.0
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(self.operator.in_shape, generator=generator, dtype=self.operator.in_dtype).to(self.y.device)
        out = self.operator(probe.to(self.backprojection.dtype)[None])
        return float(out.abs().square().sum() / probe.abs().square().sum())

    def _solve(
        self, x0: Tensor, variance: Tensor, iterations: int, start: Tensor, tolerance: float, back: Tensor | None = None
    ) -> Tensor:
        inverse = 1 / variance.clamp_min(1e-12)
        ratio = (self.weight / self.factor).reshape(-1, 1, 1, 1)
        preconditioner = 1 / (ratio * self.mean_gain + inverse)

        def filtered(x: Tensor, by: Tensor) -> Tensor:
            if self.is_complex:
                return ifft2(by * fft2(x))
            half = torch.fft.rfft2(x)
            return torch.fft.irfft2(half.mul_(by[..., : half.shape[-1]]), s=x.shape[-2:])

        last = self._last
        known = last is not None and last.solution is start and last.variance is variance
        found = conjugate_gradients(
            lambda x: ratio * as_declared(self.gram(x), self.operator.in_dtype) + filtered(x, inverse),
            ratio * (self.backprojection if back is None else back) + filtered(x0, inverse),
            lambda r: filtered(r, preconditioner),
            start,
            iterations,
            10 * torch.finfo(x0.dtype).eps,
            # a few values measured cannot tell about all pixels: each of them counts, not each pixel
            tolerance * min(x0[0].numel(), self.y[0].numel()) / self.factor,
            last.product if last is not None and known else None,
        )
        self._last = _Solved(found.solution, variance, found.product)
        # the first residual takes one more
        self.solves = Solves(self.solves.applications + found.iterations + (not known), found.residual)
        return found.solution

    def _value(self, x: Tensor, x0: Tensor, variance: Tensor) -> Tensor:
        residual = (self.y - self.operator(x)).abs().square().flatten(1).sum(1)
        gap = fft2(x - x0)
        distance = (gap.real.square() + gap.imag.square()) / variance.clamp_min(1e-12)
        return self.weight * residual + self.factor * distance.flatten(1).sum(1)

    def term(self, x0: Tensor, variance: Tensor) -> Tensor:
        """``min_x`` of the joint exponent; its gradient in ``x0`` is ``(x0 - x*) / V``."""
        with torch.no_grad():
            fixed = x0.detach()
            start = fixed if self._warm is None or self._warm.shape != x0.shape else self._warm
            best = self._solve(fixed, variance, self.iterations, start, 0.0)
            self._warm = best
        return self._value(best, x0, variance)

    def settled(self, x0: Tensor, variance: Tensor) -> Tensor:
        """The same from a cold start: a warm-started value would only look better for having run longer.

        Objectives are compared by it, so it is more exact than an image needs to be.
        """
        return self._value(self._solve(x0, variance, 200, x0, self.tolerance / 10), x0, variance)

    def posterior_mean(
        self, x0: Tensor, variance: Tensor, iterations: int = 200, start: Tensor | None = None
    ) -> Tensor:
        """``x*`` by up to ``iterations`` conjugate-gradient iterations."""
        return self._solve(x0, variance, iterations, x0 if start is None else start, self.tolerance)

    def precision_range(self) -> tuple[Tensor, Tensor]:
        """See :class:`DataModel`: nothing, as some frequency may go unmeasured, and the operator's mean gain."""
        high = (self.weight / self.factor * self.mean_gain).reshape(-1, 1, 1, 1)
        return torch.zeros_like(high), high

    def posterior_draw(
        self, x0: Tensor, variance: Tensor, noise: Callable[[tuple[int, ...]], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Perturb and solve (Papandreou and Yuille 2010): exact for a Gaussian posterior."""
        mean = self.posterior_mean(x0, variance)
        white = white_noise(noise, tuple(x0.shape[1:]), self.is_complex)
        moved = ifft2(variance.sqrt() * fft2(white))
        x1 = x0 + (moved if self.is_complex else moved.real)
        shape = tuple(self.y.shape[1:])
        n = white_noise(noise, shape, self.y.is_complex())
        sigma = self.sigma.reshape(-1, *([1] * len(shape)))
        # start from what the data made of x0
        draw = self._solve(x1, variance, 200, x1 + mean - x0, self.tolerance, self._adjoint(self.y + sigma * n))
        return mean, draw

    def misfit(self, x0: Tensor, variance: Tensor) -> Tensor:
        """See :class:`DataModel`; the decoder's share enters through its mean gain."""
        residual = (self.y - self.operator(x0)).abs().square().flatten(1).mean(1)
        share = self.mean_gain * variance.mean() * x0[0].numel() / self.y[0].numel()
        return (residual / (self.sigma.square() + share)).sqrt()

    def _ratio(self) -> Tensor:
        return (self.weight / self.factor).reshape(-1, 1, 1, 1)

    def precision(self, x: Tensor, floor: Tensor) -> Tensor:
        """See :class:`DataModel`; counted as an application."""
        self.solves = self.solves._replace(applications=self.solves.applications + 1)
        return self._ratio() * as_declared(self.gram(x), self.operator.in_dtype)

    def information(self, floor: Tensor, noise: Callable[[tuple[int, ...]], Tensor] | None = None) -> Tensor:
        """See :class:`DataModel`."""
        if noise is None:
            return self._ratio() * self.backprojection
        shape = tuple(self.y.shape[1:])
        sigma = self.sigma.reshape(-1, *([1] * len(shape)))
        return self._ratio() * self._adjoint(self.y + sigma * white_noise(noise, shape, self.y.is_complex()))

    def mean_precision(self, floor: Tensor) -> Tensor:
        """See :class:`DataModel`."""
        return self._ratio() * self.mean_gain

    def solved(self, residual: Tensor) -> None:
        """See :class:`DataModel`."""
        self.solves = self.solves._replace(residual=residual)
