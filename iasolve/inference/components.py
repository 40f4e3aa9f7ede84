"""What a decoded image leaves unexplained, ring by ring, seen through an operator that is not diagonal.

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

from iasolve.inference.data import white_noise
from iasolve.inference.general_data import GeneralData
from iasolve.inference.rings import ring_probes, ring_sums
from iasolve.operators.base import LinearOperator, as_declared
from iasolve.spectrum import fft2

__all__ = ["RingResponse", "response", "surplus_of_rings"]


Array = NDArray[np.float64]


class RingResponse(NamedTuple):
    """``energy``: ``M``, ``(S, S)``; ``noise``: ``n``, ``(S,)``; ``freedom``: independent real values of ``q_s``."""

    energy: Tensor
    noise: Tensor
    freedom: Tensor


_RESPONSES: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[object, ...], RingResponse]]
_RESPONSES = weakref.WeakKeyDictionary()


def response(
    operator: LinearOperator, on_grid: LinearOperator, y: Tensor, rings: Tensor, counts: Tensor, seed: int
) -> RingResponse:
    """Probe an operator, or remember what it answered.

    Parameters
    ----------
    operator, on_grid : LinearOperator
        The user's, which remembers, and the same from the image grid.
    y : Tensor
        ``(B, *out_shape)``, for its kind.
    rings, counts : Tensor
        Of the image grid.
    seed : int
        Of the probes.
    """
    cache = _RESPONSES.setdefault(operator, {})
    key = (str(y.device), y.dtype, tuple(rings.shape), counts.sum().item(), seed)
    if key not in cache:
        cache[key] = _probe(on_grid, y, rings, counts, seed)
    return cache[key]


def _probe(operator: LinearOperator, y: Tensor, rings: Tensor, counts: Tensor, seed: int) -> RingResponse:
    spectra, probes = ring_probes(operator, rings, len(counts), seed)
    answers = fft2(as_declared(operator.gram(probes), operator.in_dtype))
    energy = _ring_energy(answers, rings, len(counts)).T
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=y.real.dtype).to(y.device)

    heard = operator.adjoint(white_noise(draw, tuple(y.shape[1:]), y.is_complex())[None])
    noise = _ring_energy(fft2(as_declared(heard, operator.in_dtype)), rings, len(counts))[0]
    # participation ratio: as many values as an operator with equal gains in so many directions would let through
    traces = (spectra.conj() * answers).real.double().flatten(1).sum(1)
    freedom = traces.square() / energy.sum(1).clamp_min(torch.finfo(energy.dtype).tiny)
    return RingResponse(energy, noise, freedom * (2.0 if operator.is_complex else 1.0))


def surplus_of_rings(data: GeneralData, image: Tensor, usual: Tensor, answer: RingResponse, rings: Tensor) -> Tensor:
    """What the residual shows beyond ``usual`` ``(S,)``, the variance of each ring's bins: ``(B, S)``, 0 or more.

    One standard error less than estimated, as for diagonal operators: chance alone should raise no ring.
    """
    residual = data.residual(image)
    found = _ring_energy(fft2(residual), rings, len(usual)).cpu().numpy()
    sigma2 = data.sigma.double().square().cpu().numpy()
    energy, noise, freedom = (t.cpu().numpy() for t in answer)
    base = usual.double().cpu().numpy()
    expected = energy @ base + sigma2[:, None] * noise
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


def _ring_energy(spectrum: Tensor, rings: Tensor, count: int) -> Tensor:
    """Squares ``(B, C, H, W)`` summed over channels and a ring's bins, ``(B, S)``, in double: they scale as ``A^4``."""
    return ring_sums(spectrum.abs().double().square().sum(1), rings, count)
