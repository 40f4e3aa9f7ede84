"""From arguments to files: one input, or a folder of them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from iasolve.cli.errors import INTERRUPTED, UsageError
from iasolve.cli.folders import ahead, each_file, is_folder, list_folder, make_folders, refuse_existing
from iasolve.cli.interruption import uninterrupted
from iasolve.cli.options import Printing, Running, Solving, Spreading, Writing
from iasolve.cli.outputs import Outputs, in_folder, real_path
from iasolve.cli.pieces import kept_beside, sweep_pieces
from iasolve.cli.provenance import reason_to_redo
from iasolve.cli.report_page import Page, Written, check_page
from iasolve.cli.reporter import Reporter, spread
from iasolve.cli.settings import Settings, resolve
from iasolve.cli.task import Task
from iasolve.files import IMAGE_SUFFIXES, KSPACE_SUFFIXES, prepare_to_read, split_key, suffix_of, sweep_leftovers

if TYPE_CHECKING:
    from iasolve.cli.answer import Work
    from iasolve.cli.remote import Workers
    from iasolve.cli.solvers import Solvers

__all__ = ["run"]


def run(
    make: Callable[[], Task],
    source: Path,
    out: Path,
    solving: Solving,
    running: Running,
    spreading: Spreading,
    writing: Writing,
    printing: Printing,
) -> None:
    """Solve a file or a folder of files.

    Parameters
    ----------
    make : callable
        Makes the task, here and on workers: a function of a module with its arguments.
    source, out : Path
        IN and OUT.
    solving, running, spreading, writing, printing
        The shared options.
    """
    task, reporter = make(), Reporter(printing)
    if solving.watch and solving.report is None:
        raise UsageError("--watch refreshes the page of --report: give that a name too, --report PAGE.html")
    settings = resolve(solving, running, task.recipe, spreading)
    open_workers = partial(_workers, spreading, make)
    if is_folder(source):
        _solve_folder(task, settings, source, out, solving, writing, reporter, open_workers)
    else:
        outputs = Outputs(out, solving.std_out, solving.figure)
        if solving.report is not None:
            check_page(solving.report, writing.overwrite, [split_key(source)[0], *outputs.all])
        page = _page(task, source, solving)
        try:
            _solve_file(task, settings, source, outputs, writing, reporter, page, open_workers)
        except BaseException:
            if page is not None and not page.count:
                page.stop("The work ended before the result was complete")
            raise


def _page(task: Task, source: Path, solving: Solving) -> Page | None:
    if solving.report is None:
        return None
    return Page(solving.report, f"{task.command} {source.name}", task.read, live=solving.watch)


@contextmanager
def _workers(spreading: Spreading, make: Callable[[], Task]) -> Iterator[Workers | None]:
    """Who solves: workers of a cluster, or None where this process does it itself."""
    if spreading.workers is None and spreading.scheduler is None:
        yield None
        return
    from iasolve.cli.remote import Workers
    from iasolve.cluster import Cluster

    with Cluster(spreading.workers, spreading.scheduler) as cluster:
        yield Workers(cluster, make)


OpenWorkers = Callable[[], AbstractContextManager["Workers | None"]]


def _solve_file(
    task: Task,
    settings: Settings,
    path: Path,
    outputs: Outputs,
    writing: Writing,
    reporter: Reporter,
    page: Page | None,
    open_workers: OpenWorkers,
) -> None:
    if writing.resume:
        raise UsageError("--resume is for a folder of inputs; a single result is replaced with --overwrite")
    sweep_leftovers(target.parent for target in outputs.all)  # also where the result turns out to be there already
    sweep_pieces(outputs)
    outputs.guard([split_key(path)[0]], writing.overwrite)
    source = task.read(path)
    outputs.require_carry(source.like)
    written = False
    try:
        from iasolve.cli.answer import Work, write
        from iasolve.cli.solvers import Solvers

        solver = Solvers(task, settings).of(source)
        with open_workers() as workers:
            work = Work(solver, source, outputs, workers)
            begun = time.monotonic()
            with reporter.progress(f"{task.command} {path.name}", work.total, share=True) as advance:

                def tell(done: float, words: str) -> None:
                    advance(done, words)
                    if page is not None:
                        page.watch(_so_far(done, work.before, work.total, time.monotonic() - begun, words))

                answer = work.finish(tell)
        with uninterrupted():
            if page is not None:
                page.drop()
            report = write(work, answer, outputs)
            written = True
    except KeyboardInterrupt:
        rest = f"; {_rest(kept)}" if (kept := kept_beside(outputs)) else ""
        reporter.error(
            "interrupted" + ("; the result is written" if written else f" before the result was complete{rest}")
        )
        raise typer.Exit(INTERRUPTED) from None
    except Exception:
        if kept := kept_beside(outputs):
            reporter.warn(_rest(kept))
        raise
    for text in report["warnings"]:
        reporter.warn(text)
    if page is not None:
        page.add(Written(outputs, path))
        page.write()
    reporter.say(_summary(path, outputs, report) + ("" if page is None else f"\n  report    {page.path}"))
    reporter.result(report)


def _rest(kept: int) -> str:
    return f"{kept} finished parts of it are kept: the same command goes on from there"


def _so_far(done: float, before: int, total: int, seconds: float, words: str) -> str:
    """How far the work is, and how long it may still take; what an earlier run did (``before``) took none of it."""
    left = f", about {seconds / (done - before) * (total - done):.0f} s left" if before < done < total else ""
    return f"{done / total:.0%} done in {seconds:.0f} s{left}" + (f"; {words}" if words else "")


def _summary(path: Path, outputs: Outputs, report: Mapping[str, Any]) -> str:
    before, after = (
        # JSON has null for what is not finite
        [
            sum(math.nan if v is None else v for v in vs)
            for vs in zip(*(row[key] for row in report["scales"]), strict=True)
        ]
        for key in ("before", "after")
    )
    steps = _steps(report["scales"])
    misfits = [value for row in report["scales"] for value in row["misfit"]]
    better, count = sum(report["improved"]), len(report["improved"])
    lines = [
        f"{path} -> {outputs.image}",
        f"  sigma     {spread(report['sigma'])} ({'estimated' if report['sigma_estimated'] else 'given'})",
    ]
    if report["levels"]:
        ends = [[levels[number] for levels in report["levels"]] for number in (0, -1)]
        lines.append(f"  levels    from {spread(ends[0])} at low to {spread(ends[1])} at high frequencies (not white)")
    if any(report["offset"]):
        lines.append(f"  offset    {spread(report['offset'])}, taken off before and put back after")
    if "acceleration" in report["operator"]:
        lines += _sampling(report["operator"])
    passes = report["recipe"]["passes"]["count"]
    refined = f"{passes} passes, {steps or 'no steps'}, objective {spread(before, 6)} -> {spread(after, 6)} nats"
    worked = bool(steps or passes)
    lines += [
        f"  solved    prior {report['prior']['name']}, recipe {report['recipe']['name']}, {report['device']}, "
        f"{report['seconds']:.1f} s",
        *_chosen(report["choice"]),
        f"  refined   {refined if worked else 'no (the amortized guess alone)'}"
        + (f"; better than the guess for {better} of {count}" if worked and better < count else ""),
        f"  residual  {spread(misfits, 3)} of what is expected"
        + (", scale by scale" if len(set(misfits)) > count else " in the whole image"),
    ]
    fallen = sum(used == "gaussian" for used in report["prior_used"])
    if fallen:
        lines.append(f"  answer    of {fallen} of {count}, the linear (Wiener) estimate: the prior does not fit")
    if report["not_kept"]:
        lines.append(f"  not kept  {', '.join(report['not_kept'])}: such files have no place for it")
    if outputs.std is not None:
        lines.append(f"  error bar {outputs.std}")
    if outputs.figure is not None:
        lines.append(f"  figure    {outputs.figure}")
    return "\n".join(lines)


def _chosen(errors: Mapping[str, float]) -> list[str]:
    """Why a prior was chosen: how large the others' errors were."""
    others = [f"{name} errs {_more(error)}" for name, error in errors.items() if error > 1]
    return [f"  chosen    by a part that was kept back: {', '.join(others)}"] if others else []


