"""Steps of latents that go down an objective: what the refinement schedules share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iasolve.inference.lbfgs import LBFGS
from iasolve.recipe import Recipe

__all__ = ["Adam", "Latent", "checkpoints", "decay", "walk"]


class Adam:
    """Adam's direction for a list of tensors, bias-corrected, in units of one step."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        self.first = [torch.zeros_like(t) for t in like]
        self.second = [torch.zeros_like(t) for t in like]
        self.count = 0

    def direction(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The direction after one more gradient of each tensor."""
        self.count += 1
        out = []
        for m, v, g in zip(self.first, self.second, gradients, strict=True):
            m.lerp_(g, 0.1)
            v.lerp_(g.square(), 0.01)
            mean, square = m / (1 - 0.9**self.count), v / (1 - 0.99**self.count)
            out.append(mean / (square.sqrt() + 1e-12))
        return out


def decay(step: int, steps: int) -> float:
    """Half a cosine from 1 to a tenth."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / max(1, steps)))


def checkpoints(steps: int) -> set[int]:
    """Numbers of steps after which an iterate is kept for comparison: a quarter, half, three quarters, all."""
    return {max(1, round(steps * f)) for f in (0.25, 0.5, 0.75, 1.0)}


@dataclass
class Latent:
    """A latent that moves.

    Attributes
    ----------
    start, std : Tensor
        Mean and standard deviation of its posterior, ``(B * T, z, g, g)``.
    covered : Tensor
        Which tiles' guess covers it, ``(B * T, 1, 1, 1)``: the others stay.
    steps : int
        How many it takes.
    """

    start: Tensor
    std: Tensor
    covered: Tensor
    steps: int

    def unit(self, recipe: Recipe) -> Tensor:
        """What a step is measured in."""
        return torch.ones_like(self.std) if recipe.metric == "raw" else self.std

    def held(self, mean: Tensor, recipe: Recipe) -> Tensor:
        """A mean brought back into the trust region."""
        if recipe.trust == 0:
            return mean
        reach = recipe.trust * self.std
        return torch.maximum(torch.minimum(mean, self.start + reach), self.start - reach)


Objective = Callable[[int, list[Tensor]], Tensor]
"""``objective(step, means) -> (B,)``, differentiable; ``step`` names its draws."""


def walk(latents: list[Latent], objective: Objective, recipe: Recipe, tiles: int) -> list[list[Tensor]]:
    """Iterates, among which the lowest is to be found; the last is the one to go on from.

    Parameters
    ----------
    latents : list of Latent
    objective : Objective
    recipe : Recipe
        ``optimizer``, ``step_size``, ``metric``, ``trust``.
    tiles : int
        Tiles per image: an image's move together.
    """
    follow = _quasi_newton if recipe.optimizer == "lbfgs" else _first_order
    return follow(latents, objective, recipe, tiles)


def _first_order(latents: list[Latent], objective: Objective, recipe: Recipe, tiles: int) -> list[list[Tensor]]:
    """The iterates at a quarter, half, .. of the steps."""
    steps = max(latent.steps for latent in latents)
    means = [latent.start.detach().clone() for latent in latents]
    adam = Adam(means)
    kept, iterates = checkpoints(steps), []
    for step in range(steps):
        _, gradients = _gradients(objective, step, means)
        scaled = [g * latent.unit(recipe) for g, latent in zip(gradients, latents, strict=True)]
        moves = adam.direction(scaled) if recipe.optimizer == "adam" else scaled
        means = list(means)
        for place, (latent, move) in enumerate(zip(latents, moves, strict=True)):
            if step >= latent.steps:
                continue
            rate = recipe.step_size * decay(step, latent.steps)
            means[place] = latent.held(means[place] - rate * latent.unit(recipe) * move * latent.covered, recipe)
        if step + 1 in kept:
            iterates.append(means)
    return iterates


def _quasi_newton(latents: list[Latent], objective: Objective, recipe: Recipe, tiles: int) -> list[list[Tensor]]:
    """The last iterate, which nothing has judged yet, and the lowest before it."""
    units = [latent.unit(recipe) for latent in latents]
    sizes = [tiles * latent.start[0].numel() for latent in latents]

    def flat(tensors: list[Tensor]) -> Tensor:
        return torch.cat([t.reshape(-1, size) for t, size in zip(tensors, sizes, strict=True)], 1)

    def means(points: Tensor) -> list[Tensor]:
        parts = zip(points.split(sizes, 1), units, latents, strict=True)
        return [latent.held(latent.start + unit * part.reshape(unit.shape), recipe) for part, unit, latent in parts]

    rule = LBFGS(flat([torch.zeros_like(unit) for unit in units]), sizes, recipe.step_size)
    free: list[bool] = []
    for step in range(max(latent.steps for latent in latents)):
        now = [step < latent.steps for latent in latents]
        if free and now != free:
            rule.forget()
        free = now
        value, gradients = _gradients(objective, step, means(rule.trial))
        rule.tell(
            value,
            flat(
                [
                    g * unit * latent.covered * moves
                    for g, unit, latent, moves in zip(gradients, units, latents, free, strict=True)
                ]
            ),
        )
        if recipe.trust > 0:
            moved = zip(means(rule.trial), units, latents, strict=True)
            rule.trial = flat([(mean - latent.start) / unit for mean, unit, latent in moved])
    return [means(rule.trial), means(rule.best)]


def _gradients(objective: Objective, step: int, means: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    variables = [m.detach().requires_grad_(True) for m in means]
    with torch.enable_grad():
        value = objective(step, variables)
        return value.detach(), list(torch.autograd.grad(value.sum(), variables))
