"""Residual blocks of the very deep VAE (Child 2021), and the evidence-conditioned variant."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConditionedBlock", "PosteriorBlock", "ResidualBlock", "conv"]


def conv(c_in: int, c_out: int, kernel: int = 1, *, gain: float = 1.0) -> nn.Conv2d:
    """Convolution with same padding, zero bias, and weights of standard deviation ``gain / sqrt(fan in)``.

    ``ACTIVATED`` as gain keeps the variance behind a swish; 0 gives zeros.
    """
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(c_in * kernel**2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


ACTIVATED = 1.0
"""Gain of a convolution behind a swish. Keeping the variance would take 1.6, which made training explode."""


class ResidualBlock(nn.Module):
    """Bottleneck block: swish and 1x1, 3x3, 3x3, 1x1 convolutions; ``(B, c_in, g, g)`` to ``(B, c_out, g, g)``.

    Parameters
    ----------
    c_in, middle, c_out : int
        Channels.
    grid : int
        Grid that the block works on; a grid of one or two pixels gets 1x1 kernels only.
    residual : bool
        Add the input (needs ``c_in == c_out``).
    gain : float
        Factor on the last convolution's initial weights (``1 / sqrt(depth)`` keeps a deep residual stream's
        variance; 0 starts the block as zero).
    """

    def __init__(
        self, c_in: int, middle: int, c_out: int, grid: int, *, residual: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        if residual and c_in != c_out:
            raise ValueError(f"a residual block keeps its channels, got {c_in} -> {c_out}")
        kernel = 3 if grid > 2 else 1
        self.c1 = conv(c_in, middle, gain=ACTIVATED)
        self.c2 = conv(middle, middle, kernel, gain=ACTIVATED)
        self.c3 = conv(middle, middle, kernel, gain=ACTIVATED)
        self.c4 = conv(middle, c_out, gain=ACTIVATED * gain)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        h = self.c1(F.silu(x))
        h = self.c2(F.silu(h))
        h = self.c3(F.silu(h))
        h = self.c4(F.silu(h))
        return x + h if self.residual else h


class ConditionedBlock(ResidualBlock):
    """Residual block whose middle features are scaled and shifted by an embedding ``(B, E)`` of the evidence."""

    def __init__(self, width: int, middle: int, grid: int, embedding: int, *, gain: float = 1.0) -> None:
        super().__init__(width, middle, width, grid, gain=gain)
        self.modulation = nn.Linear(embedding, 2 * middle)
        nn.init.normal_(self.modulation.weight, std=0.2 / math.sqrt(embedding))
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Apply the block under the given embedding."""
        h = self.c1(F.silu(x))
        if embedding is not None:
            scale, shift = self.modulation(embedding).to(h.dtype)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        h = self.c2(F.silu(h))
        h = self.c3(F.silu(h))
        h = self.c4(F.silu(h))
        return x + h


class PosteriorBlock(nn.Module):
    """Bottleneck block on two inputs, context and evidence features: ``2 x (B, width, g, g)`` to ``(B, c_out, g, g)``.

    The first 1x1 convolution of the concatenation is written as the sum of two, which saves the copy.
    """

    def __init__(self, width: int, middle: int, c_out: int, grid: int, *, gain: float = 1.0) -> None:
        super().__init__()
        kernel = 3 if grid > 2 else 1
        self.context = conv(width, middle, gain=ACTIVATED * math.sqrt(0.5))
        self.evidence = conv(width, middle, gain=ACTIVATED * math.sqrt(0.5))
        self.c2 = conv(middle, middle, kernel, gain=ACTIVATED)
        self.c3 = conv(middle, middle, kernel, gain=ACTIVATED)
        self.c4 = conv(middle, c_out, gain=ACTIVATED * gain)

    def forward(self, context: Tensor, evidence: Tensor) -> Tensor:
        """Apply the block."""
        h = self.context(F.silu(context)) + self.evidence(F.silu(evidence))
        h = self.c2(F.silu(h))
        h = self.c3(F.silu(h))
        out: Tensor = self.c4(F.silu(h))
        return out
