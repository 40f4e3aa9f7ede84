"""A solution for the image as it lies, or moved: by the reader alone, or by the hierarchy with what a reader says."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.objective import Noise
from iasolve.inference.passes import (
    SHIFTS,
    finest_scales,
    first_guess,
    moves,
    read_again,
    read_image,
    read_whole,
)
from iasolve.inference.refine import improve
from iasolve.inference.result import ScaleReport
from iasolve.inference.sampling import Samples, StationaryError, draw_errors, draw_samples
from iasolve.operators.crop import Crop
from iasolve.priors import Prior
from iasolve.problem.closing import Closing
from iasolve.problem.gain import gain_of
from iasolve.problem.likelihood import Solves
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import NonFiniteError, Options, Watch
from iasolve.problem.pose import Problem, pose
from iasolve.recipe import Recipe
from iasolve.spectrum import fft2, ifft2

__all__ = [
    "FEW",
    "WHOLE",
    "View",
    "descends",
    "joined",
    "quick",
    "quick_answer",
    "read_view",
    "reads",
    "solve_view",
]

WHOLE = ("all", "auto")
"""Where a guess ends that a reader can make."""

HIERARCHY = 0.2
"""Weight of a hierarchy's guess beside the reader's image. Of 16 validation slices 0.1 and 0.2 are within 0.01 dB of
each other on noise; on blurs all weights are."""


def reads(prior: Prior, recipe: Recipe) -> bool:
    """Whether the prior's reader guesses."""
    return prior.reads and recipe.guess.stop in WHOLE


def descends(prior: Prior, recipe: Recipe) -> bool:
    """Whether the hierarchy is evaluated: one view without steps, the quickest answer, is the reader's alone."""
    return prior.descends and (recipe.takes_steps or recipe.views > 1 or not reads(prior, recipe))


class View(NamedTuple):
    """The solution for one moved image; on the problem's grid, in the prior's units: ``estimate`` and ``expected``.

    The latter is a reader's: the squared error at each frequency, as its first reading expects it.
    """

    problem: Problem
    estimate: Tensor
    image: Tensor
    std: Tensor | None
    samples: Tensor | None
    scales: list[ScaleReport[Tensor]]
    improved: Tensor
    offsets: list[Tensor]
    solves: Solves | None
    expected: Tensor | None = None


def solve_view(
    batch: Measurement,
    prior: Prior,
    recipe: Recipe,
    options: Options,
    watch: Watch,
    number: int = 0,
    start: View | None = None,
) -> View:
    """The hierarchy's solution for the image moved back by a shift, moved there again; reports of the first only.

    ``start``: a reader's, which takes the place of the recipe's passes.
    """
    size = prior.spectrum.size
    if start is not None and start.problem.geometry.shape == (size, size):
        problem = start.problem  # the image is its own tile: posed for both
    else:
        problem = pose(batch.y, batch.operator, prior, batch.sigma, options, SHIFTS[number])
    stop = finest_scales(problem, prior, recipe).repeat_interleave(problem.geometry.tiles)
    noise = Noise(options.seed, batch.y.device, batch.y.real.dtype)
    nonnegative = options.nonnegative and prior.nonnegative

    first, again = None, None
    if start is not None and recipe.passes.count and start.image.shape[-2:] == problem.geometry.shape:
        known = start.image / problem.gain.reshape(-1, 1, 1, 1)
        guess = read_image(problem, prior, known, recipe.passes.end, stop)[1]
    else:
        guess = first = first_guess(problem, prior, recipe, stop)
    views = recipe.views if moves(prior) else 1
    watch.tell("guess", number + 1, views)
    if recipe.passes.count and guess is first:
        again = read_again(problem, prior, recipe, guess, stop, nonnegative, watch)
    final, scales, improved = improve(problem, prior, recipe, (guess, again), stop, noise, number == 0, watch)

    centre = problem.decode(prior, final.contributions)
    variance = (
        problem.unexplained(problem.likelihood, centre) if recipe.adapts else problem.variance.expand(centre.shape)
    )
    closing = Closing(
        problem.likelihood, centre, variance, problem.variance, recipe.closing.error, nonnegative, options.tolerance
    )
    estimate = closing.image(centre)
    watch.tell("closing", number + 1, views)
    drawn = std = None
    if recipe.samples:
        # the spread is that of a reading that knows the measurement's noise, not of an image that is partly the prior's
        around = final
        if recipe.passes.count:
            around = first_guess(problem, prior, recipe, stop) if first is None else first
        samples = Samples(problem, prior, centre, around, stop, noise)
        drawn, std = draw_samples(samples, recipe.samples, closing, watch)
        if nonnegative:
            estimate, drawn = estimate.clamp_min(0), drawn.clamp_min(0)

    gain = problem.gain.reshape(-1, 1, 1, 1)
    image = problem.crop(gain * estimate)
    if not bool(torch.isfinite(image).all()):
        raise NonFiniteError(
            "the solution holds NaN or infinite values: check the measurement's range and sigma, "
            "or lower the recipe's steps.size"
        )
    return View(
        problem,
        estimate,
        image,
        None if std is None else problem.crop(gain * std),
        None if drawn is None else problem.crop(gain * drawn),
        scales,
        improved,
        final.offsets,
        problem.likelihood.solves,
    )


