"""``A^H A`` of a non-uniform Fourier transform, which iterative solvers apply hundreds of times.

It depends on differences of pixel positions alone::

    (A^H A x)[i] = sum_j t[i - j] x[j],    t[d] = 1 / (H W) sum_m exp(2 pi i (ky[m] dy / H + kx[m] dx / W))

So it is a convolution, and two Fourier transforms of twice the size apply it exactly, whatever the number of samples
(Fessler, Lee, Olafsson, Shi and Noll, IEEE Trans. Signal Process. 53, 3393, 2005). No sample is visited again, and it
runs on whatever device the image is on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from iasolve.operators.base import LinearOperator
from iasolve.spectrum import half, reflect

if TYPE_CHECKING:
    from iasolve.operators.nonuniform import NonUniformFourier

__all__ = ["NonUniformGram", "convolution_spectrum"]


def convolution_spectrum(operator: NonUniformFourier) -> Tensor:
    """The transform of ``t`` on a grid that no difference leaves, real, double, ``(n, m)``."""
    height, width = operator.in_shape[1:]
    size = next_fast_len(2 * height - 1, real=True), next_fast_len(2 * width - 1, real=True)
    kernel = operator.sum_of_waves(size) / (height * width)
    # the kernel of -d is conjugate to that of d; a difference of half an even grid stands for both, and for no pixels
    for axis, (n, length) in enumerate(zip(size, (height, width), strict=True)):
        far = (torch.arange(n) - n // 2).abs() >= length
        kernel[(slice(None),) * axis + (far,)] = 0
    return torch.fft.fft2(torch.fft.ifftshift(kernel)).real


class NonUniformGram(LinearOperator):
    """The convolution with ``t``, its real part for real images.

    Parameters
    ----------
    operator : NonUniformFourier
    """

    def __init__(self, operator: NonUniformFourier) -> None:
        super().__init__(operator.in_shape, operator.in_shape, in_dtype=operator.in_dtype)
        spectrum = operator.convolution
        self.grid = tuple(spectrum.shape)
        if not self.is_complex:
            # the part of t that is real is even, and so is its spectrum's
            spectrum = half((spectrum + reflect(spectrum)) / 2)
        self.register_buffer("spectrum", spectrum.to(operator.device))
        self.spectrum: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``A^H A x``."""
        x = self.check_in(x)
        height, width = self.in_shape[1:]
        if self.is_complex:
            x = x.to(torch.promote_types(x.dtype, torch.complex64))
            spectrum = self.spectrum.to(x.real.dtype)
            return torch.fft.ifft2(spectrum * torch.fft.fft2(x, self.grid))[..., :height, :width].contiguous()
        spectrum = self.spectrum.to(x.dtype)
        moved = torch.fft.irfft2(spectrum * torch.fft.rfft2(x, self.grid), self.grid)
        return moved[..., :height, :width].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: ``A^H A`` is its own adjoint."""
        return self.forward(y)
