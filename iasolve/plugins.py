"""What other installed packages bring by name: their entry points."""

from __future__ import annotations

import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["PluginError", "PluginWarning", "load", "offered", "package_of"]


class PluginError(Exception):
    """An entry point that cannot be loaded."""


class PluginWarning(UserWarning):
    """An entry point that is left out."""


def offered(kind: str, own: Collection[str], only: str | None = None) -> dict[str, EntryPoint]:
    """Entry points of the group ``iasolve.{kind}s``, by name and not yet loaded.

    Parameters
    ----------
    kind : {"operator", "prior"}
    own : collection of str
        Names that iasolve has itself, and keeps.
    only : str, optional
        Look for this name alone.

    Returns
    -------
    dict of str to EntryPoint
        Without the names that clash; each of these is warned about (:class:`PluginWarning`), naming both sides.
    """
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for entry in _entries(f"iasolve.{kind}s", _folders()):
        if only in (None, entry.name):
            found[entry.name].append(entry)
    clear = {}
    for name in sorted(found):
        entries = found[name]
        packages = " and ".join(sorted(f"{package_of(entry)!r}" for entry in entries))
        if name in own:
            _warn(
                f"package {packages} brings the {kind} {name!r}, a name that iasolve has itself: iasolve's own is used"
            )
        elif len(entries) > 1:
            _warn(f"packages {packages} both bring the {kind} {name!r}: neither is used; uninstall one of them")
        else:
            clear[name] = entries[0]
    return clear


@lru_cache(maxsize=8)
def _entries(group: str, folders: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """Looked for once in ``folders`` as they are: it takes a look at every package that is installed."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


def _folders() -> tuple[tuple[str, int], ...]:
    """Where packages lie, and when something was installed there or removed."""
    found = []
    for folder in sys.path:
        with suppress(OSError):
            found.append((folder, os.stat(folder or ".").st_mtime_ns))
    return tuple(found)


def load(entry: EntryPoint) -> Any:
    """What an entry point names.

    Raises
    ------
    PluginError
        Naming the package, when importing it fails in whatever way.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise PluginError(
            f"{entry.name!r} of package {package_of(entry)!r} ({entry.value}) cannot be imported: "
            f"{type(error).__name__}: {reason}"
        ) from error


def package_of(entry: EntryPoint) -> str:
    """Name of the distribution that brings an entry point."""
    return entry.dist.name if entry.dist is not None else entry.module


def _warn(text: str) -> None:
    # the caller's caller is the registry; what the user called is one above
    warnings.warn(text, PluginWarning, stacklevel=4)