def read_view(
    batch: Measurement, prior: Prior, recipe: Recipe, options: Options, watch: Watch, surplus: Tensor | None = None
) -> View:
    """The reader's estimate alone, views and passes included; samples have the error that the reader expects.

    ``surplus`` ``(B,)``: how many times as large as expected the squared error was found to be (:class:`Verdict`).
    """
    wide = batch.widened()
    gain = gain_of(batch.y, batch.operator, prior, batch.sigma, options, whole=True)
    problem = pose(wide.y, wide.operator, prior, wide.sigma, options, whole=True, gain=gain)
    if wide is not batch:
        _, height, width = batch.operator.in_shape
        problem.crop = Crop(wide.operator.in_shape, (height, width), wide.operator.in_dtype).forward
    nonnegative = options.nonnegative and prior.nonnegative
    found = read_whole(problem, prior, recipe, nonnegative, watch)
    gain = problem.gain.reshape(-1, 1, 1, 1)
    image = problem.crop(gain * found.image)
    if not bool(torch.isfinite(image).all()):
        raise NonFiniteError("the solution holds NaN or infinite values: check the measurement's range and sigma")
    misfit = problem.likelihood.misfit(found.image, found.variance)
    unknown = torch.full_like(misfit, torch.nan)
    rows: list[ScaleReport[Tensor]] = [
        {"scale": s, "steps": 0, "before": unknown, "after": unknown, "misfit": misfit} for s in prior.spectrum.scales
    ]
    expected = StationaryError(found.variance, found.spread, found.image.is_complex())
    variance = found.variance if surplus is None else surplus.reshape(-1, 1, 1, 1) * found.variance
    stationary = StationaryError(variance, found.spread, found.image.is_complex())
    std, drawn = problem.crop(gain * stationary.std), None
    if recipe.samples:
        noise = Noise(options.seed, batch.y.device, batch.y.real.dtype)
        errors = draw_errors(stationary, recipe.samples, noise, watch)
        drawn = torch.stack([problem.crop(gain * (found.image + one)) for one in errors])
        drawn = drawn.clamp_min(0) if nonnegative else drawn
    idle = torch.zeros(len(image), dtype=torch.bool, device=image.device)
    return View(problem, found.image, image, std, drawn, rows, idle, [], problem.likelihood.solves, expected.power)


FEW = 4
"""Passes that tell whether a prior fits."""

ROUGHLY = 5
"""How much larger than a solution's the tolerance of a trial is."""


def quick(recipe: Recipe, most: int = FEW) -> Recipe:
    """A recipe without views, steps and samples, and with at most so many passes."""
    passes = {"count": min(most, recipe.passes.count), "end": recipe.passes.end}
    return recipe.changed(views=1, samples=0, steps={"count": 0}, passes=passes)


def quick_answer(batch: Measurement, prior: Prior, recipe: Recipe, options: Options, most: int = FEW) -> View:
    """A recipe's answer without views, steps and samples.

    Where conjugate gradients solve, they end earlier, for the answer is only compared.
    """
    recipe, options = quick(recipe, most), replace(options, tolerance=ROUGHLY * options.tolerance)
    first = read_view if reads(prior, recipe) else solve_view
    return first(batch, prior, recipe, options, watch=Watch())


def joined(read: View, solved: View, nonnegative: bool, refined: bool) -> View:
    """The reader's estimate and the hierarchy's: their errors differ, and a mean of both is better than either.

    The hierarchy's alone where nothing at all was measured, which is 0.2 dB better on a low-pass of 8 frequencies, and
    where it is ``refined``: what steps made of the reader's passes is 0.01 to 0.16 dB better than a mean, on lines,
    pixels, coils and low-passes; on projections and radial k-space 0.01 dB worse (8 to 16 validation slices).

    Reports are the hierarchy's. So are samples and error bar, where they were asked of it.
    """
    image = solved.image if refined else _mean(read, solved.image)
    source = read if solved.samples is None else solved
    samples = source.samples
    if not refined and nonnegative:
        image = image.clamp_min(0)
    if samples is not None:
        samples = samples + (image - source.image)
        samples = samples.clamp_min(0) if nonnegative else samples
    return solved._replace(image=image, std=source.std, samples=samples)


def _mean(read: View, guessed: Tensor) -> Tensor:
    """With weights for each frequency where one of them was not measured."""
    difference, folded = guessed - read.image, read.problem.likelihood.folded
    if folded is None or folded.variance.shape[-2:] != guessed.shape[-2:]:
        return read.image + HIERARCHY * difference
    unseen = torch.isinf(folded.variance)
    if not bool(unseen.any()):
        return read.image + HIERARCHY * difference
    moved = ifft2(torch.where(unseen, 1.0, HIERARCHY) * fft2(difference))
    return read.image + (moved if guessed.is_complex() else moved.real)
