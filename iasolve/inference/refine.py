"""Refinement of the latents of one scale, joint or sequential; the best iterate is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.objective import DataTerm, ScaleValue, complete, evaluate_scale
from iasolve.inference.steps import Latent, walk
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
    """An iterate, and what it is compared by over the fixed draws; see :class:`ScaleReport`."""

    means: list[Tensor]
    total: Tensor
    cost: Tensor
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
        start = best = self._fixed(index, context, means, stds)
        if steps and bool((self.stop >= index).any()):
            if self.recipe.schedule == "joint":
                iterates = self._steps(index, context, means, stds, steps, list(range(len(means))))
            else:
                iterates = [self._sequential(index, context, means, stds, steps)]
            best = self._best(index, context, start, iterates, stds)
        else:
            steps = 0
        if self.recipe.objective != "variational":
            (contribution,) = best.drawn
        else:
            contribution = self._at(index, context, best.means, stds, None).contribution
        self.data.commit(index, contribution)
        misfit = self.data.misfit(index, contribution)
        self.reports.append(
            ScaleReport(scale, steps, start.total, best.total, misfit, best.cost, contribution, best.drawn)
        )
        return best.means

    @torch.no_grad()
    def _at(
        self, index: int, context: Tensor, means: list[Tensor], stds: list[Tensor], draws: list[Tensor] | None
    ) -> ScaleValue:
        """The scale's objective for given draws, for comparisons."""
        beta = self.recipe.beta_at(self.prior.spectrum.scales[index])
        widths = self.recipe.averages_prior
        return evaluate_scale(
            self.prior, index, context, means, stds, draws, self.data, beta, self.tiles, widths=widths, settled=True
        )

    def _fixed(self, index: int, context: Tensor, means: list[Tensor], stds: list[Tensor]) -> _Compared:
        """Objective and cost over the fixed draws, and the contribution of each draw."""
        if self.recipe.objective != "variational":
            value = self._at(index, context, means, stds, None)
            return _Compared(means, value.total, value.cost, [value.contribution])
        values = []
        for k in range(self.fixed_draws // 2):
            draws = [self.noise(tuple(m.shape[1:]), "fixed", k, index, n) for n, m in enumerate(means)]
            values += [self._at(index, context, means, stds, [sign * d for d in draws]) for sign in (1, -1)]
        total = torch.stack([v.total for v in values]).mean(0)
        cost = torch.stack([v.cost for v in values]).mean(0)
        return _Compared(means, total, cost, [v.contribution for v in values])

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
        """Iterates of the scale's means; only the layers in ``free`` move.

        With ``complete_after``, ``context`` is the one before that layer, and later layers are completed.
        """
        recipe = self.recipe
        beta = recipe.beta_at(self.prior.spectrum.scales[index])
        covered = self.stop.reshape(-1, 1, 1, 1) >= index
        held = [m.detach() for m in start]

        def all_means(moved: list[Tensor]) -> list[Tensor]:
            means = list(held)
            for n, mean in zip(free, moved, strict=True):
                means[n] = mean
            return means

        def objective(step: int, moved: list[Tensor]) -> Tensor:
            draws = None
            if recipe.objective == "variational":
                draws = [
                    self.noise(tuple(m.shape[1:]), "step", step, complete_after, index, n) for n, m in enumerate(held)
                ]
            return evaluate_scale(
                self.prior,
                index,
                context,
                all_means(moved),
                stds,
                draws,
                self.data,
                beta,
                self.tiles,
                widths=recipe.averages_prior,
                first=complete_after or 0,
                complete_after=complete_after,
                features=self.features,
                covered=covered,
            ).total

        latents = [Latent(held[n], stds[n], covered.to(held[n].dtype), steps) for n in free]
        return [all_means(moved) for moved in walk(latents, objective, recipe, self.tiles)]

    def _best(
        self, index: int, context: Tensor, start: _Compared, iterates: list[list[Tensor]], stds: list[Tensor]
    ) -> _Compared:
        """Per image the iterate with the lowest objective over the fixed draws."""
        best = start
        for iterate in iterates:
            found = self._fixed(index, context, iterate, stds)
            better = found.total < best.total
            tile = better.repeat_interleave(self.tiles)
            best = _Compared(
                _pick(tile, found.means, best.means),
                torch.where(better, found.total, best.total),
                torch.where(better, found.cost, best.cost),
                _pick(tile, found.drawn, best.drawn),
            )
        return best

    def _sequential(
        self, index: int, context: Tensor, means: list[Tensor], stds: list[Tensor], steps: int
    ) -> list[Tensor]:
        """The paper's loop: latent by latent, the rest of the scale completed from posterior or prior."""
        evidence = None if self.features is None else self.features[index]
        covered = (self.stop >= index).reshape(-1, 1, 1, 1)
        current = list(means)
        for number, layer in enumerate(self.prior.layers(index)):
            with torch.no_grad():
                p, feature = layer.prior(context)
                if number:
                    # the guess in the refined context
                    current[number] = complete(layer, context, evidence, p, covered).mean
            current = self._steps(index, context, current, stds, steps, [number], complete_after=number)[-1]
            with torch.no_grad():
                context = layer.update(context, current[number], feature)
        return current


def _pick(tile: Tensor, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    """Of two lists of tensors ``(B * T, ...)``, the first's values for the tiles that are marked."""
    return [torch.where(tile.reshape(-1, *([1] * (n.ndim - 1))), n, o) for n, o in zip(new, old, strict=True)]
