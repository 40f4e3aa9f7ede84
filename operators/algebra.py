"""Operators made of operators: adjoint, composition, sum, scaling; see :mod:`iasolve.operators.stack` too.

Diagonality goes through all of them. Where real images pass through complex k-space and back, ``A x`` is the real part
of ``W_out D W_in^H x``; on the spectrum ``h_k = conj(h_-k)`` of a real image, taking the real part is again a
multiplication, by the Hermitian part ``(D_k + conj(D_-k)) / 2``. So ``mask.gram`` is diagonal on real images too, while
``mask.H`` alone, from k-space to real images, is not.
"""

from __future__ import annotations

import cmath
import numbers
from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_declared
from iasolve.operators.window import Window
from iasolve.spectrum import reflect

__all__ = ["Adjoint", "Composition", "Derived", "Scaled", "Side", "Sum"]


class Side(NamedTuple):
    """One side of an operator."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    basis: str | None


def _input(operator: LinearOperator) -> Side:
    return Side(operator.in_shape, operator.in_dtype, operator.domain)


def _output(operator: LinearOperator) -> Side:
    return Side(operator.out_shape, operator.out_dtype, operator.codomain)


class Derived(LinearOperator):
    """An operator made of others: takes what ``source`` says, puts out what ``target`` says."""

    def __init__(self, source: Side, target: Side) -> None:
        super().__init__(
            source.shape,
            target.shape,
            in_dtype=source.dtype,
            out_dtype=target.dtype,
            domain=source.basis,
            codomain=target.basis,
        )

    def transfer(self) -> Tensor | None:
        """See :meth:`LinearOperator.transfer`."""
        d = self.multiplier()
        if d is None or self.out_dtype.is_complex:
            return d
        if self.is_complex or self.domain != "image":
            return None  # the real part of something that is not a real image's spectrum
        d = d.expand(torch.broadcast_shapes(d.shape, self.in_shape[-2:]))
        return (d + reflect(d).conj()) / 2


def united(*operators: LinearOperator) -> Tensor | None:
    known = [s for s in (operator.support() for operator in operators) if s is not None]
    return reduce(torch.logical_or, known) if len(known) == len(operators) else None


def double(d: Tensor) -> Tensor:
    # transfer functions are combined in double precision: the mask of a double operator may be stored in single
    return d.to(torch.promote_types(d.dtype, torch.float64))


def squared(d: Tensor) -> Tensor:
    return double(d).abs().square()


class Adjoint(Derived):
    """``A^H``, which also is ``A.H``; transfer ``conj(D)``."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(_output(operator), _input(operator))
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """``A^H x``."""
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A y``."""
        out: Tensor = self.operator(y)
        return out

    def multiplier(self) -> Tensor | None:
        """``conj(D)``."""
        d = None if self.domain is None else self.operator.multiplier()
        return None if d is None else d.conj()

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        """The operator itself."""
        return self.operator


class Composition(Derived):
    """``A B``, which also is ``A @ B``: first ``B``, the inner operator, then ``A``; transfer ``D_A D_B``.

    Raises
    ------
    ValueError
        When ``A`` does not take what ``B`` puts out: other shapes, or real values expected where complex ones come.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if inner.out_shape != outer.in_shape:
            raise ValueError(
                f"cannot compose: the inner operator puts out {inner.out_shape}, the outer one takes "
                f"{outer.in_shape}; in A @ B, B is applied first"
            )
        if inner.out_dtype.is_complex and not outer.is_complex:
            raise ValueError(
                f"cannot compose: the inner operator puts out {inner.out_dtype}, the outer one takes "
                f"{outer.in_dtype}; build the outer one for a complex dtype"
            )
        super().__init__(_input(inner), _output(outer))
        self.outer, self.inner = outer, inner

    def forward(self, x: Tensor) -> Tensor:
        """``A (B x)``."""
        out: Tensor = self.outer(self.inner(x))
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """``B^H (A^H y)``."""
        return self.inner.adjoint(as_declared(self.outer.adjoint(y), self.inner.out_dtype))

    @property
    def gram(self) -> LinearOperator:
        """``B^H (A^H A) B``, where ``A`` has a quick way to its own."""
        middle = self.outer.gram
        return super().gram if isinstance(middle, Composition) else Within(self.inner, middle)

    def multiplier(self) -> Tensor | None:
        """``D_A D_B`` where the bases between them are the same; ``|D|^2`` of a gram."""
        outer, inner = self.outer, self.inner
        if outer.H is inner:
            d = inner.transfer()
            return None if d is None else squared(d)
        if inner.codomain is None or inner.codomain != outer.domain:
            return None
        if outer.is_complex or outer.out_dtype.is_complex:
            a, b = outer.multiplier(), inner.transfer()
        else:
            # real to real, a Hermitian D: it commutes with taking the real part, which may wait until the end
            a, b = outer.transfer(), inner.multiplier()
        return None if a is None or b is None else double(a) * double(b)

    def window(self) -> Window | None:
        """That of the outer operator, of images that the inner one has convolved."""
        window, inner = self.outer.window(), self.inner.transfer()
        if window is None or inner is None or (self.inner.domain, self.inner.codomain) != ("image", "image"):
            return None
        return Window(window.transfer * inner, window.seen)

    def interior_transfer(self, shape: tuple[int, int]) -> Tensor | None:
        """The product, where both are known."""
        outer, inner = self.outer.interior_transfer(shape), self.inner.interior_transfer(shape)
        return None if outer is None or inner is None else outer * inner

    def row_gains(self) -> Tensor | None:
        """Their product, where ``B B^H`` is a multiple of the identity or ``A`` acts value by value."""
        outer, inner = self.outer.row_gains(), self.inner.row_gains()
        if outer is None or inner is None:
            return None
        if not self.outer.pointwise and bool(inner.amin() != inner.amax()):
            return None
        return outer * (inner if self.outer.pointwise else inner.amax())

    def support(self) -> Tensor | None:
        """Of the inner operator."""
        return self.inner.support()

    def to_grid(self, y: Tensor) -> Tensor:
        """``W^H y`` of the outer operator."""
        return self.outer.to_grid(y)


