"""Multi-coil k-space: sensitivity encoding, its maps in simulation, and root-sum-of-squares.

Coil tensors are ``(..., coils, H, W)`` where an image has ``(..., 1, H, W)``; k-space is centred and orthonormal,
as everywhere. For maps of measured data see :mod:`iasolve.operators.espirit`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_tensor
from iasolve.operators.bases import centred_fft2, centred_ifft2
from iasolve.operators.masks import as_mask
from iasolve.operators.sense_gram import SensitivityGram

__all__ = ["Sensitivities", "SensitivityEncoding", "birdcage_maps", "root_sum_of_squares"]


class SensitivityEncoding(LinearOperator):
    """What each receive coil measures of one image: ``y_c = mask * fft2c(phase * maps_c * x)``.

    SENSE encoding (Pruessmann et al. 1999, Magn. Reson. Med. 42:952) on a Cartesian grid. ``(..., 1, H, W)`` to
    ``(..., coils, H, W)`` complex, unsampled entries 0. The adjoint is
    ``sum_c conj(phase * maps_c) * ifft2c(mask * y_c)``, its real part for real images. Not diagonal in Fourier space:
    the maps mix frequencies.

    Parameters
    ----------
    maps : Tensor or array
        ``(coils, H, W)``, complex or real; they also fix the image's size.
    mask : Tensor or array, optional
        Broadcastable to ``(H, W)``, or ``(coils, H, W)``; boolean or 0/1, DC in the middle. Fully sampled without.
    dtype : torch.dtype
        Of the image: complex by default, real for a prior over real images.
    phase : Tensor or array, optional
        ``(H, W)``, complex of magnitude 1: the image's phase where ``x`` is to be its real part, e.g. from
        :func:`iasolve.operators.phase.estimate_phase`.

    Attributes
    ----------
    maps : Tensor
        ``(coils, H, W)``, the phase included.
    mask : Tensor
        ``(H, W)`` or ``(coils, H, W)``, float32.

    Raises
    ------
    ValueError
        For shapes that do not fit, maps that are not finite or zero everywhere, a mask with other values than 0 and 1
        or without samples, or a phase whose magnitude is not 1.

    Examples
    --------
    >>> maps = birdcage_maps((32, 32), 4).to(torch.complex64)
    >>> mask = torch.zeros(32)
    >>> mask[::2] = 1
    >>> A = SensitivityEncoding(maps, mask, torch.float32)
    >>> A.in_shape, A.out_shape
    ((1, 32, 32), (4, 32, 32))
    """

    def __init__(
        self,
        maps: Tensor | np.ndarray,
        mask: Tensor | np.ndarray | None = None,
        dtype: torch.dtype = torch.complex64,
        *,
        phase: Tensor | np.ndarray | None = None,
    ) -> None:
        values = _checked_maps(maps, phase)
        coils, height, width = values.shape
        super().__init__(
            (1, height, width),
            (coils, height, width),
            in_dtype=dtype,
            out_dtype=torch.complex128 if dtype in (torch.float64, torch.complex128) else torch.complex64,
            domain="image",
            codomain="kspace",
        )
        self.register_buffer("maps", values.contiguous())
        self.register_buffer("mask", _checked_mask(mask, (coils, height, width)))
        self.maps: Tensor
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``mask * fft2c(maps * x)``, ``(..., coils, H, W)`` complex."""
        x = self.check_in(x)
        return self.mask * centred_fft2(_precise_as(self.maps, x) * x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``sum_c conj(maps_c) * ifft2c(mask * y_c)``, ``(..., 1, H, W)``; its real part for real images."""
        y = self.check_out(y)
        x = (_precise_as(self.maps, y).conj() * centred_ifft2(self.mask * y)).sum(-3, keepdim=True)
        return x if self.is_complex else x.real

    def support(self) -> Tensor | None:
        """Where any map is not 0: maps are cut to 0 where their calibration saw no signal, which is air."""
        return _seen_by_any(self.maps)

    @property
    def gram(self) -> LinearOperator:
        """``A^H A`` at a third of the cost of applying both: see :mod:`iasolve.operators.sense_gram`."""
        return SensitivityGram(self)

    @property
    def common_mask(self) -> bool:
        """Whether all coils are sampled at the same places, so that a mixture of coils is k-space too."""
        return self.mask.ndim == 2

    def mixed(self, matrix: Tensor | np.ndarray) -> SensitivityEncoding:
        """The operator of mixed coils, ``y'_d = sum_c matrix_dc y_c``: the same with the maps mixed.

        Parameters
        ----------
        matrix : Tensor or array
            ``(new coils, coils)``: a compression matrix, or one that whitens the coils' noise.

        Raises
        ------
        ValueError
            When the matrix does not fit, or every coil has its own mask.
        """
        weights = as_tensor(matrix)
        if weights.ndim != 2 or weights.shape[1] != self.out_shape[0]:
            raise ValueError(
                f"the mixing matrix has shape {tuple(weights.shape)}, expected (new coils, {self.out_shape[0]})"
            )
        if not self.common_mask:
            raise ValueError(
                "cannot mix coils that are sampled at different places: a mixture would be known nowhere where one "
                "of them is missing; give all coils one (H, W) mask"
            )
        wide = torch.promote_types(weights.dtype, self.maps.dtype)
        maps = torch.einsum("dc,chw->dhw", weights.to(self.maps.device, wide), self.maps.to(wide))
        return SensitivityEncoding(maps, self.mask, self.in_dtype)

    def sampled(self, mask: Tensor) -> SensitivityEncoding:
        """The operator of fewer samples, those of ``mask`` ``(H, W)``, DC in the middle."""
        # the maps hold the phase
        return SensitivityEncoding(self.maps, self.mask * mask, self.in_dtype)


class Sensitivities(LinearOperator):
    """What each receive coil sees of one image: ``maps_c * x``, ``(..., 1, H, W)`` to ``(..., coils, H, W)`` complex.

    Ahead of another transform it makes a sensitivity encoding of any kind: of radial or spiral k-space
    (Pruessmann et al. 2001, Magn. Reson. Med. 46:638), ``NonUniformFourier(k, (coils, H, W)) @ Sensitivities(maps)``.
    On a Cartesian grid :class:`SensitivityEncoding` is the same in one piece, and faster.

    Parameters
    ----------
    maps : Tensor or array
        ``(coils, H, W)``, complex or real; they also fix the image's size.
    dtype : torch.dtype
        Of the image: complex by default, real for a prior over real images.
    phase : Tensor or array, optional
        ``(H, W)``, complex of magnitude 1: the image's phase where ``x`` is to be its real part.

    Attributes
    ----------
    maps : Tensor
        ``(coils, H, W)``, the phase included.

    Raises
    ------
    ValueError
        For maps that are not ``(coils, H, W)``, not finite or zero everywhere, or a phase whose magnitude is not 1.

    Examples
    --------
    >>> from iasolve.operators import NonUniformFourier
    >>> maps = birdcage_maps((32, 32), 4).to(torch.complex64)
    >>> angle, along = torch.arange(8) * math.pi / 8, torch.linspace(-16, 16, 65)
    >>> k = torch.stack([torch.outer(angle.sin(), along), torch.outer(angle.cos(), along)], dim=-1)
    >>> A = NonUniformFourier(k, (4, 32, 32), torch.complex64) @ Sensitivities(maps, torch.float32)
    >>> A.in_shape, A.out_shape
    ((1, 32, 32), (4, 8, 65))
    """

    def __init__(
        self,
        maps: Tensor | np.ndarray,
        dtype: torch.dtype = torch.complex64,
        *,
        phase: Tensor | np.ndarray | None = None,
    ) -> None:
        values = _checked_maps(maps, phase)
        coils, height, width = values.shape
        out_dtype = torch.complex128 if dtype in (torch.float64, torch.complex128) else torch.complex64
        super().__init__((1, height, width), (coils, height, width), in_dtype=dtype, out_dtype=out_dtype)
        self.register_buffer("maps", values.contiguous())
        self.maps: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """``maps * x``, ``(..., coils, H, W)`` complex."""
        x = self.check_in(x)
        return _precise_as(self.maps, x) * x

    def adjoint(self, y: Tensor) -> Tensor:
        """``sum_c conj(maps_c) y_c``, ``(..., 1, H, W)``; its real part for real images."""
        y = self.check_out(y)
        x = (_precise_as(self.maps, y).conj() * y).sum(-3, keepdim=True)
        return x if self.is_complex else x.real

    def support(self) -> Tensor | None:
        """Where any map is not 0."""
        return _seen_by_any(self.maps)


def birdcage_maps(shape: tuple[int, int], coils: int, *, radius: float = 1.5) -> Tensor:
    """Simulated sensitivities of straight conductors, evenly spaced on a circle around the field of view.

    A long straight wire through ``p`` has a transverse field ``1 / (p - z)`` at ``z = x + i y`` (Biot-Savart, in
    complex notation). Coil ``c`` sits at ``p_c = radius exp(2 pi i c / coils)``; the field of view is the square
    ``[-1, 1]^2``. The maps are divided by their root-sum-of-squares.

    Parameters
    ----------
    shape : (int, int)
        ``(H, W)``.
    coils : int
        Number of coils, at least 1.
    radius : float
        Distance of the coils from the centre, in half widths of the field of view; beyond its corners.

    Returns
    -------
    Tensor
        ``(coils, H, W)`` complex128 with ``sum_c |maps_c|^2 = 1``.

    Examples
    --------
    >>> maps = birdcage_maps((24, 32), 8)
    >>> maps.shape, bool((root_sum_of_squares(maps) - 1).abs().max() < 1e-12)
    (torch.Size([8, 24, 32]), True)
    """
    if coils < 1:
        raise ValueError(f"the number of coils must be at least 1, got {coils}")
    if not radius > math.sqrt(2):
        raise ValueError(f"radius must exceed sqrt(2), where the corners of the field of view lie, got {radius}")
    y, x = (2 * (torch.arange(n, dtype=torch.float64) - n // 2) / n for n in shape)
    z = torch.complex(*torch.broadcast_tensors(x[None, :], y[:, None]))
    angle = 2 * math.pi * torch.arange(coils, dtype=torch.float64) / coils
    position = torch.polar(torch.full_like(angle, radius), angle)
    maps = 1 / (position[:, None, None] - z)
    return maps / root_sum_of_squares(maps)


def root_sum_of_squares(images: Tensor) -> Tensor:
    """``sqrt(sum_c |x_c|^2)``: coil images ``(..., coils, H, W)`` to a magnitude image ``(..., 1, H, W)``.

    Examples
    --------
    >>> root_sum_of_squares(torch.full((4, 2, 2), 0.5))
    tensor([[[1., 1.],
             [1., 1.]]])
    """
    return torch.linalg.vector_norm(images, dim=-3, keepdim=True)


def _precise_as(maps: Tensor, values: Tensor) -> Tensor:
    # maps kept in double must not lift single-precision data to double
    return maps.to(torch.promote_types(values.dtype, torch.complex32))


def _seen_by_any(maps: Tensor) -> Tensor | None:
    seen = (maps != 0).any(0)
    return None if bool(seen.all()) else seen


def _checked_maps(maps: Tensor | np.ndarray, phase: Tensor | np.ndarray | None) -> Tensor:
    """With the phase in them."""
    values = as_tensor(maps)
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"sensitivity maps must be (coils, H, W), got shape {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the sensitivity maps hold NaN or infinite values: set them to 0 where they are unknown")
    if not bool((values != 0).any()):
        raise ValueError("the sensitivity maps are zero everywhere: the measurement would hold nothing")
    values = values.to(torch.promote_types(values.dtype, torch.complex64))
    return values if phase is None else _checked_phase(phase, tuple(values.shape[1:])) * values


def _checked_mask(mask: Tensor | np.ndarray | None, shape: tuple[int, int, int]) -> Tensor:
    """One mask for all coils, ``(H, W)``, or one for each."""
    if mask is None:
        return torch.ones(shape[1:])
    given = as_tensor(mask)
    if given.ndim == 3 and given.shape[0] == 1:
        given = given[0]
    return as_mask(given, shape[1:], shape)


def _checked_phase(phase: Tensor | np.ndarray, shape: tuple[int, ...]) -> Tensor:
    values = as_tensor(phase)
    if tuple(values.shape) != shape:
        raise ValueError(f"the phase has shape {tuple(values.shape)}, expected {shape}")
    if not values.is_complex():
        raise ValueError(f"the phase must be complex of magnitude 1, got {values.dtype}: pass torch.exp(1j * angle)")
    if not bool(((values.abs() - 1).abs() < 1e-4).all()):
        raise ValueError("the phase must have magnitude 1 everywhere: divide it by its magnitude, 1 where that is 0")
    return values
