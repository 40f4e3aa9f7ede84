"""Priors: the interface, HVAE priors, weights on disk and by name."""

from iasolve.priors.bound import distortion, follow
from iasolve.priors.checkpoint import PriorError, read_card, save_checkpoint, verify
from iasolve.priors.prior import Prior
from iasolve.priors.registry import (
    KSPACE_PRIORS,
    find_prior,
    fitting_names,
    list_priors,
    load_fitting,
    load_kspace_priors,
    load_prior,
)
from iasolve.priors.trained import HVAEPrior, ReaderPrior

__all__ = [
    "KSPACE_PRIORS",
    "HVAEPrior",
    "Prior",
    "PriorError",
    "ReaderPrior",
    "distortion",
    "find_prior",
    "fitting_names",
    "follow",
    "list_priors",
    "load_fitting",
    "load_kspace_priors",
    "load_prior",
    "read_card",
    "save_checkpoint",
    "verify",
]
