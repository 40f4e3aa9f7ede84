"""A measurement brought into the prior's world: geometry, units, evidence and likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from iasolve.evidence import Evidence, Folded, WienerPosterior, fold, profile, wiener
from iasolve.operators.base import LinearOperator
from iasolve.operators.crop import Crop
from iasolve.operators.probes import response
from iasolve.operators.shift import CircularShift
from iasolve.priors import Prior
from iasolve.problem.gain import ZERO, gain_of, unit_of
from iasolve.problem.geometry import Geometry, geometry_of, image_power
from iasolve.problem.likelihood import DiagonalLikelihood, Likelihood
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.problem.options import NonFiniteError, Options
from iasolve.problem.probed import Probed, probed_profile
from iasolve.spectrum import RingGrid, fft2, ifft2, ring_index, rings_at

__all__ = ["Problem", "pose"]


@dataclass
class Problem:
    """Everything inference needs of a batch of measurements; images in the prior's units.

    Attributes
    ----------
    geometry : Geometry
    likelihood : Likelihood
    variance : Tensor
        ``V`` on the image grid, ``(C, H, W)``.
    estimate : Tensor
        Wiener estimate on the image grid, ``(B, C, H, W)``.
    weights : Tensor or callable
        Of the data at each frequency, ``(B, C, H, W)``: see :func:`iasolve.evidence.wiener`. Where the operator is not
        diagonal, only what is known of rings: their evidence profile ``(B, 2, S)``, when called.
    gain : Tensor
        ``(B,)`` user's units over prior's units.
    crop : callable
        Image grid to the user's image.
    power : Tensor
        ``P`` on the image grid, ``(C, H, W)``.
    rings : RingGrid
        Of the image grid.
    size : int
        ``N`` of the prior.
    folded : Folded or None
        The measurement's share of each ring, where rings do not touch: one tile, the image itself, diagonal operator.
    """

    geometry: Geometry
    likelihood: Likelihood
    variance: Tensor
    estimate: Tensor
    weights: Tensor | Callable[[], Tensor]
    gain: Tensor
    crop: Callable[[Tensor], Tensor]
    power: Tensor
    rings: RingGrid
    size: int
    folded: Folded | None = None

    @cached_property
    def profile(self) -> Tensor:
        """Evidence profile of the measurement, ``(B, 2, S)``."""
        return self.weights() if callable(self.weights) else profile(self.weights, self.rings)

    @property
    def evidence(self) -> Evidence:
        """The encoder's input, per tile."""
        return Evidence(self.geometry.cut(self.estimate), self._tiled(self.profile))

    @property
    def posterior(self) -> WienerPosterior:
        """The reader's input, on the image grid."""
        if not callable(self.weights):
            return self._posterior(self.estimate, self.weights)
        # bins on the grid alone; what is known of a frequency is what is known of its ring
        held = self.rings._replace(counts=self.rings.sums(torch.ones_like(self.power[0]))).held
        known = self.profile[..., held]
        return WienerPosterior(self.estimate, self.rings.spread(known[:, :1]).expand(self.estimate.shape), known)

    @property
    def stop(self) -> Tensor:
        """Index of the finest scale with evidence, ``(B,)``: any bin of its ring whose data outweigh the prior."""
        if callable(self.weights):
            strongest = self.profile[:, 1].sqrt()
        else:
            rings = [self.weights[..., self.rings.owner == i].flatten(1) for i in range(len(self.rings.counts))]
            strongest = torch.stack([w.amax(1) if w.numel() else w.new_zeros(len(w)) for w in rings], dim=-1)
        levels = torch.arange(strongest.shape[1], device=strongest.device)
        return torch.where(strongest > 0.5, levels, torch.zeros_like(levels)).amax(dim=-1)

    def evidence_of(self, image: Tensor, level: float) -> Evidence:
        """The encoder's input for images ``(B, C, H, W)`` in white noise of standard deviation ``level``."""
        estimate, rho = self._in_noise(image, level)
        known = profile(rho, self.rings).expand(len(image), -1, -1)
        return Evidence(self.geometry.cut(estimate), self._tiled(known))

    def posterior_of(self, image: Tensor, level: float) -> WienerPosterior:
        """The reader's input for the same."""
        return self._posterior(*self._in_noise(image, level))

    def _in_noise(self, image: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Wiener estimate of images in white noise, and its weights ``(1, C, H, W)``."""
        white = torch.full_like(self.power[None], level**2)
        estimate, rho = wiener(Folded(fft2(image), white), self.power)
        return _of_kind(ifft2(estimate), image.is_complex()), rho

    def _posterior(self, estimate: Tensor, rho: Tensor) -> WienerPosterior:
        rings = rings_at((rho.shape[-2], rho.shape[-1]), self.size, rho.device)
        known = profile(rho, rings).expand(len(estimate), -1, -1)
        return WienerPosterior(estimate, rho.expand(estimate.shape), known)

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
    gain: Tensor | None = None,
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
    gain : Tensor, optional
        ``(B,)``, where it is known of another measurement of the same image; else as :func:`gain_of` has it.
    """
    size = prior.spectrum.size
    height, width = operator.in_shape[1:]
    gain = gain_of(y, operator, prior, sigma, options, whole) if gain is None else gain
    unit = unit_of(y)
    y, sigma, gain = y / unit.reshape(-1, *([1] * (y.ndim - 1))), sigma / unit, gain / unit
    geometry = geometry_of(size, (height, width), "whole" if whole else options.fit, options.overlap)
    grid = geometry.shape
    on_grid = operator
    crop: Callable[[Tensor], Tensor] = _same
    if shift != (0, 0):
        moving = CircularShift(shift, operator.in_shape, operator.in_dtype).to(y.device)
        on_grid, crop = operator @ moving, moving.forward
    if grid != (height, width):
        cropping = Crop((operator.in_shape[0], *grid), (height, width), operator.in_dtype)
        on_grid, crop = on_grid @ cropping, _after(crop, cropping.forward)
    # a reader was trained on densities alone
    power = geometry.per_bin(prior.power) if whole else image_power(prior.power, grid, options.fit)
    ring_variance = prior.sigma_x.square()[..., _ring_map(prior)]
    variance = geometry.per_bin(ring_variance)
    transfer = None if options.force_general else on_grid.transfer()
    rings = geometry.rings(prior.spectrum).to(y.device)
    direct: Folded | None = None
    if transfer is not None:
        if not bool(torch.isfinite(transfer).all()):
            raise NonFiniteError(f"the transfer function of {type(operator).__name__} {_NOT_FINITE}")
        if not bool((transfer != 0).any()):
            raise ValueError(ZERO.format(type(operator).__name__))
        folded = fold(
            on_grid.to_grid(y),
            transfer.to(y.device),
            sigma.reshape(-1, 1, 1, 1),
            real_image=not on_grid.is_complex,
            complex_noise=y.is_complex(),
        )
        g = gain.reshape(-1, 1, 1, 1)
        scaled = Folded(folded.value / g, folded.variance / g.square())
        seen, rho = wiener(scaled, power)
        image = _of_kind(ifft2(seen), on_grid.is_complex)
        weights: Tensor | Callable[[], Tensor] = rho
        likelihood: Likelihood = DiagonalLikelihood(scaled, on_grid.is_complex)
        direct = scaled if grid == (size, size) else None
    else:
        scaled_y = y / gain.reshape(-1, *([1] * (y.ndim - 1)))
        answer = partial(response, operator, on_grid, y, rings)
        general = OperatorLikelihood(
            on_grid, scaled_y, sigma / gain, options.iterations, options.tolerance, response=answer
        )
        if not bool(torch.isfinite(general.backprojection).all()):
            raise NonFiniteError(f"the adjoint of {type(operator).__name__} {_NOT_FINITE}")
        image = general.mean(torch.zeros_like(general.backprojection), power)
        near = on_grid.interior_transfer(grid)
        if near is None:
            weights = partial(probed_profile, operator, Probed(on_grid, scaled_y, power, rings), general.sigma)
        else:
            level, noise = general.sigma.reshape(-1, 1, 1, 1), y.is_complex()
            folded = fold(0 * fft2(image), near, level, real_image=not on_grid.is_complex, complex_noise=noise)
            weights = wiener(folded, power)[1]
        likelihood = general
    return Problem(geometry, likelihood, variance, image, weights, gain * unit, crop, power, rings, size, folded=direct)


_NOT_FINITE = (
    "makes NaN or infinite values of a finite measurement: try it with check_operator (iasolve check-operator)"
)


def _of_kind(x: Tensor, is_complex: bool) -> Tensor:
    return x if is_complex else x.real


def _same(x: Tensor) -> Tensor:
    return x


def _after(second: Callable[[Tensor], Tensor], first: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _ring_map(prior: Prior) -> Tensor:
    return ring_index(prior.spectrum.size).to(prior.device)
