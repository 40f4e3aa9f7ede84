"""Where values on either side of a diagonal operator have their place on the frequency grid, by the name of a basis.

See :mod:`iasolve.operators.base`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.spectrum import fft2, ifft2

__all__ = ["BASES", "centred_fft2", "centred_ifft2", "on_grid"]

BASES = ("image", "kspace", "spectrum")
_AXES = (-2, -1)


def centred_fft2(x: Tensor) -> Tensor:
    """Centred orthonormal Fourier transform of the last two axes: ``fastmri.fft2c`` on complex tensors.

    Examples
    --------
    >>> import torch
    >>> centred_fft2(torch.ones(1, 4, 4))[0, 2].real
    tensor([0., 0., 4., 0.])
    """
    return torch.fft.fftshift(fft2(torch.fft.ifftshift(x, dim=_AXES)), dim=_AXES)


def centred_ifft2(y: Tensor) -> Tensor:
    """Inverse of :func:`centred_fft2`.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(1, 5, 6, dtype=torch.float64)
    >>> bool(torch.allclose(centred_ifft2(centred_fft2(x)).real, x))
    True
    """
    return torch.fft.fftshift(ifft2(torch.fft.ifftshift(y, dim=_AXES)), dim=_AXES)


def on_grid(values: Tensor, basis: str | None) -> Tensor:
    """``W^H values``: values in one of the named bases brought to the unshifted full frequency grid, complex."""
    if basis == "image":
        return fft2(values)
    if basis == "kspace":
        return fft2(centred_ifft2(values))
    if basis == "spectrum":
        return values.to(torch.promote_types(values.dtype, torch.complex32))
    raise ValueError(f"no place on the frequency grid for values in the basis {basis!r}: expected one of {BASES}")
