"""What :func:`iasolve.solve` and :func:`iasolve.reconstruct` are asked for, and what they say on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from iasolve.inference.operator_likelihood import TOLERANCE
from iasolve.operators.conventions import check_batch_size

__all__ = [
    "Callback",
    "NonFiniteError",
    "Options",
    "SolveOptions",
    "Status",
    "UnlikePriorWarning",
    "Watch",
]


class SolveOptions(TypedDict, total=False):
    """The keyword arguments that :class:`Options` is made of."""

    samples: int | None
    seed: int
    fit: str
    overlap: int | None
    nonnegative: bool
    batch_size: int
    warn: bool
    fallback: bool
    offset: float | str
    iterations: int
    tolerance: float
    force_general: bool


@dataclass(frozen=True)
class Options:
    """Options of a solution.

    Attributes
    ----------
    samples : int or None
        Posterior samples; None: as many as the recipe says.
    seed : int
        The same seed gives the same result, whatever the batch.
    fit : {"auto", "canvas", "field-of-view"}
        What to do with an image of another size than the prior's: overlapping tiles, or one tile that shows the whole
        field of view, band-limited to the image's grid; ``"auto"``: the latter where neither side is longer.
    overlap : int or None
        Smallest overlap of a canvas's tiles, in pixels; None: a quarter of the tile.
    nonnegative : bool
        Use that images hold no negative value, where the prior's do not (its card says so).
    batch_size : int
        Images solved at a time.
    warn : bool
        Warn when an image is unlike the prior's data.
    fallback : bool
        Answer with a Gaussian of the prior's power where a part of the measurement kept back shows the prior to be
        worse (:mod:`.fallback`); not with recipes without encoder or closing, nor with unvalidated priors.
    offset : float or "auto"
        A constant in all of the image, taken off before and put back after, in its units: -1024 of Hounsfield units.
        ``"auto"``: by :func:`iasolve.noise_level.estimate_offset`, for priors of images without a negative value.
    iterations : int
        Conjugate-gradient iterations a step, for operators that are not diagonal in Fourier space. With 8, ten steps
        end 0.02 dB below those with 20 (benchmarks/results/general_path.md).
    tolerance : float
        Their other solves end when an iteration lowers the exponent by less than this many nats per pixel; see
        :mod:`iasolve.inference.operator_likelihood`.
    force_general : bool
        Treat a diagonal operator as any other (a check; slower).

    Raises
    ------
    ValueError
        For a value that cannot be.
    TypeError
        For an option that there is not.
    """

    samples: int | None = None
    seed: int = 0
    fit: str = "auto"
    overlap: int | None = None
    nonnegative: bool = True
    batch_size: int = 16
    warn: bool = True
    fallback: bool = True
    offset: float | str = "auto"
    iterations: int = 8
    tolerance: float = TOLERANCE
    force_general: bool = False

    def __post_init__(self) -> None:
        if self.fit not in ("auto", "canvas", "field-of-view"):
            raise ValueError(f"fit must be 'auto', 'canvas' or 'field-of-view', got {self.fit!r}")
        check_batch_size(self.batch_size)
        number = isinstance(self.offset, int | float) and not isinstance(self.offset, bool)
        if self.offset != "auto" and not (number and math.isfinite(self.offset)):  # type: ignore[arg-type]
            raise ValueError(f"offset must be 'auto' or a finite number, got {self.offset!r}")
        for name, least in (("seed", 0), ("iterations", 1), ("tolerance", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")


class Status(NamedTuple):
    """Where a solution is.

    Attributes
    ----------
    stage : {"guess", "pass", "step", "closing", "sample", "done"}
        What has just been finished; ``"done"``: a batch of images.
    image, images : int
        Images that are finished, and images in all.
    step, steps : int
        Number of the pass, step or sample, from 1, and how many there are; of ``"guess"`` and ``"closing"`` the view's.
    objective : Tensor or None
        ``(B,)`` nats of the images at work, before a step.
    seconds : float
        Since the start.
    """

    stage: str
    image: int
    images: int
    step: int
    steps: int
    objective: Tensor | None
    seconds: float


Callback = Callable[[Status], object]
"""Called at every stage of a solution; what it returns is ignored."""


class Watch:
    """Keeps the time and the count of images, and tells a callback.

    Parameters
    ----------
    callback : callable, optional
    images : int
        In all.
    """

    def __init__(self, callback: Callback | None = None, images: int = 0) -> None:
        self.callback, self.images, self.image = callback, images, 0
        self.begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.begun

    def tell(self, stage: str, step: int = 1, steps: int = 1, objective: Tensor | None = None) -> None:
        """A stage is finished."""
        if self.callback is not None:
            with torch.no_grad():
                value = None if objective is None else objective.detach()
                self.callback(Status(stage, self.image, self.images, step, steps, value, self.seconds))

    def finish(self, images: int) -> None:
        """So many images more are done."""
        self.image += images
        self.tell("done", self.image, self.images)


class NonFiniteError(RuntimeError):
    """The solution holds NaN or infinite values."""


class UnlikePriorWarning(UserWarning):
    """The image is unlike what the prior was trained on."""
