"""The program: its commands, and what happens to their errors."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, TextIO

import typer
from typer.main import get_command

from iasolve import __version__
from iasolve.cli.commands import add_commands
from iasolve.cli.errors import BROKEN_PIPE, INTERRUPTED, DeviceError, UsageError, describe
from iasolve.cli.help import Group
from iasolve.cli.interruption import termination_as_interrupt
from iasolve.plugins import PluginWarning

__all__ = ["app", "run"]

app = typer.Typer(
    name="iasolve",
    cls=Group,
    help=(
        "Denoise, deblur and reconstruct images with a hierarchical VAE prior, with error bars. Not for clinical use."
        "\n\n"
        "Exit codes: 0 done; 2 usage; 3 unreadable or unfit input; 4 prior missing or damaged; 5 device, memory, disk "
        "or cluster; 6 non-finite result; 7 some files of a folder failed; 130 interrupted; 141 broken pipe."
    ),
    epilog=("iasolve demo\niasolve denoise noisy.png clean.png --report look.html\niasolve denoise --help"),
    rich_markup_mode=None,  # rich's help costs 0.2 s
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"iasolve {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


add_commands(app)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show iasolve's warnings about other packages as one line, without the place in the source."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, PluginWarning):
                print(f"Warning: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _require_folder() -> None:
    """Refuse a current folder that was removed: libraries end the program there without a word to the point."""
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError(f"the current folder is not there any more ({error.strerror}): change to another") from None


LEAST_SPACE = 1_200_000_000
"""Bytes of address space that the libraries take (measured: 0.9 GB to look at a file, 1.1 GB to solve a small one)."""


def _require_space() -> None:
    """Refuse a limit of the address space within which libraries abort or turn in circles while they are loaded."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
        if allowed != resource.RLIM_INFINITY and allowed < LEAST_SPACE:
            raise DeviceError(
                f"the limit of the address space is {allowed / 1e9:.2f} GB (ulimit -v {allowed // 1024}), expected at "
                f"least {LEAST_SPACE / 1e9:.1f} GB, which the libraries take: raise it, and limit iasolve by --memory"
            )


@cache
def _program() -> Any:
    return get_command(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process by default.

    Returns
    -------
    int
        See :mod:`iasolve.cli.errors`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        _require_folder()
        if not {"-h", "--help", "--version"} & set(given):
            _require_space()
        with _plain_warnings(), termination_as_interrupt():
            code = _program().main(given, prog_name="iasolve", standalone_mode=False)
    except KeyboardInterrupt:
        print("Error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:  # click's, where who reads the output has gone: quietly, but not as an unknown error
        if isinstance(end.__context__, BrokenPipeError):
            return BROKEN_PIPE
        raise
    except Exception as error:
        if "--debug" in given:
            traceback.print_exception(error)
        number, message = describe(error)
        context = getattr(error, "ctx", None)
        hint = f"\nTry '{context.command_path} --help'." if context is not None else ""
        with contextlib.suppress(OSError):  # whose file may be full; the code tells
            print(f"Error: {message}{hint}", file=sys.stderr, flush=True)
        return number
    return int(code or 0)
