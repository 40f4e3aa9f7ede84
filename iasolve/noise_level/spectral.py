"""The noise level of each ring of frequencies, from the flattest blocks of an image.

An image's own content is strongest at low frequencies, and where a block of pixels has little of it, it has even less
at higher ones. So the level of a ring is read from the blocks with the lowest energy in the rings below it: choosing
them by other, independent coefficients does not bias the level (after Ponomarenko et al. 2007 and Colom and Buades,
Image Processing On Line 3:173, 2013, who choose once, by all low frequencies, for white noise).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.operators.base import as_floating
from iasolve.operators.rician import rician_mean, rician_variance
from iasolve.spectrum import frequencies

__all__ = ["READABLE", "RINGS", "RingLevels", "ring_levels"]

RINGS = 16
"""Rings from 0 to 0.5 cycles per pixel; blocks have as many pixels on a side."""

_RAYLEIGH = 1.25  # mean over standard deviation; 1.91 for magnitudes of noise alone, less with some tissue in it
_AIR = 2.3  # the same, of signals below 1.7 levels

READABLE = 4
"""Rings below this one are mostly image."""

_FEWEST = 10  # blocks
_USED = 30  # blocks a ring's level is read from, or the share of all of them
_SHARE = 0.03
_MOST = 8_000  # blocks looked at
_REPEATED = 0.3  # share of neighbours of equal value, beyond which a block is padding or clipping
_EXTREME = 0.05  # share of pixels at the image's lowest or highest value, which are clipped


class RingLevels(NamedTuple):
    """Noise level of each ring of frequencies, and how sure it is.

    Attributes
    ----------
    levels : Tensor
        ``(16,)``, float64, in units of the image, from the lowest frequencies to the highest.
    error : Tensor
        ``(16,)``, float64: relative standard error of each level.

    Examples
    --------
    >>> import torch
    >>> noise = 5 * torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    >>> rings = ring_levels(noise)
    >>> tuple(rings.levels.shape), tuple(rings.error.shape)
    ((16,), (16,))
    """

    levels: Tensor
    error: Tensor


def ring_levels(image: Tensor) -> RingLevels | None:
    """Noise level of each ring of frequencies of an image ``(C, H, W)``, real or complex, in its units.

    Ring ``i`` is that of :class:`iasolve.operators.SpectralNoise` with :data:`RINGS` levels. Levels are the median
    energies of the flattest blocks' discrete cosine coefficients. The lowest four rings, where images have most of
    their content, follow a Gaussian filter fitted to the next five where their own value is larger. No level is higher
    than the image's whole power in its ring. In images without a negative value, blocks of little signal count as
    magnitudes, whose noise is narrower than where there is signal: what is returned is the level of the latter.

    Returns
    -------
    RingLevels or None
        Of root mean square values (of complex ones, where the image is complex); None where fewer than 10 blocks of
        16 x 16 pixels are neither constant nor clipped.

    Examples
    --------
    >>> import torch
    >>> noise = 5 * torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    >>> round(float(ring_levels(noise).levels.mean()))
    5
    """
    image = as_floating(image).reshape(-1, *image.shape[-2:])
    parts = torch.cat([image.real, image.imag]) if image.is_complex() else image
    # levels of images in any units: squares must neither underflow nor overflow
    unit = float(parts.abs().max())
    if min(image.shape[-2:]) < RINGS or unit == 0:
        return None
    parts = parts.double() / unit
    energies = torch.cat([_block_energies(part, len(parts)) for part in parts])
    if len(energies) < _FEWEST:
        return None
    bins = 2 * torch.arange(RINGS, dtype=torch.float64) + 1
    used = min(len(energies), max(_USED, int(_SHARE * len(energies))))
    power = torch.zeros(RINGS + 1, dtype=torch.float64)
    for ring in range(2, RINGS):
        content = energies[:, 1:ring] @ bins[1:ring]
        flattest = energies[content.topk(used, largest=False).indices, ring]
        # median of the mean of n squares (Wilson and Hilferty 1931)
        power[ring] = flattest.median() / (1 - 2 / (9 * bins[ring])) ** 3
    power[:2], power[RINGS] = power[2], power[RINGS - 1]
    # cosine i has the frequency where ring i begins
    power = (power[:-1] + power[1:]) / 2
    power[:READABLE] = torch.minimum(power[:READABLE], _extrapolated(power))
    power = torch.minimum(power, _whole_power(parts))
    # a median of squares has 1.57 times the variance of their mean; blocks overlap: about a quarter are independent
    error = (1.57 * 2 / (bins * used / 4)).sqrt() / 2
    error[:READABLE] = error[READABLE]
    scale = unit * math.sqrt(2 if image.is_complex() else 1)
    return RingLevels(scale * power.sqrt(), error)


def _block_energies(plane: Tensor, planes: int) -> Tensor:
    """Mean square cosine coefficient of each block and ring, ``(blocks, RINGS)``, without padding and clipping."""
    height, width = plane.shape
    stride = max(4, math.ceil(math.sqrt(planes * height * width / _MOST)))
    blocks = plane.unfold(0, RINGS, stride).unfold(1, RINGS, stride).reshape(-1, RINGS, RINGS)
    repeated = ((blocks.diff(dim=1) == 0).double().mean((1, 2)) + (blocks.diff(dim=2) == 0).double().mean((1, 2))) / 2
    extreme = torch.maximum(
        (blocks == plane.min()).double().mean((1, 2)), (blocks == plane.max()).double().mean((1, 2))
    )
    textured = repeated < _REPEATED
    inside = textured & (extreme < _EXTREME)
    blocks = blocks[inside if int(inside.sum()) >= _USED else textured]
    if not len(blocks):
        return torch.zeros(0, RINGS, dtype=torch.float64)
    cosines = _cosines().to(blocks)
    squares = (cosines @ blocks @ cosines.T).square()
    if float(plane.min()) >= 0:
        squares = squares / _narrowing(blocks)[:, None, None]
    index = torch.arange(RINGS)
    ring = torch.maximum(index[:, None], index[None, :]).flatten().to(blocks.device)
    sums = squares.new_zeros(len(blocks), RINGS).index_add(1, ring, squares.flatten(1))
    return (sums / (2 * torch.arange(RINGS).to(sums) + 1)).cpu()


def _narrowing(blocks: Tensor) -> Tensor:
    """Variance of magnitudes' noise in each block over that of its real part ``(blocks,)``, from mean over deviation.

    The ratio is 1.91 in air, and 3.2 where the noise has 98 % of its level (Koay and Basser 2006, whose correction this
    is). Blocks below it hold something else than magnitudes of noise. Blocks are chosen for little variance, so that
    their ratio is too large: near air, it counts as air.
    """
    signal = torch.linspace(0, 4, 400, dtype=torch.float64)
    variance = rician_variance(signal)
    ratios = rician_mean(signal) / variance.sqrt()
    found = (blocks.mean((1, 2)) / blocks.std((1, 2)).clamp_min(torch.finfo(blocks.dtype).tiny)).cpu()
    index = torch.searchsorted(ratios, found.where(found > _AIR, 0)).clamp_max(len(signal) - 1)
    narrowing = torch.where((found > _RAYLEIGH) & (found < ratios[-1]), variance[index], torch.ones_like(found))
    return narrowing.to(blocks)


def _cosines() -> Tensor:
    """The orthonormal discrete cosine transform (type II) of a block's rows, ``(RINGS, RINGS)``."""
    n = torch.arange(RINGS, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * n[None, :] + 1) * n[:, None] / (2 * RINGS)) * math.sqrt(2 / RINGS)
    matrix[0] /= math.sqrt(2)
    return matrix


