"""Noise models: what stands between ``A x`` and the measurement.

Every model can be reduced to white Gaussian noise, the one that solvers know: :meth:`NoiseModel.whitened`.
For noise that is correlated between receive coils see :mod:`iasolve.operators.coil_noise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_floating
from iasolve.operators.whitening import Weighting

__all__ = ["GaussianNoise", "NoiseModel", "PoissonNoise", "WeightedGaussianNoise", "Whitened"]


class NoiseModel(Protocol):
    """What a noise model answers.

    Examples
    --------
    Noise of your own is any object with these two methods. This one counts what it was asked:

    >>> class Counting(GaussianNoise):
    ...     asked = 0
    ...
    ...     def whitened(self, y, operator):
    ...         Counting.asked += 1
    ...         return super().whitened(y, operator)
    >>> from iasolve.operators import Identity
    >>> problem = Counting(0.1).whitened(torch.zeros(1, 8, 8), Identity((1, 8, 8)))
    >>> problem.noise.sigma, Counting.asked
    (0.1, 1)
    """

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A measurement of ``clean``, of the same shape and kind."""

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """The same problem with white Gaussian noise: ``W y``, ``W A``, and the noise of ``W y``."""


class Whitened(NamedTuple):
    """A problem with white Gaussian noise: measurement ``W y``, operator ``W A``, and the noise of ``W y``."""

    y: Tensor
    operator: LinearOperator
    noise: GaussianNoise


@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise.

    Attributes
    ----------
    sigma : float
        Root mean square of a noise value, complex or real, in the measurement's units: a complex value has
        variance ``sigma^2 / 2`` in each part.

    Examples
    --------
    >>> noise = GaussianNoise(0.1)
    >>> noisy = noise.sample(torch.zeros(256, 256), torch.Generator().manual_seed(0))
    >>> round(float(noisy.std()), 2)
    0.1
    """

    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"a noise level must be finite and not negative, got {self.sigma}")

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``clean`` plus noise of the same kind, real or complex."""
        clean = as_floating(clean)
        noise = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        return clean + self.sigma * noise

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """The problem as it is."""
        return Whitened(y, operator, self)


class WeightedGaussianNoise:
    """Independent Gaussian noise with a level of its own for each value.

    Parameters
    ----------
    sigma : Tensor
        Root mean square of each noise value, complex or real, positive and finite, broadcastable to the measurement.

    Raises
    ------
    ValueError
        For levels that are not positive and finite.

    Examples
    --------
    >>> from iasolve.operators import Identity
    >>> noise = WeightedGaussianNoise(torch.tensor([[1.0, 2.0]]).expand(8, 2))
    >>> white = noise.whitened(torch.full((1, 8, 2), 4.0), Identity((1, 8, 2)))
    >>> white.y[0, 0].tolist(), white.noise
    ([4.0, 2.0], GaussianNoise(sigma=1.0))
    """

    def __init__(self, sigma: Tensor) -> None:
        sigma = torch.as_tensor(sigma)
        if sigma.is_complex() or not bool((torch.isfinite(sigma) & (sigma > 0)).all()):
            raise ValueError(
                "noise levels must be real, positive and finite: leave values that say nothing out by a mask"
            )
        self.sigma = sigma

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``clean`` plus noise of the same kind, real or complex."""
        clean = as_floating(clean)
        noise = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        return clean + self._level(clean) * noise

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """Every value divided by its level; unit white noise. Masked k-space stays diagonal.

        Raises
        ------
        ValueError
            When ``sigma`` does not broadcast to ``operator.out_shape``.
        """
        weighting = Weighting(1 / self.sigma.double(), operator.out_shape, operator.out_dtype, basis=operator.codomain)
        weighting = weighting.to(y.device)
        return Whitened(weighting(y), weighting @ operator, GaussianNoise(1.0))

    def _level(self, like: Tensor) -> Tensor:
        try:
            fits = torch.broadcast_shapes(self.sigma.shape, like.shape) == like.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"the noise levels have shape {tuple(self.sigma.shape)}, the values {tuple(like.shape)}: "
                "the levels must broadcast to the values"
            )
        return self.sigma.to(like.device, like.real.dtype)


@dataclass(frozen=True)
class PoissonNoise:
    """Counting noise: ``gain * y ~ Poisson(gain * clean)``; ``y`` has mean ``clean`` and variance ``clean / gain``.

    Samples are exact. Whitening takes the *weighted Gaussian form* of Mighell (1999, Astrophys. J.
    518:380): with counts ``n = gain * y``, the values ``(n + min(n, 1)) / gain`` have noise of variance
    ``(n + 1) / gain^2``. The weighted mean of values of equal intensity is then unbiased at any count, whereas
    the plain choice (variance ``n``) loses about one count and breaks down at zero.

    Attributes
    ----------
    gain : float
        Counts per unit of the measurement: the peak count, if the clean image's peak is 1.

    Examples
    --------
    >>> noise = PoissonNoise(50.0)
    >>> counts = 50 * noise.sample(torch.ones(64, 64), torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(counts, counts.round(), atol=1e-4)), round(float(counts.mean()))
    (True, 50)
    """

    gain: float

    follows_measurement: ClassVar[bool] = True
    """Whitening depends on the measurement: :func:`iasolve.solve` whitens the items of a batch one by one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"the gain of Poisson noise must be positive and finite, got {self.gain}")

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts of mean ``gain * clean``, over the gain.

        Raises
        ------
        ValueError
            For complex, negative or NaN values.
        """
        return (
            torch.poisson(self.gain * _intensity(as_floating(clean), "clean values"), generator=generator) / self.gain
        )

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """The weighted Gaussian form; unit white noise.

        The weights come from the measurement, so that each has an operator of its own.

        Raises
        ------
        ValueError
            For a batch of measurements, and for complex or negative values.
        """
        if tuple(y.shape) != operator.out_shape:
            raise ValueError(
                f"Poisson weights belong to one measurement of shape {operator.out_shape}, got {tuple(y.shape)}: "
                "whiten the measurements of a batch one by one"
            )
        y = as_floating(y)
        counts = self.gain * _intensity(y, "measured values").double()
        shifted = ((counts + counts.clamp_max(1)) / self.gain).to(y.dtype)
        return WeightedGaussianNoise((counts + 1).sqrt() / self.gain).whitened(shifted, operator)


def _intensity(values: Tensor, name: str) -> Tensor:
    if values.is_complex():
        raise ValueError(f"Poisson noise is of real intensities, got {name} of {values.dtype}")
    if not bool((values >= 0).all()):
        raise ValueError(f"Poisson noise is of intensities: the {name} must not be negative or NaN")
    return values
