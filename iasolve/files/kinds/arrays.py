"""NumPy's own files: ``.npy`` and ``.npz``, never with pickle."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Measured, Picture
from ..errors import UnfitData, UnreadableFile
from ..source import choose, decoding, require_kspace, require_numeric, require_plausible, require_room
from ..stack import Stack, runs

__all__ = ["decode_any", "decode_array", "decode_kspace", "decode_pages", "encode_array", "encode_kspace"]

Array = NDArray[Any]


def _npz_keys(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an ``.npz`` archive, in its order; UnreadableFile if it is none."""
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
        key = choose(path, key, dict.fromkeys(_npz_keys(path), ()), prefer)
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


def _header(stream: IO[bytes], path: Path, held: int | None = None) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether Fortran's order, and type that an array's header declares; the values follow in the stream.

    Raises
    ------
    UnreadableFile
        If fewer bytes are held than are declared.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version > (2, 0):
        # field names in UTF-8: no array of numbers, which is said when it is read
        return (), False, np.dtype(object)
    shape, fortran, dtype = read(stream)
    declared = math.prod(shape) * dtype.itemsize
    held = path.stat().st_size if held is None else held
    if not dtype.hasobject and declared > held:
        raise UnreadableFile(path, f"{held} bytes, of {declared} declared", "a complete array", "Copy or save it again")
    return shape, fortran, dtype


def _require_room(stream: IO[bytes], held: int, path: Path) -> None:
    """Look at what an array's header declares, before memory is taken for it."""
    shape, _, dtype = _header(stream, path, held)
    require_plausible(math.prod(shape) * dtype.itemsize, path)
    require_room(math.prod(shape), path)


