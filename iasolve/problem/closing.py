"""Closing: the posterior mean of the image given its latents and the measurement, and draws around it.

``V``, the variance that the decoder leaves unexplained, is one per frequency and so the same everywhere in the image.
The decoder's errors are not: they grow with what there is to decode. With the ``local`` error, ``x = x0 + W e``,
``e ~ N(0, V)``, with a map ``W`` of the decoded image itself::

    W^2 ~ g * |x0| / max(g * |x0|) + 0.05^2, mean square 1        (g: a Gaussian of one pixel)

so ``V`` keeps its meaning as the mean. No operator is diagonal then; with ``x = x0 + W F^H V^(1/2) u`` the posterior is
that of white ``u`` and is found by conjugate gradients, preconditioned as if ``W`` were 1. What
it is worth: benchmarks/closing_choices.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iasolve.classical.conjugate import conjugate_gradients
from iasolve.problem.likelihood import Draw, Likelihood, Solution, white_noise
from iasolve.spectrum import fft2, half, ifft2, irfft2, rfft2

__all__ = ["Closing", "LocalError", "closest_image", "local_spread", "nonnegative_mode"]

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


class LocalError:
    """Posterior of an image given a decoded one, whose error is ``W e`` with ``e ~ N(0, V)``.

    Parameters
    ----------
    likelihood : Likelihood
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
        self, likelihood: Likelihood, image: Tensor, variance: Tensor, tolerance: float, usual: Tensor | None = None
    ) -> None:
        self.likelihood, self.variance, self.tolerance = likelihood, variance, tolerance
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
        """Posterior mean around ``x0``; ``information`` replaces the measurement's (see ``Likelihood.information``)."""
        likelihood, floor = self.likelihood, self.floor
        told = likelihood.information(floor) if information is None else information
        # as if W were 1 everywhere
        eased = 1 / (1 + self.variance * likelihood.mean_precision(floor))
        right = self._adjoint(told - likelihood.precision(x0, floor))
        found = conjugate_gradients(
            lambda u: u + self._adjoint(likelihood.precision(self.deviation(u), floor)),
            right,
            lambda r: self._image(eased * fft2(r)),
            torch.zeros_like(right),
            iterations,
            10 * torch.finfo(x0.dtype).eps,
            self.tolerance * x0[0].numel() * (1.0 if self.is_complex else 2.0),
            torch.zeros_like(right),
        )
        likelihood.note(found.residual)
        return x0 + self.deviation(found.solution)

    def exponent(self, x: Tensor, x0: Tensor) -> Tensor:
        """``-log p(x | x0, y)`` up to a constant, ``(B,)``: what :meth:`mean` minimises over ``x``."""
        white = fft2((x - x0) / self.spread) / self.root
        linear = (0.5 * self.likelihood.precision(x, self.floor) - self.likelihood.information(self.floor)).conj() * x
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
        other = nonnegative_mode(self.likelihood, x0, self.variance, start=Solution(clamped)).image
        better = doubtful & (self.exponent(other, x0) < reached)
        return torch.where(better.reshape(-1, 1, 1, 1), other, clamped)

    def draw(self, x0: Tensor, noise: Draw) -> tuple[Tensor, Tensor]:
        """The mean and one draw, by perturbing both sides (Papandreou and Yuille 2010)."""
        white = white_noise(noise, tuple(x0.shape[1:]), self.is_complex)
        told = self.likelihood.information(self.floor, noise)
        return self.mean(x0), self.mean(x0 + self.deviation(white), told)


NEGLIGIBLE = 0.01
"""Root mean square of what a posterior mean has below zero, in standard deviations of ``V``, that is simply cut off."""


