"""Closing with a decoder error that follows the image: large in tissue, small in air.

``V``, the variance that the decoder leaves unexplained, is one per frequency and so the same everywhere in the image.
The decoder's errors are not: they grow with what there is to decode. Here ``x = x0 + W e``, ``e ~ N(0, V)``, with a
map ``W`` of the decoded image itself::

    W^2 ~ g * |x0| / max(g * |x0|) + 0.05^2, mean square 1        (g: a Gaussian of one pixel)

so ``V`` keeps its meaning as the mean. No operator is diagonal then; with ``x = x0 + W F^H V^(1/2) u`` the posterior is
that of white ``u`` and is found by conjugate gradients, preconditioned as if ``W`` were 1. Why this ``W``:
docs/explanation/notebook/without-a-script.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iasolve.inference.conjugate import conjugate_gradients
from iasolve.inference.data import DataModel, white_noise
from iasolve.inference.nonnegative import nonnegative_mode
from iasolve.spectrum import fft2, ifft2

__all__ = ["LocalResidual", "local_spread"]

LEAST_NOISE = 1e-4
"""Least noise of a frequency over ``V``: with less the solve is ill-conditioned in float32. It is a hundredth of the
decoder's error in standard deviations, and what a measurement without noise is kept to."""

DOUBT = 0.02
"""The same where ``V`` was raised far beyond the training set's. Such an error is as large as the image's own detail,
and ``W`` is not known to the digit to which precise data would then be explained; what it gets wrong leaks into all
rings."""

CLAMPED = 0.1
"""Nats per pixel by which clamping at 0 may raise the exponent before another way to ``x >= 0`` is tried."""

FLOOR = 0.05
"""Spread of the error where the image is black, over that where it is brightest."""


def local_spread(image: Tensor) -> Tensor:
    """``W`` of decoded images ``(B, C, H, W)``, real, of mean square 1."""
    height, width = image.shape[-2:]
    ky, kx = (torch.fft.fftfreq(n, device=image.device, dtype=image.real.dtype) for n in (height, width))
    gaussian = torch.exp(-2 * torch.pi**2 * (ky[:, None].square() + kx.square()))
    smooth = ifft2(gaussian * fft2(image.abs())).real.clamp_min(0)
    largest = smooth.amax((-3, -2, -1), keepdim=True).clamp_min(1e-20)
    square = smooth / largest + FLOOR**2
    return (square / square.mean((-3, -2, -1), keepdim=True)).sqrt()


class LocalResidual:
    """Posterior of an image given a decoded one, whose error is ``W e`` with ``e ~ N(0, V)``.

    Parameters
    ----------
    data : DataModel
    image : Tensor
        ``(B, C, H, W)`` whose ``W`` it is.
    variance : Tensor
        ``V``, ``(C, H, W)`` or ``(B, C, H, W)``.
    tolerance : float
        Where conjugate gradients end, in nats per pixel.
    usual : Tensor, optional
        ``V`` of the training set, where ``variance`` is more than that.
    """

    def __init__(
        self, data: DataModel, image: Tensor, variance: Tensor, tolerance: float, usual: Tensor | None = None
    ) -> None:
        self.data, self.variance, self.tolerance = data, variance, tolerance
        self.spread = local_spread(image)
        self.root = variance.sqrt()
        raised = 0.0 if usual is None else 1 - usual.mean() / variance.mean((-3, -2, -1), keepdim=True)
        self.floor = (LEAST_NOISE + DOUBT * raised) * variance
        self.is_complex = image.is_complex()

    def _image(self, h: Tensor) -> Tensor:
        x = ifft2(h)
        return x if self.is_complex else x.real

    def deviation(self, white: Tensor) -> Tensor:
        """``W F^H V^(1/2) F u``: an error of the decoder from white noise, ``(B, C, H, W)`` each."""
        return self.spread * self._image(self.root * fft2(white))

    def _adjoint(self, x: Tensor) -> Tensor:
        return self._image(self.root * fft2(self.spread * x))

    def mean(self, x0: Tensor, information: Tensor | None = None, iterations: int = 200) -> Tensor:
        """Posterior mean around ``x0``; ``information`` replaces the measurement's (see ``DataModel.information``)."""
        data, floor = self.data, self.floor
        told = data.information(floor) if information is None else information
        # as if W were 1 everywhere
        eased = 1 / (1 + self.variance * data.mean_precision(floor))
        right = self._adjoint(told - data.precision(x0, floor))
        found = conjugate_gradients(
            lambda u: u + self._adjoint(data.precision(self.deviation(u), floor)),
            right,
            lambda r: self._image(eased * fft2(r)),
            torch.zeros_like(right),
            iterations,
            10 * torch.finfo(x0.dtype).eps,
            self.tolerance * x0[0].numel() * (1.0 if self.is_complex else 2.0),
            torch.zeros_like(right),
        )
        data.solved(found.residual)
        return x0 + self.deviation(found.solution)

    def exponent(self, x: Tensor, x0: Tensor) -> Tensor:
        """``-log p(x | x0, y)`` up to a constant, ``(B,)``: what :meth:`mean` minimises over ``x``."""
        white = fft2((x - x0) / self.spread) / self.root
        linear = (0.5 * self.data.precision(x, self.floor) - self.data.information(self.floor)).conj() * x
        value = 0.5 * white.abs().square().flatten(1).sum(1) + linear.real.flatten(1).sum(1)
        return value if not self.is_complex else 2 * value

    def nonnegative(self, x0: Tensor) -> Tensor:
        """About the mode over ``x >= 0``, real images only.

        The mean, clamped, is close to it where the data bear with the change: they do where they are noisy, and where
        the decoded image is about right. Precise k-space of a poor guess does not, and there the mode with ``W = 1``,
        which is found exactly, is a far better one; per image the better of the two by :meth:`exponent`.
        """
        mean = self.mean(x0)
        clamped = mean.clamp_min(0)
        reached = self.exponent(clamped, x0)
        doubtful = reached - self.exponent(mean, x0) > CLAMPED * x0[0].numel()
        if not bool(doubtful.any()):
            return clamped
        other = nonnegative_mode(self.data, x0, self.variance, start=clamped)
        better = doubtful & (self.exponent(other, x0) < reached)
        return torch.where(better.reshape(-1, 1, 1, 1), other, clamped)

    def draw(self, x0: Tensor, noise: Callable[[tuple[int, ...]], Tensor]) -> tuple[Tensor, Tensor]:
        """The mean and one draw, by perturbing both sides (Papandreou and Yuille 2010)."""
        white = white_noise(noise, tuple(x0.shape[1:]), self.is_complex)
        told = self.data.information(self.floor, noise)
        return self.mean(x0), self.mean(x0 + self.deviation(white), told)
