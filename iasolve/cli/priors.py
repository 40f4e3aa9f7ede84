"""Priors as the commands load them: what is wrong with one is said to be the prior's, whatever it is."""

from __future__ import annotations

from contextlib import AbstractContextManager

from iasolve.cli.errors import DamagedPrior, blamed_on
from iasolve.priors import HVAEPrior, ReaderPrior, load_prior

__all__ = ["blamed_on_prior", "open_prior"]


def blamed_on_prior(name: object) -> AbstractContextManager[None]:
    """For reading a prior's card or weights: what goes wrong is the prior's."""
    return blamed_on(DamagedPrior, f"prior {name}: it cannot be used", "Fetch or export it again")


def open_prior(name: str) -> HVAEPrior | ReaderPrior:
    """Load a prior.

    Raises
    ------
    PriorError, DamagedPrior, MemoryError
    """
    with blamed_on_prior(name):
        return load_prior(name)
