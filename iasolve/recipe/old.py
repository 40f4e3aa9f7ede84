"""Recipes as version 0.1 had them, one flat table: refused, with their new form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iasolve.recipe.values import RecipeError, to_toml

__all__ = ["refuse_old"]

_DEFAULTS: dict[str, Any] = {
    "name": "custom",
    "mode": "hybrid",
    "guess_stop": "all",
    "steps": 25,
    "beta": 1.0,
    "objective": "variational",
    "schedule": "joint",
    "optimizer": "adam",
    "step_size": 0.03,
    "metric": "posterior",
    "variables": "latents",
    "loss": "likelihood",
    "temperature": 0.0,
    "trust": 0.0,
    "closing": True,
    "adaptive": True,
    "residual": "stationary",
    "samples": 0,
    "passes": 0,
    "coupling_start": 0.2,
    "coupling_end": 0.05,
    "momentum": 0.5,
    "spin": False,
    "views": 1,
    "refined_views": 0,
    "nonnegative": True,
    "iterations": 8,
    "tolerance": 1e-4,
}
_BLOCKS = {"joint": "scale", "sequential": "latent", "whole": "whole"}
_GONE = {
    "metric": "steps are counted in standard deviations of the posterior",
    "loss": "the likelihood is the only loss",
    "temperature": "for a mean of samples, average result.samples",
    "trust": "there is no limit to the distance from the guess",
    "coupling_start": "passes start at 0.2",
    "momentum": "the momentum of passes is 0.5",
    "spin": "passes read moved images wherever the prior was trained on such",
    "adaptive": "closing.error 'local' follows what the measurement shows, 'stationary' does not",
    "nonnegative": "an option of solve(), nonnegative=False",
    "iterations": "an option of solve()",
    "tolerance": "an option of solve()",
}
"""Keys without a successor, and what became of them."""


def refuse_old(data: Mapping[str, Any]) -> None:
    """Raise RecipeError, with the new form in it, for a recipe of the old form; nothing for any other.

    Raises
    ------
    RecipeError
    """
    flat = set(_DEFAULTS) - {"name", "views", "samples", "passes", "steps", "closing"}
    scale_table = isinstance(data.get("steps"), Mapping) and all(str(key).isdecimal() for key in data["steps"])
    values = any(isinstance(data.get(key), bool | int) for key in ("passes", "steps", "closing"))
    if not set(data) & flat and not values and not (scale_table and data["steps"]):
        return
    lost = [f"{key}: {_GONE[key]}" for key in _GONE if key in data and data[key] != _DEFAULTS[key]]
    left = f"\n\nKeys that are gone: {'; '.join(lost)}." if lost else ""
    raise RecipeError(
        "this recipe has the form of iasolve 0.1; recipes are in groups now. The same recipe in the new form:\n\n"
        f"{to_toml(_renewed({**_DEFAULTS, **data}))}{left}"
    )


def _renewed(old: Mapping[str, Any]) -> dict[str, Any]:
    error = "none" if not old["closing"] else "local" if old["residual"] == "local" else "stationary"
    iterative = old["mode"] == "iterative"
    return {
        "name": old["name"],
        "views": old["views"],
        "samples": old["samples"],
        "guess": {"stop": "none" if iterative else old["guess_stop"]},
        "passes": {"count": 0 if iterative else old["passes"], "end": old["coupling_end"]},
        "steps": {
            "count": 0 if old["mode"] == "amortized" else old["steps"],
            "beta": old["beta"],
            "variables": old["variables"],
            "objective": old["objective"],
            "optimizer": old["optimizer"],
            "size": old["step_size"],
            "blocks": _BLOCKS.get(str(old["schedule"]), old["schedule"]),
            "views": 0 if iterative else old["refined_views"],
        },
        "closing": {"error": error},
    }
