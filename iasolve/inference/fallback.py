"""The stationary Gaussian in the running: a prior that does not fit must not do worse than a linear estimate.

The rival of a trained prior is the Gaussian with the same power, its level fitted to the measurement band by band. Its
posterior mean is a Wiener estimate; over ``x >= 0``, where the prior's images hold no negative value, its mode. To a
solver it is a decoder that puts out zero and leaves everything unexplained: ``x0 = 0``, ``V = P``.

Which of the two fits is told by data that neither has seen, in a trial (:mod:`iasolve.inference.trial`). Both priors
solve what it leaves, the trained one by its guess alone, and what lies farther from the part kept back loses.

A trial asks nothing of a prior but an answer, so that hierarchies and readers, and all operators, are treated alike.
The evidence would compare bounds: of a hierarchy only, on the exact path only, and not of the error. What trials get
wrong: benchmarks/results/out_of_domain.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.classical import total_variation
from iasolve.inference.objective import Noise
from iasolve.inference.passes import LARGEST_RESIDUAL
from iasolve.inference.result import Result
from iasolve.inference.trial import Trial, trials
from iasolve.inference.view import FEW, quick_answer, reads
from iasolve.inference.windows import glimpse
from iasolve.noise_level.residual import residual_of
from iasolve.priors import Prior
from iasolve.problem.closing import Closing, closest_image
from iasolve.problem.geometry import Whole
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import Options, Watch
from iasolve.problem.pose import Problem, pose
from iasolve.recipe import Recipe
from iasolve.spectrum import largest_radius, power_at

__all__ = ["Answer", "Gaussian", "Verdict", "better", "fitted_power", "unexplained", "verdict"]

SLACK = 1e-3
"""Share of what was not measured at all by which an answer may err more than the Gaussian's on what was: on 81 exact
frequencies a prior that gains 2 dB in all the others seemed 0.1 % worse."""

GUESSED = 0.01
"""The same off the exact path, where a part of every frequency was not measured. By it a prior may err 7 to 80 % more
on what was. Of six heads on radial k-space one seemed 5 % worse by the prior, with which it is 2.4 dB better; of 15
strange images in 18 projections the three with which the prior loses seemed ten times worse."""

FLAT = 30.0
"""Weight of the total variation that a prior is compared with, over the image's standard deviation."""

EXACTLY = 0.1
"""How much smaller than a solution's the tolerance of a trial's Wiener filter is. Conjugate gradients that end early
are not linear, and what they left out moved three of four heads in 60 projections to the Gaussian, 3 to 6 dB below."""


class Verdict(NamedTuple):
    """``(B,)`` each: whether the trained prior ``fits``, whether it is ``ahead``, whether ``x >= 0`` holds.

    And ``surplus``, how many times as large as the reader expected its squared error was (:meth:`Trial.surplus`), and
    ``variation``, the squared error of total variation over the prior's; not a number where that was not tried.
    """

    fits: Tensor
    ahead: Tensor
    bounded: Tensor
    surplus: Tensor
    variation: Tensor


class Answer(NamedTuple):
    """In the user's units: ``image`` ``(B, C, H, W)``, and with samples ``std`` and ``samples`` ``(K, B, C, H, W)``."""

    image: Tensor
    std: Tensor | None = None
    samples: Tensor | None = None


def fitted_power(problem: Problem, iterations: int = 20) -> Tensor:
    """The prior's power, its level fitted to a measurement band by band, ``(B, C, H, W)``.

    Bands are half an octave wide. A level ``t`` of a band is the most likely one of a Gaussian of power ``t P``, by
    Fisher scoring, under a prior that takes its logarithm for 0 with a standard deviation of 1: bands that were hardly
    measured keep the prior's level.
    """
    likelihood = problem.likelihood
    power = problem.power.expand_as(problem.estimate)
    if likelihood.folded is None:
        nothing = torch.zeros_like(problem.estimate)
        most = 1e4 * problem.rings.means(problem.power)
        return likelihood.unexplained(nothing, problem.power, problem.rings, most)
    value, variance = likelihood.folded
    squared = value.real.square() + value.imag.square()
    height, width = power.shape[-2:]
    r = largest_radius(height, width) * max(height, width)
    band = torch.where(r > 0, torch.floor(2 * torch.log2(r.clamp_min(1))) + 1, 0.0).long().to(power.device).flatten()
    count = int(band.max()) + 1

    def sums(values: Tensor) -> Tensor:
        flat = values.sum(1).flatten(1)
        return flat.new_zeros(len(flat), count).index_add(1, band, flat)

    def spread(levels: Tensor) -> Tensor:
        return levels[:, band].reshape(-1, 1, height, width)

    surplus = torch.where(torch.isfinite(variance), squared - variance, 0.0)
    # of a real image k and -k are one number
    doubt = 1.0 if likelihood.is_complex else 2.0
    level = power.new_ones(len(power), count)
    for _ in range(iterations):
        weight = power / (spread(level) * power + variance)
        information = sums(weight.square())
        score = sums(weight.square() / power * surplus)
        own = doubt / level.square()
        level = ((score + own) / (information + own)).clamp_min(1e-6)
    return spread(level) * power


