"""``iasolve solve``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iasolve.cli.options import Printing, Running, Solving, Spreading, Writing

if TYPE_CHECKING:
    from iasolve.cli.sources import Source
    from iasolve.cli.task import Task
    from iasolve.operators import LinearOperator

__all__ = ["solve", "task"]


@dataclass(frozen=True)
class Making:
    """How the operator is made."""

    operator: Annotated[
        str,
        typer.Option(
            metavar="OPERATOR",
            help="module:factory, FILE.py:factory, or the name of a known operator.",
            show_default=False,
        ),
    ]
    operator_args: Annotated[
        Path | None, typer.Option("--operator-args", metavar="FILE.toml", help="The factory's keyword arguments.")
    ] = None
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check the operator first, and refuse a wrong one.")
    ] = True


def solve(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Measurement, or a folder of them.")],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Image (npy, npz, tif, h5, mat, cfl, nii), or a folder for the images."),
    ],
    *,
    making: Making,
    solving: Solving,
    running: Running,
    spreading: Spreading,
    writing: Writing,
    printing: Printing,
) -> None:
    """Solve for the image behind any linear measurement: your own operator.

    The factory, a function or class, is called with the arguments in the TOML file and returns a LinearOperator from
    images (C, H, W). IN holds what it puts out, (..., *out_shape), batch dimensions first: npy, npz, mat, h5 of any
    shape, or whatever the other commands read. 'iasolve check-operator' prints what the check finds.

    Examples
    --------
    iasolve solve sinogram.npy image.tif --operator scanner.py:parallel_beam
    iasolve solve y.npz image.npy --operator Radon --operator-args radon.toml --samples 8
    """
    from iasolve.cli.workflow import run

    run(partial(task, making), source, out, solving, running, spreading, writing, printing)


def task(making: Making) -> Task:
    """What this command does to a measurement."""
    from iasolve.cli.task import Task
    from iasolve.cli.user_measurement import measured
    from iasolve.cli.user_operator import UserOperator
    from iasolve.files import MEASUREMENT_SUFFIXES, read_measurement

    named = UserOperator(making.operator, making.operator_args)

    @cache
    def built() -> LinearOperator:
        made = named.build()
        if making.check:
            named.require_right(made)
        return made

    def read(path: Path) -> Source:
        # the file first: what is wrong with it shows without importing anything
        file = read_measurement(path)
        made = built()
        with named.solving(making.check):
            return measured(file, made, named.name)

    def work(_: Source, y: Any, prior: Any, **options: Any) -> Any:
        import iasolve

        operator = built()
        with named.solving(making.check):
            return iasolve.solve(y, operator, prior, **options)

    def choose(_: Source, y: Any, priors: Any, **options: Any) -> Any:
        from iasolve.inference import choose_prior

        operator = built()
        with named.solving(making.check):
            return choose_prior(y, operator, priors, **options)

    def kind(_: Source) -> tuple[int, bool]:
        return built().in_shape[0], built().is_complex

    def files() -> Mapping[str, Path]:
        built()  # its modules are imported then
        return named.files()

    return Task(
        "solve",
        "compressed-sensing",
        MEASUREMENT_SUFFIXES,
        read,
        None,
        {"operator": making.operator, "arguments": named.arguments},
        work,
        choose,
        kind,
        files=files,
        prepare=built,
    )
