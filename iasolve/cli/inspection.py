"""``iasolve info``: what the program sees in a file, before anything is solved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import iasolve
from iasolve.cli.errors import UsageError
from iasolve.cli.options import Printing
from iasolve.cli.reporter import Reporter, plain, spread
from iasolve.cli.sources import Source, image_source, kspace_source
from iasolve.files import KSPACE_SUFFIXES, FileError, open_kspace, runs, suffix_of
from iasolve.noise_level import estimate_noise, estimate_sigma
from iasolve.operators import Identity, KSpaceMask
from iasolve.priors import Prior, list_priors
from iasolve.priors.likeness import ring_distance

__all__ = ["inspect_file"]

Array = NDArray[Any]

_LOOKED_AT = 8
_ROOM = 1.25  # beyond the most unusual validation image, as a solution's warning leaves it


def inspect_file(path: Path, kind: str, printing: Printing) -> None:
    """Print what is in a file.

    Parameters
    ----------
    path : Path
    kind : {"auto", "image", "kspace"}
    printing : Printing

    Raises
    ------
    UsageError, FileError, UnfitInput
    """
    if kind not in ("auto", "image", "kspace"):
        raise UsageError(f"--kind {kind}: expected auto, image or kspace")
    reporter = Reporter(printing)
    is_kspace = kind == "kspace" or (kind == "auto" and _holds_kspace(path))
    source = kspace_source(path, "auto") if is_kspace else image_source(path)
    like = source.like
    pages = np.unique(np.linspace(0, len(like.pixels) - 1, _LOOKED_AT).round().astype(int))
    facts: dict[str, Any] = {
        "file": str(path),
        "format": suffix_of(path),
        "kind": "k-space" if is_kspace else "image",
        "type": str(source.y.dtype if is_kspace else like.dtype),
        "shape": list(source.y.shape),
        "axes": ["slices" if is_kspace else "pages", "coils" if is_kspace else "channels", "rows", "columns"],
        "slice_axis": like.slice_axis,
        "range": _range(source.y),
        "looked_at": pages.tolist(),
        **({key: value for key, value in source.facts.items() if key != "kind"} if is_kspace else {}),
        "noise": _noise_kspace(source, pages) if is_kspace else _noise_image(like.pixels[pages]),
        # the likeliest first
        "priors": sorted(
            (_fit(name, like.pixels[pages], is_kspace) for name in list_priors()),
            key=lambda prior: (prior["fits"] is not True, prior["distance"] is None, prior["distance"] or 0.0),
        ),
        "notes": source.notes,
    }
    for text in source.notes:
        reporter.warn(text)
    reporter.say(_text(facts))
    reporter.result(plain(facts, 7))


def _holds_kspace(path: Path) -> bool:
    """Whether a file holds complex values with coils, or k-space by its format."""
    if suffix_of(path) not in KSPACE_SUFFIXES:
        return False
    try:
        open_kspace(path)
    except FileError:
        return False
    return True


def _range(values: Array) -> list[float]:
    """Lowest and highest value, of complex ones their magnitudes."""
    low, high = math.inf, -math.inf
    for run in runs(values):
        shown = np.abs(run) if np.iscomplexobj(run) else run
        low, high = min(low, float(shown.min())), max(high, float(shown.max()))
    return [low, high]


def _noise_image(pages: Array) -> dict[str, Any]:
    """Levels of images, root mean square over colours; by rings where they differ."""
    levels: list[float] = []
    rings = []
    for page in pages:
        values = torch.from_numpy(np.ascontiguousarray(page))
        try:
            found = estimate_noise(values, Identity(tuple(values.shape), values.dtype))
        except ValueError as error:
            return {"level": None, "why": str(error)}
        own = getattr(found, "levels", None)
        if own is None:
            levels.append(float(found.sigma))
        else:
            each = torch.as_tensor(own).double()
            # ring i of n holds (2 i + 1) / n^2 of all frequencies
            weight = (2 * torch.arange(len(each)).double() + 1) / len(each) ** 2
            levels.append(float((weight * each.square()).sum().sqrt()))
            rings.append(each.numpy())
    coloured = len(rings) > len(pages) / 2
    return {"level": levels, "white": not coloured, "rings": np.mean(rings, 0).tolist() if coloured else None}


def _noise_kspace(source: Source, pages: Array) -> dict[str, Any]:
    """Levels of k-space, coil by coil: their root mean square, and the quietest and the noisiest coil."""
    height, width = source.y.shape[-2:]
    operator = KSpaceMask(torch.ones(height, width), (1, height, width))
    try:
        each = [estimate_sigma(torch.from_numpy(source.y[p][:, None]), operator).numpy() for p in pages]
    except ValueError as error:
        return {"level": None, "why": str(error)}
    coils = np.sqrt(np.mean(np.square(each), 0))
    return {"level": [float(np.sqrt((e**2).mean())) for e in each], "white": True, "coils": coils.tolist()}


def _fit(name: str, pages: Array, is_kspace: bool) -> dict[str, Any]:
    """Whether a prior was trained on images like these: by their kind, and by the power of their coarse scales."""
    prior = iasolve.load_prior(name)
    kind = f"{'complex' if prior.spectrum.is_complex else 'grey' if prior.channels == 1 else 'colour'} images"
    told: dict[str, Any] = {"name": name, "over": kind, "distance": None, "farthest": None}
    channels = pages.shape[1]
    if channels == 3 and prior.channels == 1:  # the colours are solved one by one
        pages, channels = pages.reshape(-1, 1, *pages.shape[2:]), 1
    if channels != prior.channels:
        return {**told, "fits": False, "why": f"over {kind}; this file has {channels} channel(s)"}
    if np.iscomplexobj(pages) and not prior.spectrum.is_complex:
        return {**told, "fits": False, "why": f"over {kind}; this file has complex values"}
    if prior.spectrum.is_complex and not np.iscomplexobj(pages) and not is_kspace:
        return {**told, "fits": False, "why": f"over {kind}; this file has real values"}
    farthest = (prior.card.get("validation", {}).get("coarse_rings") or {}).get("largest_distance")
    if farthest is None:
        return {**told, "fits": None, "why": "its card does not say what its images are like"}
    distance = float(ring_distance(prior, _views(prior, pages)).median())
    fits = distance <= _ROOM * farthest
    why = f"coarse scales {distance:.1f} standard deviations off; its validation images up to {farthest:.1f}"
    return {**told, "fits": fits, "distance": distance, "farthest": farthest, "why": why}


def _views(prior: Prior, pages: Array) -> Tensor:
    """Images at the prior's size and of its units: their central squares, interpolated."""
    side = min(pages.shape[-2:])
    top, left = ((n - side) // 2 for n in pages.shape[-2:])
    square = np.ascontiguousarray(pages[..., top : top + side, left : left + side])
    values = _resized(torch.from_numpy(square), prior.spectrum.size)
    kind = torch.complex64 if prior.spectrum.is_complex else torch.float32
    scaled = values / values.abs().square().mean((-3, -2, -1), keepdim=True).sqrt().clamp_min(1e-20)
    return scaled.to(kind)


def _resized(values: Tensor, size: int) -> Tensor:
    """Linear interpolation to ``(size, size)``, real and imaginary part on their own."""
    if values.is_complex():
        return torch.complex(_resized(values.real, size), _resized(values.imag, size))
    return torch.nn.functional.interpolate(values, (size, size), mode="bilinear", align_corners=False, antialias=True)


def _text(facts: dict[str, Any]) -> str:
    named = zip(facts["shape"], facts["axes"], strict=True)
    shape = ", ".join(f"{n} {axis.removesuffix('s') if n == 1 else axis}" for n, axis in named)
    low, high = facts["range"]
    lines = [
        f"{facts['file']}: {facts['kind']}, {facts['format'].removeprefix('.')}",
        f"  values    {shape}; {facts['type']}, {low:.4g} to {high:.4g}"
        + (" in magnitude" if "complex" in facts["type"] else ""),
    ]
    if facts["slice_axis"]:
        lines.append(f"  slices    along the {facts['slice_axis']}")
    if "acceleration" in facts:
        lines.append(f"  sampling  {facts['acceleration']:.3g}x, from {facts['mask']}")
    noise = facts["noise"]
    if noise["level"] is None:
        lines.append(f"  noise     unknown: {noise['why']}")
    elif noise["white"]:
        lines.append(f"  noise     level {spread(noise['level'])}, white")
        if len(noise.get("coils", ())) > 1:
            lines.append(f"  coils     levels {spread(noise['coils'])}")
    else:
        rings = ", ".join(f"{value:.3g}" for value in noise["rings"])
        lines += [
            f"  noise     level {spread(noise['level'])}, not white; by frequency, coarse to fine:",
            f"            {rings}",
        ]
    for prior in facts["priors"]:
        fits = {True: "fits", False: "does not fit", None: "unknown"}[prior["fits"]]
        lines.append(f"  prior     {prior['name']}: {fits} ({prior['why']})")
    return "\n".join(lines)
