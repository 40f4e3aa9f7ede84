"""Image quality: PSNR, SSIM and NMSE, over the whole image and over the head alone; intervals for means.

Everything takes real or complex arrays ``(H, W)`` or ``(C, H, W)`` (CPU tensors too) and computes in float64.
About half of a head's magnitude image is air, which most methods get right: quote the foreground as well.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["evaluate", "foreground", "mean_interval", "nmse", "psnr", "ssim"]

_SSIM_WINDOW = 11  # Gaussian of sigma 1.5, cut off at 3.5 sigma


def _pair(estimate: ArrayLike, reference: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(estimate), np.asarray(reference)
    shapes = f"estimate {a.shape}, reference {b.shape}"
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {shapes}")
    if b.ndim not in (2, 3) or b.size == 0:
        raise ValueError(f"need non-empty images (H, W) or (C, H, W): {shapes}")
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"images must be finite: {shapes}")
    return a, b


def _range(reference: NDArray[Any], data_range: float | None) -> float:
    if data_range is None:
        if np.iscomplexobj(reference):
            data_range = float(np.abs(reference).max())
        else:
            data_range = float(reference.max() - reference.min())
    if not (math.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be finite and positive, got {data_range} (a constant reference has 0)")
    return data_range


def _pixels(image: NDArray[Any], mask: ArrayLike | None) -> NDArray[Any]:
    """Return the values under the mask ``(H, W)``, of all channels."""
    if mask is None:
        return image
    chosen = np.asarray(mask)
    if chosen.shape != image.shape[-2:] or chosen.dtype != np.bool_:
        raise ValueError(f"mask {chosen.shape} {chosen.dtype} must be boolean, for images {image.shape}")
    if not chosen.any():
        raise ValueError(f"mask {chosen.shape} is empty, for images {image.shape}")
    return image[..., chosen]


def psnr(
    estimate: ArrayLike, reference: ArrayLike, data_range: float | None = None, mask: ArrayLike | None = None
) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(data_range^2 / mean |estimate - reference|^2)``.

    Parameters
    ----------
    estimate, reference : array_like
        ``(H, W)`` or ``(C, H, W)``, real or complex. For complex ones the error is the complex difference.
    data_range : float, optional
        By default ``reference.max() - reference.min()``, for complex images ``|reference|.max()``.
    mask : array_like, optional
        ``(H, W)`` bool: average the error over these pixels only. The data range stays the whole image's.

    Returns
    -------
    float
        ``inf`` for identical images.

    Raises
    ------
    ValueError
        If the shapes differ or do not fit the mask (both are named), an image is empty or not finite, or the
        data range is not positive.

    Examples
    --------
    >>> round(psnr(np.full((8, 8), 0.9), np.ones((8, 8)), data_range=1.0), 3)
    20.0
    """
    a, b = _pair(estimate, reference)
    peak = _range(b, data_range)
    error = float(np.mean(np.abs(_pixels(a - b, mask)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(
    estimate: ArrayLike, reference: ArrayLike, data_range: float | None = None, mask: ArrayLike | None = None
) -> float:
    """Mean structural similarity, with the Gaussian window of the paper.

    Per pixel ``(2 m_a m_b + c1)(2 s_ab + c2) / ((m_a^2 + m_b^2 + c1)(s_a^2 + s_b^2 + c2))`` with means ``m``
    and (co)variances ``s`` under a Gaussian of sigma 1.5 (11 x 11), ``c1 = (0.01 data_range)^2``,
    ``c2 = (0.03 data_range)^2``: scikit-image's ``structural_similarity`` with ``gaussian_weights=True``,
    ``use_sample_covariance=False``. Channels are averaged. Complex images are compared by magnitude.

    Parameters
    ----------
    estimate, reference : array_like
        ``(H, W)`` or ``(C, H, W)``, real or complex, at least 11 x 11 pixels.
    data_range : float, optional
        As for :func:`psnr`.
    mask : array_like, optional
        ``(H, W)`` bool: average the similarity over these pixels. Without one the border of 5 pixels, where
        the window leaves the image, is left out; a mask decides alone.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As for :func:`psnr`, and for images smaller than the window.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13(4), 2004.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((32, 32))
    >>> round(ssim(image, image), 6)
    1.0
    """
    from skimage.metrics import structural_similarity

    a, b = _pair(estimate, reference)
    if min(b.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels: estimate {a.shape}, reference {b.shape}")
    peak = _range(b, data_range)
    if np.iscomplexobj(b):
        a, b = np.abs(a), np.abs(b)
    mean, values = structural_similarity(  # type: ignore[no-untyped-call]
        a,
        b,
        data_range=peak,
        channel_axis=0 if b.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean) if mask is None else float(np.mean(_pixels(values, mask)))


def nmse(estimate: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Normalised mean squared error, ``sum |estimate - reference|^2 / sum |reference|^2``.

    Parameters
    ----------
    estimate, reference : array_like
        ``(H, W)`` or ``(C, H, W)``, real or complex.
    mask : array_like, optional
        ``(H, W)`` bool: take both sums over these pixels.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ or do not fit the mask (both are named), an image is empty or not finite, or the
        reference is zero throughout.

    Examples
    --------
    >>> round(nmse(np.full((8, 8), 0.9), np.ones((8, 8))), 6)
    0.01
    """
    a, b = _pair(estimate, reference)
    energy = float(np.sum(np.abs(_pixels(b, mask)) ** 2))
    if energy == 0:
        raise ValueError(f"the reference is zero: estimate {a.shape}, reference {b.shape}")
    return float(np.sum(np.abs(_pixels(a - b, mask)) ** 2)) / energy


def foreground(reference: ArrayLike) -> NDArray[np.bool_]:
    """Head against air: where a smoothed image exceeds half of Otsu's threshold, holes filled and closed.

    Half, because Otsu's threshold separates bright from dark tissue as soon as there is enough of both. Air
    must be near zero. The mask is the whole image when nothing sensible comes out: a constant image, a
    foreground below 5 % or above 95 %, or no air at the border (more than half of the border's pixels are
    foreground).

    Parameters
    ----------
    reference : array_like
        ``(H, W)`` or ``(C, H, W)``, real or complex; magnitudes are taken, channels are averaged.

    Returns
    -------
    ndarray
        ``(H, W)``, bool, never empty.

    Raises
    ------
    ValueError
        If the image is empty, not finite, or not of these shapes.

    References
    ----------
    Otsu, IEEE Trans. Syst. Man Cybern. 9(1), 1979.

    Examples
    --------
    >>> image = np.zeros((64, 64))
    >>> image[16:48, 16:48] = 1
    >>> bool(foreground(image)[32, 32]), bool(foreground(image)[0, 0])
    (True, False)
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    image = np.abs(_pair(reference, reference)[1])
    if image.ndim == 3:
        image = image.mean(0)
    everything = np.ones(image.shape, dtype=np.bool_)
    side = min(image.shape)
    smooth = ndimage.gaussian_filter(image, side / 128)
    if np.ptp(smooth) <= 1e-9 * smooth.max():
        return everything
    mask = smooth > 0.5 * threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    # Padding: at the border a closing would erode what it dilated out of the image.
    reach = max(1, round(side / 32))
    padded = ndimage.binary_closing(np.pad(mask, reach), iterations=reach)
    mask = ndimage.binary_fill_holes(padded[reach:-reach, reach:-reach])
    mask = ndimage.binary_opening(mask, iterations=max(1, reach // 2))
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    if not 0.05 <= mask.mean() <= 0.95 or border.mean() > 0.5:
        return everything
    return np.asarray(mask, dtype=np.bool_)


def evaluate(estimate: ArrayLike, reference: ArrayLike, data_range: float | None = None) -> dict[str, float]:
    """PSNR, SSIM and NMSE over the whole image and over the reference's :func:`foreground`.

    Parameters
    ----------
    estimate, reference : array_like
        ``(H, W)`` or ``(C, H, W)``, real or complex, at least 11 x 11 pixels.
    data_range : float, optional
        As for :func:`psnr`.

    Returns
    -------
    dict of str to float
        ``psnr``, ``ssim``, ``nmse``, and the same with ``_foreground`` appended.

    Raises
    ------
    ValueError
        As for :func:`psnr`, :func:`ssim` and :func:`nmse`.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((32, 32))
    >>> sorted(evaluate(0.9 * image, image))
    ['nmse', 'nmse_foreground', 'psnr', 'psnr_foreground', 'ssim', 'ssim_foreground']
    """
    mask = foreground(_pair(estimate, reference)[1])
    return {
        "psnr": psnr(estimate, reference, data_range),
        "ssim": ssim(estimate, reference, data_range),
        "nmse": nmse(estimate, reference),
        "psnr_foreground": psnr(estimate, reference, data_range, mask),
        "ssim_foreground": ssim(estimate, reference, data_range, mask),
        "nmse_foreground": nmse(estimate, reference, mask),
    }


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its confidence interval, ``mean -+ t s / sqrt(n)``.

    ``s`` is the sample standard deviation and ``t`` the quantile ``(1 + level) / 2`` of Student's t with
    ``n - 1`` degrees of freedom. To compare two methods give it their *paired* differences, image by image.

    Parameters
    ----------
    values : array_like
        ``(n,)``, ``n >= 2``, finite and independent.
    level : float
        Between 0 and 1.

    Returns
    -------
    mean, low, high : float

    Raises
    ------
    ValueError
        If there are fewer than two values, one is not finite, or the level is out of range.

    Examples
    --------
    >>> mean, low, high = mean_interval([0.9, 1.0, 1.1])
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (1.0, 0.752, 1.248)
    """
    from scipy import stats

    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1 or v.size < 2 or not np.isfinite(v).all():
        raise ValueError(f"need at least two finite values (n,), got shape {v.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    mean = float(v.mean())
    half = float(stats.t.ppf((1 + level) / 2, v.size - 1)) * float(v.std(ddof=1)) / math.sqrt(v.size)
    return mean, mean - half, mean + half
