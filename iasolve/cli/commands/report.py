"""``iasolve report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iasolve.cli.options import Overwrite, Printing

__all__ = ["report"]


def report(
    results: Annotated[Path, typer.Argument(metavar="OUT", help="A result, or a folder of results.")],
    page: Annotated[
        Path | None,
        typer.Argument(metavar="PAGE.html", help="The page.  [default: report.html in the folder, OUT.html]"),
    ] = None,
    *,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE|FOLDER", help="The measurements, for the pictures before."),
    ] = None,
    std: Annotated[
        Path | None,
        typer.Option(metavar="FILE|FOLDER", help="What --std-out wrote.  [default: looked for beside the result]"),
    ] = None,
    overwrite: Overwrite = False,
    printing: Printing,
) -> None:
    """Make a page to look at from results that are there: the page of --report, afterwards.

    A result is known by the report beside it, OUT.json. Measurements that have changed since are left out.

    Examples
    --------
    iasolve report denoised/ --inputs scans/
    iasolve report clean.tif look.html --inputs noisy.tif --std error.tif
    """
    from iasolve.cli.past_results import make_page

    make_page(results, page, inputs, std, overwrite, printing)
