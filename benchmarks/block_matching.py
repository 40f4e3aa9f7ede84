"""BM3D, the classical peer where the noise is white: grey and colour denoising, and deblurring.

Dabov et al., IEEE TIP 16(8), 2007; for correlated noise, and so for deblurring, Mäkinen et al., IEEE TIP 29, 2020. The
authors' package ``bm3d`` is free for non-commercial use; it comes with ``pip install -e '.[dev]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

__all__ = ["bm3d_deblur", "bm3d_denoise"]


def bm3d_denoise(y: Tensor, sigma: float) -> Tensor:
    """BM3D of each image of ``(B, C, H, W)``: of grey images, or of colour ones (3 channels) in opponent colours."""
    bm3d, profile = _package()
    method = bm3d.bm3d_rgb if y.shape[1] == 3 else bm3d.bm3d
    return _each(y, lambda image, scale: method(image, sigma / scale, profile))


def bm3d_deblur(y: Tensor, sigma: float, kernel: Tensor) -> Tensor:
    """BM3D deblurring of ``(B, C, H, W)``, blurred circularly by ``kernel`` ``(h, w)`` of odd sides."""
    bm3d, profile = _package()
    psf = kernel.double().numpy()
    return _each(y, lambda image, scale: bm3d.bm3d_deblurring(image, sigma / scale, psf, profile))


def _package() -> tuple[Any, Any]:
    try:
        import bm3d
    except ImportError:
        raise SystemExit("BM3D is compared with: pip install bm3d") from None
    # bm4d, which it is built on, knows this function of numpy by the name that it had before version 2
    if not hasattr(np, "trapz"):
        vars(np)["trapz"] = np.trapezoid
    profile = bm3d.BM3DProfile()
    # as many as torch, which the others run on, or seconds could not be compared
    profile.num_threads = torch.get_num_threads()
    return bm3d, profile


def _each(y: Tensor, method: Callable[[np.ndarray, float], np.ndarray]) -> Tensor:
    out = torch.empty_like(y)
    for place, image in zip(out, y, strict=True):
        pixels = np.moveaxis(image.double().numpy(), 0, -1)
        # its thresholds are for images from 0 to 1: the brightest pixel, but for the noise
        scale = float(gaussian_filter(pixels, (1, 1, 0)).max())
        scaled = np.ascontiguousarray(pixels if len(image) > 1 else pixels[..., 0]) / scale
        found = np.asarray(method(scaled, scale)).reshape(pixels.shape)
        place[:] = torch.from_numpy(scale * np.moveaxis(found, -1, 0)).to(place)
    return out
