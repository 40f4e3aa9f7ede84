"""The fully sampled centre of a k-space, from which coil sensitivities and phase are learnt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from iasolve.operators.base import as_tensor

__all__ = ["CalibrationRegion", "calibration_region"]


class CalibrationRegion(NamedTuple):
    """A rectangle of k-space: half-open ranges of rows and columns."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.bottom - self.top, self.right - self.left

    def cut(self, kspace: Tensor) -> Tensor:
        """The rectangle of ``(..., H, W)``."""
        return kspace[..., self.top : self.bottom, self.left : self.right]

    def trimmed(self, size: int, shape: tuple[int, int]) -> CalibrationRegion:
        """The part of at most ``size`` x ``size`` that lies nearest to the centre of a k-space of ``shape``."""
        top, bottom = _nearest(self.top, self.bottom, size, shape[0] // 2)
        left, right = _nearest(self.left, self.right, size, shape[1] // 2)
        return CalibrationRegion(top, bottom, left, right)


def calibration_region(kspace: Tensor | np.ndarray) -> CalibrationRegion:
    """Largest fully sampled rectangle that holds the zero frequency, found from the zeros of a k-space.

    Parameters
    ----------
    kspace : Tensor or array
        ``(..., H, W)``, DC at ``(H // 2, W // 2)``, unsampled entries exactly 0: measured values, or a mask. A
        position counts as sampled if any coil or batch item is not 0 there.

    Returns
    -------
    CalibrationRegion

    Raises
    ------
    ValueError
        When the zero frequency itself is not sampled.

    Examples
    --------
    >>> import torch
    >>> kspace = torch.zeros(2, 16, 16, dtype=torch.complex64)
    >>> kspace[:, 6:10, 5:11] = 1
    >>> calibration_region(kspace)
    CalibrationRegion(top=6, bottom=10, left=5, right=11)
    """
    values = as_tensor(kspace)
    if values.ndim < 2:
        raise ValueError(f"k-space must be (..., H, W), got shape {tuple(values.shape)}")
    sampled = (values != 0).flatten(0, -3).any(0) if values.ndim > 2 else values != 0
    grid = sampled.cpu().numpy()
    height, width = grid.shape
    row, column = height // 2, width // 2
    if not grid[row, column]:
        found = "nothing is sampled" if not grid.any() else f"{grid.mean():.1%} of the positions are sampled, not it"
        raise ValueError(
            f"k-space has no sampled centre: the zero frequency is expected at index ({row}, {column}); {found}. "
            "Shift the data so that DC lies at (H // 2, W // 2), or give sensitivity maps"
        )
    # the run of samples around the centre column in each row; what a rectangle from the centre row to there can hold
    left = np.array([_run(line[column::-1]) for line in grid])
    right = np.array([_run(line[column:]) for line in grid])
    up = [np.minimum.accumulate(side[row::-1]) for side in (left, right)]
    down = [np.minimum.accumulate(side[row:]) for side in (left, right)]
    widths = [np.minimum(u[:, None], d[None, :]) for u, d in zip(up, down, strict=True)]
    # the centre is in both runs; a width of 0 means that a row lost the centre column
    across = np.where(widths[0] > 0, widths[0] + widths[1] - 1, 0)
    tall = np.arange(1, len(up[0]) + 1)[:, None] + np.arange(len(down[0]))[None, :]
    i, j = np.unravel_index(int(np.argmax(tall * across)), across.shape)
    return CalibrationRegion(
        int(row - i), int(row + j + 1), int(column - widths[0][i, j] + 1), int(column + widths[1][i, j])
    )


def _run(line: np.ndarray) -> int:
    """Number of leading samples."""
    gaps = np.flatnonzero(~line)
    return int(gaps[0]) if len(gaps) else len(line)


def _nearest(start: int, stop: int, size: int, centre: int) -> tuple[int, int]:
    """``size`` positions within a range, ``centre`` in their middle as far as the range allows."""
    count = min(size, stop - start)
    first = min(max(centre - count // 2, start), stop - count)
    return first, first + count
