"""One batch of measurements from posing the problem to the closed image and its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.general_data import GeneralData, Solves
from iasolve.inference.guess import first_guess
from iasolve.inference.local import LocalResidual
from iasolve.inference.nonnegative import closest_image
from iasolve.inference.problem import Problem, pose
from iasolve.inference.refine import ScaleReport
from iasolve.inference.refinement import improve
from iasolve.inference.sampling import Sampler, error_bar
from iasolve.inference.topdown import Noise
from iasolve.inference.views import LARGEST, SHIFTS
from iasolve.operators.base import LinearOperator
from iasolve.priors import Prior
from iasolve.priors.likeness import image_elbo, ring_distance
from iasolve.recipe import Recipe

__all__ = ["NonFiniteError", "Part", "solve_batch"]


class NonFiniteError(RuntimeError):
    """The solution holds NaN or infinite values."""


@dataclass
class Part:
    """A batch's share of :class:`iasolve.inference.solve.Result`, images first; ``samples`` ``(K, B, C, H, W)``."""

    image: Tensor
    std: Tensor | None
    samples: Tensor | None
    reports: list[ScaleReport]
    gain: Tensor
    improved: Tensor
    likeness: Tensor
    distance: Tensor
    offsets: list[list[Tensor]]
    solves: Solves | None


class _View(NamedTuple):
    """The solution for one moved image; ``estimate``: on the problem's grid, in the prior's units."""

    problem: Problem
    estimate: Tensor
    image: Tensor
    std: Tensor | None
    samples: Tensor | None
    reports: list[ScaleReport]
    improved: Tensor
    offsets: list[list[Tensor]]
    solves: Solves | None


@torch.no_grad()
def solve_batch(
    y: Tensor,
    sigma: Tensor,
    operator: LinearOperator,
    prior: Prior,
    recipe: Recipe,
    *,
    seed: int,
    fit: str,
    overlap: int | None,
    force_general: bool,
) -> Part:
    """Solve ``y`` ``(B, *out_shape)`` at noise levels ``sigma`` ``(B,)``; see :func:`iasolve.solve`."""

    def view(number: int, how: Recipe) -> _View:
        return _solve_view(
            y, sigma, operator, prior, how, number, seed=seed, fit=fit, overlap=overlap, force_general=force_general
        )

    first = view(0, recipe)
    # samples, error bars and reports are the first view's: of one posterior, about the mean of all
    quiet = recipe.changed(samples=0) if recipe.temperature == 0 else recipe
    count = recipe.views if prior.shift >= LARGEST else 1
    refined = count if recipe.mode == "iterative" else recipe.refined_views or count
    guess = quiet.changed(steps=0)
    found = (view(number, quiet if number < refined else guess) for number in range(1, count))
    others = [(v.image, v.solves) for v in found]
    image, samples = first.image, first.samples
    if others:
        image = torch.stack([image, *(moved for moved, _ in others)]).mean(0)
        if samples is not None:
            samples = samples + (image - first.image)
            samples = samples.clamp_min(0) if recipe.nonnegative and prior.nonnegative else samples
    std, support = first.std, operator.support()
    if support is not None:
        # nothing was measured there, because nothing is there
        image = image * support
        std = None if std is None else std * support
        samples = None if samples is None else samples * support
    likeness, distance = _likeness(first.problem, prior, first.estimate)
    return Part(
        image,
        std,
        samples,
        first.reports,
        first.problem.gain,
        first.improved,
        likeness,
        distance,
        first.offsets,
        _together([first.solves, *(solves for _, solves in others)]),
    )


def _together(found: list[Solves | None]) -> Solves | None:
    """The solves of all views as one."""
    solves = [s for s in found if s is not None]
    if not solves:
        return None
    return Solves(sum(s.applications for s in solves), torch.stack([s.residual for s in solves]).amax(0))


def _solve_view(
    y: Tensor,
    sigma: Tensor,
    operator: LinearOperator,
    prior: Prior,
    recipe: Recipe,
    number: int,
    *,
    seed: int,
    fit: str,
    overlap: int | None,
    force_general: bool,
) -> _View:
    """The solution of the problem for the image moved back by a shift, moved there again; reports of the first only."""
    problem = pose(
        y,
        operator,
        prior,
        sigma,
        fit=fit,
        overlap=overlap,
        iterations=recipe.iterations,
        tolerance=recipe.tolerance,
        force_general=force_general,
        shift=SHIFTS[number],
    )
    stop = _stops(problem, prior, recipe).repeat_interleave(problem.geometry.tiles)
    draw = Noise(seed, y.device, y.real.dtype)
    nonnegative = recipe.nonnegative and prior.nonnegative

    first = first_guess(problem, prior, recipe, stop)
    final, reports, improved = improve(problem, prior, recipe, first, stop, draw, told=number == 0)
    sampler = Sampler(problem, prior, final, first if recipe.passes else final, stop, draw)
    x0 = sampler.centre
    if recipe.temperature > 0 and recipe.samples == 0:
        x0 = sampler.decode("estimate", recipe.temperature)
    variance = problem.unexplained(problem.data, sampler.centre, recipe.adaptive)
    local = None
    if recipe.residual == "local":
        local = LocalResidual(problem.data, sampler.centre, variance, recipe.tolerance, problem.variance)
    if not recipe.closing:
        estimate = x0
    elif local is not None:
        estimate = local.nonnegative(x0) if nonnegative else local.mean(x0)
    else:
        estimate = closest_image(problem.data, x0, variance, nonnegative)

    std = samples = None
    if recipe.samples:
        drawn = [sampler.posterior(k, variance, local) for k in range(recipe.samples)]
        means = torch.stack([mean if recipe.closing else moved for moved, mean, _ in drawn])
        samples = torch.stack([sample for _, _, sample in drawn])
        std = error_bar(problem.data, variance, means, samples, stationary=local is None)
        if recipe.temperature > 0:
            estimate = means.mean(0)
        if nonnegative:
            estimate, samples = estimate.clamp_min(0), samples.clamp_min(0)

    gain = problem.gain.reshape(-1, 1, 1, 1)
    image = problem.crop(gain * estimate)
    if not bool(torch.isfinite(image).all()):
        raise NonFiniteError(
            "the solution holds NaN or infinite values: check the measurement's range and sigma, "
            "or lower the recipe's step_size"
        )
    return _View(
        problem,
        estimate,
        image,
        None if std is None else problem.crop(gain * std),
        None if samples is None else problem.crop(gain * samples),
        reports,
        improved,
        [s.offsets for s in final.found.scales],
        problem.data.solves if isinstance(problem.data, GeneralData) else None,
    )


def _stops(problem: Problem, prior: Prior, recipe: Recipe) -> Tensor:
    """Index of the finest scale of the guess, ``(B,)``."""
    if recipe.guess_stop == "auto":
        return problem.stop
    scales = prior.spectrum.scales
    index = len(scales) - 1 if recipe.guess_stop == "all" else scales.index(int(recipe.guess_stop))
    return torch.full_like(problem.stop, index)


def _likeness(problem: Problem, prior: Prior, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Evidence bound and distance of the coarse rings of an estimate, averaged over its tiles, ``(B,)`` each."""
    views = problem.geometry.cut(estimate)
    scaled = views / views.abs().square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-20)
    tiles = problem.geometry.tiles
    return (
        image_elbo(prior, scaled).unflatten(0, (-1, tiles)).mean(1),
        ring_distance(prior, scaled).unflatten(0, (-1, tiles)).mean(1),
    )
