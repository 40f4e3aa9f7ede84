"""From arguments to files: one input, or a folder of them."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from iasolve.cli.common import Printing, Running, Solving, Writing
from iasolve.cli.errors import INTERRUPTED, SOME_FAILED, UnfitInput, UsageError, describe
from iasolve.cli.outputs import Outputs, in_folder
from iasolve.cli.reporting import Reporter, plain, spread
from iasolve.cli.settings import Settings, resolve
from iasolve.cli.task import Task
from iasolve.files import list_inputs, split_key

if TYPE_CHECKING:
    from iasolve.cli.solving import Solver

__all__ = ["each_file", "is_folder", "list_folder", "make_folders", "refuse_existing", "run"]


def run(
    task: Task,
    source: Path,
    out: Path,
    solving: Solving,
    running: Running,
    writing: Writing,
    printing: Printing,
) -> None:
    """Solve a file or a folder of files.

    Parameters
    ----------
    task : Task
    source, out : Path
        IN and OUT.
    solving, running, writing, printing
        The shared options.
    """
    reporter = Reporter(printing)
    settings = resolve(solving, running, task.recipe)
    if is_folder(source):
        _solve_folder(task, settings, source, out, solving, writing, reporter)
    else:
        _solve_file(task, settings, source, Outputs(out, solving.std_out, solving.figure), writing, reporter)


def is_folder(path: Path) -> bool:
    """Whether an input is a folder (``file.npz:key`` is not)."""
    return split_key(path)[0].is_dir()


def _solve_file(
    task: Task, settings: Settings, path: Path, outputs: Outputs, writing: Writing, reporter: Reporter
) -> None:
    if writing.resume:
        raise UsageError("--resume is for a folder of inputs; a single result is replaced with --overwrite")
    outputs.guard([split_key(path)[0]], writing.overwrite)
    source = task.read(path)
    outputs.require_carry(source.like)
    try:
        from iasolve.cli.solving import Solver

        solver = Solver(task, settings)
        count = len(source.y)
        with reporter.progress(f"{task.command} {path.name}", count) as advance:
            answer = solver.solve(source, lambda done, total: advance(done * count // total, ""))
        report = solver.write(answer, source, outputs)
    except KeyboardInterrupt:
        reporter.error("interrupted: nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    for text in report["warnings"]:
        reporter.warn(text)
    reporter.say(_summary(path, outputs, report))
    reporter.result(report)


def _summary(path: Path, outputs: Outputs, report: Mapping[str, Any]) -> str:
    before, after = (
        [sum(values) for values in zip(*(row[key] for row in report["scales"]), strict=True)] for key in ("before", "after")
    )
    steps = sum(row["steps"] for row in report["scales"])
    misfits = [value for row in report["scales"] for value in row["misfit"]]
    better, count = sum(report["improved"]), len(report["improved"])
    lines = [
        f"{path} -> {outputs.image}",
        f"  sigma     {spread(report['sigma'])} ({'estimated' if report['sigma_estimated'] else 'given'})",
    ]
    if "acceleration" in report["operator"]:
        lines.append(f"  sampling  {report['operator']['acceleration']:.3g}x, from {report['operator']['mask']}")
    refined = f"{steps} steps, objective {spread(before, 6)} -> {spread(after, 6)} nats"
    lines += [
        f"  solved    prior {report['prior']['name']}, recipe {report['recipe']['name']}, {report['device']}, "
        f"{report['seconds']:.1f} s",
        f"  refined   {refined if steps else 'no (the amortized guess alone)'}"
        + (f"; better than the guess for {better} of {count}" if steps and better < count else ""),
        f"  residual  {spread(misfits, 3)} of what is expected, scale by scale",
    ]
    if outputs.std is not None:
        lines.append(f"  error bar {outputs.std}")
    if outputs.figure is not None:
        lines.append(f"  figure    {outputs.figure}")
    return "\n".join(lines)


def _solve_folder(
    task: Task,
    settings: Settings,
    folder: Path,
    out: Path,
    solving: Solving,
    writing: Writing,
    reporter: Reporter,
) -> None:
    sources = list_folder(folder, task.suffixes)
    names = in_folder(sources, out, solving.std_out, solving.figure)
    for option, target in (("OUT", out), ("--std-out", solving.std_out), ("--figure", solving.figure)):
        if target is not None:
            _check_folder(option, target, folder)
    if not writing.resume:
        refuse_existing([path for outputs in names.values() for path in outputs.all], writing.overwrite, _ADVICE)
    from iasolve.cli.solving import Solver

    solver = Solver(task, settings)
    todo = [path for path in sources if not (writing.resume and _is_done(names[path], path, solver, writing))]
    make_folders(target for target in (out, solving.std_out, solving.figure) if target is not None)

    def work(path: Path) -> dict[str, Any]:
        source = task.read(path)
        names[path].require_carry(source.like)
        return solver.write(solver.solve(source), source, names[path])

    each_file(todo, work, reporter, f"{task.command} {folder}", skipped=len(sources) - len(todo))


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


def _check_folder(option: str, target: Path, source: Path) -> None:
    if target.is_file() or (target.suffix and not target.is_dir() and target.suffix.lower() in _FILE_SUFFIXES):
        raise UsageError(f"{option} {target}: IN is a folder, so this must name a folder too, not a file")
    if target.resolve() == source.resolve():
        raise UsageError(f"{option} {target}: this is the input folder; results go to a folder of their own")


_ADVICE = "--resume does only what is missing, --overwrite replaces them"
_FILE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".npz", ".h5", ".hdf5")


def refuse_existing(paths: Sequence[Path], overwrite: bool, advice: str = "--overwrite replaces them") -> None:
    """Refuse to replace results, before any work is done.

    Raises
    ------
    UsageError
    """
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            f"{existing[0]}{more} exist(s) already: {advice}"
        )


def make_folders(folders: Any) -> None:
    """Create folders where they are missing.

    Raises
    ------
    UsageError
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot create this folder ({error.strerror})") from None


