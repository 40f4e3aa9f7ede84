"""The hierarchical VAE: encoder, top-down stages of latent layers, and heads.

Names follow the paper's: latent ``z_l`` of layer ``l``, prior ``p(z_l | context)``, posterior
``q(z_l | context, evidence)``, contribution ``h_s`` of scale ``s``. The decoder is linearly separable:
``x = sum_s B h_s`` with ``B`` of :mod:`iasolve.spectrum`, each ``h_s`` confined to its ring. The *vanilla* HVAE, its
opponent, has the same trunk and one head after the last layer; its image's spectrum is cut into the same rings, but
every ring depends on every latent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iasolve.networks.blocks import PosteriorBlock, ResidualBlock, conv
from iasolve.networks.config import NetworkConfig
from iasolve.networks.encoder import Encoder
from iasolve.networks.heads import ImageHead, RingHead
from iasolve.spectrum import Spectrum

__all__ = ["HVAE", "Gaussian", "LatentLayer", "Stage", "kl_divergence"]


class Gaussian(NamedTuple):
    """A diagonal Gaussian: ``mean`` and ``log_std``, same shape."""

    mean: Tensor
    log_std: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        return self.log_std.exp()

    def detach(self) -> Gaussian:
        """The same without gradients."""
        return Gaussian(self.mean.detach(), self.log_std.detach())


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """``KL(q || p)`` in nats, element by element."""
    ratio = (q.log_std - p.log_std).exp()
    distance = (q.mean - p.mean) * (-p.log_std).exp()
    return 0.5 * (ratio.square() + distance.square() - 1) - (q.log_std - p.log_std)


class LatentLayer(nn.Module):
    """One latent of a scale: prior, posterior, and the update of the context."""

    def __init__(self, width: int, middle: int, latent: int, grid: int, gain: float) -> None:
        super().__init__()
        self.latent = latent
        self.prior_block = ResidualBlock(width, middle, 2 * latent + width, grid, residual=False, gain=0.0)
        self.posterior_block = PosteriorBlock(width, middle, 2 * latent, grid, gain=0.3)
        with torch.no_grad():
            # start sharp: a posterior as wide as the prior drowns the signal, and the decoder learns to ignore z
            bias = self.posterior_block.c4.bias
            assert bias is not None
            bias[latent:] = -2.0
        self.project = conv(latent, width, gain=0.5)
        self.block = ResidualBlock(width, middle, width, grid, gain=gain)

    def prior(self, context: Tensor) -> tuple[Gaussian, Tensor]:
        """``p(z | context)`` and the features that the prior adds to the context."""
        out = self.prior_block(context)
        mean, log_std, feature = out.split([self.latent, self.latent, out.shape[1] - 2 * self.latent], dim=1)
        return Gaussian(_full(mean), _bounded(_full(log_std), 2.0)), feature

    def posterior(self, context: Tensor, evidence: Tensor, prior: Gaussian) -> Gaussian:
        """``q(z | context, evidence)``, parametrised relative to the prior: an ignorant posterior is the prior."""
        shift, log_ratio = _full(self.posterior_block(context, evidence)).chunk(2, dim=1)
        # a posterior much wider than its prior is never right: it only makes early training explode
        log_ratio = _bounded(1 - F.softplus(1 - log_ratio), 4.0)
        return Gaussian(prior.mean + prior.std * _bounded(shift, 10.0), prior.log_std + log_ratio)

    def update(self, context: Tensor, z: Tensor, feature: Tensor) -> Tensor:
        """The context after ``z`` is known."""
        context = context + feature + self.project(z.to(context.dtype))
        return self.block(context)


class Stage(nn.Module):
    """All layers of one scale, the way into it from the coarser scale, and its head (separable decoder only)."""

    def __init__(self, config: NetworkConfig, index: int, spectrum: Spectrum, gain: float) -> None:
        super().__init__()
        self.scale, self.grid = config.scales[index], config.grids[index]
        width = config.widths[index]
        middle = max(8, round(width * config.bottleneck))
        previous = config.widths[index - 1] if index else width
        self.join = conv(previous, width) if previous != width else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(1, width, self.grid, self.grid))
        self.layers = nn.ModuleList(
            LatentLayer(width, middle, config.latents[index], self.grid, gain) for _ in range(config.layers[index])
        )
        self.head = RingHead(config, index, spectrum, gain) if config.decoder != "vanilla" else None

    def enter(self, context: Tensor | None, batch: int) -> Tensor:
        """The coarser scale's context on this scale's grid; the learned constant at the coarsest scale."""
        if context is None:
            return self.bias.expand(batch, -1, -1, -1)
        context = self.join(context)
        if context.shape[-1] != self.grid:
            context = F.interpolate(context, scale_factor=self.grid / context.shape[-1], mode="nearest")
        return context + self.bias


class HVAE(nn.Module):
    """Hierarchical VAE whose decoder is linearly separable in Fourier space (IA-HVAE), or its vanilla twin.

    Besides the weights it carries, as buffers, the statistics of its training set that inference needs:

    ``ring_std`` ``(C, S)``: standard deviation of a spectrum value in each ring; multiplies the heads' output.
    ``power`` ``(C, N, N)``: mean power ``E|h_k|^2`` of each frequency, unshifted full grid.
    ``sigma_x`` ``(C, S)``: root mean square of what the decoder leaves unexplained, per ring.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum = Spectrum(config.size, config.is_complex)
        depth = sum(config.layers) + sum(config.encoder_blocks) + config.head_blocks
        gain = 1 / math.sqrt(depth)
        self.encoder = Encoder(config, gain)
        self.stages = nn.ModuleList(Stage(config, i, self.spectrum, gain) for i in range(len(config.scales)))
        self.head = ImageHead(config, gain) if config.decoder == "vanilla" else None
        size, count, channels = config.size, len(config.scales), config.channels
        self.register_buffer("ring_std", torch.ones(channels, count))
        self.register_buffer("power", torch.ones(channels, size, size))
        self.register_buffer("sigma_x", torch.ones(channels, count))
        self.ring_std: Tensor
        self.power: Tensor
        self.sigma_x: Tensor
        targets = [self.spectrum.crop_indices(s, min(2 * s, size))[1] for s in config.scales]
        self.register_buffer("order", torch.argsort(torch.cat(targets)), persistent=False)
        self.order: Tensor

    @property
    def separable(self) -> bool:
        """Whether every scale has its own contribution."""
        return self.head is None

    @property
    def scales(self) -> tuple[int, ...]:
        """Scales, coarse to fine."""
        return self.config.scales

    def encode(self, image: Tensor, profile: Tensor) -> list[Tensor]:
        """Features per scale of an evidence image ``(B, C, N, N)`` with profile ``(B, 2, S)``."""
        return list(self.encoder(image, profile))

    def stage(self, index: int) -> Stage:
        """The stage of scale ``scales[index]``."""
        stage = self.stages[index]
        assert isinstance(stage, Stage)
        return stage

    def contribution(self, index: int, context: Tensor) -> Tensor:
        """``h_s`` from the context after the last layer of scale ``scales[index]``: ``(B, C, n_s)`` complex."""
        head = self.stage(index).head
        if head is None:
            raise ValueError("a vanilla decoder has no contributions of single scales: see contributions()")
        whitened: Tensor = head(context)
        return whitened * self.ring_std[:, index, None]

    def contributions(self, contexts: list[Tensor]) -> list[Tensor]:
        """Every ring's bins ``(B, C, n_s)`` from the context after the last layer of each scale.

        Of a vanilla decoder, only the last context counts, and the rings are those of its image.
        """
        if self.head is None:
            return [self.contribution(index, context) for index, context in enumerate(contexts)]
        return self.rings(self.spectrum.transform(self.head(contexts[-1])))

    def assemble(self, contributions: list[Tensor]) -> Tensor:
        """Spectrum ``(B, C, N, columns)`` from every scale's ring."""
        flat = torch.cat(contributions, dim=-1)[..., self.order]
        return flat.unflatten(-1, (self.spectrum.size, self.spectrum.columns))

    def rings(self, spectrum: Tensor) -> list[Tensor]:
        """Split ``(..., N, columns)`` into the rings' values ``(..., n_s)``, in the order of the contributions."""
        flat = spectrum.flatten(-2)
        return [
            flat[..., self.spectrum.crop_indices(s, min(2 * s, self.spectrum.size), flat.device)[1]]
            for s in self.scales
        ]


def _full(x: Tensor) -> Tensor:
    """Statistics of latents are computed in at least single precision, whatever the convolutions run in."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _bounded(x: Tensor, limit: float) -> Tensor:
    """Keep values in (-limit, limit), smoothly, so that one bad step cannot overflow an exponential."""
    return limit * torch.tanh(x / limit)
