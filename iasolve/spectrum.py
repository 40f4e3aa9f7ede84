"""The transform ``B`` and its rings: how an image's spectrum is shared out among scales.

``B`` is the orthonormal 2-D Fourier transform, so white noise stays white and a squared error over pixels
equals the squared error over the full frequency grid (Parseval), ring by ring. All grids here are
*unshifted*: index 0 is the zero frequency (DC).

Rings
-----
Frequency ``k = (ky, kx)``, signed integers, has radius ``r = max(|ky|, |kx|)``. Scale 1 owns DC, scale
``s = 2, 4, ..., N`` owns ``s/4 < r <= s/2``. The rule is closed under ``k -> -k`` and every bin has
exactly one owner, so an ``N`` x ``N`` image has ``log2(N) + 1`` scales.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "RingGrid",
    "Spectrum",
    "fft2",
    "filtered",
    "frequencies",
    "half",
    "ifft2",
    "irfft2",
    "largest_radius",
    "power_at",
    "radius",
    "reflect",
    "rfft2",
    "ring_index",
    "rings_at",
    "scales_of",
    "uneven_variance",
]


def fft2(x: Tensor) -> Tensor:
    """Orthonormal, unshifted Fourier transform of the last two axes (real or complex in, complex out)."""
    return torch.fft.fft2(x, norm="ortho")


def ifft2(h: Tensor) -> Tensor:
    """Inverse of :func:`fft2` (complex out)."""
    return torch.fft.ifft2(h, norm="ortho")


def rfft2(x: Tensor) -> Tensor:
    """The half ``(..., H, W // 2 + 1)`` of :func:`fft2` that tells all of it where ``x`` is real."""
    return torch.fft.rfft2(x, norm="ortho")


def irfft2(h: Tensor, width: int) -> Tensor:
    """Inverse of :func:`rfft2`, real, for images of ``width`` columns."""
    return torch.fft.irfft2(h, s=(h.shape[-2], width), norm="ortho")


def half(h: Tensor) -> Tensor:
    """The frequencies of :func:`rfft2`, of values on the unshifted full grid; a view."""
    return h[..., : h.shape[-1] // 2 + 1]


def filtered(x: Tensor, by: Tensor) -> Tensor:
    """Images ``(..., H, W)``, each frequency multiplied by ``by``, on the unshifted full grid.

    Of real images, over half of the spectrum: ``by(-k)`` is the conjugate of ``by(k)`` then.
    """
    if x.is_complex():
        return ifft2(by * fft2(x))
    return irfft2(rfft2(x).mul_(half(by)), x.shape[-1])


def uneven_variance(power: Tensor, spread: Tensor) -> Tensor:
    """Variance of each pixel of ``F^H sqrt(V) F W u``, with white ``u`` of variance 1: uneven noise, filtered.

    ``V``: ``power``, unshifted full grid, and ``W``: ``spread``, of one shape ``(..., H, W)``. ``W^2`` is seen through
    the squares of the filter's kernel.
    """
    height, width = power.shape[-2:]
    kernel = ifft2(power.sqrt()).abs().square() / (height * width)
    return ((height * width) ** 0.5 * ifft2(fft2(kernel) * fft2(spread.square())).real).clamp_min(0)


def reflect(h: Tensor) -> Tensor:
    """``h(-k)`` on the unshifted full grid: the last two axes reversed, DC kept in place."""
    return torch.roll(torch.flip(h, dims=(-2, -1)), shifts=(1, 1), dims=(-2, -1))


def frequencies(n: int, device: torch.device | str | None = None) -> Tensor:
    """Signed integer frequencies of an unshifted axis of length ``n``, shape ``(n,)``, int64."""
    k = torch.arange(n, device=device)
    return torch.where(k < (n + 1) // 2, k, k - n)


def radius(height: int, width: int, *, device: torch.device | str | None = None) -> Tensor:
    """Chebyshev radius ``max(|ky|, |kx|)`` on the unshifted full grid, shape ``(height, width)``, int64."""
    return torch.maximum(frequencies(height, device).abs()[:, None], frequencies(width, device).abs()[None, :])


def largest_radius(height: int, width: int) -> Tensor:
    """Cycles per pixel of each frequency, the larger of both axes', ``(H, W)``, unshifted."""
    return torch.maximum(frequencies(height).abs()[:, None] / height, frequencies(width).abs() / width)


def scales_of(size: int) -> tuple[int, ...]:
    """Scales ``1, 2, 4, ..., size``.

    Raises
    ------
    ValueError
        If ``size`` is not a power of two (or smaller than 2).
    """
    if size < 2 or size & (size - 1):
        raise ValueError(f"a spectrum's size must be a power of two and at least 2, got {size}")
    return tuple(1 << i for i in range(size.bit_length()))


def ring_index(size: int) -> Tensor:
    """Position in :func:`scales_of` of the scale that owns each bin; ``(size, size)``, int64, unshifted."""
    r = radius(size, size)
    index = torch.zeros_like(r)
    for i, s in enumerate(scales_of(size)):
        if s > 1:
            index[(r > s / 4) & (r <= s / 2)] = i
    return index


class RingGrid(NamedTuple):
    """Which ring each frequency of an image grid belongs to.

    ``owner`` ``(H, W)`` int64, -1 for none; ``counts`` ``(S,)`` float32, how many bins count for each ring, some of
    which may lie beyond the grid.
    """

    owner: Tensor
    counts: Tensor

    @property
    def inside(self) -> Tensor:
        """Frequencies that belong to a ring, ``(H, W)``."""
        return self.owner >= 0

    @property
    def held(self) -> Tensor:
        """For each ring the next finer one that has bins (itself, mostly; else the finest), ``(S,)`` int64."""
        number, empty = torch.arange(len(self.counts), device=self.counts.device), self.counts == 0
        finer = number.masked_fill(empty, len(number)).flip(0).cummin(0).values.flip(0)
        return torch.minimum(finer, number.masked_fill(empty, -1).amax())

    def sums(self, values: Tensor) -> Tensor:
        """Sums ``(..., S)`` of ``(..., H, W)`` over each ring's bins."""
        count = len(self.counts)
        out = values.new_zeros((*values.shape[:-2], count + 1))
        # bins of no ring go into a last one, which is dropped
        return out.index_add(-1, (self.owner % (count + 1)).flatten(), values.flatten(-2))[..., :count]

    def means(self, values: Tensor) -> Tensor:
        """Means ``(..., S)``; 0 of a ring without bins."""
        return self.sums(values) / self.counts.clamp_min(1).to(values.dtype)

    def spread(self, levels: Tensor) -> Tensor:
        """One value a ring ``(..., S)`` at every frequency, ``(..., H, W)``; of no ring: that of the first."""
        return levels[..., self.owner.clamp_min(0)]

    def to(self, device: torch.device) -> RingGrid:
        """The same on a device."""
        return RingGrid(self.owner.to(device), self.counts.to(device))


@lru_cache(maxsize=8)
def rings_at(shape: tuple[int, int], size: int, device: torch.device | None = None) -> RingGrid:
    """The rings of images of ``size`` pixels on the frequency grid of an image of any shape, by cycles per pixel.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image.
    size : int
        ``N`` of the rings, a power of two.
    device : torch.device, optional
        Where they are wanted; the processor. They are kept on each, for the reason of :func:`_layout`.

    Returns
    -------
    RingGrid
        By position in :func:`scales_of`, unshifted; as :func:`ring_index` for an image of ``N`` x ``N``. An image of
        fewer than ``N`` pixels has no bins in some coarse rings.
    """
    if device is not None:
        return rings_at(shape, size).to(device)
    fy, fx = (frequencies(n).abs() * (size / n) for n in shape)
    r = torch.maximum(fy[:, None].expand(shape), fx[None, :].expand(shape))
    ring = torch.zeros(shape, dtype=torch.int64)
    for i, s in enumerate(scales_of(size)):
        if s > 1:
            ring[(r > max(s / 4, 0.5)) & (r <= s / 2)] = i
    return RingGrid(ring, torch.bincount(ring.flatten(), minlength=len(scales_of(size))).float())


def power_at(power: Tensor, shape: tuple[int, int]) -> Tensor:
    """Power of each frequency ``(..., H', W')`` at the frequencies of an image of another shape, ``(..., H, W)``.

    Bilinear interpolation at equal cycles per pixel: with an orthonormal transform, the power of a texture does not
    depend on the size of the image.
    """
    if shape == tuple(power.shape[-2:]):
        return power

    def place(length: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
        f = frequencies(length).double() * (n / length)
        low = torch.floor(f)
        return (low.long() % n).to(power.device), ((low.long() + 1) % n).to(power.device), (f - low).to(power)

    y0, y1, fy = place(shape[0], power.shape[-2])
    x0, x1, fx = place(shape[1], power.shape[-1])
    rows = power[..., y0, :] * (1 - fy)[:, None] + power[..., y1, :] * fy[:, None]
    return rows[..., x0] * (1 - fx) + rows[..., x1] * fx


class Spectrum:
    """``B`` for square images of one size, with the rings and the Hermitian weights.

    A real image's spectrum is stored as the half grid of ``rfft2``, ``(N, N // 2 + 1)``; bins off the columns
    ``kx = 0`` and ``kx = N / 2`` stand for two bins of the full grid and carry weight 2. A complex image's
    spectrum is the full grid with weights 1.

    Parameters
    ----------
    size : int
        ``N``, a power of two.
    is_complex : bool
        Whether images are complex.
    """

    def __init__(self, size: int, is_complex: bool = False) -> None:
        self.size = size
        self.is_complex = is_complex
        self.scales = scales_of(size)
        self.columns = size if is_complex else size // 2 + 1
        self.ring, self.weight, self._bins = _layout(size, is_complex, torch.device("cpu"))

    def __repr__(self) -> str:
        return f"Spectrum(size={self.size}, is_complex={self.is_complex})"

    @property
    def bins_per_ring(self) -> Tensor:
        """Number of full-grid bins each scale owns, ``(S,)`` float32; sums to ``size ** 2``."""
        return self._bins

    def transform(self, x: Tensor) -> Tensor:
        """``B^H x``: image ``(..., N, N)`` to spectrum ``(..., N, columns)``."""
        if self.is_complex:
            return fft2(x)
        return torch.fft.rfft2(x, norm="ortho")

    def inverse(self, h: Tensor) -> Tensor:
        """``B h``: spectrum ``(..., N, columns)`` to image ``(..., N, N)``, real for a real spectrum."""
        if self.is_complex:
            return ifft2(h)
        return torch.fft.irfft2(h, s=(self.size, self.size), norm="ortho")

    def half(self, full: Tensor) -> Tensor:
        """The stored part of something given on the full grid ``(..., N, N)``."""
        return full[..., : self.columns]

    def per_bin(self, per_ring: Tensor) -> Tensor:
        """Spread one value a ring, ``(..., S)``, over the bins, ``(..., N, columns)``."""
        return per_ring[..., _layout(self.size, self.is_complex, per_ring.device)[0]]

    def ring_sums(self, values: Tensor) -> Tensor:
        """Sum real per-bin ``values`` ``(..., N, columns)`` over the full grid within each ring; ``(..., S)``."""
        ring, weight, _ = _layout(self.size, self.is_complex, values.device)
        weighted = (values * weight.to(values.dtype)).flatten(-2)
        out = weighted.new_zeros((*weighted.shape[:-1], len(self.scales)))
        return out.index_add(-1, ring.flatten(), weighted)

    def ring_means(self, values: Tensor) -> Tensor:
        """Mean of real per-bin ``values`` within each ring, every full-grid bin counted once; ``(..., S)``."""
        return self.ring_sums(values) / self.bins(values.device).to(values.dtype)

    def bins(self, device: torch.device) -> Tensor:
        """:attr:`bins_per_ring` on a device."""
        return _layout(self.size, self.is_complex, device)[2]

    def crop_indices(self, scale: int, grid: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Which bins a ring owns, as flat positions in two spectra.

        Parameters
        ----------
        scale : int
            The ring's scale.
        grid : int
            Size of the smaller map whose spectrum holds the same frequencies; at least ``2 * scale`` below
            the finest scale, so that both signs of the ring's outer edge are representable.
        device : torch.device, optional
            Where the positions are wanted; the processor.

        Returns
        -------
        source, target : Tensor
            Flat int64 positions in the map's spectrum (same half or full layout) and in this spectrum.
        """
        if grid != self.size and grid < 2 * scale:
            raise ValueError(f"scale {scale} needs a map of at least {2 * scale} pixels, got {grid}")
        return _crop_indices(self.size, self.is_complex, scale, grid, device or torch.device("cpu"))


@lru_cache(maxsize=64)
def _layout(size: int, is_complex: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Ring of each stored bin, its weight, and the number of full-grid bins of each ring.

    Kept on each device: a copy from the processor in the middle of a training step would wait for the GPU, and could
    not be part of a CUDA graph.
    """
    columns = size if is_complex else size // 2 + 1
    ring = ring_index(size)[:, :columns].contiguous()
    weight = torch.ones(size, columns)
    if not is_complex:
        weight[:, 1 : size // 2] = 2.0
    bins = torch.bincount(ring.flatten(), weights=weight.flatten(), minlength=len(scales_of(size))).float()
    return ring.to(device), weight.to(device), bins.to(device)


@lru_cache(maxsize=512)
def _crop_indices(size: int, is_complex: bool, scale: int, grid: int, device: torch.device) -> tuple[Tensor, Tensor]:
    columns = size if is_complex else size // 2 + 1
    grid_columns = grid if is_complex else grid // 2 + 1
    ring = ring_index(size)[:, :columns]
    rows, cols = torch.nonzero(ring == scales_of(size).index(scale), as_tuple=True)
    ky = frequencies(size)[rows]
    kx = frequencies(size)[cols] if is_complex else cols
    source = (ky % grid) * grid_columns + (kx % grid if is_complex else kx)
    return source.to(device), (rows * columns + cols).to(device)
