"""Forward operators, noise models, sampling masks, and the check of one's own operator."""

from iasolve.operators.base import LinearOperator, centred_fft2, centred_ifft2
from iasolve.operators.check import OperatorReport, check_operator
from iasolve.operators.fourier import CircularBlur, Identity, KSpaceMask, LowPass
from iasolve.operators.kernels import gaussian_kernel, motion_kernel
from iasolve.operators.masks import acceleration, line_mask, point_mask
from iasolve.operators.noise import GaussianNoise

__all__ = [
    "CircularBlur",
    "GaussianNoise",
    "Identity",
    "KSpaceMask",
    "LinearOperator",
    "LowPass",
    "OperatorReport",
    "acceleration",
    "centred_fft2",
    "centred_ifft2",
    "check_operator",
    "gaussian_kernel",
    "line_mask",
    "motion_kernel",
    "point_mask",
]
