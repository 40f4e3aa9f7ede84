"""Layer evaluations of a prior, counted: what refinement costs on any machine."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.evidence import WienerPosterior
from iasolve.inference.memory import tile_of
from iasolve.networks import Gaussian, Reading
from iasolve.priors.prior import Layer, Prior
from iasolve.spectrum import Spectrum

__all__ = ["CountedPrior"]


class CountedPrior:
    """A prior that counts how often any of its layers is evaluated; everything else is the prior's own.

    Attributes
    ----------
    with_gradient : int
        Evaluations in gradient mode: those of refinement steps, which are also run backward.
    without_gradient : int
        All others: the guess, comparisons, committing.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.name, self.card = prior.name, prior.card
        self.with_gradient = self.without_gradient = 0
        if prior.descends:
            # what a tile takes of the memory is counted once a prior, and no part of a solution
            tile_of(self)
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.with_gradient = self.without_gradient = 0

    def count(self) -> None:
        """One evaluation more."""
        if torch.is_grad_enabled():
            self.with_gradient += 1
        else:
            self.without_gradient += 1

    def layers(self, index: int) -> list[Layer]:
        """The latent layers of scale ``index``, counting."""
        return [_CountedLayer(layer, self) for layer in self.prior.layers(index)]

    @property
    def spectrum(self) -> Spectrum:
        """See :class:`Prior`."""
        return self.prior.spectrum

    @property
    def descends(self) -> bool:
        """See :class:`iasolve.Prior`."""
        return self.prior.descends

    @property
    def mirrors(self) -> tuple[int, ...]:
        """See :class:`iasolve.Prior`."""
        return self.prior.mirrors

    @property
    def reads(self) -> bool:
        """No: what is counted is the hierarchy's work."""
        return False

    def read(self, posterior: WienerPosterior, rows: int | None = None) -> Reading:
        """See :class:`Prior`."""
        return self.prior.read(posterior, rows)

    @property
    def separable(self) -> bool:
        """See :class:`Prior`."""
        return self.prior.separable

    @property
    def nonnegative(self) -> bool:
        """See :class:`Prior`."""
        return self.prior.nonnegative

    @property
    def shift(self) -> float:
        """See :class:`Prior`."""
        return self.prior.shift

    @property
    def channels(self) -> int:
        """See :class:`Prior`."""
        return self.prior.channels

    @property
    def power(self) -> Tensor:
        """See :class:`Prior`."""
        return self.prior.power

    @property
    def sigma_x(self) -> Tensor:
        """See :class:`Prior`."""
        return self.prior.sigma_x

    @property
    def device(self) -> torch.device:
        """See :class:`Prior`."""
        return self.prior.device

    def encode(self, image: Tensor, profile: Tensor) -> list[Tensor]:
        """See :class:`Prior`."""
        return self.prior.encode(image, profile)

    def enter(self, index: int, context: Tensor | None, batch: int) -> Tensor:
        """See :class:`Prior`."""
        return self.prior.enter(index, context, batch)

    def contribution(self, index: int, context: Tensor) -> Tensor:
        """See :class:`Prior`."""
        return self.prior.contribution(index, context)

    def contributions(self, contexts: list[Tensor]) -> list[Tensor]:
        """See :class:`Prior`."""
        return self.prior.contributions(contexts)

    def assemble(self, contributions: list[Tensor]) -> Tensor:
        """See :class:`Prior`."""
        return self.prior.assemble(contributions)

    def rings(self, spectrum: Tensor) -> list[Tensor]:
        """See :class:`Prior`."""
        return self.prior.rings(spectrum)


class _CountedLayer:
    def __init__(self, layer: Layer, counter: CountedPrior) -> None:
        self.layer, self.counter = layer, counter

    def prior(self, context: Tensor) -> tuple[Gaussian, Tensor]:
        return self.layer.prior(context)

    def posterior(self, context: Tensor, evidence: Tensor, prior: Gaussian) -> Gaussian:
        return self.layer.posterior(context, evidence, prior)

    def update(self, context: Tensor, z: Tensor, feature: Tensor) -> Tensor:
        # a layer is evaluated once its latent is known and the context goes on
        self.counter.count()
        return self.layer.update(context, z, feature)
