"""What a report says of solved images, one entry an image; of pieces as of the whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from iasolve.cli.reporter import plain
from iasolve.inference import Result
from iasolve.reconstruction.reconstruct import Reconstruction

__all__ = ["facts_of", "joined_facts"]


def facts_of(result: Result[Any], unit: float) -> dict[str, Any]:
    """What a report says of a result, one entry an image."""

    def each(values: Any) -> list[Any]:
        return list(np.asarray(values).reshape(-1).tolist())

    return {
        "seconds": result.seconds,
        "sigma": each(np.asarray(result.sigma, np.float64) * unit),
        # per image, of each ring of frequencies
        "levels": None if result.levels is None else (np.asarray(result.levels, np.float64) * unit).tolist(),
        "gain": each(np.asarray(result.gain, np.float64) * unit),
        "offset": each(np.asarray(result.offset, np.float64) * unit),
        "improved": each(result.improved),
        "prior_used": np.ravel(result.prior_used).tolist(),
        "weight": plain(each(result.weight), 4),
        "likeness": each(result.likeness),
        "surplus": each(result.surplus),
        "variation": plain(each(result.variation), 4),
        # conjugate gradients, where the operator is not diagonal
        "solver": None if result.solver is None else {key: each(value) for key, value in result.solver.items()},
        # over what noise alone would leave: of all values, and by bands of frequency
        "residual": {
            "whole": plain(each(result.residual["whole"]), 4),
            "bands": plain(np.asarray(result.residual["bands"]).reshape(result.residual["whole"].size, -1), 4),
        },
        "scales": [
            {
                "scale": row["scale"],
                "steps": row["steps"],
                "before": each(row["before"]),
                "after": each(row["after"]),
                "misfit": each(row["misfit"]),
            }
            for row in result.scales
        ],
        "slices": result.facts if isinstance(result, Reconstruction) else [],
    }


def joined_facts(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Facts of all pieces as those of one; what was said of several pieces is said once."""
    first = parts[0]
    if len(parts) == 1:
        return dict(first)
    found: dict[str, Any] = {}
    for key, value in first.items():
        each = [part[key] for part in parts]
        if key == "seconds":
            found[key] = sum(each)
        elif key == "scales":
            found[key] = [_together(rows) for rows in zip(*each, strict=True)]
        elif isinstance(value, Mapping):
            found[key] = _together(each)
        elif key == "levels":
            found[key] = _levels(parts)
        else:
            found[key] = None if value is None else [item for part in each for item in part]
    found["said"] = _once([part["said"] for part in parts])
    return found


def _levels(parts: list[dict[str, Any]]) -> list[list[float]] | None:
    """Noise levels of the rings, where a part has such; of a part with white noise, one level for all."""
    count = max((len(levels) for part in parts for levels in part["levels"] or ()), default=0)
    if not count:
        return None
    return [levels for part in parts for levels in part["levels"] or [[sigma] * count for sigma in part["sigma"]]]


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Lists of one entry an image, joined; what is no list is the same for all."""
    first = rows[0]
    return {key: [v for row in rows for v in row[key]] if isinstance(first[key], list) else first[key] for key in first}


def _once(said: list[list[str]]) -> list[str]:
    """Of texts that differ in their figures only, the first, and of how many pieces it was said."""
    found: dict[str, list[str]] = {}
    for texts in said:
        for text in texts:
            found.setdefault(re.sub(r"[-+.\de]+", "", text), []).append(text)
    more = f" of {len(said)} parts)"
    return [texts[0] + (f" (so of {len(texts)}{more}" if len(texts) > 1 else "") for texts in found.values()]
