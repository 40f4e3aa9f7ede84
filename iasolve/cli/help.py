"""What ``--help`` shows: common options first, expert options in a panel of their own, examples at the end."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from iasolve.cli.options import EXPERT, expand

__all__ = ["Command", "Group", "add_command"]

_EXAMPLES = "\n\nExamples\n--------\n"


class Command(TyperCommand):
    """A command whose options stand in panels and whose examples keep their lines."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options, and the panels of other options."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], EXPERT: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels[getattr(parameter, "rich_help_panel", None) or usual].append(record)
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are."""
        _write_examples(self.epilog, formatter)


class Group(TyperGroup):
    """A group of commands whose help ends with examples."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are."""
        _write_examples(self.epilog, formatter)


def _write_examples(examples: str | None, formatter: Any) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples.splitlines():
                formatter.write(f"{' ' * formatter.current_indent}{line}".rstrip() + "\n")


def add_command(app: typer.Typer, name: str, command: Callable[..., None]) -> None:
    """Make a function a command of a program or group.

    Parameters
    ----------
    app : Typer
    name : str
        What is typed.
    command : callable
        Its docstring is the help; the section "Examples" at the end, command lines with comments, is shown last.
    """
    text, _, examples = (inspect.getdoc(command) or "").partition(_EXAMPLES)
    app.command(name, cls=Command, help=text, epilog=examples or None)(expand(command))
