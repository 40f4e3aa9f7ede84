"""The two numbers that a solver needs before it starts: the image's scale and the noise level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iasolve.evidence import Folded
from iasolve.inference.data import GeneralData
from iasolve.operators.base import LinearOperator
from iasolve.spectrum import fft2, ifft2

__all__ = ["estimate_sigma", "gain_diagonal", "gain_general", "unit_phases"]


def estimate_sigma(y: Tensor, operator: LinearOperator) -> Tensor:
    """Noise level of each measurement ``(B, ...)``, in its units: root mean square of a noise value, ``(B,)``.

    K-space: the median magnitude of the outermost twentieth of the *sampled* entries, over ``sqrt(ln 2)`` (the
    median of a complex Gaussian's magnitude). Images: the median absolute deviation of the finest diagonal
    Daubechies-2 wavelet coefficients (Donoho and Johnstone 1994). Where the image itself reaches there, both
    are upper bounds.

    Raises
    ------
    ValueError
        When the measurement is neither an image nor k-space of at least 8 x 8, or complex without a basis that
        tells which of the two it is.
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
    if y.is_complex() and operator.codomain is None:
        raise ValueError(
            f"cannot estimate the noise level of complex values of shape {tuple(y.shape)}: the operator does not say "
            "whether they are an image or k-space (its codomain is None); give sigma"
        )
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


def unit_phases(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Spectrum ``(1, *shape)`` of unit magnitudes and random phases, Hermitian when ``like`` is real."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex64 if like.is_complex() else torch.float32
    h = fft2(torch.randn((1, *shape), generator=generator, dtype=dtype))
    return (h / h.abs().clamp_min(1e-20)).to(like.device)


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
    data = GeneralData(operator, y, sigma)
    x = data.posterior_mean(torch.zeros_like(data.backprojection), power, iterations=8)
    return x.abs().square().flatten(1).sum(1)
