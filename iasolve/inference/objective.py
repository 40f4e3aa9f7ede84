"""The objective of one scale: how well its contribution fits the measurement, and what its latents cost.

``J = beta * data(h_s) + cost``, per image. ``variational``: the latents are ``z = m + sigma_q e`` and the cost is
``KL(N(m, sigma_q) || p)``, this scale's terms of the ELBO of ``y``. ``map``: ``z = m`` and the cost is
``-log p(m | context)``. ``expected``: ``z = m`` too, and the cost is ``-E log p(z | context)`` over the posterior's
width, which, unlike ``map``, pays nothing for a context whose prior is narrower than that. Descent is on *minus* the
log prior; the paper's eq. (7) as printed has the other sign.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.inference.data import DataModel
from iasolve.inference.geometry import Geometry
from iasolve.networks import Gaussian, kl_divergence
from iasolve.priors import Prior
from iasolve.priors.prior import Layer

__all__ = [
    "DataTerm",
    "ImageTerm",
    "RingTerm",
    "ScaleValue",
    "UnjudgedTerm",
    "complete",
    "evaluate_scale",
    "point_cost",
]


class DataTerm(Protocol):
    """Data term of a scale's contribution, other contributions held at their current values."""

    def __call__(self, index: int, contribution: Tensor) -> Tensor:
        """``(B,)`` per image, differentiable in ``contribution`` ``(B * T, C, n_s)``."""

    def settled(self, index: int, contribution: Tensor) -> Tensor:
        """The same value for comparisons: independent of earlier calls."""

    def total(self, contributions: list[Tensor], betas: list[float]) -> Tensor:
        """Weighted data term of all contributions together, ``(B,)``."""

    def commit(self, index: int, contribution: Tensor) -> None:
        """Make a contribution current."""

    def misfit(self, index: int, contribution: Tensor) -> Tensor:
        """Root mean square residual against what noise and decoder explain, ``(B,)``: about 1."""


class RingTerm:
    """Direct geometry and diagonal operator: a ring's data term needs that ring only.

    Parameters
    ----------
    values, variances : list of Tensor
        Folded measurement per ring, ``(B, C, n_s)``, in the (half) layout of the contributions.
    sigma_x : Tensor
        ``(C, S)``.
    weights : list of Tensor
        How many full-grid bins each stored bin stands for, ``(n_s,)``.
    is_complex : bool
    loss : {"likelihood", "l1"}
    """

    def __init__(
        self,
        values: list[Tensor],
        variances: list[Tensor],
        sigma_x: Tensor,
        weights: list[Tensor],
        is_complex: bool,
        loss: str,
    ) -> None:
        self.values, self.weights, self.loss = values, weights, loss
        factor = 1.0 if is_complex else 0.5
        self.precision = [1 / (v + sigma_x[:, i, None].square()) for i, v in enumerate(variances)]
        self.factor = factor

    def __call__(self, index: int, contribution: Tensor) -> Tensor:
        """See :class:`DataTerm`."""
        r = contribution - self.values[index]
        if self.loss == "l1":
            measured = self.precision[index] > 0
            return ((r.real.abs() + r.imag.abs()) * measured * self.weights[index]).flatten(1).sum(1)
        squared = r.real.square() + r.imag.square()
        return self.factor * (squared * self.precision[index] * self.weights[index]).flatten(1).sum(1)

    def settled(self, index: int, contribution: Tensor) -> Tensor:
        """The same."""
        return self(index, contribution)

    def total(self, contributions: list[Tensor], betas: list[float]) -> Tensor:
        """Sum over rings."""
        return torch.stack([b * self(i, h) for i, (h, b) in enumerate(zip(contributions, betas, strict=True))]).sum(0)

    def commit(self, index: int, contribution: Tensor) -> None:
        """Nothing to do: rings do not touch."""

    def misfit(self, index: int, contribution: Tensor) -> Tensor:
        """See :class:`DataTerm`."""
        r = contribution - self.values[index]
        measured = ((self.precision[index] > 0) * self.weights[index]).flatten(1).sum(1).clamp_min(1)
        squared = (r.real.square() + r.imag.square()) * self.precision[index] * self.weights[index]
        return (squared.flatten(1).sum(1) / measured).sqrt()


