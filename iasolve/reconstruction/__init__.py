"""K-space of a scanner to images: coils, maps and phase, slice by slice."""

from iasolve.reconstruction.multicoil import pose_coils, sampled_positions
from iasolve.reconstruction.phase import image_phase
from iasolve.reconstruction.reconstruct import (
    Reconstruction,
    ReconstructOptions,
    choose_kspace_prior,
    reconstruct,
)
from iasolve.reconstruction.single_coil import imaginary_share

__all__ = [
    "ReconstructOptions",
    "Reconstruction",
    "choose_kspace_prior",
    "image_phase",
    "imaginary_share",
    "pose_coils",
    "reconstruct",
    "sampled_positions",
]
