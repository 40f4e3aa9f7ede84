"""The reader: one network that gives the posterior mean of an image of any size from the evidence.

A U-Net reads the Wiener estimate and puts out, frequency by frequency, a correction in units of the standard deviation
that the measurement left open there (``sqrt(P v / (P + v))``, preconditioning by the Wiener posterior): what was
measured exactly stays, what was not is free. How much evidence there is the network learns from the profile alone,
which scales the features of every block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from iasolve.networks.encoder import profile_features
from iasolve.spectrum import fft2, ifft2, power_at, rings_at, scales_of
from iasolve.tables import FORBID, Count, Flag, Whole, as_table, table

__all__ = ["Reader", "ReaderConfig", "Reading"]


class Reading(NamedTuple):
    """What the reader says of a measurement.

    ``estimate`` ``(B, C, H, W)``: the posterior mean of the image. ``variance`` ``(B, C, H, W)``, unshifted full grid:
    its squared error at each frequency, where it is alike at all pixels. ``spread`` ``(B, C, H, W)``: how much larger
    the error is at each pixel. ``features``: maps ``(B, width, h, w)`` of every level, coarse to fine.
    """

    estimate: Tensor
    variance: Tensor
    spread: Tensor
    features: list[Tensor]


@table("reader")
@dataclass(frozen=True, config=FORBID)
class ReaderConfig:
    """Architecture of a reader.

    Attributes
    ----------
    size : int
        ``N``: the size of the images that it is trained on, and of which its rings are; it reads images of any size.
    channels : int
        Image channels.
    is_complex : bool
        Whether images are complex.
    widths : tuple of int
        Channels of every level, fine to coarse; each level halves the grid.
    blocks : tuple of int
        Residual blocks of every level on the way down, and again on the way up; twice as many at the coarsest.
    embedding : int
        Width of the profile's embedding.
    """

    size: Count
    channels: Count = 1
    is_complex: Flag = False
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] = (16, 64, 128, 192)
    blocks: tuple[Whole, ...] = (1, 2, 2, 2)
    embedding: Count = 64

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"reader.widths and reader.blocks need one entry a level, got {len(self.widths)} and {len(self.blocks)}"
            )
        scales_of(self.size)

    @property
    def real_channels(self) -> int:
        """Real channels that carry one image: twice ``channels`` for complex images."""
        return self.channels * (2 if self.is_complex else 1)

    @property
    def multiple(self) -> int:
        """Sides that the network can halve at every level are multiples of this many pixels."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def reach(self) -> int:
        """Rows (or columns) around one that it depends on, at most; a multiple of :attr:`multiple`.

        The head sees 1 on either side, the tail 1 or the error's place 2, a block 2 of its level's, and halving and
        doubling align to ``multiple``.
        """
        twice = sum(2 * 2 * count * 2**level for level, count in enumerate(self.blocks))
        return (-(-(3 + twice) // self.multiple) + 1) * self.multiple

    @property
    def kept_per_pixel(self) -> float:
        """Values a pixel of the image that an evaluation holds at its peak, where nothing is kept for a gradient.

        Features and skips of every level, and the four maps that a block at the finest level works with.
        """
        levels = sum(2 * width / 4**level for level, width in enumerate(self.widths))
        return levels + 4 * max(width / 4**level for level, width in enumerate(self.widths))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a JSON card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReaderConfig:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            For an unknown or missing key, or an impossible value.
        """
        return cls(**as_table(data, "reader"))


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions, its middle scaled by the profile's embedding."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width, math.sqrt(2.0)), _conv(width, width, 0.1)
        self.scale = nn.Linear(embedding, width)
        nn.init.normal_(self.scale.weight, std=0.1 / math.sqrt(embedding))
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        inner = self.first(x)
        scale = (1 + self.scale(embedding))[:, :, None, None].to(inner.dtype)
        out: Tensor = self.second(F.relu(inner * scale))
        return x + out


class _Spread(nn.Module):
    """How much larger the error is at each place than its rings say, from the finest features."""

    def __init__(self, width: int, channels: int, embedding: int) -> None:
        super().__init__()
        self.first, self.last = _conv(width, width, math.sqrt(2.0)), _conv(width, channels, 0.0)
        self.scale = nn.Linear(embedding, width)
        nn.init.normal_(self.scale.weight, std=0.1 / math.sqrt(embedding))
        nn.init.zeros_(self.scale.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale = (1 + self.scale(embedding))[:, :, None, None]
        log_spread = self.last(F.relu(self.first(x) * scale.to(x.dtype))).to(embedding.dtype)
        return torch.exp(_WIDEST * torch.tanh(log_spread / _WIDEST))


class Reader(nn.Module):
    """The network and, as a buffer, what it knows of its training images.

    ``power`` ``(C, N, N)``: mean power ``E|h_k|^2`` of each frequency, unshifted full grid.

    Parameters
    ----------
    config : ReaderConfig
    """

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        scales, width, embedding = len(scales_of(config.size)), config.widths, config.embedding
        self.embed = nn.Sequential(
            nn.Linear(4 * scales, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.head = _conv(config.real_channels, width[0], 1.0)
        levels = range(len(width) - 1)
        self.encoder = nn.ModuleList(_blocks(width[i], config.blocks[i], embedding) for i in levels)
        self.down = nn.ModuleList(nn.Conv2d(width[i], width[i + 1], 2, stride=2) for i in levels)
        self.middle = _blocks(width[-1], 2 * config.blocks[-1], embedding)
        self.up = nn.ModuleList(nn.ConvTranspose2d(width[i + 1], width[i], 2, stride=2) for i in levels)
        self.decoder = nn.ModuleList(_blocks(width[i], config.blocks[i], embedding) for i in levels)
        self.tail = _conv(width[0], config.real_channels, 0.01)
        # the log of the error over the Wiener posterior's, at frequencies that the data determine and others
        last = nn.Linear(embedding, 2 * config.channels * scales)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.error = nn.Sequential(nn.Linear(embedding + width[-1], embedding), nn.SiLU(), last)
        self.spread = _Spread(width[0], config.channels, embedding)
        self.register_buffer("power", torch.ones(config.channels, config.size, config.size))
        self.power: Tensor

    def forward(self, mean: Tensor, rho: Tensor, profile: Tensor, rows: int | None = None) -> Reading:
        """Read a Wiener posterior (:class:`iasolve.evidence.WienerPosterior`, field by field).

        Parameters
        ----------
        mean : Tensor
            ``(B, C, H, W)``, in the prior's units, real or complex as the configuration says.
        rho : Tensor
            ``(B, C, H, W)``, unshifted full grid.
        profile : Tensor
            ``(B, 2, S)``.
        rows : int, optional
            Evaluate the network in strips of so many rows of the image, with the rows around them that it sees: equal
            to rounding, and the features, of which only the whole has all, are not in the reading. All by default.
        """
        with torch.autocast(mean.device.type, enabled=False):
            embedding: Tensor = self.embed(profile_features(profile))
        power = power_at(self.power, (mean.shape[-2], mean.shape[-1]))
        seen = torch.cat([mean.real, mean.imag], 1) if self.config.is_complex else mean
        if rows is None or rows >= mean.shape[-2]:
            correction, spread, features = self._network(seen, embedding)
            seen_of = features[0].detach().to(embedding.dtype).abs().mean((-2, -1))
        else:
            correction, spread, seen_of = self._in_strips(seen, embedding, rows)
            features = []
        correction = correction.to(mean.real.dtype)
        if self.config.is_complex:
            correction = torch.complex(*correction.chunk(2, dim=1))
        left = power * (1 - rho)
        change = ifft2(left.sqrt() * fft2(correction))
        estimate = mean + (change if self.config.is_complex else change.real)
        with torch.autocast(mean.device.type, enabled=False):
            ratio = self._ratio(self.error(torch.cat([embedding.detach(), seen_of], 1)), rho)
        return Reading(estimate, left * ratio, spread, features)

    def _in_strips(self, x: Tensor, embedding: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """The correction, the error's spread, and the coarsest features' mean magnitudes, strip by strip."""
        height, width = x.shape[-2:]
        multiple, reach = self.config.multiple, self.config.reach
        rows = -(-rows // multiple) * multiple  # or a strip's coarse grid would not be the whole's
        x = _extended(x, multiple)
        corrections, spreads, sums = [], [], torch.zeros((), device=x.device)
        for first in range(0, x.shape[-2], rows):
            last = min(first + rows, x.shape[-2])
            top, bottom = max(0, first - reach), min(x.shape[-2], last + reach)
            correction, spread, features = self._network(x[..., top:bottom, :], embedding, finer=False)
            own = slice(first - top, last - top)
            corrections.append(correction[..., own, :width].clone())
            spreads.append(spread[..., own, :width].clone())
            coarse = features[0][..., (first - top) // multiple : (last - top) // multiple, :]
            sums = sums + coarse.to(embedding.dtype).abs().sum((-2, -1))
            del correction, spread, features, coarse  # or the next strip would come on top
        correction, spread = (torch.cat(maps, -2)[..., :height, :] for maps in (corrections, spreads))
        return correction, spread, sums * multiple**2 / (x.shape[-2] * x.shape[-1])

    def _network(self, x: Tensor, embedding: Tensor, *, finer: bool = True) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The correction, the error's spread, and the features of every level, coarse to fine, or of the coarsest."""
        height, width = x.shape[-2:]
        x = self.head(_extended(x, self.config.multiple).contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = _through(blocks, x, embedding)
            skips.append(x)
            x = down(x)
        x = _through(self.middle, x, embedding)
        features = [x]
        for level in reversed(range(len(skips))):
            x = self.up[level](x) + skips.pop()
            x = _through(self.decoder[level], x, embedding)
            if finer:
                features.append(x)
        spread = self.spread(x.detach(), embedding.detach())
        return self.tail(x)[..., :height, :width], spread[..., :height, :width], features

    def _ratio(self, log_ratio: Tensor, rho: Tensor) -> Tensor:
        """Error over the Wiener posterior's variance at each frequency, from two values a ring ``(B, 2 C S)``."""
        ring = rings_at((rho.shape[-2], rho.shape[-1]), self.config.size, rho.device).owner
        bounded = _LARGEST * torch.tanh(log_ratio / _LARGEST)
        free, sure = bounded.unflatten(1, (2, self.config.channels, -1))[..., ring].unbind(1)
        return torch.exp(free + (sure - free) * rho)


_LARGEST, _WIDEST = 6.0, 4.0
"""Bounds of the log ratio of variances, and of the log of the spread."""


def _conv(c_in: int, c_out: int, gain: float) -> nn.Conv2d:
    layer = nn.Conv2d(c_in, c_out, 3, padding=1)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(9 * c_in))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _blocks(width: int, count: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(width, embedding) for _ in range(count))


def _through(blocks: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x = block(x, embedding)
    return x


def _extended(x: Tensor, multiple: int) -> Tensor:
    """Continued at the lower and right edge to sides that are multiples: mirrored, or by the edge of a narrow image."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom == right == 0:
        return x
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)
