"""Forward operators, noise models, sampling masks, and the check of one's own operator."""

from iasolve.operators.adapt_deepinv import from_deepinv
from iasolve.operators.adapt_scipy import from_scipy, to_scipy
from iasolve.operators.adapt_sigpy import from_sigpy
from iasolve.operators.base import LinearOperator
from iasolve.operators.bases import centred_fft2, centred_ifft2
from iasolve.operators.blur import Convolution
from iasolve.operators.calibration import calibration_region
from iasolve.operators.check import OperatorReport, check_operator
from iasolve.operators.coil_noise import CoilNoise, estimate_covariance, outermost_samples
from iasolve.operators.coils import Sensitivities, SensitivityEncoding, birdcage_maps, root_sum_of_squares
from iasolve.operators.compression import compress_coils
from iasolve.operators.espirit import estimate_maps
from iasolve.operators.fourier import CircularBlur, FourierTransform, Identity, KSpaceMask, LowPass, SampleKSpace
from iasolve.operators.kernels import disk_kernel, gaussian_kernel, motion_kernel
from iasolve.operators.masks import acceleration, line_mask, mask_from_fastmri, point_mask
from iasolve.operators.noise import GaussianNoise, NoiseModel, PoissonNoise, WeightedGaussianNoise
from iasolve.operators.nonuniform import NonUniformFourier
from iasolve.operators.phase import estimate_phase
from iasolve.operators.radon import Radon
from iasolve.operators.registry import find_operator, list_operators
from iasolve.operators.rician import RicianNoise
from iasolve.operators.sampling import BlockAverage, BlurDownsample, Downsample, PixelMask
from iasolve.operators.shift import CircularShift
from iasolve.operators.spectral_noise import SpectralNoise
from iasolve.operators.stack import vstack

__all__ = [
    "BlockAverage",
    "BlurDownsample",
    "CircularBlur",
    "CircularShift",
    "CoilNoise",
    "Convolution",
    "Downsample",
    "FourierTransform",
    "GaussianNoise",
    "Identity",
    "KSpaceMask",
    "LinearOperator",
    "LowPass",
    "NoiseModel",
    "NonUniformFourier",
    "OperatorReport",
    "PixelMask",
    "PoissonNoise",
    "Radon",
    "RicianNoise",
    "SampleKSpace",
    "Sensitivities",
    "SensitivityEncoding",
    "SpectralNoise",
    "WeightedGaussianNoise",
    "acceleration",
    "birdcage_maps",
    "calibration_region",
    "centred_fft2",
    "centred_ifft2",
    "check_operator",
    "compress_coils",
    "disk_kernel",
    "estimate_covariance",
    "estimate_maps",
    "estimate_phase",
    "find_operator",
    "from_deepinv",
    "from_scipy",
    "from_sigpy",
    "gaussian_kernel",
    "line_mask",
    "list_operators",
    "mask_from_fastmri",
    "motion_kernel",
    "outermost_samples",
    "point_mask",
    "root_sum_of_squares",
    "to_scipy",
    "vstack",
]
