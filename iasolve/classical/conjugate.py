"""Preconditioned conjugate gradients on a batch, each item with its own lengths of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator

__all__ = ["ConjugateGradients", "conjugate_gradients", "mean_gain"]

_COARSE = 0.01
"""Relative residual above which solves go on, however little an iteration gains."""


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


def mean_gain(operator: LinearOperator, like: Tensor) -> float:
    """Mean of the diagonal of ``A^H A`` by one random probe, for a preconditioner of images ``like``."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(operator.in_shape, generator=generator, dtype=operator.in_dtype).to(like)
    return float(operator(probe[None]).abs().square().sum() / probe.abs().square().sum())
