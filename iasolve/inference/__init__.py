"""Inference: guess and passes, refinement, samples, and the choice between priors."""

from iasolve.inference.choice import Choice, choose_prior
from iasolve.inference.fallback import unexplained
from iasolve.inference.gaussian import Gaussian, fitted_power
from iasolve.inference.objective import OBJECTIVES, Cost
from iasolve.inference.optimizers import LBFGS, OPTIMIZERS, Adam, GradientDescent, Plan
from iasolve.inference.result import Result
from iasolve.inference.solve import solve
from iasolve.inference.trial import trials
from iasolve.problem import Callback, NonFiniteError, Options, SolveOptions, Status, UnlikePriorWarning

__all__ = [
    "LBFGS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "Adam",
    "Callback",
    "Choice",
    "Cost",
    "Gaussian",
    "GradientDescent",
    "NonFiniteError",
    "Options",
    "Plan",
    "Result",
    "SolveOptions",
    "Status",
    "UnlikePriorWarning",
    "choose_prior",
    "fitted_power",
    "solve",
    "trials",
    "unexplained",
]