def _more(ratio: float) -> str:
    if ratio >= 2:
        return f"{ratio:.3g} times as much"
    return f"{100 * (ratio - 1):.1f} % more" if ratio > 1.0005 else "hardly more"


def _steps(scales: Sequence[Mapping[str, Any]]) -> str:
    """The steps that were taken: scales that move together, or one after the other, take as many each."""
    counts = {row["scale"]: row["steps"] for row in scales}
    if not any(counts.values()):
        return ""
    if len(set(counts.values())) == 1:
        return f"{counts.popitem()[1]} steps of every scale"
    return "steps " + ", ".join(f"{scale}={count}" for scale, count in counts.items() if count)


def _sampling(found: Mapping[str, Any]) -> list[str]:
    effect = found.get("acceleration_if_real")
    real = f" ({effect:.3g}x in effect for a real image)" if effect else ""
    lines = [f"  sampling  {found['acceleration']:.3g}x{real}, from {found['mask']}"]
    first = found["slices"][0]
    if first["coils"] > 1:
        used = f", {first['coils_used']} after compression" if first["coils_used"] != first["coils"] else ""
        centre = " x ".join(map(str, first.get("calibration", [])))
        maps = " and ".join(sorted({one["maps"] for one in found["slices"]}))
        lines.append(
            f"  coils     {first['coils']}{used}; maps: {maps}" + (f", from the central {centre}" if centre else "")
        )
    if first["phase"] != "none":
        size = first["phase_size"]
        smooth = f"smoothed to the central {size} x {size}" if size else "not smoothed"
        lines.append(f"  phase     estimated: {first['phase']}, {smooth}")
    return lines


