"""The architecture of an HVAE as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from iasolve.spectrum import scales_of
from iasolve.tables import FORBID, Count, Flag, Number, Whole, as_table, table

__all__ = ["NetworkConfig"]


@table("network")
@dataclass(frozen=True, config=FORBID)
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

    size: Count
    widths: tuple[Count, ...]
    layers: tuple[Count, ...]
    latents: tuple[Count, ...]
    encoder_blocks: tuple[Whole, ...]
    channels: Count = 1
    is_complex: Flag = False
    grid_cap: Count = 32
    head_blocks: Whole = 2
    bottleneck: Annotated[Number, Field(gt=0, le=1)] = 0.5
    head_domain: Literal["spatial", "spectral"] = "spatial"
    decoder: Literal["separable", "vanilla"] = "separable"

    def __post_init__(self) -> None:
        count = len(scales_of(self.size))
        for name in ("widths", "layers", "latents", "encoder_blocks"):
            value = getattr(self, name)
            if len(value) != count:
                raise ValueError(
                    f"network.{name} needs one entry per scale: {count} for size {self.size}, got {len(value)}"
                )
        if self.grid_cap not in self.scales:
            raise ValueError(f"network.grid_cap must be one of the scales {self.scales}, got {self.grid_cap}")
        if self.decoder == "vanilla" and self.head_domain != "spatial":
            raise ValueError("a vanilla decoder puts out the image itself: network.head_domain must be 'spatial'")

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
        return cls(**as_table(data, "network"))
