"""The reader's objective: the squared error of its estimate, and the likelihood of the error that it expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iasolve.evidence import Folded, WienerPosterior, wiener_posterior
from iasolve.networks import Reader, Reading
from iasolve.spectrum import fft2, power_at, rings_at, uneven_variance

__all__ = ["ReaderLosses", "ReaderObjective"]


class ReaderLosses(NamedTuple):
    """Scalars.

    ``error``: half the logarithm of the squared error per pixel, mean over images. ``spread``: minus the log likelihood
    of the error under the expected variance, per frequency, compared with the Wiener posterior's where that is right.
    ``place``: the same per pixel, compared with an error of the same size everywhere.
    """

    total: Tensor
    error: Tensor
    spread: Tensor
    place: Tensor
    mse: Tensor


class ReaderObjective(nn.Module):
    """Losses of a batch.

    The logarithm makes a degradation's share of the loss its share of the images, however hard it is. A small part of
    the Wiener posterior's own variance inside it keeps images of next to no error from ruling the batch.

    Parameters
    ----------
    network : Reader
    """

    def __init__(self, network: Reader) -> None:
        super().__init__()
        self.network = network

    latents = 0
    """A reader draws nothing."""

    def follow(self, losses: Mapping[str, Tensor]) -> None:
        """Nothing: no statistics are kept."""

    def forward(
        self, images: Tensor, degraded: Folded, _weight: Tensor | float = 1.0, _noise: Tensor | None = None
    ) -> ReaderLosses:
        """Losses of reading ``degraded`` versions of ``images`` ``(B, C, H, W)``."""
        net = self.network
        posterior = wiener_posterior(degraded, net.power, is_complex=net.config.is_complex)
        reading: Reading = net(*posterior)
        squared = (reading.estimate - images).abs().square().mean((-3, -2, -1))
        left = power_at(net.power, (images.shape[-2], images.shape[-1])) * (1 - posterior.rho)
        error = 0.5 * torch.log(squared + _SHARE * left.mean((-3, -2, -1)) + 1e-6).mean()
        spread = self._spread(reading, images, left, posterior)
        place = self._place(reading, images)
        return ReaderLosses(error + _WEIGHT * (spread + place), error, spread, place, squared.mean())

    def _spread(self, reading: Reading, images: Tensor, left: Tensor, posterior: WienerPosterior) -> Tensor:
        """Mean over rings of ``(e^2 / V + log V / V_0) / 2``; the estimate does not learn from it."""
        open_ = posterior.rho < 1 - _EXACT
        ratio = torch.where(open_, reading.variance / left.clamp_min(_TINY), 1.0)
        squared = fft2(reading.estimate.detach() - images).abs().square()
        scaled = torch.where(open_, (squared / left.clamp_min(_TINY)).clamp_max(_OUTLIER), 1.0)
        each = 0.5 * (scaled / ratio + ratio.log())
        rings = rings_at((images.shape[-2], images.shape[-1]), self.network.config.size, each.device)
        return rings.means(each).sum(-1).mean() / (rings.counts > 0).sum() - 0.5

    def _place(self, reading: Reading, images: Tensor) -> Tensor:
        """Mean over pixels of ``(e^2 / v + log v / v_0) / 2``, ``v_0`` the mean over the image of what rings expect.

        Of images without negative values the error is that of the estimate over ``x >= 0``, as users get it.
        """
        estimate, rings = reading.estimate.detach(), reading.variance.detach()
        if not images.is_complex():
            positive = images.amin((-3, -2, -1), keepdim=True) >= 0
            estimate = torch.where(positive, estimate.clamp_min(0), estimate)
        mean = rings.mean((-3, -2, -1), keepdim=True).clamp_min(_TINY)
        expected = uneven_variance(rings, reading.spread) / mean + _LEAST
        squared = (estimate - images).abs().square() / mean
        return (0.5 * ((squared / expected).clamp_max(_OUTLIER) + expected.log())).mean() - 0.5


_SHARE = 0.003
_WEIGHT = 0.02
"""Weight of the likelihoods: they move the heads of the error alone, and should not fill the clipped norm."""

_EXACT, _TINY, _OUTLIER, _LEAST = 1e-5, 1e-12, 1e3, 1e-6
