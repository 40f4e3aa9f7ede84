"""A measurement brought into the prior's world: geometry, units, evidence and likelihood."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.evidence import Evidence, Folded, WienerPosterior, fold, held_rings, profile_at
from iasolve.inference.geometry import Canvas, Crop, Direct, FieldOfView, Geometry, Whole, choose_fit, image_power
from iasolve.inference.interface import Options
from iasolve.inference.likelihood import DiagonalLikelihood, Likelihood
from iasolve.inference.operator_likelihood import OperatorLikelihood
from iasolve.inference.probes import RingGrid, response, ring_probes, unit_phases
from iasolve.operators.base import LinearOperator
from iasolve.operators.shift import CircularShift
from iasolve.priors import Prior
from iasolve.spectrum import fft2, ifft2, ring_index

__all__ = ["Problem", "gain_diagonal", "gain_general", "pose"]


@dataclass
class Problem:
    """Everything inference needs of a batch of measurements; images in the prior's units.

    Attributes
    ----------
    geometry : Geometry
    likelihood : Likelihood
    variance : Tensor
        ``V`` on the image grid, ``(C, H, W)``.
    evidence : Evidence
        The encoder's input, per tile.
    gain : Tensor
        ``(B,)`` user's units over prior's units.
    stop : Tensor
        ``(B,)`` index of the finest scale with evidence.
    crop : callable
        Image grid to the user's image.
    power : Tensor
        ``P`` on the image grid, ``(C, H, W)``.
    rings : RingGrid
        Of the image grid.
    posterior : WienerPosterior
        The reader's input, on the image grid.
    folded : Folded or None
        The measurement's share of each ring, where rings do not touch: one tile, the image itself, diagonal operator.
    """

    geometry: Geometry
    likelihood: Likelihood
    variance: Tensor
    evidence: Evidence
    gain: Tensor
    stop: Tensor
    crop: Callable[[Tensor], Tensor]
    power: Tensor
    rings: RingGrid
    posterior: WienerPosterior
    folded: Folded | None = None

    def evidence_of(self, image: Tensor, level: float) -> Evidence:
        """The encoder's input for images ``(B, C, H, W)`` in white noise of standard deviation ``level``."""
        rho = (self.power / (self.power + level**2)).expand(image.shape)
        estimate = ifft2(rho * fft2(image))
        seen = estimate if image.is_complex() else estimate.real
        return Evidence(self.geometry.cut(seen), self._tiled(_profile(rho, self.rings)))

    def decode(self, prior: Prior, contributions: list[Tensor]) -> Tensor:
        """The image of every scale's contribution, before closing, ``(B, C, H, W)``."""
        return self.geometry.image(prior.spectrum.inverse(prior.assemble(contributions)))

    def unexplained(self, likelihood: Likelihood, image: Tensor, usual: Tensor | None = None) -> Tensor:
        """``V`` of each image, ``(B, C, H, W)``: what it leaves unexplained, not less than ``usual``, the prior's.

        An image unlike the training data has more detail than the decoder makes, and closing with the training set's
        ``V`` would smooth it away: the residual of a measurement, by its ``likelihood``, tells. A ring that is hardly
        measured may by chance show any surplus: no decoder leaves more than there is, not even of an image with twice
        the usual amplitude.
        """
        most = 4 * self.rings.means(self.power)
        return likelihood.unexplained(image, self.variance if usual is None else usual, self.rings, most)

    def _tiled(self, profile: Tensor) -> Tensor:
        return profile.repeat_interleave(self.geometry.tiles, dim=0)


