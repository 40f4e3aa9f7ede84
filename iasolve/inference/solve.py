"""``solve``: from a measurement to an image with an error bar.

A solution goes through the functions of this file from top to bottom: a measurement is checked and whitened, each batch
of it is tried, then solved in as many views as the recipe has, and a view is posed, guessed, read again, refined,
closed and sampled. Where the trial goes against the prior, the stationary Gaussian answers (:mod:`.fallback`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack, overload

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.choice import choose_prior, fitting
from iasolve.inference.fallback import better, verdict
from iasolve.inference.gaussian import Gaussian
from iasolve.inference.memory import as_memory_allows, cut
from iasolve.inference.passes import (
    by_scale,
    moves,
)
from iasolve.inference.result import Result, as_numpy, join
from iasolve.inference.unlike import (
    below_zero,
    likeness_of,
    structureless,
    warn_signed,
    warn_unlike,
)
from iasolve.inference.view import WHOLE, descends, joined, quick, read_view, reads, solve_view
from iasolve.inference.windows import least_window, solve_windows
from iasolve.noise_level import EstimatedNoise
from iasolve.noise_level.residual import residual_of
from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.conventions import check_operator_kind
from iasolve.operators.noise import NoiseModel
from iasolve.priors import Prior
from iasolve.problem.measurement import Measurement, check, whitened
from iasolve.problem.options import Callback, Options, SolveOptions, Watch
from iasolve.problem.pose import Problem
from iasolve.recipe import Recipe, RecipeError, load_recipe

__all__ = ["solve", "with_samples", "without_steps"]


@overload
def solve(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | None = None,
    *,
    noise: NoiseModel | EstimatedNoise | None = None,
    recipe: str | Path | Recipe | None = None,
    callback: Callback | None = None,
    **options: Unpack[SolveOptions],
) -> Result[Tensor]: ...


@overload
def solve(
    y: np.ndarray,
    operator: LinearOperator,
    prior: Prior | None = None,
    *,
    noise: NoiseModel | EstimatedNoise | None = None,
    recipe: str | Path | Recipe | None = None,
    callback: Callback | None = None,
    **options: Unpack[SolveOptions],
) -> Result[np.ndarray]: ...


def solve(
    y: Tensor | np.ndarray,
    operator: LinearOperator,
    prior: Prior | None = None,
    *,
    noise: NoiseModel | EstimatedNoise | None = None,
    recipe: str | Path | Recipe | None = None,
    callback: Callback | None = None,
    **options: Unpack[SolveOptions],
) -> Result[Tensor] | Result[np.ndarray]:
    """Solve ``y = A x + noise`` for ``x`` with an error bar.

    The work is done on the prior's device (``prior.to("cuda")``), wherever ``y`` and the operator are.

    Parameters
    ----------
    y : Tensor or array
        Measurement ``(..., *operator.out_shape)``.
    operator : LinearOperator
        ``A``, from images ``(C, H, W)`` of any size.
    prior : Prior, optional
        See :func:`iasolve.load_prior`; without it the installed one that answers best for a part of the measurement
        that it has not seen (:func:`iasolve.inference.choose_prior`).
    noise : NoiseModel, optional
        Noise of ``y``, in ``y``'s units, e.g. :class:`~iasolve.operators.GaussianNoise`, or
        :class:`~iasolve.noise_level.EstimatedNoise` of a known kind; any other model is brought
        to white noise first (``noise.whitened``), and the result's ``sigma`` is then that of the white noise.
        Without it the level is estimated from ``y`` and reported; of images, a level for each ring of frequencies where
        they differ (:func:`iasolve.noise_level.estimate_noise`), and ``sigma`` is then their root mean square.
    recipe : str, path or Recipe, optional
        Name of a ready recipe, a TOML file, or a recipe; without it the ready one that is made for the operator
        (:meth:`iasolve.Recipe.for_operator`; the result says which).
    callback : callable, optional
        Called with a :class:`~iasolve.problem.options.Status` at every stage.
    **options
        ``samples``, ``seed``, ``fit``, ``overlap``, ``nonnegative``, ``batch_size``, ``memory``, ``warn``,
        ``fallback``, ``offset``, ``iterations``, ``tolerance``, ``force_general``: see
        :class:`~iasolve.problem.options.Options`.

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
    BudgetError
        When ``memory`` does not suffice for one tile at a time.

    Examples
    --------
    >>> import iasolve
    >>> from iasolve.operators import GaussianNoise, Identity
    >>> from iasolve.samples import load_samples
    >>> clean = torch.from_numpy(load_samples().images[:1]).float()
    >>> y = GaussianNoise(12.0).sample(clean, torch.Generator().manual_seed(0))
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> result = iasolve.solve(y, Identity((1, 128, 128)), prior, noise=GaussianNoise(12.0), recipe="fast")
    >>> result.image.shape
    torch.Size([1, 128, 128])
    >>> bool((result.image - clean).std() < 0.5 * (y - clean).std())
    True
    """
    check_operator_kind(operator)
    asked = Options(**options)
    if noise is not None and not hasattr(noise, "whitened"):
        raise TypeError(f"noise must be a noise model, as in noise=GaussianNoise(0.1), got {noise!r}")
    if prior is None:
        running = fitting(operator, as_tensor(y).device)
        if recipe is not None and load_recipe(recipe).takes_steps:
            # a reader alone takes none
            running = [one for one in running if one.descends] or running
        prior = choose_prior(y, operator, running, noise=noise, **options).prior
    if not hasattr(prior, "spectrum"):
        raise TypeError(f"the prior is {prior!r}, expected a prior, as iasolve.load_prior returns it by name")
    resolved, chosen = _resolve(recipe, operator, prior, asked)
    values = as_tensor(y)
    if operator.out_dtype.is_complex and not values.is_complex():
        # k-space that happens to be stored as real numbers carries complex noise all the same
        values = values.to(torch.promote_types(values.dtype, torch.complex64))
    check(values, operator, prior)
    lead = values.shape[: values.ndim - len(operator.out_shape)]
    flat = values.reshape(-1, *operator.out_shape)
    height, width = operator.in_shape[1:]
    size = cut(prior, resolved, (height, width), asked, least=partial(least_window, operator))
    of_pixels = operator.codomain == "image" or operator.row_gains() is not None
    signed = asked.warn and asked.nonnegative and prior.nonnegative and of_pixels
    watch = Watch(callback, len(flat))
    parts, negative, blank = [], [], []

    def work(batch: Measurement, bounded: Prior) -> Result[Tensor]:
        found = _solve_batch(batch, bounded, resolved, asked, watch)
        watch.finish(len(batch.y))
        return found

    def work_on_window(part: Measurement, number: int) -> Result[Tensor]:
        # each with random numbers of its own, or samples would repeat from window to window
        own = replace(asked, seed=asked.seed + number)
        (found,) = as_memory_allows(
            lambda one, bounded: _solve_batch(one, bounded, resolved, own, Watch()), part, prior, size
        )
        return replace(found, seed=asked.seed)

    # what is estimated is estimated of the images at work: a file solved in pieces gives the same
    known = noise is not None and not isinstance(noise, EstimatedNoise)
    for group in [flat] if known else flat.split(size.images):
        for piece in (one.shifted(prior, asked.offset) for one in whitened(group, operator, noise, prior, asked)):
            for batch in piece.batches(size.images):
                if size.window is None:
                    parts += as_memory_allows(work, batch, prior, size)
                else:
                    parts.append(solve_windows(batch, size.window, work_on_window, watch))
                    watch.finish(len(batch.y))
            if signed:
                negative.append(below_zero(piece))
            if asked.warn and size.window is None:
                blank.append(structureless(piece))
    warn_signed(negative, prior)
    joined = join(parts, lead, values.device)
    if asked.warn:
        warn_unlike(joined, prior, idle=not resolved.takes_steps, blank=bool(blank) and all(blank))
    result = replace(joined, chosen=chosen, seconds=watch.seconds)
    return as_numpy(result) if isinstance(y, np.ndarray) else result


def _resolve(
    recipe: str | Path | Recipe | None, operator: LinearOperator, prior: Prior, options: Options
) -> tuple[Recipe, str]:
    """The recipe, and why it is this one."""
    found = Recipe.for_operator(operator) if recipe is None else load_recipe(recipe)
    chosen = f"{found.name!r} is the recipe for {type(operator).__name__}" if recipe is None else ""
    found = with_samples(found, options)
    found.check_scales(prior.spectrum.scales)
    if not prior.descends:
        if recipe is None and found.takes_steps:
            found = without_steps(found, prior)
            chosen += f", without its steps: {prior.name!r} is a reader alone"
        _refuse_descent(found, prior)
    return found, chosen


def with_samples(recipe: Recipe, options: Options) -> Recipe:
    """The recipe, with as many samples as the options ask for."""
    return recipe if options.samples is None else recipe.changed(samples=options.samples)


def without_steps(recipe: Recipe, prior: Prior) -> Recipe:
    """A recipe that was not asked for, for a prior that may be a reader alone: that takes no steps."""
    return recipe if prior.descends or not recipe.takes_steps else recipe.changed(steps={"count": 0})


def _refuse_descent(recipe: Recipe, prior: Prior) -> None:
    for key, impossible in (
        ("steps.count", recipe.takes_steps),
        ("guess.stop", recipe.guess.stop not in WHOLE),
    ):
        if impossible:
            raise RecipeError(
                f"the prior {prior.name!r} is a reader alone, without latents, and the recipe {recipe.name!r} needs "
                f"them (its key {key!r}): take the recipe 'fast', or steps.count = 0 and guess.stop = 'all'"
            )


@torch.no_grad()
def _solve_batch(batch: Measurement, prior: Prior, recipe: Recipe, options: Options, watch: Watch) -> Result[Tensor]:
    """The prior's answer, or the Gaussian's where that prior does not fit."""
    found = verdict(batch, prior, recipe, options)
    # where the prior fits no image of the batch, only the report is its own
    asked = recipe if found is None or bool(found.fits.any()) else quick(recipe)
    result, problem = _answer(batch, prior, asked, options, watch, None if found is None else found.surplus)
    if found is not None:
        result = replace(result, variation=found.variation)
        rival = partial(Gaussian, batch, prior, options, problem)
        result = better(batch, result, found, rival, recipe.samples, watch)
    support = batch.operator.support()
    inside = 1 if support is None else support  # outside of it nothing was measured, because nothing is there
    offset = 0 if batch.offset is None else batch.offset.reshape(-1, 1, 1, 1)
    std = None if result.std is None else result.std * inside
    samples = None if result.samples is None else (result.samples + offset) * inside
    return replace(result, image=(result.image + offset) * inside, std=std, samples=samples, recipe=recipe)


def _answer(
    batch: Measurement, prior: Prior, recipe: Recipe, options: Options, watch: Watch, surplus: Tensor | None
) -> tuple[Result[Tensor], Problem]:
    """The mean of all views; samples, error bars and reports are the first one's: of one posterior, about the mean."""
    count, nonnegative, quiet = 1, options.nonnegative and prior.nonnegative, recipe.changed(samples=0)
    if reads(prior, recipe):
        # the error that the reader expects is that of its first reading; passes ask the latents, if there are any
        latent = bool(recipe.passes.count) and recipe.takes_steps
        asked = (quiet, recipe) if latent else (recipe, quiet)
        first = read_view(batch, prior, asked[0], options, watch, surplus)
        if descends(prior, recipe):
            solved = solve_view(batch, prior, asked[1], options, watch, start=first)
            first = joined(first, solved, nonnegative, refined=latent)
    else:
        first = solve_view(batch, prior, recipe, options, watch)
        count = recipe.views if moves(prior) else 1
    refined = recipe.steps.views or count if recipe.reads else count
    guessed = quiet.changed(steps={"count": 0})
    others = []
    for number in range(1, count):
        view = solve_view(batch, prior, quiet if number < refined else guessed, options, watch, number)
        others.append((view.image, view.solves))
    image, samples = first.image, first.samples
    if others:
        image = torch.stack([image, *(moved for moved, _ in others)]).mean(0)
        if samples is not None:
            samples = samples + (image - first.image)
            samples = samples.clamp_min(0) if nonnegative else samples
    likeness, distance = likeness_of(first.problem, prior, first.estimate, bound=bool(first.offsets))
    solves = [s for s in (first.solves, *(s for _, s in others)) if s is not None]
    residual = torch.stack([s.residual for s in solves]).amax(0) if solves else None
    applications = sum(s.applications for s in solves)
    result = Result(
        image=image,
        std=first.std,
        samples=samples,
        scales=first.scales,
        sigma=batch.sigma,
        levels=batch.levels,
        gain=first.problem.gain,
        offset=torch.zeros_like(batch.sigma) if batch.offset is None else batch.offset,
        improved=first.improved,
        prior=prior.name,
        fits=torch.ones_like(first.improved),
        weight=torch.ones_like(batch.sigma),
        likeness=likeness,
        distance=distance,
        surplus=torch.ones_like(batch.sigma) if surplus is None or not reads(prior, recipe) else surplus,
        variation=torch.full_like(batch.sigma, torch.nan),
        offsets=by_scale(prior, first.offsets),
        solver=None
        if residual is None
        else {
            "applications": torch.full_like(residual, applications, dtype=torch.int64),
            "residual": residual,
        },
        residual=residual_of(batch.y, batch.operator, image, batch.sigma),
        recipe=recipe,
        chosen="",
        seed=options.seed,
        seconds=0.0,
    )
    return result, first.problem
