"""A measurement brought into the prior's world: geometry, units, evidence and data term."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from iasolve.evidence import Evidence, Folded, fold
from iasolve.inference.components import RingResponse, response, surplus_of_rings
from iasolve.inference.conjugate import TOLERANCE
from iasolve.inference.data import DataModel, DiagonalData
from iasolve.inference.general_data import GeneralData
from iasolve.inference.geometry import Canvas, Crop, Direct, FieldOfView, Geometry
from iasolve.inference.intensity import gain_diagonal, gain_general
from iasolve.inference.rings import ring_probes, ring_sums
from iasolve.operators.base import LinearOperator
from iasolve.operators.shift import CircularShift
from iasolve.priors import Prior
from iasolve.spectrum import fft2, ifft2, ring_index

__all__ = ["Problem", "pose"]


@dataclass
class Problem:
    """Everything inference needs of a batch of measurements; images in the prior's units.

    Attributes
    ----------
    geometry : Geometry
    data : DataModel
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
    diagonal : bool
    power : Tensor
        ``P`` on the image grid, ``(C, H, W)``.
    rings, counts : Tensor
        Of the image grid; see :meth:`Geometry.rings`.
    response : callable or None
        What the operator makes of each ring, where it is not diagonal; probed when asked for.
    """

    geometry: Geometry
    data: DataModel
    variance: Tensor
    evidence: Evidence
    gain: Tensor
    stop: Tensor
    crop: Callable[[Tensor], Tensor]
    diagonal: bool
    power: Tensor
    rings: Tensor
    counts: Tensor
    response: Callable[[], RingResponse] | None = None

    def evidence_of(self, image: Tensor, level: float) -> Evidence:
        """The encoder's input for images ``(B, C, H, W)`` in white noise of standard deviation ``level``."""
        rho = (self.power / (self.power + level**2)).expand(image.shape)
        estimate = ifft2(rho * fft2(image))
        seen = estimate if image.is_complex() else estimate.real
        return Evidence(self.geometry.cut(seen), self._tiled(_profile(rho, self.rings, self.counts)))

    def unexplained(self, data: DataModel, image: Tensor, adaptive: bool = True) -> Tensor:
        """``V`` of each image, ``(B, C, H, W)``: what decoded ``image`` leaves unexplained, not less than the prior's.

        An image unlike the training data has more detail than the decoder makes, and closing with the training set's
        ``V`` would smooth it away. In every ring, the residual's mean square beyond the noise, weighted by what each
        bin says of it and less one standard error, raises ``V`` (moment estimator of a variance component). Where the
        operator is not diagonal, rings are told apart by how it answers each (:mod:`iasolve.inference.components`).
        """
        base = self.variance.expand(image.shape)
        if not adaptive:
            return base
        inside = self.rings >= 0
        ring = self.rings[inside]
        sums = partial(ring_sums, rings=self.rings, count=len(self.counts))

        # a ring that is hardly measured may by chance show any surplus: no decoder leaves more than there is, not even
        # of an image with twice the usual amplitude
        counts = self.counts.to(base.dtype)
        most = 4 * sums(self.power) / counts
        raised = base.clone()
        if isinstance(data, GeneralData) and self.response is not None:
            usual = sums(self.variance).mean(0) / counts
            more = surplus_of_rings(data, image, usual, self.response(), self.rings)[:, None]
            more = torch.minimum(more, (most - usual).clamp_min(0))
            raised[..., inside] += more[..., ring]
            return raised
        if not isinstance(data, DiagonalData):
            return base
        surplus, weight = data.surplus(image, self.variance)
        total = sums(weight)
        found = sums(weight * surplus) / total.clamp_min(1e-30)
        # of a real image k and -k are one number: half as many independent bins
        count = 1.0 if data.is_complex else 2.0
        error = (2 * count / total.clamp_min(1e-30)).sqrt()
        level = torch.where(total > 0, found - error, torch.zeros_like(found))
        level = torch.minimum(level, most)
        raised[..., inside] = torch.maximum(base[..., inside], level[..., ring])
        return raised

    def _tiled(self, profile: Tensor) -> Tensor:
        return profile.repeat_interleave(self.geometry.tiles, dim=0)

    @property
    def direct(self) -> bool:
        """Whether rings can be refined on their own: one tile, the image itself, diagonal operator."""
        return self.diagonal and isinstance(self.geometry, Direct)


