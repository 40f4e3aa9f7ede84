"""The objective of latents: how well their image fits the measurement, and what they cost.

``J = beta * data + cost``, per image, in nats. ``variational``: the latents are ``z = m + sigma_q e`` and the cost is
``KL(N(m, sigma_q) || p)``, terms of the ELBO of ``y``. ``map``: ``z = m`` and the cost is ``-log p(m | context)``.
``expected``: ``z = m`` too, and the cost is ``-E log p(z | context)`` over the posterior's width, which, unlike
``map``, pays nothing for a context whose prior is narrower than that. Descent is on *minus* the log prior; the paper's
eq. (7) as printed has the other sign.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.networks import Gaussian, kl_divergence
from iasolve.priors import Prior
from iasolve.priors.hierarchy import START, Hierarchy, Node, Prefix
from iasolve.priors.portions import each_portion
from iasolve.problem.likelihood import Likelihood, Solution, Value
from iasolve.problem.pose import Problem
from iasolve.spectrum import Spectrum

__all__ = [
    "OBJECTIVES",
    "Cost",
    "DataTerm",
    "Drawn",
    "Evaluation",
    "ImageTerm",
    "Noise",
    "Objective",
    "RingTerm",
    "data_term",
]


class Noise:
    """Standard normal draws that depend on a seed and a label only, never on the batch.

    The same values serve every image of a batch, so an image's result does not depend on its neighbours.
    """

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self.seed, self.device, self.dtype = seed, device, dtype

    def __call__(self, shape: tuple[int, ...], *label: int | str | None) -> Tensor:
        """Values of ``(1, *shape)``."""
        text = "/".join(map(str, (self.seed, *label)))
        digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
        generator = torch.Generator().manual_seed(digest)
        values = torch.randn((1, *shape), generator=generator, dtype=torch.float32)
        return values.to(device=self.device, dtype=self.dtype)


class DataTerm(Protocol):
    """How badly contributions ``(B * T, C, n_s)`` of all scales fit the measurement, weighted by ``beta``."""

    def fit(self, contributions: list[Tensor], scale: int | None = None, start: Solution | None = None) -> Value:
        """Nats ``(B,)``, differentiable: of all contributions, or what one scale of index ``scale`` answers for."""

    def settled(self, contributions: list[Tensor], scale: int | None = None) -> Tensor:
        """The same ``(B,)``, exact enough for comparisons."""

    def shares(self, contributions: list[Tensor]) -> Tensor:
        """Every scale's share of the whole, ``(S, B)``."""

    def misfit(self, contributions: list[Tensor]) -> Tensor:
        """Root mean square residual against what noise and decoder explain, ``(S, B)``: about 1."""


class RingTerm:
    """One tile, the image itself, and a diagonal operator: a ring's data term needs that ring only.

    Parameters
    ----------
    values, variances : list of Tensor
        Folded measurement per ring, ``(B, C, n_s)``, in the (half) layout of the contributions.
    sigma_x : Tensor
        ``(C, S)``.
    spectrum : Spectrum
        Of the prior.
    weights : list of Tensor
        How many full-grid bins each stored bin stands for, ``(n_s,)``.
    betas : list of float
    """

    def __init__(
        self,
        values: list[Tensor],
        variances: list[Tensor],
        sigma_x: Tensor,
        spectrum: Spectrum,
        weights: list[Tensor],
        betas: Sequence[float],
    ) -> None:
        self.values, self.weights, self.betas = values, weights, betas
        self.precision = [1 / (v + sigma_x[:, i, None].square()) for i, v in enumerate(variances)]
        self.factor = 1.0 if spectrum.is_complex else 0.5

    def ring(self, index: int, contribution: Tensor) -> Tensor:
        """Nats ``(B,)`` of one ring, unweighted."""
        r = contribution - self.values[index]
        squared = r.real.square() + r.imag.square()
        return self.factor * (squared * self.precision[index] * self.weights[index]).flatten(1).sum(1)

    def fit(self, contributions: list[Tensor], scale: int | None = None, start: Solution | None = None) -> Value:
        """See :class:`DataTerm`."""
        return Value(self.settled(contributions, scale), None)

    def settled(self, contributions: list[Tensor], scale: int | None = None) -> Tensor:
        """See :class:`DataTerm`."""
        if scale is not None:
            return self.betas[scale] * self.ring(scale, contributions[scale])
        return self.shares(contributions).sum(0)

    def shares(self, contributions: list[Tensor]) -> Tensor:
        """Each ring's own."""
        return torch.stack(
            [b * self.ring(i, h) for i, (h, b) in enumerate(zip(contributions, self.betas, strict=True))]
        )

    def misfit(self, contributions: list[Tensor]) -> Tensor:
        """Each ring's own."""
        out = []
        for index, contribution in enumerate(contributions):
            r = contribution - self.values[index]
            measured = ((self.precision[index] > 0) * self.weights[index]).flatten(1).sum(1).clamp_min(1)
            squared = (r.real.square() + r.imag.square()) * self.precision[index] * self.weights[index]
            out.append((squared.flatten(1).sum(1) / measured).sqrt())
        return torch.stack(out)


