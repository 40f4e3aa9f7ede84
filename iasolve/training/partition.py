"""Images of any size in memory, split into training, validation and test images by a rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iasolve.training.data import DataConfig, find, select
from iasolve.training.folder import read_column, read_images

__all__ = ["Partition", "load_partition"]


class Partition(NamedTuple):
    """Images ``(C, H, W)`` uint8 of any sizes, each list in file order."""

    train: list[np.ndarray]
    validation: list[np.ndarray]
    test: list[np.ndarray]


def load_partition(config: DataConfig, beside: Path | None = None) -> Partition:
    """Read a source of crops and split it as the configuration says.

    With ``data.split`` the file says which part an image belongs to. Else groups of images (``data.group``; without it,
    each image is a group) are numbered in file order; every ``validation_every``-th is for validation, and of the rest
    every ``test_every``-th for tests.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file or a key is missing, the images cannot be used, or none is left to train on.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    path = find(config.path, beside)
    rows = list(_read_npz(path, config) if config.kind == "npz" else _read_folder(path, config))
    if config.split:
        unknown = sorted({label for label, _ in rows} - set(parts))
        if unknown:
            raise ValueError(f"{config.path}: {config.split} must be train, validation or test, got {unknown}")
        for label, image in rows:
            parts[label].append(image)
    else:
        by_group = _rule(list(dict.fromkeys(label for label, _ in rows)), config)
        for label, image in rows:
            parts[by_group[label]].append(image)
    for name in ("train", "validation"):
        if not parts[name]:
            raise ValueError(f"{config.path}: no {name} images are left after selection and splitting")
    return Partition(**parts)


def _rule(groups: list[str], config: DataConfig) -> dict[str, str]:
    """Part of each group."""
    held_out = set(groups[:: config.validation_every]) if config.validation_every > 0 else set()
    rest = [group for group in groups if group not in held_out]
    tests = set(rest[:: config.test_every]) if config.test_every > 0 else set()
    return {g: "validation" if g in held_out else "test" if g in tests else "train" for g in groups}


def _read_folder(path: Path, config: DataConfig) -> Iterator[tuple[str, np.ndarray]]:
    groups = read_column(path, config.group) if config.group else None
    for name, image in read_images(path, config.train_part, channels=config.channels):
        if groups is not None and name not in groups:
            raise ValueError(f"{config.path}: index.csv has no row for {name}")
        yield (name if groups is None else groups[name]), image


def _read_npz(path: Path, config: DataConfig) -> Iterator[tuple[str, np.ndarray]]:
    frame = config.crops.frame if config.crops is not None else ""
    with np.load(path, allow_pickle=False) as data:
        keep = select(data, config, config.split, config.group, frame)
        images = data[config.images]
        key = config.split or config.group
        labels = data[key][keep].astype(str) if key else np.arange(len(images))[keep].astype(str)
        frames = data[frame][keep] if frame else None
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{config.path}: crops need uint8 images (n, H, W) or (n, C, H, W), got {images.dtype} {images.shape}"
        )
    for number, index in enumerate(np.flatnonzero(keep)):
        image = images[index] if images.ndim == 4 else images[index, None]
        yield str(labels[number]), (image if frames is None else _without_padding(image, frames[number])).copy()


def _without_padding(image: np.ndarray, native: np.ndarray) -> np.ndarray:
    """The middle of ``image`` that is not padding, of an image that was ``native`` ``(H, W)`` before."""
    room = image.shape[-2:]
    shrunk = max(1.0, max(n / r for n, r in zip(native, room, strict=True)))
    height, width = (min(r, max(1, round(n / shrunk))) for n, r in zip(native, room, strict=True))
    top, left = (room[0] - height) // 2, (room[1] - width) // 2
    return image[:, top : top + height, left : left + width]
