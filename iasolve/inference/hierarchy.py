"""All latents of a prior as one list, and its objective from any of them on: what whole-hierarchy refinement asks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.objective import complete, point_cost
from iasolve.networks import Gaussian, kl_divergence
from iasolve.priors import Prior

__all__ = ["START", "Hierarchy", "Prefix", "Value"]


class Prefix(NamedTuple):
    """The layers before latent ``first``, evaluated and kept.

    ``contexts``: after the last layer of every scale that is complete; ``context``: after layer ``first - 1``.
    """

    first: int
    contexts: tuple[Tensor, ...]
    context: Tensor | None


START = Prefix(0, (), None)
"""Nothing evaluated yet."""


class Value(NamedTuple):
    """``costs``, of each scale's latents, ``(B * T,)``, every scale's ``contributions``, and the latents' ``means``."""

    costs: list[Tensor]
    contributions: list[Tensor]
    means: list[Tensor]


class Hierarchy:
    """All latents of a prior as one list, coarse to fine, numbered ``0 .. L - 1``.

    Parameters
    ----------
    prior : Prior
    features : list of Tensor, optional
        The encoder's, per scale.
    stop : Tensor
        ``(B * T,)`` index of the finest scale that the guess covers.
    widths : bool
        Count the widths of the latents' posteriors into the cost of a point (``expected``).
    """

    def __init__(self, prior: Prior, features: list[Tensor] | None, stop: Tensor, widths: bool = False) -> None:
        self.prior, self.features, self.stop, self.widths = prior, features, stop, widths
        self.scales = len(prior.spectrum.scales)
        self.layers = [(index, layer) for index in range(self.scales) for layer in prior.layers(index)]
        self.scale_of = [index for index, _ in self.layers]

    def covered(self, number: int) -> Tensor:
        """Which tiles' guess covers a latent, ``(B * T, 1, 1, 1)``."""
        return (self.stop >= self.scale_of[number]).reshape(-1, 1, 1, 1)

    def enter(self, number: int, context: Tensor | None) -> Tensor:
        """The context that latent ``number`` sees, from the one after the layer before."""
        index = self.scale_of[number]
        if number and self.scale_of[number - 1] == index:
            assert context is not None
            return context
        return self.prior.enter(index, context, len(self.stop))

    def posterior(self, number: int, context: Tensor, p: Gaussian) -> Gaussian:
        """The guess for a latent in a context."""
        evidence = None if self.features is None else self.features[self.scale_of[number]]
        return complete(self.layers[number][1], context, evidence, p, self.covered(number))

    def advance(self, prefix: Prefix, z: Tensor) -> Prefix:
        """The prefix that is one latent longer."""
        number = prefix.first
        context = self.enter(number, prefix.context)
        layer = self.layers[number][1]
        _, feature = layer.prior(context)
        context = layer.update(context, z, feature)
        last = number + 1 == len(self.layers) or self.scale_of[number + 1] != self.scale_of[number]
        return Prefix(number + 1, (*prefix.contexts, context) if last else prefix.contexts, context)

    def evaluate(
        self,
        prefix: Prefix,
        latents: list[Gaussian],
        draws: list[Tensor] | None,
        offsets: list[Tensor] | None = None,
    ) -> Value:
        """Costs and contributions of the hierarchy from ``prefix`` on.

        Parameters
        ----------
        prefix : Prefix
            The costs of its latents are left out: they do not depend on what follows.
        latents : list of Gaussian
            Of the latents from ``prefix.first`` on; those that the list does not reach are completed.
        draws : list of Tensor, optional
            Standard normal values for each latent from ``prefix.first`` on (variational); None for a point.
        offsets : list of Tensor, optional
            Of each of the latents: what its mean lies off the posterior in the context at hand, in that posterior's
            standard deviations. It takes the place of the means of ``latents``, whose widths stay.
        """
        context, contexts = prefix.context, list(prefix.contexts)
        means: list[Tensor] = []
        costs = [torch.zeros(len(self.stop), device=self.stop.device, dtype=self.prior.power.dtype)] * self.scales
        for number in range(prefix.first, len(self.layers)):
            index, layer = self.layers[number]
            context = self.enter(number, context)
            p, feature = layer.prior(context)
            place = number - prefix.first
            q = latents[place] if place < len(latents) else self.posterior(number, context, p)
            if offsets is not None and place < len(latents):
                here = self.posterior(number, context, p)
                q = Gaussian(here.mean + here.std * offsets[place], q.log_std)
            means.append(q.mean)
            if draws is None:
                z, cost = q.mean, point_cost(q, p, self.widths)
            else:
                z, cost = q.mean + q.std * draws[place], kl_divergence(q, p)
            costs[index] = costs[index] + cost.flatten(1).sum(1)
            context = layer.update(context, z, feature)
            if number + 1 == len(self.layers) or self.scale_of[number + 1] != index:
                contexts.append(context)
        return Value(costs, self.prior.contributions(contexts), means)
