"""``reconstruct``: from k-space of one or many coils and slices to images, slice by slice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.multicoil import pose_coils, sampled_positions
from iasolve.inference.noise_level import estimate_sigma
from iasolve.inference.solve import Result, UnlikePriorWarning, solve
from iasolve.operators.base import LinearOperator, as_tensor, centred_ifft2
from iasolve.operators.coil_noise import CoilNoise
from iasolve.operators.conventions import check_kspace_order
from iasolve.operators.fourier import KSpaceMask
from iasolve.operators.masks import acceleration
from iasolve.operators.noise import GaussianNoise
from iasolve.priors import Prior
from iasolve.recipe import Recipe
from iasolve.spectrum import reflect

__all__ = ["Reconstruction", "imaginary_share", "reconstruct"]

LARGEST_IMAGINARY = 0.05
"""Imaginary share of a single coil's energy above which an image is not taken for real."""

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class Reconstruction(Result):
    """A :class:`~iasolve.Result` whose leading dimension, if any, is the slices.

    Attributes
    ----------
    facts : list of dict
        Per slice, how it was posed: see :class:`~iasolve.inference.multicoil.CoilProblem`. A single coil's
        ``imaginary_share`` says how much of the image's energy is not in its real part (real priors only).
    """

    facts: list[dict[str, Any]]


def reconstruct(
    kspace: Array,
    prior: Prior,
    *,
    maps: Array | None = None,
    mask: Array | None = None,
    coils: int | None = None,
    noise: GaussianNoise | CoilNoise | None = None,
    phase: str = "auto",
    recipe: str | Path | Recipe = "compressed-sensing",
    samples: int | None = None,
    seed: int = 0,
    fit: str = "canvas",
    overlap: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
    warn: bool = True,
) -> Reconstruction:
    """Reconstruct images from undersampled k-space of any number of coils.

    Each slice has its own sensitivities and its own phase, so slices of several coils are solved one by one; those of
    a single coil without phase are a batch on the exact path.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` or ``(slices, coils, H, W)``, complex, centred and orthonormal, unsampled entries 0.
    prior : Prior
        Over images of one channel, real or complex.
    maps : Tensor or array, optional
        Sensitivities of ``kspace``'s shape, or ``(coils, H, W)`` for all slices; estimated by default.
    mask : Tensor or array, optional
        Broadcastable to ``(H, W)``; by default, slice by slice, the positions where any coil is not 0.
    coils : int, optional
        Compress to this many; by default to 12, if there are more.
    noise : GaussianNoise or CoilNoise, optional
        Noise of ``kspace``; its level is estimated without.
    phase : {"auto", "none"}
        For a prior over real images: estimate a smooth phase and solve for the image without it (for a single coil,
        only where more than a twentieth of the energy is imaginary), or take the images for real.
    recipe, samples, seed, fit, overlap, batch_size, progress, warn
        See :func:`iasolve.solve`; ``progress`` counts slices.

    Returns
    -------
    Reconstruction
        ``image`` is ``(1, H, W)`` or ``(slices, 1, H, W)``; real for a real prior: the magnitude, as far as the phase
        is right.

    Raises
    ------
    ValueError
        When shapes and kinds do not fit, or the centre from which maps and phase are estimated is not sampled.
    NonFiniteError, RecipeError
        See :func:`iasolve.solve`.

    Examples
    --------
    >>> import iasolve
    >>> from iasolve.samples import load_kspace
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> result = iasolve.reconstruct(load_kspace().kspace, prior, fit="field-of-view")  # doctest: +SKIP
    """
    volume = as_tensor(kspace)
    if volume.ndim not in (3, 4) or not volume.is_complex() or 0 in volume.shape:
        raise ValueError(
            f"expected complex k-space (coils, H, W) or (slices, coils, H, W), got shape {tuple(volume.shape)}, "
            f"{volume.dtype}; a single coil is an axis of length 1: kspace[None]"
        )
    check_kspace_order(volume)
    if prior.channels != 1:
        raise ValueError(f"k-space is of images of one channel, the prior {prior.name!r} has {prior.channels}")
    stack = volume[None] if volume.ndim == 3 else volume
    every = _maps_of_slices(maps, stack)
    shared: dict[str, Any] = {
        "recipe": recipe,
        "samples": samples,
        "seed": seed,
        "fit": fit,
        "overlap": overlap,
        "batch_size": batch_size,
        "warn": warn,
    }
    results: list[Result] = []
    facts: list[dict[str, Any]] = [{} for _ in stack]

    def add(y: Tensor, operator: LinearOperator, level: GaussianNoise | None) -> None:
        results.append(solve(y, operator, prior, noise=level, **shared))
        if progress is not None:
            progress(sum(len(r.image) for r in results), len(stack))

    if stack.shape[1] == 1 and every is None and not isinstance(noise, CoilNoise):
        batches = _single_coil(stack, mask, prior.spectrum.is_complex)
        facts = [fact for y, operator in batches for fact in _single_facts(y, operator, noise)]
        if phase == "none" or max(fact.get("imaginary_share", 0.0) for fact in facts) < LARGEST_IMAGINARY:
            for y, operator in batches:
                add(y, operator, noise)
            return _joined(results, facts, volume.ndim == 4, isinstance(kspace, np.ndarray))
    with _said_once(len(stack)):
        for number, item in enumerate(stack):
            posed = pose_coils(
                item,
                is_complex=prior.spectrum.is_complex,
                maps=None if every is None else every[number],
                mask=mask,
                coils=coils,
                noise=noise,
                phase=phase,
            )
            facts[number] |= posed.facts
            add(posed.y[None], posed.operator, posed.noise)
    return _joined(results, facts, volume.ndim == 4, isinstance(kspace, np.ndarray))


