"""Where training draws its images: whole images of one size, crops of images of any size, or a mixture of sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from iasolve.training.augmentation import Augmentation
from iasolve.training.crops import Crops
from iasolve.training.data import DataConfig, Split, load_split
from iasolve.training.partition import Partition, load_partition
from iasolve.training.phase import PhaseField

__all__ = ["CroppedImages", "ImageSource", "Mixture", "WholeImages", "open_source"]


class ImageSource(Protocol):
    """Training and validation images of one size."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, N, N)`` of each image drawn."""

    @property
    def count(self) -> int:
        """Number of training images, before crops are cut out of them."""

    @property
    def is_complex(self) -> bool:
        """Whether the images drawn are complex."""

    @property
    def nonnegative(self) -> bool:
        """Whether all training images are real and at least 0."""

    @property
    def device(self) -> torch.device:
        """Where drawn images are."""

    @property
    def validation(self) -> Tensor:
        """``(n, C, N, N)`` float32 or complex64 on the CPU, always the same, not normalised."""

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """``count`` augmented training images ``(count, C, N, N)``.

        Their root mean square is 1 times the augmentation's gain. The same state of ``rng`` gives the same images.
        """


def open_source(
    data: DataConfig, augmentation: Augmentation, beside: Path | None = None, device: torch.device | None = None
) -> ImageSource:
    """Read a configuration's images into memory.

    Parameters
    ----------
    data, augmentation
        Of the training configuration.
    beside : Path, optional
        The configuration's folder; data files are looked for there, too.
    device : torch.device, optional
        Where drawn images are wanted.

    Raises
    ------
    FileNotFoundError, ValueError
        When data are missing or cannot be used, or sources are not alike.
    """
    device = device or torch.device("cpu")
    if data.sources:
        parts = []
        for entry in data.sources:
            own = replace(augmentation, **_overrides(entry))
            parts.append(open_source(replace(entry, phase=data.phase), own, beside, device))
        return Mixture(parts, [entry.weight for entry in data.sources])
    augmentation = replace(augmentation, **_overrides(data), phase=data.phase)
    if data.crops is None:
        return WholeImages(load_split(data, beside), augmentation, device)
    return CroppedImages(load_partition(data, beside), data.crops, augmentation, device)


def _overrides(data: DataConfig) -> dict[str, Any]:
    changed = Augmentation.from_dict(data.augmentation)
    return {key: getattr(changed, key) for key in data.augmentation}


class WholeImages:
    """Images of one size, kept on the device."""

    def __init__(self, split: Split, augmentation: Augmentation, device: torch.device) -> None:
        if not torch.isfinite(split.train).all():
            raise ValueError("the training images hold NaN or infinite values: remove those images first")
        self.train, self.validation = split.train.to(device), split.validation
        self.augmentation, self.device = augmentation, device

    @property
    def shape(self) -> tuple[int, int, int]:
        """See :class:`ImageSource`."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def count(self) -> int:
        """See :class:`ImageSource`."""
        return len(self.train)

    @property
    def is_complex(self) -> bool:
        """See :class:`ImageSource`."""
        return self.train.is_complex() or self.augmentation.phase is not None

    @property
    def nonnegative(self) -> bool:
        """See :class:`ImageSource`."""
        return not self.is_complex and bool(self.train.min() >= 0)

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """See :class:`ImageSource`."""
        picks = torch.from_numpy(rng.integers(len(self.train), size=count))
        return self.augmentation(self.train[picks.to(self.train.device)], rng)


class CroppedImages:
    """Crops, cut anew for each draw out of uint8 images in memory."""

    def __init__(self, parts: Partition, crops: Crops, augmentation: Augmentation, device: torch.device) -> None:
        channels = {len(image) for images in parts for image in images}
        if len(channels) != 1:
            raise ValueError(f"images have {sorted(channels)} channels: give data.channels to make them alike")
        self.shape = (channels.pop(), crops.size, crops.size)
        self.train, self.crops, self.augmentation, self.device = parts.train, crops, augmentation, device
        self._rms = [_rms(image) for image in parts.train]
        rng = np.random.default_rng(0)
        # always upright, as users' images are; the images' order does not change what is cut out of one of them
        upright = replace(crops, transpose=False)
        self.validation = _complex(
            torch.from_numpy(
                np.stack([upright.draw(i, _rms(i), rng) for i in parts.validation for _ in range(crops.validation)])
            ),
            augmentation.phase,
        )

    @property
    def count(self) -> int:
        """See :class:`ImageSource`."""
        return len(self.train)

    @property
    def is_complex(self) -> bool:
        """See :class:`ImageSource`."""
        return self.augmentation.phase is not None

    @property
    def nonnegative(self) -> bool:
        """See :class:`ImageSource`."""
        return not self.is_complex

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """See :class:`ImageSource`."""
        picks = rng.integers(len(self.train), size=count)
        images = np.empty((count, *self.shape), dtype=np.float32)
        for crop, pick in zip(images, picks, strict=True):
            crop[:] = self.crops.draw(self.train[pick], self._rms[pick], rng)
        return self.augmentation(torch.from_numpy(images).to(self.device), rng)


class Mixture:
    """Several sources, from which each image is drawn with the probability of its source's weight."""

    def __init__(self, sources: Sequence[ImageSource], weights: Sequence[float]) -> None:
        alike = {(source.shape, source.is_complex) for source in sources}
        if len(alike) != 1:
            shapes = ", ".join(f"{s.shape}{' complex' if s.is_complex else ''}" for s in sources)
            raise ValueError(f"the sources of data are not alike in (C, H, W) and kind: {shapes}")
        self.sources = tuple(sources)
        self.probabilities = np.asarray(weights, dtype=float) / sum(weights)
        self.validation = torch.cat([source.validation for source in sources])
        # validation looks at its first images for what is costly: those should be of all sources
        order = np.random.default_rng(0).permutation(len(self.validation))
        self.validation = self.validation[torch.from_numpy(order)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """See :class:`ImageSource`."""
        return self.sources[0].shape

    @property
    def count(self) -> int:
        """See :class:`ImageSource`."""
        return sum(source.count for source in self.sources)

    @property
    def is_complex(self) -> bool:
        """See :class:`ImageSource`."""
        return self.sources[0].is_complex

    @property
    def device(self) -> torch.device:
        """See :class:`ImageSource`."""
        return self.sources[0].device

    @property
    def nonnegative(self) -> bool:
        """See :class:`ImageSource`."""
        return all(source.nonnegative for source in self.sources)

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """See :class:`ImageSource`."""
        counts = rng.multinomial(count, self.probabilities)
        drawn = [s.draw(int(n), rng) for s, n in zip(self.sources, counts, strict=True) if n > 0]
        images = torch.cat(drawn)
        # the first images of a batch may be treated otherwise than the rest
        return images[torch.from_numpy(rng.permutation(count)).to(images.device)]


def _rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.square(image, dtype=np.float32).mean(dtype=np.float64)))


def _complex(images: Tensor, phase: PhaseField | None) -> Tensor:
    return images if phase is None else phase(images, np.random.default_rng(0))
