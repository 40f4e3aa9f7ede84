"""Priors by name or path: the ones that come with iasolve, those that other packages bring, and the user's own.

A package brings one by an entry point of the group ``iasolve.priors``: the path of a ``NAME.safetensors`` with its card
beside it, or a callable without arguments that returns the path. In its ``pyproject.toml``::

    [project.entry-points."iasolve.priors"]
    ct-abdomen-256 = "their_package:weights"
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from iasolve.networks import HVAE, Reader
from iasolve.plugins import PluginError, load, offered, package_of
from iasolve.priors.checkpoint import PriorError, load_checkpoint, read_card
from iasolve.priors.likeness import coarse_rings
from iasolve.priors.reader import load_reader, reader_beside
from iasolve.priors.trained import HVAEPrior, ReaderPrior
from iasolve.spectrum import Spectrum

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "KSPACE_PRIORS",
    "find_prior",
    "fitting_names",
    "list_priors",
    "load_fitting",
    "load_kspace_priors",
    "load_prior",
    "origin_of",
]


def _folder() -> Path:
    return Path(str(resources.files("iasolve.priors.weights")))


def _bundled() -> dict[str, Path]:
    """Names and weights: the hierarchy's, or the reader's of a prior that is a reader alone."""
    files = sorted(_folder().glob("*.safetensors"))
    readers = {path.name.removesuffix(_READER): path for path in files if path.name.endswith(_READER)}
    own = {path.stem: path for path in files if not path.name.endswith(_READER)}
    return dict(sorted((readers | own).items()))


_READER = ".reader.safetensors"


def list_priors() -> tuple[str, ...]:
    """Names of the bundled priors, and of those that other packages bring; the latter are not loaded.

    Examples
    --------
    >>> "mri-t1-128" in list_priors()
    True
    """
    own = tuple(_bundled())
    return (*own, *offered("prior", own))


def origin_of(name: str) -> str:
    """The package that a prior of :func:`list_priors` comes with: ``iasolve`` or another."""
    own = tuple(_bundled())
    return "iasolve" if name in own else package_of(offered("prior", own, name)[name])


def find_prior(source: str | Path) -> Path:
    """Path of a prior's weights, by name (:func:`list_priors`) or by the path of a ``.safetensors`` file.

    Raises
    ------
    PriorError
        When there is no such prior, or the package that brings it is broken.
    """
    path = Path(source)
    if path.suffix == ".safetensors":
        if path.is_file():
            return path
        raise PriorError(f"no file {path}: give the path of NAME.safetensors (its card NAME.json beside it)")
    name = str(source)
    bundled = _bundled()
    own = tuple(bundled)
    others = offered("prior", own, name)
    if name in own:
        return bundled[name]
    if name in others:
        return _brought(others[name])
    others = offered("prior", own)
    brought = f"; other packages bring {', '.join(others)}" if others else ""
    raise PriorError(
        f"no prior {name!r}: bundled are {', '.join(own) or 'none'}{brought}; or give the path of a .safetensors file"
    )


def _brought(entry: EntryPoint) -> Path:
    """Path of the weights that an entry point names."""
    try:
        found = load(entry)
    except PluginError as error:
        raise PriorError(f"the prior {error}; repair or uninstall the package") from error
    whose = f"the prior {entry.name!r} of package {package_of(entry)!r}"
    if callable(found):
        try:
            found = found()
        except Exception as error:
            raise PriorError(f"{whose}: {entry.value} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, str | os.PathLike):
        raise PriorError(f"{whose}: {entry.value} gives {type(found).__name__}, expected the path of a .safetensors")
    path = Path(found)
    if path.suffix != ".safetensors" or not path.is_file():
        raise PriorError(f"{whose}: {entry.value} gives {path}, expected an existing .safetensors file")
    return path


def load_prior(source: str | Path) -> HVAEPrior | ReaderPrior:
    """Load a prior, checking its weights against their card. Nothing is unpickled or downloaded.

    Parameters
    ----------
    source : str or Path
        A name (:func:`list_priors`) or the path of a ``.safetensors`` file: of ``NAME.safetensors``, with the reader
        ``NAME.reader.safetensors`` beside it, if there is one; of ``NAME.reader.safetensors``, the reader alone.

    Raises
    ------
    PriorError
        When it is missing or damaged.

    Examples
    --------
    >>> prior = load_prior("mri-t1-128")
    >>> prior.spectrum.size, prior.channels
    (128, 1)
    """
    path = find_prior(source)
    if read_card(path).get("kind") == "reader":
        alone, card = load_reader(path)
        _require_rings(card, Spectrum(alone.config.size, is_complex=alone.config.is_complex), path)
        return ReaderPrior(alone, str(card.get("name", path.name.removesuffix(_READER))), card, path)
    network, card = load_checkpoint(path)
    _require_rings(card, network.spectrum, path)
    beside = reader_beside(path)
    reader = None if beside is None else _own_reader(beside, network)
    return HVAEPrior(network, str(card.get("name", path.stem)), card, path, reader)


def _require_rings(card: dict[str, Any], spectrum: Spectrum, path: Path) -> None:
    known = (card.get("validation") or {}).get("coarse_rings") or {}
    expected = len(coarse_rings(spectrum))
    for key in ("mean", "std"):
        if known and len(known[key]) != expected:
            raise PriorError(
                f"the card of {path} is damaged: validation.coarse_rings.{key} has {len(known[key])} values, expected "
                f"{expected} for images of {spectrum.size} pixels; export the prior again"
            )


def _own_reader(path: Path, network: HVAE) -> Reader:
    reader, _ = load_reader(path)
    ours, theirs = network.power, reader.power
    if reader.config.is_complex != network.config.is_complex or ours.shape != theirs.shape:
        raise PriorError(f"the reader {path} is for images of another kind than the weights beside it: export it again")
    if not bool(torch.allclose(ours, theirs)):
        raise PriorError(
            f"the reader {path} was trained with another image power than the weights beside it: train it with --init"
        )
    return reader


KSPACE_PRIORS = ("mri-t1-128", "mri-any-128")
"""For k-space, which is of MR images; real, for the phase is taken out before."""

SMALLEST = 64
"""Pixels of the smallest prior that :func:`load_fitting` returns: smaller ones are for benchmarks."""


@lru_cache(maxsize=4)
def load_fitting(channels: int, is_complex: bool) -> tuple[HVAEPrior | ReaderPrior, ...]:
    """The installed priors over real or complex images of so many channels, of 64 pixels or more.

    Loaded once: do not change them.

    Raises
    ------
    PriorError
        When one of them is damaged.
    """
    return tuple(load_prior(name) for name in fitting_names(channels, is_complex))


def fitting_names(channels: int, is_complex: bool) -> list[str]:
    """Names of the priors that :func:`load_fitting` loads, by their cards alone."""
    found = []
    for name in list_priors():
        about = read_card(find_prior(name)).get("architecture", {})
        kind = (about.get("channels"), bool(about.get("is_complex")))
        if kind == (channels, is_complex) and about.get("size", 0) >= SMALLEST:
            found.append(name)
    return found


def load_kspace_priors() -> tuple[HVAEPrior | ReaderPrior, ...]:
    """Those of :data:`KSPACE_PRIORS` that are installed; see :func:`load_fitting`."""
    return tuple(prior for prior in load_fitting(1, False) if prior.name in KSPACE_PRIORS)
