"""Which processors multiply numbers of half precision."""

from __future__ import annotations

from functools import lru_cache

import torch

__all__ = ["multiplies_bfloat16"]


@lru_cache(maxsize=8)
def multiplies_bfloat16(kind: str) -> bool:
    """Whether a device has instructions for bfloat16; others emulate it, and take up to a hundred times as long.

    Parameters
    ----------
    kind : str
        The device or its type: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    """
    if torch.device(kind).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
