"""Preconditioned conjugate gradients on a batch, each item with its own lengths of steps.

Most systems here are ``G + D``: a gram ``A^H A``, and what is diagonal in Fourier space, as the preconditioner is. On
spectra, both are a product, and an iteration takes one transform there and one back (:class:`Regularised`); on images
it takes twice as many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator
from iasolve.spectrum import fft2, half, ifft2, irfft2, rfft2

__all__ = ["ConjugateGradients", "Isometry", "Regularised", "conjugate_gradients", "mean_gain"]

_COARSE = 0.01
"""Relative residual above which solves go on, however little an iteration gains."""

_SLOW = 2.0
"""Iterations from which on a system counts as one that converges slowly, so that each gains little of what is left. By
the gain alone, Wiener estimates of sampled pixels ended 0.3 to 10 dB below the exact ones."""


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
    ``x^H M x - 2 Re right^H x`` by less than ``least``, and by less than that the more iterations there were.
    ``product``, the matrix times ``start`` where it is known, saves one application.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        return (a * b).flatten(1).sum(1)

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
        used += 1
        active = active & (rz > goal) & ((lowered > least / (1 + (used / _SLOW) ** 2)) | (rz > coarse))
    return ConjugateGradients(x, right - r, used, (rz / goal * tolerance**2).sqrt())


class Isometry:
    """Images ``(..., H, W)`` as spectra whose inner products are the images' own.

    Of real images half of the spectrum, which tells all, is weighted for the half that is left out.

    Parameters
    ----------
    like : Tensor
        ``(..., H, W)``, an image of their kind.

    Examples
    --------
    >>> x = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    >>> space = Isometry(x)
    >>> h = space.spectrum(x)
    >>> bool((h.abs().square().sum() - x.square().sum()).abs() < 1e-9), bool(torch.allclose(space.image(h), x))
    (True, True)
    """

    def __init__(self, like: Tensor) -> None:
        self.width, self.is_complex = like.shape[-1], like.is_complex()
        self._weights = like.real.new_full((self.width // 2 + 1,), 2**0.5)
        self._weights[0] = 1
        if self.width % 2 == 0:
            self._weights[-1] = 1

    def spectrum(self, x: Tensor) -> Tensor:
        """Of images."""
        return fft2(x) if self.is_complex else rfft2(x).mul_(self._weights)

    def image(self, h: Tensor) -> Tensor:
        """Of spectra."""
        return ifft2(h) if self.is_complex else irfft2(h / self._weights, self.width)

    def bins(self, by: Tensor) -> Tensor:
        """Real values on the unshifted full grid, the same at ``k`` and ``-k``, where this spectrum has its own."""
        return by if self.is_complex else half(by)


class Regularised:
    """``G + D``, ``G`` on images and ``D`` diagonal in Fourier space, to be solved on spectra of an :class:`Isometry`.

    Parameters
    ----------
    gram : callable
        ``G``.
    diagonal, preconditioner : Tensor
        ``D``, and what inverts about the whole: real, on the unshifted full grid, broadcastable to ``(B, C, H, W)``.
    space : Isometry
    """

    def __init__(
        self, gram: Callable[[Tensor], Tensor], diagonal: Tensor, preconditioner: Tensor, space: Isometry
    ) -> None:
        self.gram, self.space = gram, space
        self.diagonal, self.preconditioner = space.bins(diagonal), space.bins(preconditioner)

    def matrix(self, h: Tensor) -> Tensor:
        """``(G + D) h``."""
        return self.space.spectrum(self.gram(self.space.image(h))) + self.diagonal * h

    def solve(
        self,
        right: Tensor,
        start: Tensor,
        iterations: int,
        tolerance: float = 0.0,
        least: float = 0.0,
        product: Tensor | None = None,
    ) -> ConjugateGradients:
        """See :func:`conjugate_gradients`; all tensors are spectra."""
        return conjugate_gradients(
            self.matrix, right, lambda r: self.preconditioner * r, start, iterations, tolerance, least, product
        )


def mean_gain(operator: LinearOperator, like: Tensor) -> float:
    """Mean of the diagonal of ``A^H A`` by one random probe, for a preconditioner of images ``like``."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(operator.in_shape, generator=generator, dtype=operator.in_dtype).to(like)
    return float(operator(probe[None]).abs().square().sum() / probe.abs().square().sum())
