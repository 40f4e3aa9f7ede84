"""Circular shift by whole pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, image_shape

__all__ = ["CircularShift"]


class CircularShift(LinearOperator):
    """``(A x)[i, j] = x[i - dy, j - dx]``, indices modulo the image's size; transfer ``exp(-2 pi i (u dy + v dx))``.

    Parameters
    ----------
    shift : (int, int)
        ``(dy, dx)``, in pixels.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Real or complex images.

    Examples
    --------
    >>> A = CircularShift((0, 1), (1, 1, 3))
    >>> A(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[3., 1., 2.]]])
    """

    def __init__(self, shift: tuple[int, int], in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        shape = image_shape(in_shape)
        if len(shift) != 2 or any(int(s) != s for s in shift):
            raise ValueError(f"shift must be two whole numbers of pixels (dy, dx), got {shift!r}")
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")
        self.shift = (int(shift[0]), int(shift[1]))
        # tells the device
        self.register_buffer("_one", torch.ones(1), persistent=False)
        self._one: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The image, moved."""
        return torch.roll(self.check_in(x), self.shift, (-2, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        """Moved back."""
        return torch.roll(self.check_out(y), (-self.shift[0], -self.shift[1]), (-2, -1))

    def row_gains(self) -> Tensor:
        """1."""
        return self._one.reshape(1, 1, 1)

    def interior_transfer(self, shape: tuple[int, int]) -> Tensor:
        """1."""
        return torch.ones(1, *shape, device=self.device)

    def transfer(self) -> Tensor:
        """``exp(-2 pi i (u dy + v dx))``, ``u``, ``v`` in cycles per pixel, ``(1, H, W)``, complex double."""
        # turns are reduced before they are multiplied by 2 pi: exact at the Nyquist frequency
        rows, columns = (
            (torch.arange(n, device=self._one.device) * s % n).double() / n
            for n, s in zip(self.in_shape[1:], self.shift, strict=True)
        )
        turns = rows[:, None] + columns
        return torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)[None]
