"""Images that are unlike a prior's: what tells them, and the warnings."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.result import Result
from iasolve.noise_level.residual import residual_of
from iasolve.priors import Prior
from iasolve.priors.likeness import edge_share, image_elbo, level_share, ring_distance
from iasolve.priors.portions import each_portion
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import UnlikePriorWarning
from iasolve.problem.pose import Problem

__all__ = ["Negative", "below_zero", "likeness_of", "structureless", "warn_signed", "warn_unlike"]


FLATTER = 0.1
"""How far the share of edges in the gradient lies beyond the validation images' before it is said: denoising smoothes.
Of 27 photographs at noise 10 to 50 the largest was 0.66, of the validation images as they are 0.59."""

SURPLUS = 4.0
"""Squared error over the expected one from which on it is said; of 64 measurements of validation images at most 2.2."""

WEIGHT = 0.75
"""Of the prior's answer beside the linear estimate's, below which it is said."""

VARIATION = 0.7
"""Squared error of total variation over the prior's, at the part kept back, below which it is said. Of 13 validation
scans at 4x lines none is below 1.2; of 72 kinds of strange images ten are below 0.7, and total variation is ahead in
eight of them."""

FEW_GREYS = 0.9
"""Share of an object's pixels in two greys from which on it is said; of 290 validation scans and photographs 0.78."""


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


def structureless(piece: Measurement) -> bool:
    """Whether each image of a piece may be a constant for all that can be seen through the noise.

    What the best constant (of each channel) leaves of the measurement has the power of noise, within three standard
    deviations of that, less than twice that in the coarsest band, and no value that noise reaches so seldom as once in
    thirty such measurements.
    """
    operator, y = piece.operator, piece.y
    channels, dtype = operator.in_shape[0], operator.in_dtype
    basis = torch.eye(channels, dtype=dtype, device=y.device)[..., None, None].expand(-1, *operator.in_shape)
    seen = operator(basis.contiguous()).to(y.dtype)
    columns, rows = seen.flatten(1), y.flatten(1)
    gram, told = columns.conj() @ columns.T, columns.conj() @ rows.T
    if not operator.is_complex:
        gram, told = gram.real, told.real
    level = torch.linalg.lstsq(gram, told).solution
    highest = (rows.T - columns.T @ level.to(y.dtype)).abs().amax(0) / piece.sigma
    # of n values of white noise the largest is about sqrt(2 ln n); of complex ones, over their rms, sqrt(ln n)
    # entries that are exactly 0 were not measured
    counted = max(2, int((rows != 0).sum(1).min()))
    values = counted * (2 if y.is_complex() else 1)
    expected = math.sqrt(math.log(counted) * (1 if y.is_complex() else 2))
    if not bool((highest < expected + 0.7).all()):
        return False  # as of nearly all measurements, and nothing more needs to be computed of them
    constant = level.T.to(dtype)[..., None, None].expand(-1, *operator.in_shape)
    left = residual_of(y, operator, constant, piece.sigma)
    like_noise = left["whole"].square() < 1 + 3 * math.sqrt(2 / values)
    if left["bands"].shape[-1]:
        like_noise &= ~(left["bands"][:, 0].square() > 2)
    return bool(like_noise.all())


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


def warn_unlike(result: Result[Tensor], prior: Prior, *, idle: bool, blank: bool) -> None:
    """What speaks against a result; of several findings the first.

    Images that the prior does not fit, or whose bound or power of coarse scales is far from validation images';
    measurements in which nothing but a constant is seen (``blank``); images of flat regions. ``idle``: no steps were
    taken.
    """
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
    largest = float(result.surplus.max())
    if largest > SURPLUS:
        findings.append(
            f"its squared error at a part of the measurement that was kept back is {largest:.1f} times what the prior "
            "expects, which the error bar takes into account"
        )
    least = float(result.weight.where(fits, 1.0).min())
    if least < WEIGHT:
        findings.append(
            "a part of the measurement that was kept back speaks for a linear (Wiener) estimate beside the prior's "
            f"answer: it makes up {1 - least:.0%} of the result"
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
    elif blank:
        warnings.warn(
            "the measurement holds nothing but a constant and its noise, as far as can be seen: what the result shows "
            "of structure is the prior's. If there should be more, check the noise level",
            UnlikePriorWarning,
            stacklevel=3,
        )
    elif (flatter := float(result.variation.nan_to_num(torch.inf).min())) < VARIATION:
        warnings.warn(
            f"the image has flatter regions than those that prior {prior.name!r} was trained on: total variation "
            "(iasolve.classical) comes closer to a part of the measurement that was kept back as a test, with "
            f"{flatter:.2f} of the prior's squared error",
            UnlikePriorWarning,
            stacklevel=3,
        )
    elif (flattest := validation.get("edge_share_largest")) is not None:
        _warn_flat(result, prior, float(flattest), float(validation.get("level_share_largest", 0)))


def _warn_flat(result: Result[Tensor], prior: Prior, usual: float, usual_greys: float) -> None:
    images = result.image.reshape(-1, *result.image.shape[-3:])
    share, greys = float(edge_share(images).max()), float(level_share(images).max())
    finding = ""
    if share > usual + FLATTER:
        finding = f"{share:.0%} of its gradient lies in a tenth of its pixels, of validation images {usual:.0%} at most"
    elif greys > max(FEW_GREYS, usual_greys + FLATTER):
        finding = f"{greys:.0%} of its object's pixels are of two greys"
    if finding:
        warnings.warn(
            f"the image consists of flat regions, other than those that prior {prior.name!r} was trained on: "
            f"{finding}. Total variation (iasolve.classical) may come closer",
            UnlikePriorWarning,
            stacklevel=4,
        )
