"""Coil compression: many coils combined into few that hold almost all of the signal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import as_tensor

__all__ = ["CompressedCoils", "compress_coils"]


class CompressedCoils(NamedTuple):
    """Compressed k-space.

    Attributes
    ----------
    kspace : Tensor
        ``(..., count, H, W)``: ``matrix`` times the coils; unsampled entries stay 0.
    matrix : Tensor
        ``(count, coils)`` with orthonormal rows, so that white noise stays white with the same level; for
        ``SensitivityEncoding.mixed`` where maps of the full coils are known.
    energy : float
        Fraction of the energy that is kept, in [0, 1].
    """

    kspace: Tensor
    matrix: Tensor
    energy: float


def compress_coils(kspace: Tensor | np.ndarray, count: int) -> CompressedCoils:
    """Combine coils into ``count`` virtual ones by principal components (Buehrer et al. 2007, Huang et al. 2008).

    With ``Y`` the ``(coils, positions)`` matrix of all samples and ``Y = U S V^H``, the combination is the first
    ``count`` rows of ``U^H``: of all unitary combinations the one that keeps the most energy,
    ``sum_{i < count} S_i^2 / sum_i S_i^2``. Where noise is correlated between coils or differs in level, whiten first
    (:class:`~iasolve.operators.coil_noise.CoilNoise`): then energy is counted in units of the noise.

    Parameters
    ----------
    kspace : Tensor or array
        ``(..., coils, H, W)`` complex, unsampled entries 0, all coils sampled at the same places; leading
        dimensions, such as slices, share one combination.
    count : int
        Number of virtual coils, at most as many as there are coils.

    Raises
    ------
    ValueError
        For data of another form, an impossible count, or k-space that is 0 everywhere or not finite.

    Examples
    --------
    >>> one = torch.randn(1, 16, 16, dtype=torch.complex64)
    >>> found = compress_coils(one * torch.tensor([1, 2j, -1])[:, None, None], 1)
    >>> found.kspace.shape, round(found.energy, 4)
    (torch.Size([1, 16, 16]), 1.0)
    """
    values = as_tensor(kspace)
    if values.ndim < 3 or not values.is_complex():
        raise ValueError(f"coil data must be complex (..., coils, H, W), got {tuple(values.shape)}, {values.dtype}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("k-space holds NaN or infinite values: replace or mask them first")
    coils = values.shape[-3]
    if not 1 <= count <= coils:
        raise ValueError(
            f"the number of virtual coils must lie between 1 and {coils}, the number of coils, got {count}"
        )
    flat = values.movedim(-3, 0).flatten(1)
    # the coils x coils Gram matrix: the samples are far too many for a singular value decomposition
    power, vectors = torch.linalg.eigh((flat @ flat.mH).to(torch.complex128))
    power, vectors = power.flip(0).clamp_min(0), vectors.flip(1)
    if not float(power.sum()) > 0:
        raise ValueError("k-space must hold finite values that are not all 0: there is nothing to compress")
    # an eigenvector's phase is arbitrary: its largest entry is made real and positive, so that results repeat
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    matrix = (vectors * torch.sgn(largest).conj()).mH[:count].to(values.dtype)
    mixed = torch.einsum("dc,...chw->...dhw", matrix, values)
    return CompressedCoils(mixed, matrix, float(power[:count].sum() / power.sum()))
