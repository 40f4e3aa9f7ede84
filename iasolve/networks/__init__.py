"""Networks: blocks, bottom-up encoder, top-down stages, per-scale heads."""

from iasolve.networks.config import NetworkConfig
from iasolve.networks.hvae import HVAE, Gaussian, LatentLayer, Stage, kl_divergence

__all__ = ["HVAE", "Gaussian", "LatentLayer", "NetworkConfig", "Stage", "kl_divergence"]
