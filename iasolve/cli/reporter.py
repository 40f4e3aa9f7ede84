"""What is printed: results on stdout, warnings, errors and progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from iasolve.cli.options import Printing

__all__ = ["Reporter", "columns", "plain", "spread"]


class Reporter:
    """Prints what the options ask for.

    Parameters
    ----------
    printing : Printing
        ``--json``: nothing but one JSON document on stdout. ``--quiet``: nothing on stdout.
    """

    def __init__(self, printing: Printing) -> None:
        self._talks = not (printing.quiet or printing.as_json)
        self._bars = not printing.quiet and sys.stderr.isatty()
        self._as_json = printing.as_json
        self.debug = printing.debug
        self._print: Callable[[str], object] = lambda text: print(text, file=sys.stderr)

    def say(self, text: str) -> None:
        """A line for people."""
        if self._talks:
            print(text, flush=True)

    def table(self, rows: Sequence[Sequence[str]], *, text: Sequence[int] = (0,)) -> None:
        """A table for people: ruled on a terminal, plain lines where stdout goes elsewhere.

        Parameters
        ----------
        rows : sequence of sequence of str
            The first is the head.
        text : sequence of int
            Columns of words, which go left; numbers go right.
        """
        if not self._talks:
            return
        if not sys.stdout.isatty():
            self.say(columns(rows, text=text))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table()
        for number, head in enumerate(rows[0]):
            # digits that do not fit go on in the next line; names of files may hold brackets, which are no markup
            drawn.add_column(Text(head), justify="left" if number in text else "right", overflow="fold")
        for row in rows[1:]:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)

    def warn(self, text: str) -> None:
        """A warning."""
        self.line(f"Warning: {text}")

    def error(self, text: str) -> None:
        """What went wrong."""
        self.line(f"Error: {text}")

    def line(self, text: str) -> None:
        """A line on stderr."""
        self._print(text)

    def result(self, report: Mapping[str, Any]) -> None:
        """The report, if it is wanted as JSON."""
        if self._as_json:
            print(json.dumps(plain(report), indent=2, allow_nan=False))

    @contextmanager
    def progress(self, what: str, total: int, *, share: bool = False) -> Iterator[Callable[[float, str], None]]:
        """A progress bar with the time that is left, on a terminal only.

        Parameters
        ----------
        what : str
            What is done.
        total : int
            Of how many things.
        share : bool
            Whether to show the percentage that is done instead of the number.

        Yields
        ------
        callable
            ``(done, words)``: how many are done, and what is being done to the next.
        """
        if not self._bars:
            yield lambda done, words: None
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        # what does not fit is cut in words and names, not in numbers
        what = _short(what, console.width // 3)
        room = console.width - len(what) - _BAR - len(f"{total}/{total} 0:00:00 left") - 5
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR),
            TaskProgressColumn() if share else MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # or what is piped elsewhere would land on the terminal
        )
        before = self._print
        with bar:
            # through the bar's console, or the two would draw over each other; file names may hold brackets
            self._print = lambda text: bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            task = bar.add_task(what, total=total, words="")
            try:
                yield lambda done, words: bar.update(task, completed=done, words=_short(words, room))
            finally:
                self._print = before


_BAR = 10
"""Width of a progress bar, in characters."""


def _short(text: str, width: int) -> str:
    """A text that is cut to a width; of a long one the beginning and the end are left."""
    if len(text) <= width:
        return text
    kept = max(width - 1, 0)
    return f"{text[: kept - kept // 2]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - kept // 2 :]}"


def plain(value: Any, digits: int = 17) -> Any:
    """Lists, mappings, text and numbers for JSON; NaN and infinities become null."""
    if hasattr(value, "tolist"):  # an array, or a scalar of one
        value = value.tolist()
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, digits) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def spread(values: Sequence[float], digits: int = 4) -> str:
    """``a`` or ``a .. b``: all values in one phrase."""
    found = [v for v in values if v is not None and math.isfinite(v)]
    if not found:
        return "unknown"
    low, high = f"{min(found):.{digits}g}", f"{max(found):.{digits}g}"
    return low if low == high else f"{low} .. {high}"


def columns(rows: Sequence[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """Aligned text table with a head: columns of words left, of numbers right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i in text else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)
