"""Inference of clean images in the paper's modes, as the scripts that compare them run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import quality
import torch
from torch import Tensor

import common
import iasolve
from iasolve.metrics import mean_interval
from iasolve.operators import GaussianNoise, Identity
from iasolve.priors.bound import bound

METHODS = ("amortized", "iterative", "hybrid", "whole", "vanilla")
"""``whole`` is hybrid too: all scales at once."""
NAMES = {"whole": "hybrid, all scales at once", "vanilla": "vanilla HVAE, all latents at once"}
FROM_GUESS = ("hybrid", "whole")
"""Methods that take their steps from the separable prior's amortized guess."""


def tuned_settings(path: Path | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Changes to the recipe per data set and method, as ``tune_clean.py`` chose them; none without its file."""
    chosen = path or common.RESULTS / "tune_clean.json"
    if chosen.is_file():
        return json.loads(chosen.read_text(encoding="utf-8"))["chosen"]
    if path is not None:
        raise SystemExit(f"no {path}: make it with tune_clean.py")
    return {}


def recipe_of(method: str, steps: int, changes: dict[str, Any]) -> iasolve.Recipe:
    """The recipe of a row."""
    base: dict[str, Any] = {"steps": steps}
    if method == "iterative":
        base |= {"guess_stop": "none", "objective": "map"}
    if method == "whole":
        base |= {"schedule": "whole"}
    return common.changed(quality.PAPER_SETTING, **(base | changes))


@dataclass
class Found:
    """What a method makes of images: ``image`` ``(n, C, N, N)``, and per image ``mse``, ``elbo`` and ``nll``.

    ``elbo`` is in nats per dimension of the image; ``nll``, minus the log prior density of the latents, in nats per
    latent dimension. ``seconds`` are per image.
    """

    image: Tensor
    mse: np.ndarray
    elbo: np.ndarray
    nll: np.ndarray
    seconds: float


def infer(
    prior: iasolve.HVAEPrior,
    images: Tensor,
    recipe: iasolve.Recipe,
    seed: int,
    batch: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Found:
    """Inference of clean images, and what it is worth."""
    operator = Identity(tuple(images.shape[1:]), images.dtype)
    parts, elbo, nll = [], [], []
    seconds = 0.0
    for start in range(0, len(images), batch):
        x = images[start : start + batch]
        result = iasolve.solve(
            x, operator, prior, noise=GaussianNoise(0.0), recipe=recipe, seed=seed, batch_size=batch, warn=False
        )
        seconds += result.seconds
        known = x / result.gain.reshape(-1, 1, 1, 1)
        encoder = recipe.reads
        found = bound(prior, known, result.offsets, encoder=encoder, seed=seed + start)
        parts.append(result.image)
        elbo.append(found.elbo.numpy())
        nll.append(found.nll.numpy())
        advance(len(x))
    image = torch.cat(parts)
    mse = (image - images).abs().square().mean((-3, -2, -1)).numpy()
    return Found(image, mse, np.concatenate(elbo), np.concatenate(nll), seconds / len(images))


@dataclass
class Setting:
    """A data set's images, its priors ``separable`` and ``vanilla``, and changes to the recipe of each method."""

    images: Tensor
    priors: dict[str, iasolve.HVAEPrior]
    chosen: dict[str, dict[str, Any]]
    seed: int
    batch: int

    def run(self, method: str, steps: int, count: int, advance: Callable[[int], object]) -> Found:
        """A method with so many steps, on the first ``count`` images."""
        prior = self.priors["vanilla" if method == "vanilla" else "separable"]
        recipe = recipe_of(method, steps, self.chosen.get(method, {}))
        return infer(prior, self.images[:count], recipe, self.seed, self.batch, advance)


def share_of_gain(
    setting: Setting, method: str, steps: int, many: int, count: int, advance: Callable[[int], object]
) -> dict[str, Any]:
    """Which part of the gain of ``many`` steps ``steps`` of them reach, on the first ``count`` images."""
    base, few, long = (setting.run(method, n, count, advance) for n in (0, steps, many))
    gains = {"mse": (base.mse - few.mse, base.mse - long.mse), "elbo": (few.elbo - base.elbo, long.elbo - base.elbo)}
    out: dict[str, Any] = {
        "method": method,
        "images": len(base.mse),
        "steps": steps,
        "many": many,
        "seconds": long.seconds,
    }
    for key, (reached, whole) in gains.items():
        # where many steps gain nothing there is nothing to have a share of
        out[key] = quality.ratio_of_means(reached, whole) if mean_interval(whole)[1] > 0 else None
    out["mse_change"] = quality.change_of_mean(long.mse, base.mse)
    out["negative_elbo_change"] = mean_interval(base.elbo - long.elbo)
    return out
