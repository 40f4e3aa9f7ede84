"""``iasolve check-operator``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iasolve.cli.options import Printing

__all__ = ["check_operator"]


def check_operator(
    operator: Annotated[
        str,
        typer.Argument(metavar="OPERATOR", help="module:factory, FILE.py:factory, or the name of a known operator."),
    ],
    *,
    arguments: Annotated[
        Path | None,
        typer.Option("--args", "--operator-args", metavar="FILE.toml", help="The factory's keyword arguments."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of the random inputs.")] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Largest error accepted.  [default: 1e-6; 2e-5 where computed in single precision only]",
        ),
    ] = None,
    printing: Printing,
) -> None:
    """Check that an operator is linear and its adjoint is the adjoint.

    The factory, a function or class, is called with the arguments in the TOML file and returns a LinearOperator.
    Exits with 3 when the operator fails. How to write one: docs/how-to/own-operator.md.

    Examples
    --------
    iasolve check-operator scanner.py:parallel_beam
    iasolve check-operator Radon --args radon.toml
    """
    import math

    from iasolve.cli.errors import UnfitInput, UsageError
    from iasolve.cli.reporter import Reporter
    from iasolve.cli.user_operator import UserOperator

    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise UsageError(f"--tolerance {tolerance:g}: expected a positive number")
    reporter = Reporter(printing)
    named = UserOperator(operator, arguments)
    built = named.build()
    report = named.check(built, seed, tolerance)
    reporter.say(f"{operator}: {built}\n{report}")
    reporter.result(
        {
            "command": "check-operator",
            "operator": operator,
            "arguments": named.arguments,
            "in_shape": built.in_shape,
            "out_shape": built.out_shape,
            "in_dtype": str(built.in_dtype),
            "out_dtype": str(built.out_dtype),
            "diagonal": report.ok and built.transfer() is not None,
            "seed": seed,
            "ok": report.ok,
            "errors": report.errors,
            "failures": report.failures,
            "norm": report.norm,
            "tolerance": report.tolerance,
            "notes": report.notes,
        }
    )
    if not report.ok:
        raise UnfitInput(named.wrong(report))
