"""Smooth random phase: complex images out of magnitudes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from iasolve.tables import FORBID, Amount, Number, Whole, as_table, table
from iasolve.training.streams import Rng

__all__ = ["PhaseField"]


@table("data.phase")
@dataclass(frozen=True, config=FORBID)
class PhaseField:
    """Multiplies images by ``exp(i phi)``, with ``phi`` a random field of low order.

    It stands for what makes the phase of MR images: a receiver's constant, a shift of the echo (linear), and a slowly
    varying field and coil sensitivity. With ``t = (y, x)`` running over ``[0, 1)`` in the image::

        phi(t) = c + g . (t - 1/2) + s sum_k |k|^-a (u_k cos(pi k . t) + v_k sin(pi k . t)) / n

    ``c`` is uniform in ``[-constant, constant]``, ``g`` has two normal values of standard deviation ``linear``, ``u``
    and ``v`` are standard normal, ``s = smooth``, ``a = exponent``; the sum runs over half of the plane of whole
    numbers ``k = (ky, kx)`` with ``0 < max |k| <= modes`` (``k`` and ``-k`` are the same wave), and
    ``n^2 = sum_k |k|^-2a`` makes ``s`` the field's root mean square over draws. A wave of ``k`` has ``k`` half periods
    in the field of view, so that the phase of opposite edges is not the same.

    Attributes
    ----------
    constant : float
        Radians.
    linear : float
        Radians from edge to edge.
    smooth : float
        Radians, root mean square.
    modes : int
        Largest number of half periods along an axis.
    exponent : float
        Power law of the amplitudes.
    """

    constant: Amount = math.pi
    linear: Amount = 1.5
    smooth: Amount = 0.7
    modes: Whole = 4
    exponent: Number = 1.5

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PhaseField:
        """From a table of the training configuration; refuses unknown keys by name."""
        return cls(**as_table(data, "data.phase"))

    def draw(self, count: int, shape: tuple[int, int], rng: Rng, device: torch.device | None = None) -> Tensor:
        """``phi`` of ``count`` images, ``(count, H, W)`` float32."""
        ky, kx = np.arange(self.modes + 1), np.arange(-self.modes, self.modes + 1)
        waves = [(y, x) for y in ky for x in kx if y > 0 or x > 0]
        t = [np.arange(n) / n for n in shape]
        constant = rng.uniform(-self.constant, self.constant, count)
        linear = self.linear * rng.standard_normal((count, 2))
        weights = rng.standard_normal((count, 2, len(waves)))
        amplitude = np.array([math.hypot(*k) ** -self.exponent for k in waves])
        amplitude *= self.smooth / max(float(np.linalg.norm(amplitude)), 1e-12)
        coefficients = np.zeros((count, len(ky), len(kx)), dtype=complex)
        places = tuple(np.array(waves, dtype=int).reshape(-1, 2).T)
        coefficients[:, places[0], places[1] + self.modes] = amplitude * (weights[:, 0] - 1j * weights[:, 1])
        # cos(a + b) and sin(a + b) from the axes' own waves: no array of all waves over all pixels
        axes = (np.exp(1j * math.pi * k[:, None] * along) for k, along in zip((ky, kx), t, strict=True))
        rows, columns = (torch.from_numpy(a).to(device) for a in axes)
        smooth = torch.einsum("bkl,ky,lx->byx", torch.from_numpy(coefficients).to(device), rows, columns).real
        ramps = [torch.from_numpy(linear[:, i, None] * (t[i] - 0.5)).to(device) for i in (0, 1)]
        start = torch.from_numpy(constant).to(device)[:, None, None]
        return (start + ramps[0][:, :, None] + ramps[1][:, None, :] + smooth).float()

    def __call__(self, images: Tensor, rng: Rng) -> Tensor:
        """``images`` ``(B, C, H, W)``, real or complex, each with its own phase, the same in every channel."""
        phi = self.draw(len(images), (images.shape[-2], images.shape[-1]), rng, images.device)[:, None]
        return images * torch.polar(torch.ones_like(phi), phi)
