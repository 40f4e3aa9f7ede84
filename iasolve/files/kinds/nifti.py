"""NIfTI: ``.nii`` and ``.nii.gz``, through nibabel. Slices are turned as a radiologist sees them, and back.

The header says how the voxel axes lie in the body. A slice is shown with anterior (or superior) at the top and the
patient's right (or anterior) on the left, since that is how images of training sets stand; what is written stands as
it was read, with its affine.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..contents import Picture, Scaling, Wanted
from ..errors import UnfitData, UnreadableFile, WriteError
from ..optional import NIFTI
from ..source import decoding, require_plausible, require_room
from ..stack import Stack, runs
from .volumes import Z, read_planes

__all__ = ["decode_nifti", "decode_pages", "encode_nifti", "nifti_obstacle"]

Array = NDArray[Any]

VOXEL_AXES = "xyz"
BODY_AXES = ("right to left", "anterior to posterior", "superior to inferior")
CIFTI = range(3000, 3100)  # intent codes of surfaces stored as NIfTI

LONGEST_HEADER = 544  # of NIfTI-2, with the flag for extensions
LARGEST_REST = 2**24  # what may follow the values, bytes: padding
COPIED = 2**20  # bytes at a time
SEQUENTIAL = 4  # axes up to which slices along z lie in the file as they come

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
        Axes of the reordered array, counted from its end, that run the other way.
    """

    image_class: Any
    header: Any
    order: tuple[int, ...]
    flips: tuple[int, ...]
    facts = ("the size and place of the voxels (affine)",)


def decode_nifti(path: Path, key: str | None) -> Picture:
    """Read a volume as a stack of slices.

    ``key``: voxel axis that the slices run along, ``x``, ``y`` or ``z`` (the default). Times and other further axes are
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
    return _decode(path, key, None)


def decode_pages(path: Path, key: str | None, pages: slice) -> Picture:
    """Some slices of a volume; what is compressed lies uncompressed in a temporary file from the first call on.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`decode_nifti`.
    """
    return _decode(path, key, pages)


def _decode(path: Path, key: str | None, pages: slice | None) -> Picture:
    nibabel = NIFTI.load(path)
    if key is not None and key not in VOXEL_AXES:
        raise UnfitData(
            path,
            f"slices along {key!r}",
            "a voxel axis: x, y or z",
            f"Name one of them, as in {path.name}:x; without it, slices run along z",
        )
    along = VOXEL_AXES.index(key or "z")
    with decoding(path, "a complete NIfTI file"), _open(nibabel, path, whole=pages is None) as image:
        header = image.header
        if header.get_intent("code")[0] in CIFTI:
            raise UnfitData(path, "a CIFTI file, of surfaces", "a NIfTI volume", "Export a volume")
        shape = header.get_data_shape()
        dtype = header.get_data_dtype()
        if len(shape) < 2 or dtype.kind not in "uifc":
            raise UnfitData(
                path, f"values of type {dtype}, shape {shape}", "a grey volume (x, y, z)", "Convert it to grey values"
            )
        if len(shape) < 3 and along != Z:
            raise UnfitData(
                path, f"slices along {key!r}, but a single image of shape {shape}", "a volume (x, y, z)", "Leave it out"
            )
        proxy = image.dataobj
        slope, intercept = float(proxy.slope), float(proxy.inter)
        orientation = nibabel.io_orientation(header.get_best_affine())
        full = shape + (1,) * (3 - len(shape))
        order, flips = _as_seen(len(full), along, orientation)
        lead = tuple(full[axis] for axis in order[:-2]) if len(shape) > 2 else ()
        if pages is None:
            stored = np.asanyarray(proxy.get_unscaled()).reshape(full).transpose(order)
        else:
            numbers = range(*pages.indices(math.prod(lead)))
            stored = read_planes(proxy.file_like, int(proxy.offset), full, dtype, order, numbers)
    stored = stored.astype(dtype.newbyteorder("="), copy=False)
    scaling = None
    if dtype.kind in "ui":
        limits = np.iinfo(stored.dtype)
        scaling = Scaling(slope, intercept, int(limits.min), int(limits.max))
    elif (slope, intercept) != (1, 0):
        stored = stored * stored.dtype.type(slope) + stored.dtype.type(intercept)
    samples = np.flip(stored, flips)[..., np.newaxis]
    if not lead and pages is None:
        samples = samples.reshape(samples.shape[-3:])
    volume = Volume(type(image), header, order, flips)
    name = _slice_axis(full, along, orientation) if lead else None
    return Picture(samples, lead, key=key, slice_axis=name, scaling=scaling, header=volume)


@contextmanager
def _open(nibabel: Any, path: Path, *, whole: bool) -> Iterator[Any]:
    """Nibabel's image: of the whole content, so that its checksum is compared, or of an uncompressed file."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if whole:
            content = io.BytesIO()
            with gzip.open(path) if packed else path.open("rb") as stream:
                kind = _copy(nibabel, path, stream, content)
            yield kind.from_stream(content)
        elif packed:
            kind, unpacked = _unpacked(path, path.stat().st_mtime_ns)
            yield kind.from_stream(unpacked)
        else:
            declared = _declared(nibabel, path, file)
            _require_whole(path, path.stat().st_size, declared.nbytes)
            yield declared.kind.from_stream(file)


@lru_cache(maxsize=1)
def _unpacked(path: Path, _: int) -> tuple[Any, Any]:
    """Nibabel's class for a compressed file, and its content in a temporary one, which goes when it is closed."""
    content = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as it is read from
    try:
        with gzip.open(path) as stream:
            return _copy(NIFTI.load(path), path, stream, content), content
    except BaseException:
        content.close()
        raise


