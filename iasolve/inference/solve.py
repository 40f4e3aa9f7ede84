"""``solve``: from a measurement to an image with an error bar."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.batch import NonFiniteError, Part, solve_batch
from iasolve.inference.general_data import Solves
from iasolve.inference.geometry import bins_at
from iasolve.inference.noise_level import estimate_sigma, likely_sigma
from iasolve.noise_level import estimate_noise
from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.conventions import check_batch_size, check_not_zero, check_operator_kind
from iasolve.operators.noise import GaussianNoise, NoiseModel
from iasolve.priors import Prior
from iasolve.recipe import Recipe, load_recipe

__all__ = ["NonFiniteError", "Result", "UnlikePriorWarning", "solve"]

Array = Tensor | np.ndarray


class UnlikePriorWarning(UserWarning):
    """The image is unlike what the prior was trained on."""


@dataclass(frozen=True)
class Result:
    """A solution; arrays are of the kind (torch or numpy) and on the device that ``y`` was, with its batch dimensions.

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
        (root mean square residual against noise and decoder level, per image; about 1; of the whole image where
        the measurement does not divide among scales: tiles, and operators that are not diagonal).
    sigma : array
        Noise level used, per image, in the measurement's units.
    gain : array
        Estimated scale of each image: user's units over the prior's.
    improved : array
        Whether refinement ended with a better total objective than the guess, per image; where not, the guess
        is returned.
    likeness : array
        ELBO of the image (of its tiles, on average) under the prior, in nats per dimension.
    offsets : list of list of array
        What refinement moved each latent's mean by, in standard deviations of its posterior (of its prior, in iterative
        mode): per scale and layer ``(tiles in all, z, g, g)``. See :func:`iasolve.priors.bound.bound`.
    solver : dict or None
        Conjugate gradients, where the operator is not diagonal: per image the ``applications`` of ``A^H A`` (those of
        its batch, without what came before: gain and profile) and the relative ``residual`` of the last solve.
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
    offsets: list[list[Any]]
    solver: dict[str, Any] | None
    recipe: Recipe
    seed: int
    seconds: float


