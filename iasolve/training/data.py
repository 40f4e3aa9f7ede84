"""Training data: finding, reading and splitting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass as record
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from iasolve.tables import FORBID, Positive, Text, Whole, as_table, table
from iasolve.training.augmentation import Augmentation, normalise
from iasolve.training.crops import Crops
from iasolve.training.phase import PhaseField

__all__ = ["Augmentation", "DataConfig", "Split", "find", "load_images", "load_split", "normalise", "select", "spread"]


@table("data")
@dataclass(frozen=True, config=FORBID)
class DataConfig:
    """Where the images are and how they are split.

    Attributes
    ----------
    path : str
        A file or folder; looked for as given, beside the configuration, and in the folder that the environment
        variable ``IASOLVE_DATA`` names.
    kind : {"npz", "folder", "shards", "cifar10", "fastmri"}
        What it is: an ``.npz`` file; a folder of images or a zip of one; a folder of tar files, for images that do not
        fit in memory (:mod:`iasolve.training.shards`); the folder ``cifar-10-batches-py``; a folder that holds
        fastMRI's single-coil folders.
    images : str
        Key of the images, ``(n, H, W)`` or ``(n, C, H, W)``, in an ``.npz`` file.
    label, train_labels : str, list of int
        Key of the class labels and the classes to train on; empty: all.
    index, exclude : str, list of int
        Key of the image numbers and numbers to leave out.
    train_part, validation_part : str
        Folders in ``path`` (CIFAR-10: ``"train"`` or ``"test"``; shards: also a pattern such as ``val-*.tar``) to
        train on and to validate with.
    validation_every : int
        Without a validation part: every so-manieth of the remaining images, in file order, is kept for validation.
    channels, size : int
        What images of a folder are converted to, and size of fastMRI's images; see :mod:`iasolve.training.folder` and
        :mod:`iasolve.training.fastmri`.
    max_images : int
        Use so many images of each part, evenly spread; 0: all.
    crops : Crops, optional
        Cuts crops out of images of any size (``npz``, ``folder`` or ``shards``, uint8), anew for each draw.
    split : str
        With crops: key of an ``.npz`` file's array that says of each image ``"train"``, ``"validation"`` or ``"test"``.
    group : str
        With crops: column of ``index.csv`` in a folder, or key in an ``.npz`` file, of what must not be divided between
        training and validation, such as the photograph that tiles were cut from.
    test_every : int
        With crops: every so-manieth of the groups that validation leaves is kept for tests; 0: none.
    sources : tuple of DataConfig
        In place of ``path``: several sources of images.
    weight : float
        Of a source: its share of the images drawn, relative to the other sources'.
    augmentation : mapping
        Of a source: what differs from the configuration's ``[augmentation]``.
    phase : PhaseField, optional
        Makes complex images of magnitudes: a new phase for each draw of a training image, a fixed one for each
        validation image.
    """

    path: Text = ""
    kind: Literal["npz", "folder", "shards", "cifar10", "fastmri"] = "npz"
    images: Text = "images"
    label: Text = ""
    train_labels: tuple[int, ...] = ()
    index: Text = ""
    exclude: tuple[int, ...] = ()
    train_part: Text = ""
    validation_part: Text = ""
    validation_every: Whole = 20
    channels: Whole = 0
    size: Whole = 0
    max_images: Whole = 0
    crops: Crops | None = None
    split: Text = ""
    group: Text = ""
    test_every: Whole = 0
    sources: tuple[DataConfig, ...] = ()
    weight: Positive = 1.0
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    phase: PhaseField | None = None
    name: Text = ""
    licence: Text = ""
    citation: Text = ""

    def __post_init__(self) -> None:
        if self.kind == "npz" and (self.train_part or self.validation_part):
            raise ValueError("an .npz file has no parts: data.label and data.validation_every split it")
        if self.kind == "fastmri" and self.size < 1:
            raise ValueError("data.kind = 'fastmri' needs data.size, the side that images are resampled to")
        if bool(self.path) == bool(self.sources):
            raise ValueError("[data] needs a path, or sources that have one each, and not both")
        if self.crops is None:
            if self.split or self.group or self.test_every:
                raise ValueError("data.split, data.group and data.test_every are for images that crops are cut out of")
        elif self.kind == "shards":
            if self.size or self.split or self.group or self.test_every:
                raise ValueError("crops of shards are taken without data.size, data.split, data.group, data.test_every")
        elif self.kind not in ("npz", "folder") or self.size or self.max_images or self.validation_part:
            raise ValueError(
                "data.crops are cut out of images of kind npz or folder, "
                "without data.size, data.max_images and data.validation_part"
            )
        Augmentation.from_dict(self.augmentation)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DataConfig:
        """From the table ``[data]`` of the training configuration; refuses unknown keys by name.

        Of several sources, the name, licence and citation are those of all of them, where the table has none.
        """
        values = as_table(data, "data")
        phase = values.pop("phase", None)
        # false takes back a base's
        if phase is not None and phase is not False:
            values["phase"] = PhaseField.from_dict(phase)
        if "crops" in values:
            values["crops"] = Crops.from_dict(values["crops"])
        if isinstance(values.get("sources"), list | tuple):
            values["sources"] = tuple(cls.from_dict(source) for source in values["sources"])
        config = cls(**values)
        if not config.sources:
            return config
        if any(source.sources or source.phase for source in config.sources):
            raise ValueError("one of data.sources has sources or a phase of its own: give them in [data]")
        texts: dict[str, Any] = {
            key: getattr(config, key)
            or "; ".join(dict.fromkeys(filter(None, (getattr(s, key) for s in config.sources))))
            for key in ("name", "licence", "citation")
        }
        return replace(config, **texts)


@record(frozen=True)
class Split:
    """Training and validation images, ``(n, C, N, N)`` float32 or complex64, not normalised.

    With a phase field, training images are magnitudes still; augmentation makes them complex.
    """

    train: Tensor
    validation: Tensor


def find(path: str, beside: Path | None = None) -> Path:
    """The data file or folder, looked for as given, beside the configuration, and under ``IASOLVE_DATA``.

    Raises
    ------
    FileNotFoundError
        Naming all places that were looked at.
    """
    places = [Path(path)]
    if beside is not None:
        places.append(beside / path)
    if os.environ.get("IASOLVE_DATA"):
        places.append(Path(os.environ["IASOLVE_DATA"]) / path)
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(p) for p in places)
    raise FileNotFoundError(f"no data file {path!r}: looked at {looked}; set IASOLVE_DATA to the folder that holds it")


def load_images(config: DataConfig, part: str = "", beside: Path | None = None) -> Tensor:
    """Images of one part, ``(n, C, H, W)`` float32 or complex64, without a phase field's phase.

    Raises
    ------
    FileNotFoundError, ValueError
        When something is missing or cannot be used.
    """
    path = find(config.path, beside)
    if config.kind == "shards":
        raise ValueError("shards are not read into memory: draw from open_source(config)")
    if config.kind == "fastmri":
        from iasolve.training.fastmri import read_fastmri

        return torch.from_numpy(read_fastmri(path / part, config.size, config.max_images))
    if config.kind == "cifar10":
        from iasolve.training.cifar import read_cifar

        images = read_cifar(path, part or "train")
    elif config.kind == "folder":
        from iasolve.training.folder import read_folder

        images = read_folder(path, part, channels=config.channels, size=config.size)
    else:
        images = _read_npz(path, config)
    images = spread(images, config.max_images)
    return torch.from_numpy(images.astype(np.complex64 if np.iscomplexobj(images) else np.float32))


def spread(images: np.ndarray, most: int) -> np.ndarray:
    """At most so many of ``images``, evenly spread; 0: all."""
    if most < 1 or len(images) <= most:
        return images
    return images[np.linspace(0, len(images) - 1, most).round().astype(int)]


def _read_npz(path: Path, config: DataConfig) -> np.ndarray:
    with np.load(path, allow_pickle=False) as data:
        keep = select(data, config)
        images = data[config.images]
    if images.ndim == 3:
        images = images[:, None]
    return images[keep]


def select(data: Mapping[str, np.ndarray], config: DataConfig, *more: str) -> np.ndarray:
    """Which images of an ``.npz`` file the configuration selects, ``(n,)`` bool.

    Raises
    ------
    ValueError
        When the file lacks an array that the configuration, or ``more``, names.
    """
    for key in filter(None, (config.images, config.label, config.index, *more)):
        if key not in data:
            raise ValueError(f"{config.path} has no array {key!r}; it has {sorted(data)}")
    keep = np.ones(len(data[config.images]), dtype=bool)
    if config.label and config.train_labels:
        keep &= np.isin(data[config.label], config.train_labels)
    if config.index and config.exclude:
        keep &= ~np.isin(data[config.index], config.exclude)
    return keep


def load_split(config: DataConfig, beside: Path | None = None) -> Split:
    """Read the images and split them as the configuration says.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file or a key is missing, or nothing is left to train on.
    """
    if config.sources or config.crops is not None:
        raise ValueError("data with sources or crops have no images of one size: draw from open_source(config)")
    images = load_images(config, config.train_part, beside)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    if not config.validation_part and config.validation_every > 0:
        held_out[:: config.validation_every] = True
    if images.ndim != 4 or bool(held_out.all()):
        raise ValueError(f"{config.path}: nothing to train on, shape {tuple(images.shape)} after selection")
    if config.validation_part:
        train, validation = images, load_images(config, config.validation_part, beside)
    else:
        train, validation = images[~held_out], images[held_out]
    if config.phase is not None:
        validation = config.phase(validation, np.random.default_rng(0))
    return Split(train, validation)
