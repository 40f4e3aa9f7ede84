"""The noise level of measurements that are neither images nor k-space. Those: :mod:`iasolve.noise_level`."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.inference.general_data import GeneralData
from iasolve.inference.intensity import gain_general, unit_phases
from iasolve.noise_level.white import estimate_sigma, sigma_image
from iasolve.operators.base import LinearOperator, as_floating
from iasolve.spectrum import ifft2

__all__ = ["estimate_sigma", "likely_sigma"]

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
        data = GeneralData(operator, torch.cat([values, probes]), (sigma / gain).repeat(2))
        mean = data.posterior_mean(torch.zeros_like(data.backprojection), power, iterations=_ITERATIONS)
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
