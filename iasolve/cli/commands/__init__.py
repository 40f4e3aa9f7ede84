"""What is typed: a module a command, which declares its options and calls the work beside this folder.

Nothing here imports torch. A new command is a module, with a function of its name, and a line below; a group of
commands is a module with a ``typer.Typer`` named ``app``.
"""

from __future__ import annotations

from importlib import import_module

from typer import Typer

from iasolve.cli.help import add_command

__all__ = ["COMMANDS", "add_commands"]

COMMANDS = (
    "denoise",
    "deblur",
    "reconstruct",
    "solve",
    "check-operator",
    "simulate",
    "evaluate",
    "report",
    "info",
    "train",
    "demo",
    "prior",
    "recipe",
)
"""In the order of ``--help``."""


def add_commands(app: Typer) -> None:
    """Add all commands to a program."""
    for name in COMMANDS:
        function = name.replace("-", "_")
        module = import_module(f"{__name__}.{function}")
        group = getattr(module, "app", None)
        if group is not None:
            app.add_typer(group, name=name)
        else:
            add_command(app, name, getattr(module, function))
