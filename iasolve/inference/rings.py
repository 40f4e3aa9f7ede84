"""Rings of an image grid: sums over their bins, and images that live in one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.inference.intensity import unit_phases
from iasolve.operators.base import LinearOperator
from iasolve.spectrum import ifft2

__all__ = ["ring_probes", "ring_sums"]


def ring_sums(values: Tensor, rings: Tensor, count: int) -> Tensor:
    """Sums ``(..., S)`` of ``(..., H, W)`` over each ring's bins; ``rings`` ``(H, W)``, below 0 where there is none."""
    inside = rings >= 0
    out = values.new_zeros((*values.shape[:-2], count))
    return out.index_add(-1, rings[inside], values[..., inside])


def ring_probes(operator: LinearOperator, rings: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """For each ring a spectrum ``(S, C, H, W)`` of unit magnitudes and random phases there, 0 elsewhere; its image."""
    like = torch.zeros(1, dtype=torch.promote_types(operator.in_dtype, torch.float32), device=rings.device)
    masks = torch.stack([rings == i for i in range(count)])[:, None]
    spectra = masks * unit_phases(operator.in_shape, seed, like)
    images = ifft2(spectra)
    return spectra, images if operator.is_complex else images.real
