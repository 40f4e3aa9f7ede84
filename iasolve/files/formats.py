"""The table of formats: one row says everything about a kind of file.

A new format is a module in ``kinds/`` and a row here; no other module knows a suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from numpy.typing import NDArray

from .contents import Measured, Picture, Wanted
from .errors import FileError, PathInput
from .kinds import arrays, bart, dicom, fastmri, ismrmrd, matlab, nifti, raster, tiff
from .optional import DICOM, NIFTI, Extra
from .stack import Stack
from .worker import read_apart, start_worker

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "KEYED_SUFFIXES",
    "KSPACE_OUT_SUFFIXES",
    "KSPACE_SUFFIXES",
    "MEASUREMENT_SUFFIXES",
    "PLANE_SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Format",
    "companions",
    "format_of",
    "prepare_to_read",
    "read_array",
    "read_kspace_of",
    "read_pages",
    "read_picture",
    "stem_of",
    "suffix_of",
    "takes_results",
]

Array = NDArray[Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes
    ----------
    suffixes : tuple of str
        Lower case, with their dots.
    image : callable or None
        ``(path, key)`` to the picture in it.
    pages : callable or None
        ``(path, key, pages)``, with a slice, to a picture of these pages alone, where they are read without the others:
        samples ``(pages, H, W, S)``, all else as of the whole file.
    kspace : callable or None
        ``(path, key, slices)`` to the measurement in it; ``slices``, a slice or None, is what is wanted of it.
    array : callable or None
        ``(path, key, names)`` to an array of any shape; ``names`` are looked for where there are several and no key.
        Without such a reader, the image or the k-space is the array.
    planes : bool
        Whether masks and kernels are read from it: not where values are lost, nor where a volume is usual.
    write : callable or None
        ``(handle, picture, path)``: writes the picture to a file open for reading and writing in binary; the path is
        there for its suffix and for messages.
    streams : bool
        Whether ``write`` takes samples that are a :class:`~iasolve.files.stack.Stack` ``(pages, H, W, S)``.
    write_kspace : callable or None
        ``(handle, kspace, mask, path)``, likewise.
    obstacle : callable
        Why such a file cannot hold what is wanted, or None if it can.
    takes_results : callable
        ``(path, grey)``: whether the result of such an input is written to a file of the same name; ``grey`` says that
        it is real and has one channel. None: always.
    keyed : bool
        Whether a key (``path:key``) may be given.
    opacity : bool
        Whether there is a place for opacity.
    native : bool
        Whether libraries written in C take it apart, which damage may crash or block: see :mod:`.worker`.
    extra : Extra or None
        What has to be installed.
    beside : mapping of str to callable
        Suffixes of further files that belong to one of this format, and what makes their content.
    """

    suffixes: tuple[str, ...]
    image: Callable[[Path, str | None], Picture] | None = None
    pages: Callable[[Path, str | None, slice], Picture] | None = None
    kspace: Callable[[Path, str | None, slice | None], Measured] | None = None
    array: Callable[[Path, str | None, tuple[str, ...]], Array] | None = None
    planes: bool = False
    write: Callable[[BinaryIO, Picture, Path], None] | None = None
    streams: bool = False
    write_kspace: Callable[[BinaryIO, Array | Stack, Array | None, Path], None] | None = None
    obstacle: Callable[[Wanted], str | None] = lambda wanted: None
    takes_results: Callable[[Path, bool], bool] | None = None
    keyed: bool = False
    opacity: bool = False
    native: bool = False
    extra: Extra | None = None
    beside: Mapping[str, Callable[[Picture], bytes]] = field(default_factory=dict)


_ARRAYS: dict[str, Any] = {
    "image": arrays.decode_array,
    "kspace": arrays.decode_kspace,
    "array": arrays.decode_any,
    "write": arrays.encode_array,
    "write_kspace": arrays.encode_kspace,
    "planes": True,
}

_RASTER: dict[str, Any] = {
    "image": raster.decode_raster,
    "write": raster.encode_raster,
    "obstacle": raster.raster_obstacle,
    "native": True,
}