class Gaussian:
    """The stationary Gaussian's answer to a batch of measurements of images of any size.

    Parameters
    ----------
    batch : Measurement
    prior : Prior
        Whose power it has.
    options : Options
    problem : Problem, optional
        The same batch as posed for the prior, image unmoved: taken where it is not in tiles.
    """

    def __init__(self, batch: Measurement, prior: Prior, options: Options, problem: Problem | None = None) -> None:
        if problem is None or type(problem.geometry) is not Whole:
            problem = pose(batch.y, batch.operator, prior, batch.sigma, options, whole=True)
        self.problem, self.options = problem, options
        self.power = fitted_power(problem)
        self.zero = torch.zeros_like(self.power) if not problem.likelihood.is_complex else 0j * self.power
        rows, columns = (math.prod(shape) for shape in (batch.operator.out_shape, batch.operator.in_shape))
        if batch.y.is_complex() and not batch.operator.is_complex:
            rows *= 2  # the real part and the imaginary one
        self.missing = max(0.0, 1 - rows / columns)
        """Share of the image's dimensions that the operator has no row for."""

    @property
    def expected(self) -> Tensor:
        """The power in the user's units, ``(B, C, H, W)``."""
        return self.power * self.problem.gain.square().reshape(-1, 1, 1, 1)

    @property
    def unseen(self) -> Tensor:
        """Expected energy of what was not measured at all, in the user's units, ``(B,)``.

        That at the frequencies of which nothing was measured; off the exact path, where an operator with fewer rows
        than columns leaves out a part of every frequency, the same part of all but the mean's.
        """
        folded = self.problem.likelihood.folded
        if folded is None:
            energy = self.expected.flatten(2)
            return self.missing * energy[..., 1:].sum((1, 2))
        return (self.expected * torch.isinf(folded.variance)).flatten(1).sum(1)

    def image(self, nonnegative: bool) -> Tensor:
        """The Wiener estimate, or over ``x >= 0`` the mode, in the user's units.

        Off the exact path, where the mode costs hundreds of applications of the operator, negative values become 0.
        """
        likelihood = self.problem.likelihood
        if nonnegative and likelihood.folded is not None:
            return self._shown(closest_image(likelihood, self.zero, self.power, True).image)
        return self._shown(self._mean.clamp_min(0) if nonnegative else self._mean)

    @cached_property
    def _mean(self) -> Tensor:
        return self.problem.likelihood.mean(self.zero, self.power)

    @property
    def linear(self) -> Callable[[Tensor], Tensor] | None:
        """The same Wiener filter's estimate of other measurements ``(B, *out_shape)``; None on the exact path."""
        other = self.problem.likelihood.other
        return (
            None if other is None else lambda y: other(y, EXACTLY * self.options.tolerance).mean(self.zero, self.power)
        )

    def flat(self, like: Tensor) -> Tensor | None:
        """What total variation makes of the measurement, its weight by the deviation of an image, in the user's units.

        None of complex images, and off the exact path. One weight tells flat images: with the best of five, errors are
        nearly the same on all strange images.
        """
        folded = self.problem.likelihood.folded
        if folded is None or self.problem.likelihood.is_complex:
            return None
        deviation = like.flatten(2).std(2) / self.problem.gain.reshape(-1, 1)
        precision = 1 / folded.variance.expand(folded.value.shape)
        weight = FLAT / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)
        return self._shown(total_variation(precision, folded.value, weight, tolerance=1e-3, max_iterations=200).image)

    def answer(self, bounded: Tensor, samples: int, watch: Watch) -> Answer:
        """The estimate, ``x >= 0`` where ``bounded`` ``(B,)``, with its error bar from posterior samples."""
        limit = torch.where(bounded, 0.0, -torch.inf).reshape(-1, 1, 1, 1)
        image = self.image(False)
        if bool(bounded.any()):
            image = torch.where(limit == 0, self.image(True), image)
        if not samples:
            return Answer(image)
        problem, options = self.problem, self.options
        closing = Closing(
            problem.likelihood, self.zero, self.power, problem.power, "stationary", False, options.tolerance
        )
        noise = Noise(options.seed, self.power.device, self.power.dtype)
        means, draws = [], []
        for number in range(samples):
            count = iter(range(9))
            mean, draw = closing.draw(self.zero, lambda shape: noise(shape, f"gaussian {number}", next(count)))  # noqa: B023
            means.append(mean)
            draws.append(draw)
            watch.tell("sample", number + 1, samples)
        drawn, mean = torch.stack(draws), torch.stack(means)
        std = problem.gain.reshape(-1, 1, 1, 1) * closing.error_bar(mean, drawn)
        around = torch.stack([self._shown(one) for one in drawn - mean]) + image
        if not image.is_complex():
            around = torch.maximum(around, limit)
        return Answer(image, problem.crop(std), around)

    def _shown(self, x: Tensor) -> Tensor:
        return self.problem.crop(self.problem.gain.reshape(-1, 1, 1, 1) * x)


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

    def errors(trial: Trial) -> tuple[Tensor, Tensor, Tensor]:
        """Errors ``(3, B)`` of prior, Gaussian, and Gaussian over ``x >= 0``; the prior's surplus and ``variation``."""
        # where data are missing, one reading alone may be as bad as the Gaussian's; recipes for blurs have views, too
        enough = trial.back is None and recipe.views > 1
        asked = recipe.changed(passes={"count": 0}) if enough else recipe
        # pixels are filled in pass by pass: four do not tell
        view = quick_answer(trial.seen, prior, asked, options, asked.passes.count if trial.of_pixels else FEW)
        rival = Gaussian(trial.seen, prior, options, view.problem)
        images = [view.image, rival.image(False), *([rival.image(True)] if bound else [])]
        found = [trial.error(one, rival.expected, rival.linear) for one in images]
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
        told = (v.unflatten(0, (-1, count)).mean(1) for v in (surplus, variation))
        return every.unflatten(1, (-1, count)).sum(2), *told

    parts = trials(looked, options.seed)
    (ours, free, held), surplus, variation = errors(next(parts))
    worse = ours > torch.minimum(free, held)
    if bool(worse.any()) and (other := next(parts, None)) is not None:
        # a few lines may err, and noise: what they speak against is tried once more, on others
        again, more, _ = errors(other)
        surplus = torch.where(worse, (surplus + more) / 2, surplus)
        ours, free, held = (torch.where(worse, a + b, a) for a, b in zip((ours, free, held), again, strict=True))
    theirs = torch.minimum(free, held)
    return Verdict(ours <= theirs, ours < theirs, held <= free, surplus, variation)


