"""The page of ``--report`` and ``iasolve report``, made from the files that a run wrote."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iasolve.cli.errors import UnfitInput, UsageError, blamed_on
from iasolve.cli.outputs import Outputs, as_usage, real_path
from iasolve.cli.results import open_result
from iasolve.cli.sources import Source
from iasolve.files import FileError, WriteError, guard_output, parse_json, read_text
from iasolve.report import Entry, write_report

__all__ = ["Page", "Written", "blamed_on_report", "check_page", "entries_of", "report_of"]

Array = NDArray[Any]

_COPIED = ("iasolve", "command", "prior", "recipe", "asked", "files", "seed", "device", "input", "output", "sha256")
_REFRESH = 3
"""Seconds between two looks at a page that is being written."""


@dataclass(frozen=True)
class Written:
    """A result on disk.

    Attributes
    ----------
    outputs : Outputs
        Its files.
    source : Path or None
        The measurement; None where it is not at hand, and the page then shows no picture of it.
    """

    outputs: Outputs
    source: Path | None = None


def check_page(page: Path, overwrite: bool, taken: Sequence[Path] = ()) -> None:
    """Refuse a page that cannot be written, before any work is done.

    Parameters
    ----------
    page : Path
    overwrite : bool
        Whether it may replace a file.
    taken : sequence of Path
        Inputs, and other outputs.

    Raises
    ------
    UsageError
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {page}: a report is an HTML file; give a name that ends in .html")
    if real_path(page) in {real_path(path) for path in taken}:
        raise UsageError(f"--report {page}: this is an input or another output; give the page a name of its own")
    as_usage(lambda: guard_output(page, overwrite), "; --overwrite replaces it")


class Page:
    """A page of the results that are there so far.

    Parameters
    ----------
    path : Path
        An ``.html`` file.
    title : str
    read : callable or None
        From a measurement's path to its :class:`Source`, for the picture before; None: there is none.
    live : bool
        Whether :meth:`watch` does anything.
    """

    def __init__(self, path: Path, title: str, read: Callable[[Path], Source] | None, *, live: bool = False) -> None:
        self.path, self._title, self._read, self._live = path, title, read, live
        self._written: list[Written] = []
        self._next = 0.0

    @property
    def count(self) -> int:
        """Results so far."""
        return len(self._written)

    def drop(self) -> None:
        """Remove a page that shows what is about to be replaced; best effort. One that is watched shows the new."""
        if not self._live:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def add(self, written: Written) -> None:
        """One more result."""
        self._written.append(written)

    def write(self, notes: Sequence[str] = (), refresh: int | None = None) -> None:
        """Write the page anew; ``notes`` stand at its top.

        Raises
        ------
        FileError, UnfitInput, WriteError
        """
        said = list(notes)
        # what the entries have to say of a whole file is added to the notes while they are read
        entries = (entry for one in self._written for entry in entries_of(one, self._read, said))
        write_report(self.path, entries, title=self._title, notes=said, refresh=refresh)

    def watch(self, note: str) -> None:
        """Write the page as it is now, to be looked at while the work goes on; a browser reads it again by itself.

        A tenth of the time at most goes into it. What cannot be written now is tried again, at the latest at the end.
        """
        begun = time.monotonic()
        if not self._live or begun < self._next:
            return
        with contextlib.suppress(WriteError):
            self.write([note], refresh=_REFRESH)
        self._next = time.monotonic() + max(_REFRESH, 10 * (time.monotonic() - begun))

    def stop(self, note: str) -> None:
        """End a page that is watched, where the work ends early."""
        if self._live:
            with contextlib.suppress(WriteError):
                self.write([note])


def entries_of(written: Written, read: Callable[[Path], Source] | None, notes: list[str]) -> Iterator[Entry]:
    """A result's images, one entry a page.

    Parameters
    ----------
    written : Written
    read : callable or None
        See :class:`Page`.
    notes : list of str
        Gets what concerns the whole file: warnings of a volume, a measurement that is not at hand.

    Raises
    ------
    UnfitInput
        When the report beside the result is not one, or belongs to another file.
    FileError
        When the result cannot be read.
    """
    outputs = written.outputs
    report = report_of(outputs.sidecar)
    with blamed_on_report(outputs.sidecar):
        yield from _entries(written, read, report, notes)


