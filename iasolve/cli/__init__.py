"""Command line: one short file per command.

Nothing heavy is imported before a command starts to work, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``iasolve`` program.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Raises
    ------
    SystemExit
        Always, with the exit code (see :mod:`iasolve.cli.errors`).
    """
    import contextlib
    import os
    import sys

    if arguments is None:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:  # closed by who started the program: files would be opened in its place
                setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the program runs
        # figures go to files; a backend that this matplotlib lacks would end the program once the work is done
        os.environ["MPLBACKEND"] = "agg"
        with contextlib.suppress(AttributeError):  # names of files may hold bytes that are no text
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    from iasolve.cli.app import run

    raise SystemExit(run(arguments))