def better(
    batch: Measurement,
    result: Result[Tensor],
    found: Verdict,
    rival: Callable[[], Gaussian],
    samples: int,
    watch: Watch,
) -> Result[Tensor]:
    """A result with the Gaussian's answer for the images that the prior does not fit."""
    fits, left = found.fits, unexplained(batch, result.image)
    doubtful = fits & ~found.ahead & (left > LARGEST_RESIDUAL)
    if bool(fits.all()) and not bool(doubtful.any()):
        return result
    # a reader has an error bar without samples; the Gaussian's takes one
    other = rival().answer(found.bounded, samples if result.std is None else max(samples, 1), watch)
    # a residual that cannot be noise, of a measurement that the linear estimate explains better
    fits = fits & ~(doubtful & (unexplained(batch, other.image) < left / LARGEST_RESIDUAL))
    each = fits.reshape(-1, 1, 1, 1)

    def chosen(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
        return theirs if ours is None or theirs is None else torch.where(each, ours, theirs)

    image = torch.where(each, result.image, other.image)
    return replace(
        result,
        image=image,
        residual=residual_of(batch.y, batch.operator, image, batch.sigma),
        std=chosen(result.std, other.std),
        samples=chosen(result.samples, other.samples) if samples else None,
        fits=fits,
    )


def unexplained(batch: Measurement, image: Tensor) -> Tensor:
    """Mean square residual of an image over that of the noise, ``(B,)``: at most about 1 where it is noise."""
    residual = (batch.y - batch.operator(image)).abs().square().flatten(1)
    size = batch.y.abs().square().flatten(1).mean(1)
    # without any noise, what is left out of a thousandth of the signal
    return residual.mean(1) / torch.maximum(batch.sigma.square(), 1e-6 * size + torch.finfo(size.dtype).tiny)
