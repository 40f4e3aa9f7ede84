"""Reading a measurement of any shape: numbers as they stand in a file, for operators that the file's maker knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PathInput
from .formats import IMAGE_SUFFIXES, MEASUREMENT_SUFFIXES, read_array
from .images import read_image
from .kspace import read_kspace
from .locating import locate
from .source import require_finite, require_numeric

__all__ = ["MeasurementFile", "read_measurement"]

Array = NDArray[Any]

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

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/sinogram.npy", np.ones((1, 181, 18), np.float32))
    ...     measurement = read_measurement(f"{folder}/sinogram.npy")
    >>> measurement.values.shape
    (1, 181, 18)
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
    array = read_array(source, kind, key, NAMES)
    if array is not None:
        values = array
    else:
        values = _picture(source, key) if kind in IMAGE_SUFFIXES else read_kspace(source, key).kspace
    require_numeric(values, source)
    require_finite(values, source)
    return MeasurementFile(source, kind, np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))


def _picture(path: Path, key: str | None) -> Array:
    image = read_image(path, key)
    colours = (image.channels,) if image.channels > 1 else ()
    # small integers are exact in single precision, in which the solver works
    values = image.pixels.astype(np.result_type(image.dtype, np.float32), copy=False)
    return values.reshape(*image.lead, *colours, *values.shape[-2:])
