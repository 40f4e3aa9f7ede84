"""One batch of measurements from posing the problem to the closed image and its samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from iasolve.inference.data import GeneralData, Solves
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

    def view(shift: tuple[int, int], how: Recipe) -> Part:
        return _solve_view(
            y, sigma, operator, prior, how, shift, seed=seed, fit=fit, overlap=overlap, force_general=force_general
        )

    first = view(SHIFTS[0], recipe)
    # samples and error bars are the first view's: of one posterior, about the mean of all
    quiet = recipe.changed(samples=0) if recipe.temperature == 0 else recipe
    count = recipe.views if prior.shift >= LARGEST else 1
    others = [view(shift, quiet) for shift in SHIFTS[1:count]]
    return _mean(first, others, recipe.nonnegative and prior.nonnegative) if others else first


def _mean(first: Part, others: list[Part], nonnegative: bool) -> Part:
    """``first`` with the mean image; everything else is told of the first view."""
    image = torch.stack([first.image, *(p.image for p in others)]).mean(0)
    samples = first.samples
    if samples is not None:
        samples = samples + (image - first.image)
        samples = samples.clamp_min(0) if nonnegative else samples
    solves = [p.solves for p in (first, *others) if p.solves is not None]
    told = first.solves
    if solves:
        told = Solves(sum(s.applications for s in solves), torch.stack([s.residual for s in solves]).amax(0))
    return replace(first, image=image, samples=samples, solves=told)


def _solve_view(
    y: Tensor,
    sigma: Tensor,
    operator: LinearOperator,
    prior: Prior,
    recipe: Recipe,
    shift: tuple[int, int],
    *,
    seed: int,
    fit: str,
    overlap: int | None,
    force_general: bool,
) -> Part:
    """The solution of the problem for the image moved back by ``shift``, moved there again."""
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
        shift=shift,
    )
    stop = _stops(problem, prior, recipe).repeat_interleave(problem.geometry.tiles)
    draw = Noise(seed, y.device, y.real.dtype)
    nonnegative = recipe.nonnegative and prior.nonnegative

    first = first_guess(problem, prior, recipe, stop)
    final, reports, improved = improve(problem, prior, recipe, first, stop, draw)
    sampler = Sampler(problem, prior, final, first if recipe.passes else final, stop, draw)
    x0 = sampler.centre
    if recipe.temperature > 0 and recipe.samples == 0:
        x0 = sampler.decode("estimate", recipe.temperature)
    variance = problem.unexplained(problem.data, sampler.centre, recipe.adaptive)
    local = None
    if recipe.residual == "local":
        local = LocalResidual(problem.data, sampler.centre, variance, recipe.tolerance)
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
    likeness, distance = _likeness(problem, prior, estimate)
    return Part(
        image,
        None if std is None else problem.crop(gain * std),
        None if samples is None else problem.crop(gain * samples),
        reports,
        problem.gain,
        improved,
        likeness,
        distance,
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
