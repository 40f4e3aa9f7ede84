"""Classical solvers to compare with: Wiener, total variation, ridge regression, and two denoisers.

The first three serve *real images and operators that are diagonal in Fourier space*. They take a
measurement after folding: per bin of the unshifted full grid a precision ``Lambda_k >= 0`` (0 where nothing
was measured, ``inf`` where the measurement is exact) and a folded spectrum ``y^_k`` with
``y^_{-k} = conj(y^_k)``, so that with ``h = fft2(x)`` (orthonormal) the negative log likelihood is::

    1/2 * sum over the full grid of Lambda_k |h_k - y^_k|^2

The total-variation weight stands *against this sum*, which is already divided by the noise variance. So it
belongs to the prior, in units of one over the image's: it says how steeply gradients are penalised, and does
not shrink with the noise by itself. (Code that minimises ``1/2 |x - y|^2 + tau TV(x)`` has
``tau = sigma^2 * weight``.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.spectrum import fft2, reflect

__all__ = [
    "RidgeFromBins",
    "TotalVariationResult",
    "nonlocal_means",
    "total_variation",
    "wavelet_denoise",
    "wiener",
]

_CHECK_EVERY = 10  # residuals cost about half an iteration
_ADAPT_UNTIL = 300  # with a penalty that stays put from here on, convergence is ADMM's textbook theorem
_RELAXATION = 1.8
_BALANCE = 0.4  # relative primal over dual residual to aim at: 0.3 to 0.5 measured best, 1 is 30 % slower


class _Folded(NamedTuple):
    """A checked measurement as a batch of half grids ``(B, H, W // 2 + 1)``."""

    precision: Tensor
    spectrum: Tensor
    shape: torch.Size  # of the image, leading dimensions included

    @property
    def grid(self) -> tuple[int, int]:
        return self.shape[-2], self.shape[-1]


def _check_folded(precision: Tensor, folded: Tensor) -> _Folded:
    shapes = f"precision {tuple(precision.shape)}, folded {tuple(folded.shape)}"
    if precision.is_complex() or not folded.is_complex():
        raise ValueError(f"need a real precision and complex folded, got {precision.dtype}, {folded.dtype}")
    if folded.ndim < 2 or precision.shape[-2:] != folded.shape[-2:] or 0 in folded.shape:
        raise ValueError(f"precision and folded must share a non-empty full grid (..., H, W): {shapes}")
    try:
        shape: torch.Size = torch.broadcast_shapes(precision.shape, folded.shape)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ValueError(f"the leading dimensions do not broadcast: {shapes}") from error
    dtype = torch.promote_types(torch.promote_types(precision.dtype, folded.real.dtype), torch.float32)
    height, width = shape[-2:]
    precision = precision.to(dtype).expand(shape).reshape(-1, height, width)
    if not bool((precision >= 0).all()):
        raise ValueError("precision must be non-negative and not NaN")
    folded = folded.to(dtype.to_complex()).expand(shape).reshape(-1, height, width)
    # Folding divides 0 by 0 where nothing was measured; whatever stands there must not leak.
    folded = torch.where(precision > 0, folded, torch.zeros((), dtype=folded.dtype, device=folded.device))
    if not bool(torch.isfinite(torch.view_as_real(folded)).all()):
        raise ValueError("folded must be finite wherever precision is positive")
    asymmetry = (folded - reflect(folded).conj()).abs().amax((-2, -1))
    if not torch.allclose(precision, reflect(precision), rtol=1e-3, atol=0.0) or bool(
        (asymmetry > 1e-3 * folded.abs().amax((-2, -1))).any()
    ):
        raise ValueError("not folded: need precision(-k) = precision(k) and folded(-k) = conj(folded(k))")
    half = width // 2 + 1
    return _Folded(precision[..., :half].contiguous(), folded[..., :half].contiguous(), shape)


def _image(half: Tensor, grid: tuple[int, int]) -> Tensor:
    image: Tensor = torch.fft.irfft2(half, s=grid, norm="ortho")
    return image


def wiener(precision: Tensor, folded: Tensor, power: Tensor) -> Tensor:
    """Wiener estimate, ``h = P / (P + 1 / Lambda) y^``: the posterior mean under a stationary Gaussian prior.

    Parameters
    ----------
    precision : Tensor
        ``Lambda``, ``(..., H, W)``, real, unshifted full grid. 0 gives ``h = 0``, ``inf`` gives ``h = y^``.
    folded : Tensor
        ``y^``, ``(..., H, W)``, complex, Hermitian-symmetric. Ignored where ``Lambda`` is 0.
    power : Tensor
        The prior's power spectrum ``P_k = E |h_k|^2``, broadcastable to ``(..., H, W)``, non-negative.

    Returns
    -------
    Tensor
        Real image ``(..., H, W)``.

    Raises
    ------
    ValueError
        On shapes that do not fit (both are named), a negative precision or power, or a spectrum that is not
        Hermitian-symmetric.
    """
    data = _check_folded(precision, folded)
    try:
        power = power.to(data.precision).expand(data.shape)
    except RuntimeError as error:
        raise ValueError(f"power {tuple(power.shape)} does not broadcast to {tuple(data.shape)}") from error
    if not bool((power >= 0).all()):
        raise ValueError("power must be non-negative and not NaN")
    power = power.reshape(-1, *data.grid)[..., : data.precision.shape[-1]]
    gain = power / (power + 1 / data.precision)
    gain = torch.where(torch.isinf(data.precision), torch.ones_like(gain), gain)  # 0 / 0 where P is 0, too
    gain = torch.where(data.precision == 0, torch.zeros_like(gain), gain)
    return _image(gain * data.spectrum, data.grid).reshape(data.shape)


class TotalVariationResult(NamedTuple):
    """What :func:`total_variation` returns; ``...`` are the leading dimensions of its input.

    Attributes
    ----------
    image : Tensor
        ``(..., H, W)``, real.
    iterations : Tensor
        Iterations each image took, ``(...)``, int64.
    converged : Tensor
        Whether each image met the tolerance, ``(...)``, bool.
    objective : Tensor
        Data term (bins of infinite precision left out) plus weighted total variation of ``image``, ``(...)``.
    """

    image: Tensor
    iterations: Tensor
    converged: Tensor
    objective: Tensor


def _split(x: Tensor, nonnegative: bool) -> Tensor:
    """``K x``: periodic forward differences down and right, and the image itself if it is constrained."""
    parts = [torch.roll(x, -1, -2) - x, torch.roll(x, -1, -1) - x]
    return torch.stack([*parts, x] if nonnegative else parts, dim=1)


def _merge(d: Tensor) -> Tensor:
    """``K^T d``, the adjoint of :func:`_split`."""
    x = torch.roll(d[:, 0], 1, -2) + torch.roll(d[:, 1], 1, -1)
    x -= d[:, 0]
    x -= d[:, 1]
    if d.shape[1] == 3:
        x += d[:, 2]
    return x


def _gram(grid: tuple[int, int], nonnegative: bool, like: Tensor) -> Tensor:
    """Eigenvalues of ``K^T K`` on the half grid ``(H, W // 2 + 1)``."""
    height, width = grid
    ky = torch.arange(height, dtype=torch.float64) * (2 * math.pi / height)
    kx = torch.arange(width // 2 + 1, dtype=torch.float64) * (2 * math.pi / width)
    eigenvalues = (2 - 2 * ky.cos())[:, None] + (2 - 2 * kx.cos()) + float(nonnegative)
    return eigenvalues.to(like)


def _norm(a: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(a, dim=tuple(range(1, a.ndim)))
    return norm


def _column(a: Tensor) -> Tensor:
    return a[:, None, None]


def _tv_objective(data: _Folded, image: Tensor, weight: Tensor) -> Tensor:
    finite = torch.where(torch.isinf(data.precision), torch.zeros_like(data.precision), data.precision)
    misfit = finite * (torch.fft.rfft2(image, norm="ortho") - data.spectrum).abs().square()
    doubled = misfit[..., 1 : (data.grid[1] + 1) // 2]  # columns that stand for kx and -kx
    variation = torch.hypot(*_split(image, False).unbind(1))
    data_term: Tensor = (misfit.sum((-2, -1)) + doubled.sum((-2, -1))) / 2
    return data_term + weight * variation.sum((-2, -1))


def total_variation(
    precision: Tensor,
    folded: Tensor,
    weight: float | Tensor,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
    nonnegative: bool = False,
    start: Tensor | None = None,
    penalty: float | Tensor | None = None,
) -> TotalVariationResult:
    """Minimise ``1/2 sum_k Lambda_k |h_k - y^_k|^2 + weight * sum_pixels sqrt(|dx|^2 + |dy|^2)``.

    Isotropic total variation with periodic forward differences, by ADMM (split Bregman) on the splitting
    ``d = K x``. The image update is exact in Fourier space; over-relaxation and a penalty kept per image by
    balancing *relative* residuals make small and large weights converge alike. With ``Lambda = 0`` at DC and
    nothing else that fixes the mean, the mean is 0.

    An image is finished when, relative to their own size, the change over the last ten iterations and the
    primal and dual residuals are all below ``tolerance``; it is then taken out of the batch, so a batch gives
    what single images give. On 128 x 128 brain slices the default tolerance takes 30 to 400 iterations for
    denoising and line masks and leaves a relative distance below 1e-3 to the minimiser; extrapolating from a
    few low frequencies is slowest (500 for a quarter of the band, 1,800 for the 81 lowest bins).

    Parameters
    ----------
    precision : Tensor
        ``Lambda``, ``(..., H, W)``, real, unshifted full grid; 0 where unmeasured, ``inf`` to fix a bin.
    folded : Tensor
        ``y^``, ``(..., H, W)``, complex, Hermitian-symmetric. Ignored where ``Lambda`` is 0. The computation
        runs in the wider of the two precisions, float32 or float64.
    weight : float or Tensor
        Non-negative weight, one or per image ``(...)``. Since the data term is divided by the noise
        variance it is in units of one over the image's (see the module's docstring). 0 gives ``y^``, or 0
        where unmeasured.
    tolerance : float
        Below about 1e-6 needs float64 input.
    max_iterations : int
        An image that needs more is returned as it is, with ``converged`` false.
    nonnegative : bool
        Add the constraint ``x >= 0``. The image returned then satisfies it exactly, and bins of infinite
        precision up to the tolerance.
    start : Tensor, optional
        Image ``(..., H, W)`` to start from; by default the inverse transform of ``y^``. The minimum does not
        depend on it where it is unique.
    penalty : float or Tensor, optional
        ADMM penalty to start from, one or per image. By default the one that thresholds gradients at half
        their mean size in the start, which makes the iteration scale-equivariant.

    Returns
    -------
    TotalVariationResult

    Raises
    ------
    ValueError
        On shapes that do not fit (both are named), inputs that are not folded, a negative or non-finite
        weight, a non-positive tolerance, penalty or iteration limit.

    References
    ----------
    Rudin, Osher, Fatemi, Physica D 60, 1992 (the model). Goldstein and Osher, SIAM J. Imaging Sci. 2(2), 2009
    (split Bregman). Boyd et al., Found. Trends Mach. Learn. 3(1), 2011, sections 3.3, 3.4.1, 3.4.3 (stopping,
    residual balancing, over-relaxation). Wohlberg, arXiv:1704.06209 (balancing relative residuals).
    """
    data = _check_folded(precision, folded)
    if not tolerance > 0 or max_iterations < 1:
        raise ValueError(f"need tolerance > 0 and max_iterations >= 1, got {tolerance}, {max_iterations}")
    weights = _per_image("weight", weight, data)
    if not bool((weights >= 0).all()):
        raise ValueError("weight must be non-negative")
    first = _image(data.spectrum, data.grid)
    if start is not None:
        if start.shape != data.shape:
            raise ValueError(f"start {tuple(start.shape)} must have the image's shape {tuple(data.shape)}")
        first = start.to(first).reshape(first.shape)
    rho = None if penalty is None else _per_image("penalty", penalty, data)
    if rho is not None and not bool((rho > 0).all()):
        raise ValueError("penalty must be positive")

    image = _image(data.spectrum, data.grid)
    iterations = torch.zeros(len(image), dtype=torch.int64, device=image.device)
    converged = torch.ones(len(image), dtype=torch.bool, device=image.device)
    todo = torch.nonzero((weights > 0) | nonnegative).flatten()  # without both, y^ is the answer
    if len(todo):
        image[todo], iterations[todo], converged[todo] = _admm(
            _Folded(data.precision[todo], data.spectrum[todo], image[todo].shape),
            weights[todo],
            first[todo],
            None if rho is None else rho[todo],
            tolerance,
            max_iterations,
            nonnegative,
        )
    leading = data.shape[:-2]
    return TotalVariationResult(
        image.reshape(data.shape),
        iterations.reshape(leading),
        converged.reshape(leading),
        _tv_objective(data, image, weights).reshape(leading),
    )


def _per_image(name: str, value: float | Tensor, data: _Folded) -> Tensor:
    given = torch.as_tensor(value, dtype=data.precision.dtype, device=data.precision.device)
    if not bool(torch.isfinite(given).all()):
        raise ValueError(f"{name} must be finite")
    try:
        return given.expand(data.shape[:-2]).reshape(-1)
    except RuntimeError as error:
        raise ValueError(
            f"{name} {tuple(given.shape)} must be one number or one per image {tuple(data.shape[:-2])}"
        ) from error


def _first_penalty(data: _Folded, weight: Tensor, x: Tensor) -> Tensor:
    gradient = torch.hypot(*_split(x, False).unbind(1)).mean((-2, -1))
    floor = 1e-6 * x.abs().mean((-2, -1))
    gradient = torch.maximum(gradient, floor)
    gradient = torch.where(gradient > 0, gradient, torch.ones_like(gradient))
    finite = torch.where(torch.isinf(data.precision), torch.zeros_like(data.precision), data.precision)
    typical = finite.mean((-2, -1))
    typical = torch.where(typical > 0, typical, torch.ones_like(typical))
    return torch.where(weight > 0, weight / (0.5 * gradient), typical)


def _admm(
    data: _Folded,
    weight: Tensor,
    x: Tensor,
    penalty: Tensor | None,
    tolerance: float,
    max_iterations: int,
    nonnegative: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """ADMM in scaled form: ``d`` stands for ``K x``, ``rho * u`` is the multiplier of ``K x = d``."""
    tiny, eps = torch.finfo(x.dtype).tiny, torch.finfo(x.dtype).eps
    grid = data.grid
    gram = _gram(grid, nonnegative, x)
    rho = _first_penalty(data, weight, x) if penalty is None else penalty
    exact = torch.isinf(data.precision)
    # An exact bin is its own solution whatever rho is: give it precision 1 and a zero eigenvalue.
    precision = torch.where(exact, torch.ones_like(data.precision), data.precision)
    gram = torch.where(exact, torch.zeros_like(gram), gram)
    target = precision * data.spectrum

    images, iterations = torch.empty_like(x), torch.empty(len(x), dtype=torch.int64, device=x.device)
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    active = torch.arange(len(x), device=x.device)
    rounding = 10 * eps * torch.maximum(_norm(x), _norm(_image(data.spectrum, grid)))
    fluctuation = 0.01 * _norm(x - x.mean((-2, -1), keepdim=True))

    d = _split(x, nonnegative)
    u = torch.zeros_like(d)
    before = x
    gain, threshold = _solve_factors(precision, gram, rho), weight / rho
    for iteration in range(1, max_iterations + 1):
        pull = torch.fft.rfft2(_merge(d - u), norm="ortho")
        pull.masked_fill_(exact, 0)
        if not nonnegative:
            # differences sum to zero; their rounding, times a large rho, would move the mean
            pull[..., 0, 0] = 0
        x = _image((target + _column(rho) * pull) * gain, grid)
        kx = _split(x, nonnegative)
        v = torch.lerp(d, kx, _RELAXATION)
        v += u
        # Moreau: the multiplier is the projection of v, the split variable is what is left.
        length = torch.hypot(v[:, 0], v[:, 1]).clamp_min_(tiny)  # vector_norm over an axis of 2: 50 times slower
        u = v * (_column(threshold) / torch.maximum(length, _column(threshold))).unsqueeze(1)
        if nonnegative:
            u[:, 2] = v[:, 2].clamp(max=0)
        d_before, d = d, v - u
        if iteration % _CHECK_EVERY and iteration != max_iterations:
            continue

        primal, primal_size = _norm(kx - d), torch.maximum(_norm(kx), _norm(d))
        dual, dual_size = _norm(_merge(d - d_before)), _norm(_merge(u))  # both over rho
        done = (
            (_norm(x - before) <= tolerance * _norm(x) + rounding)
            & (primal <= tolerance * (primal_size + fluctuation) + rounding)
            & (dual <= tolerance * dual_size + rounding)
        )
        before = x
        stop = done if iteration < max_iterations else torch.ones_like(done)
        if bool(stop.any()):
            finished = active[stop]
            images[finished], iterations[finished], converged[finished] = x[stop], iteration, done[stop]
            keep = ~stop
            if not bool(keep.any()):
                break
            active, weight, rho, before, d, u = (a[keep] for a in (active, weight, rho, before, d, u))
            precision, gram, exact, target = (a[keep] for a in (precision, gram, exact, target))
            rounding, fluctuation = rounding[keep], fluctuation[keep]
            primal, primal_size, dual, dual_size = (a[keep] for a in (primal, primal_size, dual, dual_size))
        if iteration <= _ADAPT_UNTIL:
            ratio = (primal / (primal_size + fluctuation + tiny)) / (dual / (dual_size + tiny) + tiny)
            factor = (ratio / _BALANCE).sqrt().clamp(0.25, 4.0)
            rho = rho * factor
            u = u / factor[:, None, None, None]
        gain, threshold = _solve_factors(precision, gram, rho), weight / rho
    return images.clamp_min(0) if nonnegative else images, iterations, converged


def _solve_factors(precision: Tensor, gram: Tensor, rho: Tensor) -> Tensor:
    """``1 / (Lambda + rho K^T K)``, and 0 where that is singular (an unmeasured DC)."""
    system = precision + _column(rho) * gram
    return torch.where(system > 0, 1 / system, torch.zeros_like(system))


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


def wavelet_denoise(noisy: Tensor, sigma: float, shifts: int = 1) -> Tensor:
    """BayesShrink wavelet denoising of real images with white noise (scikit-image's ``denoise_wavelet``).

    Parameters
    ----------
    noisy : Tensor
        ``(..., H, W)``, real.
    sigma : float
        The noise's standard deviation.
    shifts : int
        Average over ``shifts`` x ``shifts`` cyclic shifts of the image (cycle spinning); 1 is off.

    Returns
    -------
    Tensor
        Like ``noisy``.

    Raises
    ------
    ImportError
        If PyWavelets, which scikit-image needs for this and does not install, is missing.
    ValueError
        If ``noisy`` is no real image or a number is out of range.

    References
    ----------
    Chang, Yu, Vetterli, IEEE Trans. Image Process. 9(9), 2000. Coifman and Donoho, 1995 (cycle spinning).
    """
    try:
        import_module("pywt")
    except ImportError as error:
        raise ImportError("wavelet_denoise needs PyWavelets: pip install PyWavelets") from error
    from skimage.restoration import denoise_wavelet

    images = _check_noisy(noisy, sigma)
    if shifts < 1:
        raise ValueError(f"shifts must be at least 1, got {shifts}")
    out = torch.empty_like(images)
    for i, image in enumerate(images):
        total = torch.zeros_like(image)
        for shift in ((a, b) for a in range(shifts) for b in range(shifts)):
            moved = torch.roll(image, shift, (0, 1)).numpy()
            clean = denoise_wavelet(moved, sigma=sigma, method="BayesShrink", rescale_sigma=False)
            total += torch.roll(torch.from_numpy(clean), (-shift[0], -shift[1]), (0, 1))
        out[i] = total / shifts**2
    return out.reshape(noisy.shape).to(noisy)


def nonlocal_means(noisy: Tensor, sigma: float, h: float | None = None) -> Tensor:
    """Non-local means of real images with white noise (scikit-image's ``denoise_nl_means``, fast mode).

    Patches of 5 x 5 pixels, searched up to a distance of 6.

    Parameters
    ----------
    noisy : Tensor
        ``(..., H, W)``, real.
    sigma : float
        The noise's standard deviation.
    h : float, optional
        Cut-off in grey levels, ``0.8 * sigma`` by default. Higher is smoother.

    Returns
    -------
    Tensor
        Like ``noisy``.

    Raises
    ------
    ValueError
        If ``noisy`` is no real image or a number is out of range.

    References
    ----------
    Buades, Coll, Morel, CVPR 2005. Darbon et al., ISBI 2008 (the fast mode).
    """
    from skimage.restoration import denoise_nl_means

    images = _check_noisy(noisy, sigma)
    strength = 0.8 * sigma if h is None else h
    if not (math.isfinite(strength) and strength > 0):
        raise ValueError(f"h must be finite and positive, got {strength}")
    out = torch.empty_like(images)
    for i, image in enumerate(images):
        clean = denoise_nl_means(image.numpy(), patch_size=5, patch_distance=6, h=strength, sigma=sigma, fast_mode=True)
        out[i] = torch.from_numpy(clean)
    return out.reshape(noisy.shape).to(noisy)


def _check_noisy(noisy: Tensor, sigma: float) -> Tensor:
    """Flatten to ``(B, H, W)`` float64 on the CPU (in float32 the fast non-local means loses digits)."""
    if noisy.ndim < 2 or 0 in noisy.shape or noisy.is_complex() or not bool(torch.isfinite(noisy).all()):
        raise ValueError(f"need real finite images (..., H, W), got {tuple(noisy.shape)} {noisy.dtype}")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be finite and positive, got {sigma}")
    return noisy.detach().to("cpu", torch.float64).reshape(-1, *noisy.shape[-2:])
