"""Which of several priors a measurement speaks for.

Every prior makes its quick answer from a part of the measurement, as in :mod:`iasolve.inference.trial`, and the one
whose answer lies closest to the rest is chosen. Where the operator is the identity, a few tiles tell enough; of a
blurred part of a larger scene, a few windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from statistics import fmean
from typing import NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from iasolve.inference.gaussian import Gaussian
from iasolve.inference.trial import Trial, trials
from iasolve.inference.view import quick_answer
from iasolve.inference.windows import TILES, glimpse
from iasolve.noise_level import EstimatedNoise
from iasolve.operators import Identity
from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.conventions import check_operator_kind
from iasolve.operators.noise import NoiseModel
from iasolve.priors import Prior, PriorError, load_fitting
from iasolve.problem.measurement import Measurement, check, whitened
from iasolve.problem.options import Options, SolveOptions
from iasolve.recipe import load_recipe

__all__ = ["Choice", "choose_prior", "fitting"]


LEAD = 1.15
"""Error over the smallest one beyond which a prior is out of the running, and no further samples are kept back for it.
Of 96 validation images at 4x and 8x lines the chosen prior lay 0.036 dB below the best of three on average, for 0.076
with the sum of the errors in place of their geometric mean: one part in which a strong line lies decides a sum."""

PARTS = 4
"""Of sampled lines or points of k-space, a choice keeps one part in so many back, and another. Of those 96 images 12
were more than 0.1 dB below the best; of six parts 14, for four readings more; of three 14, for two less."""


class Choice(NamedTuple):
    """The prior that answered best, and the errors of all.

    Attributes
    ----------
    prior : Prior
    errors : dict of str to float
        By the prior's name: how far its answer lies from the held-out part, over the smallest of these; 1 is the best.
        Of several parts, the geometric mean; of a prior that was left behind, of the parts that it was tried on.

    Examples
    --------
    >>> from iasolve.samples import load_kspace
    >>> from iasolve.reconstruction import choose_kspace_prior
    >>> choice = choose_kspace_prior(load_kspace().kspace[::4, 83:147, 58:122])
    >>> sorted(choice.errors), choice.errors[choice.prior.name]
    (['mri-any-128', 'mri-t1-128'], 1.0)
    """

    prior: Prior
    errors: dict[str, float]


def fitting(operator: LinearOperator, device: torch.device) -> list[Prior]:
    """The installed priors over images such as the operator takes, on a device.

    Raises
    ------
    PriorError
        When there is none.
    """
    channels = operator.in_shape[0]
    priors: list[Prior] = [
        p if p.device == device else p.to(device) for p in load_fitting(channels, operator.is_complex)
    ]
    if not priors:
        kind = "complex" if operator.is_complex else "real"
        raise PriorError(f"no installed prior is over {kind} images of {channels} channel(s): name one, or train one")
    return priors


def choose_prior(
    y: Tensor | np.ndarray,
    operator: LinearOperator,
    priors: Sequence[Prior] | None = None,
    *,
    noise: NoiseModel | EstimatedNoise | None = None,
    **options: Unpack[SolveOptions],
) -> Choice:
    """Choose among priors for a measurement.

    Parameters
    ----------
    y : Tensor or array
        Measurement ``(..., *operator.out_shape)``. One of several images is tried; if they are only noisy, a few tiles
        of three of them.
    operator : LinearOperator
        ``A``, from images ``(C, H, W)``.
    priors : sequence of Prior, optional
        By default those that are installed and are over images as the operator takes them: as many channels, real or
        complex.
    noise, **options
        See :func:`iasolve.solve`.

    Returns
    -------
    Choice

    Raises
    ------
    PriorError
        When no installed prior is over such images.
    ValueError
        When the measurement does not have the operator's shape, or a prior not its kind.

    Examples
    --------
    >>> from iasolve.operators import KSpaceMask, line_mask
    >>> from iasolve.samples import load_samples
    >>> operator = KSpaceMask(line_mask((128, 128), 4, 0.08, seed=0), (1, 128, 128))
    >>> y = operator(torch.from_numpy(load_samples().images[:1, None].astype("float32")))
    >>> choose_prior(y, operator).prior.name
    'mri-t1-128'
    """
    check_operator_kind(operator)
    values = as_tensor(y)
    if operator.out_dtype.is_complex and not values.is_complex():
        values = values.to(torch.promote_types(values.dtype, torch.complex64))
    running = fitting(operator, values.device) if priors is None else list(priors)
    first = running[0]
    check(values, operator, first)
    if len(running) == 1:
        return Choice(first, {first.name: 1.0})
    return _choose(values.reshape(-1, *operator.out_shape), operator, running, noise, Options(**options))


@torch.no_grad()
def _choose(
    y: Tensor,
    operator: LinearOperator,
    priors: Sequence[Prior],
    noise: NoiseModel | EstimatedNoise | None,
    options: Options,
) -> Choice:
    tiled = type(operator) is Identity
    some = y[sorted({len(y) * quarter // 4 for quarter in ((1, 2, 3) if tiled else (2,))})]
    pieces = [one.shifted(priors[0], options.offset) for one in whitened(some, operator, noise, priors[0], options)]
    running, over = list(priors), {prior.name: 1.0 for prior in priors}
    piece = _tiles(pieces)
    logs: dict[str, list[float]] = {name: [] for name in over}
    # several tiles tell enough; off the exact path a part takes longer than the solution with a known prior
    once = len(piece.y) > 1 or operator.transfer() is None
    for trial in islice(trials(piece, options.seed), 1) if once else trials(piece, options.seed, PARTS):
        found = _errors(trial, running, options)
        if min(found) <= 0:
            continue  # nothing was kept back of a blank image
        for prior, error in zip(running, found, strict=True):
            logs[prior.name].append(math.log(error))
        means = {prior.name: fmean(logs[prior.name]) for prior in running}
        over |= {name: math.exp(mean - min(means.values())) for name, mean in means.items()}
        if trial.back is not None:  # elsewhere errors are mostly the noise drawn anew, and alike
            running = [prior for prior in running if over[prior.name] <= LEAD]
        if len(running) == 1:
            break
    return Choice(min(running, key=lambda prior: over[prior.name]), over)


def _errors(trial: Trial, priors: Sequence[Prior], options: Options) -> list[float]:
    """Of each prior, over all images; all in the units of the first one's Gaussian."""
    found: list[float] = []
    rival: Gaussian | None = None
    fast = load_recipe("fast")
    for prior in priors:
        view = quick_answer(trial.seen, prior, fast, options)
        problem, image = view.problem, view.image
        if rival is None:
            rival = Gaussian(trial.seen, prior, options, problem)
        found.append(float(trial.error(image, rival.expected, rival.linear).double().sum()))
    return found


def _tiles(pieces: list[Measurement]) -> Measurement:
    """The tiles that show most, of images with white noise; of other measurements one, whole."""
    plain = [piece for piece in pieces if type(piece.operator) is Identity]
    if not plain:
        return glimpse(pieces[len(pieces) // 2])[0]
    channels, height, width = plain[0].y.shape[1:]
    size = (min(height, 128), min(width, 128))
    cuts: list[tuple[float, Tensor, Tensor]] = []
    for piece in plain:
        for image, sigma in zip(piece.y, piece.sigma, strict=True):
            for top in range(0, height - size[0] + 1, size[0]):
                for left in range(0, width - size[1] + 1, size[1]):
                    tile = image[:, top : top + size[0], left : left + size[1]]
                    cuts.append((float(tile.std()), tile, sigma))
    cuts = sorted(cuts, key=lambda cut: -cut[0])[:TILES]
    operator = Identity((channels, *size), plain[0].operator.in_dtype).to(plain[0].y.device)
    return Measurement(torch.stack([cut[1] for cut in cuts]), torch.stack([cut[2] for cut in cuts]), operator)
