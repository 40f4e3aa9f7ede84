"""``iasolve deblur``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iasolve.cli.options import Printing, Running, Solving, Writing

if TYPE_CHECKING:
    from iasolve.cli.sources import Source

__all__ = ["deblur"]


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


def deblur(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Blurred image, or a folder of them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Result, or a folder for the results.")],
    *,
    blurring: Blurring,
    solving: Solving,
    running: Running,
    writing: Writing,
    printing: Printing,
) -> None:
    """Sharpen blurred or low-pass filtered images.

    Exactly one of --gaussian, --kernel and --cutoff says what blurred them.

    The boundary is circular: the blur is taken to wrap around the image's edges. Where something bright touches an
    edge, pad the image first, or expect artefacts there.

    Examples
    --------
    iasolve deblur blurred.tif sharp.tif --gaussian 2
    iasolve deblur shaken.png sharp.png --kernel kernel.npy --sigma 3
    iasolve deblur photos/ sharp/ --gaussian 1.5 --report look.html
    """
    from iasolve.cli.blurs import Blur
    from iasolve.cli.sources import image_source
    from iasolve.cli.task import Task
    from iasolve.cli.workflow import run
    from iasolve.files import IMAGE_SUFFIXES, split_key

    blur = Blur(blurring.gaussian, blurring.kernel, blurring.cutoff)

    def read(path: Path) -> Source:
        found = image_source(path)
        found.facts.update(blur.facts)
        found.notes.extend(blur.notes)
        return found

    def operator(_: Source, shape: Any, dtype: Any) -> Any:
        return blur.operator(shape, dtype)

    kernel = blurring.kernel
    files = {} if kernel is None else {"--kernel": split_key(kernel)[0]}
    task = Task("deblur", "deblur", IMAGE_SUFFIXES, read, operator, blur.facts, files=lambda: files)
    run(task, source, out, solving, running, writing, printing)
