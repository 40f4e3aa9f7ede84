"""Coil sensitivities from the fully sampled centre of multi-coil k-space.

*ESPIRiT* (Uecker et al. 2014, Magn. Reson. Med. 71:990). Neighbouring k-space values of all coils are linearly
dependent, since every coil sees the same image. All ``k x k`` patches of the centre, as rows, form the calibration
matrix; its leading right singular vectors span what patches can be, ``P`` is the projector on them. Projecting every
patch of a k-space and averaging where patches overlap is a convolution, hence a ``coils x coils`` matrix in each
pixel::

    G(r) = 1 / k^2 sum_{d, d'} P[d, d'] exp(-2 pi i (d' - d) . r / N)

True coil images do not change under it: ``G(r) m(r) = m(r)``. The maps are the eigenvectors of eigenvalue 1; where no
eigenvalue is near 1 there is no signal, and the maps are 0.

*Low resolution* (McKenzie et al. 2002, Magn. Reson. Med. 47:529): the coil images of the tapered centre over their
root-sum-of-squares. Needs only a few lines; sensitivities are blurred, most of all at the object's edge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import as_tensor
from iasolve.operators.bases import centred_ifft2
from iasolve.operators.calibration import CalibrationRegion, calibration_region
from iasolve.operators.coils import root_sum_of_squares
from iasolve.operators.phase import taper

__all__ = ["MapEstimate", "espirit_maps", "estimate_maps", "low_resolution_maps"]

# fewer lines hold too few patches of ESPIRiT's smallest kernel, 3 x 3
SMALLEST_CENTRE = 5


class MapEstimate(NamedTuple):
    """Estimated sensitivities.

    Attributes
    ----------
    maps : Tensor
        ``(coils, H, W)`` complex, ``sum_c |maps_c|^2 = 1`` inside the object, 0 outside; the phase is relative to a
        virtual coil, the combination of coils with the most energy in the centre.
    confidence : Tensor
        ``(H, W)`` real, before cropping: ESPIRiT's largest eigenvalue, or the low-resolution magnitude over its peak.
    method : str
        ``"espirit"`` or ``"low-resolution"``.
    region : CalibrationRegion
        The part of k-space that was used.
    """

    maps: Tensor
    confidence: Tensor
    method: str
    region: CalibrationRegion


def estimate_maps(kspace: Tensor | np.ndarray) -> MapEstimate:
    """Sensitivity maps of one slice: ESPIRiT, or the low-resolution method where the centre is too small for it.

    Too small means fewer than five lines either way, or that the pixels where ESPIRiT finds signal hold less than
    nine tenths of the low-resolution image's energy. ESPIRiT's time grows with the cube of the number of coils:
    compress many coils first (:func:`~iasolve.operators.compression.compress_coils`).

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` complex, DC in the middle, unsampled entries 0.

    Returns
    -------
    MapEstimate
        Its ``method`` says which was used.

    Raises
    ------
    ValueError
        When k-space is not of this form or its centre is not sampled.

    Examples
    --------
    >>> from iasolve.operators import birdcage_maps, centred_fft2
    >>> disc = (torch.hypot(*torch.meshgrid(*2 * [torch.linspace(-1, 1, 48)], indexing="ij")) < 0.8).float()
    >>> maps = birdcage_maps((48, 48), 4).to(torch.complex64)
    >>> found = estimate_maps(centred_fft2(maps * disc))
    >>> found.maps.shape
    torch.Size([4, 48, 48])
    """
    simple = low_resolution_maps(kspace)
    if min(simple.region.size) < SMALLEST_CENTRE:
        return simple
    found = espirit_maps(kspace)
    energy = simple.confidence.square()
    covered = (energy * (found.maps != 0).any(0)).sum() / energy.sum()
    return found if float(covered) > 0.9 else simple


def espirit_maps(
    kspace: Tensor | np.ndarray,
    *,
    size: int = 24,
    kernel: int | None = None,
    rank_threshold: float = 0.02,
    crop: float = 0.95,
) -> MapEstimate:
    """ESPIRiT: see the module's text.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` complex, DC in the middle, unsampled entries 0.
    size : int
        Largest side of the calibration region used.
    kernel : int, optional
        Side ``k`` of the patches. By default two fifths of the region's smaller side, between 3 and 6: larger patches
        need more of them, smaller ones tell signal from background less well.
    rank_threshold : float
        Singular values below this fraction of the largest are noise.
    crop : float
        Maps are 0 where the largest eigenvalue is below this.

    Raises
    ------
    ValueError
        When k-space is not of this form, its centre is not sampled, or smaller than the kernel.
    """
    values = _checked(kspace)
    grid = (values.shape[-2], values.shape[-1])
    region = calibration_region(values).trimmed(size, grid)
    centre = region.cut(values).to(torch.complex128)
    if kernel is None:
        kernel = max(3, min(6, 2 * min(region.size) // 5))
    if min(region.size) < kernel:
        raise ValueError(
            f"the fully sampled centre of k-space is {region.size[0]}x{region.size[1]}, smaller than ESPIRiT's "
            f"{kernel}x{kernel} kernel: take low_resolution_maps, or a smaller kernel"
        )
    correlation = _kernel_correlation(centre, kernel, rank_threshold)
    maps, eigenvalue = _leading_eigenvectors(correlation.to(values.dtype), grid)
    maps = _relative_to_virtual_coil(maps, centre) * (eigenvalue > crop)
    return MapEstimate(maps, eigenvalue, "espirit", region)


def low_resolution_maps(kspace: Tensor | np.ndarray, *, size: int = 24, crop: float = 0.05) -> MapEstimate:
    """Coil images of the Hann-tapered centre over their root-sum-of-squares.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` complex, DC in the middle, unsampled entries 0.
    size : int
        Largest side of the calibration region used.
    crop : float
        Maps are 0 where the low-resolution magnitude is below this fraction of its peak.

    Raises
    ------
    ValueError
        When k-space is not of this form or its centre is not sampled.
    """
    values = _checked(kspace)
    grid = (values.shape[-2], values.shape[-1])
    region = calibration_region(values).trimmed(size, grid)
    images = centred_ifft2(taper(region, grid).to(values.device, values.real.dtype) * values)
    magnitude = root_sum_of_squares(images)
    confidence = (magnitude / magnitude.max())[0]
    maps = images / magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny)
    maps = _relative_to_virtual_coil(maps, region.cut(values)) * (confidence > crop)
    return MapEstimate(maps, confidence, "low-resolution", region)


def _checked(kspace: Tensor | np.ndarray) -> Tensor:
    values = as_tensor(kspace)
    if values.ndim != 3 or not values.is_complex():
        raise ValueError(
            f"maps are estimated from one slice of complex k-space (coils, H, W), got shape {tuple(values.shape)}, "
            f"{values.dtype}: take the slices of a volume one by one"
        )
    if not bool(torch.isfinite(values.abs()).all()):
        raise ValueError("k-space holds NaN or infinite values: set them to 0, which marks them as not sampled")
    return values


def _kernel_correlation(centre: Tensor, kernel: int, rank_threshold: float) -> Tensor:
    """``1 / k^2 sum_{d' - d = e} P[(c, d), (c', d')]`` at offsets ``e``; ``(coils, coils, 2k - 1, 2k - 1)``."""
    coils = len(centre)
    patches = centre.unfold(1, kernel, 1).unfold(2, kernel, 1).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    # the right singular vectors, a third of the time of all; in double precision squares are exact enough
    square, right = torch.linalg.eigh(patches.mH @ patches)
    # columns of `right` span the patches
    kept = right[:, square > rank_threshold**2 * square[-1]]
    projector = (kept.conj() @ kept.mT).reshape(coils, kernel, kernel, coils, kernel, kernel)
    out = centre.new_zeros(coils, coils, 2 * kernel - 1, 2 * kernel - 1)
    for dy in range(kernel):
        for dx in range(kernel):
            y, x = kernel - 1 - dy, kernel - 1 - dx
            out[:, :, y : y + kernel, x : x + kernel] += projector[:, dy, dx]
    return out / kernel**2


def _leading_eigenvectors(correlation: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Unit eigenvector ``(coils, H, W)`` and eigenvalue ``(H, W)``, the largest, of ``G(r)`` in each pixel."""
    coils, reach = len(correlation), correlation.shape[-1] // 2
    height, width = grid
    offsets = torch.arange(-reach, reach + 1, device=correlation.device)

    def waves(n: int) -> Tensor:
        turns = (torch.arange(n, device=offsets.device) - n // 2)[:, None] * offsets[None, :] / n
        return torch.exp(-2j * torch.pi * turns).to(correlation.dtype)

    along = torch.einsum("abpq,xq->pxab", correlation, waves(width))
    maps = correlation.new_empty(coils, height, width)
    eigenvalue = maps.real.new_empty(height, width)
    # some rows at a time: the matrices of all pixels of many coils would not fit into memory
    rows = max(1, 2**24 // (width * coils**2))
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        matrices = torch.einsum("yp,pxab->yxab", waves(height)[part], along)
        values, vectors = torch.linalg.eigh(matrices)
        maps[:, part] = vectors[..., -1].permute(2, 0, 1)
        eigenvalue[part] = values[..., -1]
    return maps, eigenvalue


def _relative_to_virtual_coil(maps: Tensor, centre: Tensor) -> Tensor:
    """The maps with the phase of their strongest combination removed: an eigenvector's own phase is arbitrary."""
    flat = centre.flatten(1)
    combination = torch.linalg.eigh(flat @ flat.mH).eigenvectors[:, -1].to(maps.dtype)
    # fix the combination's own phase too: by its largest entry
    combination = combination * torch.sgn(combination[combination.abs().argmax()]).conj()
    virtual = torch.einsum("c,chw->hw", combination.conj(), maps)
    return maps * torch.where(virtual == 0, torch.ones_like(virtual), torch.sgn(virtual).conj())
