"""Blur kernels and their transfer functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iasolve.spectrum import frequencies

__all__ = ["gaussian_kernel", "gaussian_transfer", "kernel_transfer", "motion_kernel"]


def gaussian_kernel(width: float, size: int | None = None) -> Tensor:
    """Sampled Gaussian of standard deviation ``width`` pixels, sum 1, float64, centre at ``size // 2``.

    ``size`` defaults to the odd number of pixels that holds four standard deviations to either side.
    """
    if not width > 0:
        raise ValueError(f"a Gaussian blur's width must be positive, got {width} pixels")
    if size is None:
        size = 2 * math.ceil(4 * width) + 1
    t = torch.arange(size, dtype=torch.float64) - size // 2
    line = torch.exp(-0.5 * (t / width) ** 2)
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> Tensor:
    """Straight motion over ``length`` pixels at ``angle`` radians from the horizontal, sum 1, float64.

    The line is sampled densely and shared bilinearly among pixels; the kernel is square with an odd size.
    """
    if not length > 0:
        raise ValueError(f"a motion blur's length must be positive, got {length} pixels")
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
        raise ValueError(f"the kernel, {height}x{width}, is larger than the image, {shape[0]}x{shape[1]}")
    padded = torch.nn.functional.pad(kernel, (0, shape[1] - width, 0, shape[0] - height))
    return torch.fft.fft2(torch.roll(padded, (-(height // 2), -(width // 2)), dims=(-2, -1)))


def gaussian_transfer(width: float, shape: tuple[int, int]) -> Tensor:
    """Transfer function of a Gaussian blur of ``width`` pixels; real, computed without truncating the kernel."""
    ky = frequencies(shape[0]).double() / shape[0]
    kx = frequencies(shape[1]).double() / shape[1]
    squared = ky[:, None] ** 2 + kx[None, :] ** 2
    return torch.exp(-2 * (math.pi * width) ** 2 * squared)
