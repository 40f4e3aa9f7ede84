"""Real MR images and k-space that come with iasolve, for demo, examples and tests; source and licence in README.md."""

from __future__ import annotations

from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["RawSample", "Samples", "load_kspace", "load_samples"]


class Samples(NamedTuple):
    """Magnitude images.

    Attributes
    ----------
    images : ndarray of uint8, shape ``(4, 128, 128)``
        Two axial slices, a coronal and a sagittal one.
    numbers : ndarray of int32, shape ``(4,)``
        Their numbers in the original data set.
    attribution : str
        To be quoted wherever they are shown.

    Examples
    --------
    >>> load_samples().numbers.shape
    (4,)
    """

    images: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    attribution: str


class RawSample(NamedTuple):
    """Raw multi-coil k-space of one slice.

    Attributes
    ----------
    kspace : ndarray of complex64, shape ``(8, 230, 180)``
        Eight receive coils, DC in the middle, entries that were not sampled 0: an eighth is, in a random pattern that
        thins out from the fully sampled centre.
    attribution : str
        To be quoted wherever it is shown.

    Examples
    --------
    >>> sampled = load_kspace().kspace[0] != 0
    >>> round(sampled.size / int(sampled.sum()), 1)
    8.0
    """

    kspace: NDArray[np.complex64]
    attribution: str


_ATTRIBUTION = "MR images: J. Cheng et al., figshare 1512427 (doi 10.6084/m9.figshare.1512427), CC BY 4.0"
_RAW_ATTRIBUTION = "Raw k-space: sigpy-mri-tutorial (F. Ong), BSD-3-Clause"


def load_samples() -> Samples:
    """Load the four bundled slices.

    Returns
    -------
    Samples

    Examples
    --------
    >>> samples = load_samples()
    >>> samples.images.shape, str(samples.images.dtype)
    ((4, 128, 128), 'uint8')
    """
    file: Any = resources.files(__name__) / "mri-t1ce.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        return Samples(data["images"], data["index"], _ATTRIBUTION)


def load_kspace() -> RawSample:
    """Load the bundled slice of eight-coil k-space.

    Returns
    -------
    RawSample

    Examples
    --------
    >>> load_kspace().kspace.shape
    (8, 230, 180)
    """
    file: Any = resources.files(__name__) / "brain-8coil-kspace.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        # only what was sampled is stored
        shape = tuple(data["shape"])
        mask = np.unpackbits(data["mask"], count=shape[0] * shape[1]).astype(bool).reshape(shape)
        kspace = np.zeros((len(data["samples"]), *shape), np.complex64)
        kspace[:, mask] = data["samples"]
    return RawSample(kspace, _RAW_ATTRIBUTION)
