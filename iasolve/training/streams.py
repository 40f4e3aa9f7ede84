"""Random numbers of training images: each image has a stream of its own, so that it does not matter who draws it.

Image ``n`` of a run, its augmentation, degradation and noise are functions of the run's seed and of ``n`` alone. Any
number of processes, each taking a batch in any number of parts, sees the same images, and a resumed run needs no state.

What draws images takes a :class:`Streams`, or one NumPy generator for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Rng", "Streams", "each", "normal", "repeated", "shared", "subset"]


class Streams:
    """Random numbers of the images of a batch: as a NumPy generator's, but row ``i`` is from image ``i``'s generator.

    Parameters
    ----------
    generators : sequence of np.random.Generator
        One for each image.
    common : np.random.Generator
        For what concerns the batch as a whole.
    """

    def __init__(self, generators: Sequence[np.random.Generator], common: np.random.Generator) -> None:
        self.each, self.common = list(generators), common

    @classmethod
    def of_part(cls, seed: int, first: int, count: int, part: int = 0, parts: int = 1) -> Streams:
        """Of one of ``parts`` parts, of ``count`` images each, of the batch that begins with image ``first``.

        The parts take the images in turn: the first so-manieth of each part are together those of the batch.
        """
        numbers = range(first + part, first + count * parts, parts)
        return cls(
            [np.random.default_rng([seed, number, 0]) for number in numbers], np.random.default_rng([seed, first, 1])
        )

    def random(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Uniform in ``[0, 1)``."""
        return self._rows(size, lambda one, shape: one.random(shape))

    def uniform(self, low: float, high: float, size: int | tuple[int, ...]) -> np.ndarray:
        """Uniform in ``[low, high)``."""
        return self._rows(size, lambda one, shape: one.uniform(low, high, shape))

    def standard_normal(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Standard normal."""
        return self._rows(size, lambda one, shape: one.standard_normal(shape))

    def integers(self, low: int, high: int | None = None, size: int | tuple[int, ...] = ()) -> np.ndarray:
        """Uniform from ``low`` up to, not with, ``high``; from 0 to ``low`` without it."""
        return self._rows(size, lambda one, shape: one.integers(low, high, shape))

    def _rows(
        self, size: int | tuple[int, ...], draw: Callable[[np.random.Generator, tuple[int, ...]], Any]
    ) -> np.ndarray:
        count, *shape = (size,) if isinstance(size, int) else size
        if count != len(self.each):
            raise ValueError(f"asked for numbers of {count} images, expected {len(self.each)}: each has its own")
        return np.array([draw(one, tuple(shape)) for one in self.each])


Rng = np.random.Generator | Streams


def each(rng: Rng, count: int) -> list[np.random.Generator]:
    """The generator of each of ``count`` images."""
    return rng.each if isinstance(rng, Streams) else [rng] * count


def shared(rng: Rng) -> np.random.Generator:
    """The generator for what concerns the batch as a whole."""
    return rng.common if isinstance(rng, Streams) else rng


def subset(rng: Rng, which: Sequence[int] | np.ndarray) -> Rng:
    """Of some of the images."""
    return Streams([rng.each[i] for i in which], rng.common) if isinstance(rng, Streams) else rng


def repeated(rng: Rng, times: int) -> Rng:
    """Of ``times`` pictures of each image, one after the other."""
    return Streams([one for one in rng.each for _ in range(times)], rng.common) if isinstance(rng, Streams) else rng


def normal(rng: Rng, shape: tuple[int, ...], device: torch.device, axis: int = 0) -> Tensor:
    """Standard normal values of ``shape``, float32 on ``device``, with the images along ``axis``."""
    if not isinstance(rng, Streams):
        if device.type == "cpu":
            return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        return torch.randn(shape, device=device)
    own = (*shape[:axis], *shape[axis + 1 :])
    if device.type == "cpu":
        return torch.stack([torch.from_numpy(one.standard_normal(own, dtype=np.float32)) for one in rng.each], axis)
    seeds = [int(one.integers(2**63)) for one in rng.each]
    drawn = [torch.randn(own, device=device, generator=torch.Generator(device).manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn, axis)