class Within(Derived):
    """``B^H G B`` of a ``G`` that is its own adjoint, and not diagonal."""

    def __init__(self, operator: LinearOperator, middle: LinearOperator) -> None:
        super().__init__(_input(operator), _input(operator))
        self.operator, self.middle = operator, middle

    def forward(self, x: Tensor) -> Tensor:
        """``B^H (G (B x))``."""
        inner = self.operator
        return as_declared(inner.adjoint(as_declared(self.middle(inner(x)), inner.out_dtype)), inner.in_dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """The same."""
        return self.forward(y)

    def multiplier(self) -> Tensor | None:
        """Not diagonal."""
        return None


class Sum(Derived):
    """``A + B``; transfer ``D_A + D_B`` where both have the same bases.

    Real and complex outputs add up to complex ones; real and complex inputs leave real ones, which both take.

    Raises
    ------
    ValueError
        When the shapes differ.
    """

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if (first.in_shape, first.out_shape) != (second.in_shape, second.out_shape):
            raise ValueError(
                f"cannot add operators {first.in_shape} -> {first.out_shape} "
                f"and {second.in_shape} -> {second.out_shape}: the shapes must be the same"
            )
        both = first, second
        same = (first.domain, first.codomain) == (second.domain, second.codomain)
        super().__init__(
            Side(first.in_shape, taken_by_all(both), first.domain if same else None),
            Side(first.out_shape, widest(p.out_dtype for p in both), first.codomain if same else None),
        )
        self.first, self.second = both

    def forward(self, x: Tensor) -> Tensor:
        """``A x + B x``."""
        out: Tensor = self.first(x) + self.second(x)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H y + B^H y``."""
        back = [p.adjoint(as_declared(y, p.out_dtype)) for p in (self.first, self.second)]
        return as_declared(back[0] + back[1], self.in_dtype)

    def multiplier(self) -> Tensor | None:
        """``D_A + D_B``."""
        if self.codomain is None:
            return None
        whole = self.out_dtype.is_complex
        a, b = (p.transfer() if whole else p.multiplier() for p in (self.first, self.second))
        return None if a is None or b is None else double(a) + double(b)

    def support(self) -> Tensor | None:
        """Where either may be other than 0."""
        return united(self.first, self.second)


class Scaled(Derived):
    """``c A``, which also is ``c * A``; transfer ``c D``.

    Raises
    ------
    ValueError
        For a complex ``c`` before real outputs, or one that is not finite.
    """

    def __init__(self, operator: LinearOperator, factor: complex) -> None:
        if not cmath.isfinite(factor):
            raise ValueError(f"cannot scale an operator by {factor}: expected a finite number")
        if not isinstance(factor, numbers.Real) and not operator.out_dtype.is_complex:
            raise ValueError(
                f"cannot scale an operator with real output ({operator.out_dtype}) by the complex {factor}; "
                "build it for a complex dtype"
            )
        super().__init__(_input(operator), _output(operator))
        # a plain Python number, which changes no tensor's precision
        self.factor = float(factor) if isinstance(factor, numbers.Real) else complex(factor)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """``c (A x)``."""
        out: Tensor = self.factor * self.operator(x)
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^H (conj(c) y)``: the factor goes in first, as on real images the adjoint takes a real part."""
        return self.operator.adjoint(self.factor.conjugate() * y)

    def row_gains(self) -> Tensor | None:
        """``|c|^2`` times those of ``A``."""
        gains = self.operator.row_gains()
        return None if gains is None else abs(self.factor) ** 2 * gains

    def multiplier(self) -> Tensor | None:
        """``c D``."""
        d = self.operator.multiplier()
        return None if d is None else self.factor * double(d)

    def support(self) -> Tensor | None:
        """Of the operator."""
        return self.operator.support()

    def to_grid(self, y: Tensor) -> Tensor:
        """``W^H y`` of the operator."""
        return self.operator.to_grid(y)


def widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    return reduce(torch.promote_types, dtypes)


def taken_by_all(operators: Iterable[LinearOperator]) -> torch.dtype:
    """Real if any operator takes real input only."""
    dtypes = [operator.in_dtype for operator in operators]
    wide = widest(dtypes)
    return wide if all(dtype.is_complex for dtype in dtypes) else wide.to_real()
