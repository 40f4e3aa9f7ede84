"""What inference needs of a prior."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from iasolve.evidence import WienerPosterior
from iasolve.networks import Gaussian, Reading
from iasolve.spectrum import Spectrum

__all__ = ["Layer", "Prior"]


class Layer(Protocol):
    """One latent of a scale."""

    def prior(self, context: Tensor) -> tuple[Gaussian, Tensor]:
        """``p(z | context)`` and the features it adds."""

    def posterior(self, context: Tensor, evidence: Tensor, prior: Gaussian) -> Gaussian:
        """``q(z | context, evidence)``."""

    def update(self, context: Tensor, z: Tensor, feature: Tensor) -> Tensor:
        """The context after ``z``."""


@runtime_checkable
class Prior(Protocol):
    """A hierarchy of latents, and the rings of the spectrum that they make.

    A *separable* prior has one contribution per scale, made of that scale's latents and their context alone, so it
    can be refined scale by scale. Of any other prior only :meth:`contributions` of a whole pass are known.

    A prior may be a *reader* alone (:attr:`descends` is false): it has a spectrum and a power, and no latents.

    Images are in the prior's units: their root mean square is 1.

    Examples
    --------
    >>> import iasolve
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> isinstance(prior, Prior), prior.channels, prior.reads, prior.descends
    (True, 1, True, True)
    """

    name: str
    card: dict[str, Any]

    @property
    def spectrum(self) -> Spectrum:
        """Size, scales, rings, real or complex."""

    @property
    def separable(self) -> bool:
        """Whether :meth:`contribution` exists."""

    @property
    def channels(self) -> int:
        """Image channels."""

    @property
    def power(self) -> Tensor:
        """``P``, ``(C, N, N)``: mean power of each frequency, unshifted."""

    @property
    def sigma_x(self) -> Tensor:
        """``(C, S)``: root mean square of what the decoder leaves unexplained in each ring."""

    @property
    def nonnegative(self) -> bool:
        """Whether the images of the prior hold no negative value, as magnitudes do."""

    @property
    def shift(self) -> float:
        """How far training images were moved, at most, in pixels: 0 where the prior knows them in one place only."""

    @property
    def mirrors(self) -> tuple[int, ...]:
        """Axes along which training images were mirrored at random, of -2 and -1."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def descends(self) -> bool:
        """Whether there is a hierarchy of latents."""

    @property
    def reads(self) -> bool:
        """Whether there is a reader."""

    def read(self, posterior: WienerPosterior, rows: int | None = None) -> Reading:
        """What the reader makes of a measurement of an image of any size; only where there is one.

        ``rows``: evaluate it in strips of so many rows, which changes the answer by no more than rounding.
        """

    def encode(self, image: Tensor, profile: Tensor) -> list[Tensor]:
        """Features per scale from an evidence image ``(B, C, N, N)`` and profile ``(B, 2, S)``."""

    def enter(self, index: int, context: Tensor | None, batch: int) -> Tensor:
        """The context at the start of scale ``index``."""

    def layers(self, index: int) -> list[Layer]:
        """The latent layers of scale ``index``."""

    def contribution(self, index: int, context: Tensor) -> Tensor:
        """``h_s`` ``(B, C, n_s)`` from the context after the last layer of scale ``index``; separable priors only."""

    def contributions(self, contexts: list[Tensor]) -> list[Tensor]:
        """Every ring ``(B, C, n_s)`` from the context after the last layer of each scale."""

    def assemble(self, contributions: list[Tensor]) -> Tensor:
        """Spectrum ``(B, C, N, columns)`` from all contributions."""

    def rings(self, spectrum: Tensor) -> list[Tensor]:
        """Split ``(..., N, columns)`` into rings, in the contributions' order."""
