"""``iasolve demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iasolve.cli.options import Printing, Running

__all__ = ["demo"]


def demo(
    printing: Printing,
    running: Running,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where figure and table go.")] = Path(),
    prior: Annotated[str, typer.Option(metavar="NAME|PATH", help="Prior to solve with.")] = "mri-t1-128",
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of noise, mask and samples.")] = 0,
) -> None:
    """Solve bundled MR samples and compare, in a minute.

    Noise, 4x undersampled k-space and blur, each solved with total variation and with iasolve. Writes
    iasolve-demo.png, .md, .json and the page .html into the folder (replacing those of an earlier demo) and prints
    the table.

    Examples
    --------
    iasolve demo
    iasolve demo --out /tmp/demo --seed 1
    """
    from iasolve.cli.demonstration import demonstrate

    demonstrate(out, prior, seed, running, printing)
