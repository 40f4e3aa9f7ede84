"""The way down a hierarchy: every latent in its context, coarse to fine.

Training, the bound, the guess, refinement and samples differ only in the value that they take for a latent. They say
which, and :meth:`Hierarchy.descend` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.networks import Gaussian
from iasolve.priors.prior import Layer
from iasolve.spectrum import Spectrum

__all__ = ["START", "Choice", "Descent", "Hierarchy", "Node", "Prefix", "Trunk", "posterior_mean", "values"]


class Trunk(Protocol):
    """What the way down needs of a prior, or of a network in training."""

    @property
    def spectrum(self) -> Spectrum:
        """Whose scales they are."""

    def enter(self, index: int, context: Tensor | None, batch: int) -> Tensor:
        """The context at the start of scale ``index``."""

    def layers(self, index: int) -> Sequence[Layer]:
        """The latent layers of scale ``index``."""


class Node:
    """One latent in the context at hand.

    Attributes
    ----------
    number : int
        Of the latent, coarse to fine, from 0.
    scale : int
        Index of its scale.
    layer : Layer
    context : Tensor
        Before the latent.
    prior : Gaussian
        ``p(z | context)``.
    feature : Tensor
        What the prior adds to the context.
    rows : slice
        Which tiles of all these are.
    """

    def __init__(self, number: int, scale: int, layer: Layer, context: Tensor, hierarchy: Hierarchy) -> None:
        self.number, self.scale, self.layer, self.context = number, scale, layer, context
        self.evidence = None if hierarchy.features is None else hierarchy.features[scale]
        self.covered, self.rows = hierarchy.covered(scale), hierarchy.rows
        self.prior, self.feature = layer.prior(context)

    @cached_property
    def posterior(self) -> Gaussian:
        """``q(z | context, evidence)``, evaluated when asked for; the prior without encoder or beyond the guess."""
        p = self.prior
        if self.evidence is None:
            return p
        q = self.layer.posterior(self.context, self.evidence, p)
        if self.covered is None:
            return q
        return Gaussian(torch.where(self.covered, q.mean, p.mean), torch.where(self.covered, q.log_std, p.log_std))


class Prefix(NamedTuple):
    """The part of the way down that is done.

    ``latents``: how many have their values; ``context`` after them; ``contexts`` after every complete scale.
    """

    latents: int = 0
    context: Tensor | None = None
    contexts: tuple[Tensor, ...] = ()

    def of(self, rows: slice) -> Prefix:
        """That of some tiles."""
        context = None if self.context is None else self.context[rows]
        return Prefix(self.latents, context, tuple(c[rows] for c in self.contexts))


START = Prefix()
"""Nothing done yet."""


class Descent(NamedTuple):
    """A way down, or a part of one: its nodes, their latents' values ``(B, z, g, g)``, and what is done after it."""

    nodes: list[Node]
    latents: list[Tensor]
    done: Prefix

    @property
    def offsets(self) -> list[Tensor]:
        """What each latent lies off its posterior's mean, in that posterior's standard deviations."""
        nodes = zip(self.latents, (node.posterior for node in self.nodes), strict=True)
        return [(z - q.mean) / q.std for z, q in nodes]


Choice = Callable[[Node], Tensor]
"""The value of a latent."""


def posterior_mean(node: Node) -> Tensor:
    """The choice of the amortized guess."""
    return node.posterior.mean


def values(latents: Sequence[Tensor], first: int = 0) -> Choice:
    """Known values of the latents from ``first`` on."""
    return lambda node: latents[node.number - first][node.rows]


class Hierarchy:
    """All latents as one list, coarse to fine, with what the encoder read.

    Parameters
    ----------
    trunk : Trunk
        A prior, or a network in training.
    batch : int
        Images or tiles.
    features : list of Tensor, optional
        The encoder's, per scale; without them the posterior is the prior.
    stop : Tensor, optional
        ``(batch,)`` index of the finest scale that the encoder's guess covers; all scales by default.
    rows : slice
        Which tiles of all these are; all by default.
    """

    def __init__(
        self,
        trunk: Trunk,
        batch: int,
        features: Sequence[Tensor] | None = None,
        stop: Tensor | None = None,
        rows: slice = slice(None),
    ) -> None:
        self.trunk, self.batch, self.features, self.stop, self.rows = trunk, batch, features, stop, rows
        self.layers = [(index, layer) for index in range(len(trunk.spectrum.scales)) for layer in trunk.layers(index)]
        self.scale_of = [index for index, _ in self.layers]

    def of(self, rows: slice) -> Hierarchy:
        """The same of some tiles alone."""
        features = None if self.features is None else [feature[rows] for feature in self.features]
        stop = None if self.stop is None else self.stop[rows]
        return Hierarchy(self.trunk, len(range(self.batch)[rows]), features, stop, rows)

    def covered(self, scale: int) -> Tensor | None:
        """Which images' guess covers a scale, ``(batch, 1, 1, 1)``; None: all."""
        return None if self.stop is None else (self.stop >= scale).reshape(-1, 1, 1, 1)

    def ends_scale(self, number: int) -> bool:
        """Whether a latent is the last of its scale."""
        return number + 1 == len(self.layers) or self.scale_of[number + 1] != self.scale_of[number]

    def descend(self, choose: Choice, start: Prefix = START, end: int | None = None) -> Descent:
        """Go down from ``start`` to latent ``end`` (not included; to the last one by default).

        Parameters
        ----------
        choose : callable
            The value of each latent, from its node.
        start : Prefix
        end : int, optional
        """
        context, contexts = start.context, list(start.contexts)
        nodes: list[Node] = []
        latents: list[Tensor] = []
        for number in range(start.latents, len(self.layers) if end is None else end):
            scale, layer = self.layers[number]
            if number == 0 or self.ends_scale(number - 1):
                context = self.trunk.enter(scale, context, self.batch)
            assert context is not None
            node = Node(number, scale, layer, context, self)
            z = choose(node)
            context = layer.update(context, z, node.feature)
            nodes.append(node)
            latents.append(z)
            if self.ends_scale(number):
                contexts.append(context)
        return Descent(nodes, latents, Prefix(start.latents + len(latents), context, tuple(contexts)))
