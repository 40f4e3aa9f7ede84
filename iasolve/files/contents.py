"""What passes between a file and the rest of the program: pictures and measurements in one layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measured", "Picture", "Scaling", "Wanted"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Scaling:
    """How the integers of a file become values: ``stored * slope + intercept``.

    Attributes
    ----------
    slope, intercept : float
        ``slope`` is finite and not zero.
    low, high : int
        Range of the integers; narrower than that of their type where only some of the bits are used.
    """

    slope: float
    intercept: float
    low: int
    high: int

    @property
    def identity(self) -> bool:
        """Whether the integers are the values."""
        return self.slope == 1 and self.intercept == 0

    def values(self, stored: Array) -> Array:
        """From integers to values."""
        return stored * np.float64(self.slope) + self.intercept

    def stored(self, values: Array) -> Array:
        """From values to what is to be rounded to integers."""
        return (np.asarray(values, np.float64) - self.intercept) / self.slope


@dataclass(frozen=True, eq=False)
class Picture:
    """An image or a stack of them, as a decoder found it or as an encoder is to write it.

    Attributes
    ----------
    samples : ndarray, shape ``lead + (H, W, S)``
        In the file's own dtype. ``S`` is 1 (grey) or 3 (red, green, blue), plus 1 where ``alpha`` is true. Of a picture
        that is read or written page by page ``(pages, H, W, S)``, on the way out a :class:`.stack.Stack`.
    lead : tuple of int
        Lengths of the page axes; empty where the file has none.
    alpha : bool
        Whether the last sample is opacity.
    icc : bytes or None
        Colour profile, carried through unread.
    key : str or None
        Name under which the samples stand in the file.
    slice_axis : str or None
        What the pages run along.
    scaling : Scaling or None
        How integer samples become values.
    header : object
        What only the file's own format understands, and needs in order to write a result alike.
    note : str
        What was done to the values, for formats that keep a record of it.
    """

    samples: Array
    lead: tuple[int, ...]
    alpha: bool = False
    icc: bytes | None = None
    key: str | None = None
    slice_axis: str | None = None
    scaling: Scaling | None = None
    header: Any = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """K-space as a decoder found it, not yet checked for its values.

    Attributes
    ----------
    kspace : ndarray, shape ``(slices, coils, H, W)``
        Complex.
    sliced, coiled : bool
        Whether the file has an axis of slices, of coils.
    mask : ndarray or None
        The sampling mask that came with it, as it is.
    attributes : mapping
        What else the file says, as plain Python values.
    header : str or None
        Its header as text.
    key : str or None
        Name under which it stands in the file.
    slice_axis : str or None
        What the slices run along.
    count : int or None
        How many slices the file has, where it has an axis of them and some are read without the others.
    """

    kspace: Array
    sliced: bool = False
    coiled: bool = False
    mask: Array | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    header: str | None = None
    key: str | None = None
    slice_axis: str | None = None
    count: int | None = None


@dataclass(frozen=True)
class Wanted:
    """A result, as far as it decides which files can hold it.

    Attributes
    ----------
    suffix : str
        Of the output, lower case, with its dot.
    dtype : numpy.dtype
        Type of the values to be written.
    pages, channels : int
        Their numbers, ``channels`` without opacity.
    alpha : bool
        Whether there is opacity to be kept.
    own : numpy.dtype or None
        Type of the values in the input, where that is a file of the same format; None otherwise.
    """

    suffix: str
    dtype: np.dtype[Any]
    pages: int = 1
    channels: int = 1
    alpha: bool = False
    own: np.dtype[Any] | None = None

    def lacking(self, *types: str) -> str | None:
        """Why a file of these types of values cannot hold it, or None if it can."""
        name = self.dtype.name
        return None if name in types else f"a {self.suffix} file cannot hold {name} values"

    @property
    def coloured(self) -> str | None:
        """Why a file of grey values cannot hold it, or None if it can."""
        return f"a {self.suffix} file cannot hold {self.channels} colours" if self.channels > 1 else None
