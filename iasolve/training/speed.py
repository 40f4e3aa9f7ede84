"""Images a second, watched: a run that slows down says so."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Speed"]

_FIRST = 120.0
"""Seconds of training, in whole windows, whose mean rate is what later windows are compared with."""

_SLOW = 0.7


@dataclass
class Speed:
    """Rate of this process; a machine that a run is resumed on has a rate of its own."""

    images: int = 0
    seconds: float = 0.0

    def window(self, images: int, seconds: float) -> tuple[float, str]:
        """Images a second of a window without its validation, and what to say when that is slow."""
        rate = images / max(seconds, 1e-9)
        if self.seconds < _FIRST:
            self.images, self.seconds = self.images + images, self.seconds + seconds
            return rate, ""
        usual = self.images / self.seconds
        if rate >= _SLOW * usual:
            return rate, ""
        return rate, (
            f"slow: {rate:.3g} images/s, {rate / usual:.0%} of the {usual:.3g} of its first minutes. Look for "
            "other programs, a hot processor, or little free memory; --resume continues in a new process"
        )
