"""How far a solution is, from what the solver tells on its way."""

from __future__ import annotations

from iasolve.inference.passes import moves
from iasolve.inference.view import descends, reads
from iasolve.priors import Prior
from iasolve.problem.options import Status
from iasolve.recipe import Recipe

__all__ = ["Stages"]

_MOST = 0.99
"""Share of an image that is done before the solver says that it is."""


class Stages:
    """Counts what the solver tells.

    Parameters
    ----------
    recipe : Recipe
    prior : Prior
    images : int
        That the solver is given.
    together : int
        Of these, how many it works at together, at most.
    """

    def __init__(self, recipe: Recipe, prior: Prior, images: int, together: int) -> None:
        self._images, self._together, self._calls = images, together, _calls(recipe, prior)
        self._told, self._guessed, self._done = 0, False, 0.0

    def __call__(self, status: Status) -> tuple[float, str]:
        """Images that are done, parts of one included, and in words what was done last."""
        if status.stage == "done":
            self._told, self._guessed = 0, False
            share = 0.0
        else:
            self._told += 1
            self._guessed |= status.stage == "guess"
            # of a large image that is solved in windows, the solver tells of nothing but them
            share = min(self._told / self._calls, _MOST) if self._guessed else status.step / status.steps
        at_work = min(self._together, self._images - status.image)
        self._done = max(self._done, status.image + share * at_work)
        return self._done, _words(status, windows=not self._guessed)


def _calls(recipe: Recipe, prior: Prior) -> int:
    """About how often the solver tells of a batch of images."""
    passes, count = recipe.passes.count, recipe.steps.count
    steps = recipe.steps.most
    if recipe.steps.blocks != "whole":  # one scale, or one latent, after the other
        scales = prior.spectrum.scales
        steps = sum(count.get(scale, 0) for scale in scales) if isinstance(count, dict) else steps * len(scales)
    if reads(prior, recipe):
        return 1 + passes + (2 + steps if descends(prior, recipe) else 0) + recipe.samples
    views = recipe.views if moves(prior) else 1
    refined = min(recipe.steps.views or views, views)
    return views * (2 + passes) + refined * steps + recipe.samples


def _words(status: Status, windows: bool) -> str:
    if status.stage == "done":
        return ""
    if windows:
        return f"part {status.step} of {status.steps}"
    if status.stage in ("guess", "closing"):
        return status.stage
    count = f"{status.stage} {status.step} of {status.steps}"
    if status.objective is None:  # nothing is minimised by a pass or a sample
        return count
    return f"{count}, objective {float(status.objective.mean()):.6g}"
