"""What the pages show: images as PNG, the residual's spectrum, and how much each scale holds."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Curve",
    "encoded",
    "grey_levels",
    "png",
    "reduced",
    "residual_level",
    "residual_spectrum",
    "shares",
    "span",
    "tint",
    "uri",
]

Array = NDArray[Any]


def span(image: Array) -> tuple[float, float]:
    """Values of black and white: the 0.1 and 99.9 % quantiles of an image, apart even where it is constant."""
    low, high = (float(v) for v in np.percentile(_real(image), (0.1, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)


def grey_levels(image: Array, low: float, high: float, side: int) -> Array:
    """An image ``(H, W)`` or ``(H, W, 3)`` as uint8, its longer side reduced to ``side`` pixels at most."""
    scaled = np.clip((_real(image) - low) / (high - low), 0, 1)
    return reduced(np.round(255 * scaled).astype(np.uint8), side)


def png(image: Array, low: float, high: float, side: int) -> bytes:
    """The same as a PNG."""
    return encoded(grey_levels(image, low, high, side))


def tint(levels: Array) -> Array:
    """An error bar's levels ``(H, W)`` uint8 in colour and opacity: the larger, the brighter and the more opaque."""
    from matplotlib import colormaps

    level = levels / 255
    coloured = colormaps["inferno"](0.25 + 0.75 * level)
    coloured[..., 3] = level
    return np.round(255 * coloured).astype(np.uint8)


def uri(picture: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def residual_level(residual: Array, domain: str) -> float:
    """Root mean square of a residual, in k-space of its sampled entries."""
    power = np.abs(np.asarray(residual, np.complex128)) ** 2
    sampled = power[power > 0] if domain == "kspace" else power
    return float(np.sqrt(sampled.mean())) if sampled.size else 0.0


class Curve(NamedTuple):
    """Residual against frequency.

    Attributes
    ----------
    cycles : ndarray
        Frequencies, cycles per image; ring ``r`` holds those with ``r - 1/2 <= max(|ky|, |kx|) < r + 1/2``.
    level : ndarray
        Root mean square of the residual's values there; white noise of level sigma makes sigma everywhere.
    """

    cycles: Array
    level: Array


def residual_spectrum(residual: Array, domain: str) -> Curve:
    """Level of a residual at each frequency, averaged over leading axes.

    Parameters
    ----------
    residual : ndarray
        ``(..., H, W)``.
    domain : {"image", "kspace"}
        Pixels are transformed (orthonormally, so that white noise keeps its level); centred k-space is taken as it is,
        without entries that are exactly 0.

    Returns
    -------
    Curve
        Of the frequencies that hold any value.
    """
    values = np.asarray(residual)
    spectrum = values if domain == "kspace" else np.fft.fftshift(np.fft.fft2(values, norm="ortho"), axes=(-2, -1))
    power = np.abs(spectrum) ** 2
    counted = (power > 0) if domain == "kspace" else np.ones(power.shape, bool)
    ring = np.broadcast_to(_radius(*power.shape[-2:]), power.shape)
    total = np.bincount(ring.ravel(), (power * counted).ravel())
    count = np.bincount(ring.ravel(), counted.ravel().astype(float))
    held = np.flatnonzero(count)
    return Curve(held, np.sqrt(total[held] / count[held]))


def shares(image: Array) -> dict[int, float]:
    """Share of an image's contrast that each scale holds.

    Scale ``s = 2, 4, 8, ..`` owns the frequencies with ``s / 4 < max(|ky|, |kx|) <= s / 2`` cycles per image, as in
    :mod:`iasolve.spectrum`; the mean (scale 1) is no contrast.

    Returns
    -------
    dict of int to float
        They sum to 1, or are all 0 for a constant image.
    """
    grey = _real(image)
    grey = grey.mean(-1) if grey.ndim == 3 else grey
    power = np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2
    ring = _radius(*power.shape)
    total = float(power.sum())
    held: dict[int, float] = {}
    scale = 2
    while scale // 4 < ring.max():
        mine = (ring > scale / 4) & (ring <= scale / 2)
        held[scale] = float(power[mine].sum()) / total if total > 0 else 0.0
        scale *= 2
    return held


def _radius(height: int, width: int) -> Array:
    """``max(|ky|, |kx|)`` on the centred grid, ``(height, width)`` int64."""
    y, x = (np.abs(np.arange(n) - n // 2) for n in (height, width))
    return np.maximum(y[:, None], x[None, :])


def _real(image: Array) -> Array:
    return np.abs(image) if np.iscomplexobj(image) else np.asarray(image, np.float64)


def reduced(pixels: NDArray[np.uint8], side: int) -> Array:
    """Pixels whose longer side has ``side`` at most: means of blocks."""
    from PIL import Image

    longest = max(pixels.shape[:2])
    if longest <= side:
        return pixels
    height, width = (max(1, round(n * side / longest)) for n in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` as a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
