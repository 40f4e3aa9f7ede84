"""SciPy's linear operators and matrices as iasolve's operators, and the other way round."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator
from iasolve.operators.host import HostOperator, like, numpy_dtype, to_numpy

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

__all__ = ["from_scipy", "to_scipy"]


def from_scipy(
    matrix: Any,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> LinearOperator:
    """An operator from a matrix, or from a :class:`scipy.sparse.linalg.LinearOperator`, on flattened images.

    ``(A x).flatten() = matrix @ x.flatten()`` and ``A^H y = matrix^H y``, with the real part for real images. All
    images of a batch are the columns of one ``matmat``.

    Parameters
    ----------
    matrix : array, sparse array or matrix, or LinearOperator
        ``(M, N)``, real or complex. A LinearOperator needs its ``rmatvec``. It is used as it is, not copied.
    in_shape : tuple of int
        Of the image, ``N`` values, in C order.
    out_shape : tuple of int, optional
        Of the measurement, ``M`` values; ``(M,)`` by default.
    dtype : torch.dtype, optional
        Of the image. By default the matrix's own (double for integers): give a real one for real images under a
        complex matrix, a complex one for complex images under a real matrix.

    Returns
    -------
    LinearOperator
        Computed by SciPy on the CPU in the matrix's precision; the result has the input's precision and device.

    Raises
    ------
    TypeError
        For anything else than a matrix.
    ValueError
        When the shapes do not hold as many values as the matrix has columns and rows, or there is no ``rmatvec``.

    Examples
    --------
    >>> from scipy import sparse
    >>> A = from_scipy(sparse.eye_array(12) * 3, in_shape=(1, 3, 4), out_shape=(1, 3, 4))
    >>> float(A(torch.ones(5, 1, 3, 4)).sum())
    180.0
    """
    from scipy.sparse.linalg import aslinearoperator

    try:
        operator = aslinearoperator(matrix)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"from_scipy takes a dense or sparse matrix or a LinearOperator, got {type(matrix).__name__}"
        ) from error
    return _FromScipy(operator, in_shape, out_shape, dtype)


class _FromScipy(HostOperator):
    def __init__(
        self,
        operator: ScipyOperator,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None,
        dtype: torch.dtype | None,
    ) -> None:
        rows, columns = operator.shape
        out_shape = (rows,) if out_shape is None else tuple(out_shape)
        for name, shape, count in (("in_shape", tuple(in_shape), columns), ("out_shape", out_shape, rows)):
            if math.prod(shape) != count:
                raise ValueError(f"{name} {shape} holds {math.prod(shape)} values, the {rows}x{columns} matrix {count}")
        # what comes out decides: a LinearOperator's own dtype may be wrong
        probe = operator.matvec(np.zeros(columns, dtype=operator.dtype))
        own = _torch_dtype(np.result_type(operator.dtype, probe.dtype))
        in_dtype = own if dtype is None else dtype
        out_dtype = like(torch.promote_types(own, in_dtype), in_dtype)
        super().__init__(in_shape, out_shape, in_dtype=in_dtype, out_dtype=out_dtype)
        self._operator, self._real = operator, not own.is_complex
        try:
            operator.rmatvec(np.zeros(rows, dtype=probe.dtype))
        except NotImplementedError:
            raise ValueError("the LinearOperator has no adjoint: give it an rmatvec") from None

    def _forward(self, x: np.ndarray) -> np.ndarray:
        return self._columns(self._operator.matmat, x).reshape(-1, *self.out_shape)

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        return self._columns(self._operator.rmatmat, y).reshape(-1, *self.in_shape)

    def _columns(self, product: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
        columns = x.reshape(len(x), -1).T
        if self._real and np.iscomplexobj(columns):
            # a real LinearOperator may not know what to do with complex vectors
            real, imaginary = np.hsplit(np.asarray(product(np.hstack([columns.real, columns.imag]))), 2)
            return (real + 1j * imaginary).T
        return np.asarray(product(columns)).T


def _torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of a matrix's values: integers count as double, long doubles are rounded to double."""
    kind = np.dtype(dtype)
    if kind.kind == "c":
        return torch.complex64 if kind == np.complex64 else torch.complex128
    return torch.float32 if kind in (np.float16, np.float32) else torch.float64