def encode_array(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write images as one array: ``(H, W)``, with pages first and colours last. Opacity is left out by the caller.

    ``picture``: any numeric dtype. Its key is the name in an ``.npz`` archive, ``image`` if it has none.
    ``path``: ``.npy``, or ``.npz`` (written compressed).
    """
    samples = picture.samples
    if isinstance(samples, Stack):
        shape = samples.shape[1:] if samples.shape[-1] > 1 else samples.shape[1:-1]
        _encode_pages(handle, samples, picture.lead + shape)
        return
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


def _encode_pages(handle: BinaryIO | IO[bytes], samples: Stack, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(samples.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, header)
    for run in runs(samples):
        handle.write(np.ascontiguousarray(run).data)


def decode_any(path: Path, key: str | None, names: tuple[str, ...]) -> Array:
    """Read an array of any shape; parameters and errors as :func:`load_array`."""
    return load_array(path, key, names)[0]


def decode_array(path: Path, key: str | None) -> Picture:
    """Read an image, a stack of images or a colour image from an ``.npy`` or ``.npz`` file.

    ``key``: name of the array in an ``.npz`` file.

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
    lead, last = _axes(array.shape, array.dtype, path)
    samples = array if last else array[..., np.newaxis]
    return Picture(samples, lead, key=key, slice_axis="first axis" if lead else None)


def decode_pages(path: Path, key: str | None, pages: slice) -> Picture:
    """Read some pages of an ``.npy`` file; where its first axis is not the slowest (Fortran's order), by way of all.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`decode_array`.
    """
    with decoding(path, "a .npy file as NumPy writes it"), path.open("rb") as stream:
        shape, fortran, dtype = _header(stream, path)
        ordered = not fortran and dtype.kind in "buifc" and math.prod(shape) > 0
        lead, last = _axes(shape, dtype, path) if ordered else ((), False)
        if lead:
            array = _entries(stream, shape[len(lead) :], dtype, pages.indices(math.prod(lead)), path)
            return Picture(array if last else array[..., np.newaxis], lead, key=key, slice_axis="first axis")
    whole = decode_array(path, key)
    return replace(whole, samples=whole.samples.reshape(-1, *whole.samples.shape[-3:])[pages])


def _entries(
    stream: IO[bytes], each: tuple[int, ...], dtype: np.dtype[Any], rows: tuple[int, int, int], path: Path
) -> Array:
    """Some entries of the first axis, of a stream that stands at the first; ``rows``: first, last and step (1)."""
    start, stop, _ = rows
    values = math.prod(each)
    require_room((stop - start) * values, path)
    stream.seek(start * values * dtype.itemsize, os.SEEK_CUR)
    array = np.frombuffer(bytearray(stream.read((stop - start) * values * dtype.itemsize)), dtype)
    require_numeric(array, path)
    return array.reshape(stop - start, *each)


def _axes(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path) -> tuple[tuple[int, ...], bool]:
    """Lengths of the page axes of an array of images, and whether its last axis is that of colours, or of one grey."""
    # An image 2, 3 or 4 pixels wide is no image; an array that ends in such an axis is interleaved samples.
    interleaved = len(shape) >= 3 and min(shape[-3:-1]) > 4 and dtype.kind != "c"
    if len(shape) in (3, 4) and interleaved and shape[-1] == 3:
        return shape[:-3], True
    if len(shape) == 3 and interleaved and shape[-1] in (2, 4):
        raise UnfitData(
            path,
            f"shape {shape}, whose last axis of {shape[-1]} looks like interleaved channels",
            "(H, W), (pages, H, W), or (H, W, 3) for colour",
            "Give the colours alone (a[..., :3]), complex values as a complex array "
            "(a[..., 0] + 1j * a[..., 1]), or move pages first (numpy.moveaxis(a, -1, 0))",
        )
    if len(shape) == 3 and shape[-1] == 1 and min(shape[:-1]) > 4:
        # a grey image whose colours come last, as other libraries have it, and no stack of images one pixel wide
        return (), True
    if len(shape) in (2, 3):
        return shape[:-2], False
    raise UnfitData(
        path,
        f"an array of shape {shape}",
        "(H, W), (pages, H, W), or colour as (H, W, 3) or (pages, H, W, 3)",
        "Reshape it, with pages on the first axis and colours on the last",
    )


def encode_kspace(handle: BinaryIO, kspace: Array | Stack, mask: Array | None, path: Path) -> None:
    """Write k-space as one array; to ``.npz`` compressed, with its mask.

    ``mask``: left out of an ``.npy`` file.
    ``path``: ``.npy`` or ``.npz``.
    """
    if path.suffix.lower() == ".npy":
        _encode_any(handle, kspace)
        return
    arrays: dict[str, Array | Stack] = {"kspace": kspace} if mask is None else {"kspace": kspace, "mask": mask}
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _encode_any(member, values)


def _encode_any(handle: BinaryIO | IO[bytes], values: Array | Stack) -> None:
    if isinstance(values, Stack):
        _encode_pages(handle, values, values.shape)
    else:
        np.lib.format.write_array(handle, values, allow_pickle=False)


def decode_kspace(path: Path, key: str | None, slices: slice | None) -> Measured:
    """Read k-space from an ``.npy`` or ``.npz`` file, with the array named ``mask`` next to one named ``kspace``.

    ``key``: name of the array in an ``.npz`` file; ``kspace`` or the only one by default.

    Returns
    -------
    Measured
        From ``(H, W)``, ``(coils, H, W)`` or ``(slices, coils, H, W)``.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`load_array`; and for real values or other shapes.
    """
    some = _kspace_slices(path, slices) if key is None and path.suffix.lower() == ".npy" and slices else None
    if some is not None:
        return some
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


def _kspace_slices(path: Path, slices: slice) -> Measured | None:
    """Some slices, or None where these are not apart from the others in the file."""
    with decoding(path, "a .npy file as NumPy writes it"), path.open("rb") as stream:
        shape, fortran, dtype = _header(stream, path)
        if fortran or len(shape) != 4 or dtype.kind != "c" or not math.prod(shape):
            return None
        kspace = _entries(stream, shape[1:], dtype, slices.indices(shape[0]), path)
    return Measured(kspace, sliced=True, coiled=True, slice_axis="first axis", count=shape[0])
