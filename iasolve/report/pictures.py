"""The pictures of an entry, reduced as soon as it is read, so that a page of many images needs little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iasolve.report.entry import Entry
from iasolve.report.figures import encoded, grey_levels, reduced, residual_level, span, tint, uri

__all__ = ["Pictures", "fitted"]

SIDES = (640, 512, 384, 256, 192, 160, 128, 96, 64, 32)
"""Longest side of a picture in pixels, the largest first that fits the budget."""

RESIDUAL_SPAN = 3.0
"""Black and white of a residual's picture, in noise levels."""


@dataclass(frozen=True)
class Pictures:
    """What a page shows of an entry, ``(H, W)`` or ``(H, W, 3)`` uint8 of at most ``SIDES[0]`` pixels a side.

    Attributes
    ----------
    after, before, residual : ndarray or None
    overlay : ndarray or None
        The error bar; ``overlay_top`` is its brightest value.
    """

    after: NDArray[np.uint8]
    before: NDArray[np.uint8] | None = None
    overlay: NDArray[np.uint8] | None = None
    residual: NDArray[np.uint8] | None = None
    overlay_top: float = 1.0

    @classmethod
    def of(cls, entry: Entry) -> Pictures:
        """Those of an entry."""
        side = SIDES[0]
        low, high = span(entry.image)
        before = overlay = residual = None
        top = 1.0
        if entry.before is not None:
            # the result's range for both: the input's may be all noise
            before = grey_levels(entry.before, low, high, side)
        if entry.std is not None:
            std = entry.std.mean(-1) if entry.std.ndim == 3 else entry.std
            top = float(np.percentile(std, 99.9)) or 1.0
            overlay = grey_levels(std, 0.0, top, side)
        if entry.residual is not None and entry.residual_domain == "image":
            unit = entry.sigma or residual_level(entry.residual, "image") or 1.0
            left = np.real(entry.residual).reshape(-1, *entry.residual.shape[-2:]).mean(0)
            residual = grey_levels(left, -RESIDUAL_SPAN * unit, RESIDUAL_SPAN * unit, side)
        return cls(grey_levels(entry.image, low, high, side), before, overlay, residual, top)

    def drawn(self, side: int) -> dict[str, Any]:
        """As addresses that hold PNGs of at most ``side`` pixels a side; None for what there is not."""

        def shown(pixels: NDArray[np.uint8] | None) -> str | None:
            return None if pixels is None else uri(encoded(reduced(pixels, side)))

        overlay = None if self.overlay is None else uri(encoded(tint(reduced(self.overlay, side))))
        found: dict[str, Any] = {name: shown(getattr(self, name)) for name in ("after", "before", "residual")}
        return found | {"overlay": overlay, "overlay_top": self.overlay_top}


def fitted(pictures: Sequence[Pictures], budget: int) -> tuple[list[dict[str, Any]], int]:
    """Pictures of all entries as addresses, and their largest side at which all of them keep to a budget of bytes."""
    for side in SIDES:
        # the first few tell that a side is far too large, before hundreds of pictures are made in vain
        drawn = [one.drawn(side) for one in pictures[:3]]
        if drawn and _length(drawn) * len(pictures) / len(drawn) > 2 * budget:
            continue
        drawn += [one.drawn(side) for one in pictures[3:]]
        if _length(drawn) <= budget:
            return drawn, side
    return [one.drawn(side) for one in pictures], side


def _length(drawn: list[dict[str, Any]]) -> int:
    return sum(len(value) for some in drawn for value in some.values() if isinstance(value, str))
