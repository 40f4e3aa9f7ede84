"""How much memory there is, and how much may be taken: as it is written, and where nothing is said."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path

__all__ = ["default_memory", "free_memory", "give_back", "parse_memory"]

MOST, SHARE = 1_500_000_000, 0.5
"""The default budget: so many bytes, or this share of what is free if that is less."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_memory(value: int | str) -> int:
    """Bytes of ``1500000000``, ``"1.5GB"`` or ``"800 MiB"``.

    Raises
    ------
    ValueError
        For anything else.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmgt]i?)?b?", str(value).strip().lower())
    if isinstance(value, bool) or found is None or float(found[1]) <= 0:
        raise ValueError(f"memory is {value!r}, expected bytes or a size such as '1.5GB' or '800MB'")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def free_memory() -> int | None:
    """Memory that processes can still take, bytes; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        return 1024 * int(text.split("MemAvailable:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return None


def default_memory(processes: int = 1) -> int:
    """What each of so many processes may take: its share of half of what is free, but at most 1.5 GB, bytes."""
    free = free_memory()
    return MOST if free is None else min(MOST, int(SHARE * free / processes))


def give_back() -> None:
    """Let the system have what was freed in between of what is in use; without effect where libraries cannot.

    Where arrays of many megabytes come and go, the C library's heap keeps the gaps: of a large image as much as it
    takes itself.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
