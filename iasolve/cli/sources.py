"""Measurements as the solving commands read them; NumPy only, so that a bad file is refused at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iasolve.cli.errors import UnfitInput
from iasolve.files import ImageFile, KSpaceFile, Stack, open_image, open_kspace, read_kspace, read_mask, runs
from iasolve.files.stack import as_array
from iasolve.sampling import measured_positions

__all__ = ["Source", "centred_ifft2", "image_source", "kspace_source"]

Array = NDArray[Any]

_AXES = (-2, -1)


@dataclass(frozen=True, eq=False)
class Source:
    """One measurement.

    Attributes
    ----------
    y : ndarray, shape ``(pages, channels, H, W)``
        Image, or k-space with the coils as channels; of a long volume a :class:`iasolve.files.Stack`.
    like : ImageFile
        The type, shape and layout in which the result is written; its pixels are shown as the input in figures.
    facts : dict
        For the report.
    notes : list of str
        For the user.
    mask : ndarray of bool or None, shape ``(H, W)``
        K-space only; None where its slices were sampled differently.
    crop : tuple of slice
        Rows and columns of the solution that are the result; all by default.
    maps : ndarray or None, shape ``(coils, H, W)`` or ``(pages, coils, H, W)``
        Sensitivities, where the user gives them.
    size : (int, int) or None
        Of the images that are solved for, where the measurement's own is another.
    choice : dict
        Of a prior, where it was chosen: see :class:`iasolve.inference.Choice`.
    """

    y: Array
    like: ImageFile
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mask: NDArray[np.bool_] | None = None
    maps: Array | None = None
    crop: tuple[slice, slice] = (slice(None), slice(None))
    size: tuple[int, int] | None = None
    choice: dict[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images that are solved for."""
        height, width = self.y.shape[-2:]
        return self.size or (height, width)

    @cached_property
    def largest(self) -> float:
        """Largest magnitude."""
        return max(float(np.abs(page).max()) for page in self.y)

    def of(self, rows: slice, y: Array) -> Source:
        """The same for some of its slices, whose values are ``y``."""
        each = self.maps is not None and self.maps.ndim == 4
        return replace(self, y=y, maps=self.maps[rows] if each and self.maps is not None else self.maps)


def image_source(path: Path) -> Source:
    """Open an image that is itself the measurement.

    Raises
    ------
    FileError
    """
    image = open_image(path)
    return Source(image.pixels, image)


