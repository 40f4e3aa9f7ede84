"""Which positions of k-space were measured, told from the data: the entries that are not exactly zero.

NumPy alone, so that the command line refuses a bad file before torch is there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["measured_positions"]

_FILLED = 0.9
"""A line counts as sampled when most of its entries are not exactly zero: a real line may hold a few zeros."""

_SAME = 0.01
"""Slices whose masks differ by a smaller share of the entries were sampled alike: a few values are zero by chance."""


def measured_positions(nonzero: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    """Sampling masks of slices, as whole lines where they are lines.

    Parameters
    ----------
    nonzero : ndarray of bool, shape ``(slices, H, W)``
        Where any coil of the k-space is not 0.

    Returns
    -------
    masks : ndarray of bool, shape ``(1, H, W)`` or ``(slices, H, W)``
        One for all, or one for each slice where they were sampled differently.
    kind : str
        What the mask of the first slice that is not blank consists of: ``"columns"``, ``"rows"`` or ``"entries"``.
    """
    found = [_lines(plane) for plane in nonzero]
    kinds = [kind for _, kind in found]
    stack: NDArray[np.bool_] = np.stack([mask for mask, _ in found])
    together: NDArray[np.bool_] = np.asarray(stack.any(axis=0, keepdims=True))
    # a slice of zeros tells nothing of how it was sampled
    telling = stack.any(axis=(1, 2))
    kind = kinds[int(telling.argmax())]
    differing = (stack != together).mean(axis=(1, 2)) * telling
    return together if float(differing.max()) <= _SAME else stack, kind


def _lines(filled: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    if not filled.any():
        return filled, "entries"
    for axis, name in ((0, "columns"), (1, "rows")):
        touched = filled.any(axis=axis, keepdims=True)
        share = filled.mean(axis=axis, keepdims=True)[touched]
        # all of both directions full is a fully sampled k-space, whichever way one looks
        if share.min() >= _FILLED:
            return np.broadcast_to(touched, filled.shape), name
    return filled, "entries"
