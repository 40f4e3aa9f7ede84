"""A prior on a device, and what it makes of measurements, part by part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import iasolve
from iasolve.cli.errors import DeviceError, UnfitInput, UsageError
from iasolve.cli.facts import facts_of
from iasolve.cli.pieces import Piece
from iasolve.cli.priors import open_prior
from iasolve.cli.provenance import hash_of_card, hashes_of_files
from iasolve.cli.reporter import plain
from iasolve.cli.settings import Settings
from iasolve.cli.sources import Source
from iasolve.cli.stages import Stages
from iasolve.cli.task import Task
from iasolve.files import Stack
from iasolve.files.stack import as_array
from iasolve.inference import Choice, Result, UnlikePriorWarning, choose_prior
from iasolve.inference.memory import cut
from iasolve.inference.solve import without_steps
from iasolve.inference.windows import least_window
from iasolve.noise_level import EstimatedNoise, filled_fraction
from iasolve.operators import GaussianNoise, LinearOperator, NoiseModel, RicianNoise
from iasolve.priors import Prior
from iasolve.problem.geometry import tiles_of
from iasolve.problem.options import Options, SolveOptions
from iasolve.reconstruction.reconstruct import Reconstruction
from iasolve.reconstruction.single_coil import LARGEST_IMAGINARY

__all__ = ["Part", "Solver", "choose_device"]

Array = NDArray[Any]


def choose_device(name: str) -> str:
    """The device to work on.

    Raises
    ------
    DeviceError
        When a GPU is asked for that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = int(name.partition(":")[2] or 0)
        if number >= count:
            raise DeviceError(
                f"--device {name}: {count or 'no'} CUDA device(s) found. Use --device cpu, or a CUDA build of torch"
            )
    return name


class Part(NamedTuple):
    """A measurement of some images, divided by ``unit``, in single precision."""

    source: Source
    unit: float


def _unit(largest: float) -> float:
    """1; for values so large or small that their squares leave single precision, a power of two to divide by."""
    if largest == 0 or 1e-12 < largest < 1e12:
        return 1.0
    return float(2.0 ** np.clip(np.round(np.log2(largest)), -1000, 1000))


_LARGEST_NOISE = 1e9
"""Times the largest value; beyond it squares leave single precision."""


@contextmanager
def _explained(source: Source) -> Iterator[None]:
    """What the solver refuses, in the words of the command line.

    Raises
    ------
    UnfitInput, UsageError
    """
    try:
        yield
    except ValueError as error:
        raise UnfitInput(f"{source.like.path}: {error}") from error
    except (OverflowError, RuntimeError) as error:
        if isinstance(error, OverflowError) or "without overflow" in str(error):
            raise UsageError(
                f"a number of the options or the recipe is too large ({error}): choose one within reason"
            ) from error
        raise


