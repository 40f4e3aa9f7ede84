"""The two parts of a prior that are trained, hierarchy and reader, as the training loop sees them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from iasolve.networks import HVAE, Reader
from iasolve.priors.checkpoint import ARCHITECTURES, load_checkpoint, read_card, save_checkpoint
from iasolve.priors.reader import load_reader, reader_beside
from iasolve.training.augmentation import normalise
from iasolve.training.calibration import calibrate
from iasolve.training.card import card_of, reader_card
from iasolve.training.config import OptimisationConfig, ReaderTraining, TrainingConfig
from iasolve.training.objective import Objective
from iasolve.training.progress import Progress
from iasolve.training.reading import ReaderObjective
from iasolve.training.source import ImageSource
from iasolve.training.streams import Rng, repeated, shared
from iasolve.training.validation import validate, validate_reader

__all__ = ["HierarchyPart", "Part", "ReaderPart", "part_of"]


class Part(Protocol):
    """One trainable part of a prior."""

    logged: tuple[str, ...]
    """Losses that a row of the log shows."""

    optimisation: OptimisationConfig

    def build(self) -> nn.Module:
        """The untrained network, ``power`` among its buffers."""

    def objective(self, network: nn.Module) -> Objective | ReaderObjective:
        """``(images, degraded, kl_weight, noise)`` to losses."""

    def measure(self, network: nn.Module, power: Tensor) -> None:
        """Set the statistics that follow from the images' power ``(C, N, N)``."""

    def start(self, path: Path, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors of the exported weights at ``path`` that have a place among ``own``, and their card."""

    def prepare(self, images: Tensor, rng: Rng) -> tuple[Tensor, Rng]:
        """What a step reads of augmented images ``(B, C, N, N)``, with the random numbers of each."""

    def validate(self, network: nn.Module, images: Tensor) -> dict[str, float]:
        """Figures on validation images."""

    def score(self, figures: Mapping[str, float]) -> float:
        """How good a row of figures is, in nats per dimension; more is better."""

    def described(self, network: nn.Module) -> dict[str, Any]:
        """What else a row of the log shows."""

    def export(
        self, network: nn.Module, source: ImageSource, progress: Progress, commit: str | None, folder: Path
    ) -> Path:
        """Write the weights and their card; their path."""


def part_of(config: TrainingConfig, name: str) -> Part:
    """The part of a configuration that is called ``"hierarchy"`` or ``"reader"``.

    Raises
    ------
    ValueError
        For another name, or a reader where the configuration has none.
    """
    if name == "hierarchy":
        return HierarchyPart(config)
    if name != "reader":
        raise ValueError(f"a prior's parts are 'hierarchy' and 'reader', got {name!r}")
    if config.reader is None:
        raise ValueError("the training configuration has no [reader]: add the table, empty for the usual network")
    return ReaderPart(config, config.reader)


class HierarchyPart:
    """The IA-HVAE, or its vanilla twin."""

    logged: tuple[str, ...] = ("total", "elbo", "kl", "amortization", "guess", "mse")

    def __init__(self, config: TrainingConfig) -> None:
        self.config, self.optimisation = config, config.optimisation

    def build(self) -> HVAE:
        """See :class:`Part`."""
        network = self.config.network
        return ARCHITECTURES[network.decoder](network.to_dict())

    def objective(self, network: nn.Module) -> Objective:
        """See :class:`Part`."""
        o = self.optimisation
        return Objective(
            _hvae(network),
            amortization_weight=o.amortization_weight,
            guess_weight=o.guess_weight,
            guess_fraction=o.guess_fraction,
        )

    def measure(self, network: nn.Module, power: Tensor) -> None:
        """Power, ring standard deviations and the starting ``sigma_x``."""
        net = _hvae(network)
        ring = net.spectrum.ring_means(net.spectrum.half(power))
        net.power.copy_(power)
        net.ring_std.copy_(ring.sqrt())
        net.sigma_x.copy_(ring.sqrt())

    def start(self, path: Path, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights of another architecture, too; the whitening of the heads stays what they were trained with.

        Raises
        ------
        ValueError
            When the other one is for images of another kind.
        """
        network, card = load_checkpoint(path)
        for key in ("size", "channels", "is_complex", "decoder", "head_domain"):
            theirs, ours = getattr(network.config, key), getattr(self.config.network, key)
            if theirs != ours:
                raise ValueError(f"{path} cannot start this network: its {key} is {theirs}, the configuration's {ours}")
        return _fitting(network.state_dict(), own, leave=("power",)), card

    def prepare(self, images: Tensor, rng: Rng) -> tuple[Tensor, Rng]:
        """The images."""
        return images, rng

    def validate(self, network: nn.Module, images: Tensor) -> dict[str, float]:
        """See :func:`iasolve.training.validation.validate`."""
        return validate(_hvae(network), images)

    def score(self, figures: Mapping[str, float]) -> float:
        """The ELBO."""
        return figures["elbo"]

    def described(self, network: nn.Module) -> dict[str, Any]:
        """``sigma_x`` of every ring."""
        return {"sigma_x": [round(float(v), 5) for v in _hvae(network).sigma_x.flatten()]}

    def export(
        self, network: nn.Module, source: ImageSource, progress: Progress, commit: str | None, folder: Path
    ) -> Path:
        """``NAME.safetensors``."""
        net, path = _hvae(network), folder / f"{self.config.name}.safetensors"
        figures = self.validate(net, _validation(source))
        save_checkpoint(net, card_of(net, self.config, source, progress, figures, commit), path)
        return path


class ReaderPart:
    """The reader."""

    logged: tuple[str, ...] = ("total", "error", "spread", "place", "mse")

    def __init__(self, config: TrainingConfig, settings: ReaderTraining) -> None:
        self.config, self.settings, self.optimisation = config, settings, settings.optimisation

    def build(self) -> Reader:
        """See :class:`Part`."""
        return Reader(self.settings.network)

    def objective(self, network: nn.Module) -> ReaderObjective:
        """See :class:`Part`."""
        return ReaderObjective(_reader(network))

    def measure(self, network: nn.Module, power: Tensor) -> None:
        """Power."""
        _reader(network).power.copy_(power)

    def start(self, path: Path, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A reader's weights and power, or a hierarchy's power alone: both parts of a prior must have the same.

        Of a prior of another name, a reader's weights alone: its images have another power.

        Raises
        ------
        ValueError
            When the images are of another kind.
        """
        found = path if read_card(path).get("kind") == "reader" else reader_beside(path)
        if found is None:
            network, _ = load_checkpoint(path)
            if network.power.shape != own["power"].shape:
                raise ValueError(
                    f"{path} cannot start this reader: its images are {tuple(network.power.shape)}, "
                    f"the configuration's {tuple(own['power'].shape)}"
                )
            return {"power": network.power}, {"sha256": read_card(path)["sha256"]}
        reader, card = load_reader(found)
        for key in ("size", "is_complex"):
            theirs, ours = getattr(reader.config, key), getattr(self.settings.network, key)
            if theirs != ours:
                raise ValueError(f"{found} cannot start this reader: its {key} is {theirs}, the configuration's {ours}")
        if card.get("name") != self.config.name:
            return _fitting(reader.state_dict(), own, leave=("power",)), {"sha256": card["sha256"]}
        return _fitting(reader.state_dict(), own), card

    def prepare(self, images: Tensor, rng: Rng) -> tuple[Tensor, Rng]:
        """The images, or four windows of each at an amplitude of their own."""
        side, size = self.settings.crop, images.shape[-1]
        if side >= size or shared(rng).random() >= self.settings.crops:
            return images, rng
        corners = rng.integers(size - side + 1, size=(len(images), 4, 2))
        windows = [
            image[:, r : r + side, c : c + side]
            for image, own in zip(images, corners, strict=True)
            for r, c in own.tolist()
        ]
        cut = torch.stack(windows)
        rms = cut.abs().square().mean((-3, -2, -1), keepdim=True).sqrt()
        # a window of air stays one
        return cut / rms.clamp_min(_FAINT), repeated(rng, 4)

    def validate(self, network: nn.Module, images: Tensor) -> dict[str, float]:
        """See :func:`iasolve.training.validation.validate_reader`."""
        return validate_reader(_reader(network), images, self.config.degradations)

    def score(self, figures: Mapping[str, float]) -> float:
        """Minus half the log error."""
        return -figures["error"]

    def described(self, network: nn.Module) -> dict[str, Any]:
        """Nothing."""
        return {}

    def export(
        self, network: nn.Module, source: ImageSource, progress: Progress, commit: str | None, folder: Path
    ) -> Path:
        """``NAME.reader.safetensors``, its expected error calibrated on validation images."""
        net, path = copy.deepcopy(_reader(network)), folder / f"{self.config.name}.reader.safetensors"
        images, half = _validation(source), self.optimisation.halves(source.device.type)
        calibrated = calibrate(net, images, self.config.degradations, half=half)
        figures = self.validate(net, images)
        card = reader_card(self.config, self.optimisation, source, progress, figures, commit)
        save_checkpoint(net, {**card, "calibrated": calibrated}, path)
        return path


_FAINT = 0.3
"""Root mean square below which a window is not brought to 1."""


def _fitting(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], leave: tuple[str, ...] = ()) -> dict[str, Tensor]:
    return {k: v for k, v in theirs.items() if k not in leave and k in own and own[k].shape == v.shape}


def _validation(source: ImageSource) -> Tensor:
    return normalise(source.validation).to(source.device)


def _hvae(network: nn.Module) -> HVAE:
    assert isinstance(network, HVAE)
    return network


def _reader(network: nn.Module) -> Reader:
    assert isinstance(network, Reader)
    return network
