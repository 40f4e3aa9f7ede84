"""Views: the same problem for an image that is moved by a pixel or two.

The networks are not shift-equivariant, so what they get wrong of a moved image is partly other than what they get wrong
of the image itself, and the mean of both is better than either (cycle spinning: Coifman and Donoho 1995; a
shift at random in each iteration: Figueiredo and Nowak 2003). Shifts are circular.

That is so where training has moved the images too. A prior that knows them in one place only, by the grid of an image
format's blocks, say, reads moved ones worse, and gets none to read.
"""

from __future__ import annotations

__all__ = ["LARGEST", "SHIFTS"]

LARGEST = 2
"""Pixels. Readings of validation slices with 8 coils gained as much from 1 pixel as from 3, 6 or 9."""


def _shifts() -> list[tuple[int, int]]:
    side = 2 * LARGEST + 1
    # a knight's moves: the first few are spread over all rows and columns
    cells = [(2 * n % side, (n + n // side) % side) for n in range(side * side)]
    return [((dy + LARGEST) % side - LARGEST, (dx + LARGEST) % side - LARGEST) for dy, dx in cells]


SHIFTS = tuple(_shifts())
"""All ``(dy, dx)`` up to ``LARGEST``, each once, the first ``(0, 0)``."""