def nonnegative_mode(
    likelihood: Likelihood, x0: Tensor, variance: Tensor, iterations: int = 30, start: Solution | None = None
) -> Solution:
    """``argmin -log p(y | x) + |x - x0|^2_V`` over real images ``x >= 0``: the mode of the truncated posterior.

    By the alternating direction method of multipliers (Boyd et al. 2011, section 5): unconstrained solves
    around ``v`` with extra weight ``rho`` alternate with projections. ``rho`` is the geometric mean of the
    problem's extreme eigenvalues, which came out best of six choices on masked k-space, blur and noise: the
    objective is within 0.2 % of its minimum after 30 iterations.

    Parameters
    ----------
    likelihood : Likelihood
    x0 : Tensor
        ``(B, C, H, W)``, real.
    variance : Tensor
        ``V`` on the image grid, ``(C, H, W)`` or ``(B, C, H, W)``.
    iterations : int
        Iterations, each one solve.
    start : Solution, optional
        Where iterative solves begin; at ``x0`` without.

    Returns
    -------
    Solution
        ``(B, C, H, W)``, no value below 0.
    """
    inverse = 1 / variance.clamp_min(1e-12)
    low, high = likelihood.precision_range()
    extremes = inverse.expand(x0.shape).flatten(1).aminmax(dim=1)
    smallest, largest = (e.reshape(-1, 1, 1, 1) for e in extremes)
    rho = ((low + smallest) * (high + largest)).sqrt()
    total = 1 / (inverse + rho)
    # images are real here: half of their spectrum tells all
    fixed = half(inverse) * rfft2(x0) if bool(x0.any()) else None
    share = half(total)
    # only a start: not to be solved to the end
    x = Solution(likelihood.solve(x0, variance, 8, start).image)
    # without a bound that binds, the mean is the mode
    below = x.image.clamp_max(0).square().flatten(1).mean(1)
    free = below <= NEGLIGIBLE**2 * variance.expand(x0.shape).flatten(1).mean(1)
    mean = likelihood.solve(x0, variance, start=x).image.clamp_min(0) if bool(free.any()) else x.image
    if bool(free.all()):
        return Solution(mean)
    z, u = x.image.clamp_min(0), torch.zeros_like(x.image)
    del inverse
    for _ in range(iterations):
        # in place: of a large image every array counts
        spectrum = rfft2(z - u)
        spectrum *= rho
        if fixed is not None:
            spectrum += fixed
        spectrum *= share
        centre = irfft2(spectrum, x0.shape[-1])
        del spectrum
        x = likelihood.solve(centre, total, 8, x)
        u += x.image
        z = u.clamp_min(0)
        u -= z
    return Solution(torch.where(free.reshape(-1, 1, 1, 1), mean, z))


def closest_image(
    likelihood: Likelihood,
    x0: Tensor,
    variance: Tensor,
    nonnegative: bool,
    iterations: int = 30,
    start: Solution | None = None,
) -> Solution:
    """What ``y`` and ``x0`` say together: :func:`nonnegative_mode`, or the posterior mean where values have a sign."""
    if nonnegative:
        return nonnegative_mode(likelihood, x0, variance, iterations, start)
    return likelihood.solve(x0, variance, start=start)


class Closing:
    """How a decoded image becomes the solution.

    Parameters
    ----------
    likelihood : Likelihood
    centre : Tensor
        The decoded image of the solution, ``(B, C, H, W)``: where its error is large.
    variance : Tensor
        ``V`` of each image, ``(B, C, H, W)``.
    usual : Tensor
        ``V`` of the training set, ``(C, H, W)``.
    error : {"local", "stationary", "none"}
        What the decoder's error is taken for; ``"none"``: the decoded image is the solution.
    nonnegative : bool
        Whether images hold no negative value.
    tolerance : float
        Where conjugate gradients end, in nats per pixel.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        centre: Tensor,
        variance: Tensor,
        usual: Tensor,
        error: str,
        nonnegative: bool,
        tolerance: float,
    ) -> None:
        self.likelihood, self.variance, self.error, self.nonnegative = likelihood, variance, error, nonnegative
        self.local = LocalError(likelihood, centre, variance, tolerance, usual) if error == "local" else None

    def image(self, x0: Tensor) -> Tensor:
        """The solution for a decoded image."""
        if self.error == "none":
            return x0
        if self.local is None:
            return closest_image(self.likelihood, x0, self.variance, self.nonnegative).image
        return self.local.nonnegative(x0) if self.nonnegative else self.local.mean(x0)

    def draw(self, x0: Tensor, noise: Draw) -> tuple[Tensor, Tensor]:
        """The posterior mean for a decoded image (itself, where nothing is closed), and a draw around it."""
        if self.local is not None:
            return self.local.draw(x0, noise)
        mean, draw = self.likelihood.draw(x0, self.variance, noise)
        return (x0 if self.error == "none" else mean), draw

    def error_bar(self, means: Tensor, draws: Tensor) -> Tensor:
        """``std``: spread of the means ``(K, B, C, H, W)`` of :meth:`draw` plus the mean variance around them.

        The latter is exact for a stationary error and a diagonal operator; otherwise it is the mean square of the draws
        over 7 x 7 pixels.
        """
        if len(means) > 1:
            spread = (means - means.mean(0)).abs().square().sum(0) / (len(means) - 1)
        else:
            spread = torch.zeros_like(means[0].real)
        within = None if self.local is not None else self.likelihood.spread(self.variance)
        if within is None:
            squared = (draws - means).abs().square().mean(0)
            within = torch.nn.functional.avg_pool2d(squared, 7, stride=1, padding=3, count_include_pad=False)
        return (spread + within).sqrt()
