"""How far a training run got."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass
class Progress:
    """How far training got, over all runs, and what it began with."""

    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    skipped: int = 0
    norm: float = 0.0
    taken_back: int = 0
    """Windows between validations that ended in a burst and were undone."""
    started_from: str | None = None
    """SHA-256 of the weights that it began with."""
    fresh: int = 0
    """Tensors that found no place in the network and began anew."""
