"""Noise that is correlated between receive coils, and its covariance from noise-only data."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.coils import SensitivityEncoding
from iasolve.operators.noise import GaussianNoise, Whitened
from iasolve.operators.whitening import CoilMixing

__all__ = ["CoilNoise", "estimate_covariance", "outermost_samples"]


class CoilNoise:
    """Complex Gaussian noise, correlated between coils and independent from one k-space position to the next.

    At each position the noise vector has ``E[n n^H] = covariance`` and is circular. ``sigma^2 I`` is
    ``GaussianNoise(sigma)``. Prewhitening (Pruessmann et al. 2001, Magn. Reson. Med. 46:638): with the Cholesky
    factor ``covariance = L L^H``, ``L^-1 n`` is white of unit level.

    Parameters
    ----------
    covariance : Tensor or array
        ``(coils, coils)``, Hermitian, positive definite, in the measurement's units squared.

    Attributes
    ----------
    covariance, whitening : Tensor
        ``(coils, coils)`` complex128; ``whitening = L^-1``, lower triangular.

    Raises
    ------
    ValueError
        When the covariance is not square, Hermitian and positive definite.

    Examples
    --------
    >>> noise = CoilNoise(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> y = noise.sample(torch.zeros(2, 64, 64, dtype=torch.complex64), torch.Generator().manual_seed(0))
    >>> covariance = estimate_covariance(noise.whiten(y))
    >>> bool((covariance - torch.eye(2)).abs().max() < 0.1)
    True
    """

    def __init__(self, covariance: Tensor | np.ndarray) -> None:
        values = as_tensor(covariance).to(torch.complex128)
        if values.ndim != 2 or values.shape[0] != values.shape[1]:
            raise ValueError(f"a coil covariance must be (coils, coils), got shape {tuple(values.shape)}")
        size = float(values.abs().max())
        if not float((values - values.mH).abs().max()) <= 1e-5 * size:
            raise ValueError("a coil covariance must be Hermitian and finite: E[n n^H], not E[n n^T]")
        values = (values + values.mH) / 2
        eigenvalues = torch.linalg.eigvalsh(values)
        if not float(eigenvalues[0]) > 1e-12 * float(eigenvalues[-1]):
            raise ValueError(
                f"the coil covariance is singular (eigenvalues from {float(eigenvalues[0]):.3g} to "
                f"{float(eigenvalues[-1]):.3g}): drop coils that hold no noise or depend on others, or estimate it "
                "from more samples than coils"
            )
        self.covariance = values
        self.factor = torch.linalg.cholesky(values)
        identity = torch.eye(len(values), dtype=values.dtype, device=values.device)
        self.whitening = torch.linalg.solve_triangular(self.factor, identity, upper=False)

    def __repr__(self) -> str:
        return f"CoilNoise({len(self.covariance)} coils, sigma {self.sigma:.4g})"

    @property
    def sigma(self) -> float:
        """Root mean square of a noise value over all coils."""
        return math.sqrt(float(self.covariance.diagonal().real.mean()))

    def sample(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``clean + L e`` with white ``e``; ``clean`` is ``(..., coils, H, W)`` complex."""
        white = torch.randn(clean.shape, dtype=clean.dtype, device=clean.device, generator=generator)
        return clean + self._mixing(self.factor, clean)(white)

    def whiten(self, y: Tensor) -> Tensor:
        """``L^-1 y``: unit white noise; ``y`` is ``(..., coils, H, W)`` complex."""
        mixed: Tensor = self._mixing(self.whitening, y)(y)
        return mixed

    def whitened(self, y: Tensor, operator: LinearOperator) -> Whitened:
        """``L^-1 y`` and ``L^-1 A``; unit white noise.

        A :class:`~iasolve.operators.SensitivityEncoding` gets whitened maps and costs no more than before; any other
        operator is followed by a mixture of coils. All coils must be sampled at the same places, or the mixture's
        noise is not white.

        Raises
        ------
        ValueError
            When the coils' numbers differ, or each coil has its own mask.
        """
        if isinstance(operator, SensitivityEncoding):
            return Whitened(self.whiten(y), operator.mixed(self.whitening), GaussianNoise(1.0))
        if len(operator.out_shape) != 3 or not operator.out_dtype.is_complex:
            raise ValueError(
                f"coil noise is of complex (coils, H, W) data, the operator puts out {operator.out_shape}, "
                f"{operator.out_dtype}"
            )
        self._check(operator.out_shape)
        mixing = CoilMixing(self.whitening, operator.out_shape, operator.out_dtype, basis=operator.codomain)
        mixing = mixing.to(y.device)
        return Whitened(mixing(y), mixing @ operator, GaussianNoise(1.0))

    def _mixing(self, matrix: Tensor, like: Tensor) -> CoilMixing:
        if not like.is_complex():
            raise ValueError(f"coil noise is complex, got values of {like.dtype}")
        self._check(tuple(like.shape))
        return CoilMixing(matrix.to(like.device), tuple(like.shape[-3:]), like.dtype)

    def _check(self, shape: tuple[int, ...]) -> None:
        coils = len(self.covariance)
        if len(shape) < 3 or shape[-3] != coils:
            raise ValueError(f"the values have shape {shape}, expected (..., {coils}, H, W): {coils} coils")


def estimate_covariance(samples: Tensor | np.ndarray) -> Tensor:
    """Coil covariance ``mean n n^H`` of noise-only data.

    Parameters
    ----------
    samples : Tensor or array
        ``(coils, ...)`` complex: a noise scan, or k-space positions where the object does not reach; at least as many
        positions as coils, better a hundred times as many (the relative error is ``1 / sqrt(positions)``).

    Returns
    -------
    Tensor
        ``(coils, coils)`` complex128, Hermitian.

    Raises
    ------
    ValueError
        For real or not finite data, or fewer positions than coils.

    Examples
    --------
    >>> import torch
    >>> samples = torch.randn(2, 1000, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    >>> covariance = estimate_covariance(samples)
    >>> bool((covariance - torch.eye(2)).abs().max() < 0.15)
    True
    """
    values = as_tensor(samples)
    if values.ndim < 2 or not values.is_complex():
        raise ValueError(f"noise samples must be complex (coils, ...), got shape {tuple(values.shape)}, {values.dtype}")
    flat = values.flatten(1).to(torch.complex128)
    coils, count = flat.shape
    if count < coils:
        raise ValueError(f"a covariance of {coils} coils needs at least {coils} noise samples of each, got {count}")
    if not bool(torch.isfinite(flat.abs()).all()):
        raise ValueError("the noise samples hold NaN or infinite values")
    return flat @ flat.mH / count


def outermost_samples(kspace: Tensor | np.ndarray, fraction: float = 0.05) -> Tensor:
    """The sampled positions farthest from the zero frequency, where noise prevails: a stand-in for a noise scan.

    What signal reaches there adds to the covariance, which is then an upper bound.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` complex, DC in the middle, unsampled entries 0, all coils sampled at the same places.
    fraction : float
        Fraction of the sampled positions, in (0, 1].

    Returns
    -------
    Tensor
        ``(coils, positions)``, for :func:`estimate_covariance`.

    Raises
    ------
    ValueError
        For data of another form, an impossible fraction, or k-space without samples.

    Examples
    --------
    >>> import torch
    >>> outermost_samples(torch.ones(8, 64, 64, dtype=torch.complex64)).shape[0]
    8
    """
    values = as_tensor(kspace)
    if values.ndim != 3 or not values.is_complex():
        raise ValueError(f"k-space must be complex (coils, H, W), got shape {tuple(values.shape)}, {values.dtype}")
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of positions must lie in (0, 1], got {fraction}")
    rows, columns = torch.nonzero((values != 0).any(0), as_tuple=True)
    if not len(rows):
        raise ValueError("k-space holds no sampled position: every entry is 0")
    height, width = values.shape[-2:]
    distance = ((rows - height // 2) / height).square() + ((columns - width // 2) / width).square()
    farthest = distance.topk(max(1, round(fraction * len(rows)))).indices
    return values[:, rows[farthest], columns[farthest]]
