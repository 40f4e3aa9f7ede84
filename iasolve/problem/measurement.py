"""A measurement before it is solved: checked, brought to white noise of a known level, and compared with the prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from iasolve.noise_level import EstimatedNoise, estimate_noise, estimate_offset
from iasolve.noise_level.offset import tells_offset
from iasolve.noise_level.white import estimate_sigma, sigma_image
from iasolve.operators import Identity
from iasolve.operators.base import LinearOperator, as_floating
from iasolve.operators.conventions import check_image_axes, check_kspace_order
from iasolve.operators.noise import GaussianNoise, NoiseModel
from iasolve.operators.probes import unit_phases
from iasolve.operators.spectral_noise import SpectralNoise
from iasolve.priors import Prior
from iasolve.problem.gain import gain_general
from iasolve.problem.geometry import image_power
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.problem.options import Options
from iasolve.spectrum import fft2, ifft2

__all__ = [
    "Measurement",
    "check",
    "estimate_sigma",
    "likely_sigma",
    "whitened",
]


class Measurement(NamedTuple):
    """Measurements ``(B, *out_shape)`` of one operator with white noise ``(B,)``, on the prior's device.

    ``offset`` ``(B,)``: the constant that was taken off each image; None: nothing was. ``levels`` ``(B, R)``: of the
    noise before it was white, of each ring of frequencies from 0 to 0.5 cycles per pixel; None where it is one.
    ``filtered``: whether ``y`` is the noisy image itself, but for the filter that made its noise white.
    """

    y: Tensor
    sigma: Tensor
    operator: LinearOperator
    offset: Tensor | None = None
    levels: Tensor | None = None
    filtered: bool = False

    def batches(self, size: int) -> list[Measurement]:
        """Pieces of at most ``size`` images."""
        offset = torch.zeros_like(self.sigma) if self.offset is None else self.offset
        parts = zip(self.y.split(size), self.sigma.split(size), offset.split(size), strict=True)
        levels = [None] * len(self.y) if self.levels is None else self.levels.split(size)
        return [
            Measurement(y, sigma, self.operator, off, level, self.filtered)
            for (y, sigma, off), level in zip(parts, levels, strict=False)
        ]

    @property
    def images(self) -> Tensor | None:
        """The noisy images that ``y`` is, with their own noise; None where it is something else."""
        operator = self.operator
        if type(operator) is Identity:
            return self.y
        if not self.filtered:
            return None
        transfer = operator.transfer()
        assert transfer is not None
        y = ifft2(fft2(self.y) / transfer.to(self.y.real.dtype))
        return y if operator.is_complex else y.real

    def of_images(self, images: Tensor) -> Measurement:
        """The measurement of other images ``(B, C, H, W)``, of any size, with the same noise."""
        plain = Identity((self.operator.in_shape[0], *images.shape[-2:]), self.operator.in_dtype).to(images.device)
        if not self.filtered or self.levels is None:
            return self._replace(y=images, operator=plain)
        # one model made them white
        white = SpectralNoise(self.levels[0]).whitened(images, plain)
        return self._replace(y=white.y, operator=white.operator)

    def widened(self) -> Measurement:
        """Of noisy images, the same with the pixels next to each edge mirrored beyond it; of others the same.

        A spectrum goes round from one edge to the other, a scene does not: without the margin the outermost row has
        twice the error of the others at strong noise. The image lies in the middle (:class:`Crop`).
        """
        y = self.images
        if y is None:
            return self
        height, width = self.operator.in_shape[1:]
        shape = [next_fast_len(n + 2 * MARGIN, real=True) for n in (height, width)]
        places = [_mirrored(n, wide).to(y.device) for n, wide in zip((height, width), shape, strict=True)]
        return self.of_images(y[..., places[0], :][..., places[1]])

    def shifted(self, prior: Prior, offset: float | str) -> Measurement:
        """Without the offset of its images: see :class:`Options`."""
        operator = self.operator
        if offset == "auto":
            if not prior.nonnegative or operator.support() is not None or not tells_offset(operator):
                return self
            levels = [GaussianNoise(float(sigma)) for sigma in self.sigma]
            found = [estimate_offset(y, operator, noise) for y, noise in zip(self.y, levels, strict=True)]
        else:
            found = [float(offset)] * len(self.y)
        if not any(found):
            return self
        off = torch.tensor(found, dtype=self.sigma.dtype, device=self.sigma.device)
        ones = torch.ones(operator.in_shape, dtype=self.y.real.dtype, device=self.y.device)
        constant = operator(ones.to(torch.promote_types(ones.dtype, operator.in_dtype)))
        y = self.y - off.reshape(-1, *[1] * constant.ndim) * constant.to(self.y.dtype)
        return self._replace(y=y, offset=off)


MARGIN = 2
"""Pixels that a noisy image is continued by beyond each edge, at least: 4, 8 and 16 are no better."""


def _mirrored(length: int, wide: int) -> Tensor:
    """Index of the pixel at each place of a row that is continued to ``wide``, mirrored at its edges."""
    place = (torch.arange(wide) - (wide - length) // 2) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


def check(y: Tensor, operator: LinearOperator, prior: Prior) -> None:
    """Refuse shapes, kinds and channels that do not fit, and values that are not finite (ValueError)."""
    n = len(operator.out_shape)
    if y.ndim < n or tuple(y.shape[y.ndim - n :]) != tuple(operator.out_shape):
        check_image_axes(tuple(y.shape))
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, "
            f"the operator puts out (..., {', '.join(map(str, operator.out_shape))})"
        )
    if y.numel() == 0:
        raise ValueError(f"the measurement is empty: shape {tuple(y.shape)}")
    if y.is_complex() and not operator.out_dtype.is_complex:
        raise ValueError(f"the measurement is complex ({y.dtype}), the operator puts out {operator.out_dtype}")
    if len(operator.in_shape) != 3:
        raise ValueError(f"the operator takes {operator.in_shape}, expected images (C, H, W)")
    if operator.in_shape[0] != prior.channels:
        check_image_axes(operator.in_shape)
        raise ValueError(
            f"the operator's images have {operator.in_shape[0]} channel(s), "
            f"the prior {prior.name!r} has {prior.channels}"
        )
    if operator.codomain == "kspace" and _measures_middle(operator):
        check_kspace_order(y)
    if operator.is_complex != prior.spectrum.is_complex:
        kinds = (
            "complex" if operator.is_complex else "real",
            "complex" if prior.spectrum.is_complex else "real",
        )
        raise ValueError(f"the operator takes {kinds[0]} images, the prior {prior.name!r} is over {kinds[1]} images")
    support = operator.support()
    if support is not None and (support.dtype != torch.bool or support.shape != operator.in_shape[1:]):
        raise ValueError(
            f"the operator's support() is {tuple(support.shape)} {support.dtype}, expected boolean "
            f"{tuple(operator.in_shape[1:])}, True where images may be other than 0, or None"
        )
    if not bool(torch.isfinite(y).all()):
        bad = int((~torch.isfinite(y)).sum())
        raise ValueError(f"the measurement holds {bad} NaN or infinite value(s): replace or mask them first")


def _measures_middle(operator: LinearOperator) -> bool:
    """Whether k-space has a value at its middle: of what measures the corners alone, the order cannot be told."""
    kind = torch.promote_types(operator.in_dtype, torch.float32)
    seen = operator(torch.ones(operator.in_shape, dtype=kind, device=operator.device))
    return bool((seen[..., seen.shape[-2] // 2, seen.shape[-1] // 2] != 0).any())


def whitened(
    y: Tensor, operator: LinearOperator, noise: NoiseModel | EstimatedNoise | None, prior: Prior, options: Options
) -> list[Measurement]:
    """The problem with white noise: one piece, or one for each item where the noise model follows its measurement."""
    operator = operator.to(y.device)
    plain = type(operator) is Identity
    flat = y.reshape(-1, *operator.out_shape)
    models: list[Any] | None = None
    if isinstance(noise, EstimatedNoise) and noise.kind != "auto":
        models = [noise.model(item, operator) for item in flat]
    elif noise is None or isinstance(noise, EstimatedNoise):
        if operator.codomain == "image" and operator.transfer() is not None and min(flat.shape[-2:]) >= _SMALLEST:
            models = [estimate_noise(item, operator) for item in flat]
            models = None if all(isinstance(model, GaussianNoise) for model in models) else models
    elif getattr(noise, "follows_measurement", False):
        models = [noise] * len(flat)
    else:
        models = [noise]
    found: list[tuple[Tensor, LinearOperator, float | None, Tensor | None]] = [(flat, operator, None, None)]
    if models is not None:
        whole = len(models) == 1 and not getattr(noise, "follows_measurement", False) and noise is not None
        items = [flat] if whole else list(flat)
        each = [model.whitened(item, operator) for model, item in zip(models, items, strict=True)]
        found = [
            (white.y if whole else white.y[None], white.operator, float(white.noise.sigma), rings)
            for white, rings in zip(each, _levels(models), strict=True)
        ]
    pieces = []
    for values, acting, level, rings in found:
        values = values.to(prior.device, _precision(values, prior))
        acting = acting.to(prior.device)
        if level is None:
            sigma = _estimated(values, acting, prior, options)
        else:
            sigma = torch.full((len(values),), level, dtype=values.real.dtype, device=values.device)
        levels = None if rings is None else rings.to(sigma).expand(len(values), -1)
        pieces.append(Measurement(values, sigma, acting, levels=levels, filtered=plain and levels is not None))
    return pieces


def _levels(models: Sequence[Any]) -> list[Tensor | None]:
    """Levels of the rings of each model ``(R,)``, where any has more than one."""
    known = [torch.as_tensor(model.levels) for model in models if isinstance(model, SpectralNoise)]
    if not known:
        return [None] * len(models)
    one = torch.ones_like(known[0])
    return [torch.as_tensor(m.levels) if isinstance(m, SpectralNoise) else m.sigma * one for m in models]


_SMALLEST = 64
"""Side of an image below which its noise is taken for white: too few flat blocks tell the levels of its rings."""


def _estimated(y: Tensor, operator: LinearOperator, prior: Prior, options: Options) -> Tensor:
    """Noise levels ``(B,)``: by what images and k-space look like, by the prior's power where ``y`` may be neither."""
    diagonal = operator.codomain in ("kspace", "spectrum") and operator.transfer() is not None
    if operator.codomain is not None and not diagonal:
        return estimate_sigma(y, operator)
    height, width = operator.in_shape[1:]
    power = image_power(prior.power, (height, width), options.fit)
    with torch.no_grad():
        likely = likely_sigma(y, operator, power)
    # the image reaches the outermost k-space of all but large images: an upper bound, and a loose one
    return torch.minimum(estimate_sigma(y, operator), likely) if diagonal else likely


