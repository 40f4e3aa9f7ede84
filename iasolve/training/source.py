"""Where training draws its images: whole images of one size, crops of images of any size, shards, or a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from iasolve.networks import NetworkConfig
from iasolve.training.augmentation import Augmentation
from iasolve.training.crops import Crops
from iasolve.training.data import DataConfig, Split, find, load_split, spread
from iasolve.training.partition import Partition, load_partition
from iasolve.training.phase import PhaseField
from iasolve.training.shards import Shards
from iasolve.training.streams import Rng, each, subset

__all__ = ["CroppedImages", "ImageSource", "Mixture", "ShardedImages", "WholeImages", "open_source", "require_fit"]


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

    def draw(self, count: int, rng: Rng) -> Tensor:
        """``count`` augmented training images ``(count, C, N, N)``.

        Their root mean square is 1 times the augmentation's gain. The same state of ``rng`` gives the same images; with
        streams, each image depends on its own stream alone.
        """


def open_source(
    data: DataConfig, augmentation: Augmentation, beside: Path | None = None, device: torch.device | None = None
) -> ImageSource:
    """Read a configuration's images into memory; of shards, where their images lie.

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
    if data.kind == "shards":
        return ShardedImages(data, augmentation, beside, device)
    if data.crops is None:
        return WholeImages(load_split(data, beside), augmentation, device)
    return CroppedImages(load_partition(data, beside), data.crops, augmentation, device)


def require_fit(source: ImageSource, network: NetworkConfig) -> None:
    """Check that a source's images are those that the network is for.

    Raises
    ------
    ValueError
        When they are of another size, number of channels, or kind.
    """
    shape = (network.channels, network.size, network.size)
    if source.shape != shape:
        raise ValueError(
            f"the training images are {source.shape} (C, H, W), the network is for {shape}: change [network] size and "
            "channels, or the data"
        )
    if source.is_complex != network.is_complex:
        raise ValueError(
            f"the training images are {'complex' if source.is_complex else 'real'}, the network is for "
            f"{'complex' if network.is_complex else 'real'} ones: change [network] is_complex, or [data] phase"
        )


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

    def draw(self, count: int, rng: Rng) -> Tensor:
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

    def draw(self, count: int, rng: Rng) -> Tensor:
        """See :class:`ImageSource`."""
        picks = rng.integers(len(self.train), size=count)
        images = np.empty((count, *self.shape), dtype=np.float32)
        for crop, pick, own in zip(images, picks, each(rng, count), strict=True):
            crop[:] = self.crops.draw(self.train[pick], self._rms[pick], own)
        return self.augmentation(torch.from_numpy(images).to(self.device), rng)


