"""Inference: likelihood, guess and passes, refinement, closing, posterior samples."""

from iasolve.inference.fallback import Gaussian, fitted_power, hold_back, unexplained
from iasolve.inference.geometry import crop_power, image_power
from iasolve.inference.interface import (
    Callback,
    NonFiniteError,
    Options,
    Result,
    SolveOptions,
    Status,
    UnlikePriorWarning,
)
from iasolve.inference.likelihood import DiagonalLikelihood
from iasolve.inference.measurement import Measurement
from iasolve.inference.multicoil import image_phase, pose_coils
from iasolve.inference.objective import OBJECTIVES, Cost
from iasolve.inference.operator_likelihood import OperatorLikelihood
from iasolve.inference.optimizers import LBFGS, OPTIMIZERS, Adam, GradientDescent, Plan
from iasolve.inference.reconstruct import Reconstruction, ReconstructOptions, reconstruct
from iasolve.inference.solve import solve

__all__ = [
    "LBFGS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "Adam",
    "Callback",
    "Cost",
    "DiagonalLikelihood",
    "Gaussian",
    "GradientDescent",
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
    "crop_power",
    "fitted_power",
    "hold_back",
    "image_phase",
    "image_power",
    "pose_coils",
    "reconstruct",
    "solve",
    "unexplained",
]
