"""One measurement solved: prior and device, the solver's call, and the report that goes beside the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import iasolve
from iasolve.cli.errors import DeviceError, UnfitInput, UsageError
from iasolve.cli.outputs import Outputs, std_type
from iasolve.cli.priors import open_prior
from iasolve.cli.provenance import hash_of_card, hashes_of_files, hashes_of_outputs, input_hash
from iasolve.cli.reporter import plain, spread
from iasolve.cli.settings import Settings
from iasolve.cli.sources import Source
from iasolve.cli.task import Task
from iasolve.files import suffix_of, write_image, write_json, write_together
from iasolve.inference import Result, UnlikePriorWarning
from iasolve.inference.reconstruct import LARGEST_IMAGINARY, Reconstruction
from iasolve.noise_level import EstimatedNoise, filled_fraction
from iasolve.operators import GaussianNoise, NoiseModel, RicianNoise
from iasolve.priors import Prior

__all__ = ["Answer", "Solver", "choose_device"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """A solution in the shape of its source, ``(pages, channels, H, W)``, and its report."""

    image: Array
    std: Array | None
    report: dict[str, Any]

    @property
    def warnings(self) -> list[str]:
        """What the user should be told."""
        found: list[str] = self.report["warnings"]
        return found


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


def _unit(y: Array) -> float:
    """1; for values so large or small that their squares leave single precision, a power of two to divide by."""
    largest = float(np.abs(y).max())
    if largest == 0 or 1e-12 < largest < 1e12:
        return 1.0
    return float(2.0 ** np.clip(np.round(np.log2(largest)), -1000, 1000))


_LARGEST_NOISE = 1e9
"""Times the largest value; beyond it squares leave single precision."""


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
        self.task, self.settings = task, settings
        self.device = choose_device(settings.device)
        prior = open_prior(settings.prior)
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

    def solve(self, source: Source, progress: Callable[[int, int], None] | None = None) -> Answer:
        """Solve one measurement.

        Parameters
        ----------
        source : Source
        progress : callable, optional
            Called with (images done, images in all).

        Raises
        ------
        UnfitInput, NonFiniteError, MemoryError
        """
        y, notes = self._batch(source)
        unit = _unit(y)
        self._require_plausible_sigma(y, source)
        y = (y / unit).astype(np.complex64 if y.dtype.kind == "c" else np.float32)
        settings = self.settings
        solve = self.task.solve or self._with_operator
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UnlikePriorWarning)
            try:
                result = solve(
                    source,
                    y,
                    self.prior,
                    noise=self._noise(unit),
                    offset="auto" if settings.offset is None else settings.offset / unit,
                    recipe=settings.recipe,
                    seed=settings.seed,
                    fit=settings.fit,
                    overlap=settings.overlap,
                    batch_size=settings.batch_size,
                    callback=None if progress is None else lambda status: progress(status.image, status.images),
                )
            except ValueError as error:
                raise UnfitInput(f"{source.like.path}: {error}") from error
            except (OverflowError, RuntimeError) as error:
                if isinstance(error, OverflowError) or "without overflow" in str(error):
                    raise UsageError(
                        f"a number of the options or the recipe is too large ({error}): choose one within reason"
                    ) from error
                raise
        notes += [str(w.message) for w in caught] + self._phase(result) + self._enlarged(y)
        report = self._report(source, result, unit, source.notes + notes)

        def whole(values: Array) -> Array:
            pages, channels = source.like.pixels.shape[:2]
            values = values.reshape(pages, channels, *values.shape[-2:])[..., *source.crop]
            return values if unit == 1.0 else values.astype(np.result_type(values, np.float64)) * unit

        return Answer(whole(result.image), None if result.std is None else whole(result.std), report)

    def _noise(self, unit: float) -> NoiseModel | EstimatedNoise | None:
        """The model that was asked for; None: to be estimated, of any kind."""
        sigma, kind = self.settings.sigma, self.settings.noise
        if kind in ("spectral", "rician") and self.task.operator is None:
            raise UsageError(f"--noise {kind}: the noise of k-space is gaussian; only images have noise of that kind")
        if sigma is None:
            return None if kind == "auto" or self.task.operator is None else EstimatedNoise(kind)
        return RicianNoise(sigma / unit) if kind == "rician" else GaussianNoise(sigma / unit)

    def _require_plausible_sigma(self, y: Array, source: Source) -> None:
        sigma, largest = self.settings.sigma, float(np.abs(y).max())
        if sigma is not None and largest > 0 and sigma > _LARGEST_NOISE * largest:
            raise UsageError(
                f"--sigma {sigma:g}: {source.like.path.name} has values up to {largest:.4g}. Expected the noise level "
                "in the file's units; nothing can be told of an image below so much noise"
            )

    def _with_operator(self, source: Source, y: Array, prior: Prior, **options: Any) -> Result[Any]:
        assert self.task.operator is not None
        kind = torch.complex64 if prior.spectrum.is_complex else torch.float32
        operator = self.task.operator(source, (prior.channels, *y.shape[-2:]), kind)
        return iasolve.solve(y, operator, prior, **options)

    def _batch(self, source: Source) -> tuple[Array, list[str]]:
        y, channels, path = source.y, self.prior.channels, source.like.path
        if self.task.solve is not None:  # no image, but what came of one
            return y, []
        if y.dtype.kind == "c" and not self.prior.spectrum.is_complex:
            raise UnfitInput(
                f"{path}: a complex image. Expected real values, as prior {self.prior.name!r} has them. Take the "
                "magnitude first, or give the k-space to 'iasolve reconstruct'"
            )
        if y.shape[1] == channels:
            return y, []
        if channels == 1:
            note = f"prior {self.prior.name!r} is over grey images: the {y.shape[1]} colours are solved one by one"
            return y.reshape(-1, 1, *y.shape[2:]), [note]
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

    def _report(self, source: Source, result: Result[Any], unit: float, notes: list[str]) -> dict[str, Any]:
        like = source.like

        def each(values: Any) -> list[Any]:
            return list(np.asarray(values).reshape(-1).tolist())

        report = {
            "iasolve": iasolve.__version__,
            **self.identity,
            "input": {
                "name": like.path.name,
                "sha256": input_hash(like.path),
                "type": str(like.dtype if self.task.solve is None else source.y.dtype),
                "slice_axis": like.slice_axis,
            },
            "operator": source.facts | ({"slices": result.facts} if isinstance(result, Reconstruction) else {}),
            "device": self.device,
            "seconds": result.seconds,
            # per image: pages, then colours
            "shape": list(like.pixels.shape),
            "sigma": each(np.asarray(result.sigma, np.float64) * unit),
            "sigma_estimated": self.settings.sigma is None,
            # per image, of each ring of frequencies
            "levels": None if result.levels is None else (np.asarray(result.levels, np.float64) * unit).tolist(),
            "gain": each(np.asarray(result.gain, np.float64) * unit),
            "offset": each(np.asarray(result.offset, np.float64) * unit),
            "improved": each(result.improved),
            "prior_used": np.ravel(result.prior_used).tolist(),
            "likeness": each(result.likeness),
            # conjugate gradients, where the operator is not diagonal
            "solver": None if result.solver is None else {key: each(value) for key, value in result.solver.items()},
            # over what noise alone would leave: of all values, and by bands of frequency
            "residual": {
                "whole": plain(each(result.residual["whole"]), 4),
                "bands": plain(np.asarray(result.residual["bands"]).reshape(result.residual["whole"].size, -1), 4),
            },
            "scales": [
                {
                    "scale": row["scale"],
                    "steps": row["steps"],
                    "before": each(row["before"]),
                    "after": each(row["after"]),
                    "misfit": each(row["misfit"]),
                }
                for row in result.scales
            ],
            "warnings": notes,
        }
        found: dict[str, Any] = plain(report, 7)
        return found

    def write(self, answer: Answer, source: Source, outputs: Outputs) -> dict[str, Any]:
        """Write everything that belongs to a result; the sidecar last, as the sign that the rest is complete.

        Returns
        -------
        dict
            The report as written.

        Raises
        ------
        WriteError
        """
        like = source.like
        complex_result = np.iscomplexobj(answer.image) and not like.is_complex
        note = (
            f"iasolve {iasolve.__version__} {self.task.command}, prior {self.prior.name}, recipe "
            f"{answer.report['recipe']['name']}, seed {self.settings.seed}; not for clinical use"
        )
        with write_together():
            write_image(outputs.image, answer.image, like, dtype=np.complex64 if complex_result else None, note=note)
            if outputs.std is not None:
                assert answer.std is not None
                write_image(outputs.std, answer.std, like, dtype=std_type(like))
            if outputs.figure is not None:
                from iasolve.cli.figures import draw_result

                estimated = " (estimated)" if answer.report["sigma_estimated"] else ""
                title = f"{self.task.command} {like.path.name}: sigma {spread(answer.report['sigma'])}{estimated}"
                draw_result(outputs.figure, like.pixels, answer.image, answer.std, title)
            report = {
                **answer.report,
                "output": outputs.image.name,
                "std": None if outputs.std is None else outputs.std.name,
                "figure": None if outputs.figure is None else outputs.figure.name,
                "not_kept": like.lost_in(suffix_of(outputs.image)),
                "sha256": hashes_of_outputs(outputs),
            }
            write_json(outputs.sidecar, report)
        return report
