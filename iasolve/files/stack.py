"""Stacks of images that are read, or made, run by run: of a long volume, a few images are in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stack", "as_array", "is_large", "runs"]

Array = NDArray[Any]

LARGE = 2**22
"""Bytes of a file from which on its images are read in runs."""

RUN = 2**24
"""Bytes of a run."""


class Stack:
    """Equal images, made when they are asked for.

    It stands for an array of its shape where images are taken by their number, or in runs; ``numpy.asarray`` makes all
    of them.

    Parameters
    ----------
    shape : tuple of int
        ``(images, ...)``.
    dtype : numpy.dtype
        Of what ``make`` returns.
    make : callable
        From a slice with a start and a stop to the images of these numbers.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], make: Callable[[slice], Array]) -> None:
        self.shape, self.dtype, self._make = shape, np.dtype(dtype), make

    def __repr__(self) -> str:
        return f"Stack({self.shape}, {self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __getitem__(self, which: Any) -> Array:
        """The images of a number, of a slice without a step, or of several numbers."""
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                raise IndexError(f"a stack is read in runs, and {which} has a step of {step}")
            if stop <= start:
                return np.empty((0, *self.shape[1:]), self.dtype)
            return self._make(slice(start, stop))
        if np.ndim(which):
            return np.stack([self[int(number)] for number in which])
        number = int(which) + (len(self) if which < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"image {which} of {len(self)}")
        image: Array = self._make(slice(number, number + 1))[0]
        return image

    def __iter__(self) -> Iterator[Array]:
        for run in runs(self):
            yield from run

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    def then(self, change: Callable[[Array], Array], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Stack:
        """The stack of what ``change`` makes of each run: ``shape`` and ``dtype`` of one image of it."""
        return Stack((len(self), *shape), dtype, lambda rows: change(self._make(rows)))

    def channels_alone(self) -> Stack:
        """Of ``(images, channels, ...)``: each channel an image of its own, ``(images * channels, 1, ...)``."""
        count, channels, *rest = self.shape

        def make(rows: slice) -> Array:
            first, last = rows.start // channels, -(-rows.stop // channels)
            alone = self._make(slice(first, last)).reshape(-1, 1, *rest)
            return alone[rows.start - first * channels : rows.stop - first * channels]

        return Stack((count * channels, 1, *rest), self.dtype, make)

    def channels_together(self, channels: int) -> Stack:
        """The inverse of :meth:`channels_alone`."""
        count, _, *rest = self.shape

        def make(rows: slice) -> Array:
            return self._make(slice(rows.start * channels, rows.stop * channels)).reshape(-1, channels, *rest)

        return Stack((count // channels, channels, *rest), self.dtype, make)


def as_array(stack: Stack) -> Array:
    """The stack, for whoever takes images by their number or in runs; it stays a stack."""
    return cast(Array, stack)


def runs(images: Array | Stack) -> Iterator[Array]:
    """All images of an array ``(images, ...)``, in order, in runs of about 16 MB, and of one at least."""
    each = max(1, images.dtype.itemsize * math.prod(images.shape[1:]))
    step = max(1, RUN // each)
    for first in range(0, len(images), step):
        yield images[first : first + step]


def is_large(path: Path) -> bool:
    """Whether the images of a file are read in runs, if there are several."""
    return path.stat().st_size >= LARGE
