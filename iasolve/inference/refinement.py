"""From the guess to the solution: further passes, then gradient steps, each kept only where it pays.

What pays is told by the total objective of an image, the ELBO of its measurement (or minus its log posterior):
an image never ends with a worse one than its first guess's. Where there are passes and no steps, it is the log
posterior of the latents' means: widths after a pass are those of another image's posterior, not of the measurement's.
With 8 coils at 4x the ELBO discards passes that gain 1 dB; on masked k-space of one coil both choose alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.data import DiagonalData
from iasolve.inference.guess import Guess, read_again
from iasolve.inference.objective import DataTerm, ImageTerm, RingTerm, UnjudgedTerm, point_cost
from iasolve.inference.problem import Problem
from iasolve.inference.refine import Refiner, ScaleReport
from iasolve.inference.topdown import Noise, Pass, ScalePass, descend
from iasolve.inference.whole import WholeRefiner
from iasolve.networks import Gaussian
from iasolve.priors import Prior
from iasolve.recipe import Recipe, RecipeError

__all__ = ["Outcome", "improve"]


class Outcome(NamedTuple):
    """``guess``: the final one, refined; ``reports``: per scale, against the first; ``improved``: ``(B,)``."""

    guess: Guess
    reports: list[ScaleReport]
    improved: Tensor


class _Candidate(NamedTuple):
    guess: Guess
    reports: list[ScaleReport]
    total: Tensor


def improve(
    problem: Problem,
    prior: Prior,
    recipe: Recipe,
    guess: Guess,
    stop: Tensor,
    draw: Noise,
    *,
    told: bool = True,
) -> Outcome:
    """The recipe's passes and steps.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    recipe : Recipe
    guess : Guess
        The first reading.
    stop : Tensor
        ``(B * T,)`` index of the finest scale of the guess.
    draw : Noise
        Source of the draws over which objectives are compared.
    told : bool
        Whether reports are wanted of a guess that nothing is done to.
    """
    tiles = problem.geometry.tiles
    steps = recipe.takes_steps
    passes = recipe.passes > 0 and guess.features is not None
    if not (told or steps or passes):
        return Outcome(guess, [], torch.zeros(len(stop) // tiles, dtype=torch.bool, device=stop.device))

    def run(start: Guess, how: Recipe) -> _Candidate:
        refines = how.takes_steps
        if not refines and how.objective != "variational":
            term = _data_term(problem, prior, how, start.found, judged=False)
            return _Candidate(start, *_judged(term, _as_it_is(term, prior, how, start.found, tiles), how))
        term = _data_term(problem, prior, how, start.found, judged=refines or not prior.separable)
        refiner: Refiner | WholeRefiner
        if prior.separable and how.schedule != "whole":
            refiner = Refiner(prior, how, term, draw, tiles, stop, start.features)
            found = descend(prior, start.features, len(stop), stop=stop, refine=refiner)
        else:
            refiner = WholeRefiner(prior, how, term, draw, tiles, stop, start.features)
            found = refiner(start.found)
        return _Candidate(Guess(start.features, found), *_judged(term, refiner.reports, how))

    idle = recipe.changed(steps=0, objective="map" if recipe.passes and not steps else recipe.objective)
    first = best = run(guess, idle)
    if passes:
        best = _better(best, run(read_again(problem, prior, recipe, stop, guess), idle), tiles)
    if steps:
        best = _better(best, run(best.guess, recipe), tiles)
    reports = [replace(new, before=old.after) for old, new in zip(first.reports, best.reports, strict=True)]
    return Outcome(best.guess, reports, _lower(best.total, first.total))


def _lower(new: Tensor, old: Tensor) -> Tensor:
    # a gain within rounding is none
    return new < old - 1e-6 * old.abs()


def _better(old: _Candidate, new: _Candidate, tiles: int) -> _Candidate:
    """Per image the candidate with the lower total objective."""
    better = _lower(new.total, old.total)
    if bool(better.all()):
        return new
    tile = better.repeat_interleave(tiles)

    def pick(a: Tensor, b: Tensor) -> Tensor:
        # what latents and contributions hold is per tile, what reports hold per image
        flag = better if a.ndim == 1 else tile
        return torch.where(flag.reshape(-1, *([1] * (a.ndim - 1))), a, b)

    def gaussians(a: list[Gaussian], b: list[Gaussian]) -> list[Gaussian]:
        return [Gaussian(pick(q.mean, p.mean), pick(q.log_std, p.log_std)) for q, p in zip(a, b, strict=True)]

    scales = [
        ScalePass(
            gaussians(n.guess, o.guess),
            [pick(m, p) for m, p in zip(n.offsets, o.offsets, strict=True)],
            gaussians(n.priors, o.priors),
            pick(n.contribution, o.contribution),
        )
        for n, o in zip(new.guess.found.scales, old.guess.found.scales, strict=True)
    ]
    features = None
    if new.guess.features is not None and old.guess.features is not None:
        features = [pick(n, o) for n, o in zip(new.guess.features, old.guess.features, strict=True)]
    reports = [
        replace(
            n,
            after=pick(n.after, o.after),
            misfit=pick(n.misfit, o.misfit),
            cost=pick(n.cost, o.cost),
            contribution=pick(n.contribution, o.contribution),
            # the totals, which they were for, are known
            drawn=[],
        )
        for n, o in zip(new.reports, old.reports, strict=True)
    ]
    return _Candidate(Guess(features, Pass(scales)), reports, pick(new.total, old.total))


def _as_it_is(data: DataTerm, prior: Prior, recipe: Recipe, found: Pass, tiles: int) -> list[ScaleReport]:
    """Reports of a pass by an objective of points, of which it holds all there is: no layer is evaluated again."""
    reports = []
    for index, (scale, part) in enumerate(zip(prior.spectrum.scales, found.scales, strict=True)):
        means = [Gaussian(q.mean + q.std * o, q.log_std) for q, o in zip(part.guess, part.offsets, strict=True)]
        widths = recipe.averages_prior
        costs = [point_cost(q, p, widths).flatten(1).sum(1) for q, p in zip(means, part.priors, strict=True)]
        cost = torch.stack(costs).sum(0).unflatten(0, (-1, tiles)).sum(1)
        total = recipe.beta_at(scale) * data.settled(index, part.contribution) + cost
        data.commit(index, part.contribution)
        misfit = data.misfit(index, part.contribution)
        reports.append(ScaleReport(scale, 0, total, total, misfit, cost, part.contribution, [part.contribution]))
    return reports


def _judged(data: DataTerm, reports: list[ScaleReport], recipe: Recipe) -> tuple[list[ScaleReport], Tensor]:
    """Reports whose objectives add up to the total one, and that, ``(B,)``."""
    if isinstance(data, RingTerm):
        # rings do not touch: the scales' objectives add up, draws included
        return reports, torch.stack([r.after for r in reports]).sum(0)
    betas = [recipe.beta_at(r.scale) for r in reports]
    # the means alone would favour wide posteriors, whose cost is low and whose draws do not fit
    draws = list(zip(*(r.drawn for r in reports), strict=True)) or [tuple(r.contribution for r in reports)]
    fit = torch.stack([data.total(list(draw), betas) for draw in draws]).mean(0)
    # the data term of an image does not divide among scales: each is told an equal share
    shared = [replace(r, after=r.cost + fit / len(reports)) for r in reports]
    return shared, fit + torch.stack([r.cost for r in reports]).sum(0)


def _data_term(problem: Problem, prior: Prior, recipe: Recipe, held: Pass, *, judged: bool) -> DataTerm:
    """With ``judged``, single scales are judged too; rings always are."""
    if not problem.direct:
        if recipe.loss == "l1" and recipe.takes_steps:
            raise RecipeError(
                "recipe key 'loss' is 'l1', which compares ring with ring: that needs an operator that is diagonal in "
                "Fourier space and an image of the prior's size; use 'likelihood'"
            )
        kind = ImageTerm if judged else UnjudgedTerm
        return kind(prior, problem.geometry, problem.data, problem.variance, held.contributions)
    assert isinstance(problem.data, DiagonalData)
    spectrum = prior.spectrum
    folded = problem.data.folded
    return RingTerm(
        prior.rings(spectrum.half(folded.value)),
        prior.rings(spectrum.half(folded.variance)),
        prior.sigma_x,
        prior.rings(spectrum.weight.to(prior.device, folded.variance.dtype)),
        spectrum.is_complex,
        recipe.loss,
    )
