"""Writing a result with the type, range and layout of the input it came from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .atomic import atomic_write, write_together
from .contents import Picture, Scaling, Wanted
from .errors import FileError, PathInput, WriteError
from .formats import KSPACE_OUT_SUFFIXES, WRITABLE_SUFFIXES, format_of, suffix_of
from .images import ImageFile
from .stack import Stack

__all__ = ["can_carry", "require_carry", "suffixes_for", "write_image", "write_kspace"]

Array = NDArray[Any]


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
        False for unknown suffixes, and for DICOM, which needs the DICOM file that the data come from.
    """
    return _obstacle(Wanted(suffix.lower(), np.dtype(dtype), pages, channels, alpha)) is None


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
        suffix for suffix in WRITABLE_SUFFIXES if can_carry(suffix, dtype, pages=pages, channels=channels, alpha=alpha)
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
        With the suffixes that would do; or with how to install what such files need.
    """
    suffix = suffix_of(path)
    target = _type(suffix, like, dtype)
    pages = pages if pages is not None else like.pages if like is not None else 1
    channels = channels if channels is not None else like.channels if like is not None else 1
    alpha = like is not None and _keeps_alpha(like, target, pages)
    own = like.dtype if like is not None and like.same_format(suffix) else None
    obstacle = _obstacle(Wanted(suffix, target, pages, channels, alpha, own))
    if obstacle is not None:
        fitting = suffixes_for(target, pages=pages, channels=channels, alpha=alpha)
        eight_bits = can_carry(suffix, np.uint8, pages=pages, channels=channels) and not can_carry(suffix, np.float32)
        scale = target.kind == "f" and eight_bits
        hint = ", or scale the image to 0..255 and save it as uint8 first" if scale else ""
        raise WriteError(path, obstacle, f"one of {', '.join(fitting)}", f"Change the suffix of the output{hint}")
    entry = format_of(suffix)
    if entry is not None and entry.extra is not None:
        entry.extra.require(path)


def _type(suffix: str, like: ImageFile | None, dtype: DTypeLike | None) -> np.dtype[Any]:
    if dtype is not None:
        return np.dtype(dtype)
    return like.type_in(suffix) if like is not None else np.dtype(np.float32)


def _keeps_alpha(like: ImageFile, dtype: np.dtype[Any], pages: int) -> bool:
    return like.alpha is not None and dtype == like.dtype and pages == like.pages


def _obstacle(wanted: Wanted) -> str | None:
    """Say why files with this suffix cannot hold such data, or None if they can."""
    if wanted.dtype.kind not in "buifc":
        return f"values of type {wanted.dtype.name} are no pixels"
    entry = format_of(wanted.suffix)
    if entry is None or entry.write is None:
        return f"images are not written to {wanted.suffix!r} files" if wanted.suffix else "the name has no suffix"
    return entry.obstacle(wanted)


def write_image(
    path: PathInput,
    array: Array | Stack,
    like: ImageFile | None = None,
    *,
    dtype: DTypeLike | None = None,
    note: str = "",
) -> None:
    """Write a result with the type, range and layout of the input it came from.

    For integer types the values are rounded and clipped to the type's range; integers that the input scales
    (NIfTI, DICOM) are scaled back first where the output is of the same format, which then keeps the input's header
    (affine, patient) too. The page axes become those of
    ``like`` where the number of pages is the same, one page axis otherwise; without ``like``, a single page
    goes without. Colours go last in arrays and TIFF. Opacity and the colour profile are put back where the
    format has a place for them and type, pages (opacity) or channels (profile) are unchanged; opacity of
    another size is resampled to the nearest pixel. Unchanged pixels of a PNG, TIFF, ``.npy`` or ``.npz`` file
    give back exactly the same values. The file appears whole or not at all, and replaces an older one.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Output; its suffix decides the kind of file.
    array : ndarray or Stack, shape ``(pages, channels, H, W)``
        Boolean, integer, floating or complex. ``H``, ``W`` and ``pages`` may differ from those of ``like``. A
        :class:`.stack.Stack` is written run by run, where the format allows it (``.npy``, TIFF, NIfTI, HDF5).
    like : ImageFile, optional
        The input; without it, the array is written in its own type.
    dtype : dtype-like, optional
        Type of the values in the file, in place of that of ``like``.
    note : str
        What was done to the image, for formats that keep a record of it (DICOM).

    Raises
    ------
    WriteError
        If the kind of file cannot hold the data (saying which can), if the array has another number of axes
        or channels, complex values for a real type, or NaN or infinite values, or if writing fails.

    Examples
    --------
    >>> import tempfile
    >>> from iasolve.files import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/result.tif", np.full((1, 1, 40, 60), 0.5, np.float32))
    ...     image = read_image(f"{folder}/result.tif")
    >>> image.pixels.shape, image.dtype
    ((1, 1, 40, 60), dtype('float32'))
    """
    array = array if isinstance(array, Stack) else np.asarray(array)
    if array.ndim != 4 or not array.size or array.shape[1] not in (1, 3) or array.dtype.kind not in "buifc":
        raise WriteError(
            path,
            f"a result of shape {array.shape} and type {array.dtype}",
            "numbers of shape (pages, channels, H, W) with 1 or 3 channels",
            "Reshape the result before writing it",
        )
    pages, channels = array.shape[:2]
    suffix = suffix_of(path)
    target = _type(suffix, like, dtype) if like is not None or dtype is not None else array.dtype
    require_carry(path, like, dtype=target, pages=pages, channels=channels)
    entry = format_of(suffix)
    assert entry is not None, "require_carry refuses other suffixes"
    assert entry.write is not None
    own = like is not None and like.same_format(suffix)
    scaling = like.scaling if like is not None and own and target == like.dtype else None
    if isinstance(array, Stack) and not entry.streams:
        array = np.asarray(array)
    picture = Picture(
        **_layout(_cast(array, target, scaling, path), like, suffix),
        icc=like.icc if like is not None and channels == like.channels else None,
        key=like.key if like is not None and own else None,
        scaling=scaling,
        header=like.header if like is not None and own else None,
        note=note,
    )
    with _encoding(path), write_together():
        for other, content in entry.beside.items():
            with atomic_write(Path(path).with_suffix(other)) as handle:
                handle.write(content(picture))
        with atomic_write(path) as handle:
            entry.write(handle, picture, Path(path))


def write_kspace(path: PathInput, kspace: Array | Stack, mask: NDArray[np.bool_] | None = None) -> None:
    """Write k-space, and its mask where the kind of file has a place for it.

    Parameters
    ----------
    path : str or os.PathLike[str]
        With one of :data:`~iasolve.files.KSPACE_OUT_SUFFIXES`.
    kspace : ndarray or Stack
        Complex, with the axes that it is to have in the file.
    mask : ndarray of bool, shape ``(H, W)``, optional
        What was measured.

    Raises
    ------
    WriteError
        For another kind of file, or if writing fails.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from iasolve.files import read_kspace
    >>> with TemporaryDirectory() as folder:
    ...     write_kspace(path := Path(folder) / "kspace.npy", np.ones((4, 16, 16), np.complex64))
    ...     read_kspace(path).kspace.shape
    (1, 4, 16, 16)
    """
    suffix = suffix_of(path)
    entry = format_of(suffix)
    if entry is None or entry.write_kspace is None:
        raise WriteError(
            path,
            f"k-space is not written to {suffix!r} files" if suffix else "the name has no suffix",
            f"one of {', '.join(KSPACE_OUT_SUFFIXES)}",
            "Change the suffix of the output",
        )
    with atomic_write(path) as handle:
        entry.write_kspace(handle, kspace, mask, Path(path))


@contextmanager
def _encoding(path: PathInput) -> Iterator[None]:
    """Turn what a library raises over metadata that it has read into :class:`WriteError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (FileError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WriteError(
            path,
            f"the file cannot be written ({type(error).__name__}: {reason})",
            "an input whose metadata can be kept",
            "Write the result to .npy or .tif",
        ) from error


def _layout(values: Array | Stack, like: ImageFile | None, suffix: str) -> dict[str, Any]:
    """Samples with the page axes of the input, and its opacity where there is a place for it."""
    pages, _, height, width = values.shape
    entry = format_of(suffix)
    # arrays hold values only and go without
    keeps = entry is not None and entry.opacity and like is not None and _keeps_alpha(like, values.dtype, pages)
    alpha = like.alpha if keeps and like is not None else None

    def samples(run: Array, rows: slice) -> Array:
        last = np.moveaxis(run, 1, -1)
        if alpha is None:
            return last
        return np.concatenate([last, np.moveaxis(_resample(alpha[rows], (height, width)), 1, -1)], axis=-1)

    lead: tuple[int, ...] = () if pages == 1 else (pages,)
    if like is not None and pages == like.pages:
        lead = like.lead
    facts = {"lead": lead, "alpha": alpha is not None}
    if isinstance(values, Stack):
        stack = values
        shape = (pages, height, width, values.shape[1] + (alpha is not None))
        return {"samples": Stack(shape, values.dtype, lambda rows: samples(stack[rows], rows)), **facts}
    whole = samples(values, slice(0, pages))
    return {"samples": whole.reshape(lead + whole.shape[1:]), **facts}


def _cast(array: Array | Stack, dtype: np.dtype[Any], scaling: Scaling | None, path: PathInput) -> Array | Stack:
    if array.dtype.kind == "c" and dtype.kind != "c":
        raise WriteError(
            path,
            f"a complex result for an input of type {dtype}",
            "real values",
            "Take the magnitude (numpy.abs) or the real part, or write it with dtype='complex64' to .npy",
        )

    def cast(run: Array) -> Array:
        if run.dtype == dtype and scaling is None:
            result = run
        elif dtype.kind in "bui":
            _require_finite_result(run, path, "")
            stored = np.asarray(run, np.float64) if scaling is None else scaling.stored(run)
            result = np.clip(np.rint(stored), *_range(dtype, scaling)).astype(dtype)
        else:
            with np.errstate(over="ignore"):
                result = run.astype(dtype)
        _require_finite_result(result, path, f" as {dtype}")
        return result

    return array.then(cast, array.shape[1:], dtype) if isinstance(array, Stack) else cast(array)


def _range(dtype: np.dtype[Any], scaling: Scaling | None) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0.0, 1.0
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if scaling is None else (scaling.low, scaling.high)
    top = float(high)
    if int(top) > high:  # 2**63 - 1 and 2**64 - 1 round up to a float that is out of range
        top = float(np.nextafter(top, 0))
    return float(low), top


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
