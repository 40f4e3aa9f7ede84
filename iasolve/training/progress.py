"""How far a training run got."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass
class Progress:
    """How far training got, over all its resumed parts, where it began and where it ends."""

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
    first_image: int | None = None
    """Images that were counted when the run began; None before it began."""
    first_second: float = 0.0
    budget: float | None = None
    """Seconds of training after which the run ends; None: images alone end it."""
    best_training: float | None = None
    """Best score of a window so far, on its training images; None before the first one."""
    best_validation: float | None = None

    def part(self, images: int, seconds: float) -> float:
        """Which part of a run of ``images`` in all is done after ``seconds`` in all; at least 1 when it is over."""
        first = self.first_image or 0
        done = (self.images - first) / max(1, images - first)
        if self.budget is None:
            return done
        return max(done, (seconds - self.first_second) / self.budget if self.budget > 0 else 1.0)