def _extrapolated(power: Tensor) -> Tensor:
    """Power of the lowest rings by ``log power = a - b f^2``, ``b >= 0``, fitted to the five rings above."""
    squared = (torch.arange(RINGS, dtype=torch.float64) + 0.5).square()
    f, values = squared[READABLE : READABLE + 5], power[READABLE : READABLE + 5]
    logs = values.clamp_min(torch.finfo(values.dtype).tiny).log()
    centred = f - f.mean()
    slope = min(0.0, float((centred * logs).sum() / centred.square().sum()))
    return torch.exp(logs.mean() + slope * (squared[:READABLE] - f.mean()))


def _whole_power(parts: Tensor) -> Tensor:
    """Mean power of each ring ``(RINGS,)`` of a window on the planes ``(n, H, W)``, from which noise is a part."""
    height, width = parts.shape[-2:]
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (height, width)))
    window = (window / window.square().mean().sqrt()).to(parts)
    half = width // 2 + 1
    power = torch.zeros((height, half), dtype=torch.float64)
    for plane in parts:  # one by one, and of each real spectrum a half: photographs are large
        spectrum = torch.fft.rfft2((plane - plane.mean()).mul_(window), norm="ortho")
        power += (spectrum.abs().square_() / len(parts)).cpu()
    fy, fx = (frequencies(n).abs().double() / n for n in (height, width))
    ring = (2 * RINGS * torch.maximum(fy[:, None], fx[None, :half])).long().clamp_max(RINGS - 1).flatten()
    twice = torch.full((half,), 2.0, dtype=torch.float64)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    count = torch.bincount(ring, twice.expand(height, half).flatten(), minlength=RINGS).clamp_min(1)
    return torch.bincount(ring, power.mul_(twice).flatten(), minlength=RINGS) / count
