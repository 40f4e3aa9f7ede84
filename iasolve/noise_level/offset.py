"""The constant that was taken off an image whose lowest values were zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iasolve.operators.base import LinearOperator, as_declared, as_floating
from iasolve.operators.fourier import Identity
from iasolve.operators.noise import GaussianNoise
from iasolve.operators.spectral_noise import SpectralNoise
from iasolve.spectrum import fft2, frequencies, ifft2

__all__ = ["estimate_offset"]

_WIDTH = 1.5  # standard deviation of the smoothing, pixels
_DARKEST = 0.01  # share of pixels that are taken for the floor
_NORMAL = 2.3263  # of a normal distribution's lowest hundredth
_SIGNIFICANT = 4.0  # smoothed noise levels
_ALIASES = 0.12  # of the range of an image with missing frequencies


def estimate_offset(y: Tensor, operator: LinearOperator, noise: GaussianNoise | SpectralNoise) -> float:
    """Offset ``b <= 0`` with which ``x - b`` is not negative, where noise does not explain values below zero.

    z-scored images, images in [-1, 1], Hounsfield units and background-subtracted images are images of non-negative
    values plus a constant. It shows in the darkest pixels: the lowest hundredth of the image, smoothed by a Gaussian of
    1.5 pixels, less what the noise that is left there explains. Where less than a hundredth of the image is as dark as
    zero was, the offset is too high by the value of the darkest hundredth. A signed field without a floor has no
    offset that means anything: the same number comes back.

    Subtract ``b`` times ``A`` of ones from the measurement, solve, and add ``b`` to the image.

    Parameters
    ----------
    y : Tensor
        One measurement, ``(*operator.out_shape)``; of k-space, the real part of ``A^H y`` is looked at.
    operator : LinearOperator
        From real images: diagonal in Fourier space, or one that leaves pixels out and the others as they are.
    noise : GaussianNoise or SpectralNoise
        Of ``y``.

    Returns
    -------
    float
        In the image's units. 0 where the image goes no further below zero than four levels of the smoothed noise (and,
        where frequencies are missing, an eighth of its range, which aliases reach), for
        operators that lose a constant (high-pass), and for blank images.

    Raises
    ------
    ValueError
        When the operator is another one or of complex images, or ``y`` has another shape.

    Examples
    --------
    >>> from iasolve.operators import Identity
    >>> from iasolve.samples import load_samples
    >>> clean = torch.from_numpy(load_samples().images[:1]).float()
    >>> scored = (clean - clean.mean()) / clean.std()
    >>> noise = GaussianNoise(0.1)
    >>> y = noise.sample(scored, torch.Generator().manual_seed(0))
    >>> round(float(scored.min()), 2), round(estimate_offset(y, Identity((1, 128, 128)), noise), 2)
    (-0.75, -0.74)
    """
    if not tells_offset(operator):
        raise ValueError(
            f"cannot estimate the offset of what {type(operator).__name__} measures: expected an operator that is "
            "diagonal in Fourier space or leaves pixels out, from real images; give the offset"
        )
    if tuple(y.shape) != operator.out_shape:
        raise ValueError(
            f"the measurement has shape {tuple(y.shape)}, expected one of {operator.out_shape}: estimate the offsets "
            "of a batch one by one"
        )
    height, width = operator.in_shape[1:]
    y = as_floating(y)
    unit = float(y.abs().max())
    transfer = operator.transfer()
    if transfer is None:
        return unit * _offset_of_pixels(y / unit, operator, noise, unit) if unit else 0.0
    constant = float(transfer[..., 0, 0].abs().min())
    if constant < 1e-3 * float(transfer.abs().max()) or unit == 0:
        return 0.0
    back = as_declared(operator.adjoint(y / unit), operator.in_dtype).double()
    window = _window((height, width)).to(back.device)
    levels = noise.on_grid((height, width)) if isinstance(noise, SpectralNoise) else torch.tensor(noise.sigma)
    # a real image keeps half the variance of complex noise
    share = 0.5 if operator.out_dtype.is_complex else 1.0
    if type(operator) is Identity:  # the same for less memory: photographs are large
        left = float((share * (window * levels.to(back.device)).square().mean()).sqrt()) / unit
        half = window[:, : width // 2 + 1].clone()
        del window
        smooth = torch.stack([torch.fft.irfft2(torch.fft.rfft2(plane).mul_(half), plane.shape) for plane in back])
    else:
        # A^H A is undone where it amplifies, as whitening does; where it blurs, it only smooths the image further
        gain = transfer.abs().double().to(back.device)
        undone = 1 / gain.square().clamp_min(constant**2)
        smooth = ifft2(window * undone * fft2(back)).real
        through = gain * undone
        left = float((share * (window * through * levels.to(back.device)).square().mean()).sqrt()) / unit
    # missing frequencies make ringing and aliases, which go below zero without any offset
    missing = bool((transfer.abs() < 1e-3 * constant).any())
    doubt = _ALIASES * float(smooth.max() - smooth.min()) if missing else 1e-6
    return unit * _floor(smooth.flatten(), left, doubt)


def tells_offset(operator: LinearOperator) -> bool:
    """Whether what an operator measures tells the image's floor."""
    return not operator.is_complex and (operator.transfer() is not None or _known_pixels(operator) is not None)


def _floor(values: Tensor, left: float, doubt: float) -> float:
    """Of smoothed pixels in which noise of a level is ``left``; 0 where they go below zero by chance or ``doubt``."""
    lowest = float(values.kthvalue(max(1, math.ceil(_DARKEST * values.numel()))).values)
    return lowest + _NORMAL * left if lowest < -_SIGNIFICANT * left - doubt else 0.0


def _known_pixels(operator: LinearOperator) -> Tensor | None:
    """Which pixels ``(C, H, W)`` an operator leaves as they are, where all others are missing; else None."""
    gains = operator.row_gains() if operator.pointwise and operator.out_shape == operator.in_shape else None
    if gains is None or operator.out_dtype.is_complex or not bool(((gains == 0) | (gains == 1)).all()):
        return None
    return gains.expand(operator.out_shape)


def _offset_of_pixels(y: Tensor, operator: LinearOperator, noise: GaussianNoise | SpectralNoise, unit: float) -> float:
    """Known pixels, each the mean of those around it: the fewer there are, the more noise is left in it."""
    known = _known_pixels(operator)
    assert known is not None
    window = _window((y.shape[-2], y.shape[-1])).to(y.device)
    squared = torch.fft.fft2(torch.fft.ifft2(window).real.square())
    at, seen = known > 0, fft2(known.double())
    weight, power = (ifft2(by * seen).real[at] for by in (window, squared))
    smooth = ifft2(window * fft2(known * y.double())).real[at] / weight
    left = noise.sigma / unit * float((power / weight.square()).mean().sqrt())
    return _floor(smooth, left, 1e-6)


def _window(shape: tuple[int, int]) -> Tensor:
    fy, fx = (frequencies(n).double() / n for n in shape)
    return torch.exp(-2 * (math.pi * _WIDTH) ** 2 * (fy[:, None].square() + fx[None, :].square()))
