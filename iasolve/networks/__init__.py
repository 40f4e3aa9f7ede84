"""Networks: blocks, bottom-up encoder, top-down stages, per-scale heads."""

from iasolve.networks.config import NetworkConfig
from iasolve.networks.hvae import HVAE, Gaussian, LatentLayer, Stage, kl_divergence
from iasolve.networks.reader import Reader, ReaderConfig, Reading

__all__ = [
    "HVAE",
    "Gaussian",
    "LatentLayer",
    "NetworkConfig",
    "Reader",
    "ReaderConfig",
    "Reading",
    "Stage",
    "kl_divergence",
]
