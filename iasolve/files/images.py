"""Reading images of every kind into one shape, with what is needed to write a result back alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contents import Picture, Scaling
from .errors import PathInput, UnfitData
from .formats import IMAGE_SUFFIXES, format_of, read_pages, read_picture
from .locating import locate
from .source import Unchanged, require_finite, require_numeric
from .stack import Stack, as_array, is_large, runs

__all__ = ["ImageFile", "open_image", "read_image"]

Array = NDArray[Any]


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
        float64, or complex128 for complex files, in the file's own numeric range (uint8 stays 0..255), with the
        scaling that the file declares applied. From :func:`open_image`, of a long volume, a :class:`.stack.Stack`.
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
        Name of the array in the file, where it has one.
    slice_axis : str or None
        What the pages run along; None where there is a single image.
    scaling : Scaling or None
        How the file's integers became pixels.
    header : object
        What the file's own format needs to write a result alike (affine, patient).

    Examples
    --------
    >>> import tempfile
    >>> from skimage.io import imsave
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     imsave(f"{folder}/grey.png", np.full((40, 60), 7, np.uint8), check_contrast=False)
    ...     image = read_image(f"{folder}/grey.png")
    >>> image.pixels.shape, float(image.pixels.max()), image.dtype
    ((1, 1, 40, 60), 7.0, dtype('uint8'))
    """

    path: Path
    kind: str
    pixels: Array
    dtype: np.dtype[Any]
    lead: tuple[int, ...] = ()
    alpha: Array | None = None
    icc: bytes | None = None
    key: str | None = None
    slice_axis: str | None = None
    scaling: Scaling | None = None
    header: Any = None

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

    def same_format(self, suffix: str) -> bool:
        """Whether files with this suffix are of the format of this file."""
        return format_of(suffix) is not None and format_of(suffix) is format_of(self.kind)

    def lost_in(self, suffix: str) -> list[str]:
        """What this file says besides its pixels that files with this suffix have no place for."""
        facts: list[str] = list(getattr(self.header, "facts", ()))
        return [] if self.same_format(suffix) else facts

    def type_in(self, suffix: str) -> np.dtype[Any]:
        """Type in which a result like this is written to files with this suffix.

        The file's own, unless its integers are scaled and the other format has no place for the scaling: then
        float32, or values between 0 and 1 would be rounded to integers.
        """
        scaled = self.scaling is not None and not self.scaling.identity
        return np.dtype(np.float32) if scaled and not self.same_format(suffix) else self.dtype


def read_image(path: PathInput, key: str | None = None) -> ImageFile:
    """Read an image file.

    PNG, JPEG, BMP, WebP, TIFF (pages, 8- to 64-bit integers, floats, complex), ``.npy`` and ``.npz``; NIfTI and DICOM
    (with their extras), MATLAB's ``.mat``, BART's ``.cfl`` and fastMRI's ``.h5``. Arrays are ``(H, W)`` or
    ``(pages, H, W)``, real or complex, or ``(..., H, W, 3)`` for colour. What a viewer applies is applied: palettes,
    orientation, 1-bit images as 0 and 255, slopes and intercepts. Nothing else is rescaled.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The file; ``"file.npz:key"`` names one array of several (``.npz``, ``.mat``, ``.h5``), and
        ``"file.nii.gz:x"`` the axis that the slices run along.
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

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "image.npy"
    >>> np.save(path, np.zeros((3, 8, 6), np.float32))
    >>> read_image(path).pages
    3
    """
    source, kind, key = locate(path, IMAGE_SUFFIXES, key)
    picture = read_picture(source, kind, key)
    return _image_file(source, kind, picture, _flat(picture, source))


def open_image(path: PathInput, key: str | None = None) -> ImageFile:
    """:func:`read_image`, but of a large file of several pages, ``pixels`` and ``alpha`` are :class:`.stack.Stack`.

    So its pages are in memory a few at a time, where the format has them apart (``.npy``, TIFF, NIfTI, HDF5); of other
    formats they are so in the file's own type. All values are looked at once before anything is returned.

    Parameters
    ----------
    path, key
        As for :func:`read_image`.

    Returns
    -------
    ImageFile

    Raises
    ------
    UnreadableFile, UnfitData
        As :func:`read_image`; and later, when pages are asked for, if the file is no longer what it was.
    """
    source, kind, key = locate(path, IMAGE_SUFFIXES, key)
    if not is_large(source):
        return read_image(source, key)
    unchanged = Unchanged(source)
    picture = read_pages(source, kind, key, slice(0, 1))
    if picture is None:
        picture = read_picture(source, kind, key)
        samples = _flat(picture, source)
        stack = Stack(samples.shape, samples.dtype, lambda rows: samples[rows])
    else:

        def read(rows: slice) -> Array:
            unchanged.require()
            found = read_pages(source, kind, key, rows)
            assert found is not None, "the format has not changed"
            return found.samples

        first = picture.samples
        stack = Stack((math.prod(picture.lead), *first.shape[-3:]), first.dtype, read)
    if len(stack) == 1:
        return _image_file(source, kind, picture, stack[:])
    return _image_file(source, kind, picture, stack)


def _flat(picture: Picture, path: Path) -> Array:
    """Samples ``(pages, H, W, S)``."""
    require_numeric(picture.samples, path)  # of an empty array nothing could be told
    return picture.samples.reshape(-1, *picture.samples.shape[-3:])


def _image_file(path: Path, kind: str, picture: Picture, samples: Array | Stack) -> ImageFile:
    """The file's pixels, checked; ``samples``: ``(pages, H, W, S)``, a stack where they are to be read in runs."""
    require_numeric(samples, path)
    _require_exact(samples, path)
    height, width, count = samples.shape[-3:]
    colours = count - picture.alpha
    scaling = picture.scaling
    wide = np.dtype(np.complex128 if samples.dtype.kind == "c" else np.float64)

    def pixels(run: Array) -> Array:
        values = np.moveaxis(run if scaling is None else scaling.values(run), -1, 1)[:, :colours]
        return np.ascontiguousarray(values, dtype=wide)

    def opacity(run: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(run, -1, 1)[:, colours:])

    require_finite(samples, path)
    if isinstance(samples, Stack):
        planes = as_array(samples.then(pixels, (colours, height, width), wide))
        alpha = as_array(samples.then(opacity, (1, height, width), samples.dtype))
    else:
        planes, alpha = pixels(samples), opacity(samples)
    if scaling is not None:
        require_finite(planes, path)
    return ImageFile(
        path=path,
        kind=kind,
        pixels=planes,
        dtype=samples.dtype,
        lead=picture.lead,
        alpha=alpha if picture.alpha else None,
        icc=picture.icc,
        key=picture.key,
        slice_axis=picture.slice_axis,
        scaling=scaling,
        header=picture.header,
    )


def _require_exact(samples: Array | Stack, path: Path) -> None:
    """Refuse 64-bit integers that float64 would round, since the file could not be written back as it was."""
    limit = 2**53
    if samples.dtype.kind not in "ui" or samples.dtype.itemsize < 8:
        return
    for run in runs(samples) if isinstance(samples, Stack) else [samples]:
        low, high = int(run.min()), int(run.max())
        if high > limit or low < -limit:
            raise UnfitData(
                path,
                f"integers from {low} to {high}",
                "integers within +-2**53, which double precision holds exactly",
                "Scale the data, or save them as float64",
            )
