"""Limited-memory quasi-Newton steps (L-BFGS), each image of a batch on its own.

Liu and Nocedal, Mathematical Programming 45, 1989; Nocedal and Wright, Numerical Optimization, algorithm 7.4. Two
things differ. The initial inverse Hessian is a number per image and *block* (a layer's latents), ``s.y / y.y`` of the
newest pair: curvatures of coarse and fine latents differ by orders of magnitude even in units of their posteriors. And
there is no line search: every evaluation is one step. A trial that does not lower the objective enough (Armijo) is
taken back, its curvature remembered, and the next trial is shorter.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LBFGS"]

MEMORY = 12
"""Pairs remembered."""
DECREASE = 1e-4
"""Part of the decrease that the slope promises which a trial must reach."""
SHORTER = 0.3
"""What a trial's length is multiplied by after one that failed."""
CURVATURE = 0.02
"""Least cosine between step and change of gradient for a block's own scale; below, it keeps the last one."""


class LBFGS:
    """Minimises a value per image; a caller evaluates :attr:`trial` and tells.

    Parameters
    ----------
    start : Tensor
        ``(B, D)``, real.
    blocks : list of int
        Sizes of the blocks, ``D`` together.
    first : float
        Root mean square length of the first step.

    Attributes
    ----------
    best : Tensor
        ``(B, D)`` point with the lowest value among those told and accepted.
    trial : Tensor
        ``(B, D)`` point to be evaluated next.
    """

    def __init__(self, start: Tensor, blocks: list[int], first: float) -> None:
        self.blocks, self.first = blocks, first
        self.best = self.trial = start
        self._told: tuple[Tensor, Tensor] | None = None
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scale = torch.ones_like(start)
        self._length = start.new_ones(len(start))

    def forget(self) -> None:
        """Drop the pairs and begin anew at :attr:`best`, as when the set of latents that move changes."""
        self._told, self._pairs, self.trial = None, [], self.best
        self._length = torch.ones_like(self._length)

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Value ``(B,)`` and gradient ``(B, D)`` at :attr:`trial`; sets the next one."""
        if self._told is None:
            self._told = value, gradient
            size = gradient.square().mean(1).sqrt().clamp_min(torch.finfo(value.dtype).tiny)
            self._scale = (self.first / size)[:, None].expand_as(gradient)
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

    def _remember(self, s: Tensor, y: Tensor) -> None:
        sy, yy, ss = (s * y).sum(1), y.square().sum(1), s.square().sum(1)
        positive = sy > 1e-6 * (yy * ss).sqrt()
        row = positive[:, None]
        # an image without curvature remembers a pair that changes nothing
        s, y = torch.where(row, s, 0.0), torch.where(row, y, 0.0)
        self._pairs.append((s, y, torch.where(positive, 1 / sy.where(positive, torch.ones_like(sy)), 0.0)))
        del self._pairs[:-MEMORY]
        scales = []
        for a, b, old in zip(*(t.split(self.blocks, 1) for t in (s, y, self._scale)), strict=True):
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
