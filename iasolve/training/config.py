"""A training run as frozen data that reads from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from iasolve.files import read_text
from iasolve.networks import NetworkConfig, ReaderConfig
from iasolve.networks.precision import multiplies_bfloat16
from iasolve.spectrum import scales_of
from iasolve.tables import FORBID, Amount, Count, FileName, Flag, Number, Positive, Share, Whole, as_table, table
from iasolve.training.data import Augmentation, DataConfig
from iasolve.training.degradations import Degradation

__all__ = ["EMULATED", "OptimisationConfig", "ReaderTraining", "TrainingConfig", "load_config"]

EMULATED = "in float32: this device has no instructions for bfloat16, which the configuration asks for"
"""What is said of a run whose device would have to emulate its precision."""


@table("optimisation")
@dataclass(frozen=True, config=FORBID)
class OptimisationConfig:
    """How the weights are found.

    Attributes
    ----------
    images : int
        Images to see in all, counted over resumed runs; ``--minutes`` ends a run earlier.
    batch : int
        Images that each process reads at once.
    accumulate : int
        Batches that each process reads for one step: a step is that of ``batch * accumulate * processes`` images, to
        rounding, in the memory that ``batch`` needs.
    degraded : float
        Part of each batch that also gets a degraded version; of a reader's all do.
    guess_fraction, guess_weight, amortization_weight : float
        See :class:`iasolve.training.objective.Objective`.
    optimizer : {"adamw", "muon"}
        See :mod:`iasolve.training.optimizer`.
    learning_rate, weight_decay, clip : float
        The optimizer's, and the norm to which gradients are clipped.
    warmup : int
        Steps of linear learning-rate warm-up.
    kl_warmup : int
        Images over which the weight of the KL term grows from 0.01 to 1.
    decay : float
        Part of the run, at its end, over which the learning rate falls linearly to a twentieth.
    ema : float
        Rate of the exponential moving average of the weights, which is what is exported.
    precision : {"float32", "bfloat16"}
        Autocast type of the convolutions; ``"bfloat16"`` only where the device multiplies it, see :meth:`halves`.
    graph : bool
        On one GPU, record a step of one batch as a CUDA graph.
    seed : int
        Seed of weights, batches, augmentation and degradations.
    validate_every : int
        Images between validations (and checkpoints).
    """

    images: Count
    batch: Count = 16
    accumulate: Count = 1
    degraded: Share = 1.0
    guess_fraction: Share = 0.5
    guess_weight: Amount = 1.0
    amortization_weight: Amount = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: Amount = 0.01
    clip: Positive = 1.0
    warmup: Whole = 100
    kl_warmup: Whole = 8000
    decay: Share = 0.15
    ema: Annotated[Number, Field(ge=0, lt=1)] = 0.999
    precision: Literal["float32", "bfloat16"] = "float32"
    graph: Flag = True
    seed: Whole = 0
    validate_every: Count = 4000

    def halves(self, kind: str) -> bool:
        """Whether convolutions run in bfloat16: wanted, and a device ("cpu", "cuda") need not emulate it."""
        return self.precision == "bfloat16" and multiplies_bfloat16(kind)


@table("reader")
@dataclass(frozen=True, config=FORBID)
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
    crops: Amount = 0.0
    crop: Count = 64

    def __post_init__(self) -> None:
        if self.optimisation.degraded != 1:
            raise ValueError(
                f"reader.optimisation.degraded must be 1, got {self.optimisation.degraded}: a reader reads nothing but "
                "degraded images. Leave it out; [optimisation] degraded is the hierarchy's alone"
            )
        scales = scales_of(self.network.size)
        if self.crops > 1 or self.crop not in scales:
            raise ValueError(
                f"reader.crops must lie in 0 .. 1 and reader.crop be one of {scales}, got {self.crops} and {self.crop}"
            )


@table("configuration")
@dataclass(frozen=True, config=FORBID)
class TrainingConfig:
    """Everything that defines a run; ``name`` is the prior's."""

    name: FileName
    network: NetworkConfig
    data: DataConfig
    augmentation: Augmentation
    degradations: Annotated[tuple[Degradation, ...], Field(min_length=1)]
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
        values = as_table(data, "configuration", leave=("folder",))
        for key in ("name", "network", "data", "degradations", "optimisation"):
            if key not in data:
                raise ValueError(f"the training configuration has no {key!r}")
        if not isinstance(data["degradations"], list | tuple):
            raise ValueError(f"configuration.degradations must be a list of tables, got {data['degradations']!r:.80}")
        network, images = NetworkConfig.from_dict(data["network"]), DataConfig.from_dict(data["data"])
        if images.phase is not None and not network.is_complex:
            raise ValueError("data.phase makes complex images: set network.is_complex = true")
        optimisation = as_table(data["optimisation"], "optimisation")
        values |= {
            "network": network,
            "data": images,
            "augmentation": replace(Augmentation.from_dict(data.get("augmentation", {})), phase=images.phase),
            "degradations": tuple(Degradation.from_dict(d) for d in data["degradations"]),
            "optimisation": OptimisationConfig(**optimisation),
            "folder": folder,
        }
        if "reader" in data:
            values["reader"] = _reader(as_table(data["reader"], "reader"), network, optimisation)
        return cls(**values)

    def emulated(self, part: str, kind: str) -> bool:
        """Whether a part asks for a precision that a device ("cpu", "cuda") does not have: it is trained in float32."""
        settings = self.reader.optimisation if part == "reader" and self.reader is not None else self.optimisation
        return settings.precision == "bfloat16" and not settings.halves(kind)

    def to_dict(self, part: str) -> dict[str, Any]:
        """What defines the training of a part (``"hierarchy"`` or ``"reader"``), as plain data.

        Its length, ``optimisation.images``, is left out: a run may be made longer.
        """
        out = asdict(self) | {"part": part}
        for key in ("folder", *(("network", "optimisation") if part == "reader" else ("reader",))):
            del out[key]
        settings = out["reader"]["optimisation"] if part == "reader" else out["optimisation"]
        del settings["images"]
        return out


def _reader(data: Mapping[str, Any], network: NetworkConfig, optimisation: Mapping[str, Any]) -> ReaderTraining:
    images = {"size": network.size, "channels": network.channels, "is_complex": network.is_complex}
    own = {key: data[key] for key in ("crops", "crop") if key in data}
    changes = as_table(data.get("optimisation", {}), "reader.optimisation")
    rest = {key: value for key, value in data.items() if key not in ("optimisation", "crops", "crop")}
    return ReaderTraining(
        ReaderConfig.from_dict(images | rest), OptimisationConfig(**{**optimisation, "degraded": 1.0, **changes}), **own
    )


def load_config(path: str | Path) -> TrainingConfig:
    """Read a training configuration.

    A configuration that differs little from another names it as ``base``, relative to itself, and holds the
    differences: tables are merged key by key, anything else replaces what the base has.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file is missing, is not TOML, or describes an impossible run; every error names the key.
    """
    path = Path(path)
    return TrainingConfig.from_dict(_read(path), path.parent)


def _read(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        data = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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
