"""What comes along with an image: sampling masks and blur kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PathInput, UnfitData
from .formats import PLANE_SUFFIXES, read_array, read_picture
from .locating import locate
from .source import require_finite

__all__ = ["mask_from", "read_kernel", "read_mask"]

Array = NDArray[Any]


def read_mask(path: PathInput, key: str | None = None) -> NDArray[np.bool_]:
    """Read a sampling mask.

    Parameters
    ----------
    path : str or os.PathLike[str]
        ``.npy``, ``.npz`` (``"file.npz:key"``, or the array named ``mask``), PNG or TIFF.
    key : str, optional
        Name of the array in an ``.npz`` file.

    Returns
    -------
    ndarray of bool, shape ``(H, W)`` or ``(1, W)``
        A 1-D array of length ``W`` (one value a column, as in fastMRI) becomes ``(1, W)``. True: measured.

    Raises
    ------
    UnreadableFile
        Missing, truncated, corrupt, or of another kind.
    UnfitData
        Values other than 0 and 1, or 0 and 255; another number of axes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "mask.npy"
    >>> np.save(path, np.eye(4))
    >>> read_mask(path).shape
    (4, 4)
    """
    source, array = _read_plane(path, key, "mask")
    return mask_from(array, source)


def mask_from(array: Array, path: PathInput) -> NDArray[np.bool_]:
    """Check and convert an array to a mask.

    Parameters
    ----------
    array : ndarray, shape ``(W,)`` or ``(H, W)``
        Values 0 and 1, or 0 and 255.
    path : str or os.PathLike[str]
        Its file, for the message.

    Returns
    -------
    ndarray of bool, shape ``(1, W)`` or ``(H, W)``
        True where the array is not 0.

    Raises
    ------
    UnfitData
        For other values or another number of axes.
    """
    if array.ndim not in (1, 2):
        raise UnfitData(path, f"a mask of shape {array.shape}", "(H, W), or (W,) for columns", "Save one plane of it")
    values = np.unique(array)
    nonzero = values[values != 0]
    if nonzero.size > 1 or (nonzero.size == 1 and nonzero[0] not in (1, 255)):
        shown = ", ".join(str(value) for value in values[:6]) + (", ..." if values.size > 6 else "")
        raise UnfitData(
            path,
            f"{values.size} different values in a mask ({shown})",
            "0 (not measured) and 1 or 255 (measured)",
            "Threshold it: numpy.save(path, array > 0.5 * array.max())",
        )
    return np.atleast_2d(np.asarray(array != 0, dtype=np.bool_))


def read_kernel(path: PathInput, key: str | None = None) -> NDArray[np.float64]:
    """Read a blur kernel, as it is: it is *not* normalised, so look at its sum.

    Parameters
    ----------
    path : str or os.PathLike[str]
        ``.npy``, ``.npz`` (``"file.npz:key"``, or the array named ``kernel``), PNG or TIFF. Images keep their
        range: an 8-bit kernel sums to up to 255 times its area.
    key : str, optional
        Name of the array in an ``.npz`` file.

    Returns
    -------
    ndarray of float64, shape ``(h, w)``
        Finite, with a sum that is not zero. Values may be negative.

    Raises
    ------
    UnreadableFile
        Missing, truncated, corrupt, or of another kind.
    UnfitData
        Not 2-D, complex, NaN or infinite, or with a sum of zero (to within rounding).

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "psf.npy"
    >>> np.save(path, np.ones((3, 3)))
    >>> read_kernel(path).shape
    (3, 3)
    """
    source, array = _read_plane(path, key, "kernel")
    if array.ndim != 2 or array.dtype.kind == "c":
        raise UnfitData(
            source,
            f"a kernel of shape {array.shape} and type {array.dtype}",
            "a real array (h, w)",
            "Save one plane",
        )
    require_finite(array, source)
    kernel = array.astype(np.float64)
    if abs(kernel.sum()) <= 1e-12 * np.abs(kernel).sum():
        raise UnfitData(
            source,
            "a kernel whose values sum to zero, which would wipe out the mean of the image",
            "a sum that is not zero",
            "Check that the array is a point spread function and not a derivative or an empty plane",
        )
    return kernel


def _read_plane(path: PathInput, key: str | None, name: str) -> tuple[Path, Array]:
    source, kind, key = locate(path, PLANE_SUFFIXES, key)
    array = read_array(source, kind, key, (name,))
    if array is not None:
        return source, array
    picture = read_picture(source, kind, key)
    samples = picture.samples
    if picture.alpha:
        opacity, samples = samples[..., -1], samples[..., :-1]
        # A floating-point file has no fixed value for "opaque"; a constant one hides nothing either way.
        if opacity.min() != opacity.max():
            raise UnfitData(source, f"a {name} with transparent parts", "an opaque image", "Flatten the image")
    # Paint programs save black and white as RGB.
    if not bool((samples == samples[..., :1]).all()):
        raise UnfitData(source, f"a {name} in colour", "a grey image", "Convert it to greyscale")
    return source, samples[..., 0]
