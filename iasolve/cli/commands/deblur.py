"""``iasolve deblur``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iasolve.cli.options import Printing, Running, Solving, Spreading, Writing

if TYPE_CHECKING:
    from iasolve.cli.blurs import Blur
    from iasolve.cli.sources import Source
    from iasolve.cli.task import Task

__all__ = ["deblur", "task"]


@dataclass(frozen=True)
class Blurring:
    """What blurred the images."""

    gaussian: Annotated[
        float | None,
        typer.Option(metavar="PIXELS", help="Gaussian blur of this standard deviation."),
    ] = None
    kernel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Blur kernel (npy, npz, png, tif), centre at index size // 2; scaled to sum to 1.",
        ),
    ] = None
    cutoff: Annotated[
        float | None,
        typer.Option(
            metavar="SCALE",
            help="Low-pass: only frequencies up to SCALE / 2 cycles per image were kept.",
        ),
    ] = None
    boundary: Annotated[
        str,
        typer.Option(
            metavar="auto|unknown|circular",
            help="What is beyond the edge. unknown: the scene goes on, as outside of a camera's frame. circular: the "
            "picture wraps around. auto: circular for --cutoff and if the picture's report says so, else unknown.",
        ),
    ] = "auto"


def deblur(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Blurred image, or a folder of them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Result, or a folder for the results.")],
    *,
    blurring: Blurring,
    solving: Solving,
    running: Running,
    spreading: Spreading,
    writing: Writing,
    printing: Printing,
) -> None:
    """Sharpen blurred or low-pass filtered images.

    Exactly one of --gaussian, --kernel and --cutoff says what blurred them.

    A picture is taken for a part of a larger scene, of which its rim shows something too (--boundary unknown). What
    'iasolve simulate' has blurred wraps around, and its report says so.

    Examples
    --------
    iasolve deblur blurred.tif sharp.tif --gaussian 2
    iasolve deblur shaken.png sharp.png --kernel kernel.npy --sigma 3
    iasolve deblur photos/ sharp/ --gaussian 1.5 --report look.html
    """
    from iasolve.cli.workflow import run

    run(partial(task, blurring), source, out, solving, running, spreading, writing, printing)


def task(blurring: Blurring) -> Task:
    """What this command does to a measurement."""
    from iasolve.cli.blurs import Blur
    from iasolve.cli.sources import image_source
    from iasolve.cli.task import Task
    from iasolve.files import IMAGE_SUFFIXES, split_key

    blur = Blur(blurring.gaussian, blurring.kernel, blurring.cutoff)

    _check(blurring)

    def read(path: Path) -> Source:
        found = image_source(path)
        boundary = _boundary(blurring, path)
        found.facts.update({**blur.facts, "boundary": boundary})
        found.notes.extend(blur.notes)
        return _scene(found, blur) if boundary == "unknown" else found

    def operator(source: Source, shape: Any, dtype: Any) -> Any:
        if source.facts["boundary"] == "unknown":
            return blur.of_scene(source.y.shape[-2:], dtype, shape[0])
        return blur.operator(shape, dtype)

    kernel = blurring.kernel
    files = {} if kernel is None else {"--kernel": split_key(kernel)[0]}
    asked = {**blur.facts, "boundary": blurring.boundary}
    return Task("deblur", _recipe(blurring.cutoff), IMAGE_SUFFIXES, read, operator, asked, files=lambda: files)


def _recipe(cutoff: float | None) -> str:
    from iasolve.operators.kinds import COARSE

    if cutoff is None:
        return "deblur"
    return "denoise" if cutoff <= COARSE else "compressed-sensing"


def _check(blurring: Blurring) -> None:
    from iasolve.cli.errors import UsageError

    known = ("auto", "unknown", "circular")
    if blurring.boundary not in known:
        raise UsageError(f"--boundary {blurring.boundary}: expected {', '.join(known[:-1])} or {known[-1]}")
    if blurring.cutoff is not None and blurring.boundary not in ("auto", "circular"):
        raise UsageError(
            f"--boundary {blurring.boundary}: expected circular or auto, as --cutoff is of the picture's own grid"
        )


def _boundary(blurring: Blurring, path: Path) -> str:
    if blurring.boundary != "auto":
        return blurring.boundary
    if blurring.cutoff is not None:
        return "circular"
    from iasolve.cli.outputs import Outputs
    from iasolve.files import parse_json, read_text

    try:
        report = parse_json(read_text(Outputs(path).sidecar))
        made = report["operator"]["boundary"] if report["command"] == "simulate" else ""
    except (OSError, ValueError, LookupError, TypeError):
        made = ""
    return "circular" if made == "circular" else "unknown"


def _scene(source: Source, blur: Blur) -> Source:
    """The measurement of a larger image, of which the picture's part is the result."""
    from iasolve.cli.errors import UnfitInput

    height, width = source.y.shape[-2:]
    try:
        scene = blur.scene((height, width))
    except ValueError as error:
        raise UnfitInput(f"{source.like.path}: {error}") from error
    crop = [slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(scene, (height, width), strict=True)]
    return replace(source, size=scene, crop=(crop[0], crop[1]))
