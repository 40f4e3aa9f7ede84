"""The forward-operator interface and its algebra.

A measurement is ``y = A x + noise``; noise stays outside the operator (:mod:`iasolve.operators.noise`).
Image tensors are ``(..., C, H, W)`` with any leading batch dimensions; ``in_shape = (C, H, W)``.

Diagonality. With ``B`` the orthonormal inverse Fourier transform, an operator is *diagonal* when
``A = W_out D B^H`` with ``D`` a multiplication on the unshifted full frequency grid and ``W_out`` the isometry of
its codomain's basis: ``"image"`` (``W = B``) or ``"kspace"`` (centred k-space as ``fastmri.fft2c`` orders it).
An operator that names its bases keeps diagonality through ``A @ B``, ``A + B``, ``c * A``, ``A.H`` and ``A.gram``.

Dtypes. An operator is declared real or complex; the precision follows the input (double in, double out).
Operators are immutable: parameters are set once, in ``__init__``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from iasolve.spectrum import fft2, ifft2

__all__ = ["LinearOperator", "as_tensor", "centred_fft2", "centred_ifft2"]

_AXES = (-2, -1)
_BASES = ("image", "kspace")


def centred_fft2(x: Tensor) -> Tensor:
    """Centred orthonormal Fourier transform of the last two axes: ``fastmri.fft2c`` on complex tensors."""
    return torch.fft.fftshift(fft2(torch.fft.ifftshift(x, dim=_AXES)), dim=_AXES)


def centred_ifft2(y: Tensor) -> Tensor:
    """Inverse of :func:`centred_fft2`."""
    return torch.fft.fftshift(ifft2(torch.fft.ifftshift(y, dim=_AXES)), dim=_AXES)


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor of an array of any layout: views, read-only and foreign byte orders are copied."""
    if isinstance(values, Tensor):
        return values.resolve_conj().resolve_neg()
    array = np.asarray(values)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


class LinearOperator(nn.Module):
    """A linear map between tensors of fixed shape, with any leading batch dimensions.

    Subclasses call ``super().__init__`` and define :meth:`forward` and :meth:`adjoint`; a diagonal one also
    :meth:`transfer`, and names its codomain's basis.

    Parameters
    ----------
    in_shape, out_shape : tuple of int
        Without batch dimensions.
    in_dtype, out_dtype : torch.dtype
        Declare real or complex; inputs of another precision are taken as they are.
    domain, codomain : {"image", "kspace", None}
        Bases on either side, for diagonality; None where there is none.
    """

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
            if basis is not None and basis not in _BASES:
                raise ValueError(f"a basis must be one of {_BASES} or None, got {basis!r}")
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

    def to_grid(self, y: Tensor) -> Tensor:
        """``W^H y`` of a diagonal operator: the measurement on the unshifted full grid, ``(..., C, H, W)`` complex.

        Raises
        ------
        ValueError
            If the operator is not diagonal.
        """
        if self.codomain == "image":
            return fft2(y)
        if self.codomain == "kspace":
            return fft2(centred_ifft2(y))
        raise ValueError(f"{type(self).__name__} is not diagonal in Fourier space: it has no codomain basis")

    @property
    def is_complex(self) -> bool:
        """Whether inputs are complex."""
        return self.in_dtype.is_complex

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The adjoint as an operator."""
        return _Adjoint(self)

    @property
    def gram(self) -> LinearOperator:
        """``A^H A`` as an operator."""
        return _Composition(self.H, self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return _Composition(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return _Sum(self, other)

    def __rmul__(self, factor: complex) -> LinearOperator:
        return _Scaled(self, factor)

    def check_in(self, x: Tensor) -> Tensor:
        """Return ``x`` if it fits :attr:`in_shape` and the declared kind, else raise ValueError naming both."""
        return _check(x, self.in_shape, self.in_dtype, f"{type(self).__name__}.forward")

    def check_out(self, y: Tensor) -> Tensor:
        """Return ``y`` if it fits :attr:`out_shape` and the declared kind, else raise ValueError naming both."""
        return _check(y, self.out_shape, self.out_dtype, f"{type(self).__name__}.adjoint")

    @staticmethod
    def from_functions(
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None = None,
        *,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        batched: bool = True,
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

        Raises
        ------
        ValueError
            When ``forward`` does not accept zeros of ``in_shape`` or returns no tensor.
        """
        return _FromFunctions(forward, adjoint, in_shape, dtype, batched)


def _check(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype, where: str) -> Tensor:
    if tuple(x.shape[x.ndim - len(shape) :]) != shape or x.ndim < len(shape):
        raise ValueError(
            f"{where} got a tensor of shape {tuple(x.shape)}, expected (..., {', '.join(map(str, shape))})"
        )
    if x.is_complex() and not dtype.is_complex:
        raise ValueError(
            f"{where} got complex values ({x.dtype}), expected real ones: the operator is declared {dtype}"
        )
    return x


class _Adjoint(LinearOperator):
    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.out_shape,
            operator.in_shape,
            in_dtype=operator.out_dtype,
            out_dtype=operator.in_dtype,
            domain=operator.codomain,
            codomain=operator.domain,
        )
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator(y)

    def transfer(self) -> Tensor | None:
        d = self.operator.transfer()
        # the adjoint on real images takes the real part, which is not a multiplication in Fourier space
        # unless its input is the spectrum of a real image: true for image-to-image operators only
        if d is None or (not self.operator.is_complex and self.operator.codomain != "image"):
            return None
        return d.conj()

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        return self.operator


