"""Several measurements of one image as one operator."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from iasolve.operators.algebra import Derived, Side, squared, taken_by_all, united, widest
from iasolve.operators.base import LinearOperator, as_declared

__all__ = ["VerticalStack", "vstack"]


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
            Side(parts[0].in_shape, taken_by_all(parts), domains.pop() if len(domains) == 1 else None),
            Side(out_shape, widest(part.out_dtype for part in parts), None),
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
        dtype = widest(y.dtype for y in given)
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
        squares = [None if (d := part.transfer()) is None else squared(d) for part in self.parts]
        known = [s for s in squares if s is not None]
        if self.domain is None or len(kinds) > 1 or len(known) < len(squares):
            return None
        return torch.stack(torch.broadcast_tensors(*known)).sum(dim=0).sqrt()

    def support(self) -> Tensor | None:
        """Where the image of any part may be other than 0."""
        return united(*self.parts)

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


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _lead(y: Tensor, shape: tuple[int, ...]) -> torch.Size:
    return y.shape[: y.ndim - len(shape)]