class ImageTerm:
    """Any geometry and operator: the likelihood judges the image, which does not divide among scales.

    The weight of the whole is the mean ``beta``.

    Parameters
    ----------
    image : callable
        From contributions to the image ``(B, C, H, W)``.
    likelihood : Likelihood
    variance : Tensor
        ``V`` on the image grid, ``(C, H, W)``.
    betas : list of float
    """

    def __init__(
        self,
        image: Callable[[list[Tensor]], Tensor],
        likelihood: Likelihood,
        variance: Tensor,
        betas: Sequence[float],
    ) -> None:
        self.image, self.likelihood, self.variance, self.betas = image, likelihood, variance, betas

    def _beta(self, scale: int | None) -> float:
        return sum(self.betas) / len(self.betas) if scale is None else self.betas[scale]

    def fit(self, contributions: list[Tensor], scale: int | None = None, start: Solution | None = None) -> Value:
        """Of the image, other contributions as they are."""
        value = self.likelihood.value(self.image(contributions), self.variance, start)
        return Value(self._beta(scale) * value.nats, value.solution)

    def settled(self, contributions: list[Tensor], scale: int | None = None) -> Tensor:
        """See :class:`DataTerm`."""
        return self._beta(scale) * self.likelihood.settled(self.image(contributions), self.variance)

    def shares(self, contributions: list[Tensor]) -> Tensor:
        """Equal ones."""
        count = len(contributions)
        return (self.settled(contributions) / count).expand(count, -1)

    def misfit(self, contributions: list[Tensor]) -> Tensor:
        """That of the image, at every scale."""
        whole = self.likelihood.misfit(self.image(contributions), self.variance)
        return whole.expand(len(contributions), -1)


def data_term(problem: Problem, prior: Prior, betas: Sequence[float]) -> DataTerm:
    """Ring by ring where rings do not touch, else by the image."""
    if problem.folded is None:
        return ImageTerm(lambda h: problem.decode(prior, h), problem.likelihood, problem.variance, betas)
    spectrum, folded = prior.spectrum, problem.folded
    return RingTerm(
        prior.rings(spectrum.half(folded.value)),
        prior.rings(spectrum.half(folded.variance)),
        prior.sigma_x,
        spectrum,
        prior.rings(spectrum.weight.to(prior.device, folded.variance.dtype)),
        betas,
    )


def _at_point(q: Gaussian, p: Gaussian) -> Tensor:
    return 0.5 * (q.mean - p.mean).square() * (-2 * p.log_std).exp() + p.log_std


def _expected(q: Gaussian, p: Gaussian) -> Tensor:
    squared = (q.mean - p.mean).square() + (2 * q.log_std).exp()
    return 0.5 * squared * (-2 * p.log_std).exp() + p.log_std


class Cost(NamedTuple):
    """What a latent costs.

    ``of(q, p)``: element by element, of a point without the constant of ``log p``; ``draws``: whether latents are drawn
    about their means.
    """

    of: Callable[[Gaussian, Gaussian], Tensor]
    draws: bool = False


OBJECTIVES = {"expected": Cost(_expected), "map": Cost(_at_point), "variational": Cost(kl_divergence, draws=True)}
"""By the name that recipes give them; see the module. A new one is an entry."""


