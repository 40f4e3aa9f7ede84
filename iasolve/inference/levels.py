"""What a measurement's values amount to: the scale of its image, and the level of its noise where it is not known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iasolve.evidence import Folded
from iasolve.inference.operator_likelihood import OperatorLikelihood
from iasolve.inference.probes import unit_phases
from iasolve.operators.base import LinearOperator
from iasolve.spectrum import ifft2

__all__ = ["estimate_sigma", "gain_diagonal", "gain_general", "likely_sigma"]

_ROUNDS = 3  # more make little difference for a sinogram, and of pixels take image detail for lack of noise
_SETTLED = 0.05  # relative change of the level
_ITERATIONS = 15


def gain_diagonal(folded: Folded, power: Tensor, iterations: int = 40) -> Tensor:
    """Scale ``g`` ``(B,)`` of images ``g x`` with ``E|h_k|^2 = P_k``, from a folded measurement in the user's units.

    Fixed point of ``g^2 = sum_k E|h_k|^2 / sum_k P_k``, the expected energy given the data under the Gaussian
    model: measured energy where the data are strong, the model's share elsewhere.
    """
    value2 = folded.value.real.square() + folded.value.imag.square()
    power = power.expand_as(value2)
    # start from the best measured bins only: where a blur has all but removed the signal, y^ is amplified noise
    best = folded.variance <= 4 * folded.variance.amin(dim=(-2, -1), keepdim=True)
    noise = torch.where(best, folded.variance, torch.zeros_like(folded.variance))
    energy = ((value2 - noise) * best).flatten(1).sum(1)
    # a floor for blank images, above the smallest numbers whose products would underflow
    least = 1e-9 * (value2 * best).flatten(1).sum(1) / value2[0].numel() + 1e-20
    squared = torch.maximum(energy / (power * best).flatten(1).sum(1), least)
    total = power.flatten(1).sum(1)
    for _ in range(iterations):
        prior = squared.reshape(-1, 1, 1, 1) * power
        rho = prior / (prior + folded.variance)
        found = (rho.square() * value2 + (1 - rho) * prior).flatten(1).sum(1) / total
        squared = torch.maximum(found, least)
    return squared.sqrt()


def gain_general(operator: LinearOperator, y: Tensor, sigma: Tensor, power: Tensor) -> Tensor:
    """The same for any operator: match the energy of the Wiener estimate to what the model predicts of it.

    Images of the model are drawn with exact power and random phases, so that two draws suffice, and one round: another
    changes the fifth digit. Both estimates stop equally early, which changes the gain by less than 1 %.
    """
    is_complex = operator.is_complex
    like = torch.zeros(1, dtype=torch.promote_types(operator.in_dtype, torch.float32), device=y.device)
    images = []
    for seed in range(2):
        h = power.sqrt() * unit_phases(operator.in_shape, seed, like)
        x = ifft2(h)
        images.append(x if is_complex else x.real)
    model = torch.cat(images)
    clean = operator(model)
    per_value = clean.abs().square().mean()
    noise2 = sigma.square()
    energy = y.abs().square().flatten(1).mean(1)
    squared = torch.maximum(energy - noise2, 1e-6 * energy).clamp_min(torch.finfo(energy.dtype).tiny) / per_value
    gain = squared.sqrt()
    ours = _wiener_energy(operator, y / gain.reshape(-1, *([1] * (y.ndim - 1))), sigma / gain, power)
    predicted = []
    for item in clean:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(item.shape, generator=generator, dtype=item.dtype).to(item.device)
        simulated = item[None] + (sigma / gain).reshape(-1, *([1] * item.ndim)) * noise
        predicted.append(_wiener_energy(operator, simulated, sigma / gain, power))
    return (squared * ours / torch.stack(predicted).mean(0).clamp_min(1e-12)).sqrt()


def _wiener_energy(operator: LinearOperator, y: Tensor, sigma: Tensor, power: Tensor) -> Tensor:
    data = OperatorLikelihood(operator, y, sigma)
    x = data.mean(torch.zeros_like(data.backprojection), power, iterations=8)
    return x.abs().square().flatten(1).sum(1)


def estimate_sigma(y: Tensor, operator: LinearOperator) -> Tensor:
    """Noise level of images or k-space ``(B, ...)``, in their units: root mean square of a noise value, ``(B,)``.

    K-space: the median magnitude of the outermost twentieth of the *sampled* entries, over ``sqrt(ln 2)`` (the
    median of a complex Gaussian's magnitude). Images: the median absolute deviation of the finest diagonal
    Daubechies-2 wavelet coefficients (Donoho and Johnstone 1994). Where the image itself reaches there, both
    are upper bounds.

    Raises
    ------
    ValueError
        When the measurement is smaller than 8 x 8.
    """
    if y.ndim < 3 or min(y.shape[-2:]) < 8:
        raise ValueError(
            f"cannot estimate the noise level of a measurement of shape {tuple(y.shape[1:])}, at least 8 x 8 values "
            "are needed: give it (sigma; --sigma S on the command line)"
        )
    if operator.codomain == "spectrum":
        y = torch.fft.fftshift(y, dim=(-2, -1))
    if operator.codomain in ("kspace", "spectrum"):
        return torch.stack([_sigma_kspace(item) for item in y])
    if y.is_complex():
        return torch.stack([_sigma_image(item.real) * math.sqrt(2) for item in y])
    return torch.stack([_sigma_image(item) for item in y])


def _sigma_kspace(y: Tensor) -> Tensor:
    height, width = y.shape[-2:]
    fy = (torch.arange(height, device=y.device) - height // 2) / height
    fx = (torch.arange(width, device=y.device) - width // 2) / width
    r = (fy[:, None].square() + fx[None, :].square()).sqrt().expand(y.shape)
    sampled = y != 0
    if not bool(sampled.any()):
        return y.real.new_zeros(())
    radii = r[sampled]
    # not torch.quantile, which refuses more than 16 million values
    outer = radii >= radii.kthvalue(math.ceil(0.95 * len(radii))).values
    return y[sampled][outer].abs().median() / math.sqrt(math.log(2))


# Daubechies-2 high-pass filter, unit norm
_HIGH = [-0.12940952255126037, -0.2241438680420134, 0.8365163037378079, -0.48296291314453416]


def _sigma_image(y: Tensor) -> Tensor:
    filter_ = torch.tensor(_HIGH, dtype=y.dtype, device=y.device)
    kernel = torch.outer(filter_, filter_)[None, None]
    detail = torch.nn.functional.conv2d(y.reshape(-1, 1, *y.shape[-2:]), kernel, stride=2)
    # exact zeros are padding or clipping, not noise
    values = detail[detail != 0].abs()
    return values.median() / 0.6744897501960817 if values.numel() else y.new_zeros(())


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
        most = torch.stack([_sigma_image(item) for item in y]).clamp_max(1)
        least = most / 4
    sigma = most.clamp(1e-6, 0.5)
    probes = probe[None].expand_as(y)
    settled = scale == 0
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
    found = torch.minimum(torch.maximum(sigma, least), most) * scale
    return torch.where(scale > 0, found, 0)
