"""``A^H A`` of a sensitivity encoding, which iterative solvers apply hundreds of times.

Centring the transform multiplies k-space by phases, which cancel between ``F`` and ``F^H``: nothing is shifted here but
the mask, once. Along an axis on which the mask does not vary the transforms cancel too, so that whole lines take
one-dimensional ones. Those are done along the last axis, as it lies in memory, and only where some map is not 0. Where
few lines hold samples, products with their rows of the Fourier matrix take the place of its fast algorithm.
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
        varies = [bool((mask != mask.narrow(axis, 0, 1)).any()) for axis in (-2, -1)]
        sampled = (mask != 0).reshape(-1, *mask.shape[-2:]).any(0)
        down, across = (int(sampled.any(axis).sum()) for axis in (1, 0))
        self.turned = varies == [True, False] or (all(varies) and down < across)
        maps = encoding.maps.mT if self.turned else encoding.maps
        mask = mask.mT if self.turned else mask
        seen = (maps != 0).any(0)
        rows, columns = _extent(seen.any(1)), _extent(seen.any(0))
        everywhere = slice(None)
        self.axes: tuple[int, ...] = (-2, -1) if all(varies) else (-1,) if any(varies) else ()
        self.part = (everywhere if all(varies) else rows, everywhere if any(varies) else columns)
        lines = _few_lines(mask, columns, 2 if all(varies) else 1) if any(varies) else None
        wave = None
        if lines is not None:
            wave = _waves(lines, mask.shape[-1], columns)
            mask, self.axes, self.part = mask[..., lines], self.axes[:-1], (self.part[0], columns)
        elif len(self.axes) == 1:
            mask = mask[..., :1, :]
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
        wave = None if self.wave is None else self.wave.to(kind)
        coils = coils if wave is None else coils @ wave
        if self.axes:
            coils = torch.fft.fftn(coils, dim=self.axes).mul_(self.mask)
            coils = torch.fft.ifftn(coils, dim=self.axes)
        coils = coils if wave is None else coils @ wave.mH
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


def _few_lines(mask: Tensor, columns: slice, axes: int) -> Tensor | None:
    """Places along the last axis where one mask ``(n, N)`` has samples; None of many, or of a mask for each coil.

    ``axes``: how many the fast algorithm would transform.
    """
    n = mask.shape[-1]
    if mask.ndim > 2:
        return None
    lines = torch.nonzero((mask != 0).any(0)).flatten()
    few = axes * (_FEW_OF_AWKWARD if _largest_factor(n) > 13 else _FEW)
    return lines if len(lines) * (columns.stop - columns.start) <= few * n else None


def _waves(lines: Tensor, n: int, columns: slice) -> Tensor:
    """``(positions, lines)``, complex double."""
    positions = torch.arange(n, device=lines.device)[columns]
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
