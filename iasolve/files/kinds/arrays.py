"""NumPy's own files: ``.npy`` and ``.npz``, never with pickle."""

from __future__ import annotations

import contextlib
import math
import zipfile
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Measured, Picture
from ..errors import UnfitData, UnreadableFile
from ..source import decoding, require_kspace, require_numeric, require_plausible, require_room

__all__ = ["decode_any", "decode_array", "decode_kspace", "encode_array", "encode_kspace"]

Array = NDArray[Any]


def _npz_keys(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an ``.npz`` archive.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    tuple of str
        In the order of the archive.

    Raises
    ------
    UnreadableFile
        If it is no such archive.
    """
    with decoding(path, "an .npz archive as numpy.savez writes it"), zipfile.ZipFile(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist())


def load_array(path: Path, key: str | None = None, prefer: tuple[str, ...] = ()) -> tuple[Array, str | None]:
    """Read one array from an ``.npy`` or ``.npz`` file.

    Parameters
    ----------
    path : Path
        An existing file; the suffix decides the kind.
    key : str, optional
        Name of the array in an ``.npz`` file.
    prefer : tuple of str
        Names to look for, in this order, in an ``.npz`` with several arrays and no ``key``.

    Returns
    -------
    tuple of (ndarray, str or None)
        The array (numeric, not empty) and the name it was found under.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt or of another kind.
    UnfitData
        Key missing, unknown or ambiguous; object or non-numeric dtype; empty array.
    """
    if path.suffix.lower() == ".npz":
        key = _choose(path, key, prefer)
    try:
        with decoding(path, f"a {path.suffix.lower()} file as NumPy writes it"):
            array = _load(path, key)
    except UnreadableFile as error:
        if "allow_pickle" in str(error.__cause__):
            raise UnfitData(
                path,
                "the array holds Python objects (dtype object), which are never loaded",
                "a plain array of numbers",
                "Save it as numbers: numpy.save(path, numpy.asarray(array, dtype=numpy.float32))",
            ) from error.__cause__
        raise
    require_numeric(array, path)
    return array, key


def _load(path: Path, key: str | None) -> Array:
    # Not numpy.load: it takes whatever it does not know for a pickle, and leaves failing files open.
    with contextlib.ExitStack() as stack:
        if key is None:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            if stream.read(2) == b"PK":
                raise UnreadableFile(path, "an .npz archive", "a single .npy array", "Rename the file to .npz")
            stream.seek(0)
            held = path.stat().st_size
        else:
            archive = stack.enter_context(zipfile.ZipFile(path))
            member = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
            stream = stack.enter_context(archive.open(member))
            held = archive.getinfo(member).file_size
        _require_room(stack.enter_context(archive.open(member)) if key is not None else stream, held, path)
        if key is None:
            stream.seek(0)
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        if key is not None:
            stream.read(1)  # the checksum is compared at the end of the member, and numpy may stop short
        return array


def _require_room(stream: IO[bytes], held: int, path: Path) -> None:
    """Look at what an array's header declares, before memory is taken for it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version > (2, 0):
        return  # field names in UTF-8: no array of numbers, which is said when it is read
    shape, _, dtype = read(stream)
    declared = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and declared > held:
        raise UnreadableFile(path, f"{held} bytes, of {declared} declared", "a complete array", "Copy or save it again")
    require_plausible(declared, path)
    require_room(math.prod(shape), path)


def _choose(path: Path, key: str | None, prefer: tuple[str, ...]) -> str:
    keys = _npz_keys(path)
    listing = ", ".join(keys) or "none"
    if key is not None:
        if key not in keys:
            raise UnfitData(
                path,
                f"no array named {key!r}",
                f"one of the arrays it holds ({listing})",
                "Name one of these",
            )
        return key
    if len(keys) == 1:
        return keys[0]
    for name in prefer:
        if name in keys:
            return name
    raise UnfitData(
        path,
        f"{len(keys)} arrays ({listing})",
        "exactly one array, or a key",
        f"Name the array, as in {path.name}:{keys[0] if keys else 'image'}",
    )


def encode_array(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write images as one array: ``(H, W)``, with pages first and colours last. Opacity is left out by the caller.

    Parameters
    ----------
    handle : BinaryIO
        Open for binary writing, seekable.
    picture : Picture
        Any numeric dtype. Its key is the name in an ``.npz`` archive, ``image`` if it has none.
    path : Path
        ``.npy``, or ``.npz`` (written compressed).
    """
    samples = picture.samples
    array = np.ascontiguousarray(samples if samples.shape[-1] > 1 else samples[..., 0])
    if path.suffix.lower() == ".npy":
        np.save(handle, array, allow_pickle=False)
        return
    # By hand rather than with numpy.savez_compressed, where a key named "file" clashes with a parameter.
    with (
        zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{picture.key or 'image'}.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array(member, array, allow_pickle=False)


def decode_any(path: Path, key: str | None, names: tuple[str, ...]) -> Array:
    """Read an array of any shape; parameters and errors as :func:`load_array`."""
    return load_array(path, key, names)[0]


def decode_array(path: Path, key: str | None) -> Picture:
    """Read an image, a stack of images or a colour image from an ``.npy`` or ``.npz`` file.

    Parameters
    ----------
    path : Path
        An existing file.
    key : str or None
        Name of the array in an ``.npz`` file.

    Returns
    -------
    Picture
        From ``(H, W)``, ``(H, W, 1)``, ``(pages, H, W)``, and for real data ``(H, W, 3)`` and ``(pages, H, W, 3)``,
        which are taken for colour.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`load_array`; and for other shapes.
    """
    array, key = load_array(path, key)
    shape = array.shape
    # An image 2, 3 or 4 pixels wide is no image; an array that ends in such an axis is interleaved samples.
    interleaved = array.ndim >= 3 and min(shape[-3:-1]) > 4 and array.dtype.kind != "c"
    if array.ndim in (3, 4) and interleaved and shape[-1] == 3:
        return Picture(array, shape[:-3], key=key, slice_axis="first axis" if shape[:-3] else None)
    if array.ndim == 3 and interleaved and shape[-1] in (2, 4):
        raise UnfitData(
            path,
            f"shape {shape}, whose last axis of {shape[-1]} looks like interleaved channels",
            "(H, W), (pages, H, W), or (H, W, 3) for colour",
            "Give the colours alone (a[..., :3]), complex values as a complex array "
            "(a[..., 0] + 1j * a[..., 1]), or move pages first (numpy.moveaxis(a, -1, 0))",
        )
    if array.ndim == 3 and shape[-1] == 1 and min(shape[:-1]) > 4:
        # a grey image whose colours come last, as other libraries have it, and no stack of images one pixel wide
        return Picture(array, (), key=key)
    if array.ndim in (2, 3):
        return Picture(array[..., np.newaxis], shape[:-2], key=key, slice_axis="first axis" if shape[:-2] else None)
    raise UnfitData(
        path,
        f"an array of shape {shape}",
        "(H, W), (pages, H, W), or colour as (H, W, 3) or (pages, H, W, 3)",
        "Reshape it, with pages on the first axis and colours on the last",
    )


def encode_kspace(handle: BinaryIO, kspace: Array, mask: Array | None, path: Path) -> None:
    """Write k-space as one array; to ``.npz`` compressed, with its mask.

    Parameters
    ----------
    handle : BinaryIO
        Open for binary writing, seekable.
    kspace : ndarray
        As it is to stand in the file.
    mask : ndarray or None
        Left out of an ``.npy`` file.
    path : Path
        ``.npy`` or ``.npz``.
    """
    if path.suffix.lower() == ".npy":
        np.save(handle, kspace, allow_pickle=False)
        return
    arrays: dict[str, Any] = {"kspace": kspace} if mask is None else {"kspace": kspace, "mask": mask}
    np.savez_compressed(handle, **arrays)


def decode_kspace(path: Path, key: str | None, slices: slice | None) -> Measured:
    """Read k-space from an ``.npy`` or ``.npz`` file, with the array named ``mask`` next to one named ``kspace``.

    Parameters
    ----------
    path : Path
        An existing file.
    key : str or None
        Name of the array in an ``.npz`` file; ``kspace`` or the only one by default.
    slices : slice or None
        What is wanted.

    Returns
    -------
    Measured
        From ``(H, W)``, ``(coils, H, W)`` or ``(slices, coils, H, W)``.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`load_array`; and for real values or other shapes.
    """
    array, found = load_array(path, key, prefer=("kspace",))
    require_kspace(array.shape, array.dtype, path, "H, W", "coils, H, W", "slices, coils, H, W")
    mask = None
    if found == "kspace" and "mask" in _npz_keys(path):
        mask = load_array(path, "mask")[0]
    sliced = array.ndim == 4
    return Measured(
        array[(np.newaxis,) * (4 - array.ndim)][slices or slice(None)],
        sliced=sliced,
        coiled=array.ndim >= 3,
        mask=mask,
        key=found,
        slice_axis="first axis" if sliced else None,
    )
