"""A plain residual U-Net, the learned peer: as in DRUNet (Zhang et al., IEEE TPAMI 44(10), 2022), at a smaller size."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["UNet"]

WIDTHS, BLOCKS = (16, 64, 128, 192), (1, 2, 2, 4)
"""Channels and residual blocks at full, half, quarter and eighth resolution: 4.4 million parameters."""


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.normal_(self.second.weight, std=0.1 / math.sqrt(9 * width))
        for layer in (self.first, self.second):
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(torch.relu(self.first(x)))
        return out


class UNet(nn.Module):
    """``D(x, s) = c_skip x + c_out F(c_in x, log s / 4)``.

    The coefficients are those of Karras et al., NeurIPS 2022, for data of unit variance.
    For ``s`` of 1 or above it has to make up the image, for small ``s`` to correct ``x`` in the order of ``s``.

    Parameters
    ----------
    channels : int
        Of the images ``(B, C, H, W)``, whose sides are multiples of 8.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, WIDTHS[0], 3, padding=1)
        self.descent, self.ascent, self.down, self.up = (nn.ModuleList() for _ in range(4))
        for width, below, count in zip(WIDTHS, WIDTHS[1:], BLOCKS, strict=False):
            self.descent.append(nn.Sequential(*(_Residual(width) for _ in range(count))))
            self.ascent.append(nn.Sequential(*(_Residual(width) for _ in range(count))))
            self.down.append(nn.Conv2d(width, below, 2, stride=2))
            self.up.append(nn.ConvTranspose2d(below, width, 2, stride=2))
        self.middle = nn.Sequential(*(_Residual(WIDTHS[-1]) for _ in range(BLOCKS[-1])))
        self.last = nn.Conv2d(WIDTHS[0], channels, 3, padding=1)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Clean images, estimated from ``(B, C, H, W)`` whose error has the standard deviation ``level`` ``(B,)``."""
        s = level.reshape(-1, 1, 1, 1).to(x)
        total = 1 + s.square()
        known = (s.log() / 4).expand(-1, 1, *x.shape[-2:])
        h = self.first(torch.cat([x / total.sqrt(), known], dim=1).contiguous(memory_format=torch.channels_last))
        passed = []
        for blocks, down in zip(self.descent, self.down, strict=True):
            h = blocks(h)
            passed.append(h)
            h = down(h)
        h = self.middle(h)
        for blocks, up, beside in zip(reversed(self.ascent), reversed(self.up), reversed(passed), strict=True):
            h = blocks(up(h) + beside)
        return x / total + s / total.sqrt() * self.last(h).float()
