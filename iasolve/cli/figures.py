"""Small figures of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iasolve.files import atomic_write

__all__ = ["Panel", "draw_panels", "draw_result"]

Array = NDArray[Any]


class Panel(NamedTuple):
    """One picture: ``(H, W)`` or ``(H, W, 3)`` values, a title, and the values of black and white."""

    values: Array
    title: str
    low: float
    high: float
    colours: str = "gray"


def draw_result(path: Path, before: Array, image: Array, std: Array | None, title: str) -> None:
    """Draw input, estimate and error bar of the first page side by side.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    before, image, std : ndarray, shape ``(pages, channels, H, W)``
        ``std`` may be None.
    title : str
        What the figure shows.
    """
    pages = len(image)
    which = "" if pages == 1 else f", page 1 of {pages}"
    shown, given = _page(image), _page(before)
    # the estimate's range for both: the input's may be all noise
    low, high = _range(shown)
    panels = [Panel(given, "input" + which, low, high), Panel(shown, "estimate", low, high)]
    if std is not None:
        spread = _page(std)
        spread = spread.mean(-1) if spread.ndim == 3 else spread
        panels.append(Panel(spread, "standard deviation", 0.0, float(spread.max()), "magma"))
    draw_panels(path, [panels], title=title)


def _page(images: Array) -> Array:
    page = np.abs(images[0]) if np.iscomplexobj(images) else np.asarray(images[0], np.float64)
    return np.moveaxis(page, 0, -1) if len(page) == 3 else page[0]


def _range(values: Array) -> tuple[float, float]:
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    return (low, high) if high > low else (low, low + 1.0)


def draw_panels(path: Path, rows: Sequence[Sequence[Panel]], labels: Sequence[str] = (), title: str = "") -> None:
    """Draw a grid of pictures; a picture of the error bar gets a scale beside it.

    Parameters
    ----------
    path : Path
        A ``.png`` file, written whole or not at all.
    rows : sequence of sequences of Panel
        Rows of equal length.
    labels : sequence of str
        One per row, written to its left.
    title : str
        Above all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = rows[0][0].values.shape[:2]
    side = 2.6
    figure = Figure(
        figsize=(side * len(rows[0]) + 0.7, side * (height / width) * len(rows) + 0.35 * len(rows)),
        dpi=110,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            axis = axes[r, c]
            values = panel.values
            if values.ndim == 3:
                values = ((values - panel.low) / max(panel.high - panel.low, 1e-30)).clip(0, 1)
            drawn = axis.imshow(values, cmap=panel.colours, vmin=panel.low, vmax=panel.high, interpolation="nearest")
            axis.set_title(panel.title, fontsize=8)
            axis.set(xticks=[], yticks=[])
            if panel.colours != "gray":
                bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.02)
                bar.ax.tick_params(labelsize=6)
        if labels:
            axes[r, 0].set_ylabel(labels[r], fontsize=8)
    if title:
        # names of files: bytes that are no text, and dollars, which would be mathematics
        shown = title.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")
        figure.suptitle(shown, fontsize=9)
    with atomic_write(path) as handle:
        figure.savefig(handle, format="png", metadata={"Software": None})
