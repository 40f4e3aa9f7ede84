"""Folders of inputs: what is in them, what may be written, and one file after the other."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from iasolve.cli.errors import DEVICE, INTERRUPTED, SOME_FAILED, LostWorkers, UnfitInput, UsageError, describe
from iasolve.cli.interruption import interrupted_by, uninterrupted
from iasolve.cli.outputs import as_usage
from iasolve.cli.reporter import Reporter, spread
from iasolve.files import list_inputs, require_writable, split_key, sweep_leftovers

__all__ = [
    "ahead",
    "each_file",
    "is_folder",
    "list_failures",
    "list_folder",
    "make_folders",
    "refuse_existing",
]


Begun = TypeVar("Begun")


def is_folder(path: Path) -> bool:
    """Whether an input is a folder (``file.npz:key`` is not)."""
    return os.path.isdir(split_key(path)[0])  # Path.is_dir raises where a folder above may not be searched


def list_folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Inputs in a folder.

    Raises
    ------
    FileError, UnfitInput
        When it cannot be listed or holds none.
    """
    sources = list_inputs(folder, suffixes)
    if not sources:
        raise UnfitInput(f"{folder}: no inputs in this folder. Expected files that end in {', '.join(suffixes)}")
    return sources


def refuse_existing(paths: Sequence[Path], overwrite: bool, advice: str = "--overwrite replaces them") -> None:
    """Refuse to replace results, before any work is done.

    Raises
    ------
    UsageError
    """
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(f"{existing[0]}{more} exist(s) already: {advice}")


def make_folders(folders: Iterable[Path]) -> None:
    """Create folders where they are missing; sweep what killed runs left in the others.

    Raises
    ------
    UsageError
        Also where nothing may be written into one: that is said before the work, not after it.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot create this folder ({error.strerror}). Expected a place for the output. Choose "
                "another one"
            ) from None
        as_usage(lambda folder=folder: require_writable(folder, folder))  # type: ignore[misc]
        sweep_leftovers([folder])


def each_file(
    sources: Sequence[Path],
    work: Callable[[Path], Callable[[], dict[str, Any]]],
    reporter: Reporter,
    what: str,
    *,
    skipped: int = 0,
    rest: str = "the same command with --resume does the rest",
) -> None:
    """Work through a folder; a file that fails is reported at the end and does not stop the rest.

    Parameters
    ----------
    sources : sequence of Path
    work : callable
        Does one file and returns a function that writes its result and returns the report.
    reporter : Reporter
    what : str
        For the progress bar.
    skipped : int
        Files done by an earlier run.
    rest : str
        How to go on after an interruption.

    Raises
    ------
    typer.Exit
        With code 7 if some failed, 130 if interrupted, 5 if workers were lost that the rest needs.
    """
    reports: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    interrupted, lost = False, ""
    try:
        with reporter.progress(what, len(sources)) as advance:
            for number, path in enumerate(sources):
                advance(number, path.name)
                try:
                    write = work(path)
                    with uninterrupted():
                        report = write()
                        reports.append(report)
                except LostWorkers as error:
                    lost = str(error)
                    break
                except Exception as error:
                    if interrupted_by(error):
                        raise KeyboardInterrupt from error
                    code, message = describe(error)
                    failures.append({"name": path.name, "exit_code": code, "error": message})
                    if reporter.debug:
                        traceback.print_exc(file=sys.stderr)
                    continue
                for text in report["warnings"]:
                    reporter.warn(f"{path.name}: {text}")
                reporter.say(f"{path.name}: {_brief(report)}")
    except KeyboardInterrupt:
        interrupted = True
    done = len(reports)
    earlier = f", {skipped} done before" if skipped else ""
    reporter.say(f"{done} of {len(sources)} files done{earlier}" + (f", {len(failures)} failed" if failures else ""))
    reporter.result({"files": reports, "failed": failures, "skipped": skipped, "interrupted": interrupted})
    list_failures(failures, len(sources), reporter)
    if interrupted or lost:
        reporter.error(f"{lost or 'interrupted'}: {done} of {len(sources)} files done{earlier}, and intact; {rest}")
        raise typer.Exit(DEVICE if lost else INTERRUPTED)
    if failures:
        raise typer.Exit(SOME_FAILED)


def ahead(sources: Sequence[Path], begin: Callable[[Path], Begun], room: Callable[[], bool]) -> Callable[[Path], Begun]:
    """Begin files before it is their turn, as long as there is room; what goes wrong is raised when it is.

    Parameters
    ----------
    sources : sequence of Path
        In the order in which they are asked for.
    begin : callable
    room : callable
        Whether another file is to be begun.
    """
    waiting = iter(sources)
    begun: dict[Path, Begun | Exception] = {}

    def start(path: Path) -> None:
        try:
            begun[path] = begin(path)
        except Exception as error:
            begun[path] = error

    def get(path: Path) -> Begun:
        while path not in begun:
            start(next(waiting))
        while room() and (following := next(waiting, None)) is not None:
            start(following)
        found = begun.pop(path)
        if isinstance(found, Exception):
            raise found
        return found

    return get


def list_failures(failures: Sequence[dict[str, Any]], count: int, reporter: Reporter) -> None:
    """The end of a folder's report: which files failed (``name``, ``error``), and why."""
    if failures:
        reporter.error(f"{len(failures)} of {count} files failed:")
    for failure in failures:
        named = failure["name"] in failure["error"]
        reporter.line(f"  {failure['error']}" if named else f"  {failure['name']}: {failure['error']}")


def _brief(report: Mapping[str, Any]) -> str:
    if "scales" not in report:
        return f"-> {report['output']}"
    estimated = " (estimated)" if report["sigma_estimated"] else ""
    return f"-> {report['output']}, sigma {spread(report['sigma'])}{estimated}, {report['seconds']:.1f} s"