def _is_done(outputs: Outputs, path: Path, solver: Solver, writing: Writing) -> bool:
    """Whether an earlier run finished this file with the same settings.

    Raises
    ------
    UsageError
        When it finished it with others: a folder of mixed results would look like one of equal ones.
    """
    if not all(p.is_file() for p in outputs.all):
        return False
    try:
        found = json.loads(outputs.sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = plain(solver.identity)
    differing = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
    if not differing:
        return True
    if writing.overwrite:
        return False
    raise UsageError(
        f"{outputs.image} was made with another {' and '.join(differing)} than asked for now: "
        "choose another OUT, or add --overwrite to do such files again"
    )


def each_file(
    sources: Sequence[Path],
    work: Callable[[Path], dict[str, Any]],
    reporter: Reporter,
    what: str,
    *,
    skipped: int = 0,
) -> None:
    """Work through a folder; a file that fails is reported at the end and does not stop the rest.

    Parameters
    ----------
    sources : sequence of Path
    work : callable
        Does one file and returns its report.
    reporter : Reporter
    what : str
        For the progress bar.
    skipped : int
        Files done by an earlier run.

    Raises
    ------
    typer.Exit
        With code 7 if some failed, 130 if interrupted.
    """
    reports: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    interrupted = False
    try:
        with reporter.progress(what, len(sources)) as advance:
            for number, path in enumerate(sources):
                advance(number, path.name)
                try:
                    report = work(path)
                except Exception as error:
                    code, message = describe(error)
                    failures.append({"name": path.name, "exit_code": code, "error": message})
                    if reporter.debug:
                        traceback.print_exc(file=sys.stderr)
                    continue
                reports.append(report)
                for text in report["warnings"]:
                    reporter.warn(f"{path.name}: {text}")
                reporter.say(f"{path.name}: {_brief(report)}")
    except KeyboardInterrupt:
        interrupted = True
    earlier = f", {skipped} done before" if skipped else ""
    reporter.say(f"{len(reports)} of {len(sources)} files done{earlier}" + (f", {len(failures)} failed" if failures else ""))
    reporter.result(
        {"files": reports, "failed": failures, "skipped": skipped, "interrupted": interrupted}
    )
    if failures:
        reporter.error(f"{len(failures)} of {len(sources)} files failed:")
        for failure in failures:
            reporter.line(f"  {failure['error']}" if failure["name"] in failure["error"] else f"  {failure['name']}: {failure['error']}")
    if interrupted:
        reporter.error(
            f"interrupted: {len(reports)} of {len(sources)} files done{earlier}, and intact; the same command with "
            "--resume does the rest"
        )
        raise typer.Exit(INTERRUPTED)
    if failures:
        raise typer.Exit(SOME_FAILED)


def _brief(report: Mapping[str, Any]) -> str:
    if "scales" not in report:
        return f"-> {report['output']}"
    estimated = " (estimated)" if report["sigma_estimated"] else ""
    return f"-> {report['output']}, sigma {spread(report['sigma'])}{estimated}, {report['seconds']:.1f} s"