def to_scipy(operator: LinearOperator, *, real_form: bool = False) -> ScipyOperator:
    """A :class:`scipy.sparse.linalg.LinearOperator` over flattened images and measurements (C order).

    The matrix of a real operator is real, that of a complex operator complex, and ``rmatvec`` is its adjoint.

    *Real images with complex measurements* (a Fourier transform of real images) give a complex matrix, and like any
    matrix it takes complex vectors: ``rmatvec`` is its conjugate transpose, whose real part is
    ``operator.adjoint``. A least-squares solution is then complex. ``real_form`` keeps images real.

    Parameters
    ----------
    operator : LinearOperator
        Applied where its buffers are, without gradients, in the precision of the vectors but no lower than the
        declared one. ``matmat`` applies it to all columns as one batch.
    real_form : bool
        The matrix over the real numbers: complex vectors are their real parts over their imaginary parts, so
        ``lsqr``, ``lsmr`` and bound-constrained solvers find real images. Works for every operator.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        ``(prod(out_shape), prod(in_shape))``; twice as many rows or columns for complex values in real form.

    Raises
    ------
    ValueError
        For an operator from complex to real values, such as the adjoint of a Fourier transform of real images,
        unless in real form: it is linear over the real numbers only.

    Examples
    --------
    >>> from iasolve.operators import FourierTransform
    >>> A = FourierTransform((1, 4, 4), torch.float64)
    >>> to_scipy(A).matvec(np.ones(16)).dtype
    dtype('complex128')
    >>> from scipy.sparse.linalg import lsqr
    >>> y = to_scipy(A, real_form=True).matvec(np.ones(16))  # 16 real parts, 16 imaginary parts
    >>> lsqr(to_scipy(A, real_form=True), y)[0].round(6)
    array([1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.])
    """
    from scipy.sparse.linalg import LinearOperator as ScipyOperator

    if operator.in_dtype.is_complex and not operator.out_dtype.is_complex and not real_form:
        raise ValueError(
            f"{type(operator).__name__} takes complex values to real ones, which no complex matrix does: pass "
            "real_form=True, or convert the operator that it is the adjoint of and take that one's .H"
        )
    view = _RealForm(operator) if real_form else _ComplexForm(operator)
    return ScipyOperator(
        shape=view.shape,
        dtype=view.dtype,
        matvec=lambda x: view.forward(x.reshape(-1, 1))[:, 0],
        rmatvec=lambda y: view.adjoint(y.reshape(-1, 1))[:, 0],
        matmat=view.forward,
        rmatmat=view.adjoint,
    )


class _Columns:
    """An operator and its adjoint on the columns of a matrix, each side in its declared kind."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.shape = math.prod(operator.out_shape), math.prod(operator.in_shape)
        self.images, self.measurements = operator.in_dtype, operator.out_dtype

    def _forward(self, columns: np.ndarray) -> np.ndarray:
        return self._apply(self.operator.forward, columns, self.operator.in_shape, self.images)

    def _adjoint(self, columns: np.ndarray) -> np.ndarray:
        return self._apply(self.operator.adjoint, columns, self.operator.out_shape, self.measurements)

    def _apply(
        self, function: Callable[[Tensor], Tensor], columns: np.ndarray, shape: tuple[int, ...], dtype: torch.dtype
    ) -> np.ndarray:
        # in the vectors' precision, but no lower than the declared one
        wide = torch.promote_types(_torch_dtype(columns.dtype), dtype)
        items = torch.from_numpy(np.array(columns.T, dtype=numpy_dtype(wide), order="C"))
        with torch.no_grad():
            out = function(items.reshape(-1, *shape).to(self.operator.device))
        return to_numpy(out.reshape(len(items), -1)).T


class _ComplexForm(_Columns):
    """Complex-linear on both sides."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator)
        self.dtype = numpy_dtype(torch.promote_types(self.images, self.measurements))

    def forward(self, x: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(x) and not self.images.is_complex:
            return self._forward(x.real) + 1j * self._forward(x.imag)
        return self._forward(x)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        if self.images.is_complex:
            return self._adjoint(y)
        if self.measurements.is_complex:
            # the operator's adjoint is Re(A^H y), and Im(z) = Re(-i z)
            return self._adjoint(y) + 1j * self._adjoint(-1j * y)
        if np.iscomplexobj(y):
            return self._adjoint(y.real) + 1j * self._adjoint(y.imag)
        return self._adjoint(y)


class _RealForm(_Columns):
    """Real on both sides: real parts over imaginary parts."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator)
        rows, columns = self.shape
        self.shape = rows * (1 + self.measurements.is_complex), columns * (1 + self.images.is_complex)
        real = like(torch.float64, torch.promote_types(self.images, self.measurements))
        self.dtype = numpy_dtype(real)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _stacked(self._forward(_unstacked(x, self.images)), self.measurements)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        return _stacked(self._adjoint(_unstacked(y, self.measurements)), self.images)


def _unstacked(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    if np.iscomplexobj(x):
        raise ValueError(f"an operator in real form takes real vectors, got {x.dtype}")
    if not dtype.is_complex:
        return x
    real, imaginary = np.vsplit(x, 2)
    return real + 1j * imaginary


def _stacked(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return np.vstack([x.real, x.imag]) if dtype.is_complex else x
