"""The amortized guess: one reading of the measurement by the encoder, or several.

A *pass* reads again. What the last reading concluded and what the measurement says are brought together (half
quadratic splitting: Geman and Yang 1995; with a learned denoiser Zhang et al. 2017), and the encoder is given the
outcome as an image seen through white noise of a falling level::

    x_k = argmin -log p(y | x) + |x - (g_k + m (g_k - g_{k-1}))|^2 / level_k^2      (x >= 0 for magnitudes)
    g_{k+1} = guess of x_k, closed on x_k at level_k

A pass costs one encoder and one decoder pass and no gradient. On masked k-space eight of them bring the objective
lower than 25 gradient steps of every scale do. With ``spin`` each but the last reads a moved image
(:mod:`iasolve.inference.views`), which costs nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.evidence import Evidence, Folded
from iasolve.inference.data import DiagonalData
from iasolve.inference.nonnegative import closest_image
from iasolve.inference.problem import Problem
from iasolve.inference.topdown import Pass, descend
from iasolve.inference.views import LARGEST, SHIFTS
from iasolve.priors import Prior
from iasolve.recipe import Recipe
from iasolve.spectrum import fft2

__all__ = ["Guess", "decoded", "first_guess", "read_again"]


class Guess(NamedTuple):
    """``features``: the encoder's, per scale (None without an encoder); ``found``: the pass made of them."""

    features: list[Tensor] | None
    found: Pass


def decoded(problem: Problem, prior: Prior, found: Pass) -> Tensor:
    """The image of a pass, before closing, on the image grid ``(B, C, H, W)``."""
    return problem.geometry.image(prior.spectrum.inverse(prior.assemble(found.contributions)))


def first_guess(problem: Problem, prior: Prior, recipe: Recipe, stop: Tensor) -> Guess:
    """One reading; without an encoder (iterative inference) the prior's means."""
    if recipe.mode == "iterative":
        return Guess(None, descend(prior, None, len(stop), stop=stop))
    return _read(problem.evidence, prior, stop)


def read_again(problem: Problem, prior: Prior, recipe: Recipe, stop: Tensor, guess: Guess) -> Guess:
    """The recipe's further readings.

    Parameters
    ----------
    problem : Problem
    prior : Prior
    recipe : Recipe
        ``passes``, ``coupling_start``, ``coupling_end``, ``momentum`` and ``spin``.
    stop : Tensor
        ``(B * T,)`` index of the finest scale of the guess.
    guess : Guess
        The first reading.
    """
    nonnegative = recipe.nonnegative and prior.nonnegative
    spin = recipe.spin and prior.shift >= LARGEST
    first = decoded(problem, prior, guess.found)
    image = closest_image(problem.data, first, problem.unexplained(problem.data, first, recipe.adaptive), nonnegative)
    joined = last = image
    for number in range(recipe.passes):
        level = _level(recipe, number)
        white = torch.full_like(problem.variance, level**2)
        anchor = image + recipe.momentum * (image - last)
        joined = closest_image(problem.data, anchor, white, nonnegative, iterations=8, start=joined)
        # the last reads the image where it lies: the outcome is its latents
        dy, dx = SHIFTS[(recipe.passes - 1 - number) % len(SHIFTS)] if spin else (0, 0)
        guess = _read(problem.evidence_of(torch.roll(joined, (dy, dx), (-2, -1)), level), prior, stop)
        seen = DiagonalData(Folded(fft2(joined), white.expand(joined.shape)), joined.is_complex())
        answer = torch.roll(decoded(problem, prior, guess.found), (-dy, -dx), (-2, -1))
        last, image = image, seen.posterior_mean(answer, problem.unexplained(seen, answer, recipe.adaptive))
    return guess


def _read(evidence: Evidence, prior: Prior, stop: Tensor) -> Guess:
    features = prior.encode(evidence.image, evidence.profile)
    return Guess(features, descend(prior, features, len(stop), stop=stop))


def _level(recipe: Recipe, number: int) -> float:
    """From the first level to the last in equal ratios."""
    if recipe.passes == 1:
        return recipe.coupling_end
    return float(
        recipe.coupling_start * (recipe.coupling_end / recipe.coupling_start) ** (number / (recipe.passes - 1))
    )
