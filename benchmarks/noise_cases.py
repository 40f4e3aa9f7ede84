"""Images whose noise went through something: blur, interpolation, demosaicing, JPEG; with the noise that came out.

The noise of a case is what it makes of the noisy image less what it makes of the clean one, so that the true level of
every ring is known, also behind steps that are not linear.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from common import ODD

__all__ = ["CASES", "Scene", "malvar", "validation_images"]

Array = NDArray[np.float64]

# Malvar, He and Cutler (ICASSP 2004), figure 2, times 8: green at red and blue; red at green in red rows, blue columns;
# red at green in blue rows, red columns; red at blue and blue at red
_GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
_ALONG = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]) / 8
_CROSS = np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]) / 8


class Scene(NamedTuple):
    """A clean image ``(H, W)`` or ``(H, W, 3)``, in [0, 1]."""

    name: str
    image: Array


def malvar(mosaic: Array) -> Array:
    """Colours ``(H, W, 3)`` of a mosaic ``(H, W)`` with red at even rows and columns, blue at odd ones."""
    rows, columns = np.indices(mosaic.shape) % 2
    red, blue = (rows == 0) & (columns == 0), (rows == 1) & (columns == 1)

    def filtered(kernel: Array) -> Array:
        return np.asarray(ndimage.convolve(mosaic, kernel, mode="mirror"))

    along, across, cross = filtered(_ALONG), filtered(_ALONG.T), filtered(_CROSS)
    out = np.empty((*mosaic.shape, 3))
    out[..., 0] = np.select([red, blue, rows == 0], [mosaic, cross, along], across)
    out[..., 1] = np.where(red | blue, filtered(_GREEN), mosaic)
    out[..., 2] = np.select([blue, red, rows == 1], [mosaic, cross, along], across)
    return out


def _plain(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    return image + sigma * rng.standard_normal(image.shape)


def _blurred(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    return np.asarray(ndimage.gaussian_filter(_plain(image, sigma, rng), (0.7, 0.7, 0)[: image.ndim], mode="wrap"))


def _interpolated(image: Array, sigma: float, rng: np.random.Generator, order: int = 3) -> Array:
    return np.asarray(ndimage.zoom(_plain(image, sigma, rng), (2, 2, 1)[: image.ndim], order=order, mode="mirror"))


def _bilinear(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    return _interpolated(image, sigma, rng, order=1)


def _zero_filled(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    height, width = image.shape[:2]
    spectrum = np.fft.fftshift(np.fft.fft2(_plain(image, sigma, rng), axes=(0, 1)), axes=(0, 1))
    # DC moves from n // 2 to n
    wide = ((height - height // 2, height // 2), (width - width // 2, width // 2), (0, 0))[: image.ndim]
    padded = np.fft.ifftshift(np.pad(spectrum, wide), axes=(0, 1))
    return np.asarray(4 * np.fft.ifft2(padded, axes=(0, 1)).real)


def _demosaiced(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    rows, columns = np.indices(image.shape[:2]) % 2
    mosaic = np.take_along_axis(colours, (rows + columns)[..., None], axis=2)[..., 0]
    return malvar(_plain(mosaic, sigma, rng))


def _jpeg(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    # 0.15 to 0.85, so that next to nothing is clipped: clipped noise has no level of its own
    levels = np.clip(255 * _plain(0.15 + 0.7 * image, sigma, rng), 0, 255).round().astype(np.uint8)
    memory = io.BytesIO()
    Image.fromarray(levels).save(memory, "JPEG", quality=90)
    return np.asarray(Image.open(memory)).astype(np.float64) / 255


Case = Callable[[Array, float, np.random.Generator], Array]
CASES: dict[str, Case] = {
    "white": _plain,
    "blurred, 0.7 px": _blurred,
    "interpolated x2, cubic": _interpolated,
    "interpolated x2, linear": _bilinear,
    "zero-filled x2": _zero_filled,
    "demosaiced": _demosaiced,
    "JPEG 90": _jpeg,
}


def validation_images(folder: Path, count: int) -> Iterator[Scene]:
    """``count`` clean images of each set, spread evenly over its validation part."""
    with np.load(folder / "mri-t1ce-128.npz") as data:
        label, index = data["label"], data["index"]
        chosen = np.concatenate([np.flatnonzero((label == kind) & ~np.isin(index, ODD))[::20] for kind in (0, 2)])
        for i in _spread(chosen, count):
            yield Scene("T1, 128", data["images"][i] / 255.0)
    with np.load(folder / "mri-any-256.npz") as data:
        chosen = np.flatnonzero(data["split"] == "validation")
        images, native = data["images"], data["native"]
        for i in _spread(chosen, count):
            yield Scene("any MRI, 256", _cropped(images[i] / 255.0, np.atleast_1d(native[i])))
    with zipfile.ZipFile(folder / "bsds500-train-test.zip") as files:
        names = sorted(n for n in files.namelist() if n.startswith("train/") and n.endswith(".jpg"))
        for name in _spread(np.array(names), count):
            with Image.open(io.BytesIO(files.read(str(name)))) as photo:
                # averaged by two, which takes the JPEG blocks' own noise along
                yield Scene("photographs", np.asarray(photo.reduce(2).convert("RGB")) / 255.0)


def _spread(values: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    return values[np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)]


def _cropped(image: Array, native: NDArray[np.generic]) -> Array:
    """The part that is not padding: images smaller than the frame stand in its middle."""
    sizes = [min(int(n), full) for n, full in zip(np.resize(native, 2), image.shape, strict=True)]
    corners = [(full - n) // 2 for n, full in zip(sizes, image.shape, strict=True)]
    return image[corners[0] : corners[0] + sizes[0], corners[1] : corners[1] + sizes[1]]