def _entries(
    written: Written, read: Callable[[Path], Source] | None, report: Mapping[str, Any], notes: list[str]
) -> Iterator[Entry]:
    outputs = written.outputs
    image = _pixels(outputs.image, report)
    std = None if outputs.std is None else _pixels(outputs.std, report)
    before = _before(written, read, report, image.shape, notes)
    pages = len(image)
    name = str(report["input"]["name"])
    warnings = [str(text) for text in report["warnings"]]
    if pages > 1:
        notes += [f"{name}: {text}" for text in warnings]
    for page in range(pages):
        measured = None if before is None else before[page]
        # only where the operator is the identity is the residual a difference of two pictures
        plain = report["command"] == "denoise" and measured is not None
        yield Entry(
            name if pages == 1 else f"{name}, {page + 1} of {pages}",
            _picture(image[page]),
            before=None if measured is None else _picture(measured),
            std=None if std is None else _picture(std[page]),
            residual=measured - image[page] if plain and measured is not None else None,
            sigma=_of_page(report["sigma"], page, pages),
            residual_ratio=_of_page(report["residual"]["whole"], page, pages),
            residual_bands=_bands(report["residual"]["bands"], page, pages),
            scales=[_scale(row, page, pages) for row in report["scales"]],
            warnings=warnings if pages == 1 else [],
            seconds=report["seconds"] / pages,
            settings={key: report[key] for key in _COPIED if key in report},
        )


def report_of(sidecar: Path) -> dict[str, Any]:
    """The report beside a result.

    Raises
    ------
    UnfitInput
        When it is missing or none of this program's.
    """
    try:
        report = parse_json(read_text(sidecar))
    except (OSError, ValueError) as error:
        raise UnfitInput(f"{sidecar}: expected the report that stands beside a result ({error})") from None
    wanted = {"iasolve", "command", "input", "output", "shape", "sigma", "scales", "warnings", "seconds"}
    missing = sorted(wanted - set(report)) if isinstance(report, dict) else sorted(wanted)
    if missing:
        raise UnfitInput(f"{sidecar}: no report of a result: it lacks {', '.join(missing)}")
    if "residual" not in report:
        raise UnfitInput(
            f"{sidecar}: written by iasolve {report['iasolve']}, which did not note the residual. Solve again "
            "with --overwrite to have a report"
        )
    found: dict[str, Any] = report
    return found


def blamed_on_report(sidecar: Path) -> AbstractContextManager[None]:
    """For what is made from a report: where its values have other types than those written, it is no report."""
    return blamed_on(UnfitInput, f"{sidecar}: no report of a result", "Solve again with --overwrite to have one")


def _pixels(path: Path, report: Mapping[str, Any]) -> Array:
    """Images ``(pages, channels, H, W)`` of a result's file."""
    values, shape = open_result(path).pixels, tuple(report["shape"])
    if values.size != math.prod(shape) or values.shape[-2:] != shape[-2:]:
        raise UnfitInput(f"{path}: {values.shape}. Expected {shape}, as its report says: it is of another result")
    return values if values.shape == shape else np.asarray(values).reshape(shape)


def _before(
    written: Written,
    read: Callable[[Path], Source] | None,
    report: Mapping[str, Any],
    shape: tuple[int, ...],
    notes: list[str],
) -> Array | None:
    if written.source is None or read is None:
        return None
    try:
        values = read(written.source).like.pixels
    except (FileError, UnfitInput) as error:
        notes.append(f"{report['input']['name']}: no picture of the measurement ({error})")
        return None
    return values if values.shape == shape else None


def _picture(channels: Array) -> Array:
    """``(C, H, W)`` as ``(H, W)``, or ``(H, W, 3)`` in colour."""
    return np.moveaxis(channels, 0, -1) if len(channels) == 3 else channels[0]


def _of_page(values: Sequence[float | None], page: int, pages: int) -> float | None:
    """Root mean square over a page's colours; values are of pages, then colours."""
    each = len(values) // pages
    known = [v for v in values[page * each : (page + 1) * each] if v is not None]
    return math.sqrt(sum(v * v for v in known) / len(known)) if known else None


def _bands(rows: Sequence[Sequence[float | None]], page: int, pages: int) -> list[float]:
    each = len(rows) // pages
    mine = np.array(rows[page * each : (page + 1) * each], dtype=float)
    return list(np.sqrt((mine**2).mean(0))) if mine.size and np.isfinite(mine).any() else []


def _scale(row: Mapping[str, Any], page: int, pages: int) -> dict[str, Any]:
    """A scale's row of one page: means over its colours."""

    def mean(values: Sequence[float | None]) -> float | None:
        each = len(values) // pages
        known = [v for v in values[page * each : (page + 1) * each] if v is not None]
        return sum(known) / len(known) if known else None

    return {"scale": row["scale"], "steps": row["steps"], **{k: mean(row[k]) for k in ("before", "after", "misfit")}}