Drawn = Callable[[Node, Tensor], Tensor] | None
"""Standard normal values for a latent, from its node and mean; None: latents are at their means."""


class Evaluation(NamedTuple):
    """A part of the way down: its latents, their costs ``(B,)``, and every scale's contribution after it."""

    latents: list[Tensor]
    costs: list[Tensor]
    contributions: list[Tensor]


class Objective:
    """The objective of all latents, or of a part of the way down.

    Parameters
    ----------
    prior : Prior
    hierarchy : Hierarchy
    term : DataTerm
    cost : Cost
        Of a latent.
    noise : Noise
        Source of the draws ``e``.
    tiles : int
        Tiles per image.
    """

    fixed_draws = 2
    """Draws over which variational objectives are compared; every second one is the negative of the one before."""

    def __init__(
        self, prior: Prior, hierarchy: Hierarchy, term: DataTerm, cost: Cost, noise: Noise, tiles: int
    ) -> None:
        self.prior, self.hierarchy, self.term = prior, hierarchy, term
        self._cost, self.noise, self.tiles = cost, noise, tiles

    @property
    def draws(self) -> bool:
        """Whether latents are drawn about their means."""
        return self._cost.draws

    def evaluate(
        self,
        choose: Callable[[Node], Gaussian],
        held: list[Tensor] | None = None,
        start: Prefix = START,
        end: int | None = None,
        draw: Drawn = None,
    ) -> Evaluation:
        """Go down from ``start`` to ``end`` with the posteriors that ``choose`` gives.

        Parameters
        ----------
        choose : callable
        held : list of Tensor, optional
            Contributions of the scales that this part of a separable prior does not complete; None: it goes to the end,
            and makes all of them.
        start : Prefix
        end : int, optional
        draw : Drawn
        """

        def of(rows: slice) -> tuple[list[Tensor], list[Tensor], dict[int, Tensor]]:
            posteriors: list[Gaussian] = []

            def value(node: Node) -> Tensor:
                q = choose(node)
                posteriors.append(q)
                return q.mean if draw is None else q.mean + q.std * draw(node, q.mean)

            way = self.hierarchy.of(rows).descend(value, start.of(rows), end)
            costs = [self._of_tiles(q, node.prior) for q, node in zip(posteriors, way.nodes, strict=True)]
            if held is None:
                made = dict(enumerate(self.prior.contributions(list(way.done.contexts))))
            else:
                scales = sorted({node.scale for node in way.nodes})
                made = {scale: self.prior.contribution(scale, way.done.contexts[scale]) for scale in scales}
            return way.latents, costs, made

        latents, costs, made = each_portion(self.prior, self.hierarchy.batch, of)
        contributions = [made.get(scale, other) for scale, other in enumerate(held or made.values())]
        return Evaluation(latents, [self._of_images(cost) for cost in costs], contributions)

    def cost(self, q: Gaussian, p: Gaussian) -> Tensor:
        """What a latent costs, ``(B,)``."""
        return self._of_images(self._of_tiles(q, p))

    def _of_tiles(self, q: Gaussian, p: Gaussian) -> Tensor:
        return self._cost.of(q, p).flatten(1).sum(1)

    def _of_images(self, cost: Tensor) -> Tensor:
        return cost.unflatten(0, (-1, self.tiles)).sum(1) if self.tiles > 1 else cost

    def fixed(self, *label: int, base: int = 0) -> list[Drawn]:
        """Antithetic draws, the same for every comparison; a point needs none.

        ``label`` names them, and so does a latent's number from ``base``.
        """
        if not self.draws:
            return [None]
        pairs = range(self.fixed_draws // 2)
        return [self._drawn(sign, base, "fixed", k, *label) for k in pairs for sign in (1, -1)]

    def fresh(self, *label: int | None, base: int = 0) -> Drawn:
        """A step's own draws; a point needs none."""
        return self._drawn(1, base, "step", *label) if self.draws else None

    def _drawn(self, sign: int, base: int, *label: int | str | None) -> Callable[[Node, Tensor], Tensor]:
        return lambda node, mean: sign * self.noise(tuple(mean.shape[1:]), *label, node.number - base)
