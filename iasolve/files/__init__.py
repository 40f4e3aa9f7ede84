"""Files in and out: images, k-space, masks and kernels, with errors a person can act on.

Nothing here rescales or normalises: what a file holds is what the caller gets, and a result is written back
with the input's own type, range and layout. Every error is a :class:`FileError`. A format is a module in ``kinds/``
and a row in the table of ``formats.py``.
"""

from .atomic import atomic_write, write_json
from .errors import FileError, UnfitData, UnreadableFile, WriteError
from .folders import guard_output, list_inputs
from .formats import (
    IMAGE_SUFFIXES,
    KSPACE_OUT_SUFFIXES,
    KSPACE_SUFFIXES,
    MEASUREMENT_SUFFIXES,
    PLANE_SUFFIXES,
    companions,
    stem_of,
    suffix_of,
    takes_results,
)
from .images import ImageFile, read_image
from .kspace import KSpaceFile, read_kspace
from .locating import split_key
from .measurements import MeasurementFile, read_measurement
from .planes import read_kernel, read_mask
from .source import require_finite
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
    "UnfitData",
    "UnreadableFile",
    "WriteError",
    "atomic_write",
    "can_carry",
    "companions",
    "guard_output",
    "list_inputs",
    "read_image",
    "read_kernel",
    "read_kspace",
    "read_mask",
    "read_measurement",
    "require_carry",
    "require_finite",
    "split_key",
    "stem_of",
    "suffix_of",
    "suffixes_for",
    "takes_results",
    "write_image",
    "write_json",
    "write_kspace",
]
