"""Augmentation: random changes of geometry and contrast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from iasolve.spectrum import radius
from iasolve.tables import FORBID, Amount, Flag, Number, Range, Share, as_table, ordered, table
from iasolve.training.phase import PhaseField
from iasolve.training.streams import Rng

__all__ = ["Augmentation", "normalise"]


def normalise(images: Tensor) -> Tensor:
    """Divide each image ``(..., C, H, W)`` by its root mean square: the prior's units."""
    rms = images.abs().square().mean(dim=(-3, -2, -1), keepdim=True).sqrt()
    return images / rms.clamp_min(torch.finfo(rms.dtype).tiny)


@table("augmentation")
@dataclass(frozen=True, config=FORBID)
class Augmentation:
    """Random changes of geometry and contrast, then the prior's normalisation and a small gain.

    Attributes
    ----------
    exact : float
        Part of the images that only get flips and whole-pixel shifts: no interpolation touches their finest ring.
    rotate : float
        Largest rotation, degrees.
    zoom : (float, float)
        Range of magnification.
    shift : float
        Largest shift, pixels.
    gamma : (float, float)
        Range of the exponent on intensities relative to the maximum.
    tone : float
        Standard deviation of the slope that a random smooth curve, applied to the intensities, adds to 1: other
        scanners and sequences order the tissues' grey values otherwise.
    sharpen : (float, float)
        Range of the log gain at the finest frequency, growing with the square of the frequency: other scanners resolve
        more, or less.
    floor : float
        Largest level, relative to the maximum, that is subtracted with what falls below it set to 0: air is exactly 0
        in some scanners' images, and noise in others'.
    invert : float
        Part of the images whose bright and dark tissues change places while air stays dark, as between T1 and T2
        weighting: ``v -> max(0, 1.2 - v) v^2 / (v^2 + e^2)``, in units of the level that the brightest 2 % of the
        pixels exceed; ``e`` from 0.1 to 0.3.
    changed : float
        Part of the images that ``tone``, ``sharpen`` and ``floor`` change, each drawn by itself.
    bias_field : float
        Strength (standard deviation of the log) of a smooth multiplicative field.
    gain : float
        Standard deviation of the log of a factor on the normalised image: a solver's estimate of an image's
        scale is never exact.
    window : float
        Part of the images that are windows of magnified ones, in which the head is cut off at the edges: what a tile
        of a larger image looks like.
    flip : (bool, bool)
        Whether images are mirrored along their rows' and their columns' axis.
    phase : PhaseField, optional
        Makes complex images of magnitudes; a configuration has it in ``[data]``, as it is part of what the images are.
    """

    exact: Share = 0.4
    rotate: Amount = 12.0
    zoom: Range = (0.85, 1.2)
    shift: Amount = 8.0
    gamma: Range = (0.7, 1.4)
    tone: Amount = 0.0
    sharpen: Annotated[tuple[Number, Number], AfterValidator(ordered)] = (0.0, 0.0)
    floor: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    invert: Share = 0.0
    changed: Share = 0.5
    bias_field: Amount = 0.15
    gain: Amount = 0.06
    window: Share = 0.0
    flip: tuple[Flag, Flag] = (True, True)
    phase: PhaseField | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Augmentation:
        """From a table of the training configuration."""
        return cls(**as_table(data, "augmentation", leave=("phase",)))

    def __call__(self, images: Tensor, rng: Rng) -> Tensor:
        """Augment ``(B, C, N, N)`` non-negative or complex images."""
        batch, _, size, _ = images.shape
        for axis, allowed in zip((-2, -1), self.flip, strict=True):
            if allowed:
                chosen = torch.from_numpy(rng.random(batch) < 0.5).to(images.device)[:, None, None, None]
                images = torch.where(chosen, images.flip(axis), images)
        # without a share of warped images, none is computed
        warped = self._warp(images, rng, self.zoom, self.shift) if self.exact < 1 else images
        shift = int(self.shift)
        shifts = rng.integers(-shift, shift + 1, (batch, 2))
        rolled = _roll(images, shifts) if shifts.any() else images
        exact = torch.from_numpy(rng.random(batch) < self.exact).to(images.device)[:, None, None, None]
        images = torch.where(exact, rolled, warped)
        if self.window > 0:
            inside = torch.from_numpy(rng.random(batch) < self.window).to(images.device)[:, None, None, None]
            window = self._warp(rolled, rng, (1.0, _WINDOW_ZOOM), _WINDOW_SHIFT * size / 2)
            images = torch.where(inside, window, images)
        if any(self.sharpen):
            images = self._sharpen(images, rng)
        images = images * self._field(batch, size, rng, images.device)
        images = self._gamma(images, rng)
        if self.invert > 0:
            images = self._inverted(images, rng)
        if self.tone > 0 or self.floor > 0:
            images = self._intensities(images, rng)
        if self.phase is not None:
            images = self.phase(images, rng)
        gain = np.exp(self.gain * rng.standard_normal(batch)).astype(np.float32)
        return normalise(images) * torch.from_numpy(gain).to(images.device)[:, None, None, None]

    def _warp(self, images: Tensor, rng: Rng, zoom: tuple[float, float], shift: float) -> Tensor:
        """Random rotation, magnification within ``zoom``, and shift of up to ``shift`` pixels."""
        batch, _, size, _ = images.shape
        angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate, batch))
        scale = np.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1]), batch))
        offset = rng.uniform(-shift, shift, (batch, 2)) * 2 / size
        matrix = np.stack(
            [
                np.stack([np.cos(angle) / scale, -np.sin(angle) / scale, offset[:, 0]], -1),
                np.stack([np.sin(angle) / scale, np.cos(angle) / scale, offset[:, 1]], -1),
            ],
            axis=1,
        )
        theta = torch.from_numpy(matrix.astype(np.float32)).to(images.device)
        # interpolate on a twofold Fourier-upsampled grid, or cubic interpolation eats the finest ring
        grid = F.affine_grid(theta, [batch, 1, size, size], align_corners=False)

        def warp(part: Tensor) -> Tensor:
            return F.grid_sample(_upsample(part), grid, mode="bicubic", padding_mode="zeros", align_corners=False)

        return torch.complex(warp(images.real), warp(images.imag)) if images.is_complex() else warp(images)

    def _field(self, batch: int, size: int, rng: Rng, device: torch.device) -> Tensor:
        t = np.linspace(-1, 1, size, dtype=np.float32)
        waves = torch.from_numpy(np.stack([np.ones_like(t), t, np.cos(np.pi * t), np.sin(np.pi * t)])).to(device)
        weights = rng.standard_normal((batch, 4, 4)).astype(np.float32) * self.bias_field / 3
        weights[:, 0, 0] = 0
        smooth = torch.einsum("bij,ih,jw->bhw", torch.from_numpy(weights).to(device), waves, waves)
        return torch.exp(smooth)[:, None]

    def _gamma(self, images: Tensor, rng: Rng) -> Tensor:
        exponent = np.exp(rng.uniform(math.log(self.gamma[0]), math.log(self.gamma[1]), len(images))).astype(np.float32)
        power = torch.from_numpy(exponent).to(images.device)[:, None, None, None]
        magnitude = images.abs()
        peak = magnitude.amax(dim=(-3, -2, -1), keepdim=True).clamp_min(1e-12)
        factor = (magnitude / peak).clamp_min(1e-6) ** (power - 1)
        return images * factor

    def _chosen(self, batch: int, rng: Rng) -> np.ndarray:
        return (rng.random(batch) < self.changed).astype(np.float32)

    def _sharpen(self, images: Tensor, rng: Rng) -> Tensor:
        batch, _, size, _ = images.shape
        gain = rng.uniform(*self.sharpen, batch).astype(np.float32) * self._chosen(batch, rng)
        square = (radius(size, size, device=images.device).float() / (size / 2)).square()
        response = torch.exp(torch.from_numpy(gain).to(images.device)[:, None, None, None] * square)
        changed = torch.fft.ifft2(torch.fft.fft2(images) * response)
        return changed if images.is_complex() else changed.real.clamp_min(0)

    def _inverted(self, images: Tensor, rng: Rng) -> Tensor:
        batch = len(images)
        chosen = torch.from_numpy(rng.random(batch) < self.invert).to(images.device)[:, None, None, None]
        edge = torch.from_numpy(rng.uniform(0.1, 0.3, batch).astype(np.float32)).to(images.device)[:, None, None, None]
        magnitude = images.abs()
        bright = torch.quantile(magnitude.flatten(1), 0.98, dim=1)[:, None, None, None].clamp_min(1e-12)
        v = magnitude / bright
        return torch.where(chosen, images * (1.2 - v).clamp_min(0) * v / (v.square() + edge.square()), images)

    def _intensities(self, images: Tensor, rng: Rng) -> Tensor:
        """Tone curve and floor, on magnitudes relative to the image's maximum."""
        batch = len(images)
        k = np.arange(1, _TONES + 1)
        slopes = self.tone * rng.standard_normal((batch, _TONES)) * self._chosen(batch, rng)[:, None]
        floor = self.floor * rng.random(batch) * self._chosen(batch, rng)
        amplitudes = torch.from_numpy((slopes / (np.pi * k)).astype(np.float32)).to(images.device)
        level = torch.from_numpy(floor.astype(np.float32)).to(images.device)[:, None, None, None]
        magnitude = images.abs()
        peak = magnitude.amax(dim=(-3, -2, -1), keepdim=True).clamp_min(1e-12)
        v = magnitude / peak
        curve = (v - level).clamp_min(0)
        for n in range(_TONES):
            # 0 at v = 0 and v = 1: black stays black, and the range stays what it was
            curve = curve + amplitudes[:, n, None, None, None] * torch.sin(math.pi * (n + 1) * v) * (v > level)
        return images * (curve.clamp_min(0) / v.clamp_min(1e-6))


