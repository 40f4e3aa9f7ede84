"""Operators that another library computes on NumPy arrays, in the host's memory."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.autograd import apply_linear
from iasolve.operators.base import LinearOperator

__all__ = ["HostOperator", "like", "numpy_dtype", "to_numpy"]


def to_numpy(x: Tensor) -> np.ndarray:
    """A NumPy array of a tensor on any device, sharing memory where it can."""
    return x.detach().cpu().resolve_conj().resolve_neg().numpy()


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """NumPy's dtype of a torch dtype."""
    return torch.empty(0, dtype=dtype).numpy().dtype


def like(dtype: torch.dtype, precision: torch.dtype) -> torch.dtype:
    """Real or complex as ``dtype`` is, in double if ``precision`` is double, else in single precision."""
    double = precision in (torch.float64, torch.complex128)
    if dtype.is_complex:
        return torch.complex128 if double else torch.complex64
    return torch.float64 if double else torch.float32


class HostOperator(LinearOperator):
    """A linear operator from two maps of NumPy arrays with exactly one batch axis.

    Subclasses define :meth:`_forward` and :meth:`_adjoint`. Tensors of any device and with any leading dimensions
    come in; they are copied to the host and back, and torch differentiates through them by the adjoint. The
    precision follows the input. For real images the real part of the adjoint is taken here.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``A x``, ``(..., *out_shape)``."""
        return apply_linear(self._to_codomain, self._to_domain, self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``, ``(..., *in_shape)``."""
        return apply_linear(self._to_domain, self._to_codomain, self.check_out(y))

    def _forward(self, x: np.ndarray) -> np.ndarray:
        """``(B, *in_shape)`` to ``(B, *out_shape)``; it must not change its argument."""
        raise NotImplementedError

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        """``(B, *out_shape)`` to ``(B, *in_shape)``; it must not change its argument."""
        raise NotImplementedError

    def _to_codomain(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(self.in_shape)]
        array = to_numpy(x.reshape(math.prod(lead), *self.in_shape).to(like(self.in_dtype, x.dtype)))
        out = self._forward(array) if len(array) else np.zeros((0, *self.out_shape))
        return _back(out, x, self.out_dtype).reshape(*lead, *self.out_shape)

    def _to_domain(self, y: Tensor) -> Tensor:
        lead = y.shape[: y.ndim - len(self.out_shape)]
        array = to_numpy(y.reshape(math.prod(lead), *self.out_shape).to(like(self.out_dtype, y.dtype)))
        out = self._adjoint(array) if len(array) else np.zeros((0, *self.in_shape))
        return _back(out, y, self.in_dtype).reshape(*lead, *self.in_shape)


def _back(array: np.ndarray, given: Tensor, dtype: torch.dtype) -> Tensor:
    values = array if dtype.is_complex else array.real
    # a library may return a view of what it was given, or of its own memory: neither may be aliased
    tensor = torch.from_numpy(np.array(values, order="C"))
    return tensor.to(device=given.device, dtype=like(dtype, given.dtype))
