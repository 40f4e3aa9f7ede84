"""Square crops of images of any size, at several scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

__all__ = ["Crops"]

_TRIES = 8
"""Crops that may be drawn anew because they are dark."""


@dataclass(frozen=True)
class Crops:
    """What is cut out of an image for training.

    An image is averaged down over exact pixel areas, as a detector with larger pixels would have seen it.

    Attributes
    ----------
    size : int
        Side of a crop, pixels.
    scale : (float, float)
        Range of the factor by which images are averaged down, drawn log-uniformly. It ends where the image's shorter
        side would no longer hold a crop.
    native : float
        Part of the crops at factor 1: the image's own pixels, untouched.
    whole : float
        Part of the crops that show the whole image, averaged down until its longer side fits (never magnified), with
        zeros around it.
    transpose : bool
        Whether half of the crops have rows and columns exchanged: with the flips of the augmentation, quarter turns.
    darkest : float
        A crop whose root mean square is below this part of its image's is drawn again, a few times: of air and of
        black frames there is nothing to learn.
    frame : str
        Key of the images' sizes ``(n, 2)`` in an ``.npz`` file whose images were padded with zeros, or, when larger
        than the array, averaged down first, to one size: the padding is cut off.
    validation : int
        Crops of each validation image.
    """

    size: int
    scale: tuple[float, float] = (1.0, 1.0)
    native: float = 0.0
    whole: float = 0.0
    transpose: bool = True
    darkest: float = 0.0
    frame: str = ""
    validation: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.validation < 1:
            raise ValueError(f"crops need a size and a number of validation crops of at least 1, got {self}")
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise ValueError(f"crops.scale must be [low, high] with 1 <= low <= high, got {list(self.scale)}")
        if not (min(self.native, self.whole) >= 0 and self.native + self.whole <= 1 and 0 <= self.darkest < 1):
            raise ValueError(f"crops need native, whole >= 0 with a sum of at most 1, and 0 <= darkest < 1, got {self}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Crops:
        """From a table of the training configuration; refuses unknown keys by name."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"unknown key(s) in data.crops: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if "size" not in data:
            raise ValueError("data.crops needs size, the side of a crop")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def draw(self, image: np.ndarray, rms: float, rng: np.random.Generator) -> np.ndarray:
        """One crop ``(C, size, size)`` float32 of an image ``(C, H, W)`` whose root mean square is ``rms``."""
        kind = rng.random()
        for _ in range(_TRIES):
            if kind < self.whole:
                crop = self._whole(image)
                break
            crop = self._part(image, rng, native=kind < self.whole + self.native)
            if self.darkest == 0 or math.sqrt(float(np.square(crop).mean())) >= self.darkest * rms:
                break
        return crop.swapaxes(-2, -1) if self.transpose and rng.random() < 0.5 else crop

    def _whole(self, image: np.ndarray) -> np.ndarray:
        factor = max(1.0, max(image.shape[-2:]) / self.size)
        starts = [(length - factor * self.size) / 2 for length in image.shape[-2:]]
        return self._averaged(image, [math.floor(s) for s in starts] if factor == 1 else starts, factor)

    def _part(self, image: np.ndarray, rng: np.random.Generator, *, native: bool) -> np.ndarray:
        low, high = self.scale
        largest = max(1.0, min(image.shape[-2:]) / self.size)
        bounds = (math.log(min(low, largest)), math.log(min(high, largest)))
        factor = 1.0 if native else math.exp(rng.uniform(*bounds))
        room = [length - factor * self.size for length in image.shape[-2:]]
        if factor > 1:
            return self._averaged(image, [rng.uniform(0, max(0.0, r)) for r in room], factor)
        # whole pixels: nothing is interpolated; an image that is too small stands in zeros
        starts = [int(rng.integers(r + 1)) if r >= 0 else math.floor(r / 2) for r in (int(r) for r in room)]
        return self._averaged(image, starts, 1.0)

    def _averaged(self, image: np.ndarray, starts: list[Any], factor: float) -> np.ndarray:
        out = image
        if factor == 1 and all(0 <= s <= n - self.size for s, n in zip(starts, image.shape[-2:], strict=True)):
            top, left = (int(s) for s in starts)
            return image[..., top : top + self.size, left : left + self.size].astype(np.float32)
        for axis, start in zip((-2, -1), starts, strict=True):
            out = _area_average(out, start + factor * np.arange(self.size + 1), axis)
        return out.astype(np.float32)


def _area_average(image: np.ndarray, edges: np.ndarray, axis: int) -> np.ndarray:
    """Mean of ``image`` between consecutive ``edges`` along ``axis``; pixel ``n`` spans ``[n, n + 1)``.

    Outside of the image there are zeros. Computed from running sums, linear within a pixel, in float64: integers come
    out exactly where the edges are whole numbers.
    """
    length = image.shape[axis]
    inside = np.clip(edges, 0, length)
    first, last = math.floor(inside[0]), math.ceil(inside[-1])
    part = np.moveaxis(image, axis, -1)[..., first:last].astype(np.float64)
    sums = np.concatenate([np.zeros((*part.shape[:-1], 1)), np.cumsum(part, axis=-1)], axis=-1)
    place = inside - first
    below = np.floor(place).astype(int)
    inner = np.minimum(below, max(part.shape[-1] - 1, 0))
    running = sums[..., below] + (place - below) * part[..., inner]
    return np.moveaxis(np.diff(running, axis=-1) / np.diff(edges), -1, axis)
