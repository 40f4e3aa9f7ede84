"""Rings of an image grid, probed: what an operator that is not diagonal makes of each, and what it leaves unexplained.

With ``x = x0 + e``, ``e`` white within each ring and of variance ``V_t`` a bin there, the back-projected residual
``b = A^H (y - A x0)`` has in ring ``s`` the expected energy::

    E q_s = sum_t M_st V_t + sigma^2 n_s,    M_st = E |P_s A^H A e_t|^2,  n_s = E |P_s A^H n|^2

with unit ``e_t`` and ``n``. Both are the operator's own: one probe a ring and one of noise tell them, once. The
``V_t`` that explain the ``q_s`` best, none of them below the training set's, are a small non-negative least-squares
problem: a moment estimator of variance components.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_declared
from iasolve.spectrum import RingGrid, fft2, ifft2

__all__ = ["RingResponse", "response", "ring_probes", "surplus_of_rings", "unit_phases"]


Array = NDArray[np.float64]


def unit_phases(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Spectrum ``(1, *shape)`` of unit magnitudes and random phases, Hermitian when ``like`` is real."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex64 if like.is_complex() else torch.float32
    h = fft2(torch.randn((1, *shape), generator=generator, dtype=dtype))
    return (h / h.abs().clamp_min(1e-20)).to(like.device)


def ring_probes(operator: LinearOperator, rings: RingGrid, seed: int = 0) -> tuple[Tensor, Tensor]:
    """For each ring a spectrum ``(S, C, H, W)`` of unit magnitudes and random phases there, 0 elsewhere; its image."""
    like = torch.zeros(1, dtype=torch.promote_types(operator.in_dtype, torch.float32), device=rings.owner.device)
    masks = torch.stack([rings.owner == i for i in range(len(rings.counts))])[:, None]
    spectra = masks * unit_phases(operator.in_shape, seed, like)
    images = ifft2(spectra)
    return spectra, images if operator.is_complex else images.real


class RingResponse(NamedTuple):
    """``energy``: ``M``, ``(S, S)``; ``noise``: ``n``, ``(S,)``; ``freedom``: independent real values of ``q_s``."""

    energy: Tensor
    noise: Tensor
    freedom: Tensor


_RESPONSES: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[object, ...], RingResponse]]
_RESPONSES = weakref.WeakKeyDictionary()


def response(
    operator: LinearOperator, on_grid: LinearOperator, y: Tensor, rings: RingGrid, seed: int = 0
) -> RingResponse:
    """Probe an operator, or remember what it answered.

    Parameters
    ----------
    operator, on_grid : LinearOperator
        The user's, which remembers, and the same from the image grid.
    y : Tensor
        ``(B, *out_shape)``, for its kind.
    rings : RingGrid
    seed : int
        Of the probes; what they tell is remembered, and does not depend on a solution's seed.
    """
    cache = _RESPONSES.setdefault(operator, {})
    key = (str(y.device), y.dtype, tuple(rings.owner.shape), rings.counts.sum().item(), seed)
    if key not in cache:
        cache[key] = _probe(on_grid, y, rings, seed)
    return cache[key]


def _probe(operator: LinearOperator, y: Tensor, rings: RingGrid, seed: int) -> RingResponse:
    spectra, probes = ring_probes(operator, rings, seed)
    answers = fft2(as_declared(operator.gram(probes), operator.in_dtype))
    energy = _ring_energy(answers, rings).T
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=y.real.dtype).to(y.device)

    shape = tuple(y.shape[1:])
    white = torch.complex(draw(shape), draw(shape)) / 2**0.5 if y.is_complex() else draw(shape)
    heard = operator.adjoint(white[None])
    noise = _ring_energy(fft2(as_declared(heard, operator.in_dtype)), rings)[0]
    # participation ratio: as many values as an operator with equal gains in so many directions would let through
    traces = (spectra.conj() * answers).real.double().flatten(1).sum(1)
    freedom = traces.square() / energy.sum(1).clamp_min(torch.finfo(energy.dtype).tiny)
    return RingResponse(energy, noise, freedom * (2.0 if operator.is_complex else 1.0))


def surplus_of_rings(residual: Tensor, sigma: Tensor, usual: Tensor, answer: RingResponse, rings: RingGrid) -> Tensor:
    """What a back-projected ``residual`` shows beyond ``usual`` ``(S,)``, the variance of each ring's bins: ``(B, S)``.

    One standard error less than estimated, as for diagonal operators: chance alone should raise no ring.
    """
    found = _ring_energy(fft2(residual), rings).cpu().numpy()
    sigma2 = sigma.double().square().cpu().numpy()
    energy, noise, freedom = (t.cpu().numpy() for t in answer)
    base = usual.double().cpu().numpy()
    expected = base @ energy.T + sigma2[:, None] * noise
    if not np.isfinite(found).all():  # the solution is not finite either, and said to be so
        return torch.zeros(found.shape).to(usual)
    levels = np.stack([_components(q - e, q + e, energy, freedom) for q, e in zip(found, expected, strict=True)])
    return torch.from_numpy(levels).to(usual)


def _components(surplus: Array, size: Array, energy: Array, freedom: Array) -> Array:
    """``argmin |(energy d - surplus) / error|`` over ``d >= 0``, less one standard error."""
    from scipy.optimize import nnls

    seen = freedom > 1
    if not seen.any():
        return np.zeros(len(surplus))
    # a sum of squares of n normal values has a relative error of sqrt(2 / n)
    error = np.sqrt(2 / freedom[seen]) * size[seen] / 2
    error = np.maximum(error, 1e-12 * error.max() + np.finfo(float).tiny)
    scaled = energy[np.ix_(seen, seen)] / error[:, None]
    unit = np.maximum(np.sqrt((scaled**2).sum(0)), np.finfo(float).tiny)
    best, _ = nnls(scaled / unit, surplus[seen] / error)
    spread = np.sqrt(np.diag(np.linalg.pinv((scaled / unit).T @ (scaled / unit))))
    out = np.zeros(len(surplus))
    out[seen] = np.maximum(best - spread, 0) / unit
    return out


def _ring_energy(spectrum: Tensor, rings: RingGrid) -> Tensor:
    """Squares ``(B, C, H, W)`` summed over channels and a ring's bins, ``(B, S)``, in double: they scale as ``A^4``."""
    return rings.sums(spectrum.abs().double().square().sum(1))
