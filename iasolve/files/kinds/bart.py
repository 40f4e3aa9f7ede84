"""BART's ``.cfl``: complex64 numbers, first index fastest, with up to 16 sizes in a ``.hdr`` beside it.

BART's axes are (x, y, z, coils, maps, echoes, ..), x being the readout. An image is an (x, y) plane, so that ``H`` is
x and ``W`` is y, as fastMRI has readout and phase encoding; nothing is transposed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Measured, Picture, Wanted
from ..errors import UnfitData, UnreadableFile
from ..source import decoding

__all__ = ["bart_obstacle", "decode_bart", "decode_kspace", "encode_bart", "header_bytes"]

Array = NDArray[Any]

AXES = (
    *("x", "y", "z", "coil", "map", "echo", "coefficient", "coefficient 2", "iteration", "cycle shift"),
    *("time", "time 2", "level", "slice", "average", "batch"),
)
Z, COIL, SLICE = AXES.index("z"), AXES.index("coil"), AXES.index("slice")
# Along these, k-space is a series of measurements, each of an image of its own.
SERIES = ("echo", "time", "time 2", "slice", "batch")


def decode_bart(path: Path, key: str | None = None) -> Picture:
    """Read images.

    Returns
    -------
    Picture
        Every axis from z on with more than one entry is a page axis. float32 where all imaginary parts are zero,
        since the format has no real type; complex64 otherwise.

    Raises
    ------
    UnreadableFile
        Truncated, or without a header that fits.
    """
    array = _load(path)
    pages = [axis for axis in range(Z, len(AXES)) if array.shape[axis] > 1]
    lead = tuple(array.shape[axis] for axis in pages)
    samples = _planes(array, pages).reshape(*lead, *array.shape[:2], 1)
    if not samples.imag.any():
        samples = samples.real
    names = " x ".join(AXES[axis] for axis in pages)
    return Picture(samples, lead, slice_axis=names or None, header=array.shape)


def decode_kspace(path: Path, key: str | None, slices: slice | None) -> Measured:
    """Read k-space.

    Returns
    -------
    Measured
        Echoes, times and slices are all slices, one after another.

    Raises
    ------
    UnreadableFile
        Truncated, or without a header that fits.
    UnfitData
        K-space in three dimensions, or with an axis that is no series of images.
    """
    array = _load(path)
    for axis in range(Z, len(AXES)):
        name, count = AXES[axis], array.shape[axis]
        if count > 1 and name not in (*SERIES, "coil"):
            transform = "transform along z (bart fft -i -u 4) and move it to the slices (bart transpose 2 13), or "
            raise UnfitData(
                path,
                f"k-space with {count} entries along BART's axis {axis} ({name})",
                f"one; more only along coil, {', '.join(SERIES)}",
                f"First {transform if axis == Z else ''}take one of them (bart slice {axis} 0 in out)",
            )
    pages = [axis for axis in range(Z, len(AXES)) if array.shape[axis] > 1 and axis != COIL]
    kspace = _planes(array, [*pages, COIL]).reshape(-1, array.shape[COIL], *array.shape[:2])
    names = " x ".join(AXES[axis] for axis in pages)
    return Measured(
        kspace[slices or slice(None)], sliced=bool(pages), coiled=array.shape[COIL] > 1, slice_axis=names or None
    )


def bart_obstacle(wanted: Wanted) -> str | None:
    """Why a ``.cfl`` cannot hold what is wanted, or None if it can: grey values in single precision.

    Double precision is rounded to it, as it is all that the solver works in.
    """
    return wanted.coloured or wanted.lacking("float32", "float64", "complex64", "complex128")


def encode_bart(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write images, along the axes they were read from, or else along BART's slices.

    ``handle``: open for binary writing; the header is :func:`header_bytes`.
    ``picture``: grey.
    """
    pages = picture.samples[..., 0].reshape(-1, *picture.samples.shape[-3:-1])
    # (W, H) in C order is (x, y) with x fastest, and pages in C order are what header_bytes undoes
    shape = _shape(picture)
    order = [axis for axis in range(Z, len(AXES)) if shape[axis] > 1]
    array = pages.reshape(*(shape[axis] for axis in order), *shape[:2])
    array = array.transpose(*reversed(range(len(order))), -1, -2)
    handle.write(np.ascontiguousarray(array, dtype="<c8").tobytes())


def header_bytes(picture: Picture) -> bytes:
    """The ``.hdr`` that belongs to a picture."""
    return ("# Dimensions\n" + " ".join(map(str, _shape(picture))) + "\n").encode("ascii")


def _shape(picture: Picture) -> tuple[int, ...]:
    height, width = picture.samples.shape[-3:-1]
    pages = math.prod(picture.lead)
    if picture.header is not None and math.prod(picture.header[Z:]) == pages:
        return (height, width, *picture.header[Z:])
    return (height, width, *(pages if axis == SLICE else 1 for axis in range(Z, len(AXES))))


def _planes(array: Array, leading: list[int]) -> Array:
    """Bring some axes to the front, then x and y; the others have one entry."""
    rest = [axis for axis in range(Z, len(AXES)) if axis not in leading]
    return array.transpose(*leading, *rest, 0, 1)


def _load(path: Path) -> Array:
    header = path.with_suffix(".hdr")
    expected = "the .cfl and .hdr that BART writes as a pair"
    if not header.is_file():
        raise UnreadableFile(path, f"there is no {header.name} beside it", expected, "Copy both files")
    with decoding(header, "a BART header: a comment line, then up to 16 sizes"):
        lines = header.read_text("ascii").splitlines()
        sizes = [int(word) for word in next(line for line in lines if line and line[0] != "#").split()]
        if not 1 <= len(sizes) <= len(AXES) or min(sizes) < 1:
            raise ValueError(f"sizes {sizes}")
    shape = (*sizes, *(1,) * (len(AXES) - len(sizes)))
    with decoding(path, expected):
        size = path.stat().st_size
        if size != 8 * math.prod(shape):
            sizes_text = " x ".join(map(str, sizes))
            raise UnreadableFile(
                path,
                f"{size} bytes, where {header.name} tells of {sizes_text} complex values, {8 * math.prod(shape)} bytes",
                expected,
                "It is truncated, or the two do not belong together; copy both again",
            )
        return np.fromfile(path, "<c8").reshape(shape, order="F")
