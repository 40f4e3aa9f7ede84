"""A trained prior and its rival, the Gaussian: a prior that does not fit must not do worse than a linear estimate.

Which of the two fits is told by data that neither has seen, in a trial (:mod:`iasolve.inference.trial`). Both priors
solve what it leaves, the trained one by its guess alone, and what lies farther from the part kept back loses.

Where a part of the samples was kept back, it tells more: the weights with which both together come closest to it, by
least squares (stacking: Wolpert 1992, Neural Networks 5:241; Breiman 1996, Machine Learning 24:49). With these the
result is their mean.

A trial asks nothing of a prior but an answer, so that hierarchies and readers, and all operators, are treated alike.
The evidence would compare bounds: of a hierarchy only, on the exact path only, and not of the error. What trials get
wrong: benchmarks/results/out_of_domain.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iasolve.inference.gaussian import Gaussian
from iasolve.inference.passes import LARGEST_RESIDUAL
from iasolve.inference.result import Result
from iasolve.inference.trial import Trial, trials
from iasolve.inference.view import FEW, quick_answer, reads
from iasolve.inference.windows import glimpse
from iasolve.noise_level.residual import residual_of
from iasolve.priors import Prior
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import Options, Watch
from iasolve.recipe import Recipe
from iasolve.spectrum import power_at

__all__ = ["Verdict", "better", "unexplained", "verdict"]

SLACK = 1e-3
"""Share of what was not measured at all by which an answer may err more than the Gaussian's on what was: on 81 exact
frequencies a prior that gains 2 dB in all the others seemed 0.1 % worse."""

GUESSED = 0.01
"""The same off the exact path, where a part of every frequency was not measured. By it a prior may err 7 to 80 % more
on what was. Of six heads on radial k-space one seemed 5 % worse by the prior, with which it is 2.4 dB better; of 15
strange images in 18 projections the three with which the prior loses seemed ten times worse."""

DOUBTED = 0.9
"""Weight of a prior's answer below which another part is asked."""

EXPECTED = 0.15
"""Standard deviation, about 1, of that weight where nothing tells it: what is kept back of pixels tells it to 0.1, of
lines to 0.03."""

MOST = 1.3
"""Largest weight of a prior's answer, of pixels. Filled in pass by pass it lies between the Gaussian's and the truth:
the best weights of 16 validation images are 0.95 to 1.26. Of lines, where a trial makes fewer passes than the result,
they are 1.0 and seem to be 1.1 to 1.3; there it is 1 at most."""

NEARLY = 0.03
"""Distance of that weight from 1 that is taken for none."""


class Verdict(NamedTuple):
    """``(B,)`` each: whether the trained prior ``fits``, whether it is ``ahead``, whether ``x >= 0`` holds.

    And ``weight``, that of its answer beside the Gaussian's; ``surplus``, how many times as large as the reader
    expected its squared error was (:meth:`Trial.surplus`); and ``variation``, the squared error of total variation over
    the prior's, not a number where that was not tried.
    """

    fits: Tensor
    ahead: Tensor
    bounded: Tensor
    weight: Tensor
    surplus: Tensor
    variation: Tensor


class _Tried(NamedTuple):
    """What one trial tells: squared ``errors`` ``(3, B)`` of prior, Gaussian, and Gaussian over ``x >= 0``.

    ``products`` ``(5, B)``: see :meth:`Trial.products`; the rest as in a verdict.
    """

    errors: Tensor
    products: Tensor
    surplus: Tensor
    variation: Tensor


def verdict(batch: Measurement, prior: Prior, recipe: Recipe, options: Options) -> Verdict | None:
    """Try both priors on a part of the measurement, image by image; the Gaussian with and without ``x >= 0``.

    None where there is nothing to choose: recipes that do without encoder or closing ask for the prior's own image, and
    a prior whose card tells of no validation was not trained to be relied on.
    """
    if not (options.fallback and recipe.reads and recipe.closing.error != "none" and prior.card.get("validation")):
        return None
    bound = options.nonnegative and prior.nonnegative
    # a reader takes a tile for an image of its own
    looked, count = glimpse(batch) if reads(prior, recipe) else (batch, 1)

    def tried(trial: Trial) -> _Tried:
        # where data are missing, one reading alone may be as bad as the Gaussian's; recipes for blurs have views, too
        enough = trial.back is None and recipe.views > 1
        asked = recipe.changed(passes={"count": 0}) if enough else recipe
        # pixels are filled in pass by pass: four do not tell
        view = quick_answer(trial.seen, prior, asked, options, asked.passes.count if trial.of_pixels else FEW)
        rival = Gaussian(trial.seen, prior, options, view.problem)
        images = [view.image, rival.image(False), *([rival.image(True)] if bound else [])]
        found = [trial.error(one, rival.expected, rival.linear) for one in images]
        closer = torch.where((found[-1] <= found[1]).reshape(-1, 1, 1, 1), images[-1], images[1])
        products = trial.products(view.image, closer, rival.expected)
        if trial.back is None:
            exact = view.problem.likelihood.folded is not None
            found[0] = found[0] - (SLACK if exact else GUESSED) * rival.unseen
        every = torch.stack([*found, *([] if bound else [torch.full_like(found[0], torch.inf)])])
        surplus = every.new_ones(every.shape[1])
        if view.expected is not None:
            height, width = view.image.shape[-2:]
            expected = power_at(view.expected, (height, width))  # of an image that was solved with a margin, too
            surplus = trial.surplus(view.image, expected * view.problem.gain.square().reshape(-1, 1, 1, 1))
        variation = torch.full_like(surplus, torch.nan)
        # of samples of k-space, beside passes, which take longer
        flat = rival.flat(view.image) if trial.back is not None and asked.passes.count else None
        if flat is not None:
            variation = trial.error(flat, rival.expected) / every[0]
        summed = (v.unflatten(1, (-1, count)).sum(2) for v in (every, products))
        return _Tried(*summed, *(v.unflatten(0, (-1, count)).mean(1) for v in (surplus, variation)))

    parts = trials(looked, options.seed)
    first = next(parts)
    found, most = tried(first), MOST if first.of_pixels else 1.0
    again = _doubted(found, most)
    if bool(again.any()) and (other := next(parts, None)) is not None:
        # a few lines may err, and noise: what they speak against is tried once more, on others
        more = tried(other)
        found = _Tried(
            torch.where(again, found.errors + more.errors, found.errors),
            torch.where(again, found.products + more.products, found.products),
            torch.where(again, (found.surplus + more.surplus) / 2, found.surplus),
            found.variation,
        )
    (ours, free, held), weight = found.errors, _weight(found.products, most)
    theirs = torch.minimum(free, held)
    return Verdict(ours <= theirs, ours < theirs, held <= free, weight, found.surplus, found.variation)


