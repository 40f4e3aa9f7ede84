"""One noise level for an image or k-space, when the user does not give it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_floating

__all__ = ["estimate_sigma", "sigma_image"]

_SMALLEST = 8


def estimate_sigma(y: Tensor, operator: LinearOperator) -> Tensor:
    """Noise level of images or k-space ``(B, ...)``, in their units: root mean square of a noise value, ``(B,)``.

    K-space: the median magnitude of the outermost twentieth of the *sampled* entries, over ``sqrt(ln 2)`` (the
    median of a complex Gaussian's magnitude). Images: the median absolute deviation of the finest diagonal
    Daubechies-2 wavelet coefficients (Donoho and Johnstone 1994), without places where the image is constant. Where
    the image itself reaches there, both are upper bounds. A blank measurement has level 0.

    Raises
    ------
    ValueError
        When the measurement is smaller than 8 x 8.

    Examples
    --------
    >>> import torch
    >>> from iasolve.operators import Identity
    >>> noise = 5 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    >>> estimate_sigma(noise, Identity((1, 128, 128))).round().tolist()
    [5.0]
    """
    if y.ndim < 3 or min(y.shape[-2:]) < _SMALLEST:
        raise ValueError(
            f"cannot estimate the noise level of a measurement of shape {tuple(y.shape[1:])}, at least 8 x 8 values "
            "are needed: give it (sigma; --sigma S on the command line)"
        )
    y = as_floating(y)
    if operator.codomain == "spectrum":
        y = torch.fft.fftshift(y, dim=(-2, -1))
    if operator.codomain in ("kspace", "spectrum"):
        return torch.stack([_sigma_kspace(item) for item in y])
    if y.is_complex():
        return torch.stack([sigma_image(item.real) * math.sqrt(2) for item in y])
    return torch.stack([sigma_image(item) for item in y])


def _sigma_kspace(y: Tensor) -> Tensor:
    height, width = y.shape[-2:]
    fy = (torch.arange(height, device=y.device) - height // 2) / height
    fx = (torch.arange(width, device=y.device) - width // 2) / width
    r = (fy[:, None].square() + fx[None, :].square()).sqrt().expand(y.shape)
    sampled = y != 0
    if not bool(sampled.any()):
        return y.real.new_zeros(())
    radii = r[sampled]
    # not torch.quantile, which refuses more than 16 million values
    outer = radii >= radii.kthvalue(math.ceil(0.95 * len(radii))).values
    return y[sampled][outer].abs().median() / math.sqrt(math.log(2))


# Daubechies-2 high-pass filter, unit norm
_HIGH = [-0.12940952255126037, -0.2241438680420134, 0.8365163037378079, -0.48296291314453416]


def sigma_image(y: Tensor) -> Tensor:
    """Level of one real image ``(..., H, W)``, at least 4 x 4."""
    filter_ = torch.tensor(_HIGH, dtype=y.dtype, device=y.device)
    kernel = torch.outer(filter_, filter_)[None, None]
    planes = y.reshape(-1, 1, *y.shape[-2:])
    detail = torch.nn.functional.conv2d(planes, kernel, stride=2)
    # places where the image is constant are padding or clipping, not noise; of a constant that is not 0, rounding
    # leaves some detail
    high = torch.nn.functional.max_pool2d(planes, len(_HIGH), stride=2)
    low = -torch.nn.functional.max_pool2d(-planes, len(_HIGH), stride=2)
    size = torch.maximum(high.abs(), low.abs())
    varies = (high - low > 16 * torch.finfo(y.dtype).eps * size) & (detail != 0)
    values = detail[varies].abs()
    return values.median() / 0.6744897501960817 if values.numel() else y.new_zeros(())
