"""Images of a volume, read from a file in which they lie among each other, without the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Z", "read_planes"]

Array = NDArray[Any]

Z = 2


def read_planes(
    stream: BinaryIO,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    order: Sequence[int],
    numbers: Sequence[int],
) -> Array:
    """Some images of a volume whose first axis is the fastest in the file.

    Parameters
    ----------
    stream : BinaryIO
        The file, uncompressed.
    offset : int
        Where its values begin, bytes.
    shape : tuple of int
        ``(x, y, z, ...)``.
    dtype : numpy.dtype
        Of the values.
    order : sequence of int
        All axes: the further ones, then x, y and z as images, rows, columns.
    numbers : sequence of int
        Of the images wanted, counted over all axes but the last two.

    Returns
    -------
    ndarray, shape ``(len(numbers), rows, columns)``

    Raises
    ------
    EOFError
        If the file ends before.
    """
    *_, along, row, column = order
    images = np.empty((len(numbers), shape[row], shape[column]), dtype)
    places = np.stack(np.unravel_index(np.asarray(numbers), [shape[axis] for axis in order[:-2]]))
    plane = shape[0] * shape[1]

    def xy(volume: int, z: int) -> Array:
        stream.seek(offset + (volume * shape[Z] + z) * plane * dtype.itemsize)
        content = stream.read(plane * dtype.itemsize)
        if len(content) < plane * dtype.itemsize:
            raise EOFError("the values end before they are complete")
        return np.frombuffer(content, dtype).reshape(shape[1], shape[0]).T

    further = [int(np.ravel_multi_index(tuple(one), shape[3:], order="F")) for one in places[:-1].T]
    for volume in sorted(set(further)):
        mine = np.flatnonzero(np.asarray(further) == volume)
        index = places[-1][mine]
        if along == Z:
            for image, z in zip(mine, index, strict=True):
                images[image] = xy(volume, int(z)).transpose(row, column)
            continue
        lines = np.moveaxis(images, 1 + (row, column).index(Z), 0)
        for z in range(shape[Z]):
            # of images across x or y, each plane has one line
            lines[z, mine] = np.moveaxis(xy(volume, z), along, 0)[index]
    return images
