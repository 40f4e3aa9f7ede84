"""The Fourier transform at arbitrary positions of k-space: radial, spiral and other trajectories."""

from __future__ import annotations

import importlib
import math
from functools import cached_property
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_tensor, image_shape
from iasolve.operators.host import HostOperator
from iasolve.operators.nonuniform_gram import NonUniformGram, convolution_spectrum

__all__ = ["NonUniformFourier"]

_EXACT = 1e-12


class NonUniformFourier(HostOperator):
    """Fourier transform at given positions ``(ky, kx)`` of k-space, orthonormal on the Cartesian ones.

    ::

        (A x)[c, m] = 1 / sqrt(H W) sum_{i, j} x[c, i, j] exp(-2 pi i (ky[m] (i - H // 2) / H + kx[m] (j - W // 2) / W))

    On the Cartesian positions ``ky = -(H // 2) .. (H - 1) // 2`` (``kx`` alike) it is the centred orthonormal Fourier
    transform, :func:`iasolve.operators.centred_fft2`. At other positions it is no isometry: samples that crowd
    together add up in ``A^H A``, and no density compensation is applied.

    Real or complex images ``(..., C, H, W)`` go to complex samples ``(..., C, *samples)``.

    Parameters
    ----------
    coordinates : Tensor or array
        ``(*samples, 2)``, real: ``(ky, kx)`` in cycles per field of view, each within half the image's size,
        ``|ky| <= H / 2`` and ``|kx| <= W / 2``; or as ``unit`` says.
    in_shape : (C, H, W)
    dtype : torch.dtype
        Of the image; for real images the adjoint takes the real part. The precision follows the input.
    tolerance : float, optional
        Relative accuracy asked of the transform, met within a small factor; by default 1e-12 in double and 1e-6 in
        single precision, where rounding adds about 1e-7 times the image's size (up to 1e-5 at 128x128). The adjoint
        is that of the approximated transform, exact up to rounding at any tolerance; ``gram`` is that of the exact one.
    unit : {"field-of-view", "pixel", "radian"}, optional
        Of the coordinates: cycles per field of view, cycles per pixel or radians per pixel. Without it, cycles per
        field of view, and coordinates that all fit another unit are refused.

    Notes
    -----
    Computed by FINUFFT (Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41, C479, 2019) on the CPU with
    as many threads as torch uses; tensors on another device are copied to the host and back. The library is
    imported when the first operator is made.

    Raises
    ------
    ImportError
        Without the library, naming the command that installs it.
    ValueError
        For coordinates of another shape, complex, not finite, beyond half the image's size, or none beyond pi, which
        look like another unit; for an unknown unit; for an ``in_shape`` that is not ``(C, H, W)``; for a tolerance
        outside (0, 1).

    Examples
    --------
    Eight radial spokes of 64 samples:

    >>> angle = torch.arange(8) * math.pi / 8
    >>> radius = torch.linspace(-32, 32, 64)
    >>> k = torch.stack([radius * angle.sin()[:, None], radius * angle.cos()[:, None]], -1)
    >>> A = NonUniformFourier(k, (1, 64, 64))
    >>> A(torch.ones(1, 64, 64)).shape
    torch.Size([1, 8, 64])
    """

    def __init__(
        self,
        coordinates: Tensor | np.ndarray,
        in_shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        *,
        tolerance: float | None = None,
        unit: str | None = None,
    ) -> None:
        shape = image_shape(in_shape)
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(f"the tolerance must lie between 0 and 1, got {tolerance}")
        k = as_tensor(coordinates).detach().cpu()
        _check_values(k)
        k = _in_cycles(k.double(), shape, unit)
        _check_reach(k, shape)
        _finufft()
        complex_dtype = torch.promote_types(dtype, torch.complex64)
        super().__init__(shape, (shape[0], *k.shape[:-1]), in_dtype=dtype, out_dtype=complex_dtype)
        self.tolerance = tolerance
        self.register_buffer("coordinates", k.double())
        self.coordinates: Tensor

    def _forward(self, x: np.ndarray) -> np.ndarray:
        height, width = self.in_shape[1:]
        images = self._complex(x).reshape(-1, height, width)
        samples = _finufft().nufft2d2(*self._radians(images), images, isign=-1, **self._options(images))
        return samples.reshape(len(x), *self.out_shape) / math.sqrt(height * width)

    @property
    def gram(self) -> LinearOperator:
        """``A^H A`` without visiting the samples: see :mod:`iasolve.operators.nonuniform_gram`."""
        return NonUniformGram(self)

    @cached_property
    def convolution(self) -> Tensor:
        """The spectrum of the convolution that ``A^H A`` is, real, double, on the CPU."""
        return convolution_spectrum(self)

    def sum_of_waves(self, size: tuple[int, int]) -> Tensor:
        """``sum_m exp(2 pi i (ky[m] dy / H + kx[m] dx / W))`` at ``d = -(n // 2) .. (n - 1) // 2``, complex double."""
        ones = np.ones(math.prod(self.out_shape[1:]), dtype=np.complex128)
        # whatever tolerance was asked for: what is not quite positive ends conjugate gradients
        options = self._options(ones) | {"eps": _EXACT}
        return torch.from_numpy(_finufft().nufft2d1(*self._radians(ones), ones, size, isign=1, **options))

    def _adjoint(self, y: np.ndarray) -> np.ndarray:
        height, width = self.in_shape[1:]
        samples = self._complex(y).reshape(-1, math.prod(self.out_shape[1:]))
        images = _finufft().nufft2d1(
            *self._radians(samples), samples, (height, width), isign=1, **self._options(samples)
        )
        return images.reshape(len(y), *self.in_shape) / math.sqrt(height * width)

    @staticmethod
    def _complex(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, dtype=np.result_type(values.dtype, np.complex64))

    def _radians(self, values: np.ndarray) -> np.ndarray:
        """Coordinates in radians per pixel, ``(2, samples)``, in the precision of ``values``."""
        scale = torch.tensor([2 * math.pi / n for n in self.in_shape[1:]], dtype=torch.float64)
        k = self.coordinates.detach().cpu().double().reshape(-1, 2) * scale
        return np.ascontiguousarray(k.numpy().T, dtype=values.real.dtype)

    def _options(self, values: np.ndarray) -> dict[str, float]:
        # the floors are what the library reaches: below them it warns and takes its own
        default, floor = (_EXACT, 1e-14) if values.dtype == np.complex128 else (1e-6, 1e-6)
        eps = default if self.tolerance is None else max(self.tolerance, floor)
        return {"eps": eps, "nthreads": torch.get_num_threads()}


