"""What is typed: a module a command, which declares its options and calls the work beside this folder.

Nothing here imports torch. A new command is a module and a line below; ``--help`` lists them in this order.
"""

from __future__ import annotations

from collections.abc import Callable

from typer import Typer

from iasolve.cli.commands import (
    check_operator,
    deblur,
    demo,
    denoise,
    evaluate,
    info,
    prior,
    recipe,
    reconstruct,
    report,
    simulate,
    solve,
    train,
)

__all__ = ["COMMANDS", "GROUPS"]

COMMANDS: dict[str, Callable[..., None]] = {
    "denoise": denoise.denoise,
    "deblur": deblur.deblur,
    "reconstruct": reconstruct.reconstruct,
    "solve": solve.solve,
    "check-operator": check_operator.check_operator,
    "simulate": simulate.simulate,
    "evaluate": evaluate.evaluate,
    "report": report.report,
    "info": info.info,
    "train": train.train,
    "demo": demo.demo,
}
GROUPS: dict[str, Typer] = {"prior": prior.app, "recipe": recipe.app}
