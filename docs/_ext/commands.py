"""``.. commands::``: the command line's reference, from the program's own help texts and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from iasolve.cli.help import Command, Group

__all__ = ["Commands", "setup"]


class Commands(SphinxDirective):
    """A section for each command: usage, text, and its arguments and options as a table."""

    def run(self) -> list[nodes.Node]:
        """Sections of the whole program."""
        from iasolve.cli.app import app

        return [self._section(path, command) for path, command in _walk("iasolve", get_command(app))]

    def _section(self, path: str, command: Any) -> nodes.section:
        context = command.context_class(command, info_name=path, help_option_names=["-h", "--help"])
        section = nodes.section(ids=[path.replace(" ", "-")], names=[path])
        section += nodes.title(text=path)
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        section += nodes.literal_block(usage, usage, language="text")
        examples = command.epilog if isinstance(command, Command | Group) else ""
        for part in (command.help or "").split("\n\n"):
            section += _paragraph(part)
        if examples:
            section += nodes.literal_block(examples, examples, language="bash")
        rows = [_row(parameter, context) for parameter in command.get_params(context)]
        rows = [row for row in rows if row[0]]
        if rows:
            section += _table(rows)
        self.state.document.note_explicit_target(section)
        return section


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(f"{path} {name}", inner)


def _row(parameter: Any, context: Any) -> tuple[str, str]:
    record = parameter.get_help_record(context)
    if record is not None:
        return record[0], record[1] or ""
    return "", ""


def _paragraph(text: str) -> list[nodes.Node]:
    words = " ".join(text.replace("\b", "").split())
    return [nodes.paragraph(text=words)] if words else []


def _table(rows: list[tuple[str, str]]) -> nodes.table:
    table = nodes.table(classes=["options"])
    group = nodes.tgroup(cols=2)
    table += group
    group += [nodes.colspec(colwidth=width) for width in (35, 65)]
    head = nodes.thead()
    head += _cells(nodes.Text("option"), nodes.Text("meaning"))
    body = nodes.tbody()
    body += [_cells(nodes.literal(text=name), nodes.Text(" ".join(text.split()))) for name, text in rows]
    group += [head, body]
    return table


def _cells(*contents: nodes.Node) -> nodes.row:
    row = nodes.row()
    for content in contents:
        row += nodes.entry("", nodes.paragraph("", "", content))
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx know the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