class _Declared(NamedTuple):
    """What the first bytes of a file say: nibabel's class for it, the size of the file, how many values there are."""

    kind: Any
    head: bytes
    nbytes: int
    values: int


def _declared(nibabel: Any, path: Path, stream: Any) -> _Declared:
    head = stream.read(LONGEST_HEADER)
    size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if 348 not in size and 540 not in size:
        raise UnreadableFile(path, "no NIfTI header", "a NIfTI-1 or NIfTI-2 file", "Convert or export it again")
    kind = nibabel.Nifti1Image if 348 in size else nibabel.Nifti2Image
    header = kind.header_class.from_fileobj(io.BytesIO(head), check=False)
    values = math.prod(int(n) for n in header.get_data_shape())
    nbytes = int(header.get_data_offset()) + values * header.get_data_dtype().itemsize
    require_plausible(nbytes, path)
    return _Declared(kind, head, nbytes, values)


def _copy(nibabel: Any, path: Path, stream: Any, target: BinaryIO) -> Any:
    """Read a stream to its end, where its checksum is compared, but not much beyond what its header declares."""
    declared = _declared(nibabel, path, stream)
    if isinstance(target, io.BytesIO):
        require_room(declared.values, path)
    target.write(declared.head)
    left = max(0, declared.nbytes - len(declared.head)) + LARGEST_REST
    while left and (part := stream.read(min(left, COPIED))):
        left -= target.write(part)
    if stream.read(1):
        raise UnreadableFile(
            path, f"more than the {declared.nbytes} bytes declared", "a complete NIfTI file", "Copy or export it again"
        )
    _require_whole(path, target.tell(), declared.nbytes)
    return declared.kind


def _require_whole(path: Path, found: int, declared: int) -> None:
    if declared > found:
        raise UnreadableFile(
            path, f"{found} bytes, of {declared} declared", "a complete NIfTI file", "Copy or export it again"
        )


def _as_seen(ndim: int, along: int, orientation: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Order of the voxel axes, and flips after it, that show slices along one of them as a radiologist sees them."""

    def body_axis(axis: int) -> float:
        return float(np.nan_to_num(orientation[axis, 0], nan=axis))  # a degenerate affine tells nothing

    # the body's axes are right, anterior, superior: the higher goes down the rows
    column, row = sorted((axis for axis in range(3) if axis != along), key=body_axis)
    order = (*range(3, ndim), along, row, column)
    # nibabel's axes point to right, anterior and superior, and a screen's to left (or posterior) and down
    flips = tuple(place - 2 for place, axis in enumerate((row, column)) if orientation[axis, 1] > 0)
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

    ``picture``: grey.
    ``path``: ``.nii``, or ``.nii.gz`` (compressed).

    Raises
    ------
    WriteError
        If the header that is to be kept describes another grid of voxels.
    """
    nibabel = NIFTI.load(path)
    samples = picture.samples
    with contextlib.ExitStack() as closing:
        stream: Any = handle
        if path.suffix.lower() == ".gz":  # without name and time: equal results are equal files
            stream = closing.enter_context(gzip.GzipFile("", "wb", fileobj=handle, mtime=0))
        if isinstance(samples, Stack):
            shape, order, flips = _grid((*picture.lead, *samples.shape[1:-1]), picture.header, path)
            if order[-3] == Z and len(order) <= SEQUENTIAL:
                blank = np.broadcast_to(np.zeros((), samples.dtype), shape)
                image = _image(nibabel, picture, blank)
                image.update_header()
                image.header.write_to(stream)
                stream.write(bytes(int(image.header.get_data_offset()) - stream.tell()))
                stored = image.header.get_data_dtype()
                for run in runs(samples):
                    for page in run[..., 0]:
                        plane = np.flip(page, flips).transpose(np.argsort(order[-2:]))
                        stream.write(np.ascontiguousarray(plane.T, stored).data)
                return
            samples = np.asarray(samples).reshape(*picture.lead, *samples.shape[1:])
        pages = samples[..., 0]
        shape, order, flips = _grid(pages.shape, picture.header, path)
        seen = np.flip(pages.reshape([shape[axis] for axis in order]), flips)
        stream.write(_image(nibabel, picture, np.ascontiguousarray(seen.transpose(np.argsort(order)))).to_bytes())


def _image(nibabel: Any, picture: Picture, array: Array) -> Any:
    """Nibabel's image of voxels as they are stored, with the header that the picture was read with."""
    volume = picture.header
    if volume is None:
        image = nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]), dtype=array.dtype)
        image.header.set_slope_inter(1, 0)
        return image
    header = volume.header.copy()
    header.set_data_dtype(array.dtype)
    # nibabel takes integers as they are only where slope and intercept are set
    scaling = picture.scaling
    header.set_slope_inter(*((1, 0) if scaling is None else (scaling.slope, scaling.intercept)))
    image = volume.image_class(array.reshape(header.get_data_shape()), None, header)
    image.header.set_slope_inter(*header.get_slope_inter())
    return image


def _grid(
    shape: tuple[int, ...], volume: Volume | None, path: Path
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shape of the voxels that pages of this shape become, and the order and flips of their axes as pages."""
    if volume is None:
        # rows run down to posterior and columns to the left, which is how it will be read
        return (shape[-1], shape[-2], math.prod(shape[:-2])), (2, 1, 0), ()
    grid = tuple(volume.header.get_data_shape())
    full = grid + (1,) * (3 - len(grid))
    wanted = tuple(full[axis] for axis in volume.order)
    if math.prod(shape) != math.prod(full) or shape[-2:] != wanted[-2:]:
        raise WriteError(
            path,
            f"a result of shape {shape}",
            f"{wanted}, the grid of voxels that the input's affine describes",
            "Write it to .npy or .tif",
        )
    return full, volume.order, volume.flips
