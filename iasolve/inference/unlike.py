"""Images that are unlike a prior's: what tells them, and the warnings."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.result import Result
from iasolve.priors import Prior
from iasolve.priors.likeness import edge_share, image_elbo, ring_distance
from iasolve.priors.portions import each_portion
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import UnlikePriorWarning
from iasolve.problem.pose import Problem

__all__ = ["Negative", "below_zero", "likeness_of", "warn_signed", "warn_unlike"]


FLATTER = 0.03
"""How far the share of edges in the gradient lies beyond the validation images' before it is said."""


class Negative(NamedTuple):
    """How far an image lies below zero beyond twice its noise (root mean square), its lowest value, and that noise."""

    excess: float
    lowest: float
    sigma: float


def below_zero(piece: Measurement) -> Negative:
    """The image of a piece that lies furthest below zero."""
    y, sigma = piece.y, piece.sigma
    if y.is_complex():
        return Negative(0.0, 0.0, 0.0)
    # noise about zero has 0.7 of its level there
    excess = y.clamp_max(0).flatten(1).square().mean(1).sqrt() - 2 * sigma
    worst = int(excess.argmax())
    return Negative(float(excess[worst]), float(y[worst].min()), float(sigma[worst]))


def warn_signed(found: list[Negative], prior: Prior) -> None:
    """Images below zero, and a bound that does not know of them."""
    worst = max(found, default=Negative(0.0, 0.0, 0.0))
    if worst.excess > 0:
        warnings.warn(
            f"the measurement goes down to {worst.lowest:.3g}, further below zero than its noise of "
            f"{worst.sigma:.3g} explains, and the images of prior {prior.name!r} do not: the result is bounded "
            "to x >= 0. Add a constant to the images, or solve with nonnegative=False",
            UnlikePriorWarning,
            stacklevel=3,
        )


def likeness_of(problem: Problem, prior: Prior, estimate: Tensor, bound: bool) -> tuple[Tensor, Tensor]:
    """Evidence bound and distance of the coarse rings of an estimate, averaged over its tiles, ``(B,)`` each.

    Not a number where a reader alone has answered: the bound, which takes longer than its answer (``bound`` is False),
    and the distance of an image of another size than the prior's.
    """
    unknown = torch.full((len(estimate),), torch.nan, device=estimate.device, dtype=estimate.real.dtype)
    if not bound:
        estimate = problem.crop(estimate)
        if estimate.shape[-2:] != (prior.spectrum.size,) * 2:
            return unknown, unknown
    views = problem.geometry.cut(estimate)
    scaled = views / views.abs().square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-20)
    if not bound:
        return unknown, ring_distance(prior, scaled)
    elbo = each_portion(prior, len(scaled), lambda rows: image_elbo(prior, scaled[rows]))
    likeness, distance = (v.unflatten(0, (len(estimate), -1)).mean(1) for v in (elbo, ring_distance(prior, scaled)))
    return likeness, distance


def warn_unlike(result: Result[Tensor], prior: Prior, idle: bool) -> None:
    """Images that the prior does not fit, or whose bound or power of coarse scales is far from validation images'."""
    validation = prior.card.get("validation", {})
    likeness, distance, fits = result.likeness, result.distance, result.fits
    findings = []
    lowest = validation.get("elbo_lowest")
    # validation images are a sample: leave room beyond the most unusual of them
    if lowest is not None and float(likeness.min()) < float(lowest) - 0.5:
        findings.append(
            f"its evidence lower bound is {float(likeness.min()):.2f} nats per pixel, the lowest of the validation "
            f"images is {float(lowest):.2f}"
        )
    usual = (validation.get("coarse_rings") or {}).get("largest_distance")
    if usual is not None and float(distance.max()) > 1.25 * float(usual):
        findings.append(
            f"the power of its coarse scales lies {float(distance.max()):.1f} standard deviations off, the farthest of "
            f"the validation images {float(usual):.1f}"
        )
    numbers = f" ({'; '.join(findings)})" if findings else ""
    unfit = int((~fits).sum())
    if unfit:
        which = "the image is" if fits.numel() == 1 else f"{unfit} of {fits.numel()} images are"
        warnings.warn(
            f"{which} unlike those that prior {prior.name!r} was trained on{numbers}: the result falls back to a plain "
            "linear (Wiener) estimate, which comes closer to a part of the measurement that was kept back as a test",
            UnlikePriorWarning,
            stacklevel=3,
        )
    elif findings:
        warnings.warn(
            f"the image is unlike those that prior {prior.name!r} was trained on{numbers}. "
            "The result may be worse than a classical method's"
            + ("; steps adapt a guess to such an image: steps.count = 3, or --steps 3" if idle else ""),
            UnlikePriorWarning,
            stacklevel=3,
        )
    elif (flattest := validation.get("edge_share_largest")) is not None:
        _warn_flat(result, prior, float(flattest))


def _warn_flat(result: Result[Tensor], prior: Prior, usual: float) -> None:
    share = float(edge_share(result.image.reshape(-1, *result.image.shape[-3:])).max())
    if share > usual + FLATTER:
        warnings.warn(
            f"the image consists of flat regions, other than those that prior {prior.name!r} was trained on: "
            f"{share:.0%} of its gradient lies in a tenth of its pixels, of validation images {usual:.0%} at "
            "most. Total variation (iasolve.classical) may come closer",
            UnlikePriorWarning,
            stacklevel=4,
        )
