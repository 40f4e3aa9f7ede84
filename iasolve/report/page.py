"""``write_report``: results as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iasolve.files import atomic_write
from iasolve.report.entry import Entry
from iasolve.report.figures import residual_level, residual_spectrum, shares
from iasolve.report.pictures import Pictures, fitted

__all__ = ["write_report"]

BUDGET = 4_500_000
"""Bytes of pictures in a page; with its text and code a page stays below 5 MB for 50 images."""

PICTURED = 50
"""Images that are shown; the table lists all."""

CHART = (360.0, 120.0)
"""Width and height of the spectrum's drawing, in its own units."""


def write_report(
    path: str | Path,
    entries: Iterable[Entry],
    *,
    title: str = "iasolve report",
    notes: Sequence[str] = (),
    refresh: int | None = None,
) -> Path:
    """Write results as one self-contained HTML file.

    The page has a before/after slider for each image, its error bar as an overlay, the residual and its spectrum
    against what noise should leave, the scales, warnings, and settings to copy. Several images also get a table that
    sorts, the largest residual first. Of more than 50 images 50 are shown, those with warnings and then those with the
    largest residuals; all are listed. Entries are read one by one, and only reduced pictures of those that are shown
    are kept.

    Parameters
    ----------
    path : str or Path
        An ``.html`` file; replaced if it exists, written whole or not at all.
    entries : iterable of Entry
    title : str
        Above the page.
    notes : sequence of str
        What is to be said of the whole, below the title.
    refresh : int, optional
        The browser reads the page again after so many seconds: for a page that is still being written.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        When there is neither an entry nor a note, or the path does not end in ``.html`` or ``.htm``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from iasolve.report import Entry, write_report
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_report(folder / "page.html", [Entry("head.png", np.eye(8), sigma=0.1)]).name
    'page.html'
    """
    out = Path(path)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an HTML file, got {out}: give a name that ends in .html")
    rows: list[_Row] = []
    shown: list[_Card] = []
    for number, entry in enumerate(entries):
        row = _row(number, entry)
        rows.append(row)
        # a prior that does not fit may leave a small residual: a warning goes before
        if len(shown) < PICTURED or row.urgency < shown[-1].row.urgency:
            shown = sorted([*shown, _Card.of(row, entry)], key=lambda card: card.row.urgency)[:PICTURED]
    if not rows and not notes:
        raise ValueError("a report needs at least one entry, or a note")
    shown.sort(key=lambda card: card.row.rank)
    pictures, side = fitted([card.pictures for card in shown], BUDGET)
    content = {
        "title": title,
        "notes": list(notes),
        "refresh": refresh,
        "rows": [row.facts for row in sorted(rows, key=lambda row: row.rank)],
        "pictured": {card.row.facts["id"] for card in shown},
        "cards": [card.text | drawn for card, drawn in zip(shown, pictures, strict=True)],
        "side": side,
        "left_out": len(rows) - len(shown),
    }
    text = _template().render(content)
    with atomic_write(out) as handle:
        # names of files may hold bytes that are no text
        handle.write(text.encode("utf-8", "backslashreplace"))
    return out


class _Row(NamedTuple):
    """What the table says of an entry, and where it stands: the largest residual first, unknown ones last."""

    facts: dict[str, Any]
    rank: tuple[float, int]

    @property
    def urgency(self) -> tuple[bool, float, int]:
        """Where it stands among those that are shown."""
        return (not self.facts["warnings"], *self.rank)


def _row(number: int, entry: Entry) -> _Row:
    ratio = entry.residual_ratio
    if ratio is None and entry.residual is not None and entry.sigma:
        ratio = residual_level(entry.residual, entry.residual_domain) / entry.sigma
    facts = {
        "id": f"image-{number}",
        "name": entry.name,
        "size": " x ".join(str(n) for n in np.shape(entry.image)[:2]),
        "sigma": entry.sigma,
        "ratio": ratio,
        "error_bar": None if entry.std is None else float(np.mean(entry.std)),
        "seconds": entry.seconds,
        "warnings": len(entry.warnings),
    }
    return _Row(facts, (-ratio if ratio is not None else math.inf, number))


class _Card(NamedTuple):
    """An entry that is shown: its pictures and everything else."""

    row: _Row
    pictures: Pictures
    text: dict[str, Any]

    @classmethod
    def of(cls, row: _Row, entry: Entry) -> _Card:
        """That of an entry, whose arrays are no longer needed then."""
        held = shares(entry.image)
        named = {int(r["scale"]) for r in entry.scales if "scale" in r}
        scales = [{**r, "share": held.get(int(r["scale"])) if "scale" in r else None} for r in entry.scales]
        scales += [{"scale": scale, "share": share} for scale, share in held.items() if scale not in named]
        text = {
            **row.facts,
            "warnings": list(entry.warnings),
            "scales": scales,
            "chart": _chart(entry),
            "settings": json.dumps(entry.settings, indent=2, default=str, ensure_ascii=False),
        }
        return cls(row, Pictures.of(entry), text)


def _chart(entry: Entry) -> dict[str, Any] | None:
    """The residual's spectrum as points of a drawing, its level in units of the noise level where that is known."""
    if entry.residual_bands:
        level = np.asarray(entry.residual_bands, np.float64)
        where = (np.arange(len(level)) + 0.5) / len(level)
        known = np.isfinite(level)
        level, where, relative = level[known], where[known], True
    elif entry.residual is not None:
        curve = residual_spectrum(entry.residual, entry.residual_domain)
        level = curve.level / (entry.sigma or 1.0)
        where, relative = curve.cycles / max(float(curve.cycles.max(initial=1.0)), 1.0), bool(entry.sigma)
    else:
        return None
    top = max(1.25 * float(level.max(initial=0.0)), 2.0 if relative else 1e-30)
    points = zip(CHART[0] * where, CHART[1] * (1 - level / top), strict=True)
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        "noise": CHART[1] * (1 - 1 / top) if relative else None,
        "top": top,
        "width": CHART[0],
        "height": CHART[1],
        "low": float(level.min()) if level.size else 0.0,
        "high": float(level.max(initial=0.0)),
    }


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("iasolve.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure
    return environment.get_template("report.html")


def _figure(value: Any, digits: int = 3) -> str:
    """A number for people; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "\N{EN DASH}"
    number = float(value)
    return f"{number:.0f}" if 10**digits <= abs(number) < 1e9 else f"{number:.{digits}g}"
