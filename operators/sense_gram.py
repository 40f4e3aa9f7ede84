"""``A^H A`` of a sensitivity encoding, which iterative solvers apply hundreds of times.

Centring the transform multiplies k-space by phases, which cancel between ``F`` and ``F^H``: nothing is shifted here but
the mask, once. Along an axis on which the mask does not vary the transforms cancel too, so that whole lines take
one-dimensional ones. Those are done along the last axis, as it lies in memory, and only where some map is not 0. A few
lines are taken by a product with their rows of the Fourier matrix instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator

if TYPE_CHECKING:
    from iasolve.operators.coils import SensitivityEncoding

__all__ = ["SensitivityGram"]

_FEW = 25
"""Lines up to which products with the Fourier matrix are faster than its fast algorithm, measured from 128 to 640."""

_FEW_OF_AWKWARD = 70
"""The same, of lengths with a prime factor above 13: 230 takes four times as long as 240."""


class SensitivityGram(LinearOperator):
    """``sum_c conj(maps_c) F^H mask F (maps_c x)``, its real part for real images.

    Parameters
    ----------
    encoding : SensitivityEncoding
    """

    def __init__(self, encoding: SensitivityEncoding) -> None:
        super().__init__(encoding.in_shape, encoding.in_shape, in_dtype=encoding.in_dtype)
        mask = torch.fft.ifftshift(encoding.mask, dim=(-2, -1))
        axes = [axis for axis in (-2, -1) if bool((mask != mask.narrow(axis, 0, 1)).any())]
        self.turned = axes == [-2]
        maps = encoding.maps.mT if self.turned else encoding.maps
        mask = mask.mT if self.turned else mask
        seen = (maps != 0).any(0)
        rows, columns = _extent(seen.any(1)), _extent(seen.any(0))
        self.axes: tuple[int, ...] = (-1,) if len(axes) == 1 else tuple(axes)
        self.part = (slice(None), slice(None)) if len(axes) == 2 else (rows, slice(None))
        wave = None
        if len(axes) == 1:
            mask = mask[..., :1, :]
            wave = _few_lines(mask, columns)
        if wave is not None:
            self.part = (rows, columns)
        self.register_buffer("mask", mask)
        self.register_buffer("maps", maps[..., *self.part].contiguous())
        self.register_buffer("conjugate", self.maps.conj().resolve_conj())
        self.register_buffer("wave", wave)
        self.mask: Tensor
        self.maps: Tensor
        self.conjugate: Tensor
        self.wave: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """``A^H A x``."""
        x = self.check_in(x)
        kind = torch.promote_types(x.dtype, torch.complex32)
        part = (x.mT if self.turned else x)[..., *self.part]
        coils = self.maps.to(kind) * part.to(kind)
        if self.wave is not None:
            wave = self.wave.to(kind)
            coils = (coils @ wave) @ wave.mH
        elif self.axes:
            coils = torch.fft.fftn(coils, dim=self.axes).mul_(self.mask)
            coils = torch.fft.ifftn(coils, dim=self.axes)
        told = coils.mul_(self.conjugate.to(kind)).sum(-3, keepdim=True)
        told = told if self.is_complex else told.real
        out = torch.zeros_like(x)
        (out.mT if self.turned else out)[..., *self.part] = told
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """The same: ``A^H A`` is its own adjoint."""
        return self.forward(y)


def _extent(seen: Tensor) -> slice:
    """From the first to the last."""
    places = torch.nonzero(seen).flatten().tolist()
    return slice(places[0], places[-1] + 1)


def _few_lines(mask: Tensor, columns: slice) -> Tensor | None:
    """The sampled frequencies' waves ``(positions, lines)``, complex double, of one mask ``(1, n)``; None of many."""
    n = mask.shape[-1]
    if mask.ndim > 2:
        return None  # each coil has its own
    lines = torch.nonzero(mask[0]).flatten()
    positions = torch.arange(n, device=mask.device)[columns]
    few = _FEW_OF_AWKWARD if _largest_factor(n) > 13 else _FEW
    if len(lines) * len(positions) > few * n:
        return None
    # turns are reduced before they are multiplied by 2 pi: exact whatever the product
    turns = (positions[:, None] * lines % n).double() / n
    return torch.polar(torch.full_like(turns, n**-0.5), -2 * torch.pi * turns)


def _largest_factor(n: int) -> int:
    factor, largest = 2, 1
    while n > 1:
        if n % factor:
            factor += 1
        else:
            n, largest = n // factor, factor
    return largest
