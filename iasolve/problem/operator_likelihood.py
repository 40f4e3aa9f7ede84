"""The likelihood of operators that are not diagonal in Fourier space.

``x* = argmin |y - A x|^2 / (c sigma^2) + |x - x0|^2_V / f`` by preconditioned conjugate gradients (``c = 1, 2`` for
complex and real noise; ``f = 2`` for real images, 1 for complex ones). By the envelope theorem the gradient of the
marginal likelihood is ``(x0 - x*) / V``.

When conjugate gradients stop
-----------------------------
An iteration of conjugate gradients lowers the exponent of the posterior by a known number of nats. Iterations end when
that is little against the posterior's own width: an error that lowers the exponent by ``n e`` nats in ``n`` pixels is
``sqrt(2 e)`` standard deviations of the posterior large. Relative residuals say nothing of the kind, for the weights
span orders of magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from iasolve.classical.conjugate import Isometry, Regularised, mean_gain
from iasolve.classical.window import solve_window
from iasolve.operators.base import LinearOperator, as_declared
from iasolve.operators.probes import RingResponse, surplus_of_rings
from iasolve.operators.window import Window
from iasolve.problem.likelihood import Draw, Solution, Solves, Value, white_noise
from iasolve.spectrum import RingGrid, fft2, ifft2

__all__ = ["TOLERANCE", "OperatorLikelihood"]

TOLERANCE = 5e-4
"""Nats per pixel: of pixels, projections and blurs at most 0.005 standard deviations of the posterior are left then."""

_FEW = 0.1
"""Measured values a pixel, below which an operator counts as one that leaves most directions unseen."""


class OperatorLikelihood:
    """Of any linear operator, through conjugate gradients.

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
        Conjugate-gradient iterations of one :meth:`value`.
    tolerance : float
        Where all other solves end, in nats per pixel; 0 for as far as the precision goes.
    response : callable, optional
        What the operator makes of each ring of the image grid, for :meth:`unexplained`, which raises nothing without.

    Attributes
    ----------
    solves : Solves
        Counted; nothing else changes.
    """

    def __init__(
        self,
        operator: LinearOperator,
        y: Tensor,
        sigma: Tensor,
        iterations: int = 8,
        tolerance: float = TOLERANCE,
        response: Callable[[], RingResponse] | None = None,
    ) -> None:
        self.response = response
        self.operator, self.y, self.iterations, self.tolerance = operator, y, iterations, tolerance
        self.gram = operator.gram
        self.is_complex = operator.is_complex
        level = y.abs().square().flatten(1).mean(1).sqrt()
        # of a blank measurement, a thousandth of an image
        floor = 1e-3 * level.where(level > 0, 1.0)
        self.sigma = torch.maximum(sigma, floor)
        # weight of |y - A x|^2 in the exponent, and of |x - x0|^2_V
        self.weight = 1 / self.sigma.square() / (1.0 if y.is_complex() else 2.0)
        self.factor = 1.0 if self.is_complex else 0.5
        self.backprojection = self._adjoint(y)
        self.solves = Solves(0, y.real.new_zeros(len(y)))
        self.mean_gain = self._mean_gain()
        _, height, width = operator.in_shape
        self._window = operator.window()
        iterated = self._window is None and self.mean_gain
        near = operator.interior_transfer((height, width)) if iterated else None
        # of the preconditioner
        self._gain = self.mean_gain if near is None else near.to(y.real).square()
        # on real images the adjoint of complex values takes a real part: rows are not what they seem
        self._gains = None if y.is_complex() and not self.is_complex else operator.row_gains()

    def _adjoint(self, y: Tensor) -> Tensor:
        return as_declared(self.operator.adjoint(y), self.operator.in_dtype)

    def _mean_gain(self) -> float:
        # Of the preconditioner. Where few values are measured,
        # almost all directions are not: then the preconditioner is V, and as many iterations as values end the solve.
        if self.y[0].numel() < _FEW * math.prod(self.operator.in_shape):
            return 0.0
        return mean_gain(self.operator, self.backprojection)

    def _solve(
        self,
        x0: Tensor,
        variance: Tensor,
        iterations: int,
        start: Solution,
        tolerance: float,
        y: Tensor | None = None,
    ) -> Solution:
        level = None if self._gains is None else _white_level(variance)
        if level is not None:
            return self._white_solution(x0, level, self.y if y is None else y)
        least = self._least(x0, tolerance)
        if self._window is not None:
            return self._through_window(self._window, x0, variance, start.image, iterations, least, y)
        back = self.backprojection if y is None else self._adjoint(y)
        return self._iterated(back, x0, variance, iterations, start, least)

    def _least(self, image: Tensor, tolerance: float) -> float:
        """How much an iteration must lower the exponent to be followed by another.

        A few values measured cannot tell about all pixels: each of them counts, not each pixel.
        """
        return tolerance * min(image[0].numel(), self.y[0].numel()) / self.factor

    def _iterated(
        self, back: Tensor, x0: Tensor, variance: Tensor, iterations: int, start: Solution, least: float
    ) -> Solution:
        """From a back-projected measurement, by conjugate gradients."""
        inverse = 1 / variance.clamp_min(1e-12)
        space = Isometry(x0)
        found = self._regularised(inverse, space).solve(
            self._ratio() * space.spectrum(back) + space.bins(inverse) * space.spectrum(x0),
            space.spectrum(start.image),
            iterations,
            10 * torch.finfo(x0.dtype).eps,
            least,
            start.product,
        )
        # the first residual takes one more
        used = self.solves.applications + found.iterations + (start.product is None)
        self.solves = Solves(used, found.residual)
        return Solution(space.image(found.solution), found.product)

    def _regularised(self, inverse: Tensor, space: Isometry) -> Regularised:
        """The normal equations' matrix, for one over ``V``."""
        ratio = self._ratio()
        return Regularised(
            lambda x: ratio * as_declared(self.gram(x), self.operator.in_dtype),
            inverse,
            1 / (ratio * self._gain + inverse),
            space,
        )

    def _white_solution(self, x0: Tensor, level: Tensor, y: Tensor) -> Solution:
        """``x0 + v A^H (v A A^H + noise)^-1 (y - A x0)`` for ``V = v`` at all frequencies: nothing is iterated."""
        assert self._gains is not None
        each = [1] * (self.y.ndim - 1)
        gains = self._gains.to(level.dtype)
        weights = 1 / (gains * level.reshape(-1, *each) + 1 / self._ratio().reshape(-1, *each))
        moved = self._adjoint(weights * (y - self.operator(x0)))
        self._count()
        self.solves = self.solves._replace(residual=torch.zeros_like(self.solves.residual))
        return Solution(x0 + level * moved)

    def _through_window(
        self,
        window: Window,
        x0: Tensor,
        variance: Tensor,
        start: Tensor,
        iterations: int,
        least: float,
        y: Tensor | None,
    ) -> Solution:
        values = self.y if y is None else y
        # a tenth: some iterations more, each of which may still move all of a frame
        found = solve_window(window, values, 1 / self._ratio(), x0, variance, start, iterations, 0.1 * least)
        self.solves = Solves(self.solves.applications + found.iterations + 2, found.residual)
        return Solution(found.image)

    def _value(self, x: Tensor, x0: Tensor, variance: Tensor) -> Tensor:
        residual = (self.y - self.operator(x)).abs().square().flatten(1).sum(1)
        gap = fft2(x - x0)
        distance = (gap.real.square() + gap.imag.square()) / variance.clamp_min(1e-12)
        return self.weight * residual + self.factor * distance.flatten(1).sum(1)

    def value(self, x0: Tensor, variance: Tensor, start: Solution | None = None) -> Value:
        """``min_x`` of the joint exponent; its gradient in ``x0`` is ``(x0 - x*) / V``."""
        with torch.no_grad():
            fixed = x0.detach()
            best = self._solve(fixed, variance, self.iterations, start or Solution(fixed), 0.0)
        return Value(self._value(best.image, x0, variance), best)

    def settled(self, x0: Tensor, variance: Tensor) -> Tensor:
        """From a cold start: a warm-started value would only look better for having run longer.

        Objectives are compared by it, so it is more exact than an image needs to be.
        """
        best = self._solve(x0, variance, 200, Solution(x0), self.tolerance / 10)
        return self._value(best.image, x0, variance)

    def solve(self, x0: Tensor, variance: Tensor, iterations: int = 200, start: Solution | None = None) -> Solution:
        """``x*`` by up to ``iterations`` conjugate-gradient iterations."""
        return self._solve(x0, variance, iterations, start or Solution(x0), self.tolerance)

    def mean(self, x0: Tensor, variance: Tensor, iterations: int = 200) -> Tensor:
        """See :class:`Likelihood`."""
        return self.solve(x0, variance, iterations).image

    def resolved(self, x: Tensor, variance: Tensor, share: float, iterations: int = 200) -> Tensor:
        """What the posterior mean about 0 makes of ``x`` measured without noise: the resolution matrix times it.

        By up to so many ``iterations``; one that changes the mean of ``<x, V^-1 R x>`` by less than ``share`` of
        ``<x, V^-1 x>`` is the last.
        """
        space, inverse = Isometry(x), 1 / variance.clamp_min(1e-12)
        right = self._ratio() * space.spectrum(as_declared(self.gram(x), self.operator.in_dtype))
        nothing = torch.zeros_like(right)
        least = share * float((space.bins(inverse) * space.spectrum(x).abs().square()).sum())
        system = self._regularised(inverse, space)
        found = system.solve(right, nothing, iterations, 10 * torch.finfo(inverse.dtype).eps, least, nothing)
        self.solves = Solves(self.solves.applications + found.iterations + 1, found.residual)
        return space.image(found.solution)

    def precision_range(self) -> tuple[Tensor, Tensor]:
        """See :class:`Likelihood`: nothing, as some frequency may go unmeasured, and the operator's mean gain."""
        high = (self.weight / self.factor * self.mean_gain).reshape(-1, 1, 1, 1)
        return torch.zeros_like(high), high

    def draw(self, x0: Tensor, variance: Tensor, noise: Draw) -> tuple[Tensor, Tensor]:
        """Perturb and solve (Papandreou and Yuille 2010): exact for a Gaussian posterior."""
        mean = self.mean(x0, variance)
        white = white_noise(noise, tuple(x0.shape[1:]), self.is_complex)
        moved = ifft2(variance.sqrt() * fft2(white))
        x1 = x0 + (moved if self.is_complex else moved.real)
        # start from what the data made of x0
        start = Solution(x1 + mean - x0)
        return mean, self._solve(x1, variance, 200, start, self.tolerance, self._noisier(noise)).image

    folded = None

    def other(self, y: Tensor, tolerance: float) -> OperatorLikelihood:
        """See :class:`Likelihood`."""
        return OperatorLikelihood(self.operator, y, self.sigma, tolerance=tolerance)

    def spread(self, variance: Tensor) -> None:
        """Not known."""

    def misfit(self, x0: Tensor, variance: Tensor) -> Tensor:
        """See :class:`Likelihood`; the decoder's share enters through its mean gain."""
        residual = (self.y - self.operator(x0)).abs().square().flatten(1).mean(1)
        share = self.mean_gain * variance.mean() * x0[0].numel() / self.y[0].numel()
        return (residual / (self.sigma.square() + share)).sqrt()

    def unexplained(self, x0: Tensor, variance: Tensor, rings: RingGrid, most: Tensor) -> Tensor:
        """Rings are told apart by how the operator answers each: see :func:`.probes.surplus_of_rings`."""
        base = variance.expand(x0.shape)
        if self.response is None:
            return base
        self._count()
        residual = self.backprojection - as_declared(self.gram(x0), self.operator.in_dtype)
        usual = rings.means(variance).mean(-2)
        more = surplus_of_rings(residual, self.sigma, usual, self.response(), rings)[:, None]
        more = torch.minimum(more, (most - usual.unsqueeze(-2)).clamp_min(0))
        return torch.where(rings.inside, base + rings.spread(more), base)

    def _count(self) -> None:
        self.solves = self.solves._replace(applications=self.solves.applications + 1)

    def _noisier(self, noise: Draw) -> Tensor:
        """The measurement with as much noise again."""
        shape = tuple(self.y.shape[1:])
        sigma = self.sigma.reshape(-1, *([1] * len(shape)))
        return self.y + sigma * white_noise(noise, shape, self.y.is_complex())

    def _ratio(self) -> Tensor:
        return (self.weight / self.factor).reshape(-1, 1, 1, 1)

    def precision(self, x: Tensor, floor: Tensor) -> Tensor:
        """See :class:`Likelihood`; counted as an application."""
        self._count()
        return self._ratio() * as_declared(self.gram(x), self.operator.in_dtype)

    def information(self, floor: Tensor, noise: Draw | None = None) -> Tensor:
        """See :class:`Likelihood`."""
        return self._ratio() * (self.backprojection if noise is None else self._adjoint(self._noisier(noise)))

    def mean_precision(self, floor: Tensor) -> Tensor:
        """See :class:`Likelihood`."""
        return self._ratio() * self.mean_gain

    def note(self, residual: Tensor) -> None:
        """See :class:`Likelihood`."""
        self.solves = self.solves._replace(residual=residual)


def _white_level(variance: Tensor) -> Tensor | None:
    """The level ``(B or 1, 1, 1, 1)`` of a variance that is the same at all frequencies and channels; else None."""
    values = variance.reshape(-1, *variance.shape[-3:])
    low, high = values.flatten(1).aminmax(dim=1)
    return low.reshape(-1, 1, 1, 1) if bool((low == high).all()) else None