FORMATS = (
    Format((".png",), **_RASTER, planes=True, opacity=True),
    Format((".jpg", ".jpeg"), **_RASTER),
    Format((".bmp",), **_RASTER, planes=True),
    Format((".webp",), **_RASTER, opacity=True),
    Format(
        (".tif", ".tiff"),
        image=tiff.decode_tiff,
        pages=tiff.decode_pages,
        write=tiff.encode_tiff,
        streams=True,
        obstacle=tiff.tiff_obstacle,
        planes=True,
        opacity=True,
        native=True,
    ),
    Format((".npy",), **_ARRAYS, pages=arrays.decode_pages, streams=True),
    Format((".npz",), **_ARRAYS, keyed=True),
    Format(
        (".nii", ".nii.gz"),
        image=nifti.decode_nifti,
        pages=nifti.decode_pages,
        write=nifti.encode_nifti,
        streams=True,
        obstacle=nifti.nifti_obstacle,
        keyed=True,
        extra=NIFTI,
    ),
    Format(
        (".dcm",),
        image=dicom.decode_dicom,
        write=dicom.encode_dicom,
        obstacle=dicom.dicom_obstacle,
        native=True,
        extra=DICOM,
    ),
    Format(
        (".mat",),
        image=matlab.decode_matlab,
        kspace=matlab.decode_kspace,
        array=matlab.decode_any,
        write=matlab.encode_matlab,
        obstacle=matlab.matlab_obstacle,
        keyed=True,
        native=True,
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
        pages=fastmri.decode_pages,
        kspace=fastmri.decode_kspace,
        array=fastmri.decode_any,
        write=fastmri.encode_fastmri,
        streams=True,
        obstacle=fastmri.fastmri_obstacle,
        takes_results=fastmri.takes_results,
        keyed=True,
        native=True,
    ),
    Format((".mrd",), kspace=ismrmrd.decode_ismrmrd, keyed=True, native=True),
)


def _suffixes(holds: Callable[[Format], object]) -> tuple[str, ...]:
    return tuple(suffix for entry in FORMATS if holds(entry) for suffix in entry.suffixes)


IMAGE_SUFFIXES = _suffixes(lambda entry: entry.image)
KSPACE_SUFFIXES = _suffixes(lambda entry: entry.kspace)
MEASUREMENT_SUFFIXES = _suffixes(lambda entry: True)
PLANE_SUFFIXES = _suffixes(lambda entry: entry.planes)
WRITABLE_SUFFIXES = _suffixes(lambda entry: entry.write)
KSPACE_OUT_SUFFIXES = _suffixes(lambda entry: entry.write_kspace)
KEYED_SUFFIXES = _suffixes(lambda entry: entry.keyed)

_BY_SUFFIX = {suffix: entry for entry in FORMATS for suffix in entry.suffixes}


def _read(entry: Format, reader: Callable[..., Result], path: Path, *arguments: Any) -> Result:
    if entry.extra is not None:
        entry.extra.require_to_read(path)
    return read_apart(reader, path, *arguments) if entry.native else reader(path, *arguments)


def prepare_to_read(paths: Iterable[Path]) -> None:
    """Start, where one of these files needs it, the process that reads them, while something else is being done."""
    if any(entry.native for path in paths if (entry := format_of(suffix_of(path))) is not None):
        start_worker()


def read_picture(path: Path, kind: str, key: str | None) -> Picture:
    """The picture in a file of one of :data:`IMAGE_SUFFIXES`; errors as :func:`.images.read_image`."""
    entry = _BY_SUFFIX[kind]
    assert entry.image is not None, "kind is one of IMAGE_SUFFIXES"
    return _read(entry, entry.image, path, key)


def read_pages(path: Path, kind: str, key: str | None, pages: slice) -> Picture | None:
    """Some pages of the picture in a file, or None for a kind of file whose pages are not read without the others."""
    entry = _BY_SUFFIX[kind]
    return None if entry.pages is None else _read(entry, entry.pages, path, key, pages)


def read_kspace_of(path: Path, kind: str, key: str | None, slices: slice | None = None) -> Measured:
    """The k-space in a file of one of :data:`KSPACE_SUFFIXES`; errors as :func:`.kspace.read_kspace`."""
    entry = _BY_SUFFIX[kind]
    assert entry.kspace is not None, "kind is one of KSPACE_SUFFIXES"
    return _read(entry, entry.kspace, path, key, slices)


def read_array(path: Path, kind: str, key: str | None, names: tuple[str, ...]) -> Array | None:
    """The array in a file that holds arrays of any shape, or None for a kind of file that does not."""
    entry = _BY_SUFFIX[kind]
    return None if entry.array is None else _read(entry, entry.array, path, key, names)


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


def takes_results(path: PathInput, grey: bool) -> bool:
    """Whether the result of this input can go to a file of the same name in another folder.

    Parameters
    ----------
    path : str or os.PathLike[str]
        The input.
    grey : bool
        Whether results are real, with one channel.
    """
    entry = format_of(suffix_of(path))
    if entry is None or entry.write is None or entry.takes_results is None:
        return entry is not None and entry.write is not None
    try:
        return _read(entry, entry.takes_results, Path(path), grey)
    except FileError:  # told when it is read
        return True
