"""K-space of a single coil: slices in batches, and whether their images are real."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iasolve.noise_level import estimate_sigma
from iasolve.operators.bases import centred_ifft2
from iasolve.operators.fourier import KSpaceMask
from iasolve.operators.masks import acceleration
from iasolve.operators.noise import GaussianNoise
from iasolve.priors import Prior
from iasolve.reconstruction.multicoil import SliceFacts, sampled_positions
from iasolve.spectrum import reflect

__all__ = ["LARGEST_IMAGINARY", "imaginary_share", "single_coil", "single_facts"]

LARGEST_IMAGINARY = 0.05
"""Imaginary share of a single coil's energy above which an image is not taken for real."""


def imaginary_share(kspace: Tensor, mask: Tensor, sigma: Tensor) -> Tensor:
    """Share of each image's energy that is in its imaginary part, noise taken off, in [0, 1].

    Parameters
    ----------
    kspace : Tensor
        ``(B, 1, H, W)``, a single coil.
    mask : Tensor
        ``(H, W)``, centred.
    sigma : Tensor
        Noise level ``(B,)``.

    Returns
    -------
    Tensor
        ``(B,)``. Only frequencies measured together with their mirror images count: a mask that takes one but not the
        other gives any image an imaginary part.
    """
    sampled = torch.fft.ifftshift(mask != 0, dim=(-2, -1))
    both = torch.fft.fftshift(sampled & reflect(sampled), dim=(-2, -1))
    image = centred_ifft2(kspace * both)
    noise = both.sum() * sigma.square()
    imaginary, whole = (part.square().flatten(1).sum(1) for part in (image.imag, image.abs()))
    share = (imaginary - noise / 2).clamp_min(0) / torch.maximum(whole - noise, 1e-3 * whole + 1e-30)
    return share.clamp_max(1)


def single_coil(stack: Tensor, mask: Tensor | np.ndarray | None, prior: Prior) -> list[tuple[Tensor, KSpaceMask]]:
    """Slices ``(B, 1, H, W)`` as one batch; each on its own where they were sampled differently."""
    masks = [sampled_positions(item, mask) for item in stack]
    alike = all(torch.equal(other, masks[0]) for other in masks)
    shape = (1, *stack.shape[-2:])
    dtype = stack.dtype if prior.spectrum.is_complex else stack.real.dtype
    groups = [(stack, masks[0])] if alike else list(zip(stack[:, None], masks, strict=True))
    batches = [(y * sampled, KSpaceMask(sampled, shape, dtype)) for y, sampled in groups]
    if not prior.nonnegative:
        return batches
    # the sign of all of an image is a phase too, which a scanner is free to choose
    return [(y * _signs(operator.adjoint(y)).to(y.dtype), operator) for y, operator in batches]


def _signs(images: Tensor) -> Tensor:
    """Whether real images ``(B, 1, H, W)`` are mostly positive or negative, ``(B, 1, 1, 1)``: 1 or -1."""
    weight = (images * images.abs()).sum((-3, -2, -1), keepdim=True)
    return torch.where(weight < 0, -1.0, 1.0)


def single_facts(y: Tensor, operator: KSpaceMask, noise: GaussianNoise | None) -> list[SliceFacts]:
    """Of each slice, for the report; of what is taken for real, its imaginary share."""
    sampling = acceleration(operator.mask)
    facts: SliceFacts = {"coils": 1, "coils_used": 1, "acceleration": sampling, "maps": "none", "phase": "none"}
    if operator.is_complex:
        return [facts.copy() for _ in y]
    sigma = estimate_sigma(y, operator) if noise is None else y.real.new_full((len(y),), noise.sigma)
    return [{**facts, "imaginary_share": float(share)} for share in imaginary_share(y, operator.mask, sigma)]
