"""Variables of MATLAB's ``.mat`` files: version 5, through scipy, and 7.3, which is HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnreadableFile
from ..source import choose, decoding, require_numeric
from .hdf5 import find, items, load, opened

__all__ = ["load_variable", "variable_shapes"]

Array = NDArray[Any]
Shapes = dict[str, tuple[int, ...]]

NUMERIC = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def load_variable(
    path: Path, key: str | None, prefer: tuple[str, ...] = (), *, vectors: bool = False
) -> tuple[Array, str]:
    """Read one array of numbers.

    Parameters
    ----------
    path : Path
        An existing file.
    key : str or None
        Name of the variable; by default the only one with rows and columns.
    prefer : tuple of str
        Names to look for where there are several.
    vectors : bool
        A single row or column will do too.

    Returns
    -------
    tuple of (ndarray, str)
        In the type and with the axes that MATLAB shows, but logical values as booleans; and the name.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt, or of another version.
    UnfitData
        Variable unknown, ambiguous, or no array of numbers.
    """
    shapes = variable_shapes(path)
    least = max if vectors else min
    key = choose(path, key, shapes, prefer, lambda shape: len(shape) >= 2 and least(shape[:2]) > 1)
    with decoding(path, "a MAT file of version 5 or 7.3"):
        array = _load_hdf5(path, key) if _is_hdf5(path) else _load_5(path, key)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    require_numeric(array, path)
    return array, key


def variable_shapes(path: Path) -> Shapes:
    """Names and shapes of a file's arrays of numbers.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    dict of str to tuple of int
        In the order of the file.

    Raises
    ------
    UnreadableFile
        Truncated, corrupt, or of another version.
    """
    with decoding(path, "a MAT file of version 5 or 7.3"):
        return _shapes_hdf5(path) if _is_hdf5(path) else _shapes_5(path)


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def _shapes_5(path: Path) -> Shapes:
    from scipy.io import whosmat

    # scipy takes for version 4 whatever has the right bytes at its start
    with path.open("rb") as file:
        if file.read(128)[124:] not in (b"\x00\x01IM", b"\x01\x00MI"):
            raise UnreadableFile(
                path,
                "no MAT file of version 5 or 7.3 (perhaps 4, perhaps truncated)",
                "one that MATLAB's save writes with '-v6', '-v7' or '-v7.3'",
                "Save it again",
            )
    return {name: shape for name, shape, kind in whosmat(path) if kind in NUMERIC}


def _load_5(path: Path, key: str) -> Array:
    from scipy.io import loadmat, whosmat

    array = np.asarray(loadmat(path, variable_names=[key])[key])
    kind = next(kind for name, _, kind in whosmat(path) if name == key)
    # What is stored may be narrower than MATLAB's type: whole numbers are kept in the fewest bytes that hold them.
    # scipy's mat_dtype=True would see to it, but drops imaginary parts.
    dtype = np.dtype({"double": "float64", "single": "float32", "logical": "bool"}.get(kind, kind))
    if array.dtype.kind == "c":
        dtype = np.dtype(np.complex64 if kind == "single" else np.complex128)
    return array.astype(dtype, copy=False)


def _shapes_hdf5(path: Path) -> Shapes:
    with opened(path) as file:
        return {name: tuple(reversed(item.shape)) for name, item in items(file, path) if _is_numeric(item)}


def _is_numeric(item: Any) -> bool:
    import h5py

    if not isinstance(item, h5py.Dataset) or "MATLAB_empty" in item.attrs or item.shape is None:
        return False
    kind = item.attrs.get("MATLAB_class", b"double")
    name = kind.decode() if isinstance(kind, bytes) else str(kind)
    parts = item.dtype.names
    return name in NUMERIC and (item.dtype.kind in "buif" if parts is None else set(parts) == {"real", "imag"})


def _load_hdf5(path: Path, key: str) -> Array:
    with opened(path) as file:
        item = find(file, key, path)
        array = load(item, path)
        logical = item.attrs.get("MATLAB_class") in (b"logical", "logical")
    if array.dtype.names:
        real = array["real"]
        joined = np.empty(array.shape, np.complex64 if real.dtype.itemsize == 4 else np.complex128)
        joined.real, joined.imag = real, array["imag"]
        array = joined
    # HDF5 has the last index fastest and MATLAB the first, so the axes stand in the file in reverse
    return (array != 0 if logical else array).T
