"""What a solution is, and how batches and slices of it are joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from iasolve.recipe import Recipe

__all__ = ["Array", "NonFiniteError", "Result", "ScaleReport", "SolverReport", "UnlikePriorWarning", "as_numpy", "join"]

Array = TypeVar("Array", Tensor, np.ndarray)
"""Torch or numpy: of the kind that the measurement was."""


class NonFiniteError(RuntimeError):
    """The solution holds NaN or infinite values."""


class UnlikePriorWarning(UserWarning):
    """The image is unlike what the prior was trained on."""


class ScaleReport(TypedDict, Generic[Array]):
    """What steps did at a scale.

    ``before`` and ``after``: objective in nats, per image; ``misfit``: root mean square residual against noise and
    decoder level, per image, about 1; of the whole image where the measurement does not divide among scales: tiles, and
    operators that are not diagonal.
    """

    scale: int
    steps: int
    before: Array
    after: Array
    misfit: Array


class SolverReport(TypedDict, Generic[Array]):
    """Conjugate gradients, per image.

    ``applications`` of ``A^H A``, those of its batch, without what came before: gain and profile; relative ``residual``
    of the last solve.
    """

    applications: Array
    residual: Array


@dataclass(frozen=True)
class Result(Generic[Array]):
    """A solution; arrays are of the kind (torch or numpy) and on the device that ``y`` was, with its batch dimensions.

    Attributes
    ----------
    image : array
        ``(..., C, H, W)``, in the user's units.
    std : array or None
        Standard deviation of each pixel, with samples only.
    samples : array or None
        ``(K, ..., C, H, W)`` posterior samples.
    scales : list of ScaleReport
    sigma : array
        Noise level used, per image, in the measurement's units.
    gain : array
        Estimated scale of each image: user's units over the prior's.
    improved : array
        Whether passes or steps ended with a better total objective than the guess, per image; where not, the guess
        is returned.
    likeness : array
        ELBO of the image (of its tiles, on average) under the prior, in nats per dimension.
    distance : array
        How far the power of the image's coarse scales lies from that of validation images, in their standard
        deviations; NaN for a prior that does not know.
    offsets : list of list of array
        What refinement moved each latent's mean by, in standard deviations of its posterior (of its prior, without
        encoder): per scale and layer ``(tiles in all, z, g, g)``. See :func:`iasolve.priors.bound.bound`.
    solver : SolverReport or None
        Where the operator is not diagonal.
    recipe : Recipe
    chosen : str
        Why this recipe was taken, where none was asked for; empty otherwise.
    seed : int
    seconds : float
    """

    image: Array
    std: Array | None
    samples: Array | None
    scales: list[ScaleReport[Array]]
    sigma: Array
    gain: Array
    improved: Array
    likeness: Array
    distance: Array
    offsets: list[list[Array]]
    solver: SolverReport[Array] | None
    recipe: Recipe
    chosen: str
    seed: int
    seconds: float


_PER_IMAGE = ("image", "std", "sigma", "gain", "improved", "likeness", "distance")


def join(parts: Sequence[Result[Tensor]], lead: Sequence[int], device: torch.device) -> Result[Tensor]:
    """Results of batches as one, with batch dimensions ``lead``, on a device; ``seconds`` add up."""
    first = parts[0]

    def whole(get: Callable[[Result[Tensor]], Tensor | None], axis: int = 0) -> Any:
        values = [value for value in map(get, parts) if value is not None]
        if not values:
            return None
        joined = torch.cat(values, dim=axis).to(device)
        return joined.reshape((*joined.shape[:axis], *lead, *joined.shape[axis + 1 :]))

    scales: list[ScaleReport[Tensor]] = []
    for n, row in enumerate(first.scales):
        before, after, misfit = (
            whole(lambda r, n=n, key=key: r.scales[n][key]) for key in ("before", "after", "misfit")
        )
        scales.append(
            {"scale": row["scale"], "steps": row["steps"], "before": before, "after": after, "misfit": misfit}
        )
    solver: SolverReport[Tensor] | None = None
    if first.solver is not None:
        solver = {
            "applications": whole(lambda r: r.solver and r.solver["applications"]),
            "residual": whole(lambda r: r.solver and r.solver["residual"]),
        }
    # by tiles, whatever the images
    offsets = [
        [torch.cat([r.offsets[s][n] for r in parts]).to(device) for n in range(len(layers))]
        for s, layers in enumerate(first.offsets)
    ]
    return replace(
        first,
        **{name: whole(lambda r, name=name: getattr(r, name)) for name in _PER_IMAGE},
        samples=whole(lambda r: r.samples, 1),
        scales=scales,
        offsets=offsets,
        solver=solver,
        seconds=sum(r.seconds for r in parts),
    )


def as_numpy(result: Any) -> Any:
    """A result of torch's arrays with numpy's, of the same class."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.numpy()
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    return replace(result, **{f.name: plain(getattr(result, f.name)) for f in fields(result)})
