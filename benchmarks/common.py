"""What the benchmark scripts share: images, tasks, provenance, and tables."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

import iasolve
from iasolve.evidence import Folded, fold
from iasolve.operators import (
    CircularBlur,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    gaussian_kernel,
    line_mask,
)
from iasolve.priors import read_card
from iasolve.priors.reader import reader_beside
from iasolve.training.commit import commit_of

RESULTS = Path(__file__).parent / "results"
ODD = (59, 209, 210, *range(709, 715), 3030, 3063, 3064)
"""Slices that the data's README says to leave out."""


T = TypeVar("T")


def timed(method: Callable[[], T], count: int) -> tuple[T, float]:
    """What a method gives for ``count`` images, and its processor seconds per image, of all threads.

    Unlike the clock's, they hardly depend on what else the machine does. Of a GPU they tell nothing.
    """
    begun = time.process_time()
    out = method()
    return out, (time.process_time() - begun) / count


@dataclass(frozen=True)
class Task:
    """A measurement to simulate; ``sigma`` in units of the image's standard deviation."""

    name: str
    sigma: float
    kind: str
    value: float = 0.0
    centre: float = 0.0

    def operator(self, shape: tuple[int, int, int], seed: int = 0) -> LinearOperator:
        """The forward operator."""
        if self.kind == "lines":
            return KSpaceMask(line_mask(shape[1:], self.value, self.centre, seed=seed), shape)
        if self.kind == "blur":
            return CircularBlur(gaussian_kernel(self.value), shape)
        if self.kind == "low-pass":
            return LowPass(self.value, shape)
        return Identity(shape)


TASKS = (
    Task("denoise 0.1", 0.1, "denoise"),
    Task("denoise 0.3", 0.3, "denoise"),
    Task("denoise 1.0", 1.0, "denoise"),
    Task("lines 4x", 0.02, "lines", 4, 0.08),
    Task("lines 8x", 0.02, "lines", 8, 0.04),
    Task("blur 2 px", 0.05, "blur", 2.0),
    Task("low-pass 8", 0.01, "low-pass", 8),
)
RECIPES = {"denoise": "denoise", "lines": "compressed-sensing", "blur": "deblur", "low-pass": "denoise"}


_STEPS = {
    "steps": "count",
    "beta": "beta",
    "variables": "variables",
    "objective": "objective",
    "optimizer": "optimizer",
    "step_size": "size",
    "schedule": "blocks",
    "refined_views": "views",
}
_BLOCKS = {"joint": "scale", "sequential": "latent", "whole": "whole"}


def changed(recipe: iasolve.Recipe, **keys: Any) -> iasolve.Recipe:
    """A recipe with some keys changed, under the names that results have: one flat list.

    Of steps: ``steps``, ``beta``, ``variables``, ``objective``, ``optimizer``, ``step_size``, ``schedule`` (``joint``:
    scale by scale, ``sequential``: latent by latent, ``whole``), ``refined_views``. Besides: ``guess_stop``,
    ``passes``, ``coupling_end``, ``error``, ``views``, ``samples``.
    """
    groups: dict[str, Any] = {}
    for key, value in keys.items():
        if key in _STEPS:
            groups.setdefault("steps", {})[_STEPS[key]] = _BLOCKS[value] if key == "schedule" else value
        elif key == "guess_stop":
            groups["guess"] = {"stop": value}
        elif key in ("passes", "coupling_end"):
            groups.setdefault("passes", {})["count" if key == "passes" else "end"] = value
        elif key == "error":
            groups["closing"] = {"error": value}
        else:
            groups[key] = value
    return recipe.changed(**groups)


def data_file(path: Path | None) -> Path:
    """The MRI slices: the given file, or ``mri-t1ce-128.npz`` in the folder that ``IASOLVE_DATA`` names."""
    found = path or Path(os.environ.get("IASOLVE_DATA", ".")) / "mri-t1ce-128.npz"
    if not found.is_file():
        raise SystemExit(f"no {found}: give --data FILE, or set IASOLVE_DATA to the folder of mri-t1ce-128.npz")
    return found


def slices(path: Path | None, part: str) -> Tensor:
    """``"train"``, ``"validation"`` (every 20th of labels 0 and 2) or ``"test"`` (label 1) slices.

    ``(n, 1, 128, 128)`` float32, each divided by its standard deviation.
    """
    with np.load(data_file(path), allow_pickle=False) as data:
        keep = ~np.isin(data["index"], ODD)
        keep &= np.isin(data["label"], [1] if part == "test" else [0, 2])
        images = data["images"][keep].astype(np.float32)
    if part != "test":
        held_out = np.zeros(len(images), dtype=bool)
        held_out[::20] = True
        images = images[held_out if part == "validation" else ~held_out]
    images /= images.std(axis=(1, 2), keepdims=True)
    return torch.from_numpy(images)[:, None]


def pick(images: Tensor, count: int, seed: int) -> Tensor:
    """``count`` of the images, drawn without replacement."""
    order = np.random.default_rng(seed).permutation(len(images))[:count]
    return images[torch.from_numpy(np.sort(order))]


class Group(NamedTuple):
    """Images measured by one operator: ``y`` and ``images`` ``(B, ...)``."""

    operator: LinearOperator
    y: Tensor
    images: Tensor


