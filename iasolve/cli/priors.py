"""Priors as the commands load them: what is wrong with one is said to be the prior's, whatever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from iasolve.cli.errors import DamagedPrior, blamed_on
from iasolve.priors import HVAEPrior, ReaderPrior, load_prior

__all__ = ["blamed_on_prior", "open_prior"]


def blamed_on_prior(name: object) -> AbstractContextManager[None]:
    """For reading a prior's card or weights: what goes wrong is the prior's."""
    return blamed_on(DamagedPrior, f"prior {name}: it cannot be used", "Fetch or export it again")


def open_prior(name: str) -> HVAEPrior | ReaderPrior:
    """Load a prior, and look at what its card says before anything is solved with it.

    Raises
    ------
    PriorError, DamagedPrior, MemoryError
    """
    with blamed_on_prior(name):
        prior = load_prior(name)
        _require_card(prior)
    return prior


def _require_card(prior: HVAEPrior | ReaderPrior) -> None:
    if not (math.isfinite(prior.shift) and prior.shift >= 0):
        raise ValueError(f"its card says shift = {prior.shift}, expected pixels")
    validation: Any = prior.card.get("validation", {})
    if not isinstance(validation, Mapping):
        raise TypeError(f"its card's validation is of type {type(validation).__name__}, expected a table")
    for key, value in validation.items():
        if key.startswith("elbo") and not isinstance(value, int | float):
            raise TypeError(f"its card's validation.{key} is {str(value)[:40]!r}, expected a number")
    rings = validation.get("coarse_rings")
    if rings is not None:
        for key in ("mean", "std"):
            [float(value) for value in rings[key]]
