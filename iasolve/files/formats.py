"""The table of formats: which suffixes there are, and what reads and writes them.

A format is a module with a reader, a writer, and a function that says what it cannot hold; here they are registered.
Libraries are imported inside those functions, so that the table costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from . import arrays, bart, dicom, fastmri, ismrmrd, matlab, nifti, raster, tiff
from .contents import Measured, Picture, Wanted
from .errors import PathInput
from .optional import DICOM, NIFTI, Extra

__all__ = [
    "FORMATS",
    "IMAGE_READERS",
    "IMAGE_SUFFIXES",
    "KEYED_SUFFIXES",
    "KSPACE_READERS",
    "KSPACE_SUFFIXES",
    "Format",
    "companions",
    "format_of",
    "stem_of",
    "suffix_of",
]


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes
    ----------
    suffixes : tuple of str
        Lower case, with their dots.
    image : callable or None
        ``(path, key)`` to the picture in it.
    kspace : callable or None
        ``(path, key, slices)`` to the measurement in it; ``slices``, a slice or None, is what is wanted of it.
    write : callable or None
        ``(handle, picture, path)``: writes the picture to a file open for reading and writing in binary; the path is
        there for its suffix and for messages.
    obstacle : callable
        Why such a file cannot hold what is wanted, or None if it can.
    keyed : bool
        Whether a key (``path:key``) may be given.
    extra : Extra or None
        What has to be installed.
    beside : mapping of str to callable
        Suffixes of further files that belong to one of this format, and what makes their content.
    """

    suffixes: tuple[str, ...]
    image: Callable[[Path, str | None], Picture] | None = None
    kspace: Callable[[Path, str | None, slice | None], Measured] | None = None
    write: Callable[[BinaryIO, Picture, Path], None] | None = None
    obstacle: Callable[[Wanted], str | None] = lambda wanted: None
    keyed: bool = False
    extra: Extra | None = None
    beside: Mapping[str, Callable[[Picture], bytes]] = field(default_factory=dict)


FORMATS = (
    Format(
        (".png", ".jpg", ".jpeg"),
        image=raster.decode_raster,
        write=raster.encode_raster,
        obstacle=raster.raster_obstacle,
    ),
    Format((".tif", ".tiff"), image=tiff.decode_tiff, write=tiff.encode_tiff, obstacle=tiff.tiff_obstacle),
    Format((".npy",), image=arrays.decode_array, kspace=arrays.decode_kspace, write=arrays.encode_array),
    Format((".npz",), image=arrays.decode_array, kspace=arrays.decode_kspace, write=arrays.encode_array, keyed=True),
    Format(
        (".nii", ".nii.gz"),
        image=nifti.decode_nifti,
        write=nifti.encode_nifti,
        obstacle=nifti.nifti_obstacle,
        keyed=True,
        extra=NIFTI,
    ),
    Format((".dcm",), image=dicom.decode_dicom, write=dicom.encode_dicom, obstacle=dicom.dicom_obstacle, extra=DICOM),
    Format(
        (".mat",),
        image=matlab.decode_matlab,
        kspace=matlab.decode_kspace,
        write=matlab.encode_matlab,
        obstacle=matlab.matlab_obstacle,
        keyed=True,
    ),
    Format(
        (".cfl",),
        image=bart.decode_bart,
        kspace=bart.decode_kspace,
        write=bart.encode_bart,
        obstacle=bart.bart_obstacle,
        beside={".hdr": bart.header_bytes},
    ),
    Format(
        (".h5", ".hdf5"),
        image=fastmri.decode_fastmri,
        kspace=fastmri.decode_kspace,
        write=fastmri.encode_fastmri,
        obstacle=fastmri.fastmri_obstacle,
        keyed=True,
    ),
    Format((".mrd",), kspace=ismrmrd.decode_ismrmrd, keyed=True),
)

IMAGE_READERS = {suffix: entry.image for entry in FORMATS if entry.image for suffix in entry.suffixes}
KSPACE_READERS = {suffix: entry.kspace for entry in FORMATS if entry.kspace for suffix in entry.suffixes}
IMAGE_SUFFIXES, KSPACE_SUFFIXES = tuple(IMAGE_READERS), tuple(KSPACE_READERS)
KEYED_SUFFIXES = tuple(suffix for entry in FORMATS if entry.keyed for suffix in entry.suffixes)

_BY_SUFFIX = {suffix: entry for entry in FORMATS for suffix in entry.suffixes}


def format_of(suffix: str) -> Format | None:
    """The format of files with this suffix (lower case, with its dot), or None if there is none."""
    return _BY_SUFFIX.get(suffix)


def suffix_of(path: PathInput) -> str:
    """The suffix of a name in lower case; ``.nii.gz`` counts as one.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Any path.

    Returns
    -------
    str
        With its dot; empty where there is none.
    """
    name = Path(path)
    double = "".join(name.suffixes[-2:]).lower()
    return double if double in _BY_SUFFIX else name.suffix.lower()


def stem_of(path: PathInput) -> str:
    """The name without its suffix, as :func:`suffix_of` has it."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


def companions(path: PathInput) -> tuple[Path, ...]:
    """Further files that a file of this name consists of, as the ``.hdr`` of a ``.cfl``."""
    entry = format_of(suffix_of(path))
    return tuple(Path(path).with_suffix(suffix) for suffix in entry.beside) if entry else ()
