"""Images that iasolve has written, or their truth: arrays of volumes among them, whose axes only their writer knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iasolve.files import ImageFile, UnfitData, open_image, read_measurement, suffix_of

__all__ = ["open_result"]


def open_result(path: Path) -> ImageFile:
    """:func:`iasolve.files.open_image`, where all but the last two axes of an array may be pages.

    An array ``(T, Z, H, W)`` of a volume is refused as a measurement: its second axis might be that of colours. Of a
    result the report, and of a truth the other image, tells which it is.

    Raises
    ------
    FileError
    """
    try:
        return open_image(path)
    except UnfitData:
        suffix = suffix_of(path)
        if suffix not in (".npy", ".npz"):
            raise
        values = read_measurement(path).values
        if values.ndim < 4:
            raise
    wide = np.complex128 if values.dtype.kind == "c" else np.float64
    pages = values.reshape(-1, 1, *values.shape[-2:]).astype(wide)
    return ImageFile(path, suffix, pages, values.dtype, lead=values.shape[:-2], slice_axis="first axis")
