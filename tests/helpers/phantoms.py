"""Pictures of discs and their folded measurements, for classical methods."""

import numpy as np
import torch

from iasolve.spectrum import fft2


def phantom(height=16, width=16, seed=0):
    """A few random boxes: piecewise constant."""
    rng = np.random.default_rng(seed)
    x = np.zeros((height, width))
    for _ in range(4):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        x[top : top + height // 2, left : left + width // 2] += rng.uniform(-1, 1)
    return torch.from_numpy(x)


def noise_case(height=16, width=16, sigma=0.3, seed=0):
    x = phantom(height, width, seed)
    generator = torch.Generator().manual_seed(seed)
    y = x + sigma * torch.randn(height, width, dtype=torch.float64, generator=generator)
    return torch.full((height, width), sigma**-2, dtype=torch.float64), fft2(y)
