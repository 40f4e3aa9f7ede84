"""Files in and out: images, k-space, masks and kernels, with errors a person can act on.

Nothing here rescales or normalises: what a file holds is what the caller gets, and a result is written back
with the input's own type, range and layout. Every error is a :class:`FileError`. A format is a module in ``kinds/``
and a row in the table of ``formats.py``.
"""

from .atomic import atomic_write, sha256_of, sweep_leftovers, write_json, write_together
from .errors import FileError, UnfitData, UnreadableFile, WriteError
from .folders import guard_output, list_inputs, require_writable
from .formats import (
    IMAGE_SUFFIXES,
    KSPACE_OUT_SUFFIXES,
    KSPACE_SUFFIXES,
    MEASUREMENT_SUFFIXES,
    PLANE_SUFFIXES,
    companions,
    prepare_to_read,
    stem_of,
    suffix_of,
    takes_results,
)
from .images import ImageFile, open_image, read_image
from .kinds.ismrmrd_header import reconstructed_size
from .kspace import KSpaceFile, open_kspace, read_kspace
from .links import trust_links
from .locating import split_key
from .measurements import MeasurementFile, read_measurement
from .planes import read_kernel, read_mask
from .source import require_finite
from .stack import Stack, runs
from .text import parse_json, read_text
from .writing import can_carry, require_carry, suffixes_for, write_image, write_kspace

__all__ = [
    "IMAGE_SUFFIXES",
    "KSPACE_OUT_SUFFIXES",
    "KSPACE_SUFFIXES",
    "MEASUREMENT_SUFFIXES",
    "PLANE_SUFFIXES",
    "FileError",
    "ImageFile",
    "KSpaceFile",
    "MeasurementFile",
    "Stack",
    "UnfitData",
    "UnreadableFile",
    "WriteError",
    "atomic_write",
    "can_carry",
    "companions",
    "guard_output",
    "list_inputs",
    "open_image",
    "open_kspace",
    "parse_json",
    "prepare_to_read",
    "read_image",
    "read_kernel",
    "read_kspace",
    "read_mask",
    "read_measurement",
    "read_text",
    "reconstructed_size",
    "require_carry",
    "require_finite",
    "require_writable",
    "runs",
    "sha256_of",
    "split_key",
    "stem_of",
    "suffix_of",
    "suffixes_for",
    "sweep_leftovers",
    "takes_results",
    "trust_links",
    "write_image",
    "write_json",
    "write_kspace",
    "write_together",
]
