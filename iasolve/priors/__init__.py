"""Priors: the interface, HVAE priors, weights on disk and by name."""

from iasolve.priors.checkpoint import PriorError, read_card, save_checkpoint, verify
from iasolve.priors.prior import HVAEPrior, Prior, ReaderPrior
from iasolve.priors.registry import find_prior, list_priors, load_prior

__all__ = [
    "HVAEPrior",
    "Prior",
    "PriorError",
    "ReaderPrior",
    "find_prior",
    "list_priors",
    "load_prior",
    "read_card",
    "save_checkpoint",
    "verify",
]