_TONES = 4
"""Half waves of the tone curve over the range of intensities."""

_WINDOW_ZOOM, _WINDOW_SHIFT = 2.0, 0.6
"""Largest magnification of a window, and its largest shift in units of half the image."""


def _roll(images: Tensor, shifts: np.ndarray) -> Tensor:
    """Each image of ``(B, C, N, N)`` moved round by its own ``(B, 2)`` whole pixels."""
    batch, channels, size, _ = images.shape
    t = torch.arange(size, device=images.device)
    offset = torch.from_numpy(shifts).to(images.device)
    rows, columns = ((t - offset[:, axis, None]) % size for axis in (0, 1))
    b, c = (torch.arange(n, device=images.device) for n in (batch, channels))
    return images[b[:, None, None, None], c[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def _upsample(images: Tensor) -> Tensor:
    """Twofold Fourier interpolation of ``(..., N, N)`` real images, pixel centres aligned for ``grid_sample``."""
    size = images.shape[-1]
    half = torch.fft.rfft2(images)
    # the fine grid's pixel centres lie a quarter of a coarse pixel off the coarse ones
    k = torch.fft.fftfreq(size, 1 / size, device=images.device)
    kx = torch.arange(size // 2 + 1, device=images.device)
    phase = torch.exp(-2j * math.pi * (k[:, None] + kx[None, :]) * 0.25 / size)
    padded = half.new_zeros((*half.shape[:-2], 2 * size, size + 1))
    low = size // 2
    padded[..., :low, : low + 1] = (half * phase)[..., :low, :]
    padded[..., -low:, : low + 1] = (half * phase)[..., low:, :]
    return torch.fft.irfft2(padded, s=(2 * size, 2 * size)) * 4
