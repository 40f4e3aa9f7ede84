"""Reading k-space of every kind into one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contents import Measured
from .errors import PathInput, UnfitData
from .formats import KSPACE_SUFFIXES, read_kspace_of
from .kinds.ismrmrd_header import reconstructed_size
from .locating import locate
from .planes import mask_from
from .source import Unchanged, require_finite, require_numeric
from .stack import Stack, as_array, is_large

__all__ = ["KSpaceFile", "open_kspace", "read_kspace"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class KSpaceFile:
    """K-space as it was found in a file.

    Attributes
    ----------
    path : Path
        The file.
    kind : str
        Its suffix, lower case, with the dot.
    kspace : ndarray, shape ``(slices, coils, H, W)``
        complex64 or complex128, as in the file: neither shifted nor scaled (but see :mod:`.ismrmrd`). From
        :func:`open_kspace`, of a long volume, a :class:`.stack.Stack`.
    mask : ndarray of bool or None, shape ``(1, W)`` or ``(H, W)``
        The sampling mask that came with it. True: measured.
    attributes : mapping
        The file's attributes as plain Python values (fastMRI: acquisition, max, norm, patient_id).
    sliced, coiled : bool
        Whether the array in the file has an axis of slices, of coils.
    header : str or None
        The ISMRMRD header (XML), unparsed.
    key : str or None
        Name of the array in the file.
    slice_axis : str or None
        What the slices run along; None where there is a single one without an axis.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/scan.npy", np.ones((8, 64, 48), np.complex64))
    ...     scan = read_kspace(f"{folder}/scan.npy")
    >>> scan.kspace.shape, scan.coiled, scan.sliced
    ((1, 8, 64, 48), True, False)
    """

    path: Path
    kind: str
    kspace: Array
    mask: NDArray[np.bool_] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sliced: bool = False
    coiled: bool = False
    header: str | None = None
    key: str | None = None
    slice_axis: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, complex64 or complex128."""
        return self.kspace.dtype

    @property
    def slices(self) -> int:
        """Number of slices."""
        return int(self.kspace.shape[0])

    @property
    def field_of_view(self) -> tuple[int, int]:
        """Size of the image that the scan was made for: less than ``(H, W)`` where the header tells of oversampling."""
        height, width = self.kspace.shape[-2:]
        size = reconstructed_size(self.header) or (height, width)
        return min(size[0], height), min(size[1], width)

    @property
    def coils(self) -> int:
        """Number of coils."""
        return int(self.kspace.shape[1])


def read_kspace(path: PathInput, key: str | None = None, *, slices: slice | None = None) -> KSpaceFile:
    """Read a k-space file.

    ``.npy`` and ``.npz`` arrays are ``(H, W)``, ``(coils, H, W)`` or ``(slices, coils, H, W)``; fastMRI's
    ``.h5`` files are ``(slices, H, W)`` for a single coil and ``(slices, coils, H, W)`` for several. MATLAB's arrays
    are ``(H, W, coils, slices)``, BART's ``(x, y, z, coils, ...)``. ISMRMRD files (``.h5``, ``.mrd``) are sorted into
    Cartesian k-space. An array named ``mask`` next to one named ``kspace`` is its mask.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The file; ``"file.npz:key"`` or ``"file.h5:key"`` names one array of several.
    key : str, optional
        The same key, apart from the path. By default ``kspace``, or the only array of the file.
    slices : slice, optional
        Read only these slices; of an ``.h5`` file the rest is not loaded at all.

    Returns
    -------
    KSpaceFile
        With ``kspace`` of shape ``(slices, coils, H, W)``.

    Raises
    ------
    UnreadableFile
        Missing, truncated, corrupt, or of an unknown kind.
    UnfitData
        Readable, but not complex, NaN or infinite, empty, ambiguous or of an unusable shape; or a mask that
        does not fit.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "kspace.npy"
    >>> np.save(path, np.ones((4, 8, 6), np.complex64))
    >>> read_kspace(path).kspace.shape
    (1, 4, 8, 6)
    """
    source, kind, key = locate(path, KSPACE_SUFFIXES, key)
    found = read_kspace_of(source, kind, key, slices)
    return _kspace_file(source, kind, found, found.kspace)


def open_kspace(path: PathInput, key: str | None = None) -> KSpaceFile:
    """:func:`read_kspace`, but of a large file of several slices, ``kspace`` is a :class:`.stack.Stack`.

    So its slices are in memory a few at a time, where the format has them apart (``.npy``, fastMRI's ``.h5``). All
    values are looked at once before anything is returned.

    Parameters
    ----------
    path, key
        As for :func:`read_kspace`.

    Returns
    -------
    KSpaceFile

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`read_kspace`; and later, when slices are asked for, if the file is no longer what it was.
    """
    source, kind, key = locate(path, KSPACE_SUFFIXES, key)
    if not is_large(source):
        return read_kspace(source, key)
    unchanged = Unchanged(source)
    first = read_kspace_of(source, kind, key, slice(0, 1))
    if first.count is None:
        return read_kspace(source, key)

    def read(rows: slice) -> Array:
        unchanged.require()
        return read_kspace_of(source, kind, key, rows).kspace

    stack = Stack((first.count, *first.kspace.shape[1:]), first.kspace.dtype, read)
    return _kspace_file(source, kind, first, stack)


def _kspace_file(path: Path, kind: str, found: Measured, values: Array | Stack) -> KSpaceFile:
    kspace = _native(values, path)
    return KSpaceFile(
        path=path,
        kind=kind,
        kspace=kspace,
        mask=None if found.mask is None else _fitting_mask(found.mask, kspace, path),
        attributes=found.attributes,
        sliced=found.sliced,
        coiled=found.coiled,
        header=found.header,
        key=found.key,
        slice_axis=found.slice_axis,
    )


_MOST_COILS = 128
"""More than any receive array has."""


def _native(kspace: Array | Stack, path: Path) -> Array:
    require_numeric(kspace, path)
    require_finite(kspace, path)
    slices, coils, height, width = kspace.shape
    if coils > _MOST_COILS:
        raise UnfitData(
            path,
            f"{coils} coils of {height} x {width} positions in {slices} slice(s)",
            f"(H, W), (coils, H, W) or (slices, coils, H, W), of at most {_MOST_COILS} coils",
            "Are the coils the last axis? Bring them before the image's axes, as in numpy.moveaxis(kspace, -1, -3); "
            "give slices of one coil as (slices, 1, H, W)",
        )
    dtype = kspace.dtype.newbyteorder("=")
    if isinstance(kspace, Stack):
        return as_array(kspace.then(lambda run: np.ascontiguousarray(run, dtype=dtype), kspace.shape[1:], dtype))
    return np.ascontiguousarray(kspace, dtype=dtype)


def _fitting_mask(array: Array, kspace: Array, path: Path) -> NDArray[np.bool_]:
    require_numeric(array, path)
    mask = mask_from(array, path)
    height, width = kspace.shape[-2:]
    if mask.shape not in ((height, width), (1, width)):
        raise UnfitData(
            path,
            f"a mask of shape {array.shape} next to k-space of {height} x {width}",
            f"({width},), (1, {width}) or ({height}, {width})",
            "Save the mask that belongs to this k-space",
        )
    return mask
