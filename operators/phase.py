"""The smooth phase of an image, from the centre of its k-space."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import as_tensor
from iasolve.operators.bases import centred_ifft2
from iasolve.operators.calibration import CalibrationRegion, calibration_region

__all__ = ["estimate_phase", "taper"]


def estimate_phase(kspace: Tensor | np.ndarray, maps: Tensor | np.ndarray | None = None, *, size: int = 24) -> Tensor:
    """Phase of the image behind k-space, as smooth as the fully sampled centre resolves it.

    ``p / |p|`` with ``p = sum_c conj(maps_c) ifft2c(hann * y_c)``: the coils of the tapered centre combined. An image
    times its conjugate is nearly real where its phase is smooth (homodyne detection, Noll et al. 1991, IEEE Trans.
    Med. Imaging 10:154), so that ``SensitivityEncoding(maps, mask, torch.float32, phase=phase)`` encodes a real one.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` complex, DC in the middle, unsampled entries 0; of a complex image take its
        :func:`~iasolve.operators.centred_fft2`, one coil.
    maps : Tensor or array, optional
        ``(coils, H, W)``; may be left out for one coil.
    size : int
        Largest side of the centre used: the smaller, the smoother.

    Returns
    -------
    Tensor
        ``(H, W)`` complex, of magnitude 1 (1 where the combined image is 0).

    Raises
    ------
    ValueError
        When shapes do not fit, maps are missing, or the centre of k-space is not sampled.

    Examples
    --------
    >>> import torch
    >>> from iasolve.operators import centred_fft2
    >>> phase = estimate_phase(centred_fft2(1j * torch.ones(1, 32, 32)))
    >>> bool(torch.allclose(phase, torch.tensor(1j), atol=1e-3))
    True
    """
    values = as_tensor(kspace)
    if values.ndim != 3 or not values.is_complex():
        raise ValueError(
            f"a phase is estimated from complex k-space (coils, H, W), got shape {tuple(values.shape)}, {values.dtype}"
        )
    if maps is None and len(values) > 1:
        raise ValueError(f"k-space has {len(values)} coils: give their maps, e.g. estimate_maps(kspace).maps")
    grid = (values.shape[-2], values.shape[-1])
    region = calibration_region(values).trimmed(size, grid)
    images = centred_ifft2(taper(region, grid).to(values.device, values.real.dtype) * values)
    if maps is not None:
        weights = as_tensor(maps)
        if weights.shape != values.shape:
            raise ValueError(
                f"the maps have shape {tuple(weights.shape)}, k-space {tuple(values.shape)}: they must be the same"
            )
        images = weights.to(images.device, images.dtype).conj() * images
    combined = images.sum(0)
    return torch.where(combined == 0, torch.ones_like(combined), torch.sgn(combined))


def taper(region: CalibrationRegion, shape: tuple[int, int]) -> Tensor:
    """Hann window ``(H, W)``, float64, 1 at the zero frequency, 0 from the region's nearer edge on, each way.

    It is symmetric about the zero frequency, or the images would carry a phase ramp of its making.
    """

    def window(start: int, stop: int, n: int) -> Tensor:
        k = torch.arange(n, dtype=torch.float64) - n // 2
        reach = min(n // 2 - start, stop - 1 - n // 2) + 1
        return torch.where(k.abs() < reach, torch.cos(torch.pi * k / (2 * reach)).square(), 0.0)

    return window(region.top, region.bottom, shape[0])[:, None] * window(region.left, region.right, shape[1])[None, :]
