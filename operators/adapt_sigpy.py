"""SigPy's linear operators as iasolve's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from iasolve.operators.base import LinearOperator
from iasolve.operators.host import HostOperator, like, numpy_dtype

__all__ = ["from_sigpy"]


def from_sigpy(
    linop: Any, in_shape: tuple[int, ...] | None = None, dtype: torch.dtype = torch.complex64
) -> LinearOperator:
    """An operator from a ``sigpy.linop.Linop``, applied item by item: SigPy knows no batches.

    Parameters
    ----------
    linop : sigpy.linop.Linop
        ``A x = linop(x)`` and ``A^H y = linop.H(y)``.
    in_shape : tuple of int, optional
        ``linop.ishape`` by default; another shape of as many values reshapes, such as ``(1, H, W)`` for ``(H, W)``.
    dtype : torch.dtype
        Of the image. For real images with complex measurements, the image is made complex first (SigPy's Fourier
        transforms compute real input in single precision) and the adjoint takes the real part.

    Returns
    -------
    LinearOperator
        To ``linop.oshape``; computed on the CPU in the input's precision as far as the Linop's arrays allow;
        tensors of another device are copied to the host and back.

    Raises
    ------
    TypeError
        For an object that is not a Linop.
    ValueError
        For an ``in_shape`` of another number of values.

    Examples
    --------
    >>> import sigpy.mri
    >>> maps = np.ones((4, 32, 24), np.complex64)
    >>> A = from_sigpy(sigpy.mri.linop.Sense(maps), in_shape=(1, 32, 24))
    >>> A.in_shape, A.out_shape
    ((1, 32, 24), (4, 32, 24))
    """
    if not all(hasattr(linop, name) for name in ("ishape", "oshape", "H")):
        raise TypeError(f"from_sigpy takes a sigpy.linop.Linop, got {type(linop).__name__}")
    return _FromSigpy(linop, in_shape, dtype)


class _FromSigpy(HostOperator):
    def __init__(self, linop: Any, in_shape: tuple[int, ...] | None, dtype: torch.dtype) -> None:
        own = tuple(linop.ishape)
        shape = own if in_shape is None else tuple(in_shape)
        if math.prod(shape) != math.prod(own):
            raise ValueError(
                f"in_shape {shape} holds {math.prod(shape)} values, the Linop's ishape {own} {math.prod(own)}"
            )
        probe = linop(np.zeros(own, dtype=numpy_dtype(dtype)))
        out_dtype = like(torch.complex64 if np.iscomplexobj(probe) else torch.float32, dtype)
        super().__init__(shape, tuple(linop.oshape), in_dtype=dtype, out_dtype=out_dtype)
        self._linop, self._own = linop, own

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self._each(self._linop, x, self._own)

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return self._each(self._linop.H, y, self.out_shape).reshape(-1, *self.in_shape)

    def _each(self, linop: Any, items: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if self.out_dtype.is_complex:
            items = items.astype(np.result_type(items.dtype, np.complex64))
        return np.stack([linop(item.reshape(shape)) for item in items])
