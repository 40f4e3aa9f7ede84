"""The noise model of an image or of k-space, when the user does not give one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from iasolve.noise_level.spectral import READABLE, RingLevels, ring_levels
from iasolve.noise_level.white import estimate_sigma
from iasolve.operators.base import LinearOperator
from iasolve.operators.noise import GaussianNoise, Whitened
from iasolve.operators.rician import RicianNoise
from iasolve.operators.spectral_noise import SpectralNoise

__all__ = ["KINDS", "EstimatedNoise", "coloured", "estimate_noise"]

KINDS = ("auto", "gaussian", "spectral", "rician")
"""What noise may be taken for."""

_DEVIATIONS = 4.0  # of chi-square from its mean
_SMALLEST = 0.15  # relative difference of levels that matters


@dataclass(frozen=True)
class EstimatedNoise:
    """Noise of a known kind and an unknown level, which each measurement tells: see :func:`estimate_noise`.

    Examples
    --------
    >>> from iasolve.operators import Identity
    >>> from iasolve.samples import load_samples
    >>> clean = torch.from_numpy(load_samples().images[:1]).float()
    >>> y = RicianNoise(10.0).sample(clean, torch.Generator().manual_seed(0))
    >>> 9 < EstimatedNoise("rician").whitened(y, Identity((1, 128, 128))).noise.sigma < 11
    True
    """

    kind: str = "auto"

    follows_measurement: ClassVar[bool] = True
    """See :class:`iasolve.operators.RicianNoise`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the kind of noise is {self.kind!r}, expected one of {', '.join(KINDS)}")

    def model(self, y: Tensor, operator: LinearOperator) -> GaussianNoise | SpectralNoise | RicianNoise:
        """The noise of one measurement."""
        return estimate_noise(y, operator, self.kind)

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """By the model of this measurement."""
        return self.model(y, operator).whitened(y, operator)


def estimate_noise(
    y: Tensor, operator: LinearOperator, kind: str = "auto"
) -> GaussianNoise | SpectralNoise | RicianNoise:
    """Noise of one image or one k-space, in its units.

    K-space: :class:`GaussianNoise` with the level of :func:`estimate_sigma`. Images: a level per ring of frequencies
    by :func:`ring_levels`; :class:`SpectralNoise` where the levels differ by more than 15 % and by more than their
    errors explain, else :class:`GaussianNoise`. Images too small or too flat for that have the level of
    :func:`estimate_sigma`; a blank image has level 0.

    Parameters
    ----------
    y : Tensor
        ``(*operator.out_shape)``, of any real or complex dtype.
    operator : LinearOperator
        Puts out images or k-space: its codomain says which.
    kind : {"auto", "gaussian", "spectral", "rician"}
        ``"auto"``: as above. ``"gaussian"``: one level. ``"spectral"``: a level per ring, however little they differ.
        ``"rician"``: that of magnitudes, with the one level.

    Raises
    ------
    ValueError
        When the operator's codomain is neither, ``y`` has another shape or fewer than 8 x 8 values, or is not such
        that it could have noise of the kind.

    Examples
    --------
    >>> from iasolve.operators import Identity
    >>> from iasolve.samples import load_samples
    >>> clean = torch.from_numpy(load_samples().images[:1]).float()
    >>> y = GaussianNoise(10.0).sample(clean, torch.Generator().manual_seed(0))
    >>> 9.5 < estimate_noise(y, Identity((1, 128, 128))).sigma < 10.5
    True
    >>> y = SpectralNoise((20.0, 10.0, 5.0, 5.0)).sample(clean, torch.Generator().manual_seed(0))
    >>> found = estimate_noise(y, Identity((1, 128, 128)))
    >>> type(found).__name__, len(found.levels)
    ('SpectralNoise', 16)
    """
    if operator.codomain is None:
        raise ValueError(
            f"cannot estimate the noise of what {type(operator).__name__} puts out, {operator.out_shape}: it is "
            "neither an image nor k-space (codomain None); give the noise model"
        )
    if tuple(y.shape) != operator.out_shape:
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, expected one of {operator.out_shape}: estimate the noise of "
            "a batch one by one"
        )
    if kind == "rician":
        if operator.codomain != "image" or y.is_complex() or bool((y < 0).any()):
            raise ValueError(
                f"Rician noise is of magnitude images, the measurement is {operator.codomain}, {y.dtype}, with values "
                f"from {float(y.real.min()):.3g}: expected a real image without a negative value. Take 'gaussian'"
            )
        white = estimate_noise(y, operator, "gaussian").sigma
        return RicianNoise(white) if white > 0 else GaussianNoise(0.0)
    found = ring_levels(y) if operator.codomain == "image" else None
    if found is None and kind == "spectral":
        raise ValueError(
            f"the noise of a measurement of {tuple(y.shape)} cannot be told ring by ring: expected an image with at "
            "least ten blocks of 16 x 16 pixels that are neither constant nor clipped. Take 'gaussian'"
        )
    if found is None:
        return GaussianNoise(float(estimate_sigma(y[None], operator)[0]))
    if kind == "spectral" or (kind == "auto" and coloured(found)):
        return SpectralNoise(found.levels)
    finest = found.levels[len(found.levels) // 2 :]
    weight = 2 * torch.arange(len(found.levels) // 2, len(found.levels)).double() + 1
    return GaussianNoise(float(((weight * finest.square()).sum() / weight.sum()).sqrt()))


def coloured(found: RingLevels) -> bool:
    """Whether levels differ by more than their errors and by more than 15 %, rings that are mostly image left out."""
    levels, error = found.levels[READABLE:], found.error[READABLE:]
    mean = (levels / error.square()).sum() / (1 / error.square()).sum()
    if mean == 0:
        return False
    off = levels / mean - 1
    chi_square = float((off / error).square().sum())
    explained = len(off) + _DEVIATIONS * math.sqrt(2 * len(off))
    return chi_square > explained and float(off.abs().max()) > _SMALLEST