class ImageTerm:
    """Any geometry and operator: the contribution is put into the image, and the data model judges the image.

    Parameters
    ----------
    prior : Prior
    geometry : Geometry
    data : DataModel
    variance : Tensor
        ``V`` on the image grid, ``(C, H, W)``.
    contributions : list of Tensor
        The guess's, per scale; held where not being refined.
    """

    def __init__(
        self, prior: Prior, geometry: Geometry, data: DataModel, variance: Tensor, contributions: list[Tensor]
    ) -> None:
        self.prior, self.geometry, self.data, self.variance = prior, geometry, data, variance
        self.current = list(contributions)

    def image(self, index: int, contribution: Tensor) -> Tensor:
        """The image with one scale's contribution exchanged."""
        parts = list(self.current)
        parts[index] = contribution
        return self.geometry.image(self.prior.spectrum.inverse(self.prior.assemble(parts)))

    def __call__(self, index: int, contribution: Tensor) -> Tensor:
        """See :class:`DataTerm`."""
        return self.data.term(self.image(index, contribution), self.variance)

    def settled(self, index: int, contribution: Tensor) -> Tensor:
        """See :class:`DataTerm`."""
        return self.data.settled(self.image(index, contribution), self.variance)

    def total(self, contributions: list[Tensor], betas: list[float]) -> Tensor:
        """Of the whole image, once, with the mean weight: its data term does not divide among scales."""
        image = self.geometry.image(self.prior.spectrum.inverse(self.prior.assemble(contributions)))
        return sum(betas) / len(betas) * self.data.settled(image, self.variance)

    def commit(self, index: int, contribution: Tensor) -> None:
        """Make a contribution current."""
        self.current[index] = contribution

    def misfit(self, index: int, contribution: Tensor) -> Tensor:
        """Of the whole image."""
        return self.data.misfit(self.image(index, contribution), self.variance)


class UnjudgedTerm(ImageTerm):
    """An image's data term where no scale is refined: totals are judged, single scales are not.

    Each judgement of a scale would be a solve for the whole image, and nothing to compare it with.
    """

    _misfit: Tensor | None = None

    def settled(self, index: int, contribution: Tensor) -> Tensor:
        """Nothing."""
        return contribution.real.new_zeros(len(contribution) // self.geometry.tiles)

    def misfit(self, index: int, contribution: Tensor) -> Tensor:
        """Of the whole image, the same at every scale: nothing changes on the way down."""
        if self._misfit is None:
            self._misfit = super().misfit(index, contribution)
        return self._misfit


class ScaleValue(NamedTuple):
    """``total`` and ``cost`` ``(B,)``, and the contribution ``(B * T, C, n_s)``."""

    total: Tensor
    contribution: Tensor
    cost: Tensor


def complete(
    layer: Layer, context: Tensor, evidence: Tensor | None, p: Gaussian, covered: Tensor | None = None
) -> Gaussian:
    """A latent that is not refined: its posterior, or its prior without encoder or beyond the guess stop."""
    if evidence is None:
        return p
    q = layer.posterior(context, evidence, p)
    if covered is None:
        return q
    return Gaussian(torch.where(covered, q.mean, p.mean), torch.where(covered, q.log_std, p.log_std))


def point_cost(q: Gaussian, p: Gaussian, widths: bool) -> Tensor:
    """``-log p`` at the mean of ``q``, without its constant; with ``widths``, its expectation over ``q``."""
    squared = (q.mean - p.mean).square()
    if widths:
        squared = squared + (2 * q.log_std).exp()
    return 0.5 * squared * (-2 * p.log_std).exp() + p.log_std


def evaluate_scale(
    prior: Prior,
    index: int,
    context: Tensor,
    means: list[Tensor],
    stds: list[Tensor],
    draws: list[Tensor] | None,
    data: DataTerm,
    beta: float,
    tiles: int,
    *,
    widths: bool = False,
    first: int = 0,
    complete_after: int | None = None,
    features: list[Tensor] | None = None,
    covered: Tensor | None = None,
    settled: bool = False,
) -> ScaleValue:
    """Objective of a scale, its cost alone, and its contribution.

    ``draws`` are standard normal values per layer (variational) or None (a point; ``widths`` as in
    :func:`point_cost`). With ``complete_after``, latents of
    later layers are not taken from ``means`` but completed in the context at hand: from the posterior where there
    are encoder ``features``, else from the prior (the paper's inner loop). With ``first``, the layers before it are
    skipped: ``context`` is the one after them, and their cost, which does not depend on what follows, is left out.
    """
    cost: Tensor | None = None
    for number, layer in list(enumerate(prior.layers(index)))[first:]:
        p, feature = layer.prior(context)
        q = Gaussian(means[number], stds[number].log())
        if complete_after is not None and number > complete_after:
            q = complete(layer, context, None if features is None else features[index], p, covered)
        if draws is None:
            z = q.mean
            part = point_cost(q, p, widths)
        else:
            z = q.mean + q.std * draws[number]
            part = kl_divergence(q, p)
        summed = part.flatten(1).sum(1)
        cost = summed if cost is None else cost + summed
        context = layer.update(context, z, feature)
    contribution = prior.contribution(index, context)
    assert cost is not None
    cost = cost.unflatten(0, (-1, tiles)).sum(1) if tiles > 1 else cost
    fit = data.settled(index, contribution) if settled else data(index, contribution)
    return ScaleValue(beta * fit + cost, contribution, cost)
