"""How an image of any size is made of tiles of the prior's size.

Each geometry is a linear map from tiles ``(B * T, C, N, N)`` to an image grid ``(B, C, H, W)``, with its adjoint,
and knows how quantities per frequency carry over. ``P`` and ``V`` are functions of cycles per pixel.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from iasolve.spectrum import RingGrid, Spectrum, fft2, ifft2, power_at, radius, ring_index, rings_at

__all__ = [
    "Canvas",
    "FieldOfView",
    "Geometry",
    "Whole",
    "canvas_of",
    "choose_fit",
    "crop_power",
    "flanks",
    "geometry_of",
    "image_power",
    "positions",
    "tiles_of",
]


class Geometry(Protocol):
    """Map from tiles to the image grid."""

    tiles: int
    shape: tuple[int, int]

    def image(self, tiles: Tensor) -> Tensor:
        """Tiles ``(B * T, C, N, N)`` to the image grid ``(B, C, H, W)``."""

    def deviation(self, tiles: Tensor) -> Tensor:
        """The same for independent zero-mean deviations of tiles, keeping their variance where tiles overlap."""

    def cut(self, image: Tensor) -> Tensor:
        """What the image shows of each tile, ``(B * T, C, N, N)``: the encoder's view."""

    def per_bin(self, prior_bins: Tensor) -> Tensor:
        """Carry a variance per frequency ``(C, N, N)`` over to the image grid, ``(C, H, W)``."""

    def rings(self, spectrum: Spectrum) -> RingGrid:
        """Which ring of the prior each frequency of the image grid belongs to."""


class Whole:
    """The image is its only tile: one of the prior's size or, for a reader, of any size.

    Parameters
    ----------
    shape : (int, int)
        Of the image.
    """

    tiles = 1

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def image(self, tiles: Tensor) -> Tensor:
        """The tile itself."""
        return tiles

    def deviation(self, tiles: Tensor) -> Tensor:
        """The tile itself."""
        return tiles

    def cut(self, image: Tensor) -> Tensor:
        """The image itself."""
        return image

    def per_bin(self, prior_bins: Tensor) -> Tensor:
        """At equal cycles per pixel: a power density does not depend on the image's size."""
        return power_at(prior_bins, self.shape)

    def rings(self, spectrum: Spectrum) -> RingGrid:
        """By cycles per pixel: a larger image has more frequencies in each ring."""
        return rings_at(self.shape, spectrum.size)


class Canvas(Whole):
    """A canvas of overlapping tiles: ``x = sum_t window_t * tile_t``, the windows a partition of unity.

    Parameters
    ----------
    size : int
        ``N``.
    shape : (int, int)
        Of the canvas; each side at least ``N``.
    overlap : int
        Smallest overlap of neighbouring tiles, in pixels; less than ``N``.
    """

    def __init__(self, size: int, shape: tuple[int, int], overlap: int) -> None:
        if min(shape) < size:
            raise ValueError(f"a canvas of {shape} cannot hold a tile of {size} pixels")
        if not 0 <= overlap < size:
            raise ValueError(f"the overlap must lie in 0 .. {size - 1} pixels, got {overlap}")
        super().__init__(shape)
        self.size = size
        rows, columns = (positions(n, size, overlap) for n in shape)
        self.corners = [(r, c) for r in rows for c in columns]
        self.tiles = len(self.corners)
        wy, wx = flanks(rows, shape[0], size), flanks(columns, shape[1], size)
        self.windows = torch.stack([torch.outer(a, b) for a in wy for b in wx])
        total = self._paste(self.windows.square()[None, :, None])[0, 0]
        self.keep_variance = total.rsqrt()

    def _paste(self, weighted: Tensor) -> Tensor:
        out = weighted.new_zeros((weighted.shape[0], weighted.shape[2], *self.shape))
        for t, (r, c) in enumerate(self.corners):
            out[:, :, r : r + self.size, c : c + self.size] += weighted[:, t]
        return out

    def image(self, tiles: Tensor) -> Tensor:
        """Windowed sum of the tiles."""
        split = tiles.unflatten(0, (-1, self.tiles))
        return self._paste(split * self.windows.to(tiles.real.dtype).to(tiles.device)[None, :, None])

    def deviation(self, tiles: Tensor) -> Tensor:
        """Windowed sum over the root of the summed squared windows: independent tiles keep their variance."""
        return self.image(tiles) * self.keep_variance.to(tiles.real.dtype).to(tiles.device)

    def cut(self, image: Tensor) -> Tensor:
        """The tile's part of the canvas, without a window."""
        n = self.size
        parts = [image[..., r : r + n, c : c + n] for r, c in self.corners]
        return torch.stack(parts, dim=1).flatten(0, 1)


