"""A result in a notebook."""

from __future__ import annotations

import html
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from iasolve.report.figures import png, span, uri

__all__ = ["Solution", "result_html"]

SHOWN = 4
"""Images of a batch that are shown."""

SIDE = 256
"""Longest side of a picture in pixels."""


class Solution(Protocol):
    """What is shown of a result: :class:`iasolve.Result` has it, of numpy or of torch."""

    @property
    def image(self) -> Any:
        """``(..., C, H, W)``."""

    @property
    def std(self) -> Any:
        """As ``image``, or None."""

    @property
    def sigma(self) -> Any:
        """Noise level of each image."""

    @property
    def recipe(self) -> Any:
        """With a ``name``."""

    @property
    def seed(self) -> int:
        """Of the random draws."""

    @property
    def seconds(self) -> float:
        """The solution took."""


def result_html(result: Solution) -> str:
    """A result as HTML, for Jupyter: its images, their error bars, and a line of facts.

    Parameters
    ----------
    result : Solution
        A :class:`iasolve.Result` of any batch; the first four images are shown.

    Returns
    -------
    str
        A piece of HTML that needs nothing else.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> facts = {"sigma": np.array(0.1), "seconds": 1.0, "seed": 0, "recipe": SimpleNamespace(name="denoise")}
    >>> page = result_html(SimpleNamespace(image=np.ones((1, 8, 8)), std=None, **facts))
    >>> page.startswith("<div"), page.count("<img")
    (True, 1)
    """
    images = _pages(result.image)
    spread = None if result.std is None else _pages(result.std)
    cells = []
    for number, image in enumerate(images[:SHOWN]):
        low, high = span(image)
        which = f" {number + 1} of {len(images)}" if len(images) > 1 else ""
        cells.append(_cell(png(image, low, high, SIDE), f"image{which}", f"black {low:.4g}, white {high:.4g}"))
        if spread is not None:
            top = float(np.percentile(spread[number], 99.9)) or 1.0
            cells.append(_cell(png(spread[number], 0.0, top, SIDE), f"error bar{which}", f"black 0, white {top:.4g}"))
    sigma = np.atleast_1d(_array(result.sigma))
    noise = f"{sigma.min():.4g}" if sigma.min() == sigma.max() else f"{sigma.min():.4g} .. {sigma.max():.4g}"
    facts = [
        f"{len(images)} image(s) of {images.shape[1]} x {images.shape[2]} pixels",
        f"recipe {result.recipe.name}",
        f"noise level {noise}",
        f"seed {result.seed}",
        f"{result.seconds:.1f} s",
    ]
    line = html.escape(", ".join(facts))
    row = "".join(cells)
    return f'<div><div style="display:flex;flex-wrap:wrap;gap:0.75em">{row}</div><p>{line}</p></div>'


def _cell(picture: bytes, title: str, note: str) -> str:
    style = "image-rendering:pixelated;max-width:100%;min-width:8em"
    name, said = html.escape(title), html.escape(note)
    return (
        f'<figure style="margin:0"><img src="{uri(picture)}" alt="{name}" style="{style}">'
        f"<figcaption>{name} ({said})</figcaption></figure>"
    )


def _pages(values: Any) -> NDArray[Any]:
    """Images ``(..., C, H, W)`` as ``(n, H, W)``, or ``(n, H, W, 3)`` in colour; of other channels the first."""
    array = _array(values)
    flat = array.reshape(-1, *array.shape[-3:])
    return np.moveaxis(flat, 1, -1) if flat.shape[1] == 3 else flat[:, 0]


def _array(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