def kspace_source(path: Path, mask: str, maps: str = "auto", keep_oversampling: bool = False) -> Source:
    """Read k-space and find out what of it was measured.

    Parameters
    ----------
    path : Path
    mask : str
        A mask's file, or ``auto``: the mask that comes with the k-space, else the entries that are not zero.
    maps : str
        A file of sensitivity maps, or ``auto``: to be estimated.

    keep_oversampling : bool
        Whether the result is the whole field of view of the k-space, not only what the scan was made for.

    Raises
    ------
    FileError, UnfitInput
    """
    file = open_kspace(path)
    notes: list[str] = []
    if mask == "auto":
        if file.mask is not None:
            measured, origin = np.broadcast_to(file.mask, (1, *file.kspace.shape[-2:])), "the mask in the file"
        else:
            measured, what = measured_positions(np.concatenate([(run != 0).any(axis=1) for run in runs(file.kspace)]))
            origin = f"the non-zero {what}" + (" of each slice" if len(measured) > 1 else "")
    else:
        given = read_mask(mask)
        try:
            measured = np.broadcast_to(given, (1, *file.kspace.shape[-2:]))
        except ValueError:
            raise UnfitInput(
                f"{mask}: a mask of {given.shape[0]} x {given.shape[1]}. Expected one for k-space of "
                f"{file.kspace.shape[-2]} x {file.kspace.shape[-1]} ({path}). Give the mask that belongs to it"
            ) from None
        origin = f"the file {mask}"
        blank = np.all([(run == 0).all(axis=(0, 1)) for run in runs(file.kspace)], axis=0)
        empty = measured & blank
        if empty.sum() > 0.05 * measured.sum():
            notes.append(
                f"the mask calls {int(empty.sum())} of {int(measured.sum())} entries measured where the k-space is "
                "exactly 0: check that mask and k-space belong together and are both centred"
            )
    y = _masked(file.kspace, measured)
    if not any(run.any() for run in runs(y)):
        raise UnfitInput(
            f"{path}: nothing was measured: the k-space is zero wherever the mask samples. Check both files"
        )
    real = np.dtype(np.float64 if file.dtype == np.complex128 else np.float32)
    whole = file.kspace.shape[-2:]
    kept = whole if keep_oversampling else file.field_of_view
    rows, columns = (slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(whole, kept, strict=True))
    like = ImageFile(
        file.path,
        ".npy",
        _zero_filled(y, (rows, columns)),
        real,
        lead=(file.slices,) if file.sliced else (),
        slice_axis=file.slice_axis,
    )
    facts: dict[str, Any] = {
        "kind": "k-space mask" if file.coils == 1 else "sensitivity encoding",
        "mask": origin,
        "acceleration": measured.size / int(measured.sum()),
    }
    if kept != whole:
        facts["cropped"] = list(kept)
        notes.append(
            f"cropped from {whole[0]} x {whole[1]} to {kept[0]} x {kept[1]}, without the oversampling that the header "
            "tells of; --keep-oversampling leaves it"
        )
    if file.coils == 1:
        # of a real image, each frequency also tells its mirror image
        facts["acceleration_if_real"] = measured.size / int(sum((one | _mirrored(one)).sum() for one in measured))
    sensitivities = None if maps == "auto" else _read_maps(maps, file)
    # slices that were sampled differently have their masks found again, each its own
    shared = np.ascontiguousarray(measured[0]) if len(measured) == 1 else None
    return Source(y, like, facts, notes, shared, sensitivities, (rows, columns))


def _read_maps(path: str, file: KSpaceFile) -> Array:
    maps, wanted = read_kspace(path).kspace, file.kspace.shape
    if maps.shape[1:] != wanted[1:] or len(maps) not in (1, wanted[0]):
        found, expected = (" x ".join(map(str, shape)) for shape in (maps.shape, wanted))
        raise UnfitInput(
            f"{path}: sensitivity maps of {found} (slices x coils x H x W). Expected {expected}, as {file.path}, or "
            "one slice for all. Give the maps that belong to it, or --maps auto"
        )
    return maps if len(maps) > 1 else maps[0]


def _masked(kspace: Array, measured: NDArray[np.bool_]) -> Array:
    """K-space where it was measured; ``measured``: ``(1, H, W)``, or of each slice."""
    each = len(measured) > 1
    if not isinstance(kspace, Stack):
        return kspace * measured[:, np.newaxis]
    stack: Stack = kspace
    return as_array(
        Stack(stack.shape, stack.dtype, lambda rows: stack[rows] * measured[rows if each else slice(None), np.newaxis])
    )


def _zero_filled(y: Array, crop: tuple[slice, slice]) -> Array:
    """Root sum of squares over the coils of what unmeasured positions, taken for 0, make of k-space."""

    def image(run: Array) -> Array:
        coils = np.abs(centred_ifft2(run)) ** 2
        found: Array = np.sqrt(coils.sum(axis=1, keepdims=True, dtype=np.float64))[..., *crop]
        return found

    if not isinstance(y, Stack):
        return image(y)
    size = [len(range(*part.indices(n))) for part, n in zip(crop, y.shape[-2:], strict=True)]
    return as_array(y.then(image, (1, *size), np.dtype(np.float64)))


def centred_ifft2(y: Array) -> Array:
    """Inverse centred orthonormal Fourier transform of the last two axes."""
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(y, axes=_AXES), axes=_AXES, norm="ortho"), axes=_AXES)


def _mirrored(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The centred mask at the negative frequencies; the highest of an even size is its own mirror image."""
    found: NDArray[np.bool_] = np.fft.fftshift(np.roll(np.fft.ifftshift(mask)[::-1, ::-1], (1, 1), axis=_AXES))
    return found
