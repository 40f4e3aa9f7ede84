"""Gradients through a linear map that torch cannot trace, by its adjoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["apply_linear"]

Map = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Map, adjoint: Map) -> Tensor:
        ctx.maps = forward, adjoint
        return forward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        forward, adjoint = ctx.maps
        return apply_linear(adjoint, forward, gradient), None, None


def apply_linear(forward: Map, adjoint: Map, x: Tensor) -> Tensor:
    """``forward(x)``, whose vector-Jacobian product is ``adjoint``: differentiable any number of times.

    Torch's convention for complex numbers makes the gradient of ``|A x - y|^2 / 2`` in ``x`` exactly
    ``A^H (A x - y)``, its real part for real ``x``: what an operator's adjoint returns.
    """
    out: Tensor = _Linear.apply(x, forward, adjoint)  # type: ignore[no-untyped-call]
    return out
