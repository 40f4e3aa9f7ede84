"""Operators that turn noise white: a weight per value, a weight per frequency, and a mixture of coils.

If ``y = A x + n`` and ``W n`` is white, then ``W y = (W A) x + W n`` is a problem with white noise and the same image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_declared, as_tensor, image_shape
from iasolve.spectrum import fft2, ifft2, reflect

__all__ = ["CoilMixing", "FrequencyFilter", "Weighting"]


class Weighting(LinearOperator):
    """Multiplication of every value by a positive weight: ``A y = w * y``.

    Diagonal in Fourier space where its basis is k-space, so that weighted k-space keeps the exact path.

    Parameters
    ----------
    weights : Tensor or array
        Real, positive and finite, broadcastable to ``shape``.
    shape : tuple of int
        Of the values, without batch dimensions.
    dtype : torch.dtype
        Of the values.
    basis : {"image", "kspace", None}
        What the values are: the codomain of the operator before.

    Raises
    ------
    ValueError
        When the weights do not broadcast to ``shape`` or are not all positive and finite.
    """

    pointwise = True

    def __init__(
        self,
        weights: Tensor | np.ndarray,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        *,
        basis: str | None = None,
    ) -> None:
        super().__init__(shape, shape, in_dtype=dtype, domain=basis, codomain=basis)
        given = as_tensor(weights)
        try:
            values = torch.broadcast_to(given, self.in_shape)
        except RuntimeError:
            raise ValueError(
                f"the weights have shape {tuple(given.shape)}, expected one broadcastable to {self.in_shape}"
            ) from None
        if given.is_complex() or not bool((torch.isfinite(given) & (given > 0)).all()):
            raise ValueError("weights must be real, positive and finite: leave values out by a mask, not by a weight")
        self.register_buffer("weights", values.to(torch.float64).contiguous())
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``w * x``."""
        x = self.check_in(x)
        return self.weights.to(x.real.dtype) * x

    def adjoint(self, y: Tensor) -> Tensor:
        """``w * y``: the weights are real."""
        y = self.check_out(y)
        return self.weights.to(y.real.dtype) * y

    def row_gains(self) -> Tensor:
        """``w^2``."""
        return self.weights.square()

    def transfer(self) -> Tensor | None:
        """The unshifted weights where the basis is k-space, else None."""
        return torch.fft.ifftshift(self.weights, dim=(-2, -1)) if self.codomain == "kspace" else None


class FrequencyFilter(LinearOperator):
    """Multiplication of every frequency by a real weight: images to images, or k-space to k-space.

    Parameters
    ----------
    weights : Tensor or array
        ``(H, W)`` or broadcastable to ``(C, H, W)``, real and finite, on the unshifted full grid (DC at index 0),
        with ``weights(-k) = weights(k)`` for real images.
    shape : (C, H, W)
    dtype : torch.dtype
        Of the values; k-space is complex.
    basis : {"image", "kspace", "spectrum"}
        What the values are; see :mod:`iasolve.operators.base`.

    Raises
    ------
    ValueError
        When the weights do not broadcast to ``shape``, are complex or not finite, or differ between ``k`` and ``-k``
        for real images.
    """

    def __init__(
        self,
        weights: Tensor | np.ndarray,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        *,
        basis: str = "image",
    ) -> None:
        super().__init__(image_shape(shape), image_shape(shape), in_dtype=dtype, domain=basis, codomain=basis)
        given = as_tensor(weights)
        try:
            torch.broadcast_to(given, self.in_shape)
        except RuntimeError:
            raise ValueError(
                f"the weights have shape {tuple(given.shape)}, expected one broadcastable to {self.in_shape}"
            ) from None
        if given.is_complex() or not bool(torch.isfinite(given).all()):
            raise ValueError("the weights of frequencies must be real and finite")
        grid = given.double().expand(torch.broadcast_shapes(given.shape, self.in_shape[1:]))
        if not dtype.is_complex and not torch.allclose(grid, reflect(grid)):
            raise ValueError(
                "the weights of frequencies k and -k differ: a real image would become complex; give both the same, "
                "or declare complex images"
            )
        self.register_buffer("weights", grid.expand(1, *grid.shape[-2:]) if grid.ndim == 2 else grid.contiguous())
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``W diag(weights) W^H x``."""
        return self._filtered(self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: the weights are real."""
        return self._filtered(self.check_out(y))

    def transfer(self) -> Tensor:
        """The weights, ``(1 or C, H, W)``."""
        return self.weights

    def _filtered(self, x: Tensor) -> Tensor:
        weights = self.weights.to(x.real.dtype)
        if self.codomain == "image":
            return as_declared(ifft2(weights * fft2(x)), self.in_dtype)
        return (torch.fft.fftshift(weights, dim=(-2, -1)) if self.codomain == "kspace" else weights) * x


class CoilMixing(LinearOperator):
    """Mixture of coils, ``y'_d = sum_c matrix_dc y_c``: ``(..., coils, H, W)`` to ``(..., new coils, H, W)``.

    With all coils sampled at the same places this turns k-space into k-space of other, virtual coils.

    Parameters
    ----------
    matrix : Tensor or array
        ``(new coils, coils)``, complex or real.
    in_shape : (coils, H, W)
    dtype : torch.dtype
        Of the values, complex.
    basis : {"image", "kspace", None}
        What the values are.

    Raises
    ------
    ValueError
        When matrix and shape do not fit.
    """

    def __init__(
        self,
        matrix: Tensor | np.ndarray,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.complex64,
        *,
        basis: str | None = "kspace",
    ) -> None:
        values = as_tensor(matrix)
        if len(in_shape) != 3 or values.ndim != 2 or values.shape[1] != in_shape[0]:
            raise ValueError(
                f"the mixing matrix has shape {tuple(values.shape)}, the values {tuple(in_shape)}: expected "
                "(new coils, coils) and (coils, H, W)"
            )
        if not dtype.is_complex:
            raise ValueError(f"coil data are complex, got dtype {dtype}")
        super().__init__(in_shape, (values.shape[0], *in_shape[1:]), in_dtype=dtype, domain=basis, codomain=basis)
        self.register_buffer("matrix", values.to(torch.complex128))
        self.matrix: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``matrix @ x`` along the coils."""
        return _mix(self.matrix, self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``matrix^H @ y`` along the coils."""
        return _mix(self.matrix.mH, self.check_out(y))


def _mix(matrix: Tensor, values: Tensor) -> Tensor:
    dtype = torch.promote_types(values.dtype, torch.complex32)
    return torch.einsum("dc,...chw->...dhw", matrix.to(dtype), values.to(dtype))
