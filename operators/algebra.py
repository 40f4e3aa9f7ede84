"""Operators made of operators: adjoint, composition, sum, scaling, vertical stack.

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
from torch import Tensor, nn

from iasolve.operators.base import LinearOperator, as_declared
from iasolve.spectrum import reflect

__all__ = ["Adjoint", "Composition", "Derived", "Scaled", "Sum", "VerticalStack", "vstack"]


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

    def multiplier(self) -> Tensor | None:
        """``D`` of ``A x = W_out D W_in^H x``, or of its real part where the output is real; None if not diagonal."""
        raise NotImplementedError

    def transfer(self) -> Tensor | None:
        """See :meth:`LinearOperator.transfer`."""
        d = self.multiplier()
        if d is None or self.out_dtype.is_complex:
            return d
        if self.is_complex or self.domain != "image":
            return None  # the real part of something that is not a real image's spectrum
        d = d.expand(torch.broadcast_shapes(d.shape, self.in_shape[-2:]))
        return (d + reflect(d).conj()) / 2


def _multiplier(operator: LinearOperator) -> Tensor | None:
    return operator.multiplier() if isinstance(operator, Derived) else operator.transfer()


def _united(*operators: LinearOperator) -> Tensor | None:
    known = [s for s in (operator.support() for operator in operators) if s is not None]
    return reduce(torch.logical_or, known) if len(known) == len(operators) else None


def _double(d: Tensor) -> Tensor:
    # transfer functions are combined in double precision: the mask of a double operator may be stored in single
    return d.to(torch.promote_types(d.dtype, torch.float64))


def _squared(d: Tensor) -> Tensor:
    return _double(d).abs().square()


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
        d = None if self.domain is None else _multiplier(self.operator)
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

    Examples
    --------
    >>> from iasolve.operators import CircularBlur, FourierTransform, SampleKSpace, gaussian_kernel, line_mask
    >>> shape = (1, 32, 32)
    >>> blur = CircularBlur(gaussian_kernel(1.5), shape)
    >>> A = SampleKSpace(line_mask((32, 32), 4, 0.1), shape) @ FourierTransform(shape) @ blur
    >>> A.transfer().shape
    torch.Size([1, 32, 32])
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

    def multiplier(self) -> Tensor | None:
        """``D_A D_B`` where the bases between them are the same; ``|D|^2`` of a gram."""
        outer, inner = self.outer, self.inner
        if isinstance(outer, Adjoint) and outer.operator is inner:
            d = inner.transfer()
            return None if d is None else _squared(d)
        if inner.codomain is None or inner.codomain != outer.domain:
            return None
        if outer.is_complex or outer.out_dtype.is_complex:
            a, b = _multiplier(outer), inner.transfer()
        else:
            # real to real, a Hermitian D: it commutes with taking the real part, which may wait until the end
            a, b = outer.transfer(), _multiplier(inner)
        return None if a is None or b is None else _double(a) * _double(b)

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
            Side(first.in_shape, _taken_by_all(both), first.domain if same else None),
            Side(first.out_shape, _widest(p.out_dtype for p in both), first.codomain if same else None),
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
        a, b = (p.transfer() if whole else _multiplier(p) for p in (self.first, self.second))
        return None if a is None or b is None else _double(a) + _double(b)

    def support(self) -> Tensor | None:
        """Where either may be other than 0."""
        return _united(self.first, self.second)


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
        d = _multiplier(self.operator)
        return None if d is None else self.factor * _double(d)

    def support(self) -> Tensor | None:
        """Of the operator."""
        return self.operator.support()

    def to_grid(self, y: Tensor) -> Tensor:
        """``W^H y`` of the operator."""
        return self.operator.to_grid(y)


class VerticalStack(Derived):
    """What several operators measure of one image, ``A x = (A_1 x, A_2 x, ...)``; see :func:`vstack`.

    A stack of diagonal operators with outputs of one kind, all real or all complex, is diagonal:
    ``D = sqrt(sum_i |D_i|^2)``, and ``W^H y = sum_i conj(D_i) W_i^H y_i / D``, 0 where ``D`` is. ``W`` is an
    isometry where ``D > 0``, so white noise stays white. ``W`` is no basis by name, ``codomain`` is None.
    """

    def __init__(self, operators: Iterable[LinearOperator]) -> None:
        parts = tuple(operators)
        if not parts:
            raise ValueError("cannot stack no operators at all: give at least one")
        for part in parts:
            if part.in_shape != parts[0].in_shape:
                raise ValueError(
                    f"cannot stack operators that take {parts[0].in_shape} and {part.in_shape}: "
                    "they must measure the same image"
                )
        domains = {part.domain for part in parts}
        shapes = [part.out_shape for part in parts]
        alike = len(set(shapes)) == 1
        out_shape = (len(parts), *shapes[0]) if alike else (sum(map(_count, shapes)),)
        super().__init__(
            Side(parts[0].in_shape, _taken_by_all(parts), domains.pop() if len(domains) == 1 else None),
            Side(out_shape, _widest(part.out_dtype for part in parts), None),
        )
        self.parts, self._alike = parts, alike
        self._registered = nn.ModuleList(parts)  # the same objects, for ``.to(device)``

    def join(self, values: Iterable[Tensor]) -> Tensor:
        """One measurement ``(..., *out_shape)`` of the parts' measurements, each ``(..., *part.out_shape)``.

        Raises
        ------
        ValueError
            When their number or a shape does not fit.
        """
        given = list(values)
        if len(given) != len(self.parts):
            raise ValueError(f"got {len(given)} measurements, expected {len(self.parts)}, one for each operator")
        dtype = _widest(y.dtype for y in given)
        checked = [part.check_out(y).to(dtype) for part, y in zip(self.parts, given, strict=True)]
        if self._alike:
            return torch.stack(checked, dim=-len(self.out_shape))
        flat = [y.reshape(*_lead(y, part.out_shape), -1) for part, y in zip(self.parts, checked, strict=True)]
        return torch.cat(flat, dim=-1)

    def split(self, y: Tensor) -> tuple[Tensor, ...]:
        """The parts' measurements, each ``(..., *part.out_shape)``, of one ``(..., *out_shape)``."""
        y = self.check_out(y)
        if self._alike:
            return y.unbind(dim=-len(self.out_shape))
        shapes = [part.out_shape for part in self.parts]
        pieces = y.split([_count(shape) for shape in shapes], dim=-1)
        return tuple(piece.reshape(*y.shape[:-1], *shape) for piece, shape in zip(pieces, shapes, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Every part's measurement, joined."""
        return self.join(part(x) for part in self.parts)

    def adjoint(self, y: Tensor) -> Tensor:
        """``sum_i A_i^H y_i``."""
        total = sum(part.adjoint(as_declared(v, part.out_dtype)) for part, v in self._pairs(y))
        assert isinstance(total, Tensor)
        return as_declared(total, self.in_dtype)

    def multiplier(self) -> Tensor | None:
        """``sqrt(sum_i |D_i|^2)``."""
        # a real part's noise says nothing in the imaginary part of a mixed stack: no white noise on one grid
        kinds = {part.out_dtype.is_complex for part in self.parts}
        squares = [None if (d := part.transfer()) is None else _squared(d) for part in self.parts]
        known = [s for s in squares if s is not None]
        if self.domain is None or len(kinds) > 1 or len(known) < len(squares):
            return None
        return torch.stack(torch.broadcast_tensors(*known)).sum(dim=0).sqrt()

    def support(self) -> Tensor | None:
        """Where the image of any part may be other than 0."""
        return _united(*self.parts)

    def to_grid(self, y: Tensor) -> Tensor:
        """``sum_i conj(D_i) W_i^H y_i / D``."""
        d = self.multiplier()
        if d is None:
            raise ValueError("this stack is not diagonal in Fourier space: one of its operators is not")
        scale = torch.where(d > 0, d, torch.ones_like(d))
        total = torch.zeros((), device=y.device)
        for part, value in self._pairs(y):
            own = part.transfer()
            assert own is not None
            placed = part.to_grid(value)
            total = total + (own.conj() / scale).to(placed.dtype) * placed
        return total

    def _pairs(self, y: Tensor) -> Iterable[tuple[LinearOperator, Tensor]]:
        return zip(self.parts, self.split(y), strict=True)


def vstack(*operators: LinearOperator) -> VerticalStack:
    """Several measurements of one image as one operator, ``A x = (A_1 x, A_2 x, ...)``, ``A^H y = sum_i A_i^H y_i``.

    Outputs of equal shape are stacked along a new first axis, ``out_shape = (n, *shape)``. Outputs of different shapes
    are flattened and concatenated, ``out_shape = (total,)``. Real outputs beside complex ones become complex.
    ``A.join((y_1, y_2, ...))`` and ``A.split(y)`` translate between the parts and the whole.

    The noise level of the whole is that of every part: divide each operator, and its measurement, by its own noise
    level where they differ.

    Raises
    ------
    ValueError
        When there are none, or they take images of different shapes.

    Examples
    --------
    >>> from iasolve.operators import BlockAverage, Identity, LowPass
    >>> shape = (1, 8, 8)
    >>> vstack(Identity(shape), 0.5 * LowPass(4, shape)).out_shape
    (2, 1, 8, 8)
    >>> A = vstack(Identity(shape), BlockAverage(2, shape))
    >>> A.out_shape
    (80,)
    >>> [tuple(part.shape) for part in A.split(A(torch.ones(5, *shape)))]
    [(5, 1, 8, 8), (5, 1, 4, 4)]
    """
    return VerticalStack(operators)


def _widest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    return reduce(torch.promote_types, dtypes)


def _taken_by_all(operators: Iterable[LinearOperator]) -> torch.dtype:
    """Real if any operator takes real input only."""
    dtypes = [operator.in_dtype for operator in operators]
    widest = _widest(dtypes)
    return widest if all(dtype.is_complex for dtype in dtypes) else widest.to_real()


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _lead(y: Tensor, shape: tuple[int, ...]) -> torch.Size:
    return y.shape[: y.ndim - len(shape)]
