"""Reading images of every kind into one shape, with what is needed to write a result back alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import decode_array
from .errors import PathInput, UnfitData
from .locating import locate
from .raster import decode_raster
from .source import Decoded, require_finite, require_numeric
from .tiff import decode_tiff

__all__ = ["IMAGE_SUFFIXES", "ImageFile", "read_image"]

Array = NDArray[Any]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".npz")


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image, or a stack of equal images, as it was found in a file.

    Attributes
    ----------
    path : Path
        The file.
    kind : str
        Its suffix, lower case, with the dot.
    pixels : ndarray, shape ``(pages, channels, H, W)``
        float64, or complex128 for complex files, in the file's own numeric range (uint8 stays 0..255).
        ``channels`` is 1 (grey) or 3 (red, green, blue); opacity is not among them.
    dtype : numpy.dtype
        Type of the values in the file.
    lead : tuple of int
        Lengths of the file's page axes, whose product is ``pages``; empty where it has none.
    alpha : ndarray or None, shape ``(pages, 1, H, W)``
        Opacity in the file's dtype. It is no measurement, so it is kept aside and put back on writing.
    icc : bytes or None
        Colour profile, carried through.
    key : str or None
        Name of the array in an ``.npz`` file.
    """

    path: Path
    kind: str
    pixels: Array
    dtype: np.dtype[Any]
    lead: tuple[int, ...] = ()
    alpha: Array | None = None
    icc: bytes | None = None
    key: str | None = None

    @property
    def paged(self) -> bool:
        """Whether the file has a page axis."""
        return bool(self.lead)

    @property
    def pages(self) -> int:
        """Number of pages."""
        return int(self.pixels.shape[0])

    @property
    def channels(self) -> int:
        """Number of colour channels, 1 or 3."""
        return int(self.pixels.shape[1])

    @property
    def layout(self) -> str:
        """Channel layout of the file: ``"grey"``, ``"grey+alpha"``, ``"rgb"`` or ``"rgb+alpha"``."""
        return ("grey" if self.channels == 1 else "rgb") + ("" if self.alpha is None else "+alpha")

    @property
    def is_complex(self) -> bool:
        """Whether the file holds complex values."""
        return self.dtype.kind == "c"


def read_image(path: PathInput, key: str | None = None) -> ImageFile:
    """Read an image file.

    PNG, JPEG, TIFF (pages, 8- to 64-bit integers, floats, complex), ``.npy`` and ``.npz``. Arrays are
    ``(H, W)`` or ``(pages, H, W)``, real or complex, or ``(..., H, W, 3)`` for colour. What a viewer applies
    is applied: palettes, orientation, 1-bit images as 0 and 255. Nothing is rescaled.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The file; ``"file.npz:key"`` names one array of several.
    key : str, optional
        The same key, apart from the path.

    Returns
    -------
    ImageFile
        Pixels and what is needed to write a result back alike.

    Raises
    ------
    UnreadableFile
        Missing, truncated, corrupt, or of an unknown kind.
    UnfitData
        Readable, but NaN or infinite, empty, ambiguous, of an unusable shape, colour model or type, or with
        integers that float64 cannot hold exactly.
    """
    source, kind, key = locate(path, IMAGE_SUFFIXES, key)
    if key is not None and kind not in (".npy", ".npz"):
        raise UnfitData(source, f"the key {key!r} was given", "a key for .npz files only", "Leave the key out")
    decoded, key = decode_any(source, kind, key)
    samples = decoded.samples
    require_numeric(samples, source)
    require_finite(samples, source)
    _require_exact(samples, source)
    height, width, count = samples.shape[-3:]
    planes = np.moveaxis(samples.reshape(-1, height, width, count), -1, 1)
    colours = count - decoded.alpha
    wide = np.complex128 if samples.dtype.kind == "c" else np.float64
    return ImageFile(
        path=source,
        kind=kind,
        pixels=np.ascontiguousarray(planes[:, :colours], dtype=wide),
        dtype=samples.dtype,
        lead=decoded.lead,
        alpha=np.ascontiguousarray(planes[:, colours:]) if decoded.alpha else None,
        icc=decoded.icc,
        key=key,
    )


def decode_any(source: Path, kind: str, key: str | None) -> tuple[Decoded, str | None]:
    """Decode an image file by its suffix.

    Parameters
    ----------
    source : Path
        An existing file.
    kind : str
        Its suffix, one of :data:`IMAGE_SUFFIXES`.
    key : str or None
        Name of the array in an ``.npz`` file.

    Returns
    -------
    tuple of (Decoded, str or None)
        Samples in the file's dtype, and the name an array was found under.

    Raises
    ------
    UnreadableFile, UnfitData
        From the decoder.
    """
    if kind in (".npy", ".npz"):
        return decode_array(source, key)
    return (decode_tiff(source) if kind in (".tif", ".tiff") else decode_raster(source)), None


def _require_exact(samples: Array, path: Path) -> None:
    """Refuse 64-bit integers that float64 would round, since the file could not be written back as it was."""
    limit = 2**53
    if samples.dtype.kind in "ui" and (int(samples.max()) > limit or int(samples.min()) < -limit):
        raise UnfitData(
            path,
            f"integers from {samples.min()} to {samples.max()}",
            "integers within +-2**53, which double precision holds exactly",
            "Scale the data, or save them as float64",
        )
