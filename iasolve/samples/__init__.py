"""Real MR images that come with iasolve, for the demo, examples and tests; source and licence in README.md."""

from __future__ import annotations

from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Samples", "load_samples"]


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
    """

    images: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    attribution: str


_ATTRIBUTION = "MR images: J. Cheng et al., figshare 1512427 (doi 10.6084/m9.figshare.1512427), CC BY 4.0"


def load_samples() -> Samples:
    """Load the four bundled slices.

    Returns
    -------
    Samples
    """
    file: Any = resources.files(__name__) / "mri-t1ce.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        return Samples(data["images"], data["index"], _ATTRIBUTION)
