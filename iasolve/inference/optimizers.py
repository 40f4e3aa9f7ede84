"""Rules that go down a value per image: each is made with a :class:`Plan`, asked for a trial point and told of it.

A point is one row an image, ``(B, D)``, in units of a step. New rules go into :data:`OPTIMIZERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.networks import Gaussian
from iasolve.priors.hierarchy import Node

__all__ = ["LBFGS", "OPTIMIZERS", "Adam", "GradientDescent", "Optimizer", "Plan", "Variables"]


MEMORY = 12
"""Pairs remembered."""
DECREASE = 1e-4
"""Part of the decrease that the slope promises which a trial must reach."""
SHORTER = 0.3
"""What a trial's length is multiplied by after one that failed."""
CURVATURE = 0.02
"""Least cosine between step and change of gradient for a block's own scale; below, it keeps the last one."""


class Plan(NamedTuple):
    """What moves, and how far.

    Attributes
    ----------
    start : Tensor
        ``(B, D)``, real.
    blocks : list of int
        Sizes of the parts that carry a scale of their own (a latent's values), ``D`` together.
    steps : list of int
        How many steps each block takes.
    size : float
        Of a step; of ``lbfgs`` the root mean square of the first one.
    """

    start: Tensor
    blocks: list[int]
    steps: list[int]
    size: float

    def per_value(self, numbers: list[float]) -> Tensor:
        """One number a block for each of its values, ``(D,)``."""
        return torch.cat([self.start.new_full((size,), x) for size, x in zip(self.blocks, numbers, strict=True)])


