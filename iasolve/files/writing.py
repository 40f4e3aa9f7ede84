"""Writing a result with the type, range and layout of the input it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .arrays import save_array
from .atomic import atomic_write
from .errors import PathInput, WriteError
from .images import IMAGE_SUFFIXES, ImageFile
from .raster import encode_raster
from .tiff import encode_tiff

__all__ = ["can_carry", "require_carry", "suffixes_for", "write_image"]

Array = NDArray[Any]

# By name, since the byte order of an array does not matter here.
TIFF_TYPES = frozenset(
    [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)]
    + ["float16", "float32", "float64", "complex64", "complex128"]
)


def can_carry(suffix: str, dtype: DTypeLike, *, pages: int = 1, channels: int = 1, alpha: bool = False) -> bool:
    """Whether files with this suffix can hold such data without loss of type, pages or channels.

    Parameters
    ----------
    suffix : str
        With its dot, any case.
    dtype : dtype-like
        Type of the values to be written.
    pages, channels : int
        Their numbers; ``channels`` without opacity.
    alpha : bool
        Whether there is opacity to be kept. ``.npy`` and ``.npz`` hold values only and simply go without.

    Returns
    -------
    bool
        False for unknown suffixes.
    """
    return _obstacle(suffix.lower(), np.dtype(dtype), pages, channels, alpha) is None


def suffixes_for(dtype: DTypeLike, *, pages: int = 1, channels: int = 1, alpha: bool = False) -> tuple[str, ...]:
    """Suffixes that can hold such data.

    Parameters
    ----------
    dtype, pages, channels, alpha
        As for :func:`can_carry`.

    Returns
    -------
    tuple of str
        With their dots.
    """
    return tuple(
        suffix for suffix in IMAGE_SUFFIXES if can_carry(suffix, dtype, pages=pages, channels=channels, alpha=alpha)
    )


def require_carry(
    path: PathInput,
    like: ImageFile | None = None,
    *,
    dtype: DTypeLike | None = None,
    pages: int | None = None,
    channels: int | None = None,
) -> None:
    """Check, before the work is done, that its result can be written to ``path``.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Output to be; only its suffix is looked at.
    like : ImageFile, optional
        The input whose type and layout the result will have.
    dtype, pages, channels : optional
        What will differ from ``like``, or all there is to know without one (then ``dtype`` defaults to
        float32, the others to 1).

    Raises
    ------
    WriteError
        With the suffixes that would do.
    """
    target = np.dtype(dtype) if dtype is not None else like.dtype if like is not None else np.dtype(np.float32)
    pages = pages if pages is not None else like.pages if like is not None else 1
    channels = channels if channels is not None else like.channels if like is not None else 1
    alpha = like is not None and _keeps_alpha(like, target, pages)
    suffix = Path(path).suffix.lower()
    obstacle = _obstacle(suffix, target, pages, channels, alpha)
    if obstacle is not None:
        fitting = suffixes_for(target, pages=pages, channels=channels, alpha=alpha)
        hint = ""
        if suffix in (".png", ".jpg", ".jpeg") and target.kind == "f":
            hint = ", or scale the image to 0..255 and save it as uint8 first"
        raise WriteError(path, obstacle, f"one of {', '.join(fitting)}", f"Change the suffix of the output{hint}")


def _keeps_alpha(like: ImageFile, dtype: np.dtype[Any], pages: int) -> bool:
    return like.alpha is not None and dtype == like.dtype and pages == like.pages


def _obstacle(suffix: str, dtype: np.dtype[Any], pages: int, channels: int, alpha: bool) -> str | None:
    """Say why files with this suffix cannot hold such data, or None if they can."""
    name = dtype.name
    if dtype.kind not in "buifc":
        return f"values of type {name} are no pixels"
    if suffix in (".npy", ".npz"):
        return None
    if suffix in (".tif", ".tiff"):
        return None if name in TIFF_TYPES else f"a {suffix} file cannot hold {name} values"
    if suffix not in IMAGE_SUFFIXES:
        return f"images are not written to {suffix!r} files" if suffix else "the name has no suffix"
    jpeg = suffix != ".png"
    if name != "uint8" and (jpeg or name != "uint16"):
        return f"a {suffix} file cannot hold {name} values"
    if pages > 1:
        return f"a {suffix} file cannot hold {pages} pages"
    if jpeg and alpha:
        return f"a {suffix} file cannot hold the transparency of the input"
    if name == "uint16" and (channels > 1 or alpha):
        return f"a {suffix} file with colour or transparency cannot be written in 16 bits"
    return None


def write_image(
    path: PathInput, array: Array, like: ImageFile | None = None, *, dtype: DTypeLike | None = None
) -> None:
    """Write a result with the type, range and layout of the input it came from.

    For integer types the values are rounded and clipped to the type's range. The page axes become those of
    ``like`` where the number of pages is the same, one page axis otherwise; without ``like``, a single page
    goes without. Colours go last in arrays and TIFF. Opacity and the colour profile are put back where the
    format has a place for them and type, pages (opacity) or channels (profile) are unchanged; opacity of
    another size is resampled to the nearest pixel. Unchanged pixels of a PNG, TIFF, ``.npy`` or ``.npz`` file
    give back exactly the same values. The file appears whole or not at all, and replaces an older one.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Output; its suffix decides the kind of file.
    array : ndarray, shape ``(pages, channels, H, W)``
        Boolean, integer, floating or complex. ``H``, ``W`` and ``pages`` may differ from those of ``like``.
    like : ImageFile, optional
        The input; without it, the array is written in its own type.
    dtype : dtype-like, optional
        Type of the values in the file, in place of that of ``like``.

    Raises
    ------
    WriteError
        If the kind of file cannot hold the data (saying which can), if the array has another number of axes
        or channels, complex values for a real type, or NaN or infinite values, or if writing fails.
    """
    array = np.asarray(array)
    if array.ndim != 4 or not array.size or array.shape[1] not in (1, 3) or array.dtype.kind not in "buifc":
        raise WriteError(
            path,
            f"a result of shape {array.shape} and type {array.dtype}",
            "numbers of shape (pages, channels, H, W) with 1 or 3 channels",
            "Reshape the result before writing it",
        )
    pages, channels = array.shape[:2]
    target = np.dtype(dtype) if dtype is not None else like.dtype if like is not None else array.dtype
    require_carry(path, like, dtype=target, pages=pages, channels=channels)
    samples = np.moveaxis(_cast(array, target, path), 1, -1)
    kind = Path(path).suffix.lower()
    alpha = like is not None and kind in (".png", ".tif", ".tiff") and _keeps_alpha(like, target, pages)
    if alpha and like is not None and like.alpha is not None:
        opacity = np.moveaxis(_resample(like.alpha, array.shape[2:]), 1, -1)
        samples = np.concatenate([samples, opacity], axis=-1)
    lead: tuple[int, ...] = () if pages == 1 else (pages,)
    if like is not None and pages == like.pages:
        lead = like.lead
    samples = samples.reshape(lead + samples.shape[1:])
    icc = like.icc if like is not None and channels == like.channels else None
    with atomic_write(path) as handle:
        if kind in (".npy", ".npz"):
            values = samples if channels > 1 else samples[..., 0]
            save_array(handle, np.ascontiguousarray(values), kind, like.key if like is not None else None)
        elif kind in (".tif", ".tiff"):
            encode_tiff(handle, samples, alpha, icc)
        else:
            encode_raster(handle, samples.reshape(samples.shape[-3:]), kind, icc)


def _cast(array: Array, dtype: np.dtype[Any], path: PathInput) -> Array:
    if array.dtype.kind == "c" and dtype.kind != "c":
        raise WriteError(
            path,
            f"a complex result for an input of type {dtype}",
            "real values",
            "Take the magnitude (numpy.abs) or the real part, or write it with dtype='complex64' to .npy",
        )
    if array.dtype == dtype:
        result = array
    elif dtype.kind in "bui":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        top = float(high)
        if int(top) > high:  # 2**63 - 1 and 2**64 - 1 round up to a float that is out of range
            top = float(np.nextafter(top, 0))
        _require_finite_result(array, path, "")
        result = np.clip(np.rint(np.asarray(array, np.float64)), float(low), top).astype(dtype)
    else:
        with np.errstate(over="ignore"):
            result = array.astype(dtype)
    _require_finite_result(result, path, f" as {dtype}")
    return result


def _require_finite_result(array: Array, path: PathInput, note: str) -> None:
    bad = 0 if array.dtype.kind not in "fc" else int((~np.isfinite(array)).sum())
    if bad:
        raise WriteError(
            path,
            f"{bad} of {array.size} values of the result are NaN or infinite{note}",
            "finite values",
            "Check the noise level and the operator of the run, or write a wider type",
        )


def _resample(alpha: Array, shape: tuple[int, ...]) -> Array:
    """Pick the nearest opacity for each pixel of an image of another size."""
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(shape, alpha.shape[2:], strict=True)
    )
    return alpha[:, :, rows[:, np.newaxis], columns]
