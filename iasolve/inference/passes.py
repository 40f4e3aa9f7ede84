"""The amortized guess: one reading of the measurement, and further ones.

A *pass* reads again. What the last reading concluded and what the measurement says are brought together (half
quadratic splitting: Geman and Yang 1995; with a learned denoiser Zhang et al. 2017), and the outcome is read as an
image seen through white noise of a falling level::

    x_k = argmin -log p(y | x) + |x - (g_k + m (g_k - g_{k-1}))|^2 / level_k^2      (x >= 0 for magnitudes)
    g_{k+1} = reading of x_k, closed on x_k at level_k

A pass costs one encoder and one decoder pass and no gradient. On masked k-space eight of them bring the objective
lower than 25 gradient steps of every scale do.

Networks are not shift-equivariant. What they get wrong of a moved image is partly other than what they get wrong of the
image itself, and the mean of both is better than either (cycle spinning: Coifman and Donoho 1995; a shift at random in
each iteration: Figueiredo and Nowak 2003). So each pass but the last reads a moved image, and a recipe's *views* are
solutions for moved images. Shifts are circular. That is so where training has moved the images too: a prior that knows
them in one place only, by the grid of an image format's blocks, say, reads moved ones worse, and gets none to read.

A prior with a *reader* (:class:`iasolve.networks.Reader`) guesses with that, the image as it is. A reading is the mean
of a posterior: measurement and network are joined in it frequency by frequency, and there is nothing to close but the
bound ``x >= 0``. Its passes are plug-and-play with the reader as the denoiser (Venkatakrishnan et al. 2013; Zhang et
al. 2021). What a reading concluded counts less against the measurement than its level says: its error is not white.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.evidence import Evidence, Folded, WienerPosterior
from iasolve.networks import Gaussian
from iasolve.priors import Prior
from iasolve.priors.hierarchy import Choice, Hierarchy, posterior_mean
from iasolve.priors.portions import joined, portions
from iasolve.problem.closing import closest_image
from iasolve.problem.likelihood import DiagonalLikelihood, Solution
from iasolve.problem.options import Watch
from iasolve.problem.pose import Problem
from iasolve.recipe import Recipe
from iasolve.spectrum import fft2

__all__ = [
    "SHIFTS",
    "Estimate",
    "Guess",
    "by_scale",
    "descend",
    "finest_scales",
    "first_guess",
    "half_quadratic",
    "levels",
    "mirrored",
    "mirrors",
    "moves",
    "read",
    "read_again",
    "read_image",
    "read_whole",
]

LARGEST = 2
"""Pixels that an image is moved by at most. 8 coils gained as much from 1 pixel as from 3, 6 or 9 (validation)."""

FIRST = 0.2
"""Level of the first pass, in units of the image's root mean square (chosen on validation, for both)."""

TRUST = 0.23
"""Weight of a reader's conclusion against the measurement, as in DPIR (Zhang et al. 2021). With 1, four passes on
photographs with camera shake lost a decibel in place of gaining one, and sixteen on 4x lines gained 0.1 to 0.4 dB less
(validation)."""

FIRST_SHARE = 0.3
"""Weight of the first reading's views beside what the passes conclude, of a recipe with several views. Of blurs, where
either may be the better one, this is as good as the better one (validation)."""

MOMENTUM = 0.5
"""How far a pass's start lies beyond the last outcome, in units of the last change."""