def _precision(y: Tensor, prior: Prior) -> torch.dtype:
    real = prior.power.dtype
    return torch.promote_types(real, torch.complex32) if y.is_complex() else real


_ROUNDS = 3  # more make little difference for a sinogram, and of pixels take image detail for lack of noise
_SETTLED = 0.05  # relative change of the level
_ITERATIONS = 15


def likely_sigma(y: Tensor, operator: LinearOperator, power: Tensor) -> Tensor:
    """Noise level of measurements of which it is not known what they look like: a sinogram, a list of values.

    The level under which what a Wiener estimate leaves unexplained is as large as expected, a stationary point of the
    likelihood of ``y`` under the Gaussian model (MacKay 1992, Neural Computation 4:415, for his beta):
    ``sigma^2 = |y - A x^|^2 / (M - gamma)``, with ``gamma = Re tr(A (A^H A / sigma^2 + 1 / P)^-1 A^H) / sigma^2`` by
    one random probe and ``M`` the number of values that depend on the image. What the model cannot explain of the image
    counts as noise: where noise is far below the image's own fine detail, this is an upper bound. Where ``gamma`` is
    nearly ``M``, noise and image are hard to tell apart: of real values in rows and columns the level is kept between
    that of an image like it, an upper bound too, and a quarter of it.

    Parameters
    ----------
    y : Tensor
        ``(B, *out_shape)``.
    operator : LinearOperator
    power : Tensor
        ``(C, H, W)``, of images of mean square 1; the level does not depend on ``y``'s units.

    Returns
    -------
    Tensor
        ``(B,)``, the root mean square of a noise value. Up to three rounds from half the measurement's root mean
        square, or from the level of an image like it where that is less; each of up to 45 applications of ``A`` and
        ``A^H``.
    """
    y = as_floating(y)
    blank = y.abs().flatten(1).amax(1) == 0
    if bool(blank.any()):
        # nothing to learn from them, and dividing by their level would spread NaN
        sigma = y.real.new_zeros(len(y))
        if not bool(blank.all()):
            sigma[~blank] = likely_sigma(y[~blank], operator, power)
        return sigma
    each = [1] * (y.ndim - 1)
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(y.shape[1:], generator=generator, dtype=y.dtype).to(y.device)
    like = torch.zeros(1, dtype=torch.promote_types(operator.in_dtype, torch.float32), device=y.device)
    model = ifft2(power.sqrt() * unit_phases(operator.in_shape, 0, like))
    seen = operator(model if operator.is_complex else model.real)[0].abs()
    measured = seen > 1e-6 * seen.amax()  # the rest, as of masked pixels, is zero without any noise
    count = int(measured.sum())
    if count == 0:
        return y.real.new_zeros(len(y))
    scale = y[:, measured].abs().square().mean(1).sqrt()
    unit = scale.clamp_min(torch.finfo(scale.dtype).tiny).reshape(-1, *each)
    y = y / unit
    most, least = torch.ones_like(scale), torch.zeros_like(scale)
    if not y.is_complex() and y.ndim >= 3 and min(y.shape[-2:]) >= 8:
        most = torch.stack([sigma_image(item) for item in y]).clamp_max(1)
        least = most / 4
    sigma = most.clamp(1e-6, 0.5)
    probes = probe[None].expand_as(y)
    settled = torch.zeros_like(scale, dtype=torch.bool)
    for _ in range(_ROUNDS):
        gain = gain_general(operator, y, sigma, power)
        values = y / gain.reshape(-1, *each)
        data = OperatorLikelihood(operator, torch.cat([values, probes]), (sigma / gain).repeat(2))
        mean = data.mean(torch.zeros_like(data.backprojection), power, iterations=_ITERATIONS)
        explained, answered = operator(mean).chunk(2)
        left = (values - explained)[:, measured].abs().square().sum(1)
        freedom = (probes.conj() * answered).real.flatten(1).sum(1)
        # with hardly a value to spare nothing tells noise from image
        found = (left / (count - freedom).clamp_min(0.01 * count)).sqrt() * gain
        # each item stops by itself, whatever its batch does
        moved = (found / sigma - 1).abs() > _SETTLED
        sigma = torch.where(settled, sigma, found)
        settled = settled | ~moved
        if bool(settled.all()):
            break
    return torch.minimum(torch.maximum(sigma, least), most) * scale
