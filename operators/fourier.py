"""Operators that are diagonal in Fourier space: identity, k-space mask, low-pass by scale, circular blur."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_tensor, centred_fft2, centred_ifft2
from iasolve.operators.kernels import kernel_transfer
from iasolve.spectrum import fft2, ifft2, radius

__all__ = ["CircularBlur", "Identity", "KSpaceMask", "LowPass"]

Shape = tuple[int, int, int]


def _image_shape(in_shape: tuple[int, ...]) -> Shape:
    shape = tuple(int(n) for n in in_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"in_shape must be (C, H, W) with positive sizes, got {tuple(in_shape)}")
    return shape[0], shape[1], shape[2]


class Identity(LinearOperator):
    """``A x = x``: denoising.

    Parameters
    ----------
    in_shape : (C, H, W)
    dtype : torch.dtype
        Real or complex images.
    """

    def __init__(self, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        shape = _image_shape(in_shape)
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return self.check_in(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``y``."""
        return self.check_out(y)

    def transfer(self) -> Tensor:
        """Ones, ``(1, H, W)``."""
        return torch.ones(1, *self.in_shape[1:])


class KSpaceMask(LinearOperator):
    """Masked, centred, orthonormal Fourier transform: ``A x = mask * fft2c(x)``, complex, unsampled entries 0.

    Parameters
    ----------
    mask : Tensor or array
        Broadcastable to ``(H, W)``, boolean or 0/1, centred as fastmri does (DC in the middle).
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image; real images have the adjoint ``Re(ifft2c(mask * y))``.

    Raises
    ------
    ValueError
        When the mask does not broadcast to ``(H, W)``, holds other values than 0 and 1, or samples nothing.
    """

    def __init__(
        self, mask: Tensor | np.ndarray, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> None:
        shape = _image_shape(in_shape)
        out_dtype = torch.complex128 if dtype in (torch.float64, torch.complex128) else torch.complex64
        super().__init__(shape, shape, in_dtype=dtype, out_dtype=out_dtype, domain="image", codomain="kspace")
        given = as_tensor(mask)
        try:
            values = torch.broadcast_to(given, shape[1:])
        except RuntimeError:
            raise ValueError(
                f"the mask has shape {tuple(given.shape)}, expected one broadcastable to {shape[1:]}"
            ) from None
        if not bool(((values == 0) | (values == 1)).all()):
            raise ValueError(
                "the mask must hold only 0 and 1 (or False and True); use mask != 0 if it marks samples otherwise"
            )
        if not bool(values.any()):
            raise ValueError("the mask samples nothing: at least one entry must be 1")
        self.register_buffer("mask", values.to(torch.float32).contiguous())
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``mask * fft2c(x)``, ``(..., C, H, W)`` complex."""
        return self.mask * centred_fft2(self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``ifft2c(mask * y)``, its real part for real images."""
        x = centred_ifft2(self.mask * self.check_out(y))
        return x if self.is_complex else x.real

    def transfer(self) -> Tensor:
        """The unshifted mask, ``(1, H, W)``."""
        return torch.fft.ifftshift(self.mask)[None]


class CircularBlur(LinearOperator):
    """Circular convolution with a kernel whose centre is at index ``size // 2``.

    ``(A x)[n] = sum_m kernel[m] x[(n - m + size // 2) mod N]``, diagonal with the kernel's Fourier transform.

    Parameters
    ----------
    kernel : Tensor or array
        Real ``(h, w)``, at most as large as the image; not normalised.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.
    """

    def __init__(
        self, kernel: Tensor | np.ndarray, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> None:
        shape = _image_shape(in_shape)
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")
        values = as_tensor(kernel)
        if values.ndim != 2 or values.is_complex() or not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"the kernel must be a real, finite (h, w) array, got shape {tuple(values.shape)}, {values.dtype}"
            )
        if not bool((values != 0).any()):
            raise ValueError("the kernel is zero everywhere: the measurement would hold nothing")
        self.register_buffer("_transfer", kernel_transfer(values.double(), shape[1:])[None])
        self._transfer: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The blurred image."""
        h = fft2(self.check_in(x))
        out = ifft2(self._transfer.to(h.dtype) * h)
        return out if self.is_complex else out.real

    def adjoint(self, y: Tensor) -> Tensor:
        """Circular correlation with the kernel."""
        h = fft2(self.check_out(y))
        out = ifft2(self._transfer.conj().to(h.dtype) * h)
        return out if self.is_complex else out.real

    def transfer(self) -> Tensor:
        """The kernel's Fourier transform, ``(1, H, W)`` complex128."""
        return self._transfer


class LowPass(LinearOperator):
    """Keeps the frequencies up to a scale: bins with ``max(|ky|, |kx|) <= scale / 2``; image in, image out.

    Parameters
    ----------
    scale : int
        Scale of the finest ring kept.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.
    """

    def __init__(self, scale: float, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        shape = _image_shape(in_shape)
        if not scale >= 1:
            raise ValueError(f"the cutoff scale must be at least 1, got {scale}")
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")
        self.scale = scale
        kept = (radius(shape[1], shape[2]) <= scale / 2).float()
        self.register_buffer("kept", kept[None])
        self.kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The low-pass filtered image."""
        out = ifft2(self.kept * fft2(self.check_in(x)))
        return out if self.is_complex else out.real

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: the filter is an orthogonal projection."""
        self.check_out(y)
        out = ifft2(self.kept * fft2(y))
        return out if self.is_complex else out.real

    def transfer(self) -> Tensor:
        """1 for kept frequencies, else 0, ``(1, H, W)``."""
        return self.kept
