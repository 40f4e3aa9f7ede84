"""The rival of a trained prior: the stationary Gaussian with the same power, its level fitted to the measurement.

Its posterior mean is a Wiener estimate; over ``x >= 0``, where the prior's images hold no negative value, its mode. To
a solver it is a decoder that puts out zero and leaves everything unexplained: ``x0 = 0``, ``V = P``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.classical import total_variation
from iasolve.inference.objective import Noise
from iasolve.priors import Prior
from iasolve.problem.closing import Closing, closest_image
from iasolve.problem.geometry import Whole
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import Options, Watch
from iasolve.problem.pose import Problem, pose
from iasolve.spectrum import largest_radius

__all__ = ["Answer", "Gaussian", "fitted_power"]

FLAT = 30.0
"""Weight of the total variation that a prior is compared with, over the image's standard deviation."""

EXACTLY = 0.1
"""How much smaller than a solution's the tolerance of a trial's Wiener filter is. Conjugate gradients that end early
are not linear, and what they left out moved three of four heads in 60 projections to the Gaussian, 3 to 6 dB below."""


class Answer(NamedTuple):
    """In the user's units: ``image`` ``(B, C, H, W)``, and with samples ``std`` and ``samples`` ``(K, B, C, H, W)``."""

    image: Tensor
    std: Tensor | None = None
    samples: Tensor | None = None


def fitted_power(problem: Problem, iterations: int = 20) -> Tensor:
    """The prior's power, its level fitted to a measurement band by band, ``(B, C, H, W)``.

    Bands are half an octave wide. A level ``t`` of a band is the most likely one of a Gaussian of power ``t P``, by
    Fisher scoring, under a prior that takes its logarithm for 0 with a standard deviation of 1: bands that were hardly
    measured keep the prior's level.
    """
    likelihood = problem.likelihood
    power = problem.power.expand_as(problem.estimate)
    if likelihood.folded is None:
        nothing = torch.zeros_like(problem.estimate)
        most = 1e4 * problem.rings.means(problem.power)
        return likelihood.unexplained(nothing, problem.power, problem.rings, most)
    value, variance = likelihood.folded
    squared = value.real.square() + value.imag.square()
    height, width = power.shape[-2:]
    r = largest_radius(height, width) * max(height, width)
    band = torch.where(r > 0, torch.floor(2 * torch.log2(r.clamp_min(1))) + 1, 0.0).long().to(power.device).flatten()
    count = int(band.max()) + 1

    def sums(values: Tensor) -> Tensor:
        flat = values.sum(1).flatten(1)
        return flat.new_zeros(len(flat), count).index_add(1, band, flat)

    def spread(levels: Tensor) -> Tensor:
        return levels[:, band].reshape(-1, 1, height, width)

    surplus = torch.where(torch.isfinite(variance), squared - variance, 0.0)
    # of a real image k and -k are one number
    doubt = 1.0 if likelihood.is_complex else 2.0
    level = power.new_ones(len(power), count)
    for _ in range(iterations):
        weight = power / (spread(level) * power + variance)
        information = sums(weight.square())
        score = sums(weight.square() / power * surplus)
        own = doubt / level.square()
        level = ((score + own) / (information + own)).clamp_min(1e-6)
    return spread(level) * power


