"""Operators that are diagonal in Fourier space: identity, Fourier transform, k-space masks, circular blur, low-pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_declared, image_shape
from iasolve.operators.bases import centred_fft2, centred_ifft2
from iasolve.operators.coils import SensitivityEncoding
from iasolve.operators.kernels import as_kernel, kernel_transfer
from iasolve.operators.masks import as_mask
from iasolve.spectrum import fft2, ifft2, radius

__all__ = ["CircularBlur", "FourierTransform", "Identity", "KSpaceMask", "LowPass", "SampleKSpace"]


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.complex64)


class Identity(LinearOperator):
    """``A x = x``: denoising.

    Parameters
    ----------
    in_shape : (C, H, W)
    dtype : torch.dtype
        Real or complex images.

    Examples
    --------
    >>> Identity((1, 4, 6)).norm()
    1.0
    """

    pointwise = True

    def __init__(self, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        shape = image_shape(in_shape)
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")
        self.register_buffer("_ones", torch.ones(1, *shape[1:]), persistent=False)
        self._ones: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return self.check_in(x)

    def row_gains(self) -> Tensor:
        """1."""
        return self._ones[:, :1, :1]

    def adjoint(self, y: Tensor) -> Tensor:
        """``y``."""
        return self.check_out(y)

    def transfer(self) -> Tensor:
        """Ones, ``(1, H, W)``."""
        return self._ones


class FourierTransform(LinearOperator):
    """Orthonormal Fourier transform of the last two axes, ``A x = fft2c(x)``: ``(C, H, W)`` to ``(C, H, W)`` complex.

    Parameters
    ----------
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image; real images have the adjoint ``Re(ifft2c(y))``.
    centred : bool
        As ``fastmri.fft2c``, DC in the middle (the default), or as ``torch.fft.fft2``, DC at index 0.

    Examples
    --------
    >>> A = FourierTransform((1, 4, 6))
    >>> int(A(torch.ones(1, 4, 6)).abs().argmax())  # row 2, column 3
    15
    >>> int(FourierTransform((1, 4, 6), centred=False)(torch.ones(1, 4, 6)).abs().argmax())
    0
    """

    def __init__(self, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, centred: bool = True) -> None:
        shape = image_shape(in_shape)
        codomain = "kspace" if centred else "spectrum"
        super().__init__(shape, shape, in_dtype=dtype, out_dtype=_complex(dtype), domain="image", codomain=codomain)
        self.centred = centred
        self.register_buffer("_ones", torch.ones(1, *shape[1:]), persistent=False)
        self._ones: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``fft2c(x)``, ``(..., C, H, W)`` complex."""
        return (centred_fft2 if self.centred else fft2)(self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``ifft2c(y)``, its real part for real images."""
        return as_declared((centred_ifft2 if self.centred else ifft2)(self.check_out(y)), self.in_dtype)

    def transfer(self) -> Tensor:
        """Ones, ``(1, H, W)``."""
        return self._ones


class SampleKSpace(LinearOperator):
    """Sampling of k-space that is already there: ``A y = mask * y``, complex k-space in and out.

    An orthogonal projection. For images, put it behind a transform: ``SampleKSpace(mask, shape) @
    FourierTransform(shape) @ blur`` is diagonal; without anything between, :class:`KSpaceMask` is the same in one.

    Parameters
    ----------
    mask : Tensor or array
        Broadcastable to ``(H, W)``, boolean or 0/1, ordered as the k-space is.
    in_shape : (C, H, W)
        Of the k-space.
    dtype : torch.dtype
        Of the k-space, complex.
    centred : bool
        Whether the k-space, and with it the mask, has DC in the middle (the default) or at index 0.

    Raises
    ------
    ValueError
        When the mask does not broadcast to ``(H, W)``, holds other values than 0 and 1, or samples nothing; or for a
        real dtype.

    Examples
    --------
    >>> mask = torch.tensor([0, 1, 1, 0])
    >>> A = SampleKSpace(mask, (1, 2, 4))
    >>> A(torch.ones(1, 2, 4) + 0j).real
    tensor([[[0., 1., 1., 0.],
             [0., 1., 1., 0.]]])
    """

    def __init__(
        self,
        mask: Tensor | np.ndarray,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.complex64,
        *,
        centred: bool = True,
    ) -> None:
        if not dtype.is_complex:
            raise ValueError(f"k-space is complex, got dtype {dtype}: expected torch.complex64 or torch.complex128")
        shape = image_shape(in_shape)
        basis = "kspace" if centred else "spectrum"
        super().__init__(shape, shape, in_dtype=dtype, domain=basis, codomain=basis)
        self.centred = centred
        self.register_buffer("mask", as_mask(mask, shape[1:]))
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``mask * x``."""
        return self.mask * self.check_in(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``mask * y``."""
        return self.mask * self.check_out(y)

    def transfer(self) -> Tensor:
        """The unshifted mask, ``(1, H, W)``."""
        return (torch.fft.ifftshift(self.mask) if self.centred else self.mask)[None]

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        if isinstance(other, SensitivityEncoding) and self.centred and bool((self.mask * other.mask).any()):
            return other.sampled(self.mask)  # which has a quicker gram than a composition
        return super().__matmul__(other)


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

    Examples
    --------
    >>> from iasolve.operators import acceleration, line_mask
    >>> mask = line_mask((32, 64), acceleration=4, centre_fraction=0.1)
    >>> round(acceleration(mask), 2)  # what came out of asking for 4
    3.56
    >>> KSpaceMask(mask, (1, 32, 64))(torch.ones(8, 1, 32, 64)).shape
    torch.Size([8, 1, 32, 64])
    """

    def __init__(
        self, mask: Tensor | np.ndarray, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> None:
        shape = image_shape(in_shape)
        super().__init__(shape, shape, in_dtype=dtype, out_dtype=_complex(dtype), domain="image", codomain="kspace")
        self.register_buffer("mask", as_mask(mask, shape[1:]))
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``mask * fft2c(x)``, ``(..., C, H, W)`` complex."""
        return self.mask * centred_fft2(self.check_in(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``ifft2c(mask * y)``, its real part for real images."""
        return as_declared(centred_ifft2(self.mask * self.check_out(y)), self.in_dtype)

    def transfer(self) -> Tensor:
        """The unshifted mask, ``(1, H, W)``."""
        return torch.fft.ifftshift(self.mask)[None]


class CircularBlur(LinearOperator):
    """Circular convolution with a kernel whose centre is at index ``size // 2``; image in, image out.

    ``(A x)[n] = sum_m kernel[m] x[(n - m + size // 2) mod N]``, diagonal with the kernel's Fourier transform. Other
    boundaries: :class:`iasolve.operators.Convolution`.

    Parameters
    ----------
    kernel : Tensor or array
        Real ``(h, w)``, at most as large as the image; not normalised.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.

    Examples
    --------
    >>> A = CircularBlur(torch.tensor([[1.0, 2.0, 3.0]]), (1, 1, 5))
    >>> A(torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]])).round().abs()
    tensor([[[0., 1., 2., 3., 0.]]])
    """

    def __init__(
        self, kernel: Tensor | np.ndarray, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> None:
        shape = image_shape(in_shape)
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")
        self.register_buffer("_transfer", kernel_transfer(as_kernel(kernel), shape[1:])[None])
        self._transfer: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The blurred image."""
        h = fft2(self.check_in(x))
        return as_declared(ifft2(self._transfer.to(h.dtype) * h), self.in_dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """Circular correlation with the kernel."""
        h = fft2(self.check_out(y))
        return as_declared(ifft2(self._transfer.conj().to(h.dtype) * h), self.in_dtype)

    def transfer(self) -> Tensor:
        """The kernel's Fourier transform, ``(1, H, W)`` complex128."""
        return self._transfer

    def interior_transfer(self, shape: tuple[int, int]) -> Tensor | None:
        """That of the kernel, on the image's own grid."""
        return self._transfer.abs() if shape == tuple(self.in_shape[1:]) else None


class LowPass(LinearOperator):
    """Keeps the frequencies up to a scale: bins with ``max(|ky|, |kx|) <= scale / 2``; image in, image out.

    Parameters
    ----------
    scale : int
        Scale of the finest ring kept.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image.

    Examples
    --------
    >>> int(LowPass(4, (1, 32, 32)).transfer().sum())  # frequencies -2 .. 2 along both axes
    25
    """

    def __init__(self, scale: float, in_shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        shape = image_shape(in_shape)
        if not scale >= 1:
            raise ValueError(f"the cutoff scale must be at least 1 (which keeps the mean alone), got {scale}")
        super().__init__(shape, shape, in_dtype=dtype, domain="image", codomain="image")
        self.scale = scale
        kept = (radius(shape[1], shape[2]) <= scale / 2).float()
        self.register_buffer("kept", kept[None])
        self.kept: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The low-pass filtered image."""
        return as_declared(ifft2(self.kept * fft2(self.check_in(x))), self.in_dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: the filter is an orthogonal projection."""
        return as_declared(ifft2(self.kept * fft2(self.check_out(y))), self.in_dtype)

    def transfer(self) -> Tensor:
        """1 for kept frequencies, else 0, ``(1, H, W)``."""
        return self.kept
