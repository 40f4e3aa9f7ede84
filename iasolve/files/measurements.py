"""Reading a measurement of any shape: numbers as they stand in a file, for operators that the file's maker knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ismrmrd
from .arrays import load_array
from .errors import PathInput, UnfitData
from .formats import IMAGE_SUFFIXES, KSPACE_SUFFIXES
from .images import read_image
from .kspace import read_kspace
from .locating import locate
from .matlab_variables import load_variable
from .source import decoding, require_finite, require_numeric, require_plausible

__all__ = ["MEASUREMENT_SUFFIXES", "MeasurementFile", "read_measurement"]

Array = NDArray[Any]

MEASUREMENT_SUFFIXES = tuple(dict.fromkeys((*IMAGE_SUFFIXES, *KSPACE_SUFFIXES)))
# Names to look for in a file of several arrays.
NAMES = ("measurement", "kspace")


@dataclass(frozen=True, eq=False)
class MeasurementFile:
    """A measurement as it was found in a file.

    Attributes
    ----------
    path : Path
        The file.
    kind : str
        Its suffix, lower case, with the dot.
    values : ndarray
        Of any shape; numbers, real or complex, all finite.
    """

    path: Path
    kind: str
    values: Array


def read_measurement(path: PathInput, key: str | None = None) -> MeasurementFile:
    """Read an array of any shape.

    From ``.npy``, ``.npz``, ``.mat`` and ``.h5`` the axes are those of the array in the file. Images come as ``(H, W)``
    with pages, then colours, in front; BART's ``.cfl`` likewise, its axes of length 1 left out. ISMRMRD files are
    sorted into ``(slices, coils, H, W)``.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The file; ``"file.npz:key"`` names one array of several (``.npz``, ``.mat``, ``.h5``).
    key : str, optional
        The same key, apart from the path. By default ``measurement``, ``kspace``, or the only array.

    Returns
    -------
    MeasurementFile

    Raises
    ------
    UnreadableFile
        Missing, truncated, corrupt, or of an unknown kind.
    UnfitData
        No numbers, NaN or infinite, empty, or ambiguous.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "sinogram.npy"
    >>> np.save(path, np.ones((1, 128, 40)))
    >>> read_measurement(path).values.shape
    (1, 128, 40)
    """
    source, kind, key = locate(path, MEASUREMENT_SUFFIXES, key)
    values = _READERS.get(kind, _picture)(source, key)
    require_numeric(values, source)
    require_finite(values, source)
    return MeasurementFile(source, kind, np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))


def _numpy(path: Path, key: str | None) -> Array:
    return load_array(path, key, NAMES)[0]


def _matlab(path: Path, key: str | None) -> Array:
    array = load_variable(path, key, NAMES, vectors=True)[0]
    # MATLAB has no vectors, only single columns and rows
    return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array


def _hdf5(path: Path, key: str | None) -> Array:
    import h5py

    if ismrmrd.is_ismrmrd(path, key):
        return _acquisitions(path, key)
    with decoding(path, "a complete HDF5 file"), h5py.File(path, "r") as file:
        arrays = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
        name = key or next((name for name in NAMES if name in arrays), arrays[0] if len(arrays) == 1 else None)
        if name is None or not isinstance(file.get(name), h5py.Dataset):
            found = f"no dataset named {key!r}" if key else f"{len(arrays)} datasets"
            listing = ", ".join(arrays) or "none"
            advice = f"Name one, as in {path.name}:{arrays[0] if arrays else NAMES[0]}"
            raise UnfitData(path, f"{found} ({listing})", "one dataset, or its name", advice)
        require_plausible(int(file[name].nbytes), path)
        return np.asarray(file[name][()])


def _acquisitions(path: Path, key: str | None) -> Array:
    return read_kspace(path, key).kspace


def _picture(path: Path, key: str | None) -> Array:
    image = read_image(path, key)
    colours = (image.channels,) if image.channels > 1 else ()
    # small integers are exact in single precision, in which the solver works
    values = image.pixels.astype(np.result_type(image.dtype, np.float32), copy=False)
    return values.reshape(*image.lead, *colours, *values.shape[-2:])


_READERS: dict[str, Callable[[Path, str | None], Array]] = {
    ".npy": _numpy,
    ".npz": _numpy,
    ".mat": _matlab,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".mrd": _acquisitions,
}
