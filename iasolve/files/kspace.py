"""Reading k-space: NumPy arrays and fastMRI's HDF5 files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import load_array, npz_keys
from .errors import PathInput, UnfitData
from .locating import locate
from .planes import mask_from
from .source import decoding, require_finite, require_numeric, require_plausible

__all__ = ["KSPACE_SUFFIXES", "KSpaceFile", "read_kspace"]

Array = NDArray[Any]

KSPACE_SUFFIXES = (".h5", ".hdf5", ".npy", ".npz")
H5_SUFFIXES = (".h5", ".hdf5")


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
        complex64 or complex128, as in the file; neither shifted nor scaled.
    mask : ndarray of bool or None, shape ``(1, W)`` or ``(H, W)``
        The sampling mask that came with it. True: measured.
    attributes : mapping
        The file's attributes as plain Python values (fastMRI: acquisition, max, norm, patient_id).
    sliced, coiled : bool
        Whether the array in the file has an axis of slices, of coils.
    header : str or None
        The ISMRMRD header (XML) of a fastMRI file, unparsed.
    key : str or None
        Name of the array in the file.
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

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values, complex64 or complex128."""
        return self.kspace.dtype

    @property
    def slices(self) -> int:
        """Number of slices."""
        return int(self.kspace.shape[0])

    @property
    def coils(self) -> int:
        """Number of coils."""
        return int(self.kspace.shape[1])


def read_kspace(path: PathInput, key: str | None = None, *, slices: slice | None = None) -> KSpaceFile:
    """Read a k-space file.

    ``.npy`` and ``.npz`` arrays are ``(H, W)``, ``(coils, H, W)`` or ``(slices, coils, H, W)``; fastMRI's
    ``.h5`` files are ``(slices, H, W)`` for a single coil and ``(slices, coils, H, W)`` for several. An array
    named ``mask`` next to one named ``kspace`` is its mask.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The file; ``"file.npz:key"`` or ``"file.h5:key"`` names one array of several.
    key : str, optional
        The same key, apart from the path. By default ``kspace``, or the only array of an ``.npz`` file.
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
    """
    source, kind, key = locate(path, KSPACE_SUFFIXES, key)
    if kind in H5_SUFFIXES:
        return _read_h5(source, kind, key or "kspace", slices)
    array, found = load_array(source, key, prefer=("kspace",))
    _require_kspace(array.shape, array.dtype, source, ("H, W", "coils, H, W", "slices, coils, H, W"))
    kspace = array[(np.newaxis,) * (4 - array.ndim)]
    mask = None
    if kind == ".npz" and found == "kspace" and "mask" in npz_keys(source):
        mask = _fitting_mask(load_array(source, "mask")[0], kspace, source)
    kspace = _native(kspace if slices is None else kspace[slices], source)
    return KSpaceFile(source, kind, kspace, mask, {}, array.ndim == 4, array.ndim >= 3, None, found)


def _read_h5(source: Path, kind: str, key: str, slices: slice | None) -> KSpaceFile:
    import h5py

    header = mask = None
    with decoding(source, "a complete HDF5 file"), h5py.File(source, "r") as file:
        if key not in file or not isinstance(file[key], h5py.Dataset):
            listing = ", ".join(f"{name} {getattr(item, 'shape', '(group)')}" for name, item in file.items())
            raise UnfitData(
                source,
                f"no dataset named {key!r}",
                f"one of those it holds ({listing or 'none'})",
                f"Name the k-space, as in {source.name}:kspace; image-only files cannot be used as k-space",
            )
        data = file[key]
        _require_kspace(data.shape or (), data.dtype, source, ("slices, H, W", "slices, coils, H, W"))
        require_plausible(int(data.nbytes), source)
        kspace = np.asarray(data[slices or slice(None)])
        attributes = {str(name): _python(value) for name, value in file.attrs.items()}
        if key == "kspace":
            mask = np.asarray(file["mask"][()]) if "mask" in file else None
            header = _python(file["ismrmrd_header"][()]) if "ismrmrd_header" in file else None
    coiled = kspace.ndim == 4
    kspace = _native(kspace if coiled else kspace[:, np.newaxis], source)
    fitting = None if mask is None else _fitting_mask(mask, kspace, source)
    text = header if isinstance(header, str) else None
    return KSpaceFile(source, kind, kspace, fitting, attributes, True, coiled, text, key)


def _require_kspace(shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, layouts: tuple[str, ...]) -> None:
    wanted = " or ".join(f"({layout})" for layout in layouts)
    if dtype.kind != "c":
        advice = "If this is an image, give it as an image: k-space is made from it by the measurement"
        if shape and shape[-1] == 2:
            advice = (
                "Its last axis of 2 looks like real and imaginary parts: join them with "
                "a[..., 0] + 1j * a[..., 1] and save that"
            )
        raise UnfitData(path, f"values of type {dtype}, shape {shape}", f"complex k-space, {wanted}", advice)
    if len(shape) not in [layout.count(",") + 1 for layout in layouts]:
        raise UnfitData(path, f"k-space of shape {shape}", wanted, "Reshape it to one of these and save it again")


def _native(kspace: Array, path: Path) -> Array:
    require_numeric(kspace, path)
    require_finite(kspace, path)
    return np.ascontiguousarray(kspace, dtype=kspace.dtype.newbyteorder("="))


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
