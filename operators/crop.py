"""The middle of a larger image."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator
from iasolve.operators.window import Window

__all__ = ["Crop"]


class Crop(LinearOperator):
    """The central ``shape`` part of a larger grid.

    Parameters
    ----------
    in_shape : (C, H, W)
    shape : (h, w)
    dtype : torch.dtype
    """

    def __init__(self, in_shape: tuple[int, ...], shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__(in_shape, (in_shape[0], *shape), in_dtype=dtype, domain="image", codomain="image")
        self.top, self.left = ((in_shape[i + 1] - shape[i]) // 2 for i in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """The crop."""
        _, h, w = self.out_shape
        return self.check_in(x)[..., self.top : self.top + h, self.left : self.left + w]

    def row_gains(self) -> Tensor:
        """1."""
        return torch.ones(1, 1, 1, device=self.device)

    def window(self) -> Window:
        """Nothing is convolved."""
        seen = torch.zeros(self.in_shape[1:], dtype=torch.bool, device=self.device)
        seen[self.top : self.top + self.out_shape[1], self.left : self.left + self.out_shape[2]] = True
        return Window(torch.ones(1, 1, 1, dtype=torch.complex64, device=self.device), seen)

    def interior_transfer(self, shape: tuple[int, int]) -> Tensor:
        """1."""
        return torch.ones(1, *shape, device=self.device)

    def adjoint(self, y: Tensor) -> Tensor:
        """Zero padding back to the grid."""
        _, height, width = self.in_shape
        _, h, w = self.out_shape
        self.check_out(y)
        return torch.nn.functional.pad(y, (self.left, width - w - self.left, self.top, height - h - self.top))
