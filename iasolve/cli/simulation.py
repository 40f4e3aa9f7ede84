"""Measurements made from clean images."""

from __future__ import annotations

import math
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import iasolve
from iasolve.cli.blurs import Blur
from iasolve.cli.errors import UnfitInput, UsageError
from iasolve.cli.folders import each_file, is_folder, list_folder, make_folders, refuse_existing
from iasolve.cli.interruption import uninterrupted
from iasolve.cli.options import Printing
from iasolve.cli.outputs import Outputs, as_usage, real_path
from iasolve.cli.reporter import Reporter, plain
from iasolve.files import (
    IMAGE_SUFFIXES,
    KSPACE_OUT_SUFFIXES,
    PLANE_SUFFIXES,
    ImageFile,
    Stack,
    can_carry,
    guard_output,
    open_image,
    require_carry,
    runs,
    split_key,
    stem_of,
    suffix_of,
    write_image,
    write_json,
    write_kspace,
    write_together,
)

__all__ = ["Simulation", "simulate_files"]

Array = NDArray[Any]

_TASKS = ("denoise", "gaussian", "kernel", "cutoff", "mask")
_KINDS = ("random", "equispaced", "points")


@dataclass(frozen=True)
class Simulation:
    """What to do to a clean image; fields as the options of ``iasolve simulate``.

    Raises
    ------
    UsageError
        For an unknown task, a missing or an impossible value.
    """

    task: str
    sigma: float
    seed: int
    width: float | None
    kernel: Path | None
    cutoff: float | None
    acceleration: float
    centre_fraction: float
    mask_kind: str

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            raise UsageError(f"--task {self.task}: expected one of {', '.join(_TASKS)}")
        if not math.isfinite(self.sigma):
            raise UsageError(f"--sigma {self.sigma}: expected a finite number")
        if self.task == "denoise" and self.sigma == 0:
            raise UsageError("--task denoise needs --sigma: the noise to add, in the file's units")
        needs = {
            "gaussian": ("width", self.width),
            "kernel": ("kernel", self.kernel),
            "cutoff": ("cutoff", self.cutoff),
        }
        for task, (option, value) in needs.items():
            if task == self.task and value is None:
                raise UsageError(f"--task {task} needs --{option}")
            if task != self.task and value is not None:
                raise UsageError(f"--{option} goes with --task {task}, not with --task {self.task}")
        if self.task == "mask":
            if not (math.isfinite(self.acceleration) and self.acceleration >= 1):
                raise UsageError(f"--acceleration {self.acceleration}: expected at least 1")
            if not 0 < self.centre_fraction <= 1:
                raise UsageError(f"--centre-fraction {self.centre_fraction}: expected more than 0 and at most 1")
            if self.mask_kind not in _KINDS:
                raise UsageError(f"--mask-kind {self.mask_kind}: expected one of {', '.join(_KINDS)}")

    def blur(self) -> Blur | None:
        """The blur of the blurring tasks."""
        if self.task in ("denoise", "mask"):
            return None
        return Blur(self.width, self.kernel, self.cutoff)

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The sampling mask ``(H, W)``, centred."""
        from iasolve.operators import line_mask, point_mask

        if self.mask_kind == "points":
            found = point_mask(shape, self.acceleration, self.centre_fraction, seed=self.seed)
        else:
            found = line_mask(shape, self.acceleration, self.centre_fraction, kind=self.mask_kind, seed=self.seed)
        values: NDArray[np.bool_] = found.numpy()
        return values


def simulate_files(
    simulation: Simulation, source: Path, out: Path, mask_out: Path | None, overwrite: bool, printing: Printing
) -> None:
    """Make measurements of a file or a folder of files.

    Raises
    ------
    UsageError, FileError, UnfitInput, typer.Exit
    """
    reporter = Reporter(printing)
    if mask_out is not None and simulation.task != "mask":
        raise UsageError(f"--mask-out goes with --task mask, not with --task {simulation.task}")
    blur = simulation.blur()
    if is_folder(source):
        if mask_out is not None:
            raise UsageError(
                "--mask-out is for a single file: of a folder, each k-space is written with its mask as .npz"
            )
        _folder(simulation, blur, source, out, overwrite, reporter)
        return
    outputs = Outputs(out)
    outputs.guard([split_key(source)[0], *([mask_out] if mask_out else [])], overwrite)
    if mask_out is not None:
        as_usage(lambda: guard_output(mask_out, overwrite), "; --overwrite replaces it")
        as_usage(lambda: require_carry(mask_out, dtype=np.uint8))
        if suffix_of(mask_out) not in PLANE_SUFFIXES:
            raise UsageError(f"--mask-out {mask_out}: expected one of {', '.join(PLANE_SUFFIXES)}, which hold a mask")
    image = open_image(source)
    with uninterrupted():
        report = _one(simulation, blur, image, outputs, mask_out)
    for text in report["warnings"]:
        reporter.warn(text)
    facts = ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}" for key, value in report["operator"].items() if isinstance(value, float)
    )
    reporter.say(
        f"{source} -> {out}: {report['operator']['kind']}{', ' if facts else ''}{facts}, sigma {simulation.sigma:g}"
    )
    if mask_out is not None:
        reporter.say(f"  mask {mask_out}")
    reporter.result(report)


def _folder(
    simulation: Simulation, blur: Blur | None, source: Path, out: Path, overwrite: bool, reporter: Reporter
) -> None:
    sources = list_folder(source, IMAGE_SUFFIXES)
    if real_path(out) == real_path(source) or out.is_file():
        raise UsageError(f"OUT {out}: IN is a folder, so this must name another folder")
    stems = Counter(stem_of(path) for path in sources)
    targets = {}
    for path in sources:
        base = stem_of(path) if stems[stem_of(path)] == 1 else path.name
        targets[path] = Outputs(out / (base + (".npz" if simulation.task == "mask" else ".npy")))
    refuse_existing([p for outputs in targets.values() for p in outputs.all], overwrite)
    make_folders([out])

    def work(path: Path) -> Callable[[], dict[str, Any]]:
        return lambda: _one(simulation, blur, open_image(path), targets[path], None)

    each_file(sources, work, reporter, "simulate", rest="--overwrite makes all of them, these the same again")


@write_together()
def _one(
    simulation: Simulation, blur: Blur | None, image: ImageFile, outputs: Outputs, mask_out: Path | None
) -> dict[str, Any]:
    begun = time.perf_counter()
    kspace = simulation.task == "mask"
    kind = suffix_of(outputs.image)
    dtype = _output_type(simulation, image, outputs.image)
    import torch

    from iasolve.operators import GaussianNoise, Identity, KSpaceMask, LinearOperator, acceleration

    shape = (image.channels, *image.pixels.shape[2:])
    if kspace and image.channels != 1:
        raise UnfitInput(
            f"{image.path}: a colour image. Expected a grey one: k-space has no colours. Convert it to grey"
        )
    real = torch.complex64 if image.is_complex else torch.float32
    facts: dict[str, Any] = {"kind": "identity"}
    mask: NDArray[np.bool_] | None = None
    operator: LinearOperator = Identity(shape, real)
    try:
        if blur is not None:
            facts, operator = blur.facts | {"boundary": "circular"}, blur.operator(shape, real)
        elif kspace:
            mask = simulation.mask((shape[1], shape[2]))
            operator = KSpaceMask(mask, shape, real)
            facts = {
                "kind": "k-space mask",
                "mask_kind": simulation.mask_kind,
                "asked_acceleration": float(simulation.acceleration),
                "acceleration": acceleration(torch.from_numpy(mask)),
            }
    except ValueError as error:
        raise UnfitInput(f"{image.path}: {error}") from error
    noise, sampled = GaussianNoise(simulation.sigma), 1 if mask is None else torch.from_numpy(mask)

    def measured(images: NDArray[Any], *page: int) -> NDArray[Any]:
        # by name, so that the files of a folder get noise of their own, whatever else lies beside them
        name = zlib.crc32(image.path.name.encode("utf-8", "surrogateescape"))
        entropy = np.random.SeedSequence([simulation.seed, name, *page])
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
        x = torch.from_numpy(images.astype(np.complex64 if image.is_complex else np.float32))
        found: NDArray[Any] = (noise.sample(operator(x), generator) * sampled).numpy()
        return found.astype(np.complex64) if kspace else found

    pixels = image.pixels
    if isinstance(pixels, Stack):  # each page has noise of its own: they are asked for in any order, and more than once
        one = measured(pixels[:1], 0)

        def run(rows: slice) -> NDArray[Any]:
            numbers = range(rows.start, rows.stop)
            return np.concatenate([measured(pixels[n : n + 1], n) for n in numbers])

        values: NDArray[Any] | Stack = Stack((len(pixels), *one.shape[1:]), one.dtype, run)
    else:
        values = measured(pixels)
    warnings = [] if blur is None else list(blur.notes)
    if mask is not None:
        # one page without a page axis is (H, W); otherwise slices come first and there is one coil
        write_kspace(outputs.image, values if image.paged else values[0, 0], mask)
        if mask_out is not None:
            plane = mask[np.newaxis, np.newaxis]
            whole = can_carry(suffix_of(mask_out), np.bool_)
            write_image(mask_out, plane if whole else plane.astype(np.uint8) * np.uint8(255))
    else:
        if dtype.kind in "ui":
            scaling = image.scaling if image.same_format(kind) else None
            low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if scaling is None else (scaling.low, scaling.high)
            beyond = 0
            for some in runs(values):
                stored = some if scaling is None else scaling.stored(some)
                beyond += int(((stored < low) | (stored > high)).sum())
            if clipped := beyond / values.size:
                warnings.append(
                    f"{clipped:.1%} of the values were clipped to {low} .. {high}, so the noise is no "
                    f"longer Gaussian: write to .npy or .tif to keep all ({kind} holds {dtype})"
                )
        write_image(outputs.image, values, image, dtype=dtype, note=f"simulated by iasolve {iasolve.__version__}")
    options = {k: v for k, v in asdict(simulation).items() if v is not None}
    report: dict[str, Any] = plain(
        {
            "iasolve": iasolve.__version__,
            "command": "simulate",
            "asked": options,
            "input": {"name": image.path.name, "type": str(image.dtype), "slice_axis": image.slice_axis},
            "output": outputs.image.name,
            "operator": facts,
            "sigma": simulation.sigma,
            "seed": simulation.seed,
            "seconds": time.perf_counter() - begun,
            "warnings": warnings,
        },
        7,
    )
    write_json(outputs.sidecar, report)
    return report


def _output_type(simulation: Simulation, image: ImageFile, out: Path) -> np.dtype[Any]:
    """Type of the values in OUT; refuses, before any work, what OUT cannot hold."""
    kind = suffix_of(out)
    if simulation.task == "mask":
        if kind not in KSPACE_OUT_SUFFIXES:
            raise UsageError(
                f"{out}: k-space cannot be written to {kind or 'a name without suffix'!r}. Expected one of "
                f"{', '.join(KSPACE_OUT_SUFFIXES)}"
            )
        return np.dtype(np.complex64)
    whole: Any = np.complex64 if image.is_complex else np.float32
    dtype: np.dtype[Any] = np.dtype(whole) if can_carry(kind, whole) else image.type_in(kind)
    as_usage(lambda: require_carry(out, image, dtype=dtype))
    return dtype
