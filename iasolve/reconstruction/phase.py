"""The phase of an image that a prior over real images is to see without.

How it is estimated matters more than anything else that is done to multi-coil data. It is the phase of a complex
image regularised by total variation (TV-SENSE, its weight fitted to the image's gradients). How far to smooth it
depends on the scan: chemical shift and flow have edges; where there is neither, a smooth phase holds less noise. So
three smoothings are tried, Hann windows over half and all of k-space and none, and the one is taken that predicts a
hidden tenth of the k-space best.

Measured, relative error of held-out k-space of the bundled slice (amortized guess, field-of-view fit): phase from the
64 x 64 centre of a CG-SENSE image 0.33, from its 96 x 96 centre 0.30, from its 180 x 180 centre 0.28; TV-SENSE with
the same window 0.27, without 0.26. On simulated smooth phases (1 and 4 coils, 2x and 4x, little and much noise)
TV-SENSE beats CG-SENSE at every size, half of k-space beats all of it by 0.4 to 1.6 dB, and that beats no window by
0.9 to 2.9 dB. The choice fell on no window for the bundled slice, and on half of k-space for 14 of 16 simulated ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.classical.sense import total_variation_sense, typical_weight
from iasolve.operators.bases import centred_fft2
from iasolve.operators.coils import SensitivityEncoding
from iasolve.operators.phase import estimate_phase
from iasolve.problem.operator_likelihood import OperatorLikelihood
from iasolve.spectrum import radius

__all__ = ["cg_sense", "image_phase"]

_HIDDEN, _FEWEST = 0.1, 50  # share, and number of hidden positions; an error over fewer says little


def image_phase(
    y: Tensor, encoding: SensitivityEncoding, sigma: float, size: int | None = None
) -> tuple[Tensor, int | None]:
    """Phase ``(H, W)``, complex of magnitude 1, and the side of the k-space centre that holds it, None for all of it.

    Parameters
    ----------
    y : Tensor
        ``(coils, H, W)`` complex.
    encoding : SensitivityEncoding
        Of complex images, one mask for all coils.
    sigma : float
        Noise level of ``y``.
    size : int, optional
        The side; by default the one that predicts hidden k-space best.
    """
    # noise-free data would leave total variation without a scale
    sigma = max(sigma, 1e-3 * float(y.abs().square().mean().sqrt()))
    start = None
    if size is None:
        size, start = _best_size(y, encoding, sigma)
    return _smoothed(_tv_sense(y, encoding, sigma, start), size), size


def cg_sense(y: Tensor, encoding: SensitivityEncoding, sigma: float, iterations: int = 60) -> Tensor:
    """Image ``(1, H, W)`` by regularised least squares (Pruessmann et al. 2001, Magn. Reson. Med. 46:638).

    The posterior mean under a stationary Gaussian prior whose power falls as ``1 / (1 + r)^2`` with the frequency's
    radius, as that of images does, and has the measurement's energy.
    """
    decay = (1.0 + radius(*encoding.in_shape[1:]).to(y.device, y.real.dtype)) ** -2
    power = (y.abs().square().sum() / decay.sum() * decay)[None]
    likelihood = OperatorLikelihood(encoding, y[None], y.real.new_full((1,), sigma))
    return likelihood.mean(torch.zeros_like(likelihood.backprojection), power, iterations)[0]


_ROUGH = 20
"""Iterations of CG-SENSE for a start: as many again change the weight that fits it by 3 %."""


class _Start(NamedTuple):
    """An image ``(1, H, W)`` to start from, and the weight of total variation that fits such images."""

    image: Tensor
    weight: float

    @classmethod
    def of(cls, y: Tensor, encoding: SensitivityEncoding, sigma: float) -> _Start:
        image = cg_sense(y, encoding, sigma, _ROUGH)
        return cls(image, typical_weight(image[None]))


_COMPARED = 2
"""Iterations of images that are only compared: two, three and all choose alike (two measured and two simulated scans).
"""

_FIRST = 3e-2
"""Tolerance of the image whose phases are compared: to go on from there with all data costs the same."""


def _tv_sense(
    y: Tensor,
    encoding: SensitivityEncoding,
    sigma: float,
    start: _Start | None,
    tolerance: float = 1e-2,
    iterations: int = 100,
) -> Tensor:
    """``(1, H, W)``; started from CG-SENSE it takes some twenty iterations, from its like half of them."""
    first, weight = start or _Start.of(y, encoding, sigma)
    return total_variation_sense(
        encoding, y[None], sigma, weight, tolerance=tolerance, max_iterations=iterations, start=first[None]
    ).image[0]


def _smoothed(image: Tensor, size: int | None) -> Tensor:
    if size is not None:
        return estimate_phase(centred_fft2(image), size=size)
    return torch.where(image[0] == 0, torch.ones_like(image[0]), torch.sgn(image[0]))


def _best_size(y: Tensor, encoding: SensitivityEncoding, sigma: float) -> tuple[int | None, _Start | None]:
    """The smoothing whose real image predicts a hidden tenth of the k-space best, and the complex image of the rest."""
    smaller = min(y.shape[-2:])
    sampled = encoding.mask.bool()
    hidden = _hidden_part(sampled)
    if int(hidden.sum()) < _FEWEST:
        return smaller, None
    rest = y * ~hidden
    seen_by_all = SensitivityEncoding(encoding.maps, sampled & ~hidden, y.dtype)
    first = _Start.of(rest, seen_by_all, sigma)
    image = _tv_sense(rest, seen_by_all, sigma, first, _FIRST)
    errors = {}
    for size in (smaller // 2, smaller, None):
        phase = _smoothed(image, size)
        seen, unseen = (
            SensitivityEncoding(encoding.maps, mask, y.real.dtype, phase=phase) for mask in (sampled & ~hidden, hidden)
        )
        start = _Start((phase.conj() * image).real, first.weight)
        found = _tv_sense(rest, seen, sigma, start, iterations=_COMPARED)
        errors[size] = float(torch.linalg.vector_norm(unseen(found) - y * hidden))
    return min(errors, key=lambda size: errors[size]), first._replace(image=image)


def _hidden_part(sampled: Tensor) -> Tensor:
    """A random tenth of the sampled positions, away from the zero frequency, where most of the energy is."""
    height, width = sampled.shape
    fy = (torch.arange(height, device=sampled.device) - height // 2).abs() / height
    fx = (torch.arange(width, device=sampled.device) - width // 2).abs() / width
    outside = torch.maximum(fy[:, None], fx[None, :]) > 1 / 16
    drawn = torch.rand(sampled.shape, generator=torch.Generator().manual_seed(0)).to(sampled.device) < _HIDDEN
    return sampled & outside & drawn
