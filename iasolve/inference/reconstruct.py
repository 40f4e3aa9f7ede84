"""``reconstruct``: from k-space of one or many coils and slices to images, slice by slice."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Unpack, cast, overload

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.interface import Callback, Options, SolveOptions, Status, UnlikePriorWarning, Watch
from iasolve.inference.memory import cut
from iasolve.inference.multicoil import SliceFacts, pose_coils, sampled_positions
from iasolve.inference.result import Array, Result, as_numpy, join
from iasolve.inference.solve import solve, with_samples
from iasolve.noise_level import estimate_sigma
from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.bases import centred_ifft2
from iasolve.operators.coil_noise import CoilNoise
from iasolve.operators.conventions import check_kspace_order
from iasolve.operators.fourier import KSpaceMask
from iasolve.operators.masks import acceleration
from iasolve.operators.noise import GaussianNoise
from iasolve.priors import Prior
from iasolve.recipe import Recipe, load_recipe
from iasolve.spectrum import reflect

__all__ = ["ReconstructOptions", "Reconstruction", "imaginary_share", "reconstruct"]

LARGEST_IMAGINARY = 0.05
"""Imaginary share of a single coil's energy above which an image is not taken for real."""


class ReconstructOptions(SolveOptions, total=False):
    """The keyword arguments of :func:`reconstruct`: those of :func:`iasolve.solve`, and what is known of the scan."""

    maps: Tensor | np.ndarray | None
    mask: Tensor | np.ndarray | None
    coils: int | None
    phase: str


@dataclass(frozen=True)
class Reconstruction(Result[Array]):
    """A :class:`~iasolve.Result` whose leading dimension, if any, is the slices.

    Attributes
    ----------
    facts : list of SliceFacts
        Per slice, how it was posed: see :class:`~iasolve.inference.multicoil.SliceFacts`.

    Examples
    --------
    >>> import iasolve
    >>> from iasolve.samples import load_kspace
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> result = iasolve.reconstruct(load_kspace().kspace, prior, recipe="fast", warn=False)
    >>> isinstance(result, iasolve.Result), len(result.facts)
    (True, 1)
    """

    facts: list[SliceFacts]


@overload
def reconstruct(
    kspace: Tensor,
    prior: Prior,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    recipe: str | Path | Recipe = "compressed-sensing",
    callback: Callback | None = None,
    **options: Unpack[ReconstructOptions],
) -> Reconstruction[Tensor]: ...


@overload
def reconstruct(
    kspace: np.ndarray,
    prior: Prior,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    recipe: str | Path | Recipe = "compressed-sensing",
    callback: Callback | None = None,
    **options: Unpack[ReconstructOptions],
) -> Reconstruction[np.ndarray]: ...


