"""Total-variation SENSE: the classical competitor for operators that are not diagonal in Fourier space.

Minimises, for any linear operator and complex or real images,::

    |y - A x|^2 / (c sigma^2) + weight * sum_pixels sqrt(|dx|^2 + |dy|^2)

with ``c = 1`` for complex measurements and 2 for real ones: minus the log likelihood plus total variation, so that the
weight means the same as in :mod:`iasolve.classical.total_variation`, in units of one over the image's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.classical.conjugate import Isometry, Regularised, mean_gain
from iasolve.operators.base import LinearOperator, as_declared
from iasolve.spectrum import frequencies

__all__ = ["TotalVariationSense", "total_variation_sense", "typical_weight"]

_INNER = 4  # conjugate-gradient iterations of one image update; more do not pay, as each starts from the last
_RENEWED = 25  # iterations from one residual that is not taken from the one before to the next
_ADAPT_UNTIL = 200  # a penalty that stays put from here on makes convergence ADMM's textbook theorem


class TotalVariationSense(NamedTuple):
    """What :func:`total_variation_sense` returns.

    Attributes
    ----------
    image : Tensor
        ``(B, C, H, W)``, of the operator's kind.
    iterations : int
    converged : bool
        Whether every image met the tolerance.
    objective : Tensor
        ``(B,)``.

    Examples
    --------
    >>> from iasolve.operators import Identity
    >>> y = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> result = total_variation_sense(Identity((1, 32, 32)), y, sigma=1.0, weight=1.0)
    >>> result.converged, result.objective.shape
    (True, torch.Size([1]))
    """

    image: Tensor
    iterations: int
    converged: bool
    objective: Tensor


@torch.no_grad()
def total_variation_sense(
    operator: LinearOperator,
    y: Tensor,
    sigma: float,
    weight: float,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
    nonnegative: bool = False,
    start: Tensor | None = None,
) -> TotalVariationSense:
    """Isotropic total variation with periodic differences by ADMM (split Bregman) on ``d = K x``.

    The image update, ``2 / (c sigma^2) A^H A + rho K^T K``, is solved by a few warm-started conjugate-gradient
    iterations, preconditioned in Fourier space; the penalty ``rho`` is kept per image by balancing relative residuals.

    Parameters
    ----------
    operator : LinearOperator
        ``A``, from images ``(C, H, W)``.
    y : Tensor
        ``(B, *operator.out_shape)``.
    sigma : float
        Root mean square of a noise value; positive.
    weight : float
        Positive.
    tolerance : float
        An image is finished when the primal and the dual residual, relative to their own size, are below it. The
        default leaves a relative distance of about 1e-3 to the minimiser.
    max_iterations : int
        What is left then is returned, with ``converged`` false.
    nonnegative : bool
        Add the constraint ``x >= 0``, for real images; the image returned meets it exactly.
    start : Tensor, optional
        ``(B, C, H, W)``; the minimum does not depend on it where it is unique.

    Raises
    ------
    ValueError
        For numbers that are not positive, shapes that do not fit, or a sign asked of complex images.

    References
    ----------
    Rudin, Osher, Fatemi, Physica D 60, 1992. Goldstein and Osher, SIAM J. Imaging Sci. 2(2), 2009. Block, Uecker,
    Frahm, Magn. Reson. Med. 57, 2007 (in parallel imaging). Wohlberg, arXiv:1704.06209 (relative residuals).

    Examples
    --------
    >>> from iasolve.operators import GaussianNoise, SensitivityEncoding, birdcage_maps, line_mask
    >>> clean = torch.zeros(1, 1, 64, 64)
    >>> clean[..., 16:48, 20:44] = 1
    >>> A = SensitivityEncoding(birdcage_maps((64, 64), 4), line_mask((64, 64), 3, 0.1, seed=0), torch.float32)
    >>> y = GaussianNoise(0.01).sample(A(clean), torch.Generator().manual_seed(0))
    >>> image = total_variation_sense(A, y, sigma=0.01, weight=100.0).image
    >>> bool((image - clean).square().mean().sqrt() < 0.02)
    True
    """
    for name, value in (("sigma", sigma), ("weight", weight), ("tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if y.ndim != len(operator.out_shape) + 1 or tuple(y.shape[1:]) != operator.out_shape:
        raise ValueError(f"expected measurements (B, {', '.join(map(str, operator.out_shape))}), got {tuple(y.shape)}")
    if nonnegative and operator.is_complex:
        raise ValueError("complex images have no sign: nonnegative is for real ones")
    scale = 2 / (sigma**2 * (1.0 if y.is_complex() else 2.0))

    def adjoint(values: Tensor) -> Tensor:
        return as_declared(operator.adjoint(values), operator.in_dtype)

    back, normal = adjoint(y), operator.gram
    gram = _gram(back.shape[-2], back.shape[-1], nonnegative, back)
    gain = mean_gain(operator, back)

    space = Isometry(back)
    told, bins = scale * space.spectrum(back), space.bins(gram)

    def closest(h: Tensor, seen: Tensor | None, target: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        """From ``h`` on towards the minimiser of the data term plus ``rho / 2 |K x - target|^2``, as spectra.

        ``seen``: the data term's matrix times ``h``, where it is known; of the outcome it is returned too.
        """
        spread = rho.reshape(-1, 1, 1, 1)
        system = Regularised(
            lambda v: scale * as_declared(normal(v), operator.in_dtype),
            spread * gram,
            1 / (scale * gain + spread * gram),
            space,
        )
        right = told + spread * space.spectrum(_merged(target))
        product = None if seen is None else seen + spread * bins * h
        found = system.solve(right, h, _INNER, product=product)
        return found.solution, found.product - spread * bins * found.solution

    # scaled to explain the data: a start of the right size also sets the penalty
    x = back / gain if start is None else start.to(back)
    d = _differences(x, nonnegative)
    u = torch.zeros_like(d)
    rho = weight / (0.5 * _length(d).flatten(1).mean(1)).clamp_min(1e-12)
    converged, used = False, 0
    h, seen = space.spectrum(x), None
    for used in range(1, max_iterations + 1):
        # now and then anew, as rounding adds up
        h, seen = closest(h, None if used % _RENEWED == 0 else seen, d - u, rho)
        x = space.image(h)
        moved = _differences(x, nonnegative)
        before = d
        d = _shrunk(moved + u, weight / rho, nonnegative)
        u = u + moved - d
        primal = _norm(moved - d) / torch.maximum(_norm(moved), _norm(d)).clamp_min(1e-20)
        dual = _norm(_merged(d - before)) / _norm(_merged(u)).clamp_min(1e-20)
        if float(torch.maximum(primal, dual).max()) < tolerance:
            converged = True
            break
        if used <= _ADAPT_UNTIL and used % 5 == 0:
            factor = (primal / dual.clamp_min(1e-20)).sqrt().clamp(0.5, 2)
            rho = rho * factor
            u = u / factor.reshape(-1, 1, 1, 1, 1)
    if nonnegative:
        x = x.clamp_min(0)
    misfit = 0.5 * scale * (y - operator(x)).abs().square().flatten(1).sum(1)
    variation = _length(_differences(x, False)).flatten(1).sum(1)
    return TotalVariationSense(x, used, converged, misfit + weight * variation)


def typical_weight(image: Tensor) -> float:
    """The weight that fits an image's gradients, ``1 / mean sqrt(|dx|^2 + |dy|^2)``, where there is none to tune by.

    On the bundled eight-coil slice at reduced resolution, of a CG-SENSE image, it is as good a weight as any tuned by
    held-out k-space: relative error 0.202 with either.

    Parameters
    ----------
    image : Tensor
        ``(..., H, W)``, real or complex.

    Returns
    -------
    float
        In units of one over the image's.

    Examples
    --------
    >>> import torch
    >>> ramp = torch.arange(64.0).repeat(64, 1)
    >>> typical_weight(10 * ramp) < typical_weight(ramp)  # the steeper the image, the smaller the weight
    True
    """
    mean = float(_length(_differences(image, False)).mean())
    return 1 / max(mean, 1e-20)


def _differences(x: Tensor, nonnegative: bool) -> Tensor:
    """``K x``, ``(B, parts, C, H, W)``: forward differences down and right, and the image itself if constrained."""
    parts = [torch.roll(x, -1, -2) - x, torch.roll(x, -1, -1) - x]
    return torch.stack([*parts, x] if nonnegative else parts, dim=1)


def _merged(d: Tensor) -> Tensor:
    """``K^T d``."""
    x = torch.roll(d[:, 0], 1, -2) - d[:, 0] + torch.roll(d[:, 1], 1, -1) - d[:, 1]
    return x + d[:, 2] if d.shape[1] == 3 else x


def _gram(height: int, width: int, nonnegative: bool, like: Tensor) -> Tensor:
    """Eigenvalues of ``K^T K``, ``(H, W)``."""
    ky, kx = (2 * math.pi * frequencies(n).double() / n for n in (height, width))
    values = (2 - 2 * ky.cos())[:, None] + (2 - 2 * kx.cos()) + float(nonnegative)
    return values.to(like.device, like.real.dtype)


def _length(d: Tensor) -> Tensor:
    """Lengths of gradients ``(B, C, H, W)``."""
    return (d[:, 0].abs().square() + d[:, 1].abs().square()).sqrt()


def _shrunk(d: Tensor, by: Tensor, nonnegative: bool) -> Tensor:
    """Gradients shortened by ``by``, a constrained image clipped: the proximal map."""
    length = _length(d)
    keep = (1 - by.reshape(-1, 1, 1, 1) / length.clamp_min(1e-20)).clamp_min(0)
    gradients = keep[:, None] * d[:, :2]
    return torch.cat([gradients, d[:, 2:].clamp_min(0)], dim=1) if nonnegative else gradients


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).abs().square().sum(1).sqrt()
