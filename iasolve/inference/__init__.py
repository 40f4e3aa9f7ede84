"""Inference: likelihood, guess and passes, refinement, closing, posterior samples."""

from iasolve.inference.options import Callback, Options, Status
from iasolve.inference.results import NonFiniteError, Result, UnlikePriorWarning
from iasolve.inference.solve import solve

__all__ = ["Callback", "NonFiniteError", "Options", "Result", "Status", "UnlikePriorWarning", "solve"]
