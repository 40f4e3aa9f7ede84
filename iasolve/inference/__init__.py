"""Inference: likelihood, guess and passes, refinement, closing, posterior samples."""

from iasolve.inference.interface import Callback, NonFiniteError, Options, Result, Status, UnlikePriorWarning
from iasolve.inference.solve import solve

__all__ = ["Callback", "NonFiniteError", "Options", "Result", "Status", "UnlikePriorWarning", "solve"]