def imaginary_share(kspace: Tensor, mask: Tensor, sigma: Tensor) -> Tensor:
    """Share of each image's energy that is in its imaginary part, noise taken off, in [0, 1].

    Parameters
    ----------
    kspace : Tensor
        ``(B, 1, H, W)``, a single coil.
    mask : Tensor
        ``(H, W)``, centred.
    sigma : Tensor
        Noise level ``(B,)``.

    Returns
    -------
    Tensor
        ``(B,)``. Only frequencies measured together with their mirror images count: a mask that takes one but not the
        other gives any image an imaginary part.
    """
    sampled = torch.fft.ifftshift(mask != 0, dim=(-2, -1))
    both = torch.fft.fftshift(sampled & reflect(sampled), dim=(-2, -1))
    image = centred_ifft2(kspace * both)
    noise = both.sum() * sigma.square()
    imaginary, whole = (part.square().flatten(1).sum(1) for part in (image.imag, image.abs()))
    share = (imaginary - noise / 2).clamp_min(0) / torch.maximum(whole - noise, 1e-3 * whole + 1e-30)
    return share.clamp_max(1)


def _single_coil(stack: Tensor, mask: Array | None, is_complex: bool) -> list[tuple[Tensor, KSpaceMask]]:
    """Slices of a single coil as one batch; each on its own where they were sampled differently."""
    masks = [sampled_positions(item, mask) for item in stack]
    alike = all(torch.equal(other, masks[0]) for other in masks)
    shape = (1, *stack.shape[-2:])
    dtype = stack.dtype if is_complex else stack.real.dtype
    batches = [(stack, masks[0])] if alike else list(zip(stack[:, None], masks, strict=True))
    return [(y * sampled, KSpaceMask(sampled, shape, dtype)) for y, sampled in batches]


def _single_facts(y: Tensor, operator: KSpaceMask, noise: GaussianNoise | None) -> list[dict[str, Any]]:
    facts = {"coils": 1, "coils_used": 1, "acceleration": acceleration(operator.mask), "maps": "none", "phase": "none"}
    if operator.is_complex:
        return [dict(facts) for _ in y]
    sigma = estimate_sigma(y, operator) if noise is None else y.real.new_full((len(y),), noise.sigma)
    return [{**facts, "imaginary_share": float(share)} for share in imaginary_share(y, operator.mask, sigma)]


def _maps_of_slices(maps: Array | None, stack: Tensor) -> Tensor | None:
    if maps is None:
        return None
    values = as_tensor(maps)
    if values.shape not in (stack.shape, stack.shape[1:]):
        raise ValueError(
            f"the maps have shape {tuple(values.shape)}, k-space {tuple(stack.shape)} as (slices, coils, H, W): "
            f"expected {tuple(stack.shape)}, or {tuple(stack.shape[1:])} for all slices"
        )
    return values.expand(stack.shape)


@contextmanager
def _said_once(slices: int) -> Iterator[None]:
    """One warning of an unlike image for a volume, not one for each slice."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnlikePriorWarning)
        yield
    unlike = [w for w in caught if issubclass(w.category, UnlikePriorWarning)]
    for other in caught:
        if other not in unlike:
            warnings.warn(other.message, stacklevel=4)
    if unlike:
        more = f" (so of {len(unlike)} of {slices} slices)" if len(unlike) > 1 else ""
        warnings.warn(f"{unlike[0].message}{more}", UnlikePriorWarning, stacklevel=4)


def _joined(results: list[Result], facts: list[dict[str, Any]], sliced: bool, as_numpy: bool) -> Reconstruction:
    """Results of batches as one; without the leading dimension where the data had none."""

    def join(parts: Sequence[Tensor | None], axis: int = 0) -> Any:
        if parts[0] is None:
            return None
        whole = torch.cat([as_tensor(part) for part in parts if part is not None], dim=axis)
        whole = whole if sliced else whole.select(axis, 0)
        return whole.numpy() if as_numpy else whole

    values: dict[str, Any] = {
        name: join([getattr(r, name) for r in results])
        for name in ("image", "std", "sigma", "gain", "improved", "likeness")
    }
    scales = [
        {
            "scale": row["scale"],
            "steps": row["steps"],
            **{key: join([r.scales[n][key] for r in results]) for key in ("before", "after", "misfit")},
        }
        for n, row in enumerate(results[0].scales)
    ]
    solvers = [r.solver for r in results if r.solver is not None]
    layers = [list(zip(*scale, strict=True)) for scale in zip(*(r.offsets for r in results), strict=True)]

    def pieces(parts: Sequence[Tensor]) -> Any:
        whole = torch.cat([as_tensor(part) for part in parts])  # by tiles, whatever the slices
        return whole.numpy() if as_numpy else whole

    return Reconstruction(
        **values,
        offsets=[[pieces(parts) for parts in scale] for scale in layers],
        solver={key: join([s[key] for s in solvers]) for key in ("applications", "residual")} if solvers else None,
        samples=join([r.samples for r in results], 1),
        scales=scales,
        recipe=results[0].recipe,
        seed=results[0].seed,
        seconds=sum(r.seconds for r in results),
        facts=facts,
    )
