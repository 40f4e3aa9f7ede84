"""``iasolve info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iasolve.cli.options import Printing

__all__ = ["info"]


def info(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Image or k-space.")],
    *,
    kind: Annotated[
        str,
        typer.Option(metavar="auto|image|kspace", help="What the values are; auto: complex values are k-space."),
    ] = "auto",
    printing: Printing,
) -> None:
    """Say what the program sees in a file.

    Its format, axes and range; the noise that it finds there, by frequency where it is not white; and for each prior
    whether images like these are what it was trained on. Of a volume, eight slices are looked at.

    Examples
    --------
    iasolve info scan.nii.gz
    iasolve info kspace.h5 --json
    iasolve info complex.npy --kind image
    """
    from iasolve.cli.inspection import inspect_file

    inspect_file(source, kind, printing)
