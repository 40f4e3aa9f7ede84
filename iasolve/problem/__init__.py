"""A problem as it is posed: measurement, geometry, units, likelihood, and the image nearest to an estimate."""

from iasolve.problem.closing import LocalError, local_spread, nonnegative_mode
from iasolve.problem.geometry import Canvas, FieldOfView, Whole, crop_power, image_power
from iasolve.problem.likelihood import DiagonalLikelihood
from iasolve.problem.measurement import Measurement, likely_sigma
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.problem.options import Callback, NonFiniteError, Options, SolveOptions, Status, UnlikePriorWarning
from iasolve.problem.probed import Probed

__all__ = [
    "Callback",
    "Canvas",
    "DiagonalLikelihood",
    "FieldOfView",
    "LocalError",
    "Measurement",
    "NonFiniteError",
    "OperatorLikelihood",
    "Options",
    "Probed",
    "SolveOptions",
    "Status",
    "UnlikePriorWarning",
    "Whole",
    "crop_power",
    "image_power",
    "likely_sigma",
    "local_spread",
    "nonnegative_mode",
]
