"""Random degradations for training the encoder: data in the configuration, not code paths.

A degradation is a product of transfer functions (masks, low-pass, blurs), a range of noise levels and the kind
of noise. Every factor here is diagonal in Fourier space, so a batch is degraded by one multiplication.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Annotated, Any, get_type_hints

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, Field, ValidationError, create_model
from pydantic.dataclasses import dataclass
from scipy.signal import lfilter
from torch import Tensor

from iasolve.evidence import Folded, fold
from iasolve.operators.kernels import gaussian_transfer, kernel_transfer, motion_kernel
from iasolve.operators.masks import line_mask, point_mask
from iasolve.spectrum import fft2, radius, ring_index, scales_of
from iasolve.tables import FORBID, Positive, Range, Share, Text, as_table, described, ordered, table
from iasolve.training.streams import Rng, each, normal

__all__ = ["Degradation", "DegradationMix", "shake_kernel"]

_Shares = Annotated[tuple[Share, Share], AfterValidator(ordered)]


def _uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds))


def _log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))


def _unshift(mask: Tensor) -> Tensor:
    return torch.fft.ifftshift(mask.float(), dim=(-2, -1))


def _lines(rng: np.random.Generator, size: int, *, acceleration: Range, centre: _Shares, kind: str = "any") -> Tensor:
    kind = str(rng.choice(["random", "random", "equispaced"])) if kind == "any" else kind
    return _unshift(
        line_mask(
            (size, size),
            _log_uniform(rng, acceleration),
            _uniform(rng, centre),
            kind=kind,
            axis=-1 if rng.random() < 0.7 else -2,
            seed=int(rng.integers(2**31)),
        )
    )


def _points(rng: np.random.Generator, size: int, *, acceleration: Range, centre: _Shares) -> Tensor:
    seed = int(rng.integers(2**31))
    return _unshift(point_mask((size, size), _log_uniform(rng, acceleration), _uniform(rng, centre), seed=seed))


def _low_pass(rng: np.random.Generator, size: int, *, cutoff: Range) -> Tensor:
    # the cutoff is a scale, drawn continuously: rings between powers of two occur too
    return (radius(size, size) <= _log_uniform(rng, cutoff) / 2).float()


def _gaussian_blur(rng: np.random.Generator, size: int, *, width: Range) -> Tensor:
    return gaussian_transfer(_log_uniform(rng, width), (size, size)).float()


def _motion_blur(rng: np.random.Generator, size: int, *, length: Range) -> Tensor:
    kernel = motion_kernel(_uniform(rng, length), float(rng.uniform(0, math.pi)))
    return kernel_transfer(kernel, (size, size)).to(torch.complex64)


def _camera_shake(rng: np.random.Generator, size: int, *, length: Range) -> Tensor:
    kernel = shake_kernel(_log_uniform(rng, length), rng)
    return kernel_transfer(torch.from_numpy(kernel), (size, size)).to(torch.complex64)


def shake_kernel(length: float, rng: np.random.Generator) -> np.ndarray:
    """Blur of a camera that a hand moves during the exposure: the time spent at each place, of sum 1.

    The path is a random walk whose velocity forgets its direction slowly; ``length`` is its larger extent in pixels.
    ``(M, M)`` float64, ``M`` odd, the path's mean in the middle pixel, so that the image stays in its place.
    """
    path = np.cumsum(lfilter([1.0], [1.0, -0.94], rng.standard_normal((_SHAKES, 2)), axis=0), axis=0)
    extent = np.ptp(path, axis=0).max()
    path = (path - path.mean(axis=0)) * (length / max(extent, 1e-12))
    half = math.ceil(np.abs(path).max()) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    below = np.floor(path).astype(int)
    part = path - below
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            np.add.at(kernel, (below[:, 0] + dy + half, below[:, 1] + dx + half), weight)
    return kernel / kernel.sum()


_SHAKES = 96
"""Points of a shaken path: more than the pixels of the longest."""


def _rings(rng: np.random.Generator, size: int, *, gain: Range) -> Tensor:
    # Each ring has a gain of its own: nothing is taken for granted, the mean of the image included. An image's
    # amplitude falls about like 1 / k; a gain that rises as fast, or slower, leaves no scale surer than another.
    slope = rng.random()
    gains = [_log_uniform(rng, gain) * (scale / size) ** slope for scale in scales_of(size)]
    return torch.tensor(gains)[ring_index(size)]


def _scatter(rng: np.random.Generator, size: int, *, keep: _Shares) -> Tensor:
    # points anywhere: the centre has no privilege
    return torch.from_numpy((rng.random((size, size)) < _uniform(rng, keep)).astype(np.float32))


_FACTORS: dict[str, Callable[..., Tensor]] = {
    "lines": _lines,
    "points": _points,
    "low-pass": _low_pass,
    "gaussian-blur": _gaussian_blur,
    "motion-blur": _motion_blur,
    "camera-shake": _camera_shake,
    "rings": _rings,
    "scatter": _scatter,
}


def _model(kind: str, factor: Callable[..., Tensor]) -> type[BaseModel]:
    """What a factor takes, from its signature."""
    types = get_type_hints(factor, include_extras=True)
    takes = [p for p in signature(factor).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known: dict[str, Any] = {p.name: (types[p.name], ... if p.default is p.empty else p.default) for p in takes}
    # a random mask has a kind of its own, which the factor's takes the key of
    known.pop("kind", None)
    return create_model(kind, __config__=FORBID, **known)


_MODELS = {kind: _model(kind, factor) for kind, factor in _FACTORS.items()}


@table("degradation")
@dataclass(frozen=True, config=FORBID)
class Degradation:
    """One entry of the list.

    Attributes
    ----------
    weight : float
        Relative frequency.
    sigma : (float, float)
        Range of the noise level, drawn log-uniformly, in units of the image's root mean square.
    noise : {"real", "complex"}
        Noise of an image-space or of a k-space measurement.
    transfer : tuple of mappings
        Factors, each ``{kind = ..., <its ranges>}``; empty for pure noise.
    """

    weight: Positive
    sigma: Range
    noise: Annotated[Text, Field(pattern="^(real|complex)$")] = "real"
    transfer: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for number, factor in enumerate(self.transfer):
            kind, arguments = factor.get("kind"), {k: v for k, v in factor.items() if k != "kind"}
            if kind not in _MODELS:
                raise ValueError(f"unknown transfer kind {kind!r}; known: {sorted(_MODELS)}")
            try:
                _MODELS[kind](**arguments)
            except ValidationError as error:
                where = f"degradation.transfer.{number} ({kind})"
                raise ValueError(described(error, where, list(_MODELS[kind].model_fields))) from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Degradation:
        """From a table of the training configuration; refuses unknown keys and kinds by name."""
        values = {"weight": 1.0, **as_table(data, "degradation")}
        transfer = values.get("transfer")
        if isinstance(transfer, list | tuple) and all(isinstance(f, Mapping) for f in transfer):
            values["transfer"] = tuple(
                {k: tuple(v) if isinstance(v, list) else v for k, v in factor.items()} for factor in transfer
            )
        return cls(**values)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[Tensor, float]:
        """A transfer function ``(N, N)`` complex64 (unshifted) and a noise level."""
        transfer = torch.ones(size, size, dtype=torch.complex64)
        for factor in self.transfer:
            arguments = {k: v for k, v in factor.items() if k != "kind"}
            transfer = transfer * _FACTORS[factor["kind"]](rng, size, **arguments)
        return transfer, _log_uniform(rng, self.sigma)


class DegradationMix:
    """Draws a degradation for each image of a batch and applies it.

    Parameters
    ----------
    entries : sequence of Degradation
        What to draw from.
    seed : int
        Of the transfer functions that are drawn in advance where images are on a GPU.
    """

    def __init__(self, entries: Sequence[Degradation], seed: int = 0) -> None:
        if not entries:
            raise ValueError("the list of degradations is empty: an encoder needs at least one")
        self.entries, self.seed = tuple(entries), seed
        weights = np.array([e.weight for e in entries])
        self.probabilities = weights / weights.sum()
        self._upto = np.cumsum(self.probabilities)[:-1]
        self._drawn: Tensor | None = None

    def __call__(self, images: Tensor, rng: Rng) -> Folded:
        """Folded measurements of ``images`` ``(B, C, N, N)``, each through its own random degradation."""
        picks = np.searchsorted(self._upto, rng.random(len(images)), side="right")
        entries = [self.entries[i] for i in picks]
        if images.device.type == "cpu":
            return self.apply(entries, images, rng)
        transfers = self._stock(images.shape[-1], images.device)
        chosen = torch.from_numpy(picks * _STOCK + rng.integers(_STOCK, size=len(picks))).to(images.device)
        own = each(rng, len(entries))
        sigmas = [_log_uniform(one, entry.sigma) for one, entry in zip(own, entries, strict=True)]
        return _degraded(entries, images, transfers[chosen], sigmas, rng)

    def _stock(self, size: int, device: torch.device) -> Tensor:
        """``_STOCK`` transfer functions of each entry, drawn once: drawing a mask takes longer than a GPU's step."""
        if self._drawn is None or self._drawn.device != device:
            rng = np.random.default_rng(self.seed)
            drawn = [entry.draw(rng, size)[0] for entry in self.entries for _ in range(_STOCK)]
            self._drawn = torch.stack(drawn).to(device)
        return self._drawn

    @staticmethod
    def apply(entries: Sequence[Degradation], images: Tensor, rng: Rng) -> Folded:
        """Folded measurements of ``images`` ``(B, C, N, N)``, image ``i`` through ``entries[i]``."""
        own = each(rng, len(entries))
        drawn = [entry.draw(one, images.shape[-1]) for entry, one in zip(entries, own, strict=True)]
        transfers = torch.stack([d for d, _ in drawn]).to(images.device)
        return _degraded(entries, images, transfers, [s for _, s in drawn], rng)


_STOCK = 256
"""Transfer functions of each kind that training on a GPU draws from."""


def _degraded(
    entries: Sequence[Degradation], images: Tensor, transfers: Tensor, sigmas: Sequence[float], rng: Rng
) -> Folded:
    real, device = not images.is_complex(), images.device
    transfer = transfers[:, None]
    sigma = torch.tensor(sigmas, dtype=torch.float32, device=device)[:, None, None, None]
    is_complex = torch.tensor([e.noise == "complex" or not real for e in entries], device=device)[:, None, None, None]
    noise = normal(rng, (2, *images.shape), device, axis=1)
    white = torch.where(is_complex, torch.complex(noise[0], noise[1]) / math.sqrt(2), fft2(noise[0]))
    y = transfer * fft2(images) + sigma * white
    folded = fold(y, transfer, sigma, real_image=real, complex_noise=True)
    if real:
        # the real noise of an image-space measurement is the same number at k and -k: twice the variance
        folded = Folded(folded.value, torch.where(is_complex, folded.variance, 2 * folded.variance))
    return folded
