"""fastMRI's HDF5 files: k-space and images in, reconstructions out; ISMRMRD files of the same suffix are passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Measured, Picture, Wanted
from ..errors import UnfitData
from ..source import choose, require_kspace
from ..stack import Stack, runs
from . import ismrmrd
from .hdf5 import find, items, load, opened

__all__ = [
    "decode_any",
    "decode_fastmri",
    "decode_kspace",
    "decode_pages",
    "encode_fastmri",
    "fastmri_obstacle",
    "takes_results",
]

Array = NDArray[Any]

# What fastMRI calls results and, in its training files, targets.
IMAGES = ("reconstruction", "reconstruction_rss", "reconstruction_esc")


def decode_kspace(path: Path, key: str | None, slices: slice | None) -> Measured:
    """Read k-space from an HDF5 file.

    ``path``: an existing file; one with ``dataset/xml`` and ``dataset/data`` is an ISMRMRD file.
    ``key``: name of the dataset, ``kspace`` by default; the mask that stands beside goes with that name only.

    Returns
    -------
    Measured
        From ``(slices, H, W)`` or ``(slices, coils, H, W)``.

    Raises
    ------
    UnreadableFile, UnfitData
        No complete HDF5 file, or without such a dataset.
    """
    if ismrmrd.is_ismrmrd(path, key):
        return ismrmrd.decode_ismrmrd(path, key, slices)
    key = key or "kspace"
    header = mask = None
    with opened(path) as file:
        data = _dataset(
            file, key, path, f"Name the k-space, as in {path.name}:kspace; image-only files cannot be used as k-space"
        )
        require_kspace(data.shape or (), data.dtype, path, "slices, H, W", "slices, coils, H, W")
        kspace, count = load(data, path, slices), len(data)
        attributes = {str(name): _python(value) for name, value in file.attrs.items()}
        if key == "kspace":
            others = {name: find(file, name, path) for name in ("mask", "ismrmrd_header")}
            mask, header = (None if item is None else item[()] for item in others.values())
    coiled = kspace.ndim == 4
    return Measured(
        kspace if coiled else kspace[:, np.newaxis],
        sliced=True,
        coiled=coiled,
        mask=None if mask is None else np.asarray(mask),
        attributes=attributes,
        header=_text(header),
        key=key,
        slice_axis="first axis",
        count=count,
    )


def decode_fastmri(path: Path, key: str | None) -> Picture:
    """Read the images of an HDF5 file.

    ``key``: name of the dataset; by default the first there is of :data:`IMAGES`.

    Returns
    -------
    Picture
        From ``(slices, H, W)``.

    Raises
    ------
    UnreadableFile, UnfitData
        No complete HDF5 file, or without such a dataset.
    """
    return _images(path, key, None)


def decode_pages(path: Path, key: str | None, pages: slice) -> Picture:
    """Some images; nothing of the others is loaded.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`decode_fastmri`.
    """
    return _images(path, key, pages)


def _images(path: Path, key: str | None, pages: slice | None) -> Picture:
    with opened(path) as file:
        key = key or next((name for name in IMAGES if name in file), IMAGES[0])
        data = _dataset(
            file, key, path, f"Name the images, as in {path.name}:image; k-space goes to 'iasolve reconstruct'"
        )
        shape = data.shape or ()
        if len(shape) not in (2, 3):
            raise UnfitData(path, f"{key!r} of shape {shape}", "(slices, H, W)", "Reshape it, or name another dataset")
        # a single image is a page too
        samples = load(data, path, pages if len(shape) == 3 else None)[..., np.newaxis]
        if pages is not None:
            samples = samples.reshape(-1, *samples.shape[-3:])
        about = find(file, "ismrmrd_header", path)
        header = None if about is None else _text(about[()])
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    return Picture(samples, shape[:-2], key=key, slice_axis="first axis" if shape[:-2] else None, header=header)


def decode_any(path: Path, key: str | None, names: tuple[str, ...]) -> Array:
    """Read a dataset of any shape; the k-space of an ISMRMRD file.

    ``key``: name of the dataset; by default the first there is of ``names``, or the only one.

    Raises
    ------
    UnreadableFile, UnfitData
        No complete HDF5 file, or without such a dataset.
    """
    import h5py

    if ismrmrd.is_ismrmrd(path, key):
        return ismrmrd.decode_ismrmrd(path, key, None).kspace
    with opened(path) as file:
        shapes = {name: item.shape or () for name, item in items(file, path) if isinstance(item, h5py.Dataset)}
        return load(_dataset(file, key or choose(path, None, shapes, names), path, "Name one of these"), path)


def takes_results(path: Path, grey: bool) -> bool:
    """Whether the result of this file can go to one of its name: not to fastMRI's layout where it is no grey image.

    Nor where the file holds acquisitions: those are no images.

    Raises
    ------
    UnreadableFile
        If it is no HDF5 file.
    """
    return grey and not ismrmrd.is_ismrmrd(path, None)


def fastmri_obstacle(wanted: Wanted) -> str | None:
    """Why fastMRI's layout cannot hold what is wanted, or None if it can: grey values in single precision.

    float64 is rounded to it, as it is all that fastMRI's tools and the solver work in.
    """
    return wanted.coloured or wanted.lacking("float32", "float64")


def encode_fastmri(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write images as ``fastmri.evaluate`` reads them: dataset ``reconstruction``, ``(slices, H, W)``, float32.

    ``picture``: grey.
    """
    import h5py

    samples = picture.samples
    pages = samples if isinstance(samples, Stack) else samples.reshape(-1, *samples.shape[-3:])
    with h5py.File(handle, "w") as file:
        data = file.create_dataset("reconstruction", pages.shape[:-1], np.float32)
        first = 0
        for run in runs(pages):
            data[first : first + len(run)] = run[..., 0]
            first += len(run)


def _dataset(file: Any, key: str, path: Path, advice: str) -> Any:
    import h5py

    data = find(file, key, path)
    if not isinstance(data, h5py.Dataset):
        listing = ", ".join(f"{name} {getattr(item, 'shape', '(group)')}" for name, item in items(file, path))
        raise UnfitData(path, f"no dataset named {key!r}", f"one of those it holds ({listing or 'none'})", advice)
    return data


def _text(value: Any) -> str | None:
    plain = _python(value)
    return plain if isinstance(plain, str) else None


def _python(value: Any) -> Any:
    """Plain Python values for what HDF5 stores: numpy scalars and arrays, byte strings, empty attributes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        plain = value.tolist()
        return [_python(item) for item in plain] if isinstance(plain, list) else _python(plain)
    if value is None or isinstance(value, str | bool | int | float | complex | list | tuple):
        return value
    return None if type(value).__name__ == "Empty" else str(value)
