"""The architecture of an HVAE as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from iasolve.spectrum import scales_of

__all__ = ["NetworkConfig"]


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture of a hierarchical VAE; tuples run from the coarsest scale to the finest.

    Attributes
    ----------
    size : int
        Image size ``N``, a power of two; there are ``S = log2(N) + 1`` scales.
    channels : int
        Image channels ``C``.
    is_complex : bool
        Whether images are complex (full spectrum) or real (half spectrum).
    grid_cap : int
        Largest grid on which features live. Scales above it keep their own layers and latents, on this grid.
    widths : tuple of int, length S
        Feature channels of each scale.
    layers : tuple of int, length S
        Latent layers of each scale; their sum is the depth L of the hierarchy.
    latents : tuple of int, length S
        Latent channels of each layer of a scale.
    encoder_blocks : tuple of int, length S
        Residual blocks of each scale on the bottom-up path.
    head_blocks : int
        Residual blocks in each scale's head.
    bottleneck : float
        Width inside a block, as a fraction of the scale's width.
    head_domain : {"spatial", "spectral"}
        Whether a head puts out a spatial map that is Fourier transformed, or the bins themselves.
    decoder : {"separable", "vanilla"}
        A sum of one contribution per scale, linear in them (IA-HVAE), or one non-linear function of all latents: a
        single spatial head after the last layer, as in the very deep VAE.
    """

    size: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    latents: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    channels: int = 1
    is_complex: bool = False
    grid_cap: int = 32
    head_blocks: int = 2
    bottleneck: float = 0.5
    head_domain: str = "spatial"
    decoder: str = "separable"

    def __post_init__(self) -> None:
        count = len(scales_of(self.size))
        for name in ("widths", "layers", "latents", "encoder_blocks"):
            value = tuple(int(v) for v in getattr(self, name))
            object.__setattr__(self, name, value)
            if len(value) != count:
                raise ValueError(
                    f"network.{name} needs one entry per scale: {count} for size {self.size}, got {len(value)}"
                )
            floor = 0 if name == "encoder_blocks" else 1
            if min(value) < floor:
                raise ValueError(f"network.{name} must be at least {floor} everywhere, got {value}")
        if self.grid_cap not in self.scales:
            raise ValueError(f"network.grid_cap must be one of the scales {self.scales}, got {self.grid_cap}")
        if not 0 < self.bottleneck <= 1:
            raise ValueError(f"network.bottleneck must lie in (0, 1], got {self.bottleneck}")
        if self.head_domain not in ("spatial", "spectral"):
            raise ValueError(f"network.head_domain must be 'spatial' or 'spectral', got {self.head_domain!r}")
        if self.decoder not in ("separable", "vanilla"):
            raise ValueError(f"network.decoder must be 'separable' or 'vanilla', got {self.decoder!r}")
        if self.decoder == "vanilla" and self.head_domain != "spatial":
            raise ValueError("a vanilla decoder puts out the image itself: network.head_domain must be 'spatial'")
        if self.channels < 1 or self.head_blocks < 0:
            raise ValueError("network.channels must be at least 1 and network.head_blocks at least 0")

    @property
    def scales(self) -> tuple[int, ...]:
        """Scales ``1, 2, .., size``."""
        return scales_of(self.size)

    @property
    def grids(self) -> tuple[int, ...]:
        """Grid on which each scale's features and latents live."""
        return tuple(min(s, self.grid_cap) for s in self.scales)

    @property
    def real_channels(self) -> int:
        """Real channels that carry one image: twice ``channels`` for complex images."""
        return self.channels * (2 if self.is_complex else 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a TOML config or a JSON card."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkConfig:
        """Inverse of :meth:`to_dict`; refuses unknown keys by name.

        Raises
        ------
        ValueError
            For an unknown or missing key, or an impossible value.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ValueError(
                f"unknown key(s) in the network configuration: {', '.join(unknown)}; known: {sorted(known)}"
            )
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"the network configuration is incomplete: {error}") from None
