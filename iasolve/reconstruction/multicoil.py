"""Multi-coil k-space of one slice, made a problem for :func:`iasolve.solve`: maps, phase, mask and noise.

The steps, each of which can be given instead of estimated:

1. *Mask*: a position was sampled if any coil is not 0 there.
2. *Noise*: correlated coils are whitened by their covariance, at the same root mean square, so that units stay.
3. *Compression*: more than twelve coils become twelve virtual ones; the combination is unitary, so white noise stays
   white.
4. *Sensitivities* from the sampled centre (:func:`iasolve.operators.estimate_maps`).
5. *Phase*, where the prior is over real images: see :mod:`iasolve.reconstruction.phase`.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from iasolve.noise_level import estimate_sigma
from iasolve.operators.base import as_tensor
from iasolve.operators.coil_noise import CoilNoise
from iasolve.operators.coils import SensitivityEncoding
from iasolve.operators.compression import compress_coils
from iasolve.operators.espirit import estimate_maps
from iasolve.operators.masks import acceleration
from iasolve.operators.noise import GaussianNoise
from iasolve.reconstruction.phase import image_phase
from iasolve.sampling import measured_positions

__all__ = ["CoilProblem", "SliceFacts", "pose_coils", "sampled_positions"]

MANY_COILS = 12

Array = Tensor | np.ndarray


class SliceFacts(TypedDict, total=False):
    """How a slice was posed, for reports.

    ``coils`` in the data, ``coils_used``, ``energy_kept`` by compression, ``acceleration``, ``maps``
    (``"espirit"``, ``"low-resolution"``, ``"given"``, ``"none"``), ``calibration`` (sampled centre used for maps,
    height and width), ``phase`` (``"TV-SENSE"`` or ``"none"``), ``phase_size`` (None: not smoothed), ``whitened``;
    ``imaginary_share`` of a single coil's energy, where the prior is over real images.
    """

    coils: int
    coils_used: int
    energy_kept: float
    acceleration: float
    maps: str
    calibration: list[int]
    phase: str
    phase_size: int | None
    whitened: bool
    imaginary_share: float


class CoilProblem(NamedTuple):
    """What :func:`iasolve.solve` takes, and how it came about.

    Attributes
    ----------
    y : Tensor
        ``(coils, H, W)`` complex: whitened, compressed, 0 where not sampled.
    operator : SensitivityEncoding
        Of complex images, or of real ones with their phase in it.
    noise : GaussianNoise or None
        White noise of ``y``; None where the level is unknown and ``solve`` estimates it.
    facts : SliceFacts
    """

    y: Tensor
    operator: SensitivityEncoding
    noise: GaussianNoise | None
    facts: SliceFacts


def pose_coils(
    kspace: Array,
    *,
    is_complex: bool,
    maps: Array | None = None,
    mask: Array | None = None,
    coils: int | None = None,
    noise: GaussianNoise | CoilNoise | None = None,
    phase: str = "auto",
    phase_size: int | None = None,
) -> CoilProblem:
    """Bring the k-space of one slice into a form that ``solve`` takes.

    Parameters
    ----------
    kspace : Tensor or array
        ``(coils, H, W)`` complex, centred and orthonormal, unsampled entries 0.
    is_complex : bool
        Whether the prior is over complex images (``prior.spectrum.is_complex``): they take the data as they are.
    maps : Tensor or array, optional
        Sensitivities ``(coils, H, W)``; estimated from the sampled centre by default.
    mask : Tensor or array, optional
        Broadcastable to ``(H, W)``; by default the positions where any coil is not 0.
    coils : int, optional
        Compress to this many; by default to 12, if there are more.
    noise : GaussianNoise or CoilNoise, optional
        Noise of ``kspace``; correlated noise is whitened.
    phase : {"auto", "none"}
        Whether to estimate a phase for a real image.
    phase_size : int, optional
        Side of the tapered k-space centre that holds the phase: the smaller, the smoother. By default half the smaller
        side, all of it, or no taper at all, whatever predicts a hidden tenth of the k-space best.

    Returns
    -------
    CoilProblem

    Raises
    ------
    ValueError
        For data of another form, maps or masks that do not fit, or a k-space whose centre is not sampled.

    Examples
    --------
    >>> from iasolve.samples import load_kspace
    >>> kspace = load_kspace().kspace[::4, 83:147, 58:122]  # two coils, the centre of k-space: quick
    >>> posed = pose_coils(kspace, is_complex=False)
    >>> posed.facts["maps"], posed.facts["calibration"], posed.facts["phase"]
    ('espirit', [24, 24], 'TV-SENSE')
    >>> posed.operator.out_shape
    (2, 64, 64)
    """
    y = _checked(kspace)
    if phase not in ("auto", "none"):
        raise ValueError(f"phase must be 'auto' or 'none', got {phase!r}")
    sampled = sampled_positions(y, mask)
    y = y * sampled
    given = None if maps is None else _checked_maps(maps, y)
    facts: SliceFacts = {"coils": len(y), "acceleration": acceleration(sampled), "whitened": False}

    if isinstance(noise, CoilNoise):
        matrix = (noise.sigma * noise.whitening).to(y)
        y, given = noise.sigma * noise.whiten(y), _mixed(matrix, given)
        noise, facts["whitened"] = GaussianNoise(noise.sigma), True
    wanted = min(len(y), MANY_COILS) if coils is None else coils
    if wanted != len(y):
        compressed = compress_coils(y, wanted)
        y, given = compressed.kspace, _mixed(compressed.matrix, given)
        facts["energy_kept"] = compressed.energy
    facts["coils_used"] = len(y)

    if given is not None:
        facts["maps"] = "given"
    elif len(y) == 1:
        # sum_c |maps_c|^2 = 1, as of estimated ones
        given, facts["maps"] = torch.ones_like(y), "none"
    else:
        found = estimate_maps(y)
        given, facts["maps"], facts["calibration"] = found.maps, found.method, list(found.region.size)

    encoding = SensitivityEncoding(given, sampled, y.dtype)
    facts["phase"] = "none"
    if is_complex:
        return CoilProblem(y, encoding, noise, facts)
    angle = None
    if phase == "auto":
        sigma = float(estimate_sigma(y[None], encoding)[0]) if noise is None else noise.sigma
        angle, facts["phase_size"] = image_phase(y, encoding, sigma, phase_size)
        facts["phase"] = "TV-SENSE"
    return CoilProblem(y, SensitivityEncoding(given, sampled, y.real.dtype, phase=angle), noise, facts)


def sampled_positions(kspace: Tensor, mask: Array | None = None) -> Tensor:
    """Mask ``(H, W)``, boolean: the given one, or where any coil of ``(..., coils, H, W)`` is not 0.

    Lines that are not 0 but for a few entries count as whole lines.

    Raises
    ------
    ValueError
        When nothing is sampled, or the mask does not fit.
    """
    grid = tuple(kspace.shape[-2:])
    if mask is None:
        nonzero = (kspace != 0).flatten(0, -3).any(0, keepdim=True)
        found = torch.from_numpy(np.array(measured_positions(nonzero.cpu().numpy())[0][0])).to(kspace.device)
    else:
        values = as_tensor(mask).to(kspace.device)
        try:
            found = torch.broadcast_to(values, grid) != 0
        except RuntimeError:
            raise ValueError(
                f"the mask has shape {tuple(values.shape)}, expected one broadcastable to {grid}: all coils are "
                "sampled at the same places"
            ) from None
    if not bool((kspace * found != 0).any()):
        raise ValueError("k-space is zero wherever it is sampled: check the file, and that the mask belongs to it")
    return found


def _checked(kspace: Array) -> Tensor:
    values = as_tensor(kspace)
    if values.ndim != 3 or not values.is_complex() or 0 in values.shape:
        raise ValueError(
            f"expected complex k-space of one slice, (coils, H, W), got shape {tuple(values.shape)}, {values.dtype}: "
            "take the slices of a volume one by one, or call iasolve.reconstruct"
        )
    if not bool(torch.isfinite(values.abs()).all()):
        bad = int((~torch.isfinite(values.abs())).sum())
        raise ValueError(
            f"k-space holds {bad} NaN or infinite value(s): set them to 0, which marks them as not sampled"
        )
    return values


def _checked_maps(maps: Array, y: Tensor) -> Tensor:
    values = as_tensor(maps)
    if values.shape != y.shape:
        raise ValueError(
            f"the maps have shape {tuple(values.shape)}, k-space {tuple(y.shape)}: expected one map for each coil, of "
            "the k-space's size"
        )
    return values.to(y)


def _mixed(matrix: Tensor, maps: Tensor | None) -> Tensor | None:
    return None if maps is None else torch.einsum("dc,chw->dhw", matrix.to(maps), maps)
