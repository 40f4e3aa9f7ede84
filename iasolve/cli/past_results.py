"""``iasolve report``: results of earlier runs, found by the reports beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from iasolve.cli.errors import UnfitInput, UsageError
from iasolve.cli.options import Printing
from iasolve.cli.outputs import Outputs
from iasolve.cli.provenance import input_hash
from iasolve.cli.report_page import Page, Written, blamed_on_report, check_page, report_of
from iasolve.cli.reporter import Reporter
from iasolve.cli.sources import Source, image_source, kspace_source
from iasolve.files import sha256_of

__all__ = ["make_page"]


def make_page(
    results: Path, page: Path | None, inputs: Path | None, std: Path | None, overwrite: bool, printing: Printing
) -> None:
    """Write a page of a result, or of a folder of results.

    Parameters
    ----------
    results : Path
    page : Path or None
        None: ``report.html`` in the folder, ``OUT.html`` beside a single result.
    inputs, std : Path or None
        Where measurements and error bars are: files, or folders of them.
    overwrite : bool
    printing : Printing

    Raises
    ------
    UsageError, UnfitInput, FileError, WriteError
    """
    reporter = Reporter(printing)
    sidecars = _sidecars(results)
    target = page or (results / "report.html" if results.is_dir() else results.with_name(results.name + ".html"))
    check_page(target, overwrite, [results, *sidecars])
    notes: list[str] = []
    written = []
    readers: dict[Path, Callable[[Path], Source] | None] = {}
    for sidecar in sidecars:
        report = report_of(sidecar)
        with blamed_on_report(sidecar):
            image = sidecar.with_name(str(report["output"]))
            name = str(report["input"]["name"])
            source = _measurement(inputs, name, report["input"].get("sha256"), notes)
            if source is not None:
                readers[source] = _reader(report)
            written.append(Written(Outputs(image, _error_bar(image, std, report, notes)), source))

    def read(path: Path) -> Source:
        reader = readers[path]
        if reader is None:
            raise UnfitInput("it is known to the operator of 'iasolve solve' only; --report shows it")
        return reader(path)

    look = Page(target, f"Results in {results}" if results.is_dir() else results.name, read)
    for one in written:
        look.add(one)
    look.write(notes)
    for text in notes:
        reporter.warn(text)
    reporter.say(f"{len(written)} result(s) -> {target}")
    reporter.result({"page": str(target), "results": len(written), "warnings": notes})


def _sidecars(results: Path) -> list[Path]:
    """Reports of results: those in a folder, or that of one file."""
    if not results.is_dir():
        own = results if results.suffix == ".json" else results.with_name(results.name + ".json")
        if not own.is_file():
            raise UsageError(f"{results}: expected a result with its report, {own.name}, beside it")
        return [own]
    found = [path for path in sorted(results.glob("*.json")) if path.with_suffix("").is_file()]
    if not found:
        raise UnfitInput(f"{results}: no results in this folder. Expected files with a report beside them, NAME.json")
    return found


def _measurement(inputs: Path | None, name: str, sha256: object, notes: list[str]) -> Path | None:
    if inputs is None:
        return None
    path = inputs / name if inputs.is_dir() else inputs
    if not path.is_file():
        notes.append(f"{name}: no such measurement in {inputs}")
        return None
    if input_hash(path) != sha256:
        notes.append(f"{name}: {path} has changed since, or is another file; it is not shown")
        return None
    return path


def _error_bar(image: Path, std: Path | None, report: Mapping[str, Any], notes: list[str]) -> Path | None:
    """The file of the error bar, known by its hash."""
    name, sha256 = report.get("std"), (report.get("sha256") or {}).get("std")
    if name is None or sha256 is None:
        return None
    places: Sequence[Path] = [image.with_name(str(name))]
    if std is not None:
        places = [std / str(name) if std.is_dir() else std]
    for path in places:
        if path.is_file() and sha256_of(path) == sha256:
            return path
    notes.append(f"{image.name}: its error bar {name} is not at {places[0]}: name its place with --std")
    return None


def _reader(report: Mapping[str, Any]) -> Callable[[Path], Source] | None:
    """How a measurement of this command is read."""
    asked = report.get("asked") or {}
    if report["command"] == "reconstruct":
        keep = bool(asked.get("keep_oversampling"))
        return partial(kspace_source, mask=str(asked.get("mask", "auto")), keep_oversampling=keep)
    return image_source if report["command"] in ("denoise", "deblur") else None
