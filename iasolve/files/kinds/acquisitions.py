"""ISMRMRD acquisitions, one readout each, sorted into Cartesian k-space."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnfitData
from ..source import require_plausible
from .ismrmrd_header import Encoding

__all__ = ["lines_of_images", "sort_lines", "without_oversampling"]

Array = NDArray[Any]

# Flags of acquisitions (bits counted from 1) that are no lines of the image.
SKIPPED = {
    19: "noise",
    23: "navigation",
    24: "phase correction",
    26: "feedback",
    27: "dummy",
    28: "feedback",
    29: "surface coil correction",
    30: "phase stabilization",
    31: "phase stabilization",
}
CALIBRATION, REVERSE = 20, 22
# Counters that tell images apart, from the slowest; averages and segments belong to one image.
SERIES = ("repetition", "set", "phase", "contrast", "slice")


def lines_of_images(heads: Array, encoding: Encoding, path: Path) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Tell the lines of an image from noise, navigators and other scans.

    Parameters
    ----------
    heads : ndarray
        Headers of all acquisitions.
    encoding : Encoding
        What the file's header says.
    path : Path
        The file, for the message.

    Returns
    -------
    tuple of (ndarray of bool, dict)
        Which acquisitions are lines, and how many of what are not.

    Raises
    ------
    UnfitData
        If there are none, or if they run backwards or belong to several encodings.
    """

    def flagged(bit: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (heads["flags"] >> np.uint64(bit - 1)) & np.uint64(1) != 0
        return found

    kinds = dict(SKIPPED)
    if encoding.separate_calibration:
        kinds[CALIBRATION] = "calibration"
    counts: Counter[str] = Counter()
    wanted = np.ones(len(heads), np.bool_)
    for bit, name in kinds.items():
        counts[name] += int((flagged(bit) & wanted).sum())
        wanted &= ~flagged(bit)
    if not wanted.any():
        found = ", ".join(f"{n} of {name}" for name, n in counts.items() if n) or "none at all"
        raise UnfitData(path, f"no acquisitions of an image ({found})", "some", "Give the scan, not its calibration")
    if (flagged(REVERSE) & wanted).any():
        raise UnfitData(
            path,
            "readouts that run backwards (echo-planar imaging)",
            "readouts that run one way",
            "Turn them round and correct their phase first",
        )
    if (heads["encoding_space_ref"][wanted] != 0).any():
        raise UnfitData(
            path, "acquisitions of several encoding spaces", "one", "Convert each measurement to a file of its own"
        )
    return wanted, {name: n for name, n in counts.items() if n}


def sort_lines(
    heads: Array, readouts: Array, encoding: Encoding, path: Path
) -> tuple[Array, NDArray[np.bool_], tuple[str, ...]]:
    """Sort lines into k-space; those measured more than once are averaged.

    Parameters
    ----------
    heads, readouts : ndarray
        Of the lines.
    encoding : Encoding
        What the file's header says.
    path : Path
        The file, for the message.

    Returns
    -------
    tuple of (ndarray, ndarray of bool, tuple of str)
        K-space ``(images, coils, readout, lines)``, what of it was measured ``(images, readout, lines)``, and the
        counters that tell the images apart.

    Raises
    ------
    UnfitData
        For lines that do not fit into the encoded matrix, or of different coils.
    """
    counts_of_coils = sorted(set(heads["active_channels"].tolist()))
    coils = counts_of_coils[0]
    if len(counts_of_coils) > 1:
        raise UnfitData(
            path,
            f"acquisitions of {' and of '.join(map(str, counts_of_coils))} coils",
            "the same coils throughout",
            "Leave out the acquisitions with other coils",
        )
    counters = np.stack([heads["idx"][name] for name in SERIES], axis=-1)
    distinct, image = np.unique(counters, axis=0, return_inverse=True)
    image = image.reshape(-1)
    series = tuple(name for name, column in zip(SERIES, distinct.T, strict=True) if len(set(column.tolist())) > 1)
    line = heads["idx"]["kspace_encode_step_1"].astype(int) - encoding.centre + encoding.lines // 2
    if line.min() < 0 or line.max() >= encoding.lines:
        raise UnfitData(
            path,
            f"lines from {line.min()} to {line.max()} of the encoded matrix",
            f"lines from 0 to {encoding.lines - 1}",
            "Check the encoding limits in the header",
        )
    shape = (len(distinct), coils, encoding.readout, encoding.lines)
    require_plausible(8 * int(np.prod(shape, dtype=np.float64)), path)
    kspace = np.zeros(shape, np.complex64)
    counts = np.zeros((len(distinct), encoding.readout, encoding.lines), np.float32)
    for head, values, page, column in zip(heads, readouts, image, line, strict=True):
        first, last = int(head["discard_pre"]), int(head["number_of_samples"]) - int(head["discard_post"])
        samples = np.asarray(values, np.float32).view(np.complex64).reshape(coils, -1)[:, first:last]
        start = _start(head, encoding, path) + first
        kspace[page, :, start : start + samples.shape[1], column] += samples
        counts[page, start : start + samples.shape[1], column] += 1
    kspace /= np.maximum(counts, 1)[:, np.newaxis]
    return kspace, counts > 0, series or ("slice",)


def _start(head: Any, encoding: Encoding, path: Path) -> int:
    """Where in the encoded readout the first sample stands."""
    count, centre = int(head["number_of_samples"]), int(head["center_sample"])
    if count == encoding.readout and centre == 0:  # left unset by some converters
        return 0
    start = encoding.readout // 2 - centre
    if start < 0 or start + count > encoding.readout:
        raise UnfitData(
            path,
            f"a readout of {count} samples with its centre at {centre}",
            f"one that fits into the encoded matrix of {encoding.readout}",
            "Check the encoded space in the header",
        )
    return start


def without_oversampling(kspace: Array, measured: NDArray[np.bool_], encoding: Encoding, path: Path) -> Array:
    """Crop the field of view along the readout, as k-space of fewer entries.

    Parameters
    ----------
    kspace, measured : ndarray
        As :func:`sort_lines` gives them.
    encoding : Encoding
        What the file's header says.
    path : Path
        The file, for the message.

    Returns
    -------
    ndarray
        Of ``encoding.kept`` entries along the readout.

    Raises
    ------
    UnfitData
        For partial echoes: cropping takes all of a readout.
    """
    if encoding.kept == encoding.readout:
        return kspace
    touched = measured.any(axis=1, keepdims=True)
    if (measured != touched).any():
        raise UnfitData(
            path,
            "partial echoes (readouts that miss their beginning or end) with oversampling, which cannot be removed "
            "from them",
            "whole echoes",
            "Acquire whole echoes, or fill them (homodyne, projection onto convex sets) before",
        )
    # even sizes and odd ones alike: the middle of both grids stands at size // 2
    first = encoding.readout // 2 - encoding.kept // 2
    axis = -2
    lines = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=axis), axis=axis, norm="ortho"), axes=axis)
    lines = lines[..., first : first + encoding.kept, :]
    lines = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(lines, axes=axis), axis=axis, norm="ortho"), axes=axis)
    return np.asarray(lines, kspace.dtype)
