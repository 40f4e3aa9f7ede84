"""The priors that are trained: an HVAE with or without a reader, a reader."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from iasolve.evidence import WienerPosterior
from iasolve.networks import HVAE, LatentLayer, Reader, Reading
from iasolve.networks.precision import multiplies_bfloat16
from iasolve.priors.prior import Layer
from iasolve.spectrum import Spectrum

__all__ = ["HVAEPrior", "ReaderPrior", "TrainedPrior"]


class TrainedPrior:
    """What priors with a reader and without have in common.

    Parameters
    ----------
    name : str
        For reports.
    card : dict
        What is known about it; see :mod:`iasolve.priors.checkpoint`.
    path : Path, optional
        Where the weights came from.
    reader : Reader, optional
        Frozen, in evaluation mode after construction.

    Attributes
    ----------
    spectrum : Spectrum
        Size, scales, rings, real or complex.
    power : Tensor
        ``P``, ``(C, N, N)``.
    channels : int
        Image channels.
    """

    spectrum: Spectrum
    power: Tensor
    channels: int

    def __init__(self, name: str, card: dict[str, Any], path: Path | None, reader: Reader | None) -> None:
        self.name, self.card, self.path = name, card, path
        self.reader: Reader | None = None
        self._half: Reader | None = None
        if reader is not None:
            self.reader = reader.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def nonnegative(self) -> bool:
        """Whether its training images held no negative value, by the card."""
        return bool(self.card.get("nonnegative", False)) and not self.spectrum.is_complex

    @property
    def shift(self) -> float:
        """How far training images were moved, at most, in pixels, by the card."""
        return float(self.card.get("shift", 0.0))

    @property
    def mirrors(self) -> tuple[int, ...]:
        """Axes along which training images were mirrored at random, by the card; without a word of it, both."""
        return tuple(axis for axis in (-2, -1) if axis in self.card.get("mirrors", (-2, -1)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.power.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.power.dtype

    @property
    def reads(self) -> bool:
        """Whether there is a reader."""
        return self.reader is not None

    @property
    def halves(self) -> bool:
        """Whether the reader works in bfloat16, as :meth:`read` says."""
        return self.device.type == "cpu" and self.dtype == torch.float32 and multiplies_bfloat16("cpu")

    def read(self, posterior: WienerPosterior, rows: int | None = None) -> Reading:
        """What the reader makes of a measurement; in strips of ``rows``, where its whole image takes too much memory.

        On processors that multiply bfloat16 numbers, convolutions in single precision run in those: four times as fast.
        An estimate differs by less than a hundredth of what the measurement left open (0.004 dB at noise 0.3).

        Raises
        ------
        ValueError
            Without a reader.
        """
        if self.reader is None:
            raise ValueError(f"the prior {self.name!r} has no reader: train one with iasolve train --part reader")
        if not self.halves:
            reading: Reading = self.reader(*posterior, rows)
            return reading
        if self._half is None:
            # converted once: autocast would convert the weights anew in every reading
            self._half = copy.deepcopy(self.reader)
            for module in self._half.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    module.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            reading = self._half(*posterior, rows)
        return reading


class HVAEPrior(TrainedPrior):
    """A trained HVAE as a prior; parameters are frozen.

    Parameters
    ----------
    network : HVAE
        In evaluation mode after construction.
    name : str
        For reports.
    card : dict
        What is known about it; see :mod:`iasolve.priors.checkpoint`.
    path : Path, optional
        Where the weights came from.
    reader : Reader, optional
        Trained on the same images, with the same power.

    Examples
    --------
    >>> import iasolve
    >>> iasolve.load_prior("cifar10")
    HVAEPrior('cifar10', separable, real 3x32x32, 6 scales, depth 13)
    """

    def __init__(
        self, network: HVAE, name: str, card: dict[str, Any], path: Path | None = None, reader: Reader | None = None
    ) -> None:
        super().__init__(name, card, path, reader)
        self.network = network.eval().requires_grad_(False)
        self.spectrum, self.power, self.channels = network.spectrum, network.power, network.config.channels

    def __repr__(self) -> str:
        c = self.network.config
        kind = f"{c.decoder}, {'complex' if c.is_complex else 'real'} {c.channels}x{c.size}x{c.size}"
        return f"HVAEPrior({self.name!r}, {kind}, {len(c.scales)} scales, depth {sum(c.layers)})"

    @property
    def separable(self) -> bool:
        """Whether every scale has its own contribution."""
        return self.network.separable

    @property
    def sigma_x(self) -> Tensor:
        """``(C, S)``."""
        return self.network.sigma_x

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> HVAEPrior:
        """A copy of this prior on a device, in a precision (float64 for tests of gradients)."""
        reader = None if self.reader is None else copy.deepcopy(self.reader).to(device=device, dtype=dtype)
        network = copy.deepcopy(self.network).to(device=device, dtype=dtype)
        return HVAEPrior(network, self.name, self.card, self.path, reader)

    @property
    def descends(self) -> bool:
        """True."""
        return True

    def encode(self, image: Tensor, profile: Tensor) -> list[Tensor]:
        """Features per scale."""
        return self.network.encode(image, profile)

    def enter(self, index: int, context: Tensor | None, batch: int) -> Tensor:
        """The context at the start of scale ``index``."""
        return self.network.stage(index).enter(context, batch)

    def layers(self, index: int) -> list[Layer]:
        """The latent layers of scale ``index``."""
        layers: list[Layer] = []
        for layer in self.network.stage(index).layers:
            assert isinstance(layer, LatentLayer)
            layers.append(layer)
        return layers

    def contribution(self, index: int, context: Tensor) -> Tensor:
        """``h_s``."""
        return self.network.contribution(index, context)

    def contributions(self, contexts: list[Tensor]) -> list[Tensor]:
        """Every ring."""
        return self.network.contributions(contexts)

    def assemble(self, contributions: list[Tensor]) -> Tensor:
        """Spectrum from all contributions."""
        return self.network.assemble(contributions)

    def rings(self, spectrum: Tensor) -> list[Tensor]:
        """Split a spectrum into rings."""
        return self.network.rings(spectrum)


class ReaderPrior(TrainedPrior):
    """A reader without a hierarchy: a posterior mean and its error, no latents to refine or to draw.

    What a hierarchy without latents leaves unexplained is everything: ``sigma_x`` is the root of the images' power.

    Parameters
    ----------
    reader : Reader
    name, card, path
        See :class:`TrainedPrior`.

    Examples
    --------
    The bundled prior's reader alone:

    >>> import iasolve
    >>> from iasolve.operators import GaussianNoise, Identity
    >>> from iasolve.samples import load_samples
    >>> both = iasolve.load_prior("mri-t1-128")
    >>> prior = ReaderPrior(both.reader, "mri-t1-reader", both.card)
    >>> prior.descends
    False
    >>> y = load_samples().images[:1].astype("float32")
    >>> iasolve.solve(y, Identity((1, 128, 128)), prior, noise=GaussianNoise(5.0), recipe="fast").prior
    'mri-t1-reader'
    """

    def __init__(self, reader: Reader, name: str, card: dict[str, Any], path: Path | None = None) -> None:
        super().__init__(name, card, path, reader)
        c = reader.config
        self.power = reader.power
        self.spectrum = Spectrum(c.size, is_complex=c.is_complex)
        self.channels = c.channels
        self.separable = False
        self.sigma_x = self.spectrum.ring_means(self.spectrum.half(self.power)).sqrt()

    def __repr__(self) -> str:
        s = self.spectrum
        return f"ReaderPrior({self.name!r}, {'complex' if s.is_complex else 'real'} {self.channels}x{s.size}x{s.size})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ReaderPrior:
        """A copy of this prior on a device, in a precision."""
        return ReaderPrior(copy.deepcopy(self._reader).to(device=device, dtype=dtype), self.name, self.card, self.path)

    @property
    def _reader(self) -> Reader:
        assert self.reader is not None
        return self.reader

    @property
    def descends(self) -> bool:
        """False."""
        return False

    def encode(self, image: Tensor, profile: Tensor) -> NoReturn:
        """Not there, as all that follows (ValueError)."""
        self._refuse()

    def enter(self, index: int, context: Tensor | None, batch: int) -> NoReturn:
        """Not there."""
        self._refuse()

    def layers(self, index: int) -> NoReturn:
        """Not there."""
        self._refuse()

    def contribution(self, index: int, context: Tensor) -> NoReturn:
        """Not there."""
        self._refuse()

    def contributions(self, contexts: list[Tensor]) -> NoReturn:
        """Not there."""
        self._refuse()

    def assemble(self, contributions: list[Tensor]) -> NoReturn:
        """Not there."""
        self._refuse()

    def rings(self, spectrum: Tensor) -> NoReturn:
        """Not there."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"the prior {self.name!r} is a reader without a hierarchy: it has no latents to refine or to draw; take a "
            "recipe that reads all scales and takes no steps, or train the hierarchy with iasolve train"
        )