class _Composition(LinearOperator):
    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if inner.out_shape != outer.in_shape:
            raise ValueError(
                f"cannot compose: the inner operator puts out {inner.out_shape}, the outer one takes {outer.in_shape}"
            )
        if inner.out_dtype.is_complex and not outer.in_dtype.is_complex:
            raise ValueError(
                f"cannot compose: the inner operator puts out {inner.out_dtype}, the outer one takes {outer.in_dtype}"
            )
        super().__init__(
            inner.in_shape,
            outer.out_shape,
            in_dtype=inner.in_dtype,
            out_dtype=outer.out_dtype,
            domain=inner.domain,
            codomain=outer.codomain,
        )
        self.outer, self.inner = outer, inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.inner(x))
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        back = self.outer.adjoint(y)
        if back.is_complex() and not self.inner.out_dtype.is_complex:
            back = back.real
        return self.inner.adjoint(back)

    def transfer(self) -> Tensor | None:
        outer, inner = self.outer.transfer(), self.inner.transfer()
        if outer is None or inner is None or self.inner.codomain != self.outer.domain:
            return None
        return outer * inner


class _Sum(LinearOperator):
    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if (first.in_shape, first.out_shape) != (second.in_shape, second.out_shape):
            raise ValueError(
                f"cannot add operators {first.in_shape} -> {first.out_shape} "
                f"and {second.in_shape} -> {second.out_shape}"
            )
        same = (first.domain, first.codomain) == (second.domain, second.codomain)
        super().__init__(
            first.in_shape,
            first.out_shape,
            in_dtype=first.in_dtype,
            out_dtype=torch.promote_types(first.out_dtype, second.out_dtype),
            domain=first.domain if same else None,
            codomain=first.codomain if same else None,
        )
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.first(x) + self.second(x)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        parts = [
            op.adjoint(y.real if y.is_complex() and not op.out_dtype.is_complex else y)
            for op in (self.first, self.second)
        ]
        return parts[0] + parts[1]

    def transfer(self) -> Tensor | None:
        first, second = self.first.transfer(), self.second.transfer()
        if first is None or second is None or self.codomain is None:
            return None
        return first + second


class _Scaled(LinearOperator):
    def __init__(self, operator: LinearOperator, factor: complex) -> None:
        if isinstance(factor, complex) and not operator.out_dtype.is_complex:
            raise ValueError(
                f"cannot scale an operator with real output ({operator.out_dtype}) by the complex {factor}"
            )
        super().__init__(
            operator.in_shape,
            operator.out_shape,
            in_dtype=operator.in_dtype,
            out_dtype=operator.out_dtype,
            domain=operator.domain,
            codomain=operator.codomain,
        )
        self.operator, self.factor = operator, factor

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.factor * self.operator(x)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        # the factor goes in first: on real images the operator's adjoint takes a real part
        return self.operator.adjoint(self.factor.conjugate() * y)

    def transfer(self) -> Tensor | None:
        d = self.operator.transfer()
        # in double precision: the mask of a double operator may be stored in single
        return None if d is None else self.factor * d.to(torch.promote_types(d.dtype, torch.float64))


class _FromFunctions(LinearOperator):
    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None,
        in_shape: tuple[int, ...],
        dtype: torch.dtype,
        batched: bool,
    ) -> None:
        try:
            out = forward(torch.zeros(in_shape, dtype=dtype))
        except Exception as error:
            raise ValueError(
                f"the forward function fails on zeros of shape {tuple(in_shape)}, dtype {dtype}: {error}"
            ) from error
        if not isinstance(out, Tensor):
            raise ValueError(f"the forward function must return a tensor, got {type(out).__name__}")
        super().__init__(in_shape, tuple(out.shape), in_dtype=dtype, out_dtype=out.dtype)
        self._forward_function, self._adjoint_function, self._batched = forward, adjoint, batched

    def forward(self, x: Tensor) -> Tensor:
        return self._each(self._forward_function, self.check_in(x), self.in_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._each(self._adjoint_function or self._vjp, self.check_out(y), self.out_shape)

    def _each(self, function: Callable[[Tensor], Tensor], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        lead = x.shape[: x.ndim - len(shape)]
        if self._batched or not lead:
            return function(x)
        items = [function(item) for item in x.reshape(-1, *shape)]
        return torch.stack(items).reshape(*lead, *items[0].shape)

    def _vjp(self, y: Tensor) -> Tensor:
        lead = y.shape[: y.ndim - len(self.out_shape)]
        real = y.real.dtype
        dtype = torch.promote_types(real, torch.complex32) if self.is_complex else real
        with torch.enable_grad():
            x = torch.zeros((*lead, *self.in_shape), dtype=dtype, device=y.device, requires_grad=True)
            out = self._forward_function(x)
            if not out.requires_grad:
                raise ValueError(
                    "the forward function is not differentiable by torch (it leaves torch or detaches): "
                    "pass its adjoint to from_functions"
                )
            (gradient,) = torch.autograd.grad(out, x, y.to(out.dtype))
        return gradient
