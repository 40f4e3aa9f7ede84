"""The image's scale, which the solver needs before it starts."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.evidence import Folded
from iasolve.inference.general_data import GeneralData
from iasolve.operators.base import LinearOperator
from iasolve.spectrum import fft2, ifft2

__all__ = ["gain_diagonal", "gain_general", "unit_phases"]


def gain_diagonal(folded: Folded, power: Tensor, iterations: int = 40) -> Tensor:
    """Scale ``g`` ``(B,)`` of images ``g x`` with ``E|h_k|^2 = P_k``, from a folded measurement in the user's units.

    Fixed point of ``g^2 = sum_k E|h_k|^2 / sum_k P_k``, the expected energy given the data under the Gaussian
    model: measured energy where the data are strong, the model's share elsewhere.
    """
    value2 = folded.value.real.square() + folded.value.imag.square()
    power = power.expand_as(value2)
    # start from the best measured bins only: where a blur has all but removed the signal, y^ is amplified noise
    # and not from bins that are exactly empty, as after zero-filled interpolation, while the image lies elsewhere
    strong = power >= 0.1 * power.mean(dim=(-2, -1), keepdim=True)
    least = folded.variance.where(strong, torch.inf).amin(dim=(-2, -1), keepdim=True)
    least = least.where(torch.isfinite(least), folded.variance.amin(dim=(-2, -1), keepdim=True))
    best = folded.variance <= 4 * least
    noise = torch.where(best, folded.variance, torch.zeros_like(folded.variance))
    energy = ((value2 - noise) * best).flatten(1).sum(1)
    # a floor for blank images, above the smallest numbers whose products would underflow
    floor = 1e-9 * (value2 * best).flatten(1).sum(1) / value2[0].numel() + 1e-20
    squared = torch.maximum(energy / (power * best).flatten(1).sum(1), floor)
    total = power.flatten(1).sum(1)
    for _ in range(iterations):
        prior = squared.reshape(-1, 1, 1, 1) * power
        rho = prior / (prior + folded.variance)
        found = (rho.square() * value2 + (1 - rho) * prior).flatten(1).sum(1) / total
        squared = torch.maximum(found, floor)
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
