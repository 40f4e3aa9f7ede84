"""From the guess to the solution: further passes, then gradient steps, each kept only where it pays.

What pays is told by the total objective of an image, the ELBO of its measurement (or minus its log posterior):
an image never ends with a worse one than its first guess's. Where there are passes and no steps, it is the log
posterior of the latents: widths after a pass are those of another image's posterior, not of the measurement's.
With 8 coils at 4x the ELBO discards passes that gain 1 dB; on masked k-space of one coil both choose alike.

Steps go *part* by part down the hierarchy. A part is what is compared and committed: one scale, by its own
contribution, or the whole hierarchy, by the image. A part is refined block by block; a block's latents move together,
and the later latents of its part follow them. So the recipe's ``blocks`` are:

``whole``: one part of one block, all latents. ``scale``: every scale is a part of one block. ``latent``: every scale is
a part, and every latent a block (the paper's loop). A prior that is not separable is one part whatever the blocks.

With ``variables = "offsets"`` what moves is not a latent but its distance from the posterior in the context at hand. A
coarse latent that moves changes the context of all finer ones; held where they are, these make much of the image wrong,
and the way down is a narrow valley. Counted from their posteriors they follow: the encoder reads the evidence anew in
every context. The objective is the same function of the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from iasolve.inference.objective import OBJECTIVES, Drawn, Noise, Objective, data_term
from iasolve.inference.optimizers import OPTIMIZERS, Plan, Variables
from iasolve.inference.passes import Guess, descend
from iasolve.inference.result import ScaleReport
from iasolve.networks import Gaussian
from iasolve.priors import Prior
from iasolve.priors.hierarchy import START, Hierarchy, Node, Prefix, posterior_mean, values
from iasolve.problem.likelihood import Solution
from iasolve.problem.options import Watch
from iasolve.problem.pose import Problem
from iasolve.recipe import Recipe, Steps

__all__ = ["Candidate", "Improved", "Judgement", "Part", "better", "improve", "judge", "parts_of", "refine", "steps_of"]

T = TypeVar("T")


class Part(NamedTuple):
    """Latents ``first`` to ``end``, what is compared and committed at once; ``scale`` None: the whole hierarchy."""

    first: int
    end: int
    scale: int | None
    blocks: list[range]

    @property
    def label(self) -> tuple[int, ...]:
        """Names its draws."""
        return () if self.scale is None else (self.scale,)


def parts_of(hierarchy: Hierarchy, blocks: str, separable: bool) -> list[Part]:
    """The parts of a hierarchy, coarse to fine, and the blocks of each."""
    every = range(len(hierarchy.layers))
    if blocks == "whole" or not separable:
        alone = blocks == "latent"
        return [Part(0, every.stop, None, [range(n, n + 1) for n in every] if alone else [every])]
    parts = []
    for scale in sorted(set(hierarchy.scale_of)):
        numbers = [n for n in every if hierarchy.scale_of[n] == scale]
        whole = range(numbers[0], numbers[-1] + 1)
        parts.append(
            Part(whole.start, whole.stop, scale, [range(n, n + 1) for n in whole] if blocks == "latent" else [whole])
        )
    return parts


def steps_of(hierarchy: Hierarchy, steps: Steps) -> list[int]:
    """How many steps each latent takes: none beyond every tile's guess."""
    scales = hierarchy.trunk.spectrum.scales
    finest = len(scales) if hierarchy.stop is None else int(hierarchy.stop.max())
    return [steps.at(scales[scale]) if scale <= finest else 0 for scale in hierarchy.scale_of]


class Judgement(NamedTuple):
    """The objective of a candidate: every scale's share ``(S, B)``, which add up to ``total`` ``(B,)``."""

    shares: Tensor
    total: Tensor


class Candidate(NamedTuple):
    """A guess, refined or not, the log widths of its latents, and what it is worth."""

    guess: Guess
    log_widths: list[Tensor]
    judgement: Judgement


def judge(objective: Objective, parts: list[Part], guess: Guess, log_widths: list[Tensor]) -> Judgement:
    """The objective of a guess; each part is judged in the context of the means before it.

    Of points the guess holds all there is: no layer is evaluated again.
    """
    shares = []
    if not objective.draws:
        pairs = zip(guess.latents, log_widths, guess.priors, strict=True)
        costs = [objective.cost(Gaussian(z, width), p) for z, width, p in pairs]
        shares = [_shares(objective, guess.contributions, costs)]
    else:
        for draws in zip(*(objective.fixed(*part.label, base=part.first) for part in parts), strict=True):
            shares.append(_shares(objective, *_drawn(objective, parts, draws, guess, log_widths)))
    mean = torch.stack(shares).mean(0)
    return Judgement(mean, mean.sum(0))


