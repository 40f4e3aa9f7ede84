"""The norm of an operator that is not diagonal."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator

__all__ = ["power_iteration"]


@torch.no_grad()
def power_iteration(operator: LinearOperator, iterations: int = 100, seed: int = 0) -> float:
    """Largest singular value by power iteration on ``A^H A``, from below; 0 for an operator that vanishes.

    Stops early when an iteration changes the value by less than one part in 10^8.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(operator.in_shape, dtype=operator.in_dtype, generator=generator).to(operator.device)
    norm = 0.0
    for _ in range(iterations):
        # normalised after each half, so that no square of a very small or large norm vanishes or overflows
        y = _unit(operator(_unit(x)[0]))[0]
        x, last = operator.adjoint(y), norm
        norm = _unit(x)[1]
        if abs(norm - last) <= 1e-8 * norm:
            break
    return norm


def _unit(x: Tensor) -> tuple[Tensor, float]:
    peak = float(x.abs().max())
    if peak == 0:
        return x, 0.0
    x = x / peak
    length = float(torch.linalg.vector_norm(x))
    return x / length, peak * length
