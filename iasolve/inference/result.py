"""What :func:`iasolve.solve` and :func:`iasolve.reconstruct` give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from iasolve.noise_level.residual import ResidualReport
from iasolve.recipe import Recipe

__all__ = ["Array", "ResidualReport", "Result", "ScaleReport", "SolverReport", "as_numpy", "join"]

Array = TypeVar("Array", Tensor, np.ndarray)
"""Torch or numpy: of the kind that the measurement was."""


class ScaleReport(TypedDict, Generic[Array]):
    """What steps did at a scale.

    ``before`` and ``after``: objective in nats, per image; ``misfit``: root mean square residual against noise and
    decoder level, per image, about 1; of tiles, and of operators that are not diagonal, that of the whole image.
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
        Standard deviation of each pixel. None without samples, unless the prior has a reader: it has an error bar.
    samples : array or None
        ``(K, ..., C, H, W)`` posterior samples.
    scales : list of ScaleReport
    sigma : array
        Noise level used, per image, in the measurement's units.
    levels : array or None
        Noise level of each ring of frequencies, from 0 to 0.5 cycles per pixel, ``(..., R)``, where they differ.
    gain : array
        Estimated scale of each image: user's units over the prior's.
    offset : array
        Constant that was taken off each image, solved without, and put back: see :class:`Options`.
    improved : array
        Whether passes or steps ended with a better objective than the guess, per image; where not, that is returned.
    prior : str
    fits : array
        Whether the prior answered, per image; where not, the stationary Gaussian with its power did, with its own error
        bar. What else is reported of such an image is the prior's attempt.
    weight : array
        Of the prior's answer in ``image``, per image; the Gaussian's has the rest. Of sampled k-space and pixels it is
        the one by which both together come closest to a part that was kept back; 1 for other measurements, 0 where the
        prior does not fit, above 1 where its answer goes not far enough.
    likeness : array
        ELBO of the image (of its tiles, on average) under the prior, in nats per dimension.
    distance : array
        Of the power of its coarse scales from that of validation images, in their standard deviations; NaN: unknown.
    surplus : array
        Squared error at a part of the measurement that was kept back, over what the prior's reader expected of it, per
        image: its error bar's variance is larger by that factor. 1 where no such part tells it.
    variation : array
        Squared error of total variation at such a part, over the prior's, per image; NaN where that was not tried.
    offsets : list of list of array
        What refinement moved each latent's mean by, in standard deviations of its posterior (of its prior, without
        encoder): per scale and layer ``(tiles in all, z, g, g)``. See :func:`iasolve.priors.bound.bound`.
    solver : SolverReport or None
        Where the operator is not diagonal.
    residual : ResidualReport
    recipe : Recipe
    chosen : str
        Why this recipe was taken, where none was asked for; empty otherwise.
    seed : int
    seconds : float

    Examples
    --------
    >>> import iasolve
    >>> from iasolve.operators import GaussianNoise, Identity
    >>> from iasolve.samples import load_samples
    >>> clean = load_samples().images[:, None].astype("float32")
    >>> y = clean + np.random.default_rng(0).normal(0, 12, clean.shape).astype("float32")
    >>> prior = iasolve.load_prior("mri-t1-128")
    >>> result = iasolve.solve(y, Identity((1, 128, 128)), prior, noise=GaussianNoise(12.0), recipe="fast")
    >>> result.image.shape, result.sigma.shape
    ((4, 1, 128, 128), (4,))
    >>> result.prior_used, result.recipe.name
    (['mri-t1-128', 'mri-t1-128', 'mri-t1-128', 'mri-t1-128'], 'fast')
    """

    image: Array
    std: Array | None
    samples: Array | None
    scales: list[ScaleReport[Array]]
    sigma: Array
    levels: Array | None
    gain: Array
    offset: Array
    improved: Array
    prior: str
    fits: Array
    weight: Array
    likeness: Array
    distance: Array
    surplus: Array
    variation: Array
    offsets: list[list[Array]]
    solver: SolverReport[Array] | None
    residual: ResidualReport[Array]
    recipe: Recipe
    chosen: str
    seed: int
    seconds: float

    @property
    def prior_used(self) -> Any:
        """Name of the prior whose answer each image is: the one asked, or ``"gaussian"``; nested lists for a batch."""
        return np.where(np.asarray(self.fits.tolist(), dtype=bool), self.prior, "gaussian").tolist()

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from iasolve.report import result_html

        return result_html(self)


_PER_IMAGE = (
    "image",
    "std",
    "sigma",
    "levels",
    "gain",
    "offset",
    "improved",
    "fits",
    "weight",
    "likeness",
    "distance",
    "surplus",
    "variation",
)


def join(parts: Sequence[Result[Tensor]], lead: Sequence[int], device: torch.device) -> Result[Tensor]:
    """Results of batches as one, with batch dimensions ``lead``, on a device; ``seconds`` add up."""
    first = parts[0]

    def whole(values: Sequence[Tensor | None], axis: int = 0) -> Any:
        known = [value for value in values if value is not None]
        if not known:
            return None
        joined = torch.cat(known, dim=axis).to(device)
        return joined.reshape((*joined.shape[:axis], *lead, *joined.shape[axis + 1 :]))

    def rows(of: Sequence[Any]) -> Any:
        """Records of batches as one: their arrays joined."""
        return {key: whole([row[key] for row in of]) if isinstance(one, Tensor) else one for key, one in of[0].items()}

    # by tiles, whatever the images
    offsets = [
        [torch.cat([r.offsets[s][n] for r in parts]).to(device) for n in range(len(layers))]
        for s, layers in enumerate(first.offsets)
    ]
    rings = {r.levels.shape[-1] for r in parts if r.levels is not None}
    if rings:  # of white noise, every ring has its level
        each = [r.sigma[:, None].expand(-1, *rings) if r.levels is None else r.levels for r in parts]
        parts = [replace(r, levels=levels) for r, levels in zip(parts, each, strict=True)]
    return replace(
        first,
        **{name: whole([getattr(r, name) for r in parts]) for name in _PER_IMAGE},
        samples=whole([r.samples for r in parts], 1),
        scales=[rows([r.scales[n] for r in parts]) for n in range(len(first.scales))],
        offsets=offsets,
        solver=None if first.solver is None else rows([r.solver for r in parts]),
        residual=rows([r.residual for r in parts]),
        seconds=sum(r.seconds for r in parts),
    )


def as_numpy(result: Result[Tensor]) -> Result[np.ndarray]:
    """A result of torch's arrays with numpy's, of the same class."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.numpy()
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    found: Any = replace(result, **{f.name: plain(getattr(result, f.name)) for f in fields(result)})
    return found
