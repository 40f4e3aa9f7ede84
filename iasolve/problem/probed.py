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

_INSIDE = 30
"""Iterations of a probe inside an operator's support. Of 8 coils all rings are told to 0.001 by then; what is known of
the air around them goes on changing for hundreds."""

_PROFILES: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[object, ...], Tensor]] = weakref.WeakKeyDictionary()


class Probed(NamedTuple):
    """What probes are sent through: the operator on the image grid, a measurement ``y`` for its kind, and the grid."""

    operator: LinearOperator
    y: Tensor
    power: Tensor
    rings: RingGrid

    def profile(self, sigma: float) -> Tensor:
        """Evidence profile ``(2, S)`` at a noise level, of what lies in the operator's support."""
        spectra, probes = ring_probes(self.operator, self.rings)
        support = self.operator.support()
        if support is not None:
            probes = probes * support
        level = torch.full((1,), sigma, device=self.y.device)
        likelihood = OperatorLikelihood(self.operator, self.y[:1], level)
        # one by one: together, all would take as many iterations as the slowest
        most = 200 if support is None else _INSIDE
        answers = torch.cat([likelihood.resolved(probe[None], self.power, _SHARE, most) for probe in probes])
        if support is not None:
            answers = answers * support
        asked, answer, own = fft2(probes), fft2(answers), spectra != 0
        tiny = torch.finfo(self.power.dtype).tiny
        whole, ring = (_energy(asked, where).clamp_min(tiny) for where in (torch.ones_like(own), own))
        mean = ((asked.conj() * answer).real.flatten(1).sum(1) / whole).clamp(0, 1)
        square = (_energy(answer, own) / ring).clamp(0, 1)
        return torch.stack([mean, torch.maximum(square, mean.square())])


def _energy(spectra: Tensor, where: Tensor) -> Tensor:
    return (spectra.abs().square() * where).flatten(1).sum(1)


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
