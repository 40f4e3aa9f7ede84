"""Two classical denoisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

__all__ = ["nonlocal_means", "wavelet_denoise"]


def wavelet_denoise(noisy: Tensor, sigma: float, shifts: int = 1) -> Tensor:
    """BayesShrink wavelet denoising of real images with white noise (scikit-image's ``denoise_wavelet``).

    Parameters
    ----------
    noisy : Tensor
        ``(..., H, W)``, real.
    sigma : float
        The noise's standard deviation.
    shifts : int
        Average over ``shifts`` x ``shifts`` cyclic shifts of the image (cycle spinning); 1 is off.

    Returns
    -------
    Tensor
        Like ``noisy``.

    Raises
    ------
    ImportError
        If PyWavelets, which scikit-image needs for this and does not install, is missing.
    ValueError
        If ``noisy`` is no real image or a number is out of range.

    References
    ----------
    Chang, Yu, Vetterli, IEEE Trans. Image Process. 9(9), 2000. Coifman and Donoho, 1995 (cycle spinning).

    Examples
    --------
    >>> import torch
    >>> noisy = 1 + 0.1 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> bool(wavelet_denoise(noisy, 0.1).std() < noisy.std())
    True
    """
    try:
        import_module("pywt")
    except ImportError as error:
        raise ImportError("wavelet_denoise needs PyWavelets: pip install PyWavelets") from error
    from skimage.restoration import denoise_wavelet

    images = _check_noisy(noisy, sigma)
    if shifts < 1:
        raise ValueError(f"shifts must be at least 1, got {shifts}")

    def clean(image: Tensor) -> Tensor:
        total = torch.zeros_like(image)
        for shift in ((a, b) for a in range(shifts) for b in range(shifts)):
            moved = torch.roll(image, shift, (0, 1)).numpy()
            found = denoise_wavelet(moved, sigma=sigma, method="BayesShrink", rescale_sigma=False)
            total += torch.roll(torch.from_numpy(found), (-shift[0], -shift[1]), (0, 1))
        return total / shifts**2

    return _each(images, clean, noisy)


def nonlocal_means(noisy: Tensor, sigma: float, h: float | None = None) -> Tensor:
    """Non-local means of real images with white noise (scikit-image's ``denoise_nl_means``, fast mode).

    Patches of 5 x 5 pixels, searched up to a distance of 6.

    Parameters
    ----------
    noisy : Tensor
        ``(..., H, W)``, real.
    sigma : float
        The noise's standard deviation.
    h : float, optional
        Cut-off in grey levels, ``0.8 * sigma`` by default. Higher is smoother.

    Returns
    -------
    Tensor
        Like ``noisy``.

    Raises
    ------
    ValueError
        If ``noisy`` is no real image or a number is out of range.

    References
    ----------
    Buades, Coll, Morel, CVPR 2005. Darbon et al., ISBI 2008 (the fast mode).

    Examples
    --------
    >>> import torch
    >>> noisy = 1 + 0.1 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> bool(nonlocal_means(noisy, 0.1).std() < noisy.std())
    True
    """
    from skimage.restoration import denoise_nl_means

    images = _check_noisy(noisy, sigma)
    strength = 0.8 * sigma if h is None else h
    if not (math.isfinite(strength) and strength > 0):
        raise ValueError(f"h must be finite and positive, got {strength}")

    def clean(image: Tensor) -> Tensor:
        found = denoise_nl_means(image.numpy(), patch_size=5, patch_distance=6, h=strength, sigma=sigma, fast_mode=True)
        return torch.from_numpy(found)

    return _each(images, clean, noisy)


def _each(images: Tensor, clean: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Every image of ``(B, H, W)`` cleaned, in the shape and type of ``like``."""
    return torch.stack([clean(image) for image in images]).reshape(like.shape).to(like)


def _check_noisy(noisy: Tensor, sigma: float) -> Tensor:
    """Flatten to ``(B, H, W)`` float64 on the CPU (in float32 the fast non-local means loses digits)."""
    if noisy.ndim < 2 or 0 in noisy.shape or noisy.is_complex() or not bool(torch.isfinite(noisy).all()):
        raise ValueError(f"need real finite images (..., H, W), got {tuple(noisy.shape)} {noisy.dtype}")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be finite and positive, got {sigma}")
    return noisy.detach().to("cpu", torch.float64).reshape(-1, *noisy.shape[-2:])