class Variables:
    """What moves, a latent or its offset from the posterior, and its units: a step is counted in them."""

    def __init__(self, starts: list[Gaussian], offsets: list[Tensor] | None, covered: list[Tensor | None]) -> None:
        self.posteriors, self.offsets = starts, offsets is not None
        self.starts = [q.mean for q in starts] if offsets is None else offsets
        self.units = [q.std if offsets is None else torch.ones_like(q.mean) for q in starts]
        self.covered = [
            torch.ones((), device=q.mean.device) if c is None else c for q, c in zip(starts, covered, strict=True)
        ]

    def chooser(self, variables: list[Tensor], first: int) -> Callable[[Node], Gaussian]:
        """The posteriors of the block's latents; later ones are completed in the context at hand."""

        def choose(node: Node) -> Gaussian:
            place = node.number - first
            if place >= len(variables):
                return node.posterior
            mean = variables[place][node.rows]
            if self.offsets:
                mean = node.posterior.mean + node.posterior.std * mean
            return Gaussian(mean, self.posteriors[place].log_std[node.rows])

        return choose

    def scaled(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients in units of a step; nothing of tiles that the guess does not cover."""
        return [g * unit * c for g, unit, c in zip(gradients, self.units, self.covered, strict=True)]

    def flat(self, tensors: list[Tensor], tiles: int) -> Tensor:
        """One row an image."""
        return torch.cat([t.reshape(-1, tiles * t[0].numel()) for t in tensors], 1)

    def tensors(self, points: Tensor) -> list[Tensor]:
        """What points stand for."""
        out, place = [], 0
        for start, unit in zip(self.starts, self.units, strict=True):
            size = unit.numel() // len(points)
            out.append(start + unit * points[:, place : place + size].reshape(unit.shape))
            place += size
        return out


class Optimizer(Protocol):
    """A rule at work.

    Attributes
    ----------
    trial : Tensor
        ``(B, D)`` point to be evaluated next.
    """

    trial: Tensor

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Value ``(B,)`` and gradient ``(B, D)`` at :attr:`trial`; sets the next one."""

    @property
    def iterates(self) -> list[Tensor]:
        """Points among which the lowest is to be found; the last is the one to go on from."""


class GradientDescent:
    """Steps down the gradient, each of half a cosine's height from ``size`` to a tenth of it.

    Iterates are kept at a quarter, half, three quarters and all of the steps.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.trial = plan, plan.start
        self.taken = 0
        longest = max(plan.steps)
        self._kept = {max(1, round(longest * f)) for f in (0.25, 0.5, 0.75, 1.0)}
        self._iterates: list[Tensor] = []

    def direction(self, gradient: Tensor) -> Tensor:
        """Where to go, in units of one step."""
        return gradient

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """See :class:`Optimizer`."""
        step = self.taken
        rates = [
            self.plan.size * (0.1 + 0.45 * (1 + math.cos(math.pi * step / max(1, steps)))) if step < steps else 0.0
            for steps in self.plan.steps
        ]
        self.trial = self.trial - self.plan.per_value(rates) * self.direction(gradient)
        self.taken += 1
        if self.taken in self._kept:
            self._iterates.append(self.trial)

    @property
    def iterates(self) -> list[Tensor]:
        """See :class:`Optimizer`."""
        return self._iterates


class Adam(GradientDescent):
    """Adam's direction, bias-corrected (Kingma and Ba 2015; decay rates 0.9 and 0.99)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._first, self._second = torch.zeros_like(plan.start), torch.zeros_like(plan.start)

    def direction(self, gradient: Tensor) -> Tensor:
        """See :class:`GradientDescent`."""
        count = self.taken + 1
        self._first.lerp_(gradient, 0.1)
        self._second.lerp_(gradient.square(), 0.01)
        mean, square = self._first / (1 - 0.9**count), self._second / (1 - 0.99**count)
        return mean / (square.sqrt() + 1e-12)


class LBFGS:
    """Limited-memory quasi-Newton steps, each image of a batch on its own.

    Liu and Nocedal, Mathematical Programming 45, 1989; Nocedal and Wright, Numerical Optimization, algorithm 7.4. Two
    things differ. The initial inverse Hessian is a number per image and block, ``s.y / y.y`` of the newest pair:
    curvatures of coarse and fine latents differ by orders of magnitude even in units of their posteriors. And there is
    no line search: every evaluation is one step. A trial that does not lower the objective enough (Armijo) is taken
    back, its curvature remembered, and the next trial is shorter.

    Attributes
    ----------
    best : Tensor
        ``(B, D)`` point with the lowest value among those told and accepted.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.best, self.trial = plan, plan.start, plan.start
        self.taken = 0
        self._told: tuple[Tensor, Tensor] | None = None
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scale = torch.ones_like(plan.start)
        self._length = plan.start.new_ones(len(plan.start))

    @property
    def iterates(self) -> list[Tensor]:
        """The last trial, which nothing has judged yet, and the lowest point before it."""
        return [self.trial, self.best]

    def _forget(self) -> None:
        """Drop the pairs and begin anew at :attr:`best`."""
        self._told, self._pairs, self.trial = None, [], self.best
        self._length = torch.ones_like(self._length)

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """See :class:`Optimizer`."""
        free = [self.taken < steps for steps in self.plan.steps]
        gradient = gradient * self.plan.per_value([float(moves) for moves in free])
        self.taken += 1
        if self._told is None:
            self._told = value, gradient
            size = gradient.square().mean(1).sqrt().clamp_min(torch.finfo(value.dtype).tiny)
            self._scale = (self.plan.size / size)[:, None].expand_as(gradient)
        else:
            old, slope = self._told
            step = self.trial - self.best
            self._remember(step, gradient - slope)
            promised = (slope * step).sum(1).clamp_max(0)
            rounding = 10 * torch.finfo(value.dtype).eps * old.abs()
            lower = value <= old + DECREASE * promised + rounding
            row = lower[:, None]
            self.best = torch.where(row, self.trial, self.best)
            self._told = torch.where(lower, value, old), torch.where(row, gradient, slope)
            self._length = torch.where(lower, torch.ones_like(value), SHORTER * self._length)
        self.trial = self.best - self._length[:, None] * self._newton(self._told[1])
        if free != [self.taken < steps for steps in self.plan.steps] and self.taken < max(self.plan.steps):
            # another set of blocks moves from now on
            self._forget()

    def _remember(self, s: Tensor, y: Tensor) -> None:
        sy, yy, ss = (s * y).sum(1), y.square().sum(1), s.square().sum(1)
        positive = sy > 1e-6 * (yy * ss).sqrt()
        row = positive[:, None]
        # an image without curvature remembers a pair that changes nothing
        s, y = torch.where(row, s, 0.0), torch.where(row, y, 0.0)
        self._pairs.append((s, y, torch.where(positive, 1 / sy.where(positive, torch.ones_like(sy)), 0.0)))
        del self._pairs[:-MEMORY]
        scales = []
        for a, b, old in zip(*(t.split(self.plan.blocks, 1) for t in (s, y, self._scale)), strict=True):
            ab, bb = (a * b).sum(1), b.square().sum(1)
            clear = ab > CURVATURE * (bb * a.square().sum(1)).sqrt()
            scales.append(
                torch.where(clear, ab / bb.where(clear, torch.ones_like(bb)), old[:, 0])[:, None].expand_as(b)
            )
        self._scale = torch.cat(scales, 1)

    def _newton(self, gradient: Tensor) -> Tensor:
        """The inverse Hessian's estimate times a gradient: the two-loop recursion."""
        q, parts = gradient, []
        for s, y, rho in reversed(self._pairs):
            part = rho * (s * q).sum(1)
            q = q - part[:, None] * y
            parts.append(part)
        q = q * self._scale
        for (s, y, rho), part in zip(self._pairs, reversed(parts), strict=True):
            q = q + (part - rho * (y * q).sum(1))[:, None] * s
        return q


OPTIMIZERS: dict[str, type[GradientDescent] | type[LBFGS]] = {
    "adam": Adam,
    "gradient": GradientDescent,
    "lbfgs": LBFGS,
}
"""By the name that recipes give them."""
