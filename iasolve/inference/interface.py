"""What :func:`iasolve.solve` and :func:`iasolve.reconstruct` are asked for and give: options, status, results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.operator_likelihood import TOLERANCE
from iasolve.noise_level.residual import ResidualReport
from iasolve.operators.conventions import check_batch_size
from iasolve.recipe import Recipe

__all__ = [
    "Array",
    "Callback",
    "NonFiniteError",
    "Options",
    "ResidualReport",
    "Result",
    "ScaleReport",
    "SolveOptions",
    "SolverReport",
    "Status",
    "UnlikePriorWarning",
    "Watch",
    "as_numpy",
    "join",
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
        Conjugate-gradient iterations a step, for operators that are not diagonal in Fourier space. With 8 the gradient
        is off by less than 1 %, and ten steps end 0.02 dB below those with 20, with 6 0.1 dB, with 3 0.4 dB
        (benchmarks/results/general_path.md: 8 coils, 4x, 8 validation slices).
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


Array = TypeVar("Array", Tensor, np.ndarray)
"""Torch or numpy: of the kind that the measurement was."""


class NonFiniteError(RuntimeError):
    """The solution holds NaN or infinite values."""


class UnlikePriorWarning(UserWarning):
    """The image is unlike what the prior was trained on."""


class ScaleReport(TypedDict, Generic[Array]):
    """What steps did at a scale.

    ``before`` and ``after``: objective in nats, per image; ``misfit``: root mean square residual against noise and
    decoder level, per image, about 1; of the whole image where the measurement does not divide among scales: tiles, and
    operators that are not diagonal.
    """

    scale: int
    steps: int
    before: Array
    after: Array
    misfit: Array


class SolverReport(TypedDict, Generic[Array]):
    """Conjugate gradients, per image.

    ``applications`` of ``A^H A``, those of its batch, without what came before: gain and profile; relative ``residual``
    of the last solve.
    """

    applications: Array
    residual: Array


@dataclass(frozen=True)
class Result(Generic[Array]):
    """A solution; arrays are of the kind (torch or numpy) and on the device that ``y`` was, with its batch dimensions.

    Attributes
    ----------
    image : array
        ``(..., C, H, W)``, in the user's units.
    std : array or None
        Standard deviation of each pixel, with samples only.
    samples : array or None
        ``(K, ..., C, H, W)`` posterior samples.
    scales : list of ScaleReport
    sigma : array
        Noise level used, per image, in the measurement's units.
    levels : array or None
        Noise level of each ring of frequencies, from 0 to 0.5 cycles per pixel, ``(..., R)``, where they differ.
    gain : array
        Estimated scale of each image: user's units over the prior's.
    offset : array
        Constant that was taken off each image, solved without, and put back: see :class:`Options`.
    improved : array
        Whether passes or steps ended with a better objective than the guess, per image; where not, that is returned.
    prior : str
    fits : array
        Whether the prior answered, per image; where not, the stationary Gaussian with its power did, with its own error
        bar. What else is reported of such an image is the prior's attempt.
    likeness : array
        ELBO of the image (of its tiles, on average) under the prior, in nats per dimension.
    distance : array
        Of the power of its coarse scales from that of validation images, in their standard deviations; NaN: unknown.
    offsets : list of list of array
        What refinement moved each latent's mean by, in standard deviations of its posterior (of its prior, without
        encoder): per scale and layer ``(tiles in all, z, g, g)``. See :func:`iasolve.priors.bound.bound`.
    solver : SolverReport or None
        Where the operator is not diagonal.
    residual : ResidualReport
    recipe : Recipe
    chosen : str
        Why this recipe was taken, where none was asked for; empty otherwise.
    seed : int
    seconds : float
    """

    image: Array
    std: Array | None
    samples: Array | None
    scales: list[ScaleReport[Array]]
    sigma: Array
    levels: Array | None
    gain: Array
    offset: Array
    improved: Array
    prior: str
    fits: Array
    likeness: Array
    distance: Array
    offsets: list[list[Array]]
    solver: SolverReport[Array] | None
    residual: ResidualReport[Array]
    recipe: Recipe
    chosen: str
    seed: int
    seconds: float

    @property
    def prior_used(self) -> Any:
        """Name of the prior whose answer each image is: the one asked, or ``"gaussian"``; nested lists for a batch."""
        names = np.where(np.asarray(self.fits.tolist(), dtype=bool), self.prior, "gaussian")
        return names.tolist()

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from iasolve.report import result_html

        return result_html(self)


_PER_IMAGE = ("image", "std", "sigma", "levels", "gain", "offset", "improved", "fits", "likeness", "distance")


def join(parts: Sequence[Result[Tensor]], lead: Sequence[int], device: torch.device) -> Result[Tensor]:
    """Results of batches as one, with batch dimensions ``lead``, on a device; ``seconds`` add up."""
    first = parts[0]

    def whole(values: Sequence[Tensor | None], axis: int = 0) -> Any:
        known = [value for value in values if value is not None]
        if not known:
            return None
        joined = torch.cat(known, dim=axis).to(device)
        return joined.reshape((*joined.shape[:axis], *lead, *joined.shape[axis + 1 :]))

    def rows(of: Sequence[Any]) -> Any:
        """Records of batches as one: their arrays joined."""
        return {key: whole([row[key] for row in of]) if isinstance(one, Tensor) else one for key, one in of[0].items()}

    scales = [rows([r.scales[n] for r in parts]) for n in range(len(first.scales))]
    solver = None if first.solver is None else rows([r.solver for r in parts])
    # by tiles, whatever the images
    offsets = [
        [torch.cat([r.offsets[s][n] for r in parts]).to(device) for n in range(len(layers))]
        for s, layers in enumerate(first.offsets)
    ]
    return replace(
        first,
        **{name: whole([getattr(r, name) for r in parts]) for name in _PER_IMAGE},
        samples=whole([r.samples for r in parts], 1),
        scales=scales,
        offsets=offsets,
        solver=solver,
        residual=rows([r.residual for r in parts]),
        seconds=sum(r.seconds for r in parts),
    )


def as_numpy(result: Result[Tensor]) -> Result[np.ndarray]:
    """A result of torch's arrays with numpy's, of the same class."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.numpy()
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    found: Any = replace(result, **{f.name: plain(getattr(result, f.name)) for f in fields(result)})
    return found
