"""What a measurement tells of each ring of frequencies, where the operator is not diagonal: by probes.

A probe has unit magnitudes and random phases in one ring (Hutchinson's estimator of a trace). What the Wiener estimate
makes of its noise-free measurement tells the mean of the ring's resolution, and of its square.
"""

from __future__ import annotations

import math
import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator
from iasolve.operators.probes import ring_probes
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.spectrum import RingGrid, fft2

__all__ = ["Probed", "probed_profile"]

_SHARE = 0.01
"""Change of a ring's resolution by one iteration below which a probe's solve ends: what is left is about as much. By
the objective, a probe of few frequencies ended at once, and the coarse rings of sampled pixels, of which all is known,
were taken for as well known as there were pixels."""

_PROFILES: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[object, ...], Tensor]] = weakref.WeakKeyDictionary()


class Probed(NamedTuple):
    """What probes are sent through: the operator on the image grid, a measurement ``y`` for its kind, and the grid."""

    operator: LinearOperator
    y: Tensor
    power: Tensor
    rings: RingGrid

    def profile(self, sigma: float) -> Tensor:
        """Evidence profile ``(2, S)`` at a noise level."""
        spectra, probes = ring_probes(self.operator, self.rings)
        level = torch.full((1,), sigma, device=self.y.device)
        likelihood = OperatorLikelihood(self.operator, self.y[:1], level)
        # one by one: together, all would take as many iterations as the slowest
        answer = torch.cat([fft2(likelihood.resolved(probe[None], self.power, _SHARE)) for probe in probes])
        sizes = self.rings.counts.clamp_min(1).to(self.power.dtype) * spectra.shape[1]
        mean = ((spectra.conj() * answer).real.flatten(1).sum(1) / sizes).clamp(0, 1)
        square = ((answer.abs().square() * (spectra != 0)).flatten(1).sum(1) / sizes).clamp(0, 1)
        return torch.stack([mean, torch.maximum(square, mean.square())])


def probed_profile(operator: LinearOperator, probed: Probed, sigma: Tensor) -> Tensor:
    """Evidence profile ``(B, 2, S)``.

    The noise level is rounded to 5 %, so that images of a batch, and later calls with the same ``operator``, share
    probes; that on the image grid is another object in every call.
    """
    cache = _PROFILES.setdefault(operator, {})
    levels = [round(math.log(float(s)) / math.log(1.05)) for s in sigma]
    y, power = probed.y, probed.power
    base = (str(y.device), y.dtype, tuple(power.shape[-2:]), float(power.sum()))
    for level in sorted(set(levels)):
        if (*base, level) not in cache:
            cache[(*base, level)] = probed.profile(1.05**level)
    return torch.stack([cache[(*base, level)] for level in levels])