def measure(task: Task, images: Tensor, seed: int) -> list[Group]:
    """Noisy measurements of ``images`` (unit standard deviation).

    A figure on a single random mask would say more about the mask than about the method: every eight images get a
    mask of their own.
    """
    size = 8 if task.kind == "lines" else len(images)
    groups = []
    for number, part in enumerate(images.split(size)):
        operator = task.operator(tuple(images.shape[1:]), seed + number)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(seed + number)
        groups.append(Group(operator, GaussianNoise(task.sigma).sample(operator(part), generator), part))
    return groups


def volume_slices(path: Path) -> Tensor:
    """Axial slices of a NIfTI volume of a head at about 2 mm, padded to 128 x 128: images of another scanner.

    Slices that hold at least half of the area of the largest one; ``(n, 1, 128, 128)``, unit standard deviation.
    Negative values, which interpolation leaves behind, become 0.
    """
    from iasolve.files import read_image

    volume = torch.from_numpy(np.ascontiguousarray(read_image(path).pixels[:, 0].astype(np.float32))).clamp_min(0)
    area = (volume > 0.1 * volume.max()).flatten(1).sum(1)
    volume = volume[area >= area.max() / 2]
    height, width = volume.shape[1:]
    if max(height, width) > 128:
        raise SystemExit(f"{path}: slices of {height} x {width} pixels, expected at most 128 x 128 (about 2 mm)")
    top, left = (128 - height) // 2, (128 - width) // 2
    padded = torch.nn.functional.pad(volume, (left, 128 - width - left, top, 128 - height - top))
    return (padded / padded.flatten(1).std(1, correction=0)[:, None, None])[:, None]


def folded_measurement(task: Task, groups: list[Group]) -> Folded:
    """One value and one noise variance per frequency, ``(B, C, H, W)``, for the classical solvers."""
    parts = []
    for operator, y, _ in groups:
        transfer = operator.transfer()
        assert transfer is not None
        grid = operator.to_grid(y)
        part = fold(grid, transfer, task.sigma, real_image=True, complex_noise=y.is_complex())
        parts.append(Folded(part.value, part.variance.expand(grid.shape)))
    return Folded(*(torch.cat(values) for values in zip(*parts, strict=True)))


def psnr(estimates: Tensor, references: Tensor) -> np.ndarray:
    """PSNR of each image, peak = the reference's range, in dB."""
    mse = (estimates - references).square().mean((-3, -2, -1))
    span = references.amax((-3, -2, -1)) - references.amin((-3, -2, -1))
    return (10 * torch.log10(span.square() / mse)).numpy()


def ssim(estimates: Tensor, references: Tensor) -> np.ndarray:
    """SSIM of each image."""
    from iasolve import metrics

    return np.array([metrics.ssim(e[0].numpy(), r[0].numpy()) for e, r in zip(estimates, references, strict=True)])


def commit() -> str | None:
    """The commit of these benchmarks."""
    return commit_of(Path(__file__).parent)


def provenance(seed: int, prior: Any, **more: Any) -> dict[str, Any]:
    """Commit, machine, versions, prior and seed: what has to stand beside a figure."""
    training = prior.card.get("training", {})
    return {
        "commit": commit(),
        "iasolve": iasolve.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "prior": prior.name,
        "prior_sha256": prior.card.get("sha256"),
        "prior_images_seen": training.get("images"),
        **_reader(prior),
        "seed": seed,
        **more,
    }


def _reader(prior: Any) -> dict[str, Any]:
    """Of a prior that has a reader beside its hierarchy."""
    path = getattr(prior, "path", None)
    beside = reader_beside(Path(path)) if path is not None and prior.descends and prior.reads else None
    if beside is None:
        return {}
    card = read_card(beside)
    return {"reader_sha256": card.get("sha256"), "reader_images_seen": card.get("training", {}).get("images")}


def stamp(about: Mapping[str, Any]) -> str:
    """A line that says which prior, commit, seed and machine, from :func:`provenance`."""
    seen, sha256, own = about.get("reader_images_seen"), str(about.get("reader_sha256"))[:12], about["prior_sha256"]
    read = f", its reader {seen} images, sha256 {sha256}" if "reader_sha256" in about else ""
    return (
        f"Prior {about['prior']}, {about['prior_images_seen']} images seen, sha256 {str(own)[:12]}{read}; "
        f"commit {about['commit']}; seed {about['seed']}; {about['machine']}."
    )


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)


def chosen(items: Sequence[Named], only: str) -> list[Named]:
    """Those of which a part of the name is among the comma-separated ``only``; ends the program where none is."""
    found = [item for item in items if not only or any(part in item.name for part in only.split(","))]
    if not found:
        raise SystemExit(f"--only {only}: no such task; there are {', '.join(item.name for item in items)}")
    return found


def signed(interval: tuple[float, float, float], digits: int = 2) -> str:
    """``+0.31 (+0.12 to +0.50)``: a paired difference with its interval."""
    mean, low, high = (f"{value:+.{digits}f}" for value in interval)
    return f"{mean} ({low} to {high})"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write(name: str, data: dict[str, Any], markdown: str, folder: Path = RESULTS) -> None:
    """JSON and Markdown beside each other."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
