"""Inference: likelihood, guess and passes, refinement, closing, posterior samples."""

from iasolve.inference.choice import Choice, choose_prior
from iasolve.inference.closing import LocalError, local_spread, nonnegative_mode
from iasolve.inference.fallback import Gaussian, fitted_power, unexplained
from iasolve.inference.geometry import Canvas, FieldOfView, Whole, crop_power, image_power
from iasolve.inference.interface import Callback, NonFiniteError, Options, SolveOptions, Status, UnlikePriorWarning
from iasolve.inference.likelihood import DiagonalLikelihood
from iasolve.inference.measurement import Measurement, likely_sigma
from iasolve.inference.multicoil import image_phase, pose_coils, sampled_positions
from iasolve.inference.objective import OBJECTIVES, Cost
from iasolve.inference.operator_likelihood import OperatorLikelihood
from iasolve.inference.optimizers import LBFGS, OPTIMIZERS, Adam, GradientDescent, Plan
from iasolve.inference.reconstruct import (
    Reconstruction,
    ReconstructOptions,
    choose_kspace_prior,
    reconstruct,
)
from iasolve.inference.result import Result
from iasolve.inference.single_coil import imaginary_share
from iasolve.inference.solve import solve
from iasolve.inference.trial import hold_back

__all__ = [
    "LBFGS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "Adam",
    "Callback",
    "Canvas",
    "Choice",
    "Cost",
    "DiagonalLikelihood",
    "FieldOfView",
    "Gaussian",
    "GradientDescent",
    "LocalError",
    "Measurement",
    "NonFiniteError",
    "OperatorLikelihood",
    "Options",
    "Plan",
    "ReconstructOptions",
    "Reconstruction",
    "Result",
    "SolveOptions",
    "Status",
    "UnlikePriorWarning",
    "Whole",
    "choose_kspace_prior",
    "choose_prior",
    "crop_power",
    "fitted_power",
    "hold_back",
    "image_phase",
    "image_power",
    "imaginary_share",
    "likely_sigma",
    "local_spread",
    "nonnegative_mode",
    "pose_coils",
    "reconstruct",
    "sampled_positions",
    "solve",
    "unexplained",
]