class ShardedImages:
    """Images in shards, each read when it is drawn; crops of them, if the configuration has crops."""

    def __init__(self, data: DataConfig, augmentation: Augmentation, beside: Path | None, device: torch.device) -> None:
        path, kinds = find(data.path, beside), {"channels": data.channels, "size": data.size}
        self.shards, self.crops, self.augmentation = Shards(path, data.train_part, **kinds), data.crops, augmentation
        self.device = device
        held_out = np.zeros(len(self.shards), dtype=bool)
        if not data.validation_part and data.validation_every > 0:
            held_out[:: data.validation_every] = True
        others = Shards(path, data.validation_part, **kinds) if data.validation_part else self.shards
        kept = np.arange(len(others)) if data.validation_part else np.flatnonzero(held_out)
        self.train = spread(np.flatnonzero(~held_out), data.max_images)
        kept = spread(kept, min(data.max_images or _MOST_VALIDATED, _MOST_VALIDATED))
        if not len(self.train) or not len(kept):
            raise ValueError(f"{data.path}: no images are left to {'validate with' if len(self.train) else 'train on'}")
        first = self.shards[int(self.train[0])]
        self._kind = (first.dtype, first.shape if self.crops is None else first.shape[:1])
        if self.crops is not None and first.dtype != np.uint8:
            raise ValueError(f"{self.shards.name(int(self.train[0]))}: crops need uint8 images, got {first.dtype}")
        size = first.shape[-2:] if self.crops is None else (self.crops.size,) * 2
        self.shape = (first.shape[0], *size)
        rng = np.random.default_rng(0)
        # as of crops of images in memory
        upright = None if self.crops is None else replace(self.crops, transpose=False)
        times = 1 if self.crops is None else self.crops.validation
        images = [self._fitting(others[int(i)], others.name(int(i)), upright, rng) for i in kept for _ in range(times)]
        self.validation = _complex(torch.from_numpy(np.stack(images)), augmentation.phase)

    @property
    def count(self) -> int:
        """See :class:`ImageSource`."""
        return len(self.train)

    @property
    def is_complex(self) -> bool:
        """See :class:`ImageSource`."""
        return self._kind[0].kind == "c" or self.augmentation.phase is not None

    @property
    def nonnegative(self) -> bool:
        """See :class:`ImageSource`; of arrays with a sign, validation images stand for all."""
        return not self.is_complex and (self._kind[0].kind == "u" or bool(self.validation.min() >= 0))

    def draw(self, count: int, rng: Rng) -> Tensor:
        """See :class:`ImageSource`."""
        picks = self.train[rng.integers(len(self.train), size=count)]
        with ThreadPoolExecutor(_READERS) as readers:
            # a few at a time: only crops of them are kept
            runs = (readers.map(self.shards.__getitem__, picks[n : n + _READERS]) for n in range(0, count, _READERS))
            images = [
                self._fitting(image, self.shards.name(int(pick)), self.crops, own)
                for image, pick, own in zip(chain.from_iterable(runs), picks, each(rng, count), strict=True)
            ]
        return self.augmentation(torch.from_numpy(np.stack(images)).to(self.device), rng)

    def _fitting(self, image: np.ndarray, name: str, crops: Crops | None, rng: np.random.Generator) -> np.ndarray:
        if (image.dtype, image.shape if crops is None else image.shape[:1]) != self._kind:
            advice = "give size and channels to make images alike" if crops is None else "give channels"
            first = " ".join(map(str, self._kind))
            raise ValueError(f"{name} is {image.dtype} {image.shape}, the first {first}: {advice}")
        if crops is not None:
            return crops.draw(image, _rms(image), rng)
        return image.astype(np.complex64 if image.dtype.kind == "c" else np.float32)


_READERS = 8
"""Threads that read and decode a batch's images: on a disk across a network, most of the time is waiting."""

_MOST_VALIDATED = 1024
"""Validation images of shards, evenly spread over those that training leaves: they are kept in memory."""


class Mixture:
    """Several sources, from which each image is drawn with the probability of its source's weight."""

    def __init__(self, sources: Sequence[ImageSource], weights: Sequence[float]) -> None:
        alike = {(source.shape, source.is_complex) for source in sources}
        if len(alike) != 1:
            shapes = ", ".join(f"{s.shape}{' complex' if s.is_complex else ''}" for s in sources)
            raise ValueError(f"the sources of data are not alike in (C, H, W) and kind: {shapes}")
        self.sources = tuple(sources)
        self.probabilities = np.asarray(weights, dtype=float) / sum(weights)
        self._upto = np.cumsum(self.probabilities)[:-1]
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

    def draw(self, count: int, rng: Rng) -> Tensor:
        """See :class:`ImageSource`."""
        picks = np.searchsorted(self._upto, rng.random(count), side="right")
        images: Tensor | None = None
        for number, source in enumerate(self.sources):
            which = np.flatnonzero(picks == number)
            if len(which):
                drawn = source.draw(len(which), subset(rng, which))
                images = drawn.new_empty((count, *drawn.shape[1:])) if images is None else images
                images[torch.from_numpy(which).to(images.device)] = drawn
        assert images is not None
        return images


def _rms(image: np.ndarray) -> float:
    return float(np.sqrt(np.square(image, dtype=np.float32).mean(dtype=np.float64)))


def _complex(images: Tensor, phase: PhaseField | None) -> Tensor:
    return images if phase is None else phase(images, np.random.default_rng(0))