def _solve_folder(
    task: Task,
    settings: Settings,
    folder: Path,
    out: Path,
    solving: Solving,
    writing: Writing,
    reporter: Reporter,
    open_workers: OpenWorkers,
) -> None:
    sources = list_folder(folder, task.suffixes)
    prepare_to_read(sources)
    task.prepare()
    from iasolve.cli.answer import Work, write
    from iasolve.cli.solvers import Solvers

    solvers = Solvers(task, settings)
    names = in_folder(sources, out, solving.std_out, solving.figure, grey=solvers.grey)
    for option, target in (("OUT", out), ("--std-out", solving.std_out), ("--figure", solving.figure)):
        if target is not None:
            _check_folder(option, target, folder)
    if solving.report is not None:
        taken = [*sources, *(path for outputs in names.values() for path in outputs.all)]
        check_page(solving.report, writing.overwrite or writing.resume, taken)
    if not writing.resume:
        refuse_existing([path for outputs in names.values() for path in outputs.all], writing.overwrite, _ADVICE)
    todo = _undone(names, solvers, reporter) if writing.resume else sources
    folders = [target for target in (out, solving.std_out, solving.figure) if target is not None]
    if todo:
        make_folders(folders)
    else:  # nothing will be written: they need not be writable
        sweep_leftovers(folders)
    page = _page(task, folder, solving)
    if page is not None:
        for path in set(sources) - set(todo):
            page.add(Written(names[path], path))

    def begin(path: Path, workers: Workers | None) -> Work:
        if page is not None:
            page.watch(f"{page.count} of {len(sources)} files are done; at work on {path.name}")
        source = task.read(path)
        names[path].require_carry(source.like)
        return Work(solvers.of(source), source, names[path], workers)

    def finish(path: Path, work: Work) -> Callable[[], dict[str, Any]]:
        answer = work.finish()

        def written() -> dict[str, Any]:
            if page is not None:
                page.drop()
            report = write(work, answer, names[path])
            if page is not None:
                page.add(Written(names[path], path))
            return report

        return written

    what, skipped = f"{task.command} {folder}", len(sources) - len(todo)
    try:
        with open_workers() as workers:
            begun: Callable[[Path], Work] = partial(begin, workers=None)
            if workers is not None:
                begun = ahead(todo, lambda path: begin(path, workers), lambda: workers.room > 0)
            each_file(todo, lambda path: finish(path, begun(path)), reporter, what, skipped=skipped)
    finally:
        if page is not None:
            lacking = len(sources) - page.count
            page.write([f"{lacking} of {len(sources)} files failed, or were not begun"] if lacking else [])
            reporter.say(f"report: {page.path}")


def _undone(names: Mapping[Path, Outputs], solvers: Solvers, reporter: Reporter) -> list[Path]:
    """Inputs whose result is missing, cut, or made from something else than now; what is done again is said."""
    todo = []
    for path, outputs in names.items():
        solver = solvers.of_result(outputs)
        why = "" if solver is None else reason_to_redo(path, outputs, solver.identity)
        sweep_pieces(outputs)
        if why is not None:
            todo.append(path)
        if why:
            reporter.warn(f"{path.name} is done again: {why}")
    return todo


def _check_folder(option: str, target: Path, source: Path) -> None:
    if os.path.isfile(target) or (target.suffix and not os.path.isdir(target) and suffix_of(target) in _FILE_SUFFIXES):
        raise UsageError(f"{option} {target}: IN is a folder, so this must name a folder too, not a file")
    if real_path(target) == real_path(source):
        raise UsageError(f"{option} {target}: this is the input folder; results go to a folder of their own")


_ADVICE = "--resume does what is missing or has changed, --overwrite replaces all"
_FILE_SUFFIXES = {*IMAGE_SUFFIXES, *KSPACE_SUFFIXES}