def pose(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior,
    sigma: Tensor,
    options: Options,
    shift: tuple[int, int] = (0, 0),
    whole: bool = False,
    profiled: bool = True,
) -> Problem:
    """Bring a batch of measurements into the prior's world.

    Parameters
    ----------
    y : Tensor
        ``(B, *out_shape)``.
    operator : LinearOperator
        From images ``(C, H, W)`` of any size.
    prior : Prior
    sigma : Tensor
        ``(B,)`` noise level in ``y``'s units.
    options : Options
    shift : (int, int)
        Solve for the image that has to be moved by so many pixels, circularly, to be the measured one; ``crop``
        moves it.
    whole : bool
        Take an image of any size as it is, for the reader alone.
    profiled : bool
        Whether the evidence profile is asked for, as networks do: off the exact path it costs more than all else.
    """
    size = prior.spectrum.size
    height, width = operator.in_shape[1:]
    # squares of values about 1e-12 underflow; a power of 2 changes no digit
    peak = y.abs().flatten(1).amax(1)
    unit = torch.where(peak > 0, torch.exp2(torch.floor(torch.log2(peak))), 1.0)
    y, sigma = y / unit.reshape(-1, *([1] * (y.ndim - 1))), sigma / unit
    geometry: Geometry
    grid = (height, width)
    if whole:
        geometry = Whole(size, grid)
    elif grid == (size, size):
        geometry = Direct(size)
    elif choose_fit(options.fit, grid, size) == "field-of-view":
        geometry = FieldOfView(size, grid)
    else:
        grid = (max(height, size), max(width, size))
        geometry = Canvas(size, grid, size // 4 if options.overlap is None else options.overlap)
    on_grid = operator
    crop: Callable[[Tensor], Tensor] = _same
    if shift != (0, 0):
        moving = CircularShift(shift, operator.in_shape, operator.in_dtype).to(y.device)
        on_grid, crop = operator @ moving, moving.forward
    if grid != (height, width):
        cropping = Crop((operator.in_shape[0], *grid), (height, width), operator.in_dtype)
        on_grid, crop = on_grid @ cropping, _after(crop, cropping.forward)
    fit = "canvas" if whole else options.fit
    gain = _gain(y, operator, sigma, image_power(prior.power, (height, width), fit), options)
    power = image_power(prior.power, grid, fit)
    sigma_x = prior.sigma_x
    ring_variance = sigma_x.square()[..., _ring_map(prior)]
    variance = geometry.per_bin(ring_variance)
    transfer = None if options.force_general else on_grid.transfer()
    rings = geometry.rings(prior.spectrum).to(y.device)
    direct: Folded | None = None
    if transfer is not None:
        folded = fold(
            on_grid.to_grid(y),
            transfer.to(y.device),
            sigma.reshape(-1, 1, 1, 1),
            real_image=not on_grid.is_complex,
            complex_noise=y.is_complex(),
        )
        g = gain.reshape(-1, 1, 1, 1)
        scaled = Folded(folded.value / g, folded.variance / g.square())
        rho = power / (power + scaled.variance)
        estimate = ifft2(rho * scaled.value)
        image = estimate if on_grid.is_complex else estimate.real
        profile = _profile(rho, rings)
        posterior = WienerPosterior(image, rho, profile_at(rho, size))
        # any bin of the ring whose evidence outweighs the prior
        strongest = torch.stack([_peak(rho, rings.owner == i) for i in range(len(prior.spectrum.scales))], dim=-1)
        likelihood: Likelihood = DiagonalLikelihood(scaled, on_grid.is_complex)
        direct = scaled if isinstance(geometry, Direct) else None
    else:
        scaled_y = y / gain.reshape(-1, *([1] * (y.ndim - 1)))
        answer = partial(response, operator, on_grid, y, rings)
        general = OperatorLikelihood(on_grid, scaled_y, sigma / gain, options.iterations, options.tolerance, answer)
        image = general.mean(torch.zeros_like(general.backprojection), power)
        profile = image.real.new_zeros(len(y), 2, len(rings.counts))
        if profiled:
            profile = _probed_profile(operator, Probed(on_grid, y, power, rings), general.sigma)
        strongest = profile[:, 1].sqrt()
        known = profile[..., held_rings(rings.sums(torch.ones(grid, device=y.device)))]
        # what is known of a frequency is what is known of its ring
        weight = rings.spread(known[:, :1]).expand(image.shape)
        posterior = WienerPosterior(image, weight, known)
        likelihood = general
    levels = torch.arange(len(prior.spectrum.scales), device=y.device)
    stop = torch.where(strongest > 0.5, levels, torch.zeros_like(levels)).amax(dim=-1)
    seen = Evidence(geometry.cut(image), profile.repeat_interleave(geometry.tiles, dim=0))
    return Problem(geometry, likelihood, variance, seen, gain * unit, stop, crop, power, rings, posterior, direct)


def _gain(y: Tensor, operator: LinearOperator, sigma: Tensor, power: Tensor, options: Options) -> Tensor:
    """Of the image itself: around a small image a canvas is empty, and what is expected there is no measure of it."""
    transfer = None if options.force_general else operator.transfer()
    if transfer is None:
        return gain_general(operator, y, sigma, power)
    real, noise = not operator.is_complex, y.is_complex()
    level = sigma.reshape(-1, 1, 1, 1)
    folded = fold(operator.to_grid(y), transfer.to(y.device), level, real_image=real, complex_noise=noise)
    return gain_diagonal(folded, power)


def _same(x: Tensor) -> Tensor:
    return x


def _after(second: Callable[[Tensor], Tensor], first: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _ring_map(prior: Prior) -> Tensor:
    return ring_index(prior.spectrum.size).to(prior.device)


def _profile(rho: Tensor, rings: RingGrid) -> Tensor:
    """Evidence profile ``(B, 2, S)`` of weights ``(B, C, H, W)`` on the image grid."""
    return torch.stack([rings.means(rho), rings.means(rho.square())], dim=-2).mean(dim=1)


def _peak(rho: Tensor, inside: Tensor) -> Tensor:
    values = rho[..., inside]
    return values.flatten(1).amax(1) if values.numel() else rho.new_zeros(len(rho))


_PROFILES: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[object, ...], Tensor]] = weakref.WeakKeyDictionary()


