"""Priors by name or path: the ones that come with iasolve and the user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from iasolve.priors.checkpoint import PriorError, load_checkpoint
from iasolve.priors.prior import HVAEPrior

__all__ = ["find_prior", "list_priors", "load_prior"]


def _folder() -> Path:
    return Path(str(resources.files("iasolve.priors.weights")))


def list_priors() -> tuple[str, ...]:
    """Names of the bundled priors."""
    return tuple(sorted(p.stem for p in _folder().glob("*.safetensors")))


def find_prior(source: str | Path) -> Path:
    """Path of a prior's weights, by bundled name or by the path of a ``.safetensors`` file.

    Raises
    ------
    PriorError
        When there is no such prior.
    """
    if str(source) in list_priors():
        return _folder() / f"{source}.safetensors"
    path = Path(source)
    if path.suffix == ".safetensors":
        if path.is_file():
            return path
        raise PriorError(f"no file {path}: give the path of NAME.safetensors (its card NAME.json beside it)")
    known = ", ".join(list_priors()) or "none"
    raise PriorError(f"no prior {str(source)!r}: bundled are {known}; or give the path of a .safetensors file")


def load_prior(source: str | Path) -> HVAEPrior:
    """Load a prior, checking its weights against their card. Nothing is unpickled or downloaded.

    Parameters
    ----------
    source : str or Path
        A bundled name (:func:`list_priors`) or the path of a ``.safetensors`` file.

    Raises
    ------
    PriorError
        When it is missing or damaged.
    """
    path = find_prior(source)
    network, card = load_checkpoint(path)
    return HVAEPrior(network, str(card.get("name", path.stem)), card, path)