class FieldOfView:
    """One tile that shows the whole field of view, band-limited up (or down) to the image's grid.

    Frequencies that the tile does not hold follow a power law fitted to the prior's power; they belong to the
    residual, so that closing happens at full size.

    Parameters
    ----------
    size : int
        ``N``.
    shape : (int, int)
        Of the image.
    """

    tiles = 1

    def __init__(self, size: int, shape: tuple[int, int]) -> None:
        self.size, self.shape = size, shape
        # pixel values, not spectrum values, are kept: the orthonormal spectrum scales with the root of the area
        self.gain = math.sqrt(shape[0] * shape[1]) / size

    def _common(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        pairs = []
        for n in self.shape:
            half = (min(n, self.size) - 1) // 2
            k = torch.arange(-half, half + 1)
            pairs.append((k % self.size, k % n))
        (sy, ty), (sx, tx) = pairs
        return (sy[:, None], sx[None, :]), (ty[:, None], tx[None, :])

    def image(self, tiles: Tensor) -> Tensor:
        """Fourier interpolation of the tile."""
        source, target = self._common()
        h = fft2(tiles)
        out = h.new_zeros((*h.shape[:-2], *self.shape))
        out[..., target[0], target[1]] = self.gain * h[..., source[0], source[1]]
        x = ifft2(out)
        return x if tiles.is_complex() else x.real

    def deviation(self, tiles: Tensor) -> Tensor:
        """The same as :meth:`image`: nothing overlaps."""
        return self.image(tiles)

    def cut(self, image: Tensor) -> Tensor:
        """The image band-limited to the tile's grid."""
        source, target = self._common()
        h = fft2(image)
        out = h.new_zeros((*h.shape[:-2], self.size, self.size))
        out[..., source[0], source[1]] = h[..., target[0], target[1]] / self.gain
        x = ifft2(out)
        return x if image.is_complex() else x.real

    def per_bin(self, prior_bins: Tensor) -> Tensor:
        """Same frequency per field of view inside the band, a fitted power law outside."""
        source, target = self._common()
        n = self.size
        r = radius(n, n)
        ring = (r >= n // 8) & (r < n // 2)
        logs = torch.log(r[ring].double())
        out = []
        for bins in prior_bins.double().cpu():
            values = torch.log(bins[ring].clamp_min(1e-30))
            centred = logs - logs.mean()
            slope = float((centred * (values - values.mean())).sum() / centred.square().sum())
            level = float(values.mean() - slope * logs.mean())
            outside = torch.exp(level + min(slope, -1.0) * torch.log(radius(*self.shape).double().clamp_min(1.0)))
            outside[target[0], target[1]] = bins[source[0], source[1]]
            out.append(outside * self.gain**2)
        return torch.stack(out).to(prior_bins)

    def rings(self, spectrum: Spectrum) -> RingGrid:
        """Same frequency per field of view; a tile's frequency beyond the image's grid counts as unknown."""
        source, target = self._common()
        ring = torch.full(self.shape, -1, dtype=torch.int64)
        own = ring_index(spectrum.size)
        ring[target[0], target[1]] = own[source[0], source[1]]
        return RingGrid(ring, torch.bincount(own.flatten(), minlength=len(spectrum.scales)).float())


def canvas_of(size: int, shape: tuple[int, int], overlap: int | None) -> tuple[tuple[int, int], int]:
    """Canvas of tiles of ``size`` pixels for an image of ``shape``, and the smallest overlap; a quarter by default."""
    height, width = (max(n, size) for n in shape)
    return (height, width), size // 4 if overlap is None else overlap


def geometry_of(size: int, shape: tuple[int, int], fit: str, overlap: int | None) -> Geometry:
    """How an image of ``shape`` is made of tiles; of ``fit`` ``"whole"``, it is one of any size."""
    if fit == "whole" or shape == (size, size):
        return Whole(shape)
    if choose_fit(fit, shape, size) == "field-of-view":
        return FieldOfView(size, shape)
    return Canvas(size, *canvas_of(size, shape, overlap))


def tiles_of(size: int, shape: tuple[int, int], fit: str, overlap: int | None) -> int:
    """Tiles of ``size`` pixels of an image of ``shape``."""
    if choose_fit(fit, shape, size) == "field-of-view":
        return 1
    canvas, lap = canvas_of(size, shape, overlap)
    return math.prod(len(positions(n, size, lap)) for n in canvas)


def positions(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length``, evenly spread, overlapping by at least ``overlap``."""
    if length == size:
        return [0]
    count = max(2, math.ceil((length - overlap) / (size - overlap)))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def flanks(positions: list[int], length: int, size: int) -> list[Tensor]:
    """One-dimensional windows with raised-cosine flanks, normalised to sum to 1 at every pixel."""
    raw = []
    for i, p in enumerate(positions):
        window = torch.ones(size, dtype=torch.float64)
        if i > 0:
            lap = positions[i - 1] + size - p
            ramp = (torch.arange(lap, dtype=torch.float64) + 0.5) / lap if lap > 0 else torch.zeros(0)
            window[: max(lap, 0)] *= torch.sin(0.5 * math.pi * ramp) ** 2
        if i + 1 < len(positions):
            lap = p + size - positions[i + 1]
            ramp = (torch.arange(lap, dtype=torch.float64) + 0.5) / lap if lap > 0 else torch.zeros(0)
            window[size - max(lap, 0) :] *= torch.cos(0.5 * math.pi * ramp) ** 2
        raw.append(window)
    total = torch.zeros(length, dtype=torch.float64)
    for p, window in zip(positions, raw, strict=True):
        total[p : p + size] += window
    return [(window / total[p : p + size]).float() for p, window in zip(positions, raw, strict=True)]


def choose_fit(fit: str, shape: tuple[int, int], size: int) -> str:
    """``"canvas"`` or ``"field-of-view"``: as asked, or by the size of the image ``shape`` and the prior's ``size``."""
    if fit != "auto":
        return fit
    return "field-of-view" if max(shape) <= size else "canvas"


def crop_power(power: Tensor, shape: tuple[int, int]) -> Tensor:
    """Expected power of each frequency of a crop ``(H, W)``, not larger than ``N``, of images of power ``(C, N, N)``.

    The transform of the autocorrelation under the crop's own, a triangle along each axis (Bartlett): the mean square is
    that of the image, which holds few frequencies when it is cut small.
    """
    correlation = torch.fft.ifft2(power)
    for axis, length in zip((-2, -1), shape, strict=True):
        lag = torch.arange(length, device=power.device)
        share = (lag.to(power) / length).reshape(-1, *[1] * (-1 - axis))
        near = correlation.index_select(axis, lag)
        wrapped = correlation.index_select(axis, (lag - length) % power.shape[axis])
        correlation = (1 - share) * near + share * wrapped
    return torch.fft.fft2(correlation).real.clamp_min(0)


def image_power(power: Tensor, shape: tuple[int, int], fit: str) -> Tensor:
    """A prior's power ``(C, N, N)`` at the frequencies of an image of any size ``(H, W)``, in the prior's units.

    In a field of view frequencies are those of the field. Otherwise they are cycles per pixel, and the power is a
    density, which does not depend on the size, but for the mean of the image: that is a line, whose energy grows with
    the area.
    """
    size = power.shape[-1]
    if shape == (size, size):
        return power
    if choose_fit(fit, shape, size) == "field-of-view":
        return FieldOfView(size, shape).per_bin(power)
    around = (power[:, 0, 1] + power[:, 1, 0] + power[:, 0, -1] + power[:, -1, 0]) / 4
    density = power.clone()
    density[:, 0, 0] = torch.minimum(around, power[:, 0, 0])
    line = power[:, 0, 0] - density[:, 0, 0]
    found = power_at(density, shape).clone()
    found[:, 0, 0] += line * (shape[0] * shape[1] / size**2)
    return found