def pose(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior,
    sigma: Tensor,
    *,
    fit: str = "canvas",
    overlap: int | None = None,
    iterations: int = 8,
    tolerance: float = TOLERANCE,
    force_general: bool = False,
    seed: int = 0,
    shift: tuple[int, int] = (0, 0),
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
    fit : {"canvas", "field-of-view"}
        How an image of another size than the prior's is made of tiles.
    overlap : int, optional
        Smallest overlap of a canvas's tiles; a quarter of the tile by default.
    iterations : int
        Conjugate-gradient iterations a step on the general path.
    tolerance : float
        Where other conjugate-gradient solves end, in nats per pixel.
    force_general : bool
        Take the general path for a diagonal operator too (for checks).
    seed : int
        Seed of the probes.
    shift : (int, int)
        Solve for the image that has to be moved by so many pixels, circularly, to be the measured one; ``crop``
        moves it.
    """
    size = prior.spectrum.size
    height, width = operator.in_shape[1:]
    geometry: Geometry
    grid = (height, width)
    if grid == (size, size):
        geometry = Direct(size)
    elif fit == "field-of-view":
        geometry = FieldOfView(size, grid)
    else:
        grid = (max(height, size), max(width, size))
        geometry = Canvas(size, grid, size // 4 if overlap is None else overlap)
    on_grid = operator
    crop: Callable[[Tensor], Tensor] = _same
    if shift != (0, 0):
        moving = CircularShift(shift, operator.in_shape, operator.in_dtype).to(y.device)
        on_grid, crop = operator @ moving, moving.forward
    if grid != (height, width):
        cropping = Crop((operator.in_shape[0], *grid), (height, width), operator.in_dtype)
        on_grid, crop = on_grid @ cropping, _after(crop, cropping.forward)
    power = geometry.per_bin(prior.power)
    sigma_x = prior.sigma_x
    ring_variance = sigma_x.square()[..., _ring_map(prior)]
    variance = geometry.per_bin(ring_variance)
    transfer = None if force_general else on_grid.transfer()
    rings, counts = (t.to(y.device) for t in geometry.rings(prior.spectrum))
    if transfer is not None:
        folded = fold(
            on_grid.to_grid(y),
            transfer.to(y.device),
            sigma.reshape(-1, 1, 1, 1),
            real_image=not on_grid.is_complex,
            complex_noise=y.is_complex(),
        )
        gain = gain_diagonal(folded, power)
        g = gain.reshape(-1, 1, 1, 1)
        scaled = Folded(folded.value / g, folded.variance / g.square())
        rho = power / (power + scaled.variance)
        estimate = ifft2(rho * scaled.value)
        image = estimate if on_grid.is_complex else estimate.real
        profile = _profile(rho, rings, counts)
        # any bin of the ring whose evidence outweighs the prior
        strongest = torch.stack([_peak(rho, rings == i) for i in range(len(prior.spectrum.scales))], dim=-1)
        data: DataModel = DiagonalData(scaled, on_grid.is_complex)
    else:
        gain = gain_general(on_grid, y, sigma, power)
        scaled_y = y / gain.reshape(-1, *([1] * (y.ndim - 1)))
        general = GeneralData(on_grid, scaled_y, sigma / gain, iterations, tolerance)
        image = general.posterior_mean(torch.zeros_like(general.backprojection), power)
        profile = _probed_profile(operator, on_grid, general.sigma, y, power, rings, counts, seed)
        strongest = profile[:, 1].sqrt()
        data = general
    levels = torch.arange(len(prior.spectrum.scales), device=y.device)
    stop = torch.where(strongest > 0.5, levels, torch.zeros_like(levels)).amax(dim=-1)
    seen = Evidence(geometry.cut(image), profile.repeat_interleave(geometry.tiles, dim=0))
    answer = None if transfer is not None else partial(response, operator, on_grid, y, rings, counts, seed)
    return Problem(geometry, data, variance, seen, gain, stop, crop, transfer is not None, power, rings, counts, answer)


def _same(x: Tensor) -> Tensor:
    return x


def _after(second: Callable[[Tensor], Tensor], first: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def _ring_map(prior: Prior) -> Tensor:
    return ring_index(prior.spectrum.size).to(prior.device)


def _profile(rho: Tensor, rings: Tensor, counts: Tensor) -> Tensor:
    """Evidence profile ``(B, 2, S)`` of weights ``(B, C, H, W)`` on the image grid."""
    means = torch.stack([_ring_means(rho, rings, counts), _ring_means(rho.square(), rings, counts)], dim=-2)
    return means.mean(dim=1)


def _ring_means(values: Tensor, rings: Tensor, counts: Tensor) -> Tensor:
    return ring_sums(values, rings, len(counts)) / counts.to(values.dtype)


def _peak(rho: Tensor, inside: Tensor) -> Tensor:
    values = rho[..., inside]
    return values.flatten(1).amax(1) if values.numel() else rho.new_zeros(len(rho))


_PROFILES: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[object, ...], Tensor]] = weakref.WeakKeyDictionary()


def _probed_profile(
    operator: LinearOperator,
    on_grid: LinearOperator,
    sigma: Tensor,
    y: Tensor,
    power: Tensor,
    rings: Tensor,
    counts: Tensor,
    seed: int,
) -> Tensor:
    """Evidence profile ``(B, 2, S)`` by ring-limited Hutchinson probes of the Wiener estimate's resolution matrix.

    A probe has unit magnitudes and random phases in one ring. The noise level is rounded to 5 %, so that images
    of a batch, and later calls with the same ``operator``, share probes; ``on_grid``, the same on the image grid, is
    another object in every call.
    """
    cache = _PROFILES.setdefault(operator, {})
    levels = [round(math.log(float(s)) / math.log(1.05)) for s in sigma]
    base = (str(y.device), y.dtype, tuple(power.shape[-2:]), float(power.sum()), seed)
    for level in sorted(set(levels)):
        if (*base, level) not in cache:
            cache[(*base, level)] = _probe(on_grid, 1.05**level, y, power, rings, counts, seed)
    return torch.stack([cache[(*base, level)] for level in levels])


def _probe(
    operator: LinearOperator, sigma: float, y: Tensor, power: Tensor, rings: Tensor, counts: Tensor, seed: int
) -> Tensor:
    count = len(counts)
    spectra, probes = ring_probes(operator, rings, count, seed)
    data = GeneralData(operator, operator(probes), torch.full((count,), sigma, device=y.device))
    answer = fft2(data.posterior_mean(torch.zeros_like(probes), power))
    channels = spectra.shape[1]
    sizes = counts.to(power.dtype) * channels
    mean = ((spectra.conj() * answer).real.flatten(1).sum(1) / sizes).clamp(0, 1)
    square = ((answer.abs().square() * (spectra != 0)).flatten(1).sum(1) / sizes).clamp(0, 1)
    return torch.stack([mean, torch.maximum(square, mean.square())])
