"""``write_report``: results as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iasolve.files import atomic_write
from iasolve.report.entry import Entry
from iasolve.report.figures import Curve, png, residual_level, residual_spectrum, shares, span, tinted, uri

__all__ = ["write_report"]

BUDGET = 4_500_000
"""Bytes of pictures in a page; with its text and code a page stays below 5 MB for 50 images."""

PICTURED = 50
"""Images that are shown; the table lists all."""

SIDES = (640, 512, 384, 256, 192, 160, 128, 96, 64, 32)
"""Longest side of a picture in pixels, the largest first that fits the budget."""

CHART = (360.0, 120.0)
"""Width and height of the spectrum's drawing, in its own units."""


def write_report(path: str | Path, entries: Iterable[Entry], *, title: str = "iasolve report") -> Path:
    """Write results as one self-contained HTML file.

    The page has a before/after slider for each image, its error bar as an overlay, the residual's spectrum against
    what noise should leave, the scales, warnings, and settings to copy. Several images also get a table that sorts,
    the largest residual first. Of more than 50 images the 50 with the largest residuals are shown, all are listed.

    Parameters
    ----------
    path : str or Path
        An ``.html`` file; replaced if it exists, written whole or not at all.
    entries : iterable of Entry
    title : str
        Above the page.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        When there is no entry, or the path does not end in ``.html`` or ``.htm``.

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
    rows = sorted((_row(number, entry) for number, entry in enumerate(entries)), key=lambda row: row.rank)
    if not rows:
        raise ValueError("a report needs at least one entry")
    shown = rows[:PICTURED]
    pictures, side = _pictures([row.entry for row in shown])
    content = {
        "title": title,
        "rows": [row.facts for row in rows],
        "cards": [_card(row, pictured) for row, pictured in zip(shown, pictures, strict=True)],
        "side": side,
        "left_out": len(rows) - len(shown),
    }
    text = _template().render(content)
    with atomic_write(out) as handle:
        handle.write(text.encode("utf-8"))
    return out


class _Row(NamedTuple):
    """An entry, what the table says of it, and where it stands: the largest residual first, unknown ones last."""

    entry: Entry
    facts: dict[str, Any]
    rank: tuple[float, int]


def _row(number: int, entry: Entry) -> _Row:
    level = None if entry.residual is None else residual_level(entry.residual, entry.residual_domain)
    ratio = level / entry.sigma if level is not None and entry.sigma else None
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
    return _Row(entry, facts, (-ratio if ratio is not None else math.inf, number))


def _pictures(entries: list[Entry]) -> tuple[list[dict[str, Any]], int]:
    """Pictures of each entry, of the largest side at which all of them keep to the budget."""
    for side in SIDES:
        # the first few tell that a side is far too large, before hundreds of pictures are made in vain
        drawn = [_drawn(entry, side) for entry in entries[:3]]
        if _length(drawn) * len(entries) / len(drawn) > 2 * BUDGET:
            continue
        drawn += [_drawn(entry, side) for entry in entries[3:]]
        if _length(drawn) <= BUDGET:
            break
    else:
        drawn = [_drawn(entry, side) for entry in entries]
    return drawn, side


def _length(drawn: list[dict[str, Any]]) -> int:
    return sum(len(value) for some in drawn for value in some.values() if isinstance(value, str))


def _drawn(entry: Entry, side: int) -> dict[str, Any]:
    low, high = span(entry.image)
    found: dict[str, Any] = {"after": uri(png(entry.image, low, high, side))}
    if entry.before is not None:
        # the result's range for both: the input's may be all noise
        found["before"] = uri(png(entry.before, low, high, side))
    if entry.std is not None:
        top = float(np.percentile(entry.std, 99.9)) or 1.0
        found |= {"overlay": uri(tinted(entry.std, top, side)), "overlay_top": top}
    return found


def _card(row: _Row, pictures: Mapping[str, Any]) -> dict[str, Any]:
    entry = row.entry
    held = shares(entry.image)
    named = {int(r["scale"]) for r in entry.scales if "scale" in r}
    scales = [{**r, "share": held.get(int(r["scale"])) if "scale" in r else None} for r in entry.scales]
    scales += [{"scale": scale, "share": share} for scale, share in held.items() if scale not in named]
    return {
        **row.facts,
        **pictures,
        "warnings": list(entry.warnings),
        "scales": scales,
        "chart": None if entry.residual is None else _chart(entry),
        "settings": json.dumps(entry.settings, indent=2, default=str, ensure_ascii=False),
    }


def _chart(entry: Entry) -> dict[str, Any]:
    """The residual's spectrum as points of a drawing, its level in units of the noise level where that is known."""
    assert entry.residual is not None
    curve = residual_spectrum(entry.residual, entry.residual_domain)
    unit = entry.sigma or 1.0
    level = curve.level / unit
    top = max(1.25 * float(level.max(initial=0.0)), 2.0 if entry.sigma else 1e-30)
    last = max(float(curve.cycles.max(initial=1.0)), 1.0)
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in _placed(curve, level, last, top)),
        "noise": None if not entry.sigma else CHART[1] * (1 - 1 / top),
        "top": top,
        "last": int(last),
        "width": CHART[0],
        "height": CHART[1],
        "low": float(level.min(initial=0.0)),
        "high": float(level.max(initial=0.0)),
    }


def _placed(curve: Curve, level: np.ndarray, last: float, top: float) -> Iterable[tuple[float, float]]:
    return zip(CHART[0] * curve.cycles / last, CHART[1] * (1 - level / top), strict=True)


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("iasolve.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["figure"] = _figure
    return environment.get_template("report.html")


def _figure(value: Any, digits: int = 4) -> str:
    """A number for people; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "\N{EN DASH}"
    number = float(value)
    return f"{number:.0f}" if 10**digits <= abs(number) < 1e9 else f"{number:.{digits}g}"
