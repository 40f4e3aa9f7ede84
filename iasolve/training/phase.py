"""Smooth random phase: complex images out of magnitudes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["PhaseField"]


@dataclass(frozen=True)
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

    constant: float = math.pi
    linear: float = 1.5
    smooth: float = 0.7
    modes: int = 4
    exponent: float = 1.5

    def __post_init__(self) -> None:
        if min(self.constant, self.linear, self.smooth, self.modes) < 0:
            raise ValueError(f"a phase field's constant, linear, smooth and modes must be at least 0, got {self}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PhaseField:
        """From a table of the training configuration; refuses unknown keys by name."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(f"unknown key(s) in data.phase: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**data)

    def draw(self, count: int, shape: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """``phi`` of ``count`` images, ``(count, H, W)`` float32."""
        waves = [
            (ky, kx) for ky in range(self.modes + 1) for kx in range(-self.modes, self.modes + 1) if ky > 0 or kx > 0
        ]
        t = [np.arange(n) / n for n in shape]
        constant = rng.uniform(-self.constant, self.constant, count)
        linear = self.linear * rng.standard_normal((count, 2))
        weights = rng.standard_normal((count, 2, len(waves)))
        amplitude = np.array([math.hypot(*k) ** -self.exponent for k in waves])
        amplitude *= self.smooth / max(float(np.linalg.norm(amplitude)), 1e-12)
        # cos(a + b) and sin(a + b) from the axes' own waves: no array of all waves over all pixels
        rows = np.stack([np.exp(1j * math.pi * ky * t[0]) for ky, _ in waves]) if waves else np.zeros((0, shape[0]))
        columns = np.stack([np.exp(1j * math.pi * kx * t[1]) for _, kx in waves]) if waves else np.zeros((0, shape[1]))
        coefficients = amplitude * (weights[:, 0] - 1j * weights[:, 1])
        smooth = np.einsum("bk,ky,kx->byx", coefficients, rows, columns, optimize=True).real
        ramp = linear[:, :1, None] * (t[0] - 0.5)[:, None] + linear[:, 1:, None] * (t[1] - 0.5)
        return torch.from_numpy((constant[:, None, None] + ramp + smooth).astype(np.float32))

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """``images`` ``(B, C, H, W)``, real or complex, each with its own phase, the same in every channel."""
        phi = self.draw(len(images), (images.shape[-2], images.shape[-1]), rng).to(images.device)[:, None]
        return images * torch.polar(torch.ones_like(phi), phi)
