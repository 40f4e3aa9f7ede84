"""The scale of images: user's units over the prior's."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.evidence import Folded, fold
from iasolve.operators.base import LinearOperator
from iasolve.operators.probes import unit_phases
from iasolve.priors import Prior
from iasolve.problem.geometry import choose_fit, crop_power, image_power
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.problem.options import Options
from iasolve.spectrum import ifft2

__all__ = ["ZERO", "gain_diagonal", "gain_general", "gain_of", "unit_of"]

ZERO = (
    "the operator {} is zero: A x is 0 for a random image, so that the measurement tells nothing. Check its mask, "
    "kernel, maps or factor (iasolve.operators.check_operator)"
)


def unit_of(y: Tensor) -> Tensor:
    """A power of 2 ``(B,)`` near each measurement's peak: squares of values about 1e-12 underflow."""
    peak = y.abs().flatten(1).amax(1)
    return torch.where(peak > 0, torch.exp2(torch.floor(torch.log2(peak))), 1.0)


def gain_of(
    y: Tensor, operator: LinearOperator, prior: Prior, sigma: Tensor, options: Options, whole: bool = False
) -> Tensor:
    """User's units over the prior's ``(B,)``; arguments as of :func:`pose`.

    Of the image itself: around a small image a canvas is empty, and what is expected there is no measure of it.
    """
    _, height, width = operator.in_shape
    shape, fit = (height, width), "canvas" if whole else options.fit
    unit = unit_of(y)
    y, sigma = y / unit.reshape(-1, *([1] * (y.ndim - 1))), sigma / unit
    power = image_power(prior.power, shape, fit)
    if max(shape) < prior.spectrum.size and choose_fit(fit, shape, prior.spectrum.size) == "canvas":
        power = crop_power(prior.power, shape)
    return unit * _gain(y, operator, sigma, power, options)


def _gain(y: Tensor, operator: LinearOperator, sigma: Tensor, power: Tensor, options: Options) -> Tensor:
    transfer = None if options.force_general else operator.transfer()
    if transfer is None:
        return gain_general(operator, y, sigma, power)
    real, noise = not operator.is_complex, y.is_complex()
    level = sigma.reshape(-1, 1, 1, 1)
    folded = fold(operator.to_grid(y), transfer.to(y.device), level, real_image=real, complex_noise=noise)
    return gain_diagonal(folded, power)


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
    lowest = folded.variance.where(strong, torch.inf).amin(dim=(-2, -1), keepdim=True)
    lowest = lowest.where(torch.isfinite(lowest), folded.variance.amin(dim=(-2, -1), keepdim=True))
    best = folded.variance <= 4 * lowest
    noise = torch.where(best, folded.variance, torch.zeros_like(folded.variance))
    whole = (value2 * best).flatten(1).sum(1)
    energy = whole - (noise * best).flatten(1).sum(1)
    # Where the noise leaves next to nothing, or is stated above the measurement's own level, start from above: the
    # fixed point is then up to the strongest frequencies, which most of the noise does not reach.
    energy = torch.where(energy > _FAINT * whole, energy, whole)
    # a floor for blank images, above the smallest numbers whose products would underflow
    least = 1e-9 * whole / value2[0].numel() + 1e-20
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
    changes the fifth digit, but where the noise leaves next to nothing, which starts from above and takes more. Both
    estimates stop equally early, which changes the gain by less than 1 %.
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
    if not bool((clean != 0).any()):
        raise ValueError(ZERO.format(type(operator).__name__))
    per_value = clean.abs().square().mean()
    noise2 = sigma.square()
    energy = y.abs().square().flatten(1).mean(1)
    faint = energy - noise2 < _FAINT * energy
    squared = torch.where(faint, energy, energy - noise2).clamp_min(torch.finfo(energy.dtype).tiny) / per_value

    def matched(squared: Tensor) -> Tensor:
        gain = squared.sqrt()
        ours = _wiener_energy(operator, y / gain.reshape(-1, *([1] * (y.ndim - 1))), sigma / gain, power)
        predicted = []
        for item in clean:
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(item.shape, generator=generator, dtype=item.dtype).to(item.device)
            simulated = item[None] + (sigma / gain).reshape(-1, *([1] * item.ndim)) * noise
            predicted.append(_wiener_energy(operator, simulated, sigma / gain, power))
        return squared * ours / torch.stack(predicted).mean(0).clamp_min(1e-12)

    squared = matched(squared)
    for _ in range(_ROUNDS if bool(faint.any()) else 0):
        squared = torch.where(faint, matched(squared), squared)
    # a blank measurement tells of the image that it is below the noise
    blank = (_BLANK * sigma).clamp_min(1e-10) / per_value.sqrt()
    return squared.sqrt().where(energy > 0, blank)


_BLANK = 0.01
"""Signal of a measurement that is zero throughout, over the noise that it is said to have."""

_FAINT, _ROUNDS = 0.1, 4
"""Share of a measurement's energy below which what is not noise is faint, and further rounds for such a one."""


def _wiener_energy(operator: LinearOperator, y: Tensor, sigma: Tensor, power: Tensor) -> Tensor:
    data = OperatorLikelihood(operator, y, sigma)
    x = data.mean(torch.zeros_like(data.backprojection), power, iterations=8)
    return x.abs().square().flatten(1).sum(1)
