"""The forward-operator interface.

A measurement is ``y = A x + noise``; noise stays outside the operator (:mod:`iasolve.operators.noise`).
Image tensors are ``(..., C, H, W)`` with any leading batch dimensions; ``in_shape = (C, H, W)``.

Diagonality. An operator is *diagonal* when ``A = W_out D W_in^H`` with ``D`` a multiplication on the unshifted full
frequency grid and ``W`` the isometry from that grid to the values on either side, which the *basis* names:

``"image"``
    ``W = B``, the orthonormal inverse Fourier transform: pixels.
``"kspace"``
    Centred k-space, as ``fastmri.fft2c`` orders it (DC in the middle, phases relative to the middle of the image).
``"spectrum"``
    ``W = 1``: k-space as ``torch.fft.fft2`` orders it (DC at index 0).

An operator that names its bases keeps diagonality through the algebra (:mod:`iasolve.operators.algebra`).

Dtypes. An operator is declared real or complex; the precision follows the input (double in, double out). Integers and
half precision are computed in single precision.
Operators are immutable: parameters are set once, in ``__init__``. Only ``.to(device)`` moves them.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from iasolve.operators.bases import BASES, on_grid

if TYPE_CHECKING:
    from iasolve.operators.window import Window

__all__ = [
    "LinearOperator",
    "as_declared",
    "as_floating",
    "as_tensor",
    "image_shape",
]


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor of an array of any layout: views, read-only and foreign byte orders are copied.

    Extended precision becomes double.

    Raises
    ------
    ValueError
        For a masked array with masked values: what lies under the mask is no data.
    TypeError
        For an array of anything but numbers.
    """
    if isinstance(values, Tensor):
        return values.resolve_conj().resolve_neg()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"a masked array of shape {values.shape} with {int(np.ma.getmaskarray(values).sum())} masked value(s), "
            "expected plain values: for missing pixels pass array.filled(0) with the operator PixelMask(~array.mask, "
            "shape), or fill them yourself"
        )
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"expected an array of numbers, got dtype {array.dtype}, shape {array.shape}")
    if array.dtype.kind in "fc" and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 16):
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.complex128)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def as_floating(values: Tensor) -> Tensor:
    """``values`` in single precision where they are integers, booleans or of half precision, else as they are."""
    if values.dtype in (torch.float64, torch.complex128):
        return values
    return values.to(torch.promote_types(values.dtype, torch.float32))


