"""Multi-coil methods to compare: what each sees, and how its weight is chosen from hidden k-space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from reconstruction import tune
from torch import Tensor

import common
import iasolve
from iasolve.classical.sense import total_variation_sense
from iasolve.noise_level import estimate_sigma
from iasolve.operators import SensitivityEncoding, calibration_region
from iasolve.reconstruction.multicoil import CoilProblem, pose_coils
from iasolve.reconstruction.phase import cg_sense

RECIPES = ("fast", "compressed-sensing")


class Seen:
    """K-space of which a part was hidden, as each kind of method sees it."""

    def __init__(self, y: Tensor) -> None:
        self.y = y
        self.complex: CoilProblem = pose_coils(y, is_complex=True)
        self.sigma = float(estimate_sigma(y[None], self.complex.operator)[0])

    @cached_property
    def real(self) -> CoilProblem:
        """With a phase estimated from what is seen."""
        return pose_coils(self.y, is_complex=False)


@dataclass(frozen=True)
class Method:
    """From what is seen, and a weight to be tuned from ``start`` on if there is one, to an image."""

    name: str
    solve: Callable[[Seen, float], Tensor]
    start: float | None = None
    real: bool = False

    def error(self, seen: Seen, hidden: Tensor, weight: float) -> tuple[float, Tensor, float]:
        """Relative error of the hidden k-space's prediction, the image, and processor seconds."""
        posed = seen.real if self.real else seen.complex
        image, seconds = common.timed(lambda: self.solve(seen, weight), 1)
        encoding = SensitivityEncoding(posed.operator.maps, (hidden != 0).any(0), posed.operator.in_dtype)
        missed = torch.linalg.vector_norm(encoding(image) - hidden) / torch.linalg.vector_norm(hidden)
        return float(missed), image, seconds


def classical_methods(quick: bool) -> list[Method]:
    """The baselines; sigpy's where it can be imported, with the iterations that each needs to converge."""

    def tv(seen: Seen, posed: CoilProblem, weight: float) -> Tensor:
        return total_variation_sense(posed.operator, posed.y[None], seen.sigma, weight).image[0]

    methods = [
        Method("zero-filled", lambda s, _: s.complex.operator.adjoint(s.y)),
        Method("CG-SENSE", lambda s, w: cg_sense(s.y, s.complex.operator, w * s.sigma), 2.0),
        Method("CG-SENSE, real with phase", lambda s, w: cg_sense(s.y, s.real.operator, w * s.sigma), 4.0, real=True),
        Method("TV-SENSE", lambda s, w: tv(s, s.complex, w), 30.0),
        Method("TV-SENSE, real with phase", lambda s, w: tv(s, s.real, w), 30.0, real=True),
    ]
    try:
        import sigpy.mri
    except ImportError:
        return methods

    def sigpy_app(app: Any, iterations: int) -> Callable[[Seen, float], Tensor]:
        def solve(seen: Seen, weight: float) -> Tensor:
            y, maps = seen.y.numpy(), seen.complex.operator.maps.numpy()
            found = app(y, maps, lamda=weight, max_iter=iterations, show_pbar=False).run()
            return torch.from_numpy(np.asarray(found, np.complex64))[None]

        return solve

    methods.append(Method("sigpy L1WaveletRecon", sigpy_app(sigpy.mri.app.L1WaveletRecon, 100), 0.0025))
    if not quick:  # its primal-dual steps are slow: at 100, its default, the error is half as large again
        methods.append(Method("sigpy TotalVariationRecon", sigpy_app(sigpy.mri.app.TotalVariationRecon, 600), 0.0025))
    return methods


def own_methods(prior: Any, seed: int, quick: bool) -> list[Method]:
    """iasolve, each fit and recipe."""

    def solver(fit: str, recipe: str) -> Callable[[Seen, float], Tensor]:
        def solve(seen: Seen, _: float) -> Tensor:
            posed = seen.real if real else seen.complex
            return iasolve.solve(posed.y, posed.operator, prior, recipe=recipe, seed=seed, fit=fit).image

        return solve

    real = not prior.spectrum.is_complex
    kind = "" if real else ", complex prior"
    return [
        Method(f"iasolve {fit}, {recipe}{kind}", solver(fit, recipe), real=real)
        for fit in ("field-of-view", "canvas")
        for recipe in (RECIPES[:1] if quick else RECIPES)
    ]


def hide(y: Tensor, generator: torch.Generator, fraction: float = 0.1) -> tuple[Tensor, Tensor]:
    """K-space without, and with nothing but, a random part of the positions outside the sampled centre."""
    sampled = (y != 0).any(0)
    region = calibration_region(y)
    hidden = (torch.rand(sampled.shape, generator=generator) < fraction) & sampled
    region.cut(hidden)[:] = False
    return y * ~hidden, y * hidden


def tuned(method: Method, trial: Seen, hidden: Tensor) -> float:
    """The weight that predicts hidden k-space best."""
    assert method.start is not None
    return tune(lambda w: -method.error(trial, hidden, w)[0], method.start, 2.0)[0]