class Solver:
    """A prior on a device, ready for measurements.

    Parameters
    ----------
    task : Task
    settings : Settings

    Raises
    ------
    PriorError, DeviceError, UsageError, RecipeError
        When these do not go together.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        self.device = choose_device(settings.device)
        prior = open_prior(settings.prior)
        if not settings.own_recipe:
            settings = replace(settings, recipe=without_steps(settings.recipe, prior))
        self.task, self.settings = task, settings
        size = prior.spectrum.size
        settings.recipe.check_scales(prior.spectrum.scales)
        if settings.tile not in (None, size):
            raise UsageError(f"--tile {settings.tile}: prior {prior.name!r} has tiles of {size} pixels and no others")
        if settings.overlap is not None and settings.overlap >= size:
            raise UsageError(f"--overlap {settings.overlap}: expected less than the prior's tile of {size} pixels")
        self.prior = prior if self.device == "cpu" else prior.to(self.device)

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on besides its input; two runs with equal ones give the same result."""
        s = self.settings
        return {
            "command": self.task.command,
            "prior": {"name": self.prior.name, "sha256": self.prior.card.get("sha256")},
            "recipe": s.recipe.to_dict(),
            "asked": {
                **self.task.asked,
                "prior": list(s.among) or s.prior,
                "sigma": "auto" if s.sigma is None else s.sigma,
                "noise": s.noise,
                "offset": "auto" if s.offset is None else s.offset,
                "fit": s.fit,
                "overlap": s.overlap,
            },
            "files": self._files,
            "seed": s.seed,
        }

    @cached_property
    def _files(self) -> dict[str, str]:
        # once for all inputs, when the first is solved: a user's operator is imported by then
        return {"--prior (card)": hash_of_card(self.prior.card), **hashes_of_files(self.task.files())}

    def cut(self, source: Source) -> tuple[list[slice], int]:
        """The pieces of a measurement, by their images, and the tiles of an image.

        Raises
        ------
        BudgetError
            Where the memory does not suffice for a tile.
        """
        options = Options(**self._options)
        count = len(self.images(source))
        size = cut(
            self.prior,
            self.settings.recipe,
            source.shape,
            options,
            least=lambda: None if self.task.operator is None else least_window(self._operator(source)),
        ).images
        tiles = tiles_of(self.prior.spectrum.size, source.shape, options.fit, options.overlap)
        return [slice(first, min(first + size, count)) for first in range(0, count, size)], tiles

    @property
    def _options(self) -> SolveOptions:
        s = self.settings
        return {
            "seed": s.seed,
            "fit": s.fit,
            "overlap": s.overlap,
            "batch_size": s.batch_size,
            "memory": s.memory,
        }

    def _in_units_of(self, unit: float) -> SolveOptions:
        offset = self.settings.offset
        return {**self._options, "offset": "auto" if offset is None else offset / unit}

    def part(self, source: Source, rows: slice) -> Part:
        """Some images of a measurement by themselves, small enough to be sent."""
        unit = _unit(source.largest)
        y = self.images(source)[rows] / unit
        like = replace(source.like, pixels=np.empty((0, 1, 1, 1)), alpha=None, icc=None, header=None)
        single = y.astype(np.complex64 if y.dtype.kind == "c" else np.float32)
        return Part(replace(source.of(rows, single), like=like), unit)

    def solve(self, part: Part, progress: Callable[[float, str], None] | None = None) -> Piece:
        """Solve some images of a measurement.

        Parameters
        ----------
        part : Part
        progress : callable, optional
            Called with the images that are done, parts of one included, and what was done last, in words.

        Raises
        ------
        UnfitInput, NonFiniteError, MemoryError
        """
        settings, (source, unit) = self.settings, part
        y = source.y
        solve = self.task.solve or self._with_operator
        # slices of several coils are solved one by one
        stages = Stages(settings.recipe, self.prior, len(y), len(y) if self.task.solve is None else 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UnlikePriorWarning)
            with _explained(source):
                result = solve(
                    source,
                    y,
                    self.prior,
                    noise=self._noise(unit),
                    recipe=settings.recipe,
                    callback=None if progress is None else lambda status: progress(*stages(status)),
                    **self._in_units_of(unit),
                )
        said = [str(w.message) for w in caught] + self._phase(result) + self._enlarged(y)

        def whole(values: Array) -> Array:
            values = values.reshape(len(y), -1, *values.shape[-2:])[..., *source.crop]
            return values if unit == 1.0 else values.astype(np.result_type(values, np.float64)) * unit

        std = None if result.std is None else whole(result.std)
        return Piece(whole(result.image), std, plain(facts_of(result, unit) | {"said": said}))

    def _noise(self, unit: float) -> NoiseModel | EstimatedNoise | None:
        """The model that was asked for; None: to be estimated, of any kind."""
        sigma, kind = self.settings.sigma, self.settings.noise
        if kind in ("spectral", "rician") and self.task.solve is not None:
            raise UsageError(f"--noise {kind}: the noise of k-space is gaussian; only images have noise of that kind")
        if sigma is None:
            return None if kind == "auto" or self.task.solve is not None else EstimatedNoise(kind)
        return RicianNoise(sigma / unit) if kind == "rician" else GaussianNoise(sigma / unit)

    def choose(self, source: Source, priors: Sequence[Prior]) -> Choice:
        """Which of several priors over images of this one's kind a measurement speaks for.

        Raises
        ------
        UnfitInput, UsageError
        """
        y, unit = self.images(source), _unit(source.largest)
        choose = self.task.choose
        if choose is None:
            # of a volume, as many as are looked at
            y = y[sorted({len(y) * quarter // 4 for quarter in (1, 2, 3)})]
            single = (y / unit).astype(np.complex64 if y.dtype.kind == "c" else np.float32)
            choose = self._choose_with_operator
        else:
            source = self.part(source, slice(len(y) // 2, len(y) // 2 + 1)).source
            single = source.y
        with _explained(source), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return choose(source, single, priors, noise=self._noise(unit), **self._in_units_of(unit))

    def _choose_with_operator(self, source: Source, y: Array, priors: Sequence[Prior], **options: Any) -> Choice:
        return choose_prior(y, self._operator(source), priors, **options)

    def _operator(self, source: Source) -> LinearOperator:
        assert self.task.operator is not None
        kind = torch.complex64 if self.prior.spectrum.is_complex else torch.float32
        return self.task.operator(source, (self.prior.channels, *source.shape), kind)

    def require_plausible_sigma(self, source: Source) -> None:
        """Refuse a noise level that is far beyond the measurement (UsageError)."""
        sigma, largest = self.settings.sigma, source.largest
        if sigma is not None and largest > 0 and sigma > _LARGEST_NOISE * largest:
            raise UsageError(
                f"--sigma {sigma:g}: {source.like.path.name} has values up to {largest:.4g}. Expected the noise level "
                "in the file's units; nothing can be told of an image below so much noise"
            )

    def _with_operator(self, source: Source, y: Array, prior: Prior, **options: Any) -> Result[Any]:
        return iasolve.solve(y, self._operator(source), prior, **options)

    def images(self, source: Source) -> Array:
        """The measurement of each image that is solved for; of a grey prior, of each colour."""
        y, channels, path = source.y, self.prior.channels, source.like.path
        if self.task.solve is not None:  # no image, but what came of one
            return y
        if y.dtype.kind == "c" and not self.prior.spectrum.is_complex:
            raise UnfitInput(
                f"{path}: a complex image. Expected real values, as prior {self.prior.name!r} has them. Take the "
                "magnitude first, or give the k-space to 'iasolve reconstruct'"
            )
        if y.shape[1] == channels:
            return y
        if channels == 1:
            return as_array(y.channels_alone()) if isinstance(y, Stack) else y.reshape(-1, 1, *y.shape[2:])
        raise UnfitInput(
            f"{path}: {y.shape[1]} channel(s). Expected {channels}, as prior {self.prior.name!r} has. "
            "Choose another --prior"
        )

    def _enlarged(self, y: Array) -> list[str]:
        """A note where an image was interpolated by zeros around its k-space, as scanners and viewers do."""
        if self.task.command not in ("denoise", "deblur"):
            return []
        rows, columns = filled_fraction(torch.from_numpy(y[len(y) // 2]))
        if min(rows, columns) == 1:
            return []
        height, width = y.shape[-2:]
        return [
            f"only {rows:.0%} x {columns:.0%} of the image's k-space hold anything: it was interpolated (zero-filled) "
            f"from about {round(rows * height)} x {round(columns * width)} pixels, and has neither detail nor noise "
            "beyond those"
        ]

    def _phase(self, result: Result[Any]) -> list[str]:
        """A warning where an image with phase was taken for a real one."""
        if not isinstance(result, Reconstruction):
            return []
        taken = [found.get("imaginary_share", 0.0) for found in result.facts if found["phase"] == "none"]
        largest = max(taken, default=0.0)
        if largest < LARGEST_IMAGINARY:
            return []
        return [
            f"{largest:.0%} of the image's energy is in its imaginary part, and prior {self.prior.name!r} is over real "
            "images: what has phase is lost. Leave out --phase none, or remove the phase first"
        ]