def reconstruct(
    kspace: Tensor | np.ndarray,
    prior: Prior,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    recipe: str | Path | Recipe = "compressed-sensing",
    callback: Callback | None = None,
    **options: Unpack[ReconstructOptions],
) -> Reconstruction[Tensor] | Reconstruction[np.ndarray]:
    """Reconstruct images from undersampled k-space of any number of coils.

    Each slice has its own sensitivities and its own phase, so slices of several coils are solved one by one; those of
    a single coil without phase are batches on the exact path.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` or ``(slices, coils, H, W)``, complex, centred and orthonormal, unsampled entries 0.
    prior : Prior
        Over images of one channel, real or complex.
    noise : GaussianNoise or CoilNoise, optional
        Noise of ``kspace``; its level is estimated without.
    recipe, callback
        See :func:`iasolve.solve`; ``callback`` counts slices.
    **options
        Those of :func:`iasolve.solve`, and: ``maps``, sensitivities of ``kspace``'s shape, or ``(coils, H, W)`` for all
        slices, estimated by default; ``mask``, broadcastable to ``(H, W)``, by default, slice by slice, the positions
        where any coil is not 0; ``coils``, compress to so many, by default to 12, if there are more; ``phase``,
        ``"auto"``: for a prior over real images, estimate a smooth phase and solve for the image without it (for a
        single coil, only where more than a twentieth of the energy is imaginary), or ``"none"``: take images for real.

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
    >>> result = iasolve.reconstruct(load_kspace().kspace, prior, recipe="fast", warn=False)
    >>> result.image.shape, result.facts[0]["coils"]
    ((1, 230, 180), 8)
    """
    mask, coils, phase = options.pop("mask", None), options.pop("coils", None), options.pop("phase", "auto")
    maps = options.pop("maps", None)
    solving = cast(SolveOptions, options)
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
    results: list[Result[Tensor]] = []
    facts: list[SliceFacts] = [{} for _ in stack]
    watch = Watch(callback, len(stack))

    def count(status: Status) -> None:
        # images of this call come after those of the calls before it
        if callback is not None:
            callback(status._replace(image=watch.image + status.image, images=len(stack), seconds=watch.seconds))

    def add(y: Tensor, operator: LinearOperator, level: GaussianNoise | None) -> None:
        results.append(solve(y, operator, prior, noise=level, recipe=recipe, callback=count, **solving))
        watch.image += len(y)

    def pose(number: int) -> None:
        posed = pose_coils(
            stack[number],
            is_complex=prior.spectrum.is_complex,
            maps=None if every is None else every[number],
            mask=mask,
            coils=coils,
            noise=noise,
            phase=phase,
        )
        facts[number] |= posed.facts
        add(posed.y[None], posed.operator, posed.noise)

    height, width = stack.shape[-2:]
    # slice by slice, or as many slices together as are solved together: a volume in pieces gives the same
    asked = Options(**solving)
    size = cut(prior, with_samples(load_recipe(recipe), asked), (height, width), asked).images
    alone = stack.shape[1] == 1 and every is None and not isinstance(noise, CoilNoise)
    white = None if isinstance(noise, CoilNoise) else noise
    with _said_once(len(stack)):
        for numbers in torch.arange(len(stack)).split(size):
            group = slice(int(numbers[0]), int(numbers[-1]) + 1)
            plain = [False] * len(numbers)
            batches = []
            if alone:
                batches = _single_coil(stack[group], mask, prior.spectrum.is_complex)
                if prior.nonnegative:
                    # the sign of all of an image is a phase too, which a scanner is free to choose
                    batches = [(y * _signs(operator.adjoint(y)).to(y.dtype), operator) for y, operator in batches]
                facts[group] = [fact for y, operator in batches for fact in _single_facts(y, operator, white)]
                shares = [fact.get("imaginary_share", 0.0) for fact in facts[group]]
                plain = [phase == "none" or share < LARGEST_IMAGINARY for share in shares]
            if all(plain):
                for y, operator in batches:
                    add(y, operator, white)
                continue
            images = [(y[n : n + 1], operator) for y, operator in batches for n in range(len(y))]
            for place, number in enumerate(numbers.tolist()):
                if plain[place]:
                    add(*images[place], white)
                else:
                    pose(number)
    return _joined(results, facts, volume, isinstance(kspace, np.ndarray))


def _joined(
    results: list[Result[Tensor]], facts: list[SliceFacts], volume: Tensor, numpy: bool
) -> Reconstruction[Tensor] | Reconstruction[np.ndarray]:
    """Results of batches as one; without the leading dimension where the data had none."""
    whole = join(results, volume.shape[:-3], volume.device)
    found = Reconstruction(**{f.name: getattr(whole, f.name) for f in fields(whole)}, facts=facts)
    return cast(Reconstruction[np.ndarray], as_numpy(found)) if numpy else found


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


def _single_coil(stack: Tensor, mask: Tensor | np.ndarray | None, is_complex: bool) -> list[tuple[Tensor, KSpaceMask]]:
    """Slices of a single coil as one batch; each on its own where they were sampled differently."""
    masks = [sampled_positions(item, mask) for item in stack]
    alike = all(torch.equal(other, masks[0]) for other in masks)
    shape = (1, *stack.shape[-2:])
    dtype = stack.dtype if is_complex else stack.real.dtype
    batches = [(stack, masks[0])] if alike else list(zip(stack[:, None], masks, strict=True))
    return [(y * sampled, KSpaceMask(sampled, shape, dtype)) for y, sampled in batches]


def _signs(images: Tensor) -> Tensor:
    """Whether real images ``(B, 1, H, W)`` are mostly positive or negative, ``(B, 1, 1, 1)``: 1 or -1."""
    weight = (images * images.abs()).sum((-3, -2, -1), keepdim=True)
    return torch.where(weight < 0, -1.0, 1.0)


def _single_facts(y: Tensor, operator: KSpaceMask, noise: GaussianNoise | None) -> list[SliceFacts]:
    sampling = acceleration(operator.mask)
    facts: SliceFacts = {"coils": 1, "coils_used": 1, "acceleration": sampling, "maps": "none", "phase": "none"}
    if operator.is_complex:
        return [facts.copy() for _ in y]
    sigma = estimate_sigma(y, operator) if noise is None else y.real.new_full((len(y),), noise.sigma)
    return [{**facts, "imaginary_share": float(share)} for share in imaginary_share(y, operator.mask, sigma)]


def _maps_of_slices(maps: Tensor | np.ndarray | None, stack: Tensor) -> Tensor | None:
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
