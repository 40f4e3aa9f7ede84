"""Limited-memory quasi-Newton steps (L-BFGS), each image of a batch on its own.

Liu and Nocedal, Mathematical Programming 45, 1989; Nocedal and Wright, Numerical Optimization, algorithm 7.4. Two
things differ. The initial inverse Hessian is not one number: each layer of an image has its own, ``s.y / y.y`` of the
newest pair, for curvatures of coarse and fine latents differ by orders of magnitude even in units of their posteriors;
and after a few pairs each channel its place around that, for of a coarse layer's channels some are ten times flatter.
And there is no line search: every evaluation is one step. A trial that does not lower the objective enough (Armijo) is
taken back, its curvature remembered, and the next trial is shorter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LBFGS", "Block"]

MEMORY = 12
"""Pairs remembered."""
DECREASE = 1e-4
"""Part of the decrease that the slope promises which a trial must reach."""
SHORTER = 0.3
"""What a trial's length is multiplied by after one that failed."""
CURVATURE = 0.02
"""Least cosine between step and change of gradient for a layer's own scale; below, it keeps the last one."""
HEARD = 5
"""Pairs before channels get scales of their own: fewer tell too little of a channel with few values."""
LEANING = 3.0
"""A channel's scale leans on its layer's as if so many of the pairs had told nothing else."""
RANGE = 100.0
"""How far a channel's scale may lie from its layer's."""


class Block(NamedTuple):
    """A layer's coordinates, in this order: of each tile, of each channel, its positions."""

    tiles: int
    channels: int
    positions: int

    @property
    def size(self) -> int:
        """How many coordinates."""
        return self.tiles * self.channels * self.positions

    def per_channel(self, values: Tensor) -> Tensor:
        """Sums ``(B, channels)`` of values ``(B, size)``."""
        return values.reshape(-1, *self).sum((1, 3))

    def spread(self, values: Tensor) -> Tensor:
        """A value per channel ``(B, channels)`` at every coordinate, ``(B, size)``."""
        return values[:, None, :, None].expand(-1, *self).reshape(-1, self.size)


class LBFGS:
    """Minimises a value per image; a caller evaluates :attr:`trial` and tells.

    Parameters
    ----------
    start : Tensor
        ``(B, D)``, real.
    blocks : list of Block
        The layers, ``D`` coordinates together.
    first : float
        Root mean square length of the first step.

    Attributes
    ----------
    best : Tensor
        ``(B, D)`` point with the lowest value among those told and accepted.
    trial : Tensor
        ``(B, D)`` point to be evaluated next.
    """

    def __init__(self, start: Tensor, blocks: list[Block], first: float) -> None:
        self.blocks, self.first = blocks, first
        self.best = self.trial = start
        self._told: tuple[Tensor, Tensor] | None = None
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scale = torch.ones_like(start)
        self._layers = [start.new_ones(len(start)) for _ in blocks]
        self._heard = 0
        self._length = start.new_ones(len(start))
        self._sums = [start.new_zeros(2, len(start), block.channels) for block in blocks]

    def forget(self) -> None:
        """Drop the pairs and begin anew at :attr:`best`, as when the set of latents that move changes."""
        self._told, self._pairs, self.trial = None, [], self.best
        self._length = torch.ones_like(self._length)
        self._heard = 0
        self._sums = [torch.zeros_like(sums) for sums in self._sums]

    def tell(self, value: Tensor, gradient: Tensor) -> None:
        """Value ``(B,)`` and gradient ``(B, D)`` at :attr:`trial`; sets the next one."""
        if self._told is None:
            self._told = value, gradient
            size = gradient.square().mean(1).sqrt().clamp_min(torch.finfo(value.dtype).tiny)
            self._scale = (self.first / size)[:, None].expand_as(gradient)
            self._layers = [self.first / size for _ in self.blocks]
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
        self._rescale(s, y, yy)

    def _rescale(self, s: Tensor, y: Tensor, yy: Tensor) -> None:
        """The initial inverse Hessian with one more pair.

        The newest pair gives a layer's scale; of its channels' places around that all pairs tell, weighing alike
        whatever the lengths of their steps.
        """
        self._heard += 1
        weight = 1 / yy.where(yy > 0, torch.ones_like(yy))[:, None]
        sizes = [block.size for block in self.blocks]
        parts = zip(self.blocks, self._sums, self._layers, *(t.split(sizes, 1) for t in (s, y)), strict=True)
        scales, layers = [], []
        for block, sums, layer, a, b in parts:
            ab, bb = (a * b).sum(1), b.square().sum(1)
            clear = ab > CURVATURE * (bb * a.square().sum(1)).sqrt()
            layer = torch.where(clear, ab / bb.where(clear, torch.ones_like(bb)), layer)
            layers.append(layer)
            sums += torch.stack([block.per_channel(a * b * weight), block.per_channel(b * b * weight)])
            scales.append(block.spread(layer[:, None] * self._places(sums)))
        self._scale, self._layers = torch.cat(scales, 1), layers

    def _places(self, sums: Tensor) -> Tensor:
        """The channels' scales in units of their layer's, ``(B, channels)``, from sums of ``s.y`` and ``y.y``."""
        ab, bb = sums
        along, across = ab.mean(1, keepdim=True), bb.mean(1, keepdim=True)
        if self._heard < HEARD:
            return torch.ones_like(ab)
        known = (along > 0) & (across > 0)
        whole = torch.where(known, along / across.where(known, torch.ones_like(across)), torch.ones_like(along))
        lean = LEANING / self._heard * across
        own = (ab + whole * lean) / (bb + lean).where(known, torch.ones_like(bb))
        return torch.where(known, (own / whole).clamp(1 / RANGE, RANGE), torch.ones_like(own))

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
