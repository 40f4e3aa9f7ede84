"""``reconstruct``: from k-space of one or many coils and slices to images, slice by slice."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Unpack, cast, overload

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.choice import Choice, choose_prior
from iasolve.inference.memory import cut
from iasolve.inference.result import Array, Result, as_numpy, join
from iasolve.inference.solve import solve, with_samples, without_steps
from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.coil_noise import CoilNoise
from iasolve.operators.conventions import check_kspace_order
from iasolve.operators.noise import GaussianNoise
from iasolve.priors import KSPACE_PRIORS, Prior, PriorError, load_kspace_priors
from iasolve.problem.options import Callback, Options, SolveOptions, Status, UnlikePriorWarning, Watch
from iasolve.recipe import Recipe, load_recipe
from iasolve.reconstruction.multicoil import CoilProblem, SliceFacts, pose_coils
from iasolve.reconstruction.single_coil import LARGEST_IMAGINARY, single_coil, single_facts

__all__ = ["ReconstructOptions", "Reconstruction", "choose_kspace_prior", "reconstruct"]


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
        Per slice, how it was posed: see :class:`~iasolve.reconstruction.multicoil.SliceFacts`.

    Examples
    --------
    >>> import iasolve
    >>> from iasolve.samples import load_kspace
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> kspace = load_kspace().kspace[::4, 83:147, 58:122]  # two coils, the centre of k-space: quick
    >>> result = iasolve.reconstruct(kspace, prior, recipe="fast", warn=False)
    >>> isinstance(result, iasolve.Result), len(result.facts)
    (True, 1)
    """

    facts: list[SliceFacts]


@overload
def reconstruct(
    kspace: Tensor,
    prior: Prior | None = None,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    recipe: str | Path | Recipe | None = None,
    callback: Callback | None = None,
    **options: Unpack[ReconstructOptions],
) -> Reconstruction[Tensor]: ...


@overload
def reconstruct(
    kspace: np.ndarray,
    prior: Prior | None = None,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    recipe: str | Path | Recipe | None = None,
    callback: Callback | None = None,
    **options: Unpack[ReconstructOptions],
) -> Reconstruction[np.ndarray]: ...


def reconstruct(
    kspace: Tensor | np.ndarray,
    prior: Prior | None = None,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    recipe: str | Path | Recipe | None = None,
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
    prior : Prior, optional
        Over images of one channel, real or complex; without it the one that :func:`choose_kspace_prior` chooses.
    noise : GaussianNoise or CoilNoise, optional
        Noise of ``kspace``; its level is estimated without.
    recipe : str, path or Recipe, optional
        By default ``compressed-sensing``, without its steps where the prior is a reader alone.
    callback : callable, optional
        See :func:`iasolve.solve`; it counts slices.
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
    >>> kspace = load_kspace().kspace[::4, 83:147, 58:122]  # two coils, the centre of k-space: quick
    >>> result = iasolve.reconstruct(kspace, prior, recipe="fast", warn=False)
    >>> result.image.shape, result.facts[0]["coils"]
    ((1, 64, 64), 2)
    """
    volume = as_tensor(kspace)
    stack = _checked(volume)
    ready: dict[int, CoilProblem] = {}
    if prior is None:
        choice, ready = _choose(stack, list(load_kspace_priors()), noise, ReconstructOptions(**options))
        prior = choice.prior
    if prior.channels != 1:
        raise ValueError(f"k-space is of images of one channel, the prior {prior.name!r} has {prior.channels}")
    if recipe is None:
        recipe = without_steps(load_recipe("compressed-sensing"), prior)
    mask, coils, phase = options.pop("mask", None), options.pop("coils", None), options.pop("phase", "auto")
    maps = options.pop("maps", None)
    solving = cast(SolveOptions, options)
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
        posed = ready.get(number) or pose_coils(
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
                batches = single_coil(stack[group], mask, prior)
                facts[group] = [fact for y, operator in batches for fact in single_facts(y, operator, white)]
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


def choose_kspace_prior(
    kspace: Tensor | np.ndarray,
    priors: Sequence[Prior] | None = None,
    *,
    noise: GaussianNoise | CoilNoise | None = None,
    **options: Unpack[ReconstructOptions],
) -> Choice:
    """Choose among priors for k-space, by its middle slice.

    Parameters
    ----------
    kspace : Tensor or array
        See :func:`reconstruct`.
    priors : sequence of Prior, optional
        Over real images of one channel; by default those that are installed for MR
        (:func:`iasolve.priors.load_kspace_priors`).
    noise, **options
        See :func:`reconstruct`.

    Returns
    -------
    Choice

    Raises
    ------
    ValueError, PriorError
        As :func:`reconstruct` does, and where no prior is installed.

    Examples
    --------
    >>> from iasolve.samples import load_kspace
    >>> kspace = load_kspace().kspace[::4, 83:147, 58:122]  # two coils, the centre of k-space: quick
    >>> sorted(choose_kspace_prior(kspace).errors)
    ['mri-any-128', 'mri-t1-128']
    """
    running = list(load_kspace_priors() if priors is None else priors)
    return _choose(_checked(as_tensor(kspace)), running, noise, options)[0]


def _choose(
    stack: Tensor, running: list[Prior], noise: GaussianNoise | CoilNoise | None, options: ReconstructOptions
) -> tuple[Choice, dict[int, CoilProblem]]:
    """The choice, and by number the slice that was posed for it, as it is for any prior over real images."""
    if not running:
        raise PriorError(f"none of the priors for k-space is installed: {', '.join(KSPACE_PRIORS)}")
    if len(running) == 1:
        return Choice(running[0], {running[0].name: 1.0}), {}
    number = len(stack) // 2
    y, mask, phase = stack[number : number + 1], options.pop("mask", None), options.pop("phase", "auto")
    maps, coils = _maps_of_slices(options.pop("maps", None), stack), options.pop("coils", None)
    solving = cast(SolveOptions, options)
    if y.shape[1] == 1 and maps is None and not isinstance(noise, CoilNoise):
        ((alone, operator),) = single_coil(y, mask, running[0])
        share = single_facts(alone, operator, noise)[0].get("imaginary_share", 0.0)
        if phase == "none" or share < LARGEST_IMAGINARY:
            return choose_prior(alone, operator, running, noise=noise, **solving), {}
    known = None if maps is None else maps[number]
    posed = pose_coils(y[0], is_complex=False, maps=known, mask=mask, coils=coils, noise=noise, phase=phase)
    return choose_prior(posed.y[None], posed.operator, running, noise=posed.noise, **solving), {number: posed}


def _checked(volume: Tensor) -> Tensor:
    """K-space as ``(slices, coils, H, W)``."""
    if volume.ndim not in (3, 4) or not volume.is_complex() or 0 in volume.shape:
        raise ValueError(
            f"expected complex k-space (coils, H, W) or (slices, coils, H, W), got shape {tuple(volume.shape)}, "
            f"{volume.dtype}; a single coil is an axis of length 1: kspace[None]"
        )
    check_kspace_order(volume)
    return volume[None] if volume.ndim == 3 else volume


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