def _in_cycles(k: Tensor, shape: tuple[int, ...], unit: str | None) -> Tensor:
    """Coordinates in cycles per field of view."""
    size = torch.tensor(shape[1:], dtype=torch.float64)
    scales = {"field-of-view": torch.ones(2), "pixel": size, "radian": size / (2 * math.pi)}
    if unit is not None and unit not in scales:
        raise ValueError(f"the unit of coordinates must be one of {', '.join(map(repr, scales))} or None, got {unit!r}")
    largest = float(k.abs().max())
    # smaller images reach hardly further than pi in their own unit
    if unit is None and min(shape[1:]) >= 4 * math.pi and 0 < largest <= math.pi * (1 + 1e-3):
        likely = "pixel" if largest <= 0.5 * (1 + 1e-3) else "radian"
        name = {"pixel": "cycles per pixel", "radian": "radians per pixel"}[likely]
        raise ValueError(
            f"the coordinates reach no further than {largest:.4g}, and cycles per field of view of "
            f"{shape[1]}x{shape[2]} pixels reach {shape[1] / 2:g} and {shape[2] / 2:g}: they look like {name}. Give "
            f"unit={likely!r}, or unit='field-of-view' if only the centre of k-space was measured"
        )
    return k * scales[unit or "field-of-view"]


def _check_values(k: Tensor) -> None:
    if k.ndim < 2 or k.shape[-1] != 2 or k.numel() == 0 or k.is_complex():
        raise ValueError(f"the coordinates must be real, (*samples, 2), got shape {tuple(k.shape)}, {k.dtype}")
    if not bool(torch.isfinite(k).all()):
        raise ValueError("the coordinates hold NaN or infinite values")


def _check_reach(k: Tensor, shape: tuple[int, ...]) -> None:
    largest = k.abs().reshape(-1, 2).amax(0).tolist()
    # trajectories that end on the edge come with rounding
    if any(value > n / 2 * (1 + 1e-5) for value, n in zip(largest, shape[1:], strict=True)):
        raise ValueError(
            f"the coordinates reach |ky| = {largest[0]:.4g}, |kx| = {largest[1]:.4g} cycles per field of view, but "
            f"{shape[1]}x{shape[2]} pixels hold no more than {shape[1] / 2:g} and {shape[2] / 2:g}: convert their "
            "units, take a larger image, or drop the samples beyond"
        )


def _finufft() -> ModuleType:
    try:
        return importlib.import_module("finufft")
    except ImportError as error:
        raise ImportError("NonUniformFourier needs FINUFFT: pip install 'iasolve[nufft]'") from error