class Probed(NamedTuple):
    """What probes are sent through: the operator on the image grid, a measurement ``y`` for its kind, and the grid."""

    operator: LinearOperator
    y: Tensor
    power: Tensor
    rings: RingGrid

    def profile(self, sigma: float) -> Tensor:
        """Evidence profile ``(2, S)`` at a noise level."""
        spectra, probes = ring_probes(self.operator, self.rings)
        level = torch.full((len(probes),), sigma, device=self.y.device)
        likelihood = OperatorLikelihood(self.operator, self.operator(probes), level)
        answer = fft2(likelihood.mean(torch.zeros_like(probes), self.power))
        sizes = self.rings.counts.to(self.power.dtype) * spectra.shape[1]
        mean = ((spectra.conj() * answer).real.flatten(1).sum(1) / sizes).clamp(0, 1)
        square = ((answer.abs().square() * (spectra != 0)).flatten(1).sum(1) / sizes).clamp(0, 1)
        return torch.stack([mean, torch.maximum(square, mean.square())])


def _probed_profile(operator: LinearOperator, probed: Probed, sigma: Tensor) -> Tensor:
    """Evidence profile ``(B, 2, S)`` by ring-limited Hutchinson probes of the Wiener estimate's resolution matrix.

    A probe has unit magnitudes and random phases in one ring. The noise level is rounded to 5 %, so that images
    of a batch, and later calls with the same ``operator``, share probes; that on the image grid is another object in
    every call.
    """
    cache = _PROFILES.setdefault(operator, {})
    levels = [round(math.log(float(s)) / math.log(1.05)) for s in sigma]
    y, power = probed.y, probed.power
    base = (str(y.device), y.dtype, tuple(power.shape[-2:]), float(power.sum()))
    for level in sorted(set(levels)):
        if (*base, level) not in cache:
            cache[(*base, level)] = probed.profile(1.05**level)
    return torch.stack([cache[(*base, level)] for level in levels])


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
    # of a blank measurement, any
    return squared.sqrt().where(energy > 0, 1.0)


_FAINT, _ROUNDS = 0.1, 4
"""Share of a measurement's energy below which what is not noise is faint, and further rounds for such a one."""


def _wiener_energy(operator: LinearOperator, y: Tensor, sigma: Tensor, power: Tensor) -> Tensor:
    data = OperatorLikelihood(operator, y, sigma)
    x = data.mean(torch.zeros_like(data.backprojection), power, iterations=8)
    return x.abs().square().flatten(1).sum(1)
