"""Refinement of the latents of one scale: joint or sequential, Adam or gradient steps, best iterate kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.objective import DataTerm, ScaleValue, complete, evaluate_scale
from iasolve.inference.steps import Adam, checkpoints, decay
from iasolve.inference.topdown import Noise
from iasolve.networks import Gaussian
from iasolve.priors import Prior
from iasolve.recipe import Recipe

__all__ = ["Refiner", "ScaleReport"]


@dataclass
class ScaleReport:
    """What refinement did at a scale, per image.

    Attributes
    ----------
    scale : int
    steps : int
        Steps taken.
    before, after : Tensor
        Objective ``(B,)`` in nats, over the same fixed draws.
    cost : Tensor
        The latents' share of ``after``, ``(B,)``.
    contribution : Tensor
        ``h_s`` after refinement.
    drawn : list of Tensor
        ``h_s`` for each of the fixed draws of the latents; of a point, itself. Empty: not known.
    misfit : Tensor
        Root mean square residual against what noise and decoder leave unexplained, ``(B,)``: about 1 when the
        contribution fits, before closing.
    """

    scale: int
    steps: int
    before: Tensor
    after: Tensor
    misfit: Tensor
    cost: Tensor
    contribution: Tensor
    drawn: list[Tensor] = field(default_factory=list)


class _Compared(NamedTuple):
    """What iterates are compared by; see :class:`ScaleReport`."""

    total: Tensor
    cost: Tensor
    contribution: Tensor
    drawn: list[Tensor]


class Refiner:
    """Refines scale after scale; an instance serves one pass of :func:`iasolve.inference.topdown.descend`.

    Parameters
    ----------
    prior : Prior
    recipe : Recipe
    data : DataTerm
    noise : Noise
        Source of the draws ``e``.
    tiles : int
        Tiles per image.
    stop : Tensor
        ``(B * T,)`` index of the finest scale of the guess; finer latents stay as they are.
    has_encoder : bool
        Whether latents not yet refined take posterior values (hybrid) or prior means (iterative).
    """

    fixed_draws = 2

    def __init__(
        self,
        prior: Prior,
        recipe: Recipe,
        data: DataTerm,
        noise: Noise,
        tiles: int,
        stop: Tensor,
        features: list[Tensor] | None,
    ) -> None:
        self.prior, self.recipe, self.data, self.noise = prior, recipe, data, noise
        self.tiles, self.stop, self.features = tiles, stop, features
        self.reports: list[ScaleReport] = []

    def __call__(self, index: int, context: Tensor, guess: list[Gaussian], means: list[Tensor]) -> list[Tensor]:
        """Refined means of scale ``index``."""
        scale = self.prior.spectrum.scales[index]
        steps = self.recipe.steps_at(scale)
        context = context.detach()
        stds = [q.std for q in guess]
        start = self._fixed(index, context, means, stds)
        before, end = start.total, start
        if steps and bool((self.stop >= index).any()):
            if self.recipe.schedule == "joint":
                refined, after = self._joint(index, context, means, stds, steps, before)
            else:
                refined, after = self._sequential(index, context, guess, means, stds, steps, before)
            end = self._fixed(index, context, refined, stds)
        else:
            refined, after, steps = means, before, 0
        self.data.commit(index, end.contribution)
        misfit = self.data.misfit(index, end.contribution)
        self.reports.append(ScaleReport(scale, steps, before, after, misfit, end.cost, end.contribution, end.drawn))
        return refined

    @torch.no_grad()
    def _fixed(self, index: int, context: Tensor, means: list[Tensor], stds: list[Tensor]) -> _Compared:
        """Objective and cost over the fixed draws, and the contributions of the means themselves and of each draw."""
        beta = self.recipe.beta_at(self.prior.spectrum.scales[index])

        def at(draws: list[Tensor] | None) -> ScaleValue:
            return evaluate_scale(
                self.prior, index, context, means, stds, draws, self.data, beta, self.tiles, settled=True
            )

        centre = at(None)
        if self.recipe.objective == "map":
            return _Compared(centre.total, centre.cost, centre.contribution, [centre.contribution])
        values = []
        for k in range(self.fixed_draws // 2):
            draws = [self.noise(tuple(m.shape[1:]), "fixed", k, index, n) for n, m in enumerate(means)]
            values += [at([sign * d for d in draws]) for sign in (1, -1)]
        total = torch.stack([v.total for v in values]).mean(0)
        cost = torch.stack([v.cost for v in values]).mean(0)
        return _Compared(total, cost, centre.contribution, [v.contribution for v in values])

    def _steps(
        self,
        index: int,
        context: Tensor,
        start: list[Tensor],
        stds: list[Tensor],
        steps: int,
        free: list[int],
        complete_after: int | None = None,
    ) -> list[list[Tensor]]:
        """Iterates, ``start`` first: only the layers in ``free`` move.

        With ``complete_after``, ``context`` is the one before that layer, and later layers are completed.
        """
        recipe = self.recipe
        raw = recipe.metric == "raw"
        beta = recipe.beta_at(self.prior.spectrum.scales[index])
        covered = (self.stop >= index).reshape(-1, 1, 1, 1).to(start[0].dtype)
        means = [m.detach().clone() for m in start]
        adam = Adam([means[n] for n in free])
        iterates = [list(means)]
        kept = checkpoints(steps)
        for step in range(steps):
            variables = [means[n].requires_grad_(True) for n in free]
            draws = None
            if recipe.objective == "variational":
                draws = [
                    self.noise(tuple(m.shape[1:]), "step", step, complete_after, index, n) for n, m in enumerate(means)
                ]
            with torch.enable_grad():
                value = evaluate_scale(
                    self.prior,
                    index,
                    context,
                    means,
                    stds,
                    draws,
                    self.data,
                    beta,
                    self.tiles,
                    first=complete_after or 0,
                    complete_after=complete_after,
                    features=self.features,
                    covered=self.stop.reshape(-1, 1, 1, 1) >= index,
                )
                gradients = list(torch.autograd.grad(value.total.sum(), variables))
            rate = recipe.step_size * decay(step, steps)
            units = [torch.ones_like(stds[n]) if raw else stds[n] for n in free]
            scaled = [g * u for g, u in zip(gradients, units, strict=True)]
            moves = adam.direction(scaled) if recipe.optimizer == "adam" else scaled
            means = [m.detach() for m in means]
            for n, move, unit in zip(free, moves, units, strict=True):
                moved = means[n] - rate * unit * move * covered
                if recipe.trust > 0:
                    reach = recipe.trust * stds[n]
                    moved = torch.maximum(torch.minimum(moved, start[n] + reach), start[n] - reach)
                means[n] = moved
            if step + 1 in kept:
                iterates.append(list(means))
        return iterates

    def _best(
        self, index: int, context: Tensor, iterates: list[list[Tensor]], stds: list[Tensor], before: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Per image the iterate with the lowest objective over the fixed draws."""
        best, lowest = iterates[0], before
        for candidate in iterates[1:]:
            value = self._fixed(index, context, candidate, stds).total
            better = value < lowest
            per_tile = better.repeat_interleave(self.tiles).reshape(-1, 1, 1, 1)
            best = [torch.where(per_tile, c, b) for c, b in zip(candidate, best, strict=True)]
            lowest = torch.where(better, value, lowest)
        return best, lowest

    def _joint(
        self, index: int, context: Tensor, means: list[Tensor], stds: list[Tensor], steps: int, before: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        iterates = self._steps(index, context, means, stds, steps, list(range(len(means))))
        return self._best(index, context, iterates, stds, before)

    def _sequential(
        self,
        index: int,
        context: Tensor,
        guess: list[Gaussian],
        means: list[Tensor],
        stds: list[Tensor],
        steps: int,
        before: Tensor,
    ) -> tuple[list[Tensor], Tensor]:
        """The paper's loop: latent by latent, the rest of the scale completed from posterior or prior."""
        current = list(means)
        before_layer = context
        for number, layer in enumerate(self.prior.layers(index)):
            iterates = self._steps(index, before_layer, current, stds, steps, [number], complete_after=number)
            current = self._complete(index, context, iterates[-1], number)
            with torch.no_grad():
                before_layer = layer.update(before_layer, current[number], layer.prior(before_layer)[1])
        return self._best(index, context, [list(means), current], stds, before)

    @torch.no_grad()
    def _complete(self, index: int, context: Tensor, means: list[Tensor], number: int) -> list[Tensor]:
        """Latents after ``number`` recomputed in the refined context."""
        out = list(means)
        for n, layer in enumerate(self.prior.layers(index)):
            p, feature = layer.prior(context)
            if n > number:
                evidence = None if self.features is None else self.features[index]
                out[n] = complete(layer, context, evidence, p, self.stop.reshape(-1, 1, 1, 1) >= index).mean
            context = layer.update(context, out[n], feature)
        return out
