"""A training run as frozen data that reads from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from iasolve.networks import NetworkConfig, ReaderConfig
from iasolve.training.data import Augmentation, DataConfig
from iasolve.training.degradations import Degradation

__all__ = ["OptimisationConfig", "ReaderTraining", "TrainingConfig", "load_config"]


@dataclass(frozen=True)
class OptimisationConfig:
    """How the weights are found.

    Attributes
    ----------
    images : int
        Images to see in all, counted over resumed runs; ``--minutes`` ends a run earlier.
    batch : int
        Images per step (per process).
    degraded : float
        Part of each batch that also gets a degraded version.
    guess_fraction, guess_weight, amortization_weight : float
        See :class:`iasolve.training.objective.Objective`.
    learning_rate, weight_decay, clip : float
        AdamW, and the norm to which gradients are clipped.
    warmup : int
        Steps of linear learning-rate warm-up.
    kl_warmup : int
        Images over which the weight of the KL term grows from 0.01 to 1.
    decay : float
        Part of the run, at its end, over which the learning rate falls linearly to a twentieth.
    ema : float
        Rate of the exponential moving average of the weights, which is what is exported.
    precision : {"float32", "bfloat16"}
        Autocast type of the convolutions.
    graph : bool
        On one GPU, record a step as a CUDA graph.
    seed : int
        Seed of weights, batches, augmentation and degradations.
    validate_every : int
        Images between validations (and checkpoints).
    """

    images: int
    batch: int = 16
    degraded: float = 1.0
    guess_fraction: float = 0.5
    guess_weight: float = 1.0
    amortization_weight: float = 1.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: int = 100
    kl_warmup: int = 8000
    decay: float = 0.15
    ema: float = 0.999
    precision: str = "float32"
    graph: bool = True
    seed: int = 0
    validate_every: int = 4000


@dataclass(frozen=True)
class ReaderTraining:
    """A reader and how its weights come about; ``[reader]``, and in it ``[reader.optimisation]``.

    Attributes
    ----------
    network : ReaderConfig
        Size, channels and kind of the images are those of ``[network]``.
    optimisation : OptimisationConfig
        What ``[reader.optimisation]`` changes of ``[optimisation]``.
    crops : float
        Part of the steps that read windows of the images in place of the images, so that the reader knows images that
        go on beyond the frame.
    crop : int
        Side of such a window, a power of two.
    """

    network: ReaderConfig
    optimisation: OptimisationConfig
    crops: float = 0.0
    crop: int = 64


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that defines a run; ``name`` is the prior's."""

    name: str
    network: NetworkConfig
    data: DataConfig
    augmentation: Augmentation
    degradations: tuple[Degradation, ...]
    optimisation: OptimisationConfig
    reader: ReaderTraining | None = None
    folder: Path = Path()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path = Path()) -> TrainingConfig:
        """From parsed TOML; every unknown key is refused by name.

        Raises
        ------
        ValueError
            Naming the table and key that is unknown, missing or impossible.
        """
        unknown = sorted(set(data) - ({f.name for f in fields(cls)} - {"folder"}))
        if unknown:
            raise ValueError(f"unknown table(s) in the training configuration: {', '.join(unknown)}")
        for key in ("name", "network", "data", "degradations", "optimisation"):
            if key not in data:
                raise ValueError(f"the training configuration has no {key!r}")
        network, images = NetworkConfig.from_dict(data["network"]), DataConfig.from_dict(data["data"])
        if images.phase is not None and not network.is_complex:
            raise ValueError("data.phase makes complex images: set network.is_complex = true")
        return cls(
            name=str(data["name"]),
            network=network,
            data=images,
            augmentation=replace(Augmentation.from_dict(data.get("augmentation", {})), phase=images.phase),
            degradations=tuple(Degradation.from_dict(d) for d in data["degradations"]),
            optimisation=_table(OptimisationConfig, data["optimisation"], "optimisation"),
            reader=_reader(data["reader"], network, data["optimisation"]) if "reader" in data else None,
            folder=folder,
        )


def _reader(data: Mapping[str, Any], network: NetworkConfig, optimisation: Mapping[str, Any]) -> ReaderTraining:
    own = {"optimisation", "crops", "crop"}
    images = {"size": network.size, "channels": network.channels, "is_complex": network.is_complex}
    architecture = ReaderConfig.from_dict(images | {k: v for k, v in data.items() if k not in own})
    settings = _table(OptimisationConfig, {**optimisation, **data.get("optimisation", {})}, "reader.optimisation")
    crops, crop = data.get("crops", 0.0), data.get("crop", 64)
    if not 0 <= crops <= 1 or crop not in network.scales:
        raise ValueError(
            f"reader.crops must lie in 0 .. 1 and reader.crop be one of {network.scales}, got {crops} and {crop}"
        )
    return ReaderTraining(architecture, settings, float(crops), int(crop))


def _table(cls: type[Any], data: Mapping[str, Any], name: str) -> Any:
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"unknown key(s) in [{name}]: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})
    except TypeError as error:
        raise ValueError(f"[{name}] is incomplete: {error}") from None


def load_config(path: str | Path) -> TrainingConfig:
    """Read a training configuration.

    A configuration that differs little from another names it as ``base``, relative to itself, and holds the
    differences: tables are merged key by key, anything else replaces what the base has.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file is missing, is not TOML, or describes an impossible run.
    """
    path = Path(path)
    return TrainingConfig.from_dict(_read(path), path.parent)


def _read(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str) or path.resolve() in derived:
        raise ValueError(f"{path}: base must be the path of another configuration, got {base!r}")
    return _merged(_read(path.parent / base, (*derived, path.resolve())), data)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out
