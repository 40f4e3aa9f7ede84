"""The training objective: ELBO on clean images, and two terms that teach the encoder to read degraded ones.

1. ``-ELBO`` of the clean image, per dimension, with a noise level ``sigma_x`` per ring (sigma-VAE, Rybkin et
   al. 2021; the optimal level is tracked analytically). Prior, decoder and heads learn from this term alone.
2. *Layer-wise neural posterior estimation*: for a random degradation of the same image, the closed-form
   ``KL(q_clean || q_degraded)`` of every layer, in the context of the clean latents, clean side fixed. Its
   minimum over encoders is the posterior given the measurement. Beyond three widths it is tempered.
3. *The guess itself*: half the logarithm of the mean squared error of the closed amortized guess at
   temperature 0, run on its own latents. Term 2 only ever sees contexts made of clean latents; at inference
   the context comes from the guess. The decoder is frozen in this term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iasolve.evidence import Evidence, Folded, evidence
from iasolve.networks import HVAE, Gaussian, LatentLayer, kl_divergence
from iasolve.priors.hierarchy import Hierarchy, Node, posterior_mean

__all__ = ["Losses", "Objective", "clean_evidence"]


class Losses(NamedTuple):
    """Scalars, in nats per image dimension unless said otherwise."""

    total: Tensor
    elbo: Tensor
    kl: Tensor
    amortization: Tensor
    guess: Tensor
    mse: Tensor
    ring_mse: Tensor
    """``(C, S)`` mean squared residual of the clean reconstruction in each ring."""


def clean_evidence(images: Tensor, scales: int) -> Evidence:
    """The evidence of an undegraded image: the image itself, profile 1."""
    return Evidence(images, images.real.new_ones(len(images), 2, scales))


class _Trunk:
    """The way down a network in training."""

    def __init__(self, network: HVAE) -> None:
        self.network, self.spectrum = network, network.spectrum

    def enter(self, index: int, context: Tensor | None, batch: int) -> Tensor:
        return self.network.stage(index).enter(context, batch)

    def layers(self, index: int) -> list[LatentLayer]:
        return [layer for layer in self.network.stage(index).layers if isinstance(layer, LatentLayer)]


def _drawing(noise: Tensor | None) -> Callable[[Node], Tensor]:
    """Draws latents from their posteriors, one after the other, with standard normal ``noise`` ``(B, L)``."""
    position = 0

    def draw(node: Node) -> Tensor:
        nonlocal position
        q = node.posterior
        if noise is None:
            return q.mean + q.std * torch.randn_like(q.mean)
        begin, position = position, position + q.mean[0].numel()
        return q.mean + q.std * noise[:, begin:position].reshape(q.mean.shape).to(q.mean.dtype)

    return draw


class Objective(nn.Module):
    """Losses of a batch; a module, so that it can be wrapped for distributed training.

    Parameters
    ----------
    network : HVAE
        The model.
    amortization_weight, guess_weight : float
        Weights of terms 2 and 3.
    guess_fraction : float
        Part of the degraded images on which term 3 is evaluated; term 2 gets the rest.
    track : float
        Rate of the running average that ``sigma_x`` is.
    cap : float
        Largest variance of a ring in the training loss, over the ring's power; it never exceeds the mean squared
        error of the whole image either.
    """

    def __init__(
        self,
        network: HVAE,
        *,
        amortization_weight: float = 1.0,
        guess_weight: float = 1.0,
        guess_fraction: float = 0.5,
        track: float = 0.02,
        cap: float = 0.1,
    ) -> None:
        super().__init__()
        self.network = network
        self.amortization_weight = amortization_weight
        self.guess_weight = guess_weight
        self.guess_fraction = guess_fraction
        self.track = track
        self.cap = cap

    @property
    def latents(self) -> int:
        """Values in all latents of an image."""
        trunk = _Trunk(self.network)
        grids = [self.network.stage(index).grid for index in range(len(self.network.scales))]
        return sum(layer.latent * grid**2 for index, grid in enumerate(grids) for layer in trunk.layers(index))

    @torch.no_grad()
    def follow(self, losses: Mapping[str, Tensor]) -> None:
        """Let the decoder's noise level follow the error of a whole step's images: once a step, not for each part."""
        net, new = self.network, losses["ring_mse"]
        # the optimizer skips a step that is not finite; its residuals must not stay behind here
        sigma2 = torch.lerp(net.sigma_x.square(), new.to(net.sigma_x.dtype), self.track)
        net.sigma_x.copy_(torch.where(torch.isfinite(sigma2), sigma2.sqrt(), net.sigma_x))

    def forward(
        self,
        images: Tensor,
        degraded: Folded | None,
        kl_weight: Tensor | float = 1.0,
        noise: Tensor | None = None,
    ) -> Losses:
        """Losses of clean ``images`` ``(B, C, N, N)`` (prior's units) and of folded degradations of the first ones.

        ``degraded`` holds ``n <= B`` measurements, of ``images[:n]``; ``guess_fraction`` of them go to term 3,
        the others to term 2. ``noise`` ``(B, latents)``, standard normal, is what the latents are drawn with; without
        it, torch's random numbers are.
        """
        net = self.network
        batch, dims = len(images), images[0].numel()
        seen = clean_evidence(images, len(net.scales))
        shares = [batch]
        if degraded is not None:
            guesses = round(len(degraded.value) * self.guess_fraction)
            shares = [batch, guesses, len(degraded.value) - guesses]
            also = evidence(degraded, net.power, net.spectrum)
            seen = Evidence(torch.cat([seen.image, also.image]), torch.cat([seen.profile, also.profile]))
        # one split per scale: a slice's gradient would fill a tensor of the full size for every layer that uses it
        features = [f.split(shares) for f in net.encode(seen.image, seen.profile)]

        kl = images.real.new_zeros(())
        amortization = images.real.new_zeros(())
        compared = slice(shares[1], shares[1] + shares[2]) if degraded is not None else slice(0)
        way = Hierarchy(_Trunk(net), batch, [f[0] for f in features]).descend(_drawing(noise))
        for node in way.nodes:
            q, prior = node.posterior, node.prior
            kl = kl + kl_divergence(q, prior).sum()
            if degraded is not None and shares[2]:
                fixed = Gaussian(prior.mean.detach()[compared], prior.log_std.detach()[compared])
                other = node.layer.posterior(node.context.detach()[compared], features[node.scale][2], fixed)
                target_q = Gaussian(q.mean.detach()[compared], q.log_std.detach()[compared])
                amortization = amortization + _divergence(target_q, other).sum()
        contexts = list(way.done.contexts)

        target = net.spectrum.transform(images)
        residual = (target - net.assemble(net.contributions(contexts))).abs().square()
        ring_mse = net.spectrum.ring_means(residual).mean(0)
        sigma2 = net.sigma_x.square()
        ring_sums = net.spectrum.ring_sums(residual)
        bins = net.spectrum.bins(ring_sums.device)
        # a complex value of variance v has density exp(-|r|^2 / v) / (pi v): twice the real exponent
        factor = 1.0 if images.is_complex() else 0.5
        exact = factor * (ring_sums / sigma2 + bins * sigma2.log()).sum((-2, -1)).mean() / dims
        # With the optimal noise level, what a ring's distortion gains by encoding a Gaussian part of the image is
        # just what its KL term pays: the ELBO is flat there, and rings stay unencoded. A capped level is a looser,
        # still valid bound, under which every ring is encoded to a useful accuracy.
        mean2 = (sigma2 * bins).sum(-1, keepdim=True) / bins.sum()
        capped = torch.minimum(sigma2, torch.minimum(mean2, self.cap * net.ring_std.square()))
        distortion = factor * (ring_sums / capped + bins * capped.log()).sum((-2, -1)).mean() / dims
        kl = kl / (batch * dims)
        guess = images.real.new_zeros(())
        if degraded is not None:
            amortization = amortization / (max(shares[2], 1) * dims)
            if shares[1]:
                with _frozen(net):
                    estimate = self.guess([f[1] for f in features], shares[1])
                guess = self._log_error(estimate, target[: shares[1]], Folded(*(t[: shares[1]] for t in degraded)))
        total = distortion + kl_weight * (kl + self.amortization_weight * amortization) + self.guess_weight * guess
        mse = ring_sums.sum((-2, -1)).mean() / dims
        return Losses(total, -(exact + kl), kl, amortization, guess, mse, ring_mse)

    def guess(self, features: list[Tensor], batch: int) -> Tensor:
        """The amortized guess at temperature 0 from encoder ``features``: spectra ``(B, C, *bins)``."""
        way = Hierarchy(_Trunk(self.network), batch, features).descend(posterior_mean)
        return self.network.assemble(self.network.contributions(list(way.done.contexts)))

    def close(self, estimate: Tensor, folded: Folded) -> Tensor:
        """A guess's spectra joined with the measurement, by the variances of both."""
        spectrum = self.network.spectrum
        sigma2 = spectrum.per_bin(self.network.sigma_x.square())
        gain = sigma2 / (sigma2 + spectrum.half(folded.variance))
        return estimate + gain * (spectrum.half(folded.value) - estimate)

    def _log_error(self, estimate: Tensor, target: Tensor, folded: Folded) -> Tensor:
        """Half the log mean squared error, after the closing step, averaged over images."""
        spectrum = self.network.spectrum
        error = (self.close(estimate, folded) - target).abs().square()
        mse = (spectrum.ring_sums(error).sum(-1) / spectrum.size**2).mean(-1)
        return 0.5 * torch.log(mse + 1e-8).mean()


_OUTLIER = 4.5
"""Half the squared distance, in units of its own width, at which a degraded posterior is wrong: three widths."""


def _divergence(clean: Gaussian, degraded: Gaussian) -> Tensor:
    """``KL(clean || degraded)``, element by element, growing like a logarithm of the distance beyond three widths.

    A sharp posterior in the wrong place costs hundreds of nats a latent. Their gradient drowns all others and moves
    the clean posteriors, which share the encoder, away with the target: on images of random phase, which have next to
    nothing in common before anything is learned, training exploded. A posterior that knows its error is within three
    widths, where this is the divergence itself.
    """
    log_ratio = clean.log_std - degraded.log_std
    distance = ((clean.mean - degraded.mean) * (-degraded.log_std).exp()).square()
    half = 0.5 * ((2 * log_ratio).exp() + distance)
    tempered = _OUTLIER * (1 + torch.log(half.clamp_min(_OUTLIER) / _OUTLIER))
    return torch.where(half > _OUTLIER, tempered, half) - 0.5 - log_ratio


@contextmanager
def _frozen(net: HVAE) -> Iterator[None]:
    """Within, the decoder's and prior's parameters get no gradient; encoder and posteriors still do."""
    fixed = [
        p
        for name, p in net.named_parameters()
        if not name.startswith("encoder.") and ".posterior_block." not in name and p.requires_grad
    ]
    for p in fixed:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in fixed:
            p.requires_grad_(True)