def _shares(objective: Objective, contributions: list[Tensor], costs: list[Tensor]) -> Tensor:
    """Every scale's share of the objective, ``(S, B)``."""
    fits = objective.term.shares(contributions)
    rows = [fits[scale] for scale in range(len(fits))]
    for cost, scale in zip(costs, objective.hierarchy.scale_of, strict=True):
        rows[scale] = rows[scale] + cost
    return torch.stack(rows)


def _drawn(
    objective: Objective, parts: list[Part], draws: Sequence[Drawn], guess: Guess, log_widths: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Contributions and costs of latents drawn about a guess."""

    def choose(node: Node) -> Gaussian:
        return Gaussian(guess.latents[node.number][node.rows], log_widths[node.number][node.rows])

    done, costs, contributions = START, [], list(guess.contributions)
    for part, draw in zip(parts, draws, strict=True):
        found = objective.evaluate(choose, None if part.scale is None else contributions, done, part.end, draw)
        contributions = found.contributions
        costs += found.costs
        if part.scale is not None:
            done = objective.hierarchy.descend(values(guess.latents), done, part.end).done
    return contributions, costs


def better(old: Candidate, new: Candidate, tiles: int) -> Candidate:
    """Per image the candidate with the lower total objective."""
    return pick(lower(new.judgement.total, old.judgement.total), new, old, tiles)


def lower(new: Tensor, old: Tensor) -> Tensor:
    """Where a value is below another: a gain within rounding is none."""
    return new < old - 1e-6 * old.abs()


def pick(chosen: Tensor, new: T, old: T, tiles: int) -> T:
    """Of two nests of tensors, the first's values for the images that are marked.

    A tensor of a nest has tiles in front, unless it ends with the images: ``(B,)`` or ``(S, B)``.
    """
    tile = chosen.repeat_interleave(tiles)

    def one(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None or b is None:
            return None
        if a.ndim <= 2:
            return torch.where(chosen, a, b)
        return torch.where(tile.reshape(-1, *([1] * (a.ndim - 1))), a, b)

    if bool(chosen.all()):
        return new
    return tree_map(one, new, old)


def refine(objective: Objective, parts: list[Part], start: Candidate, steps: Steps, watch: Watch) -> Candidate:
    """The recipe's gradient steps: part by part, per image the iterate with the lowest objective."""
    refinement = _Refinement(objective, start, steps, watch)
    for part in parts:
        refinement.improve(part)
    stop, widths = objective.hierarchy.stop, refinement.log_widths
    assert stop is not None
    final = descend(objective.prior, start.guess.features, stop, values(refinement.latents))
    return Candidate(final, widths, judge(objective, parts, final, widths))


class _Refinement:
    """Where steps have got to: the latents' values and widths, what is committed, and a warm start for solves."""

    def __init__(self, objective: Objective, start: Candidate, steps: Steps, watch: Watch) -> None:
        self.objective, self.hierarchy = objective, objective.hierarchy
        self.steps, self.watch = steps, watch
        self.counts = steps_of(self.hierarchy, steps)
        self.latents, self.log_widths = list(start.guess.latents), list(start.log_widths)
        self.held = list(start.guess.contributions)
        self.offsets = start.guess.offsets if steps.variables == "offsets" else None
        self.done: Prefix = START
        self.warm: Solution | None = None

    def improve(self, part: Part) -> None:
        """Refine a part and commit it."""
        span, hierarchy = slice(part.first, part.end), self.hierarchy
        moves = any(self.counts[span])
        if part.scale is not None:
            # the guess in the refined context
            way = hierarchy.descend(posterior_mean, self.done, part.end)
            self.latents[span] = way.latents
            if moves:
                self.log_widths[span] = [node.posterior.log_std for node in way.nodes]
        if moves:
            best = self.latents[span]
            least = self._settled(part, best)
            for iterate in self._iterates(part):
                now = self._settled(part, iterate)
                best, least = pick(now < least, (iterate, now), (best, least), self.objective.tiles)
            self.latents[span] = best
        if part.scale is not None:
            self.done = hierarchy.descend(values(self.latents), self.done, part.end).done
            self.held[part.scale] = self.objective.prior.contribution(part.scale, self.done.contexts[part.scale])

    def _settled(self, part: Part, latents: list[Tensor]) -> Tensor:
        """The part's objective ``(B,)`` over the fixed draws."""

        def choose(node: Node) -> Gaussian:
            return Gaussian(latents[node.number - part.first][node.rows], self.log_widths[node.number][node.rows])

        objective, totals = self.objective, []
        held = None if part.scale is None else self.held
        for draw in objective.fixed(*part.label, base=part.first):
            found = objective.evaluate(choose, held, self.done, part.end, draw)
            totals.append(objective.term.settled(found.contributions, part.scale) + sum(found.costs))
        return torch.stack(totals).mean(0)

    def _iterates(self, part: Part) -> list[list[Tensor]]:
        """Values of the part's latents among which the best is to be found."""
        if self.steps.blocks != "latent":
            span = slice(part.first, part.end)
            starts = [Gaussian(z, w) for z, w in zip(self.latents[span], self.log_widths[span], strict=True)]
            return self._walk(part, part.blocks[0], self.done, starts)
        done, found = self.done, []
        for block in part.blocks:
            (node,) = self.hierarchy.descend(posterior_mean, done, block.stop).nodes
            q = node.posterior
            z = q.mean
            if self.counts[block.start]:
                (z,) = self._walk(part, block, done, [q])[-1]
            found.append(z)
            done = self.hierarchy.descend(values([z], block.start), done, block.stop).done
        return [found]

    def _walk(self, part: Part, block: range, done: Prefix, starts: list[Gaussian]) -> list[list[Tensor]]:
        """Iterates of the latents of a block, which follows ``done``."""
        objective, tiles = self.objective, self.objective.tiles
        held = None if part.scale is None else self.held
        moving = Variables(starts, self.offsets, [self.hierarchy.covered(self.hierarchy.scale_of[n]) for n in block])
        plan = Plan(
            moving.flat([torch.zeros_like(q.mean) for q in starts], tiles),
            [tiles * q.mean[0].numel() for q in starts],
            self.counts[block.start : block.stop],
            self.steps.size,
        )
        rule = OPTIMIZERS[self.steps.optimizer](plan)
        count = max(plan.steps)
        for step in range(count):
            variables = [v.requires_grad_(True) for v in moving.tensors(rule.trial)]
            name = None if self.steps.blocks == "scale" and part.scale is not None else block.start - part.first
            draw = objective.fresh(step, name, *part.label, base=part.first)
            with torch.enable_grad():
                choose = moving.chooser(variables, block.start)
                found = objective.evaluate(choose, held, done, part.end, draw)
                fit = objective.term.fit(found.contributions, part.scale, self.warm)
                total = fit.nats + sum(found.costs)
                gradients = torch.autograd.grad(total.sum(), variables)
            self.warm, total = fit.solution, total.detach()
            rule.tell(total, moving.flat(moving.scaled(gradients), tiles))
            self.watch.tell("step", step + 1, count, total)
        iterates = [moving.tensors(point) for point in rule.iterates]
        if self.offsets is None:
            return iterates
        return [
            objective.evaluate(moving.chooser(iterate, block.start), held, done, part.end).latents
            for iterate in iterates
        ]


class Improved(NamedTuple):
    """The best of what was tried, what it did at every scale, and whether it is better than the first guess."""

    guess: Guess
    scales: list[ScaleReport[Tensor]]
    improved: Tensor


def improve(
    problem: Problem,
    prior: Prior,
    recipe: Recipe,
    readings: tuple[Guess, Guess | None],
    stop: Tensor,
    noise: Noise,
    reported: bool,
    watch: Watch,
) -> Improved:
    """The better of first guess and further passes, and the recipe's steps from there where they pay."""
    first, again = readings
    tiles, scales, steps = problem.geometry.tiles, prior.spectrum.scales, recipe.steps
    if not (reported or recipe.takes_steps or again is not None):
        return Improved(first, [], torch.zeros(len(stop) // tiles, dtype=torch.bool, device=stop.device))
    term = data_term(problem, prior, [steps.beta_at(scale) for scale in scales])
    cost = OBJECTIVES[steps.objective if recipe.takes_steps or again is None else "map"]

    def objective(guess: Guess) -> Objective:
        return Objective(prior, Hierarchy(prior, len(stop), guess.features, stop), term, cost, noise, tiles)

    judging = objective(first)
    parts = parts_of(judging.hierarchy, steps.blocks, prior.separable)

    def candidate(guess: Guess) -> Candidate:
        widths = [q.log_std for q in guess.posteriors]
        return Candidate(guess, widths, judge(judging, parts, guess, widths))

    begin = best = candidate(first)
    if again is not None:
        best = better(best, candidate(again), tiles)
    counts = [0] * len(judging.hierarchy.layers)
    if recipe.takes_steps:
        counts = steps_of(judging.hierarchy, steps)
        best = better(best, refine(objective(best.guess), parts, best, steps, watch), tiles)
    rows: list[ScaleReport[Tensor]] = []
    if reported:
        misfit = term.misfit(best.guess.contributions)
        taken = dict(zip(judging.hierarchy.scale_of, counts, strict=True))
        before, after = begin.judgement.shares, best.judgement.shares
        rows = [
            {"scale": scale, "steps": taken[n], "before": before[n], "after": after[n], "misfit": misfit[n]}
            for n, scale in enumerate(scales)
        ]
    return Improved(best.guess, rows, lower(best.judgement.total, begin.judgement.total))
