"""Sampling of pixels: inpainting and super-resolution. None of them is diagonal in Fourier space."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.algebra import Composition
from iasolve.operators.base import LinearOperator, image_shape
from iasolve.operators.blur import Convolution
from iasolve.operators.fourier import CircularBlur
from iasolve.operators.masks import as_mask

__all__ = ["BlockAverage", "BlurDownsample", "Downsample", "PixelMask"]

Factor = int | tuple[int, int]


def _pair(factor: Factor) -> tuple[int, int]:
    pair = (factor, factor) if isinstance(factor, int) else tuple(factor)
    if len(pair) != 2 or not all(isinstance(f, int) and f >= 1 for f in pair):
        raise ValueError(f"the factor must be a positive whole number or a pair (rows, columns) of them, got {factor}")
    return pair[0], pair[1]


class PixelMask(LinearOperator):
    """Known and missing pixels, ``A x = mask * x``: inpainting; missing pixels are 0 in the measurement.

    An orthogonal projection of the image's shape.

    Parameters
    ----------
    mask : Tensor or array
        Broadcastable to ``(C, H, W)``, boolean or 0/1, 1 where the pixel is known.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.

    Raises
    ------
    ValueError
        When the mask does not broadcast to ``(C, H, W)``, holds other values than 0 and 1, or samples nothing.

    Examples
    --------
    >>> A = PixelMask(torch.tensor([1, 0, 1, 1]), (1, 2, 4))
    >>> A(torch.ones(1, 2, 4))
    tensor([[[1., 0., 1., 1.],
             [1., 0., 1., 1.]]])
    """

    pointwise = True

    def __init__(
        self, mask: Tensor | np.ndarray, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> None:
        shape = image_shape(in_shape)
        super().__init__(shape, shape, in_dtype=dtype)
        self.register_buffer("mask", as_mask(mask, shape))
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``mask * x``."""
        return self.mask * self.check_in(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``mask * y``."""
        return self.mask * self.check_out(y)

    def row_gains(self) -> Tensor:
        """The mask."""
        return self.mask.to(self.in_dtype.to_real()).expand(self.in_shape)

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """1."""
        return 1.0


class BlockAverage(LinearOperator):
    """Mean over blocks of pixels: ``(A x)[i, j] = mean of x[f i : f i + f, f j : f j + f]``.

    ``(C, H, W)`` to ``(C, H / f, W / f)``. What a detector with larger pixels sees; the adjoint shares a value out
    among its block's pixels. The centre of output pixel ``i`` lies at input pixel ``f i + (f - 1) / 2``.

    Parameters
    ----------
    factor : int or (int, int)
        ``f``, or one for rows and one for columns; divides the image's size.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.

    Raises
    ------
    ValueError
        When the factor is impossible or does not divide the image's size.

    Examples
    --------
    >>> BlockAverage(2, (1, 2, 4))(torch.arange(8.0).reshape(1, 2, 4))
    tensor([[[2.5000, 4.5000]]])
    """

    def __init__(self, factor: Factor, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        channels, height, width = image_shape(in_shape)
        rows, columns = _pair(factor)
        if height % rows or width % columns:
            raise ValueError(
                f"blocks of {rows}x{columns} pixels do not tile an image of {height}x{width}: "
                f"crop it to {height - height % rows}x{width - width % columns}, or pad it"
            )
        super().__init__((channels, height, width), (channels, height // rows, width // columns), in_dtype=dtype)
        self.factor = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """Block means, ``(..., C, H / f, W / f)``."""
        rows, columns = self.factor
        _, height, width = self.out_shape
        x = self.check_in(x)
        return x.reshape(*x.shape[:-2], height, rows, width, columns).mean(dim=(-3, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        """Every value over ``f^2``, repeated over its block, ``(..., C, H, W)``."""
        rows, columns = self.factor
        y = self.check_out(y) / (rows * columns)
        return y.repeat_interleave(rows, dim=-2).repeat_interleave(columns, dim=-1)

    def row_gains(self) -> Tensor:
        """``1 / f^2``: blocks do not overlap."""
        return torch.full((1, 1, 1), 1 / math.prod(self.factor), device=self.device)

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """``1 / f``: blocks do not overlap."""
        return 1 / math.sqrt(math.prod(self.factor))


class Downsample(LinearOperator):
    """Every ``f``-th pixel, ``(A x)[i, j] = x[f i, f j]``: ``(C, H, W)`` to ``(C, ceil(H / f), ceil(W / f))``.

    Aliases what a blur before it does not remove; see :class:`BlurDownsample`. The adjoint puts zeros between.

    Parameters
    ----------
    factor : int or (int, int)
        ``f``, or one for rows and one for columns.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.

    Examples
    --------
    >>> Downsample(2, (1, 1, 5))(torch.arange(5.0).reshape(1, 1, 5))
    tensor([[[0., 2., 4.]]])
    """

    def __init__(self, factor: Factor, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        channels, height, width = image_shape(in_shape)
        rows, columns = _pair(factor)
        out_shape = (channels, -(-height // rows), -(-width // columns))
        super().__init__((channels, height, width), out_shape, in_dtype=dtype)
        self.factor = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """Every ``f``-th pixel."""
        rows, columns = self.factor
        return self.check_in(x)[..., ::rows, ::columns]

    def adjoint(self, y: Tensor) -> Tensor:
        """``y`` with zeros between."""
        rows, columns = self.factor
        y = self.check_out(y)
        x = y.new_zeros((*y.shape[:-3], *self.in_shape))
        x[..., ::rows, ::columns] = y
        return x

    def row_gains(self) -> Tensor:
        """1."""
        return torch.ones(1, 1, 1, device=self.device)

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """1."""
        return 1.0


class BlurDownsample(Composition):
    """Blur, then every ``f``-th pixel: ``A x = Downsample(f) (kernel * x)``, the usual model of super-resolution.

    ``(C, H, W)`` to ``(C, ceil(H / f), ceil(W / f))``; for the boundary ``"valid"``, ``H - h + 1`` stands for ``H``.
    The centre of output pixel ``i`` lies at (blurred) pixel ``f i``, the kernel's centre at index ``size // 2``.

    Parameters
    ----------
    kernel : Tensor or array
        Real ``(h, w)``, not normalised.
    factor : int or (int, int)
        ``f``, or one for rows and one for columns.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.
    boundary : {"reflect", "valid", "circular"}
        Of the blur: see :class:`iasolve.operators.Convolution`, :class:`iasolve.operators.CircularBlur`.

    Examples
    --------
    >>> from iasolve.operators import gaussian_kernel
    >>> BlurDownsample(gaussian_kernel(1.0), 4, (1, 32, 42)).out_shape
    (1, 8, 11)
    """

    def __init__(
        self,
        kernel: Tensor | np.ndarray,
        factor: Factor,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        *,
        boundary: str = "reflect",
    ) -> None:
        blur: LinearOperator
        if boundary == "circular":
            blur = CircularBlur(kernel, in_shape, dtype)
        elif boundary in ("reflect", "valid"):
            blur = Convolution(kernel, in_shape, dtype, boundary=boundary)
        else:
            raise ValueError(f'the boundary must be "reflect", "valid" or "circular", got {boundary!r}')
        super().__init__(Downsample(factor, blur.out_shape, dtype), blur)
