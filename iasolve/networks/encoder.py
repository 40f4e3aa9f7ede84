"""Bottom-up encoder: from the evidence's image and profile to one feature map per scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iasolve.networks.blocks import ConditionedBlock, conv
from iasolve.networks.config import NetworkConfig

__all__ = ["Encoder", "profile_features"]

_EMBEDDING = 128
_FLOOR = 1e-5


def profile_features(profile: Tensor) -> Tensor:
    """What the encoder sees of an evidence profile ``(B, 2, S)``: its values and their log distance to 1.

    Near 1 (nearly clean data) the distance to 1 is what tells noise levels apart, hence the logarithm, scaled
    into [0, 1]. Returns ``(B, 4 S)``.
    """
    distance = torch.log((1 - profile).clamp_min(_FLOOR)) / math.log(_FLOOR)
    return torch.cat([profile.flatten(1), distance.flatten(1)], dim=1)


class Encoder(nn.Module):
    """Bottom-up path with average pooling between grids.

    The image is brought to the capped grid by pixel unshuffling, so no detail is lost.
    """

    def __init__(self, config: NetworkConfig, gain: float) -> None:
        super().__init__()
        self.config = config
        self.factor = config.size // config.grid_cap
        self.embed = nn.Sequential(
            nn.Linear(4 * len(config.scales), _EMBEDDING),
            nn.SiLU(),
            nn.Linear(_EMBEDDING, _EMBEDDING),
            nn.SiLU(),
        )
        self.stem = conv(config.real_channels * self.factor**2, config.widths[-1], 3 if config.grid_cap > 2 else 1)
        self.stages = nn.ModuleList()
        self.joins = nn.ModuleList()
        previous = config.widths[-1]
        for i in reversed(range(len(config.scales))):
            width, grid = config.widths[i], config.grids[i]
            self.joins.append(conv(previous, width) if previous != width else nn.Identity())
            self.stages.append(
                nn.ModuleList(
                    ConditionedBlock(width, max(8, round(width * config.bottleneck)), grid, _EMBEDDING, gain=gain)
                    for _ in range(config.encoder_blocks[i])
                )
            )
            previous = width

    def forward(self, image: Tensor, profile: Tensor) -> list[Tensor]:
        """Features ``(B, width, grid, grid)`` of every scale, coarse to fine.

        Parameters
        ----------
        image : Tensor
            ``(B, C, N, N)``, real or complex: the evidence's image in the prior's units.
        profile : Tensor
            ``(B, 2, S)`` evidence profile: per ring the mean of ``rho`` and of ``rho ** 2``.
        """
        if self.config.is_complex:
            image = torch.cat([image.real, image.imag], dim=1)
        embedding = self.embed(profile_features(profile))
        x = self.stem(F.pixel_unshuffle(image, self.factor) if self.factor > 1 else image)
        features: list[Tensor] = []
        for i, (join, stage) in enumerate(zip(self.joins, self.stages, strict=True)):
            grid = self.config.grids[len(self.config.scales) - 1 - i]
            if x.shape[-1] != grid:
                x = F.avg_pool2d(x, x.shape[-1] // grid)
            x = join(x)
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                x = block(x, embedding)
            features.append(x)
        return features[::-1]
