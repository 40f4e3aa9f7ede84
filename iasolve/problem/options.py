"""What :func:`iasolve.solve` and :func:`iasolve.reconstruct` are asked for, and what they say on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from iasolve.files.memory import parse_memory
from iasolve.operators.conventions import check_batch_size
from iasolve.problem.operator_likelihood import TOLERANCE

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
    batch_size: int | None
    memory: int | str | None
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
    batch_size : int or None
        Tiles that the networks take at a time (an image of the prior's size is one); so images of fewer are solved
        together, those of more one by one. None: 8 on a processor, 128 on a GPU, fewer where memory does not suffice.
        Other numbers change a result by rounding.
    memory : int, str or None
        What the whole process, or on a GPU the solution, is to keep to: bytes, or a size as ``"1.5GB"``. None: half of
        what is free, at most 1.5 GB; on a GPU, what is free. See :mod:`iasolve.inference.memory`.
    warn : bool
        Warn when an image is unlike the prior's data.
    fallback : bool
        Answer with a Gaussian of the prior's power where a part of the measurement kept back shows the prior to be
        worse (:mod:`iasolve.inference.fallback`); not with recipes without encoder or closing, nor with priors that
        were not validated.
    offset : float or "auto"
        A constant in all of the image, taken off before and put back after, in its units: -1024 of Hounsfield units.
        ``"auto"``: by :func:`iasolve.noise_level.estimate_offset`, for priors of images without a negative value.
    iterations : int
        Conjugate-gradient iterations a step, for operators that are not diagonal in Fourier space. With 8, ten steps
        end 0.02 dB below those with 20 (benchmarks/results/general_path.md).
    tolerance : float
        Their other solves end when an iteration lowers the exponent by less than this many nats per pixel, and by less
        the more iterations there were; see :mod:`iasolve.problem.operator_likelihood`.
    force_general : bool
        Treat a diagonal operator as any other (a check; slower).

    Raises
    ------
    ValueError
        For a value that cannot be.
    TypeError
        For an option that there is not.

    Examples
    --------
    Options are keyword arguments of :func:`iasolve.solve`: ``iasolve.solve(y, operator, prior, samples=8, seed=1)``.

    >>> Options(samples=8, memory="4GB").seed
    0
    >>> Options(fit="stretch")
    Traceback (most recent call last):
    ValueError: fit must be 'auto', 'canvas' or 'field-of-view', got 'stretch'
    """

    samples: int | None = None
    seed: int = 0
    fit: str = "auto"
    overlap: int | None = None
    nonnegative: bool = True
    batch_size: int | None = None
    memory: int | str | None = None
    warn: bool = True
    fallback: bool = True
    offset: float | str = "auto"
    iterations: int = 8
    tolerance: float = TOLERANCE
    force_general: bool = False

    def __post_init__(self) -> None:
        if self.fit not in ("auto", "canvas", "field-of-view"):
            raise ValueError(f"fit must be 'auto', 'canvas' or 'field-of-view', got {self.fit!r}")
        if self.batch_size is not None:
            check_batch_size(self.batch_size)
        if self.memory is not None:
            parse_memory(self.memory)
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

    Examples
    --------
    >>> import iasolve
    >>> from iasolve.operators import GaussianNoise, Identity
    >>> from iasolve.samples import load_samples
    >>> y = load_samples().images[:1].astype("float32")
    >>> stages = []
    >>> result = iasolve.solve(
    ...     y,
    ...     Identity((1, 128, 128)),
    ...     iasolve.load_prior("mri-t1-128"),
    ...     noise=GaussianNoise(5.0),
    ...     recipe="fast",
    ...     callback=lambda status: stages.append(status.stage),
    ... )
    >>> stages[0], stages[-1]
    ('guess', 'done')
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
    """The solution holds NaN or infinite values.

    Examples
    --------
    >>> try:
    ...     raise NonFiniteError("the solution is not finite")
    ... except RuntimeError as error:
    ...     print(error)
    the solution is not finite
    """


class UnlikePriorWarning(UserWarning):
    """The image is unlike what the prior was trained on.

    Examples
    --------
    A picture of bricks, and a prior that knows brains. A filter turns the warning into an error:

    >>> import warnings
    >>> from skimage.data import brick
    >>> import iasolve
    >>> from iasolve.operators import GaussianNoise, Identity
    >>> y = brick()[None, :128, :128].astype("float32")
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", UnlikePriorWarning)
    ...     try:
    ...         iasolve.solve(y, Identity((1, 128, 128)), prior, noise=GaussianNoise(5.0), recipe="denoise")
    ...     except UnlikePriorWarning as warning:
    ...         print(str(warning)[:24])
    the image is unlike thos
    """
