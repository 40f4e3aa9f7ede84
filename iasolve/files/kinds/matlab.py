"""Images and k-space in MATLAB's ``.mat``; written in version 5, read in 7.3 too.

MATLAB counts pages, coils and slices last: images are ``(H, W)``, ``(H, W, pages)``, ``(H, W, 3)`` for colour and
``(H, W, 3, pages)``; k-space is ``(H, W)``, ``(H, W, coils)`` or ``(H, W, coils, slices)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..contents import Measured, Picture, Wanted
from ..errors import UnfitData, WriteError
from ..source import require_kspace
from .matlab_variables import load_variable, variable_shapes

__all__ = ["decode_any", "decode_kspace", "decode_matlab", "encode_matlab", "matlab_obstacle"]

Array = NDArray[Any]

LARGEST = 2**31 - 1  # bytes of a variable in version 5
ORDINALS = {2: "third axis", 3: "fourth axis"}


def decode_matlab(path: Path, key: str | None) -> Picture:
    """Read images from a ``.mat`` file.

    ``key``: name of the variable; by default the only array of numbers.

    Returns
    -------
    Picture
        In the type that MATLAB shows, but logical values as booleans.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt, or of another version.
    UnfitData
        Variable unknown, ambiguous, or no array of numbers.
    """
    array, key = load_variable(path, key)
    if array.ndim < 2:
        raise UnfitData(path, f"{key!r} of shape {array.shape}", "(H, W) or (H, W, pages)", "Name another variable")
    # An image 3 pixels wide is no image; three pages are more often the colours of one.
    colour = array.ndim in (3, 4) and array.shape[2] == 3 and min(array.shape[:2]) > 4 and array.dtype.kind != "c"
    first = 3 if colour else 2
    lead = array.shape[first:]
    samples = np.moveaxis(array if colour else array[..., np.newaxis], (0, 1, 2 if colour else -1), (-3, -2, -1))
    axes = " x ".join(ORDINALS.get(axis, f"axis {axis + 1}") for axis in range(first, array.ndim))
    return Picture(samples, lead, key=key, slice_axis=axes or None)


def decode_any(path: Path, key: str | None, names: tuple[str, ...]) -> Array:
    """Read an array of any shape; ``names`` are looked for without a key. Errors as :func:`decode_matlab`."""
    array = load_variable(path, key, names, vectors=True)[0]
    # MATLAB has no vectors, only single columns and rows
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array


def decode_kspace(path: Path, key: str | None, slices: slice | None) -> Measured:
    """Read k-space from a ``.mat`` file, with the variable ``mask`` next to one named ``kspace``.

    ``key``: name of the variable; by default ``kspace``, or the only array of numbers.

    Returns
    -------
    Measured
        From ``(H, W)``, ``(H, W, coils)`` or ``(H, W, coils, slices)``.

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`decode_matlab`; and for real values or other shapes.
    """
    array, found = load_variable(path, key, ("kspace",))
    require_kspace(array.shape, array.dtype, path, "H, W", "H, W, coils", "H, W, coils, slices")
    mask = None
    if found == "kspace" and "mask" in variable_shapes(path):
        mask = load_variable(path, "mask")[0]
        mask = mask[0] if mask.shape[0] == 1 else mask  # MATLAB has no vectors, only single rows
    sliced, coiled = array.ndim == 4, array.ndim >= 3
    kspace = array.reshape(*array.shape, *(1,) * (4 - array.ndim)).transpose(3, 2, 0, 1)
    return Measured(
        kspace[slices or slice(None)],
        sliced=sliced,
        coiled=coiled,
        mask=mask,
        key=found,
        slice_axis=ORDINALS[3] if sliced else None,
    )


def matlab_obstacle(wanted: Wanted) -> str | None:
    """Why a ``.mat`` cannot hold what is wanted (half precision), or None if it can."""
    integers = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
    return wanted.lacking("bool", *integers, "float32", "float64", "complex64", "complex128")


def encode_matlab(handle: BinaryIO, picture: Picture, path: Path) -> None:
    """Write images as one variable of a version 5 file, compressed.

    ``picture``: its key is the name of the variable, ``image`` if it has none.

    Raises
    ------
    WriteError
        Above 2 GB.
    """
    from scipy.io import savemat

    samples = picture.samples
    if samples.nbytes > LARGEST:
        raise WriteError(
            path,
            f"a result of {samples.nbytes / 2**30:.1f} GB",
            "less than 2 GB, which is all that a variable of a MAT file of version 5 holds",
            "Write it to .npy or .h5",
        )
    array = np.moveaxis(samples, (-3, -2, -1), (0, 1, 2))
    savemat(
        handle,
        {picture.key or "image": array if array.shape[2] > 1 else array[:, :, 0]},
        appendmat=False,
        do_compression=True,
    )
