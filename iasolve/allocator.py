"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_free_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h

_LARGEST_BLOCK = 32 * 2**20
"""Bytes. Where glibc's own threshold ends as programs run, unless a setting keeps it from moving."""


@cache
def keep_free_memory() -> bool:
    """Keep freed blocks of up to 32 MiB in this process for the next ones, where the C library is glibc.

    Dask starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``: each map of a network is then given back to the system,
    and taken anew page by page. That took a third of a worker's time; now see ``benchmarks/scaling.py``.

    Returns
    -------
    bool
        Whether the settings were taken; other C libraries have none.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function, or no such library: macOS, musl, Windows
        return False
    settings = ((_TRIM_THRESHOLD, 2**31 - 1), (_MMAP_THRESHOLD, _LARGEST_BLOCK))
    return all(mallopt(name, value) == 1 for name, value in settings)