def _doubted(found: _Tried, most: float) -> Tensor:
    """Whether a trial speaks against the prior, ``(B,)``."""
    ours, free, held = found.errors
    return (ours > torch.minimum(free, held)) | (_weight(found.products, most) < DOUBTED)


def _weight(products: Tensor, most: float) -> Tensor:
    """Of the prior's answer, ``(B,)``: by least squares, under a prior about 1; 1 where both answers are the same."""
    p, q, pp, pq, qq = products
    least = torch.finfo(q.dtype).tiny
    best = p / q.clamp_min(least)
    # of errors that differ from sample to sample (White 1980, Econometrica 48:817)
    variance = (pp - 2 * best * pq + best.square() * qq).clamp_min(0) / q.square().clamp_min(least)
    weight = 1 + (best - 1) * EXPECTED**2 / (EXPECTED**2 + variance)
    weight = torch.where(q > 0, weight, 1.0).clamp(0, most)
    return torch.where((weight - 1).abs() <= NEARLY, 1.0, weight)


def better(
    batch: Measurement,
    result: Result[Tensor],
    found: Verdict,
    rival: Callable[[], Gaussian],
    samples: int,
    watch: Watch,
) -> Result[Tensor]:
    """A result with the Gaussian's answer for the images that the prior does not fit, and its share in the others."""
    fits, left = found.fits, unexplained(batch, result.image)
    doubtful = fits & ~found.ahead & (left > LARGEST_RESIDUAL)
    weight = torch.where(fits, found.weight, 1.0)
    if bool(fits.all()) and not bool(doubtful.any()) and bool((weight == 1).all()):
        return result
    # a reader has an error bar without samples; the Gaussian's takes one
    drawn = samples if result.std is None else max(samples, 1)
    beyond = bool((fits & ~doubtful & (weight >= 1)).all())
    other = rival().answer(found.bounded, 0 if beyond else drawn, watch)
    # a residual that cannot be noise, of a measurement that the linear estimate explains better
    fits = fits & ~(doubtful & (unexplained(batch, other.image) < left / LARGEST_RESIDUAL))
    weight = torch.where(fits, weight, 0.0)
    share = weight.reshape(-1, 1, 1, 1)
    image = _mean(result.image, other.image, share)
    if not image.is_complex():
        image = torch.where((share > 1) & (result.image >= 0), image.clamp_min(0), image)
    inner = share.clamp_max(1)  # an answer that is gone beyond has its own error, about another mean
    draws = _mean(result.samples, other.samples, inner) if samples else None
    if draws is not None:
        draws = draws + torch.where(share > 1, image - result.image, 0.0)
    return replace(
        result,
        image=image,
        residual=residual_of(batch.y, batch.operator, image, batch.sigma),
        std=_mean(result.std, other.std, inner),
        samples=draws,
        fits=fits,
        weight=weight,
    )


def _mean(ours: Tensor | None, theirs: Tensor | None, share: Tensor) -> Any:
    """Of two answers, if there are two; not a sum alone, in which what is not finite came through a share of 0."""
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return torch.where(share == 0, theirs, torch.where(share == 1, ours, theirs + share * (ours - theirs)))


def unexplained(batch: Measurement, image: Tensor) -> Tensor:
    """Mean square residual of an image over that of the noise, ``(B,)``: at most about 1 where it is noise."""
    residual = (batch.y - batch.operator(image)).abs().square().flatten(1)
    size = batch.y.abs().square().flatten(1).mean(1)
    # without any noise, what is left out of a thousandth of the signal
    return residual.mean(1) / torch.maximum(batch.sigma.square(), 1e-6 * size + torch.finfo(size.dtype).tiny)
