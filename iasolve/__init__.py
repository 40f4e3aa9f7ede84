"""Solve imaging inverse problems with a hierarchical VAE prior that is separable in Fourier space.

>>> import iasolve
>>> prior = iasolve.load_prior("mri-t1-128")
>>> result = iasolve.solve(y, operator, prior, noise=iasolve.operators.GaussianNoise(0.02))  # doctest: +SKIP

The names below are imported when they are first used, so that ``import iasolve`` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_beside = Path(__file__).parents[1]
if (_beside / "operators" / "registry.py").is_file() and (_beside / "pyproject.toml").is_file():
    # a checkout, where operators and recipes lie beside this folder: it runs as it is, with python -m iasolve
    __path__.append(str(_beside))

if TYPE_CHECKING:
    from iasolve import operators
    from iasolve.cluster import map  # noqa: A004
    from iasolve.inference import NonFiniteError, Result, UnlikePriorWarning, solve
    from iasolve.priors import HVAEPrior, Prior, PriorError, ReaderPrior, list_priors, load_prior
    from iasolve.recipe import Recipe, RecipeError, list_recipes, load_recipe
    from iasolve.reconstruction import Reconstruction, reconstruct

_HOMES = {
    "NonFiniteError": "iasolve.inference",
    "Reconstruction": "iasolve.reconstruction",
    "Result": "iasolve.inference",
    "UnlikePriorWarning": "iasolve.inference",
    "reconstruct": "iasolve.reconstruction",
    "solve": "iasolve.inference",
    "HVAEPrior": "iasolve.priors",
    "Prior": "iasolve.priors",
    "PriorError": "iasolve.priors",
    "list_priors": "iasolve.priors",
    "load_prior": "iasolve.priors",
    "ReaderPrior": "iasolve.priors",
    "Recipe": "iasolve.recipe",
    "RecipeError": "iasolve.recipe",
    "list_recipes": "iasolve.recipe",
    "load_recipe": "iasolve.recipe",
    "map": "iasolve.cluster",
}

__all__ = [
    "HVAEPrior",
    "NonFiniteError",
    "Prior",
    "PriorError",
    "ReaderPrior",
    "Recipe",
    "RecipeError",
    "Reconstruction",
    "Result",
    "UnlikePriorWarning",
    "__version__",
    "list_priors",
    "list_recipes",
    "load_prior",
    "load_recipe",
    "map",
    "operators",
    "reconstruct",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name == "operators":
        return import_module("iasolve.operators")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'iasolve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
