"""The data term of operators that are not diagonal in Fourier space.

``x* = argmin |y - A x|^2 / (c sigma^2) + |x - x0|^2_V / f`` by preconditioned conjugate gradients (``c = 1, 2`` for
complex and real noise; ``f = 2`` for real images, 1 for complex ones). By the envelope theorem the gradient of the
marginal likelihood is ``(x0 - x*) / V``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.conjugate import TOLERANCE, conjugate_gradients
from iasolve.inference.data import white_noise
from iasolve.operators.base import LinearOperator, as_declared
from iasolve.spectrum import fft2, ifft2

__all__ = ["GeneralData", "Solves"]

_FEW = 0.1
"""Measured values a pixel, below which an operator counts as one that leaves most directions unseen."""


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

    def residual(self, x: Tensor) -> Tensor:
        """``A^H (y - A x)``; counted as an application."""
        self.solves = self.solves._replace(applications=self.solves.applications + 1)
        return self.backprojection - as_declared(self.gram(x), self.operator.in_dtype)

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
