"""NIfTI: ``.nii`` and ``.nii.gz``, through nibabel. Slices are turned as a radiologist sees them, and back.

The header says how the voxel axes lie in the body. A slice is shown with anterior (or superior) at the top and the
patient's right (or anterior) on the left, since that is how images of training sets stand; what is written stands as
it was read, with its affine.
"""

from __future__ import annotations

import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Picture, Scaling, Wanted
from ..errors import UnfitData, UnreadableFile, WriteError
from ..optional import NIFTI
from ..source import decoding, require_plausible, require_room

__all__ = ["decode_nifti", "encode_nifti", "nifti_obstacle"]

Array = NDArray[Any]

VOXEL_AXES = "xyz"
BODY_AXES = ("right to left", "anterior to posterior", "superior to inferior")
CIFTI = range(3000, 3100)  # intent codes of surfaces stored as NIfTI

LONGEST_HEADER = 544  # of NIfTI-2, with the flag for extensions
LARGEST_REST = 2**24  # what may follow the values, bytes: padding

TYPES = (
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float32", "float64", "complex64", "complex128"),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """What a picture keeps of the file it came from.

    Attributes
    ----------
    image_class : type
        nibabel's, NIfTI-1 or NIfTI-2.
    header : nibabel.Nifti1Header
        With affine, units, and extensions.
    order : tuple of int
        Voxel axes as pages, rows, columns.
    flips : tuple of int
        Axes of the reordered array that run the other way.
    """

    image_class: Any
    header: Any
    order: tuple[int, ...]
    flips: tuple[int, ...]
    facts = ("the size and place of the voxels (affine)",)


def decode_nifti(path: Path, key: str | None) -> Picture:
    """Read a volume as a stack of slices.

    Parameters
    ----------
    path : Path
        An existing file.
    key : str or None
        Voxel axis that the slices run along, ``x``, ``y`` or ``z`` (the default). Times and other further axes are
        page axes too.

    Returns
    -------
    Picture
        Scaled integers as they are stored, with their scaling.

    Raises
    ------
    UnreadableFile
        Truncated or corrupt; or nibabel is not installed.
    UnfitData
        Another key; colours, surfaces, or more than 64 bits a component.
    """
    nibabel = NIFTI.load(path)
    if key is not None and key not in VOXEL_AXES:
        raise UnfitData(
            path,
            f"slices along {key!r}",
            "a voxel axis: x, y or z",
            f"Name one of them, as in {path.name}:x; without it, slices run along z",
        )
    with decoding(path, "a complete NIfTI file"):
        image = _open(nibabel, path)
        header = image.header
        if header.get_intent("code")[0] in CIFTI:
            raise UnfitData(path, "a CIFTI file, of surfaces", "a NIfTI volume", "Export a volume")
        shape = header.get_data_shape()
        dtype = header.get_data_dtype()
        if len(shape) < 2 or dtype.kind not in "uifc":
            raise UnfitData(
                path, f"values of type {dtype}, shape {shape}", "a grey volume (x, y, z)", "Convert it to grey values"
            )
        proxy = image.dataobj
        stored = np.asanyarray(proxy.get_unscaled())
        slope, intercept = float(proxy.slope), float(proxy.inter)
        orientation = nibabel.io_orientation(header.get_best_affine())
    stored = stored.astype(dtype.newbyteorder("="), copy=False)
    stored = stored.reshape(shape + (1,) * (3 - len(shape)))
    along = VOXEL_AXES.index(key or "z")
    order, flips = _as_seen(stored.ndim, along, orientation)
    scaling = None
    if dtype.kind in "ui":
        limits = np.iinfo(stored.dtype)
        scaling = Scaling(slope, intercept, int(limits.min), int(limits.max))
    elif (slope, intercept) != (1, 0):
        stored = stored * stored.dtype.type(slope) + stored.dtype.type(intercept)
    samples = np.flip(stored.transpose(order), flips)[..., np.newaxis]
    lead = samples.shape[:-3] if len(shape) > 2 else ()
    samples = samples.reshape(lead + samples.shape[-3:])
    volume = Volume(type(image), header, order, flips)
    name = _slice_axis(stored.shape, along, orientation) if lead else None
    return Picture(samples, lead, key=key, slice_axis=name, scaling=scaling, header=volume)


def _open(nibabel: Any, path: Path) -> Any:
    """Read the header, look at what it declares, then the whole file, so that its checksum is compared."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as stream:
        head = stream.read(LONGEST_HEADER)
        size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
        if 348 not in size and 540 not in size:
            raise UnreadableFile(path, "no NIfTI header", "a NIfTI-1 or NIfTI-2 file", "Convert or export it again")
        kind = nibabel.Nifti1Image if 348 in size else nibabel.Nifti2Image
        header = kind.header_class.from_fileobj(io.BytesIO(head), check=False)
        values = math.prod(int(n) for n in header.get_data_shape())
        declared = int(header.get_data_offset()) + values * header.get_data_dtype().itemsize
        require_plausible(declared, path)
        require_room(values, path)
        content = head + stream.read(max(0, declared - len(head)) + LARGEST_REST)
        if stream.read(1):
            raise UnreadableFile(
                path, f"more than the {declared} bytes declared", "a complete NIfTI file", "Copy or export it again"
            )
    if declared > len(content):
        raise UnreadableFile(
            path, f"{len(content)} bytes, of {declared} declared", "a complete NIfTI file", "Copy or export it again"
        )
    return kind.from_bytes(content)


def _as_seen(ndim: int, along: int, orientation: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Order of the voxel axes, and flips after it, that show slices along one of them as a radiologist sees them."""

    def body_axis(axis: int) -> float:
        return float(np.nan_to_num(orientation[axis, 0], nan=axis))  # a degenerate affine tells nothing

    # the body's axes are right, anterior, superior: the higher goes down the rows
    column, row = sorted((axis for axis in range(3) if axis != along), key=body_axis)
    order = (*range(3, ndim), along, row, column)
    # nibabel's axes point to right, anterior and superior, and a screen's to left (or posterior) and down
    flips = tuple(ndim - 2 + place for place, axis in enumerate((row, column)) if orientation[axis, 1] > 0)
    return order, flips


def _slice_axis(shape: tuple[int, ...], along: int, orientation: Array) -> str:
    names = [f"axis {axis + 1}" for axis in range(3, len(shape)) if shape[axis] > 1]
    body, sign = orientation[along]
    if np.isnan(body):
        return " x ".join([*names, VOXEL_AXES[along]])
    towards = BODY_AXES[int(body)]
    if sign > 0:
        towards = " to ".join(reversed(towards.split(" to ")))
    return " x ".join([*names, f"{VOXEL_AXES[along]} ({towards})"])


def nifti_obstacle(wanted: Wanted) -> str | None:
    """Why a NIfTI file cannot hold what is wanted (colours, half precision), or None if it can."""
    return wanted.coloured or wanted.lacking(*TYPES)


def encode_nifti(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write slices as the volume they were read from, or else as one of voxels of 1 mm without a place in the body.

    Parameters
    ----------
    handle : BinaryIO
        Open for binary writing.
    picture : Picture
        Grey.
    path : Path
        ``.nii``, or ``.nii.gz`` (compressed).

    Raises
    ------
    WriteError
        If the header that is to be kept describes another grid of voxels.
    """
    nibabel = NIFTI.load(path)
    pages = picture.samples[..., 0]
    volume = picture.header
    if volume is None:
        # rows run down to posterior and columns to the left, which is how it will be read
        pages = pages.reshape(-1, *pages.shape[-2:])
        array = pages.transpose(2, 1, 0)
        image = nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]), dtype=array.dtype)
    else:
        array = _as_stored(pages, volume, path)
        header = volume.header.copy()
        header.set_data_dtype(array.dtype)
        # nibabel takes integers as they are only where slope and intercept are set
        scaling = picture.scaling
        header.set_slope_inter(*((1, 0) if scaling is None else (scaling.slope, scaling.intercept)))
        image = volume.image_class(array, None, header)
        image.header.set_slope_inter(*header.get_slope_inter())
    content = image.to_bytes()
    if path.suffix.lower() == ".gz":
        content = gzip.compress(content, mtime=0)  # equal results are equal files
    handle.write(content)


def _as_stored(pages: Array, volume: Volume, path: Path) -> Array:
    shape = volume.header.get_data_shape()
    full = shape + (1,) * (3 - len(shape))
    wanted = tuple(full[axis] for axis in volume.order)
    if pages.size != math.prod(full) or pages.shape[-2:] != wanted[-2:]:
        raise WriteError(
            path,
            f"a result of shape {pages.shape}",
            f"{wanted}, the grid of voxels that the input's affine describes",
            "Write it to .npy or .tif",
        )
    seen = np.flip(pages.reshape(wanted), volume.flips)
    return np.ascontiguousarray(seen.transpose(np.argsort(volume.order))).reshape(shape)
