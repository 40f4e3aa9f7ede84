"""Inference: data term, amortized pass, refinement, closing, posterior samples."""

from iasolve.inference.solve import NonFiniteError, Result, UnlikePriorWarning, solve

__all__ = ["NonFiniteError", "Result", "UnlikePriorWarning", "solve"]
