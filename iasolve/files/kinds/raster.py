"""PNG, JPEG, BMP and WebP, through Pillow."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Picture, Wanted
from ..errors import UnfitData
from ..source import decoding

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["decode_raster", "encode_raster", "limited_pixels", "raster_obstacle", "samples_of"]

Array = NDArray[Any]

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}


def decode_raster(path: Path, key: str | None = None) -> Picture:
    """Decode a PNG, JPEG, BMP or WebP file.

    Palettes are looked up, 1-, 2- and 4-bit greys are spread over 0..255 as every viewer does, and the
    orientation that a camera noted is applied.

    ``path``: an existing file; its content, not its suffix, decides which of them it is.

    Returns
    -------
    Picture
        uint8, or uint16 for a 16-bit grey PNG; no page axes. A WebP, which has no greys, is grey where its colours are.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt, of another kind, or above Pillow's limit on pixels.
    UnfitData
        Animated pictures, 16-bit PNG with colour or transparency, CMYK JPEG.
    """
    from PIL import Image

    with decoding(path, "a complete PNG, JPEG, BMP or WebP image"), limited_pixels(path):
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = image.format
            frames = getattr(image, "n_frames", 1)
            # Pillow skips the checksums of the pixel data unless asked, and then cannot decode any more.
            image.verify()
        _require_still(path, frames)
        if kind == "PNG":
            _require_depth(path, data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            icc = image.info.get("icc_profile")
            _set_upright(image)
            samples, alpha = samples_of(image, path)
        if kind == "WEBP" and bool((samples[..., :1] == samples[..., 1:3]).all()):
            samples = samples[..., 2:]
        return Picture(samples, (), alpha, icc if isinstance(icc, bytes) else None)


@contextmanager
def limited_pixels(path: Path) -> Iterator[None]:
    """Refuse images above Pillow's limit, 89 million pixels: it warns only, and reads up to twice as many."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnfitData(
            path,
            f"too many pixels ({str(error).partition(',')[0]})",
            f"at most {(Image.MAX_IMAGE_PIXELS or 0) // 10**6} million",
            "Cut it into parts, or save it as .tif or .npy",
        ) from error


def _require_still(path: Path, frames: int) -> None:
    if frames > 1:
        raise UnfitData(
            path,
            f"an animated picture of {frames} frames",
            "one image",
            "Save the frames as the pages of a .tif file",
        )


def _require_depth(path: Path, data: bytes) -> None:
    """Refuse what Pillow would silently cut to 8 bits. Header: depth is byte 24, colour type byte 25."""
    depth, colour = data[24], data[25]
    if depth == 16 and (colour != 0 or b"tRNS" in data[: data.find(b"IDAT")]):
        raise UnfitData(
            path,
            "a 16-bit PNG with colour or transparency, of which only the upper 8 bits could be read",
            "an 8-bit PNG or a 16-bit grey one without transparency",
            "Save it as a 16-bit .tif, which is read in full",
        )


def _set_upright(image: Image.Image) -> None:
    from PIL import ImageOps

    # Damaged camera notes are no reason to refuse the picture; viewers then show it as stored.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def samples_of(image: Image.Image, path: Path) -> tuple[Array, bool]:
    """Bring one decoded Pillow image to samples.

    Parameters
    ----------
    image : PIL.Image.Image
        One frame.
    path : Path
        Its file, for the message.

    Returns
    -------
    tuple of (ndarray, bool)
        Shape ``(H, W, S)`` in the image's dtype, and whether the last sample is opacity.

    Raises
    ------
    UnfitData
        For a colour model other than grey, RGB or a palette.
    """
    from_palette = image.mode in ("P", "PA")
    transparent = "transparency" in image.info or image.mode == "PA"
    if from_palette:
        image = image.convert("RGBA" if transparent else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif transparent and image.mode in ("L", "RGB"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode not in ("L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        raise UnfitData(
            path,
            f"the colour model {image.mode}",
            "grey, RGB or RGBA",
            "Convert the image to RGB and save it again",
        )
    samples = np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        samples = samples.astype(np.uint16)  # older Pillows open 16-bit grey PNGs as 32-bit
    if samples.ndim == 2:
        samples = samples[..., np.newaxis]
    alpha = samples.shape[-1] in (2, 4)
    if from_palette and bool((samples[..., :1] == samples[..., 1:3]).all()):
        samples = samples[..., 2:]  # a palette of greys
    return samples, alpha


def raster_obstacle(wanted: Wanted) -> str | None:
    """Why a picture file cannot hold what is wanted, or None if it can.

    Parameters
    ----------
    wanted : Wanted
        8 bits, or 16 as a grey PNG; one page; opacity in PNG and WebP only.

    Returns
    -------
    str or None
        A clause for a message.
    """
    suffix, name = wanted.suffix, wanted.dtype.name
    if name != "uint8" and (suffix != ".png" or name != "uint16"):
        return f"a {suffix} file cannot hold {name} values"
    if wanted.pages > 1:
        return f"a {suffix} file cannot hold {wanted.pages} pages"
    if wanted.alpha and suffix not in (".png", ".webp"):
        return f"a {suffix} file cannot hold the transparency of the input"
    if name == "uint16" and (wanted.channels > 1 or wanted.alpha):
        return f"a {suffix} file with colour or transparency cannot be written in 16 bits"
    return None


def encode_raster(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write one image; as JPEG at quality 95 without chroma subsampling, the others without loss.

    ``picture``: one page; uint8 with ``S`` in 1..4, or uint16 with ``S = 1`` (PNG); JPEG and BMP take ``S`` 1 or 3.
    """
    from PIL import Image

    samples: Array = picture.samples.reshape(picture.samples.shape[-3:])
    if samples.shape[-1] == 1:
        samples = samples[..., 0]
    image = Image.fromarray(np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder("=")))
    kind = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:].upper())
    options: dict[str, Any] = dict(OPTIONS.get(kind, {}))
    if picture.icc and kind != "BMP":
        options["icc_profile"] = picture.icc
    image.save(handle, kind, **options)
