"""Blur kernels and their transfer functions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import as_tensor
from iasolve.spectrum import frequencies

__all__ = ["as_kernel", "disk_kernel", "gaussian_kernel", "gaussian_transfer", "kernel_transfer", "motion_kernel"]


def as_kernel(kernel: Tensor | np.ndarray) -> Tensor:
    """``kernel`` in double precision if it is real, finite, ``(h, w)`` and not all zero, else raise ValueError."""
    values = as_tensor(kernel)
    if values.ndim != 2 or values.is_complex() or not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"the kernel must be a real, finite (h, w) array, got shape {tuple(values.shape)}, {values.dtype}"
        )
    if not bool((values != 0).any()):
        raise ValueError("the kernel is zero everywhere: the measurement would hold nothing")
    return values.double()


def gaussian_kernel(width: float, size: int | None = None) -> Tensor:
    """Sampled Gaussian of standard deviation ``width`` pixels, sum 1, float64, centre at ``size // 2``.

    ``size`` defaults to the odd number of pixels that holds four standard deviations to either side.

    Examples
    --------
    >>> gaussian_kernel(1.0).shape
    torch.Size([9, 9])
    """
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"a Gaussian blur's width must be positive and finite, got {width} pixels")
    if size is not None and size < 1:
        raise ValueError(f"a kernel's size must be at least 1 pixel, got {size}")
    if size is None:
        size = 2 * math.ceil(4 * width) + 1
    t = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-0.5 * (t / width) ** 2)
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> Tensor:
    """Straight motion over ``length`` pixels at ``angle`` radians from the horizontal, sum 1, float64.

    The line is sampled densely and shared bilinearly among pixels; the kernel is square with an odd size.

    Examples
    --------
    >>> import math
    >>> kernel = motion_kernel(3, math.radians(90))
    >>> tuple(kernel.shape), float(kernel.sum().round(decimals=6)), float(kernel[:, 3].sum().round(decimals=6))
    ((7, 7), 1.0, 1.0)
    """
    if not (length > 0 and math.isfinite(length) and math.isfinite(angle)):
        raise ValueError(
            f"a motion blur's length must be positive, and its angle finite, got {length} pixels, {angle} radians"
        )
    half = math.ceil(length / 2) + 1
    size = 2 * half + 1
    t = torch.linspace(-length / 2, length / 2, max(2, math.ceil(length * 8)), dtype=torch.float64)
    y, x = half - t * math.sin(angle), half + t * math.cos(angle)
    kernel = torch.zeros(size, size, dtype=torch.float64)
    y0, x0 = y.floor().long(), x.floor().long()
    fy, fx = y - y0, x - x0
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            kernel.index_put_((y0 + dy, x0 + dx), wy * wx, accumulate=True)
    return kernel / kernel.sum()


def disk_kernel(radius: float) -> Tensor:
    """Uniform disk of ``radius`` pixels (defocus), sum 1, float64: a pixel's weight is its area inside the disk.

    The areas are exact; the kernel is square with an odd size.

    Examples
    --------
    >>> disk_kernel(0.5)  # a disk inside one pixel
    tensor([[1.]], dtype=torch.float64)
    >>> disk_kernel(3).shape
    torch.Size([7, 7])
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"a disk's radius must be positive, got {radius} pixels")
    half = math.ceil(radius - 0.5)
    edges = torch.arange(-half, half + 2, dtype=torch.float64) - 0.5
    inside = _disk_corner(edges[:, None], edges[None, :], radius)
    kernel = inside.diff(dim=0).diff(dim=1)
    return kernel / kernel.sum()


def _disk_corner(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Area of the disk between 0 and ``x``, 0 and ``y``, odd in both: pixels' areas are its differences."""
    a, b = x.abs().clamp_max(radius), y.abs().clamp_max(radius)
    # integral over u = 0 .. a of min(b, sqrt(r^2 - u^2)): flat up to the crossing, then the circle
    crossing = torch.minimum(a, (radius**2 - b.square()).sqrt())
    return x.sign() * y.sign() * (b * crossing + _half_segment(a, radius) - _half_segment(crossing, radius))


def _half_segment(u: Tensor, radius: float) -> Tensor:
    """Integral of ``sqrt(r^2 - v^2)`` over ``v = 0 .. u``."""
    return (u * (radius**2 - u.square()).clamp_min(0).sqrt() + radius**2 * torch.asin(u / radius)) / 2


def kernel_transfer(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function of circular convolution with ``kernel``, centre at ``size // 2``.

    Parameters
    ----------
    kernel : Tensor
        ``(..., h, w)``, at most as large as ``shape``.
    shape : (int, int)
        Image size ``(H, W)``.

    Returns
    -------
    Tensor
        ``(..., H, W)`` complex, unshifted full grid: ``sum_n kernel[n] exp(-2 pi i k.(n - centre) / N)``.
    """
    height, width = kernel.shape[-2:]
    if height > shape[0] or width > shape[1]:
        raise ValueError(f"the kernel, {height}x{width}, is larger than the image, {shape[0]}x{shape[1]}: crop it")
    padded = torch.nn.functional.pad(kernel, (0, shape[1] - width, 0, shape[0] - height))
    return torch.fft.fft2(torch.roll(padded, (-(height // 2), -(width // 2)), dims=(-2, -1)))


def gaussian_transfer(width: float, shape: tuple[int, int]) -> Tensor:
    """Transfer function of a Gaussian blur of ``width`` pixels; real, computed without truncating the kernel."""
    ky = frequencies(shape[0]).double() / shape[0]
    kx = frequencies(shape[1]).double() / shape[1]
    squared = ky[:, None] ** 2 + kx[None, :] ** 2
    return torch.exp(-2 * (math.pi * width) ** 2 * squared)