def _shifts() -> list[tuple[int, int]]:
    side = 2 * LARGEST + 1
    # a knight's moves: the first few are spread over all rows and columns
    cells = [(2 * n % side, (n + n // side) % side) for n in range(side * side)]
    return [((dy + LARGEST) % side - LARGEST, (dx + LARGEST) % side - LARGEST) for dy, dx in cells]


SHIFTS = tuple(_shifts())
"""All ``(dy, dx)`` up to ``LARGEST``, each once, the first ``(0, 0)``."""


def moves(prior: Prior) -> bool:
    """Whether a prior may be given moved images: its training images were moved as far."""
    return prior.shift >= LARGEST


class Guess(NamedTuple):
    """A way down the hierarchy, as guessed or refined.

    Attributes
    ----------
    features : list of Tensor or None
        The encoder's, per scale; None without an encoder.
    latents : list of Tensor
        The value of each latent, ``(B * T, z, g, g)``, coarse to fine.
    posteriors, priors : list of Gaussian
        Of each latent, in the context of this way.
    contributions : list of Tensor
        ``h_s`` of every scale, ``(B * T, C, n_s)``.
    """

    features: list[Tensor] | None
    latents: list[Tensor]
    posteriors: list[Gaussian]
    priors: list[Gaussian]
    contributions: list[Tensor]

    @property
    def offsets(self) -> list[Tensor]:
        """What each latent lies off its posterior's mean, in that posterior's standard deviations."""
        return [(z - q.mean) / q.std for z, q in zip(self.latents, self.posteriors, strict=True)]


def finest_scales(problem: Problem, prior: Prior, recipe: Recipe) -> Tensor:
    """Index of the finest scale of the guess, ``(B,)``; without encoder, latents of all scales are refined."""
    if recipe.guess.stop == "auto":
        return problem.stop
    scales = prior.spectrum.scales
    index = len(scales) - 1 if recipe.guess.stop in ("all", "none") else scales.index(int(recipe.guess.stop))
    return torch.full((len(problem.gain),), index, device=problem.gain.device)


def by_scale(prior: Prior, latents: list[Tensor]) -> list[list[Tensor]]:
    """Something of each latent, scale by scale; of none, nothing."""
    if not latents:
        return []
    rest = iter(latents)
    return [[next(rest) for _ in prior.layers(index)] for index in range(len(prior.spectrum.scales))]


def descend(prior: Prior, features: list[Tensor] | None, stop: Tensor, choose: Choice = posterior_mean) -> Guess:
    """The way down that takes ``choose`` for every latent; ``stop`` ``(B * T,)``: the finest scale of the guess."""
    whole = Hierarchy(prior, len(stop), features, stop)

    def way(rows: slice) -> tuple[list[Tensor], list[Gaussian], list[Gaussian], list[Tensor]]:
        # nodes hold every context: of a portion only
        found = whole.of(rows).descend(choose)
        posteriors, priors = [node.posterior for node in found.nodes], [node.prior for node in found.nodes]
        return found.latents, posteriors, priors, prior.contributions(list(found.done.contexts))

    return Guess(features, *joined([way(rows) for rows in portions(prior, len(stop))]))


def read(evidence: Evidence, prior: Prior, stop: Tensor) -> Guess:
    """One reading of an image: what the encoder makes of it, latents at their posterior means."""
    image, profile = evidence.image, evidence.profile
    features = joined([prior.encode(image[rows], profile[rows]) for rows in portions(prior, len(image))])
    return descend(prior, features, stop)


def read_image(problem: Problem, prior: Prior, image: Tensor, level: float, stop: Tensor) -> tuple[Tensor, Guess]:
    """What a prior makes of images ``(B, C, H, W)`` in white noise of standard deviation ``level``: estimate and guess.

    This is all that further passes ask of a prior.
    """
    guess = read(problem.evidence_of(image, level), prior, stop)
    return problem.decode(prior, guess.contributions), guess


def first_guess(problem: Problem, prior: Prior, recipe: Recipe, stop: Tensor) -> Guess:
    """One reading of the measurement; for a guess that stops at ``"none"``, the prior's means, without encoder."""
    if not recipe.reads:
        return descend(prior, None, stop)
    return read(problem.evidence, prior, stop)


def read_again(
    problem: Problem, prior: Prior, recipe: Recipe, guess: Guess, stop: Tensor, nonnegative: bool, watch: Watch
) -> Guess:
    """The recipe's further readings.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    recipe : Recipe
        ``passes``, and of ``closing`` whether what the decoder leaves unexplained follows the measurement.
    guess : Guess
        The first reading.
    stop : Tensor
        ``(B * T,)`` index of the finest scale of the guess.
    nonnegative : bool
        Whether images hold no negative value.
    watch : Watch
    """

    def left(likelihood: DiagonalLikelihood | None, image: Tensor) -> Tensor:
        if not recipe.adapts:
            return problem.variance.expand(image.shape)
        return problem.unexplained(likelihood or problem.likelihood, image)

    decoded = problem.decode(prior, guess.contributions)
    image = closest_image(problem.likelihood, decoded, left(None, decoded), nonnegative).image

    def reading(joined: Tensor, level: float, number: int) -> Tensor:
        nonlocal guess
        shift = SHIFTS[number % len(SHIFTS)] if moves(prior) else (0, 0)
        estimate, guess = read_image(problem, prior, torch.roll(joined, shift, (-2, -1)), level, stop)
        answer = torch.roll(estimate, (-shift[0], -shift[1]), (-2, -1))
        white = torch.full_like(problem.variance, level**2)
        seen = DiagonalLikelihood(Folded(fft2(joined), white.expand(answer.shape)), answer.is_complex())
        return seen.mean(answer, left(seen, answer))

    schedule = levels(recipe.passes.count, recipe.passes.end)
    half_quadratic(problem, image, schedule, reading, nonnegative, watch)
    return guess


Read = Callable[[Tensor, float, int], Tensor]
"""``read(image, level, number)``: posterior mean of images in white noise of a level, read as the view ``number`` of
them: 0, the image where it lies, is the last one's."""


def half_quadratic(
    problem: Problem,
    image: Tensor,
    schedule: list[float],
    read: Read,
    nonnegative: bool,
    watch: Watch,
    trust: float = 1.0,
) -> Tensor:
    """Further readings of ``image`` ``(B, C, H, W)`` at the ``schedule``'s levels: what the last one concludes.

    ``trust``: weight of what a reading concluded, in units of one over its level squared.
    """
    last, joined = image, Solution(image)
    for number, level in enumerate(schedule):
        white = torch.full_like(problem.variance, level**2 / trust)
        anchor = image + MOMENTUM * (image - last)
        joined = closest_image(problem.likelihood, anchor, white, nonnegative, 8, Solution(joined.image))
        last, image = image, read(joined.image, level, len(schedule) - 1 - number)
        watch.tell("pass", number + 1, len(schedule))
    return image


def levels(count: int, end: float) -> list[float]:
    """Noise levels of the passes, from the first to the last in equal ratios; of one pass, the last."""
    if count == 1:
        return [end]
    return [float(FIRST * (end / FIRST) ** (number / (count - 1))) for number in range(count)]


class Estimate(NamedTuple):
    """``image`` ``(B, C, H, W)``, the reader's; ``variance`` and ``spread`` of its error, as in a reading."""

    image: Tensor
    variance: Tensor
    spread: Tensor


def mirrors(prior: Prior) -> list[tuple[int, ...]]:
    """Axes along which an image is mirrored in each view that a reader may be given: as its training images were."""
    axes = [((), (axis,)) if axis in prior.mirrors else ((),) for axis in (-2, -1)]
    ways = [first + second for first, second in product(*axes)]
    # both at once differ most from none
    return sorted(ways, key=lambda way: -1 if not way else -len(way) + 2)


def mirrored(posterior: WienerPosterior, axes: tuple[int, ...]) -> WienerPosterior:
    """The Wiener posterior of the image mirrored along axes: its frequency ``k`` is then ``-k`` there."""
    if not axes:
        return posterior
    rho = torch.roll(posterior.rho.flip(axes), (1,) * len(axes), axes)
    return WienerPosterior(posterior.mean.flip(axes), rho, posterior.profile)


def read_views(prior: Prior, posterior: WienerPosterior, ways: list[tuple[int, ...]]) -> Estimate:
    """The mean of the readings of an image mirrored in several ways, each mirrored back; the first one's error."""
    readings = [prior.read(mirrored(posterior, way)) for way in ways]
    views = [
        reading.estimate.flip(way) if way else reading.estimate for reading, way in zip(readings, ways, strict=True)
    ]
    mean = torch.stack(views).mean(0) if len(views) > 1 else views[0]
    return Estimate(mean, readings[0].variance, readings[0].spread)


def _bounded(problem: Problem, found: Estimate) -> Tensor:
    """The estimate over ``x >= 0``.

    The exact mode, with the error's spectrum, is not better than to cut off what is below, within 0.03 dB, and worse on
    noise. But the cut moves all frequencies: where a few of them were measured well, it would contradict them.
    """
    image, likelihood = found.image.clamp_min(0), problem.likelihood
    if likelihood.folded is None:
        return image
    value, variance = likelihood.folded
    known = torch.isfinite(variance) & (variance > 0)
    off = torch.where(known, (fft2(image) - value).abs().square() / variance.clamp_min(1e-20), 0.0)
    share = off.flatten(1).sum(1) / known.expand(off.shape).flatten(1).sum(1).clamp_min(1)
    contradicts = share > LARGEST_RESIDUAL
    if not bool(contradicts.any()):
        return image
    exact = closest_image(likelihood, found.image, found.variance.expand_as(found.image), True).image
    return torch.where(contradicts.reshape(-1, 1, 1, 1), exact, image)


LARGEST_RESIDUAL = 1.5
"""Mean square of a residual over the noise's, beyond which it cannot be noise; less may be a mistaken noise level."""


def read_whole(problem: Problem, prior: Prior, recipe: Recipe, nonnegative: bool, watch: Watch) -> Estimate:
    """What the reader makes of a measurement, in as many views and passes as the recipe has."""
    ways = mirrors(prior)
    first = read_views(prior, problem.posterior, ways[: recipe.views])
    image = first.image
    if nonnegative:
        image = image.clamp_min(0) if recipe.closing.error == "none" else _bounded(problem, first)
    watch.tell("guess")
    if not recipe.passes.count:
        if recipe.closing.error != "none" and callable(problem.weights):
            # a profile says how well a ring is measured, not which part of it: what was measured is put back once
            image = problem.likelihood.mean(first.image, first.variance.expand_as(first.image))
            image = image.clamp_min(0) if nonnegative else image
        return first._replace(image=image)

    def read(joined: Tensor, level: float, number: int) -> Tensor:
        return read_views(prior, problem.posterior_of(joined, level), [ways[number % len(ways)]]).image

    schedule = levels(recipe.passes.count, recipe.passes.end)
    estimate = half_quadratic(problem, image, schedule, read, nonnegative, watch, TRUST)
    if recipe.views > 1:
        estimate = FIRST_SHARE * image + (1 - FIRST_SHARE) * estimate
    # as far as the last level says: what is known exactly stays so
    white = torch.full_like(problem.variance, recipe.passes.end**2)
    return first._replace(image=closest_image(problem.likelihood, estimate, white, nonnegative).image)
