"""What the refinement schedules share: Adam's direction, the decay of the step size, which iterates to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Adam", "checkpoints", "decay"]


class Adam:
    """Adam's direction for a list of tensors, bias-corrected, in units of one step."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        self.first = [torch.zeros_like(t) for t in like]
        self.second = [torch.zeros_like(t) for t in like]
        self.count = 0

    def direction(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The direction after one more gradient of each tensor."""
        self.count += 1
        out = []
        for m, v, g in zip(self.first, self.second, gradients, strict=True):
            m.lerp_(g, 0.1)
            v.lerp_(g.square(), 0.01)
            mean, square = m / (1 - 0.9**self.count), v / (1 - 0.99**self.count)
            out.append(mean / (square.sqrt() + 1e-12))
        return out


def decay(step: int, steps: int) -> float:
    """Half a cosine from 1 to a tenth."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / max(1, steps)))


def checkpoints(steps: int) -> set[int]:
    """Numbers of steps after which an iterate is kept for comparison: a quarter, half, three quarters, all."""
    return {max(1, round(steps * f)) for f in (0.25, 0.5, 0.75, 1.0)}