def as_declared(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The real part of ``x`` where ``dtype`` declares real values, else ``x``: the adjoint of reals into complexes."""
    return x.real if x.is_complex() and not dtype.is_complex else x


def image_shape(in_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``in_shape`` if it is ``(C, H, W)`` with positive sizes, else raise ValueError."""
    shape = tuple(int(n) for n in in_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"in_shape must be (C, H, W) with positive sizes, got {tuple(in_shape)}; a grey image has C = 1, "
            "and batch dimensions are not part of it"
        )
    return shape[0], shape[1], shape[2]


class LinearOperator(nn.Module):
    """A linear map between tensors of fixed shape, with any leading batch dimensions.

    Subclasses call ``super().__init__`` and define :meth:`forward` and :meth:`adjoint`; a diagonal one also
    :meth:`transfer`, and names the bases on both sides.

    Parameters
    ----------
    in_shape, out_shape : tuple of int
        Without batch dimensions.
    in_dtype, out_dtype : torch.dtype
        Declare real or complex; inputs of another precision are taken as they are.
    domain, codomain : {"image", "kspace", "spectrum", None}
        Bases on either side, for diagonality; None where there is none.

    Examples
    --------
    >>> class Flip(LinearOperator):
    ...     def __init__(self, in_shape):
    ...         super().__init__(in_shape, in_shape)
    ...
    ...     def forward(self, x):
    ...         return self.check_in(x).flip(-1)
    ...
    ...     def adjoint(self, y):
    ...         return self.check_out(y).flip(-1)
    >>> A = Flip((1, 4, 6))
    >>> A(torch.ones(8, 1, 4, 6)).shape
    torch.Size([8, 1, 4, 6])
    >>> A
    Flip((1, 4, 6) torch.float32 -> (1, 4, 6) torch.float32)
    >>> round(A.norm(), 4)
    1.0
    """

    pointwise = False
    """Whether every value of ``A x`` is a multiple of the same value of ``x``."""
    # numpy must leave ``np.float64(2) * A`` to this class instead of looking for elements
    __array_ufunc__ = None

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        in_dtype: torch.dtype = torch.float32,
        out_dtype: torch.dtype | None = None,
        domain: str | None = None,
        codomain: str | None = None,
    ) -> None:
        super().__init__()
        for basis in (domain, codomain):
            if basis is not None and basis not in BASES:
                raise ValueError(f"a basis must be one of {BASES} or None, got {basis!r}")
        self.in_shape = tuple(int(n) for n in in_shape)
        self.out_shape = tuple(int(n) for n in out_shape)
        self.in_dtype = in_dtype
        self.out_dtype = in_dtype if out_dtype is None else out_dtype
        self.domain, self.codomain = domain, codomain

    def extra_repr(self) -> str:
        """Shapes and dtypes."""
        return f"{self.in_shape} {self.in_dtype} -> {self.out_shape} {self.out_dtype}"

    def forward(self, x: Tensor) -> Tensor:
        """``A x``: ``(..., *in_shape)`` to ``(..., *out_shape)``."""
        raise NotImplementedError

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y``: ``(..., *out_shape)`` to ``(..., *in_shape)``; for real images of the real inner product."""
        raise NotImplementedError

    def transfer(self) -> Tensor | None:
        """``D`` on the unshifted full grid, broadcastable to ``in_shape``; None if the operator is not diagonal."""
        return None

    def multiplier(self) -> Tensor | None:
        """``D`` of ``A x = W_out D W_in^H x``, or of its real part where the output is real; None if not diagonal."""
        return self.transfer()

    def to_grid(self, y: Tensor) -> Tensor:
        """``W^H y`` of a diagonal operator: the measurement on the unshifted full grid, ``(..., C, H, W)`` complex.

        Raises
        ------
        ValueError
            If the operator is not diagonal.
        """
        if self.codomain is None:
            raise ValueError(f"{type(self).__name__} is not diagonal in Fourier space: it has no codomain basis")
        return on_grid(y, self.codomain)

    def window(self) -> Window | None:
        """What the operator is, where it shows some pixels of a circular convolution; None where it is nothing such."""
        return None

    def interior_transfer(self, shape: tuple[int, int]) -> Tensor | None:
        """``|D|`` of what the operator does far from all edges, on an unshifted grid of ``shape``, ``(1, H, W)``.

        None where that is not nearly a convolution, or not known. It makes iterations fewer, and tells a reader what it
        sees; results of solves do not depend on it.
        """
        return None

    def support(self) -> Tensor | None:
        """Where images may be other than 0, boolean ``(H, W)``; None, as for most operators: anywhere.

        It is what the operator takes for known, not what it happens not to see: outside it, :func:`iasolve.solve`
        returns zeros instead of asking the prior.
        """
        return None

    def row_gains(self) -> Tensor | None:
        """The diagonal of ``A A^H`` where that is diagonal, real, broadcastable to ``out_shape``; None elsewhere.

        It is where the rows of ``A`` are orthogonal: known pixels, known with different precision, means over blocks.
        The posterior mean under a white prior then needs no iterations.
        """
        return None

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """Largest singular value: exact for a diagonal operator, else by :func:`.norm.power_iteration`, from below.

        For a diagonal operator it is ``max |D|``; on real images, whose bins ``k`` and ``-k`` carry the same number,
        ``max sqrt((|D_k|^2 + |D_-k|^2) / 2)``.
        """
        from iasolve.operators.norm import power_iteration

        d = self.gram.transfer()
        return power_iteration(self, iterations, seed) if d is None else math.sqrt(float(d.abs().max()))

    @property
    def is_complex(self) -> bool:
        """Whether inputs are complex."""
        return self.in_dtype.is_complex

    @property
    def device(self) -> torch.device:
        """Where the operator's tensors are; the CPU if it has none."""
        tensors = itertools.chain(self.buffers(), self.parameters())
        return next((t.device for t in tensors), torch.device("cpu"))

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The adjoint as an operator."""
        from iasolve.operators.algebra import Adjoint

        return Adjoint(self)

    @property
    def gram(self) -> LinearOperator:
        """``A^H A`` as an operator."""
        return self.H @ self

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        from iasolve.operators.algebra import Composition

        return Composition(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __add__(self, other: LinearOperator) -> LinearOperator:
        from iasolve.operators.algebra import Sum

        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + -1 * other if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self) -> LinearOperator:
        return -1 * self

    def __rmul__(self, factor: complex) -> LinearOperator:
        from iasolve.operators.algebra import Scaled

        return Scaled(self, factor) if isinstance(factor, numbers.Complex) else NotImplemented

    def check_in(self, x: Tensor) -> Tensor:
        """Return ``x``, floating, if it fits :attr:`in_shape` and the kind, else raise ValueError naming both."""
        return _check(x, self.in_shape, self.in_dtype, f"{type(self).__name__}.forward")

    def check_out(self, y: Tensor) -> Tensor:
        """Return ``y``, floating, if it fits :attr:`out_shape` and the kind, else raise ValueError naming both."""
        return _check(y, self.out_shape, self.out_dtype, f"{type(self).__name__}.adjoint")

    @staticmethod
    def from_functions(
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None = None,
        *,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        batched: bool = True,
        device: torch.device | str = "cpu",
    ) -> LinearOperator:
        """An operator from the user's own functions.

        Parameters
        ----------
        forward : callable
            ``(..., *in_shape)`` tensor to ``(..., *out_shape)`` tensor, linear, differentiable by torch if no
            ``adjoint`` is given. It receives its input as it is, not a copy: it must not change it.
        adjoint : callable, optional
            Its adjoint. Without one, the vector-Jacobian product of ``forward`` is used.
        in_shape : tuple of int
            Without batch dimensions.
        dtype : torch.dtype
            Of the input: a complex one declares the operator complex-linear.
        batched : bool
            Whether the functions take leading batch dimensions; if not, they are called item by item.
        device : torch.device or str
            Where the functions expect their input: ``forward`` is tried once, on zeros, to learn its output's shape.

        Raises
        ------
        ValueError
            When ``forward`` does not accept zeros of ``in_shape`` or returns no tensor.

        Examples
        --------
        >>> A = LinearOperator.from_functions(lambda x: x.diff(dim=-1), in_shape=(1, 4, 6))
        >>> A.out_shape
        (1, 4, 5)
        >>> A.adjoint(torch.ones(1, 4, 5))[0, 0]
        tensor([-1.,  0.,  0.,  0.,  0.,  1.])
        """
        from iasolve.operators.functions import FunctionOperator

        return FunctionOperator(forward, adjoint, in_shape, dtype, batched, torch.device(device))


def _check(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, where: str) -> Tensor:
    if x.ndim < len(shape) or tuple(x.shape[x.ndim - len(shape) :]) != shape:
        raise ValueError(
            f"{where} got a tensor of shape {tuple(x.shape)}, expected (..., {', '.join(map(str, shape))}), "
            "batch dimensions first"
        )
    if x.is_complex() and not dtype.is_complex:
        raise ValueError(
            f"{where} got complex values ({x.dtype}), expected real ones: the operator is declared {dtype}; "
            "take the real part, or build the operator for a complex dtype"
        )
    return as_floating(x)
