"""Refinement of a whole hierarchy: every latent's gradient runs through all later layers.

The objective is that of the whole hierarchy, ``J = beta * data(x) + sum_l cost_l``, with the costs of
:mod:`iasolve.inference.objective`. Two forms, by the recipe's ``schedule``:

``sequential``: the paper's eq. (4), latent by latent, coarse to fine; a step of latent ``l`` evaluates layers
``l .. L`` once forward and backward, later latents completed from their posteriors (priors without encoder) in the
context at hand. The layers before are evaluated once and kept. A sweep, one step of each latent, costs
``L (L + 1) / 2`` layer evaluations.

``joint``, ``whole``: all latents are variables, one pass through the ``L`` layers is one step of all of them. For a
separable prior the latter asks for this form: its latents then answer for finer scales too.

With ``variables = "offsets"`` what moves is not a latent but its distance from the posterior in the context at hand. A
coarse latent that moves changes the context of all finer ones; held where they are, these make much of the image wrong,
and the way down is a narrow valley. Counted from their posteriors they follow: the encoder reads the evidence anew in
every context. The objective is the same function of the latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.inference.hierarchy import START, Hierarchy, Prefix
from iasolve.inference.objective import DataTerm, ImageTerm
from iasolve.inference.refine import ScaleReport
from iasolve.inference.steps import Latent, walk
from iasolve.inference.topdown import Noise, Pass, ScalePass
from iasolve.networks import Gaussian
from iasolve.priors import Prior
from iasolve.recipe import Recipe

__all__ = ["WholeRefiner", "whole_fit"]


def whole_fit(data: DataTerm, contributions: list[Tensor], betas: list[float]) -> Tensor:
    """Weighted data term ``(B,)`` of all contributions together, differentiable in them."""
    if not isinstance(data, ImageTerm):
        return data.total(contributions, betas)
    # an image's data term does not divide among scales: the mean weight
    for index, contribution in enumerate(contributions):
        data.commit(index, contribution)
    return sum(betas) / len(betas) * data(0, contributions[0])


class WholeRefiner:
    """Refines a whole hierarchy; the counterpart of :class:`iasolve.inference.refine.Refiner`.

    It takes any prior: of a separable one it refines each latent through all later scales too.

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
    features : list of Tensor, optional
        The encoder's; None refines from the prior (iterative inference).
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
        self.tiles = tiles
        self.hierarchy = Hierarchy(prior, features, stop, widths=recipe.averages_prior)
        scales = prior.spectrum.scales
        self.betas = [recipe.beta_at(s) for s in scales]
        # a latent beyond every tile's guess is not refined
        finest = int(stop.max())
        self.steps = [recipe.steps_at(s) if index <= finest else 0 for index, s in enumerate(scales)]
        self.shapes: list[tuple[int, ...]] = []
        self.reports: list[ScaleReport] = []

    @torch.no_grad()
    def __call__(self, guess: Pass) -> Pass:
        """The refined pass; :attr:`reports` tell what it did."""
        start = [
            Gaussian(q.mean + q.std * o, q.log_std)
            for s in guess.scales
            for q, o in zip(s.guess, s.offsets, strict=True)
        ]
        self.shapes = [tuple(q.mean.shape[1:]) for q in start]
        before = self._scales(start)
        best, after = start, before
        if any(self.steps):
            if self.recipe.schedule == "sequential":
                found = self._sequential(start)
            elif self.recipe.variables == "offsets":
                found = self._offsets(start, [o for s in guess.scales for o in s.offsets])
            else:
                found = self._joint(start)
            best, after = self._best(start, before, found)
        return self._finish(best, before, after)

    # ------------------------------------------------------------------------------------------- objective

    def value(
        self,
        prefix: Prefix,
        latents: list[Gaussian],
        draws: list[Tensor] | None,
        offsets: list[Tensor] | None = None,
    ) -> Tensor:
        """The objective ``(B,)`` of the hierarchy from ``prefix`` on; see :meth:`Hierarchy.evaluate`."""
        costs, contributions, _ = self.hierarchy.evaluate(prefix, latents, draws, offsets)
        cost = torch.stack(costs).sum(0)
        return whole_fit(self.data, contributions, self.betas) + self._per_image(cost)

    def _per_image(self, cost: Tensor) -> Tensor:
        return cost.unflatten(0, (-1, self.tiles)).sum(1) if self.tiles > 1 else cost

    def _fixed(self) -> list[list[Tensor] | None]:
        """Antithetic draws, the same for every comparison; a point needs none."""
        if self.recipe.objective != "variational":
            return [None]
        out: list[list[Tensor] | None] = []
        for k in range(self.fixed_draws // 2):
            draws = [self.noise(shape, "fixed", k, n) for n, shape in enumerate(self.shapes)]
            out += [[sign * d for d in draws] for sign in (1, -1)]
        return out

    def _draws(self, step: int, prefix: Prefix) -> list[Tensor] | None:
        """A step's own draws, of each latent from ``prefix`` on."""
        if self.recipe.objective != "variational":
            return None
        rest = range(prefix.first, len(self.shapes))
        return [self.noise(self.shapes[n], "step", step, prefix.first, n) for n in rest]

    def _scales(self, latents: list[Gaussian]) -> tuple[Tensor, Tensor]:
        """Objective and cost of every scale over the fixed draws, ``(S, B)`` each, for comparisons.

        A scale's objective is its latents' cost and the data term that its ring has in the whole image.
        """
        totals, costs = [], []
        for draws in self._fixed():
            found = self.hierarchy.evaluate(START, latents, draws)
            cost = torch.stack([self._per_image(c) for c in found.costs])
            totals.append(self._fits(found.contributions) + cost)
            costs.append(cost)
        return torch.stack(totals).mean(0), torch.stack(costs).mean(0)

    def _fits(self, contributions: list[Tensor]) -> Tensor:
        """Weighted data term of every ring, ``(S, B)``; on the general path, that of the image at every scale."""
        for index, contribution in enumerate(contributions):
            self.data.commit(index, contribution)
        if isinstance(self.data, ImageTerm):
            whole = self.data.settled(0, contributions[0])
            return torch.stack([beta * whole for beta in self.betas])
        return torch.stack([b * self.data.settled(i, contributions[i]) for i, b in enumerate(self.betas)])

    def _score(self, scales: tuple[Tensor, Tensor]) -> Tensor:
        """One number an image, ``(B,)``: an image's data term, which every scale's objective repeats, counts once."""
        totals, costs = scales
        if not isinstance(self.data, ImageTerm):
            return totals.sum(0)
        return (totals - costs).mean(0) + costs.sum(0)

    # ------------------------------------------------------------------------------------------- steps

    def _joint(self, start: list[Gaussian]) -> list[list[Gaussian]]:
        steps = max(self.steps)
        return self._walk(START, start, steps, list(range(len(start))))

    def _sequential(self, start: list[Gaussian]) -> list[list[Gaussian]]:
        hierarchy = self.hierarchy
        prefix = START
        refined: list[Gaussian] = []
        for number in range(len(start)):
            context = hierarchy.enter(number, prefix.context)
            p, _ = hierarchy.layers[number][1].prior(context)
            # the guess in the refined context
            q = hierarchy.posterior(number, context, p)
            steps = self.steps[hierarchy.scale_of[number]]
            if steps:
                q = self._walk(prefix, [q], steps, [number])[-1][0]
            refined.append(q)
            prefix = hierarchy.advance(prefix, q.mean)
        return [refined]

    def _offsets(self, start: list[Gaussian], begin: list[Tensor]) -> list[list[Gaussian]]:
        """Iterates of all latents, moved by what they lie off the posteriors in their contexts."""

        def objective(step: int, offsets: list[Tensor]) -> Tensor:
            return self.value(START, start, self._draws(step, START), offsets)

        variables = [
            Latent(offset, torch.ones_like(offset), self.hierarchy.covered(n), self.steps[self.hierarchy.scale_of[n]])
            for n, offset in enumerate(begin)
        ]
        iterates = []
        for offsets in walk(variables, objective, self.recipe, self.tiles):
            means = self.hierarchy.evaluate(START, start, None, offsets).means
            iterates.append([Gaussian(m, q.log_std) for m, q in zip(means, start, strict=True)])
        return iterates

    def _walk(self, prefix: Prefix, start: list[Gaussian], steps: int, numbers: list[int]) -> list[list[Gaussian]]:
        """Iterates of the latents ``numbers``, which follow ``prefix``."""
        hierarchy = self.hierarchy

        def posteriors(means: list[Tensor]) -> list[Gaussian]:
            return [Gaussian(m, q.log_std) for m, q in zip(means, start, strict=True)]

        def objective(step: int, means: list[Tensor]) -> Tensor:
            return self.value(prefix, posteriors(means), self._draws(step, prefix))

        latents = [
            Latent(q.mean, q.std, hierarchy.covered(n), min(steps, self.steps[hierarchy.scale_of[n]]))
            for q, n in zip(start, numbers, strict=True)
        ]
        return [posteriors(means) for means in walk(latents, objective, self.recipe, self.tiles)]

    # ------------------------------------------------------------------------------------------- outcome

    def _best(
        self, start: list[Gaussian], before: tuple[Tensor, Tensor], candidates: list[list[Gaussian]]
    ) -> tuple[list[Gaussian], tuple[Tensor, Tensor]]:
        """Per image the iterate with the lowest objective over the fixed draws, and its objective per scale."""
        best, scales = start, before
        for candidate in candidates:
            found = self._scales(candidate)
            better = self._score(found) < self._score(scales)
            tile = better.repeat_interleave(self.tiles).reshape(-1, 1, 1, 1)
            best = [
                Gaussian(torch.where(tile, c.mean, b.mean), torch.where(tile, c.log_std, b.log_std))
                for c, b in zip(candidate, best, strict=True)
            ]
            scales = (torch.where(better, found[0], scales[0]), torch.where(better, found[1], scales[1]))
        return best, scales

    def _finish(self, latents: list[Gaussian], before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> Pass:
        """The pass of the refined means, offsets counted from the posteriors in its own context, and the reports."""
        hierarchy = self.hierarchy
        guess: list[list[Gaussian]] = [[] for _ in range(hierarchy.scales)]
        offsets: list[list[Tensor]] = [[] for _ in range(hierarchy.scales)]
        priors: list[list[Gaussian]] = [[] for _ in range(hierarchy.scales)]
        prefix = START
        for number, refined in enumerate(latents):
            index, layer = hierarchy.layers[number]
            context = hierarchy.enter(number, prefix.context)
            p, _ = layer.prior(context)
            q = hierarchy.posterior(number, context, p)
            guess[index].append(q)
            priors[index].append(p)
            offsets[index].append((refined.mean - q.mean) / q.std)
            prefix = hierarchy.advance(prefix, refined.mean)
        contributions = self.prior.contributions(list(prefix.contexts))
        drawn = self._drawn(latents)
        for index, contribution in enumerate(contributions):
            self.data.commit(index, contribution)
        for index, scale in enumerate(self.prior.spectrum.scales):
            misfit = self.data.misfit(index, contributions[index])
            self.reports.append(
                ScaleReport(
                    scale,
                    self.steps[index],
                    before[0][index],
                    after[0][index],
                    misfit,
                    after[1][index],
                    contributions[index],
                    [draw[index] for draw in drawn],
                )
            )
        return Pass([ScalePass(*found) for found in zip(guess, offsets, priors, contributions, strict=True)])

    def _drawn(self, latents: list[Gaussian]) -> list[list[Tensor]]:
        """Contributions for each fixed draw; only an image's data term is compared by them."""
        if not isinstance(self.data, ImageTerm):
            return []
        return [self.hierarchy.evaluate(START, latents, draws).contributions for draws in self._fixed()]
