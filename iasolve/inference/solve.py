"""``solve``: from a measurement to an image with an error bar."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.data import DiagonalData
from iasolve.inference.intensity import estimate_sigma
from iasolve.inference.objective import DataTerm, ImageTerm, RingTerm
from iasolve.inference.problem import Problem, pose
from iasolve.inference.refine import Refiner, ScaleReport
from iasolve.inference.topdown import Noise, Pass, descend
from iasolve.networks import Gaussian
from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.noise import GaussianNoise
from iasolve.priors import Prior
from iasolve.priors.likeness import image_elbo, ring_distance
from iasolve.recipe import Recipe, load_recipe

__all__ = ["NonFiniteError", "Result", "UnlikePriorWarning", "solve"]

Array = Tensor | np.ndarray


class NonFiniteError(RuntimeError):
    """The solution holds NaN or infinite values."""


class UnlikePriorWarning(UserWarning):
    """The image is unlike what the prior was trained on."""


@dataclass(frozen=True)
class Result:
    """A solution; arrays are of the kind (torch or numpy) that ``y`` was, with its leading batch dimensions.

    Attributes
    ----------
    image : array
        ``(..., C, H, W)``, in the user's units.
    std : array or None
        Standard deviation of each pixel, with samples only.
    samples : array or None
        ``(K, ..., C, H, W)`` posterior samples.
    scales : list of dict
        Per scale: ``scale``, ``steps``, ``before`` and ``after`` (objective in nats, per image), ``misfit``
        (root mean square residual against noise and decoder level, per image; about 1).
    sigma : array
        Noise level used, per image, in the measurement's units.
    gain : array
        Estimated scale of each image: user's units over the prior's.
    improved : array
        Whether refinement ended with a better total objective than the guess, per image; where not, the guess
        is returned.
    likeness : array
        ELBO of the image (of its tiles, on average) under the prior, in nats per dimension.
    recipe : Recipe
        As resolved.
    seed : int
    seconds : float
    """

    image: Any
    std: Any
    samples: Any
    scales: list[dict[str, Any]]
    sigma: Any
    gain: Any
    improved: Any
    likeness: Any
    recipe: Recipe
    seed: int
    seconds: float


def solve(
    y: Array,
    operator: LinearOperator,
    prior: Prior,
    *,
    noise: GaussianNoise | None = None,
    recipe: str | Path | Recipe = "denoise",
    samples: int | None = None,
    seed: int = 0,
    fit: str = "canvas",
    overlap: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
    warn: bool = True,
    force_general: bool = False,
) -> Result:
    """Solve ``y = A x + noise`` for ``x`` with an error bar.

    Parameters
    ----------
    y : Tensor or array
        Measurement ``(..., *operator.out_shape)``.
    operator : LinearOperator
        ``A``, from images ``(C, H, W)`` of any size.
    prior : Prior
        See :func:`iasolve.load_prior`.
    noise : GaussianNoise, optional
        Noise of ``y``, in ``y``'s units. Without it the level is estimated from ``y`` and reported.
    recipe : str, path or Recipe
        Name of a ready recipe, a TOML file, or a recipe.
    samples : int, optional
        Posterior samples; overrides the recipe's.
    seed : int
        The same seed gives the same result, whatever the batch.
    fit : {"canvas", "field-of-view"}
        What to do with an image of another size than the prior's: overlapping tiles, or one tile that shows the
        whole field of view, band-limited up to the image's grid.
    overlap : int, optional
        Smallest overlap of a canvas's tiles, in pixels; a quarter of the tile by default.
    batch_size : int
        Images solved at a time.
    progress : callable, optional
        Called with (images done, images in all).
    warn : bool
        Warn when an image is unlike the prior's data.
    force_general : bool
        Treat a diagonal operator as any other (a check; slower).

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        When shapes, kinds or channels of ``y``, operator and prior do not fit, or ``y`` is not finite.
    RecipeError
        When the recipe is unknown or impossible for this prior.
    NonFiniteError
        When the solution is not finite.
    """
    begun = time.perf_counter()
    resolved = load_recipe(recipe)
    if samples is not None:
        resolved = resolved.changed(samples=samples)
    resolved.check_scales(prior.spectrum.scales)
    as_numpy = isinstance(y, np.ndarray)
    given = as_tensor(y)
    if operator.out_dtype.is_complex and not given.is_complex():
        # k-space that happens to be stored as real numbers carries complex noise all the same
        given = given.to(torch.promote_types(given.dtype, torch.complex64))
    _check(given, operator, prior, fit)
    lead = given.shape[: given.ndim - len(operator.out_shape)]
    flat = given.reshape(-1, *operator.out_shape).to(prior.device)
    flat = flat.to(_precision(flat, prior))
    if noise is None:
        sigma = estimate_sigma(flat, operator)
    else:
        sigma = torch.full((len(flat),), float(noise.sigma), dtype=flat.real.dtype, device=flat.device)
    operator = operator.to(prior.device)
    parts = []
    for start in range(0, len(flat), batch_size):
        stop = min(start + batch_size, len(flat))
        parts.append(
            _solve_batch(
                flat[start:stop],
                sigma[start:stop],
                operator,
                prior,
                resolved,
                seed,
                fit,
                overlap,
                force_general,
            )
        )
        if progress is not None:
            progress(stop, len(flat))

    def gather(name: str, axis: int = 0) -> Any:
        values = [getattr(p, name) for p in parts]
        if values[0] is None:
            return None
        whole = torch.cat(values, dim=axis).cpu()
        whole = whole.reshape((*whole.shape[:axis], *lead, *whole.shape[axis + 1 :]))
        return whole.numpy() if as_numpy else whole

    scales = []
    for index, first in enumerate(parts[0].reports):
        row: dict[str, Any] = {"scale": first.scale, "steps": first.steps}
        for key in ("before", "after", "misfit"):
            whole = torch.cat([getattr(p.reports[index], key) for p in parts]).cpu().reshape(lead)
            row[key] = whole.numpy() if as_numpy else whole
        scales.append(row)
    likeness = gather("likeness")
    if warn:
        _warn_unlike(torch.cat([p.likeness for p in parts]), torch.cat([p.distance for p in parts]), prior)
    sigma_out = sigma.cpu().reshape(lead)
    return Result(
        image=gather("image"),
        std=gather("std"),
        samples=gather("samples", 1),
        scales=scales,
        sigma=sigma_out.numpy() if as_numpy else sigma_out,
        gain=gather("gain"),
        improved=gather("improved"),
        likeness=likeness,
        recipe=resolved,
        seed=seed,
        seconds=time.perf_counter() - begun,
    )


@dataclass
class _Part:
    image: Tensor
    std: Tensor | None
    samples: Tensor | None
    reports: list[ScaleReport]
    gain: Tensor
    improved: Tensor
    likeness: Tensor
    distance: Tensor


@torch.no_grad()
def _solve_batch(
    y: Tensor,
    sigma: Tensor,
    operator: LinearOperator,
    prior: Prior,
    recipe: Recipe,
    seed: int,
    fit: str,
    overlap: int | None,
    force_general: bool,
) -> _Part:
    problem = pose(
        y,
        operator,
        prior,
        sigma,
        fit=fit,
        overlap=overlap,
        iterations=recipe.iterations,
        force_general=force_general,
    )
    tiles = problem.geometry.tiles
    batch = len(y) * tiles
    finest = len(prior.spectrum.scales) - 1
    if recipe.guess_stop == "all":
        stop_per_image = torch.full_like(problem.stop, finest)
    elif recipe.guess_stop == "auto":
        stop_per_image = problem.stop
    else:
        stop_per_image = torch.full_like(problem.stop, prior.spectrum.scales.index(int(recipe.guess_stop)))
    stop = stop_per_image.repeat_interleave(tiles)
    draw = Noise(seed, y.device, y.real.dtype)
    features = None
    if recipe.mode != "iterative":
        features = prior.encode(problem.evidence.image, problem.evidence.profile)

    guess = descend(prior, features, batch, stop=stop)
    final, reports, improved = _refined(problem, prior, recipe, features, guess, stop, draw)
    offsets = [s.offsets for s in final.scales]

    def decode(found: Pass) -> Tensor:
        return prior.spectrum.inverse(prior.assemble(found.contributions))

    tile_images = decode(final)
    x0 = problem.geometry.image(tile_images)
    if recipe.temperature > 0 and recipe.samples == 0:
        warm = descend(
            prior,
            features,
            batch,
            stop=stop,
            temperature=recipe.temperature,
            noise=draw,
            label="estimate",
            offsets=offsets,
        )
        x0 = problem.geometry.image(tile_images) + problem.geometry.deviation(decode(warm) - tile_images)
    estimate = problem.data.posterior_mean(x0, problem.variance) if recipe.closing else x0

    std = samples = None
    if recipe.samples:
        means, draws = [], []
        for k in range(recipe.samples):
            found = descend(
                prior,
                features,
                batch,
                stop=stop,
                temperature=1.0,
                noise=draw,
                label=f"sample {k}",
                offsets=offsets,
            )
            moved = problem.geometry.image(tile_images) + problem.geometry.deviation(decode(found) - tile_images)
            source = _Labelled(draw, f"pixels {k}", y)
            mean, sample = problem.data.posterior_draw(moved, problem.variance, source)
            means.append(mean if recipe.closing else moved)
            draws.append(sample)
        if recipe.temperature > 0:
            estimate = torch.stack(means).mean(0)
        std = _error_bar(problem, torch.stack(means), torch.stack(draws), estimate)
        samples = torch.stack(draws)

    views = problem.geometry.cut(estimate)
    rms = views.abs().square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-20)
    likeness = image_elbo(prior, views / rms).unflatten(0, (-1, tiles)).mean(1)
    distance = ring_distance(prior, views / rms).unflatten(0, (-1, tiles)).mean(1)
    gain = problem.gain.reshape(-1, 1, 1, 1)
    image = problem.crop(gain * estimate)
    if not bool(torch.isfinite(image).all()):
        raise NonFiniteError(
            "the solution holds NaN or infinite values: check the measurement's range and sigma, "
            "or lower the recipe's step_size"
        )
    return _Part(
        image,
        None if std is None else problem.crop(gain * std),
        None if samples is None else problem.crop(gain * samples),
        reports,
        problem.gain,
        improved,
        likeness,
        distance,
    )


def _refined(
    problem: Problem,
    prior: Prior,
    recipe: Recipe,
    features: list[Tensor] | None,
    guess: Pass,
    stop: Tensor,
    draw: Noise,
) -> tuple[Pass, list[ScaleReport], Tensor]:
    """Refine from the guess, and fall back to it, per image, where the total objective did not get better."""
    tiles = problem.geometry.tiles
    batch = len(stop)

    def term() -> DataTerm:
        return (
            _ring_term(problem, prior, recipe)
            if problem.direct
            else ImageTerm(prior, problem.geometry, problem.data, problem.variance, guess.contributions)
        )

    idle = recipe.changed(steps=0)
    at_guess = Refiner(prior, idle, term(), draw, tiles, stop, features)
    descend(prior, features, batch, stop=stop, refine=at_guess)
    none = torch.zeros(batch // tiles, dtype=torch.bool, device=stop.device)
    if not any(recipe.steps_at(s) for s in prior.spectrum.scales):
        return guess, at_guess.reports, none
    refiner = Refiner(prior, recipe, term(), draw, tiles, stop, features)
    final = descend(prior, features, batch, stop=stop, refine=refiner)
    before, after = _total(at_guess, recipe), _total(refiner, recipe)
    # a gain within rounding is none
    improved = after < before - 1e-6 * before.abs()
    per_tile = improved.repeat_interleave(tiles)
    for kept, new in zip(guess.scales, final.scales, strict=True):
        tile = per_tile.reshape(-1, 1, 1, 1)
        new.contribution = torch.where(tile[..., 0], new.contribution, kept.contribution)
        new.guess = [
            Gaussian(torch.where(tile, n.mean, k.mean), torch.where(tile, n.log_std, k.log_std))
            for n, k in zip(new.guess, kept.guess, strict=True)
        ]
        new.offsets = [torch.where(tile, o, torch.zeros_like(o)) for o in new.offsets]
    reports = []
    for old, new_report in zip(at_guess.reports, refiner.reports, strict=True):
        reports.append(
            ScaleReport(
                new_report.scale,
                new_report.steps,
                old.before,
                torch.where(improved, new_report.after, old.before),
                torch.where(improved, new_report.misfit, old.misfit),
                torch.where(improved, new_report.cost, old.cost),
                new_report.contribution,
            )
        )
    return final, reports, improved


def _total(refiner: Refiner, recipe: Recipe) -> Tensor:
    """Total objective of a pass, ``(B,)``."""
    reports = refiner.reports
    if isinstance(refiner.data, RingTerm):
        # rings do not touch: the scales' objectives add up, draws included
        return torch.stack([r.after for r in reports]).sum(0)
    fit = refiner.data.total([r.contribution for r in reports], [recipe.beta_at(r.scale) for r in reports])
    return fit + torch.stack([r.cost for r in reports]).sum(0)


def _ring_term(problem: Problem, prior: Prior, recipe: Recipe) -> RingTerm:
    assert isinstance(problem.data, DiagonalData)
    spectrum = prior.spectrum
    folded = problem.data.folded
    return RingTerm(
        prior.rings(spectrum.half(folded.value)),
        prior.rings(spectrum.half(folded.variance)),
        prior.sigma_x,
        prior.rings(spectrum.weight.to(prior.device, folded.variance.dtype)),
        spectrum.is_complex,
        recipe.loss,
    )


class _Labelled:
    """Standard normal values of an image's or a measurement's kind, a new draw at every call."""

    def __init__(self, draw: Noise, label: str, y: Tensor) -> None:
        self.draw, self.label, self.count = draw, label, 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        self.count += 1
        return self.draw(shape, self.label, self.count)


def _error_bar(problem: Problem, means: Tensor, draws: Tensor, estimate: Tensor) -> Tensor:
    """``std``: spread of the conditional means plus the mean conditional variance."""
    if len(means) > 1:
        spread = (means - means.mean(0)).abs().square().sum(0) / (len(means) - 1)
    else:
        spread = torch.zeros_like(estimate.real)
    if isinstance(problem.data, DiagonalData):
        # stationary: the variance of a pixel is the mean over the full grid
        within = problem.data.posterior_variance(problem.variance).mean((-2, -1), keepdim=True)
    else:
        squared = (draws - means).abs().square().mean(0)
        within = torch.nn.functional.avg_pool2d(squared, 7, stride=1, padding=3, count_include_pad=False)
    return (spread + within).sqrt()


def _check(y: Tensor, operator: LinearOperator, prior: Prior, fit: str) -> None:
    if fit not in ("canvas", "field-of-view"):
        raise ValueError(f"fit must be 'canvas' or 'field-of-view', got {fit!r}")
    n = len(operator.out_shape)
    if y.ndim < n or tuple(y.shape[y.ndim - n :]) != tuple(operator.out_shape):
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, "
            f"the operator puts out (..., {', '.join(map(str, operator.out_shape))})"
        )
    if y.numel() == 0:
        raise ValueError(f"the measurement is empty: shape {tuple(y.shape)}")
    if y.is_complex() and not operator.out_dtype.is_complex:
        raise ValueError(f"the measurement is complex ({y.dtype}), the operator puts out {operator.out_dtype}")
    if len(operator.in_shape) != 3:
        raise ValueError(f"the operator takes {operator.in_shape}, expected images (C, H, W)")
    if operator.in_shape[0] != prior.channels:
        raise ValueError(
            f"the operator's images have {operator.in_shape[0]} channel(s), "
            f"the prior {prior.name!r} has {prior.channels}"
        )
    if operator.is_complex != prior.spectrum.is_complex:
        kinds = (
            "complex" if operator.is_complex else "real",
            "complex" if prior.spectrum.is_complex else "real",
        )
        raise ValueError(f"the operator takes {kinds[0]} images, the prior {prior.name!r} is over {kinds[1]} images")
    if not bool(torch.isfinite(y).all()):
        bad = int((~torch.isfinite(y)).sum())
        raise ValueError(f"the measurement holds {bad} NaN or infinite value(s): replace or mask them first")


def _precision(y: Tensor, prior: Prior) -> torch.dtype:
    real = prior.power.dtype
    return torch.promote_types(real, torch.complex32) if y.is_complex() else real


def _warn_unlike(likeness: Tensor, distance: Tensor, prior: Prior) -> None:
    validation = prior.card.get("validation", {})
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
    if findings:
        warnings.warn(
            f"the image is unlike the data of prior {prior.name!r}: {'; '.join(findings)}. "
            "The result may be worse than a classical method's",
            UnlikePriorWarning,
            stacklevel=3,
        )
