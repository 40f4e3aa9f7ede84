"""What a training run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from iasolve.training.log import Row

__all__ = ["Callback", "Status"]


class Status(NamedTuple):
    """Where a training run is.

    Attributes
    ----------
    stage : {"step", "validation"}
        What has just ended. After a validation, row and checkpoint are on the disk.
    images : int
        Images seen, over all resumed parts of the run.
    step : int
        Optimisation steps taken, in the same way.
    losses : Row
        The new row of the log after a validation, with its ``note`` where there is one; empty after a step: reading
        losses from a GPU would make every step wait.
    seconds : float
        Seconds of training, over all resumed parts.
    """

    stage: Literal["step", "validation"]
    images: int
    step: int
    losses: Row
    seconds: float


Callback: TypeAlias = Callable[[Status], object]