def solve(
    y: Array,
    operator: LinearOperator,
    prior: Prior,
    *,
    noise: NoiseModel | None = None,
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

    The work is done on the prior's device (``prior.to("cuda")``), wherever ``y`` and the operator are.

    Parameters
    ----------
    y : Tensor or array
        Measurement ``(..., *operator.out_shape)``.
    operator : LinearOperator
        ``A``, from images ``(C, H, W)`` of any size.
    prior : Prior
        See :func:`iasolve.load_prior`.
    noise : NoiseModel, optional
        Noise of ``y``, in ``y``'s units, e.g. :class:`~iasolve.operators.GaussianNoise`; any other model is brought
        to white noise first (``noise.whitened``), and the result's ``sigma`` is then that of the white noise.
        Without it the level is estimated from ``y`` and reported; of images, a level for each ring of frequencies where
        they differ (:func:`iasolve.noise_level.estimate_noise`), and ``sigma`` is then their root mean square.
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
    check_operator_kind(operator)
    check_batch_size(batch_size)
    if not hasattr(prior, "spectrum"):
        raise TypeError(f"the prior is {prior!r}, expected a prior, as iasolve.load_prior returns it by name")
    resolved = load_recipe(recipe)
    if samples is not None:
        resolved = resolved.changed(samples=samples)
    resolved.check_scales(prior.spectrum.scales)
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if noise is not None and not hasattr(noise, "whitened"):
        raise TypeError(f"noise must be a noise model, as in noise=GaussianNoise(0.1), got {noise!r}")
    as_numpy = isinstance(y, np.ndarray)
    given = as_tensor(y)
    if operator.out_dtype.is_complex and not given.is_complex():
        # k-space that happens to be stored as real numbers carries complex noise all the same
        given = given.to(torch.promote_types(given.dtype, torch.complex64))
    _check(given, operator, prior, fit)
    lead = given.shape[: given.ndim - len(operator.out_shape)]
    home = given.device
    pieces = _white_pieces(given, operator, noise, prior, fit, batch_size)
    sigma = torch.cat([piece.sigma for piece in pieces])
    if warn and resolved.nonnegative and prior.nonnegative and operator.codomain == "image":
        _warn_signed(torch.cat([piece.y for piece in pieces]), sigma, prior)
    parts: list[Part] = []
    for piece in pieces:
        for start in range(0, len(piece.y), batch_size):
            some = slice(start, start + batch_size)
            parts.append(
                solve_batch(
                    piece.y[some],
                    piece.sigma[some],
                    piece.operator,
                    prior,
                    resolved,
                    seed=seed,
                    fit=fit,
                    overlap=overlap,
                    force_general=force_general,
                )
            )
            if progress is not None:
                progress(sum(len(part.gain) for part in parts), len(sigma))

    def gather(name: str, axis: int = 0) -> Any:
        values = [getattr(p, name) for p in parts]
        if values[0] is None:
            return None
        whole = torch.cat(values, dim=axis).to(home)
        whole = whole.reshape((*whole.shape[:axis], *lead, *whole.shape[axis + 1 :]))
        return whole.numpy() if as_numpy else whole

    scales = []
    for index, first in enumerate(parts[0].reports):
        row: dict[str, Any] = {"scale": first.scale, "steps": first.steps}
        for key in ("before", "after", "misfit"):
            whole = torch.cat([getattr(p.reports[index], key) for p in parts]).to(home).reshape(lead)
            row[key] = whole.numpy() if as_numpy else whole
        scales.append(row)
    likeness = gather("likeness")
    if warn:
        idle = not resolved.takes_steps
        _warn_unlike(torch.cat([p.likeness for p in parts]), torch.cat([p.distance for p in parts]), prior, idle)
    offsets = []
    for layers in zip(*(p.offsets for p in parts), strict=True):
        moved = [torch.cat(pieces).to(home) for pieces in zip(*layers, strict=True)]
        offsets.append([m.numpy() for m in moved] if as_numpy else moved)
    sigma_out = sigma.to(home).reshape(lead)
    return Result(
        image=gather("image"),
        std=gather("std"),
        samples=gather("samples", 1),
        scales=scales,
        sigma=sigma_out.numpy() if as_numpy else sigma_out,
        gain=gather("gain"),
        improved=gather("improved"),
        likeness=likeness,
        offsets=offsets,
        solver=_solver([p.solves for p in parts], lead, home, as_numpy),
        recipe=resolved,
        seed=seed,
        seconds=time.perf_counter() - begun,
    )


def _solver(solves: list[Solves | None], lead: torch.Size, home: torch.device, as_numpy: bool) -> dict[str, Any] | None:
    found = [s for s in solves if s is not None]
    if not found:
        return None
    values = {
        "applications": torch.cat([torch.full_like(s.residual, s.applications, dtype=torch.int64) for s in found]),
        "residual": torch.cat([s.residual for s in found]),
    }
    whole = {key: value.to(home).reshape(lead) for key, value in values.items()}
    return {key: value.numpy() for key, value in whole.items()} if as_numpy else dict(whole)


class _Piece(NamedTuple):
    """Measurements ``(B, *out_shape)`` of one operator with white noise ``(B,)``, on the prior's device."""

    y: Tensor
    sigma: Tensor
    operator: LinearOperator


def _white_pieces(
    y: Tensor, operator: LinearOperator, noise: NoiseModel | None, prior: Prior, fit: str, batch_size: int
) -> list[_Piece]:
    """The problem with white noise: one piece, or one for each item where the noise model follows its measurement."""
    operator = operator.to(y.device)
    flat = y.reshape(-1, *operator.out_shape)
    found: list[tuple[Tensor, LinearOperator, float | None]]
    if noise is None:
        found = [(flat, operator, None)]
        if operator.codomain == "image" and operator.transfer() is not None and min(flat.shape[-2:]) >= 8:
            models = [estimate_noise(item, operator) for item in flat]
            if not all(isinstance(model, GaussianNoise) for model in models):
                whitened = [model.whitened(item, operator) for model, item in zip(models, flat, strict=True)]
                found = [(white.y[None], white.operator, white.noise.sigma) for white in whitened]
    elif getattr(noise, "follows_measurement", False):
        each = [noise.whitened(item, operator) for item in flat]
        found = [(white.y[None], white.operator, float(white.noise.sigma)) for white in each]
    else:
        white = noise.whitened(flat, operator)
        found = [(white.y, white.operator, float(white.noise.sigma))]
    pieces = []
    for values, acting, level in found:
        values = values.to(prior.device, _precision(values, prior))
        acting = acting.to(prior.device)
        if level is None:
            sigma = _estimated(values, acting, prior, fit, batch_size)
        else:
            sigma = torch.full((len(values),), level, dtype=values.real.dtype, device=values.device)
        if not bool(torch.isfinite(acting.adjoint(values[:1])).all()):
            raise NonFiniteError(
                "the operator's adjoint makes NaN or infinite values of a finite measurement: try it with "
                "check_operator (iasolve check-operator)"
            )
        pieces.append(_Piece(values, sigma, acting))
    return pieces


def _estimated(y: Tensor, operator: LinearOperator, prior: Prior, fit: str, batch_size: int) -> Tensor:
    """Noise levels ``(B,)``: by what images and k-space look like, by the prior's power where ``y`` may be neither."""
    diagonal = operator.codomain in ("kspace", "spectrum") and operator.transfer() is not None
    if operator.codomain is not None and not diagonal:
        return estimate_sigma(y, operator)
    height, width = operator.in_shape[1:]
    power = bins_at(prior.power, (height, width), fit)
    with torch.no_grad():
        likely = torch.cat([likely_sigma(some, operator, power) for some in y.split(batch_size)])
    # the image reaches the outermost k-space of all but large images: an upper bound, and a loose one
    return torch.minimum(estimate_sigma(y, operator), likely) if diagonal else likely


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
    support = operator.support()
    if support is not None and (support.dtype != torch.bool or support.shape != operator.in_shape[1:]):
        raise ValueError(
            f"the operator's support() is {tuple(support.shape)} {support.dtype}, expected boolean "
            f"{tuple(operator.in_shape[1:])}, True where images may be other than 0, or None"
        )
    check_not_zero(operator)
    if not bool(torch.isfinite(y).all()):
        bad = int((~torch.isfinite(y)).sum())
        raise ValueError(f"the measurement holds {bad} NaN or infinite value(s): replace or mask them first")


def _warn_signed(y: Tensor, sigma: Tensor, prior: Prior) -> None:
    """Images below zero, and a bound that does not know of them."""
    if y.is_complex():
        return
    below = y.clamp_max(0).flatten(1).square().mean(1).sqrt()
    # noise about zero has 0.7 of its level there
    if bool((below > 2 * sigma).any()):
        worst = int((below - 2 * sigma).argmax())
        warnings.warn(
            f"the measurement goes down to {float(y[worst].min()):.3g}, further below zero than its noise of "
            f"{float(sigma[worst]):.3g} explains, and the images of prior {prior.name!r} do not: the result is bounded "
            "to x >= 0. Add a constant to the images, or take a recipe with nonnegative = false",
            UnlikePriorWarning,
            stacklevel=3,
        )


def _precision(y: Tensor, prior: Prior) -> torch.dtype:
    real = prior.power.dtype
    return torch.promote_types(real, torch.complex32) if y.is_complex() else real


def _warn_unlike(likeness: Tensor, distance: Tensor, prior: Prior, idle: bool) -> None:
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
            "The result may be worse than a classical method's"
            + ("; refinement adapts the guess: take a recipe with steps, as 'denoise' has them" if idle else ""),
            UnlikePriorWarning,
            stacklevel=3,
        )
