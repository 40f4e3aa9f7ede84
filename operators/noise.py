"""Noise models: what stands between ``A x`` and the measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["GaussianNoise"]


@dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise.

    Attributes
    ----------
    sigma : float
        Root mean square of a noise value, complex or real, in the measurement's units: a complex value has
        variance ``sigma^2 / 2`` in each part.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"a noise level must be finite and not negative, got {self.sigma}")

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``clean`` plus noise of the same kind, real or complex."""
        noise = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        return clean + self.sigma * noise

    def negative_log_likelihood(self, y: Tensor, clean: Tensor) -> Tensor:
        """``-log p(y | clean)`` in nats, summed over all values.

        Raises
        ------
        ValueError
            For ``sigma = 0``, where no density exists.
        """
        if self.sigma == 0:
            raise ValueError("noise-free data have no likelihood: give a positive sigma")
        squared = (y - clean).abs().square().sum() / self.sigma**2
        if y.is_complex():
            return squared + y.numel() * math.log(math.pi * self.sigma**2)
        return 0.5 * squared + 0.5 * y.numel() * math.log(2 * math.pi * self.sigma**2)