class Gaussian:
    """The stationary Gaussian's answer to a batch of measurements of images of any size.

    Parameters
    ----------
    batch : Measurement
    prior : Prior
        Whose power it has.
    options : Options
    problem : Problem, optional
        The same batch as posed for the prior, image unmoved: taken where it is not in tiles.
    """

    def __init__(self, batch: Measurement, prior: Prior, options: Options, problem: Problem | None = None) -> None:
        if problem is None or type(problem.geometry) is not Whole:
            problem = pose(batch.y, batch.operator, prior, batch.sigma, options, whole=True)
        self.problem, self.options = problem, options
        self.power = fitted_power(problem)
        self.zero = torch.zeros_like(self.power) if not problem.likelihood.is_complex else 0j * self.power
        rows, columns = (math.prod(shape) for shape in (batch.operator.out_shape, batch.operator.in_shape))
        if batch.y.is_complex() and not batch.operator.is_complex:
            rows *= 2  # the real part and the imaginary one
        self.missing = max(0.0, 1 - rows / columns)
        """Share of the image's dimensions that the operator has no row for."""

    @property
    def expected(self) -> Tensor:
        """The power in the user's units, ``(B, C, H, W)``."""
        return self.power * self.problem.gain.square().reshape(-1, 1, 1, 1)

    @property
    def unseen(self) -> Tensor:
        """Expected energy of what was not measured at all, in the user's units, ``(B,)``.

        That at the frequencies of which nothing was measured; off the exact path, where an operator with fewer rows
        than columns leaves out a part of every frequency, the same part of all but the mean's.
        """
        folded = self.problem.likelihood.folded
        if folded is None:
            energy = self.expected.flatten(2)
            return self.missing * energy[..., 1:].sum((1, 2))
        return (self.expected * torch.isinf(folded.variance)).flatten(1).sum(1)

    def image(self, nonnegative: bool) -> Tensor:
        """The Wiener estimate, or over ``x >= 0`` the mode, in the user's units.

        Off the exact path, where the mode costs hundreds of applications of the operator, negative values become 0.
        """
        likelihood = self.problem.likelihood
        if nonnegative and likelihood.folded is not None:
            return self._shown(closest_image(likelihood, self.zero, self.power, True).image)
        return self._shown(self._mean.clamp_min(0) if nonnegative else self._mean)

    @cached_property
    def _mean(self) -> Tensor:
        return self.problem.likelihood.mean(self.zero, self.power)

    @property
    def linear(self) -> Callable[[Tensor], Tensor] | None:
        """The same Wiener filter's estimate of other measurements ``(B, *out_shape)``; None on the exact path."""
        other = self.problem.likelihood.other
        return (
            None if other is None else lambda y: other(y, EXACTLY * self.options.tolerance).mean(self.zero, self.power)
        )

    def flat(self, like: Tensor) -> Tensor | None:
        """What total variation makes of the measurement, its weight by the deviation of an image, in the user's units.

        None of complex images, and off the exact path. One weight tells flat images: with the best of five, errors are
        nearly the same on all strange images.
        """
        folded = self.problem.likelihood.folded
        if folded is None or self.problem.likelihood.is_complex:
            return None
        deviation = like.flatten(2).std(2) / self.problem.gain.reshape(-1, 1)
        precision = 1 / folded.variance.expand(folded.value.shape)
        weight = FLAT / deviation.clamp_min(torch.finfo(deviation.dtype).tiny)
        return self._shown(total_variation(precision, folded.value, weight, tolerance=1e-3, max_iterations=200).image)

    def answer(self, bounded: Tensor, samples: int, watch: Watch) -> Answer:
        """The estimate, ``x >= 0`` where ``bounded`` ``(B,)``, with its error bar from posterior samples."""
        limit = torch.where(bounded, 0.0, -torch.inf).reshape(-1, 1, 1, 1)
        image = self.image(False)
        if bool(bounded.any()):
            image = torch.where(limit == 0, self.image(True), image)
        if not samples:
            return Answer(image)
        problem, options = self.problem, self.options
        closing = Closing(
            problem.likelihood, self.zero, self.power, problem.power, "stationary", False, options.tolerance
        )
        noise = Noise(options.seed, self.power.device, self.power.dtype)
        means, draws = [], []
        for number in range(samples):
            count = iter(range(9))
            mean, draw = closing.draw(self.zero, lambda shape: noise(shape, f"gaussian {number}", next(count)))  # noqa: B023
            means.append(mean)
            draws.append(draw)
            watch.tell("sample", number + 1, samples)
        drawn, mean = torch.stack(draws), torch.stack(means)
        std = problem.gain.reshape(-1, 1, 1, 1) * closing.error_bar(mean, drawn)
        around = torch.stack([self._shown(one) for one in drawn - mean]) + image
        if not image.is_complex():
            around = torch.maximum(around, limit)
        return Answer(image, problem.crop(std), around)

    def _shown(self, x: Tensor) -> Tensor:
        return self.problem.crop(self.problem.gain.reshape(-1, 1, 1, 1) * x)
