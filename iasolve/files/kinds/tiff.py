"""TIFF, through tifffile; through Pillow where a compression needs a codec that tifffile lacks."""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Picture, Wanted
from ..errors import UnfitData, UnreadableFile
from ..source import decoding, require_plausible, require_room
from ..stack import Stack, as_array
from .raster import limited_pixels, samples_of
from .tiff_metadata import read_metadata, writing_options

__all__ = ["decode_pages", "decode_tiff", "encode_tiff", "tiff_obstacle"]

Array = NDArray[Any]

# Photometric interpretations and extra samples as TIFF numbers them.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
PREMULTIPLIED = 1
ORIENTATION_TAG = 274
BIGTIFF = 43
ICC_TAG, UNDEFINED_BYTES = 34675, 7

TYPES = (
    *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


def decode_tiff(path: Path, key: str | None = None) -> Picture:
    """Decode a TIFF file of one image or of equal pages.

    Every axis but height, width and colour is a page axis: planes, times and the channels of a microscope
    stack alike. Palettes are looked up (but in ImageJ files, where they are mere display settings), stored
    orientations applied, 1-bit images spread over 0..255, and greys counted from white turned round.

    Returns
    -------
    Picture
        In the file's dtype and native byte order.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt, of another kind, or with a codec not at hand.
    UnfitData
        Images of different sizes in one file, premultiplied opacity, other colour models.
    """
    with decoding(path, "a complete TIFF image"):
        _require_every_page(path)
        with _quiet():
            decoded = _decode(path)
        return decoded or _decode_with_pillow(path)


def decode_pages(path: Path, key: str | None, pages: slice) -> Picture:
    """Some pages; of files whose pages do not lie one after another, by way of all.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`decode_tiff`.
    """
    with decoding(path, "a complete TIFF image"):
        _require_every_page(path)
        with _quiet():
            decoded = _decode(path, pages)
        if decoded is None:
            whole = _decode_with_pillow(path)
            decoded = replace(whole, samples=whole.samples.reshape(-1, *whole.samples.shape[-3:])[pages])
    return decoded


def _require_every_page(path: Path) -> None:
    """Follow the chain of pages to its end: of a truncated stack, tifffile returns what pages are left."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return  # no TIFF at all, which is tifffile's to say
        big = struct.unpack(f"{order}H", head[2:4])[0] == BIGTIFF
        number, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
        start = 8 if big else 4
        (offset,) = struct.unpack_from(order + pointer, head, start)
        seen: set[int] = set()
        try:
            while offset:
                if offset in seen:
                    raise ValueError("the pages go round in a circle")
                seen.add(offset)
                file.seek(offset)
                (entries,) = struct.unpack(order + number, file.read(struct.calcsize(number)))
                file.seek(entries * entry, os.SEEK_CUR)
                (offset,) = struct.unpack(order + pointer, file.read(start))
        except struct.error as error:
            raise UnreadableFile(
                path,
                f"the file breaks off after {len(seen) - 1} pages, and more were meant to follow",
                "a complete TIFF image",
                "Copy or export it again",
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile from logging to the terminal: what matters is raised, here or there."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in ("tifffile", "tifffile.tifffile")]  # by version
    for logger in loggers:
        logger.addFilter(drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(drop)


def _decode(path: Path, pages: slice | None = None) -> Picture | None:
    """Decode with tifffile, or return None where the compression is beyond it; of some pages ``(pages, H, W, S)``."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = [one for one in tif.series if not one.keyframe.is_reduced] or list(tif.series)
        if not series:
            raise UnreadableFile(path, "it holds no image", "a complete TIFF image", "Copy or export it again")
        if len(series) != 1:
            shapes = ", ".join(str(one.shape) for one in series[:8])
            raise UnfitData(
                path,
                f"{len(series)} images of different kinds ({shapes})",
                "one image, or pages of one size and type",
                "Save each as a file of its own",
            )
        page: Any = series[0].keyframe
        require_plausible(series[0].nbytes, path)
        axes = series[0].axes
        lead = _lead(axes, series[0].shape, path)
        apart = pages is not None and _pages_apart(series[0], len(lead))
        try:
            if pages is not None and apart:
                samples = _pages(series[0], lead, pages, path)
            else:
                require_room(series[0].size, path)
                samples = np.asarray(series[0].asarray())
        except ValueError as error:
            if "imagecodecs" in str(error):
                return None
            raise
        photometric, extras = int(page.photometric), [int(extra) for extra in page.extrasamples]
        if samples.dtype == np.bool_ and tif.is_shaped:
            photometric = BLACK_IS_ZERO  # tifffile tags all booleans "white is zero", but means their values
        colormap = None if tif.is_imagej else page.colormap
        tag = page.tags.get(ORIENTATION_TAG)
        profile = page.tags.get(ICC_TAG)
        header = read_metadata(tif, axes)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    samples = _arrange(samples, "Q" + axes[len(lead) :] if apart else axes)
    if pages is not None and not apart:
        samples = samples.reshape(-1, *samples.shape[-3:])[pages]
    if photometric == PALETTE and colormap is not None:
        samples = (np.moveaxis(colormap, 0, -1)[samples[..., 0]] >> 8).astype(np.uint8)
    samples = _greys(samples, photometric)
    alpha = _has_alpha(samples.shape[-1], photometric, extras, path)
    samples = _upright(samples, int(tag.value) if tag is not None else 1)
    icc = profile.value if profile is not None and isinstance(profile.value, bytes) else None
    return Picture(samples, lead, alpha, icc, slice_axis="page" if lead else None, header=header)


def _lead(axes: str, shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Lengths of the axes that are not rows, columns and samples."""
    if "Y" not in axes or "X" not in axes or len(axes) != len(shape):
        raise UnfitData(path, f"axes {axes!r}", "an image with height and width", "Save it as a plain image")
    return tuple(length for axis, length in zip(axes, shape, strict=True) if axis not in "YXS")


def _arrange(samples: Array, axes: str) -> Array:
    """Rows, columns and samples last."""
    if "S" not in axes:
        samples, axes = samples[..., np.newaxis], axes + "S"
    return np.moveaxis(samples, [axes.index(name) for name in "YXS"], (-3, -2, -1))


def _pages_apart(series: Any, leading: int) -> bool:
    """Whether each page is stored by itself, or all one after another as they are in memory."""
    if set(series.axes[:leading]) & set("YXS"):
        return False
    return series.dataoffset is not None or len(series.pages) == math.prod(series.shape[:leading])


def _pages(series: Any, lead: tuple[int, ...], pages: slice, path: Path) -> Array:
    """Some pages ``(pages, ...)``, with the axes of a page."""
    count, each = math.prod(lead), series.shape[len(lead) :]
    start, stop, _ = pages.indices(count)
    require_room((stop - start) * math.prod(each), path)
    if series.dataoffset is None:
        return np.stack([series.pages[number].asarray().reshape(each) for number in range(start, stop)])
    dtype = series.dtype.newbyteorder(series.parent.byteorder)
    values = math.prod(each)
    with path.open("rb") as file:
        file.seek(series.dataoffset + start * values * dtype.itemsize)
        found = np.fromfile(file, dtype, (stop - start) * values)
    return found.reshape(stop - start, *each)


def _greys(samples: Array, photometric: int) -> Array:
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * np.uint8(255)
    if photometric == WHITE_IS_ZERO and samples.dtype.kind == "u":
        samples = samples.dtype.type(np.iinfo(samples.dtype).max) - samples
    return samples


def _has_alpha(count: int, photometric: int, extras: list[int], path: Path) -> bool:
    colours = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 3 if count == 3 else 1, YCBCR: 3}
    if photometric not in colours or count - colours[photometric] not in (0, 1):
        raise UnfitData(
            path,
            f"{count} samples a pixel in colour model {photometric}",
            "grey or RGB, with or without opacity",
            "Convert it to RGB, or save each band as a page",
        )
    alpha = count > colours[photometric]
    if alpha and PREMULTIPLIED in extras:
        raise UnfitData(
            path,
            "colours premultiplied with the opacity",
            "colours and opacity kept apart",
            "Flatten the image, or save it with straight (unassociated) alpha",
        )
    return alpha


def _upright(samples: Array, orientation: int) -> Array:
    """Apply the orientation tag: ``>= 5`` swaps rows and columns, then each axis may be reversed."""
    if orientation in (5, 6, 7, 8):
        samples = np.swapaxes(samples, -3, -2)
    if orientation in (3, 4, 7, 8):
        samples = np.flip(samples, -3)
    if orientation in (2, 3, 6, 7):
        samples = np.flip(samples, -2)
    return samples


def _decode_with_pillow(path: Path) -> Picture:
    from PIL import Image, ImageOps, ImageSequence

    with limited_pixels(path), Image.open(path, formats=("TIFF",)) as image:
        frames = [samples_of(ImageOps.exif_transpose(frame), path) for frame in ImageSequence.Iterator(image)]
        icc = image.info.get("icc_profile")
    alpha = frames[0][1]
    if len({(samples.shape, samples.dtype) for samples, _ in frames}) > 1:
        raise UnfitData(path, "pages of different sizes", "pages of one size and type", "Save each as a file")
    samples = np.stack([samples for samples, _ in frames]) if len(frames) > 1 else frames[0][0]
    lead = samples.shape[:-3]
    profile = icc if isinstance(icc, bytes) else None
    return Picture(samples, lead, alpha, profile, slice_axis="page" if lead else None)


def tiff_obstacle(wanted: Wanted) -> str | None:
    """Why a TIFF cannot hold what is wanted (booleans), or None if it can."""
    return wanted.lacking(*TYPES)


def encode_tiff(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write images as the pages of an uncompressed TIFF, with the axes and pixel sizes of the one they come from.

    ``picture``: grey or RGB, with or without (straight) opacity.
    """
    import tifffile

    samples, icc = picture.samples, picture.icc
    count = samples.shape[-1]
    layout: dict[str, Any] = {"planarconfig": "contig"} if count > 1 else {}
    if picture.alpha:
        layout["extrasamples"] = ["unassalpha"]
    if isinstance(samples, Stack):
        shape = picture.lead + (samples.shape[1:] if count > 1 else samples.shape[1:-1])
        pages = (np.ascontiguousarray(page if count > 1 else page[..., 0]) for page in as_array(samples))
        content: dict[str, Any] = {"data": pages, "shape": shape, "dtype": samples.dtype}
    else:
        content = {"data": np.ascontiguousarray(samples if count > 1 else samples[..., 0])}
    tifffile.imwrite(
        handle,  # type: ignore[arg-type]
        **content,
        photometric="rgb" if count >= 3 else "minisblack",
        extratags=[(ICC_TAG, UNDEFINED_BYTES, len(icc), icc, True)] if icc else [],
        **writing_options(picture.header, picture.lead, count > 1, samples.dtype),
        **layout,
    )
