"""What a camera does to a scene that is larger than its frame."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Window"]


class Window(NamedTuple):
    """A circular convolution of which some pixels are seen.

    Attributes
    ----------
    transfer : Tensor
        ``D`` of the convolution, complex, on the unshifted grid, broadcastable to ``(C, H, W)``.
    seen : Tensor
        Boolean ``(H, W)``: the pixels that are put out, row by row.
    """

    transfer: Tensor
    seen: Tensor
