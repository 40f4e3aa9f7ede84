"""What a measurement tells about its own noise: level, spectrum, offset, and how much of k-space holds anything."""

from iasolve.noise_level.band import filled_fraction
from iasolve.noise_level.estimate import EstimatedNoise, estimate_noise
from iasolve.noise_level.offset import estimate_offset
from iasolve.noise_level.spectral import RingLevels, ring_levels
from iasolve.noise_level.white import estimate_sigma

__all__ = [
    "EstimatedNoise",
    "RingLevels",
    "estimate_noise",
    "estimate_offset",
    "estimate_sigma",
    "filled_fraction",
    "ring_levels",
]
