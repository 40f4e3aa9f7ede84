"""Ridge regression of the bins that were not measured from those that were, for real images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.spectrum import fft2, reflect

__all__ = ["RidgeFromBins"]


class RidgeFromBins:
    """Linear regression from a few measured Fourier bins to the whole image.

    ``image = mean + (f - mean_f) W`` with ``f`` the real and imaginary parts of the bins (one of each pair
    ``k, -k``, no imaginary part where ``k = -k``), and ``W`` the minimiser of the *expected* squared error
    over the training images and over measurement noise::

        W = (C_ff + N + ridge * mean(diag C_ff) I)^-1 C_fx

    with ``C`` the training set's covariances and ``N`` the noise's, diagonal. No noise is drawn. Normal
    equations in float64. Made by :meth:`fit` or :meth:`choose`.

    Attributes
    ----------
    bins_mask : Tensor
        ``(H, W)`` bool, the bins read by :meth:`predict`.
    ridge : float
        Regularisation, in units of the mean variance of a feature.
    validation_mse : dict of float to float
        Expected mean squared error of every ridge that :meth:`choose` tried; empty after :meth:`fit`.

    Examples
    --------
    Images that are the same ramp, of different strength: a few low frequencies tell all of it.

    >>> ramp = torch.arange(16.0).expand(16, 16)
    >>> images = torch.linspace(0.5, 2, 8)[:, None, None] * ramp
    >>> low = (torch.fft.fftfreq(16).abs() < 0.1)[:, None] & (torch.fft.fftfreq(16).abs() < 0.1)
    >>> ridge = RidgeFromBins.fit(images, low, noise_sigma=1e-3, ridge=1e-6)
    >>> predicted = ridge.predict(torch.fft.fft2(3 * ramp, norm="ortho"))
    >>> bool((predicted - 3 * ramp).abs().max() < 0.01)
    True
    """

    def __init__(self, bins_mask: Tensor, moments: _Moments, matrix: Tensor, ridge: float) -> None:
        self.bins_mask = bins_mask
        self.ridge = ridge
        self.validation_mse: dict[float, float] = {}
        self._bins = _half_bins(bins_mask)
        self._mean, self._mean_features, self._matrix = moments.mean, moments.mean_features, matrix

    def __repr__(self) -> str:
        grid = tuple(self.bins_mask.shape)
        return f"RidgeFromBins({int(self.bins_mask.sum())} bins, grid={grid}, ridge={self.ridge})"

    @classmethod
    def fit(cls, images: Tensor, bins_mask: Tensor, noise_sigma: float, ridge: float) -> RidgeFromBins:
        """Fit on training images.

        Parameters
        ----------
        images : Tensor
            ``(M, H, W)``, real, ``M >= 2``; read in blocks, so float16 or float32 are fine for large sets.
        bins_mask : Tensor
            ``(H, W)`` bool on the unshifted full grid, closed under ``k -> -k``.
        noise_sigma : float
            Noise level ``Lambda ** -0.5`` of the folded bins (for real white noise in the image: its standard
            deviation; for complex k-space noise of RMS ``s`` at both ``k`` and ``-k``: ``s / sqrt(2)``).
        ridge : float
            Non-negative.

        Raises
        ------
        ValueError
            On shapes that do not fit, a mask that is empty or not symmetric, a negative or non-finite number,
            or a singular system (``ridge = 0`` without noise).
        """
        _check_non_negative(noise_sigma=noise_sigma, ridge=ridge)
        return cls._solve(_moments(images, bins_mask), bins_mask, noise_sigma, ridge)

    @classmethod
    def choose(
        cls,
        images: Tensor,
        validation: Tensor,
        bins_mask: Tensor,
        noise_sigma: float,
        ridges: Sequence[float],
    ) -> RidgeFromBins:
        """Fit with the one of ``ridges`` whose expected squared error on ``validation`` images is least.

        The other parameters and the errors are those of :meth:`fit`; ``validation`` is ``(M', H, W)``. Look
        at ``validation_mse`` to see whether the best lies inside the range tried.
        """
        if not len(ridges):
            raise ValueError("ridges is empty")
        for ridge in ridges:
            _check_non_negative(noise_sigma=noise_sigma, ridge=ridge)
        moments = _moments(images, bins_mask)
        if validation.shape[1:] != images.shape[1:] or not len(validation):
            shapes = f"images {tuple(images.shape)}, validation {tuple(validation.shape)}"
            raise ValueError(f"images and validation must share a grid: {shapes}")
        bins = _half_bins(bins_mask)
        noise = _noise_variances(bins, noise_sigma, moments.mean)
        best: RidgeFromBins | None = None
        scores: dict[float, float] = {}
        for ridge in ridges:
            model = cls._solve(moments, bins_mask, noise_sigma, ridge)
            error = 0.0
            for block in _blocks(validation):
                error += float((model._apply(_features(block, bins)) - block.flatten(1)).square().sum())
            scores[ridge] = error / validation.numel() + float(noise @ model._matrix.square().mean(1))
            if best is None or scores[ridge] < scores[best.ridge]:
                best = model
        assert best is not None
        best.validation_mse = scores
        return best

    @classmethod
    def _solve(cls, moments: _Moments, bins_mask: Tensor, noise_sigma: float, ridge: float) -> RidgeFromBins:
        variances = moments.covariance.diagonal()
        system = moments.covariance + torch.diag(
            _noise_variances(_half_bins(bins_mask), noise_sigma, variances) + ridge * variances.mean()
        )
        factor, info = torch.linalg.cholesky_ex(system)
        if int(info) or float(factor.diagonal().min()) ** 2 <= 1e-13 * float(variances.max()):
            raise ValueError("the normal equations are singular: give a positive ridge")
        matrix = torch.cholesky_solve(moments.cross, factor)
        return cls(bins_mask, moments, matrix, ridge)

    def _apply(self, features: Tensor) -> Tensor:
        return torch.addmm(self._mean, features - self._mean_features, self._matrix)

    def predict(self, folded: Tensor) -> Tensor:
        """Images from folded spectra.

        Parameters
        ----------
        folded : Tensor
            ``(..., H, W)``, complex, unshifted full grid; only the bins of ``bins_mask`` are read.

        Returns
        -------
        Tensor
            ``(..., H, W)``, float32 for complex64, float64 for complex128.

        Raises
        ------
        ValueError
            If the grid is not the one fitted (both shapes are named).
        """
        if folded.shape[-2:] != self.bins_mask.shape or not folded.is_complex():
            grid = tuple(self.bins_mask.shape)
            raise ValueError(f"folded {tuple(folded.shape)} {folded.dtype} must be complex on the grid {grid}")
        flat = folded.reshape(-1, *folded.shape[-2:]).to(torch.complex128)
        image = self._apply(_select(flat, self._bins))
        return image.reshape(folded.shape).to(folded.real.dtype)


class _Moments(NamedTuple):
    mean: Tensor  # (H * W,)
    mean_features: Tensor  # (F,)
    covariance: Tensor  # (F, F)
    cross: Tensor  # (F, H * W)


class _Bins(NamedTuple):
    paired: Tensor  # flat positions, one of each k, -k
    own: Tensor  # flat positions with k = -k: real numbers


def _half_bins(bins_mask: Tensor) -> _Bins:
    position = torch.arange(bins_mask.numel(), device=bins_mask.device).reshape(bins_mask.shape)
    mirror = reflect(position)
    return _Bins(position[bins_mask & (position < mirror)], position[bins_mask & (position == mirror)])


def _select(spectrum: Tensor, bins: _Bins) -> Tensor:
    """Real features ``(B, F)`` of full-grid spectra ``(B, H, W)``."""
    flat = spectrum.flatten(1)
    paired = flat[:, bins.paired]
    return torch.cat([flat[:, bins.own].real, paired.real, paired.imag], dim=1)


def _features(images: Tensor, bins: _Bins) -> Tensor:
    return _select(fft2(images), bins)


def _noise_variances(bins: _Bins, sigma: float, like: Tensor) -> Tensor:
    own = torch.full((len(bins.own),), sigma**2)
    return torch.cat([own, torch.full((2 * len(bins.paired),), sigma**2 / 2)]).to(like)


def _check_non_negative(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and non-negative, got {value}")


def _blocks(images: Tensor) -> Iterator[Tensor]:
    for i in range(0, len(images), 256):
        yield images[i : i + 256].double()


def _moments(images: Tensor, bins_mask: Tensor) -> _Moments:
    shapes = f"images {tuple(images.shape)}, bins_mask {tuple(bins_mask.shape)}"
    if images.ndim != 3 or images.is_complex() or images.shape[1:] != bins_mask.shape or len(images) < 2:
        raise ValueError(f"need at least two real images (M, H, W) and a mask (H, W): {shapes}")
    if bins_mask.dtype != torch.bool:
        raise ValueError(f"bins_mask must be boolean, got {bins_mask.dtype}")
    if not bool(bins_mask.any()) or not torch.equal(bins_mask, reflect(bins_mask)):
        raise ValueError("bins_mask must not be empty, and closed under k -> -k")
    bins = _half_bins(bins_mask)
    # Two passes: the bins next to DC have means far above their spread.
    mean = torch.zeros(images.shape[1:], dtype=torch.float64, device=images.device)
    for block in _blocks(images):
        mean += block.sum(0) / len(images)
    mean_features = _features(mean[None], bins)[0]
    size = len(mean_features)
    covariance, cross = mean.new_zeros(size, size), mean.new_zeros(size, mean.numel())
    for block in _blocks(images):
        centred = block - mean
        features = _features(centred, bins)
        covariance += features.T @ features / len(images)
        cross += features.T @ centred.flatten(1) / len(images)
    return _Moments(mean.flatten(), mean_features, covariance, cross)
