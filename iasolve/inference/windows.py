"""Images too large for the memory, solved in windows that overlap: noisy ones, and blurred parts of a larger scene.

What noise, offset and prior are is told of the whole image before. A window is then an image of its own, whose scale is
its own too, and a smooth weight leads from one into the next. Of a blurred picture it is what the picture is: a part of
a larger scene, of which its rim shows something. There the answer knows less than that of the whole, so a frame as wide
as the blur reaches has no weight. The result differs from that of the whole by far less than both from the truth: see
``tests/inference/test_windows.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from iasolve.inference.result import Result, ScaleReport
from iasolve.operators import CircularBlur, Identity
from iasolve.operators.base import LinearOperator
from iasolve.operators.crop import Crop
from iasolve.problem.geometry import flanks, positions
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import Watch

__all__ = ["TILES", "cutter", "glimpse", "least_window", "solve_windows"]

OVERLAP = 64
"""Pixels over which one window leads into the next; a quarter of a smaller window."""

TILES = 4
"""Most of the tiles or windows of a large image in which a prior is tried."""

GLIMPSE = 128
"""Pixels of a side of the windows in which a prior is tried."""

REST = 1e-3
"""Of a kernel's root mean square, what may lie beyond the frame around a picture and is left out."""


def least_window(operator: LinearOperator) -> int | None:
    """Side of the smallest window in which an operator's images can be solved, in pixels.

    Returns
    -------
    int or None
        None where they hang together as a whole, as under anything but noise and blurs of a larger scene.
    """
    if type(operator) is Identity:
        return 1
    scene = _scene(operator)
    # half of a window at least has a weight
    return None if scene is None else 4 * max(scene.frame)


class _Scene(NamedTuple):
    """What a blurred picture shows a part of.

    ``kernel``: ``(h, w)``, its centre at index ``size // 2``. ``frame``: rows and columns of the scene around the
    picture, of both sides together.
    """

    kernel: Tensor
    frame: tuple[int, int]


def _scene(operator: LinearOperator) -> _Scene | None:
    """What a picture is a part of; None where it is not the middle of a scene, or where the blur goes round."""
    window = operator.window()
    if window is None or len(window.transfer) != 1:
        return None
    shape, seen = operator.in_shape[1:], operator.out_shape[1:]
    frame = (shape[0] - seen[0], shape[1] - seen[1])
    before = (frame[0] // 2, frame[1] // 2)
    inside = window.seen[before[0] : before[0] + seen[0], before[1] : before[1] + seen[1]]
    if not bool(inside.all()):
        return None
    whole = torch.fft.ifft2(window.transfer.expand(1, *shape))[0]
    kernel = whole.real if not operator.is_complex or float(whole.imag.abs().max()) < REST else None
    if kernel is None:
        return None
    # a pixel shows what is up to as far before it as the frame, and as far after it
    after = [n - b for n, b in zip(frame, before, strict=True)]
    rows, columns = (
        torch.arange(-max(a, b), max(a, b) + 1, device=kernel.device) for a, b in zip(after, before, strict=True)
    )
    near = kernel[rows[:, None] % shape[0], columns % shape[1]]
    near = (
        near * ((rows >= -after[0]) & (rows <= before[0]))[:, None] * ((columns >= -after[1]) & (columns <= before[1]))
    )
    energy = kernel.square().sum()
    if float(energy - near.square().sum()) > REST**2 * float(energy):
        return None
    return _Scene(near, frame)


def solve_windows(
    batch: Measurement, size: tuple[int, int], solve: Callable[[Measurement, int], Result[Tensor]], watch: Watch
) -> Result[Tensor]:
    """Solve images window by window.

    Parameters
    ----------
    batch : Measurement
        Of noisy images ``(B, C, H, W)`` (:attr:`Measurement.images`), or of parts of scenes (:func:`least_window`).
    size : (int, int)
        Rows and columns of a window.
    solve : callable
        ``solve(part, number)``: the result of the window of this number.
    watch : Watch

    Returns
    -------
    Result
        Objectives are sums over the windows, ``misfit``, ``residual`` and ``gain`` root mean squares, ``likeness`` the
        mean and ``distance`` the largest; the prior fits an image where it answered in most of its windows.
    """
    part, frame = cutter(batch, size)
    shape = batch.operator.in_shape[1:]
    rows, columns = (_axis(n, side, trim) for n, side, trim in zip(shape, size, frame, strict=True))
    whole: dict[str, Tensor] = {}
    reports: list[Result[Tensor]] = []
    count = len(rows) * len(columns)
    for y, (top, down) in enumerate(rows):
        for x, (left, across) in enumerate(columns):
            number = y * len(columns) + x
            place = (..., slice(top, top + size[0]), slice(left, left + size[1]))
            found = solve(part(top, left), number)
            weight = torch.outer(down, across).to(found.image.real)
            for name in ("image", "std", "samples"):
                values = getattr(found, name)
                if values is not None:
                    if name not in whole:
                        whole[name] = values.new_zeros((*values.shape[:-2], *shape))
                    whole[name][place] += weight * values
            reports.append(replace(found, std=None, samples=None, image=found.image[..., :0, :0]))
            watch.tell("closing", number + 1, count)
    return replace(_joined(reports), image=whole["image"], std=whole.get("std"), samples=whole.get("samples"))


def cutter(batch: Measurement, size: tuple[int, int]) -> tuple[Callable[[int, int], Measurement], tuple[int, int]]:
    """The measurement of a window by its first row and column, and how much of its frame has no weight."""
    images = batch.images
    if images is not None:
        return lambda top, left: batch.of_images(
            images[..., top : top + size[0], left : left + size[1]].contiguous()
        ), (0, 0)
    scene = _scene(batch.operator)
    assert scene is not None, "who asks has asked for the least window"
    height, width = (n - f for n, f in zip(size, scene.frame, strict=True))
    own = (batch.operator.in_shape[0], *size)
    blur = CircularBlur(scene.kernel, own, batch.operator.in_dtype)
    operator = (Crop(own, (height, width), batch.operator.in_dtype) @ blur).to(batch.y.device)
    return lambda top, left: batch._replace(
        y=batch.y[..., top : top + height, left : left + width].contiguous(), operator=operator
    ), scene.frame


def glimpse(batch: Measurement, most: int = TILES) -> tuple[Measurement, int]:
    """At most half of large images: up to ``most`` windows of each, those that show most; and how many there are.

    A window that shows much has a large standard deviation. Windows of one image follow each other. Images that are
    not as large as four windows, and those that hang together as a whole (:func:`least_window`), are their own only
    window.
    """
    noisy = batch.images
    shape, least = batch.operator.in_shape[1:], 1 if noisy is not None else least_window(batch.operator)
    if least is None:
        return batch, 1
    # the frame of a scene comes on top
    side = max(GLIMPSE + least // 4, least)
    down, across = shape[0] // side, shape[1] // side
    count = min(most, shape[0] * shape[1] // (2 * side**2))
    if count < 2 or down * across < count:
        return batch, 1
    chosen: list[Measurement] = []
    for image, seen in zip(batch.batches(1), (batch.y if noisy is None else noisy).split(1), strict=True):
        part, frame = cutter(image, (side, side))
        shown = seen.unfold(-2, side - frame[0], side).unfold(-2, side - frame[1], side)[..., :down, :across, :, :]
        order = shown.std((-2, -1)).mean((0, 1)).flatten().argsort(descending=True)[:count].tolist()
        chosen += [part(side * (place // across), side * (place % across)) for place in order]
    y, sigma = torch.cat([one.y for one in chosen]), torch.cat([one.sigma for one in chosen])
    offset, levels = (
        None if values[0] is None else torch.cat([value for value in values if value is not None])
        for values in ([one.offset for one in chosen], [one.levels for one in chosen])
    )
    return chosen[0]._replace(y=y, sigma=sigma, offset=offset, levels=levels), count


def _axis(length: int, size: int, trim: int) -> list[tuple[int, Tensor]]:
    """First pixels of the windows along an axis, and their weights; ``trim`` pixels of ends that meet weigh nothing."""
    starts = positions(length, size, min(OVERLAP + 2 * trim, size // 4 + 2 * trim))
    inner = flanks(starts, length - 2 * trim, size - 2 * trim)
    weights = [
        torch.cat([w.new_full((trim,), float(n == 0)), w, w.new_full((trim,), float(n == len(starts) - 1))])
        for n, w in enumerate(inner)
    ]
    return list(zip(starts, weights, strict=True))


def _joined(parts: list[Result[Tensor]]) -> Result[Tensor]:
    """The reports of all windows as one."""
    first = parts[0]

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(part, name) for part in parts])

    def square(values: list[Tensor]) -> Tensor:
        return torch.stack(values).square().mean(0).sqrt()

    scales: list[ScaleReport[Tensor]] = [
        {
            "scale": row["scale"],
            "steps": row["steps"],
            "before": torch.stack([part.scales[n]["before"] for part in parts]).sum(0),
            "after": torch.stack([part.scales[n]["after"] for part in parts]).sum(0),
            "misfit": square([part.scales[n]["misfit"] for part in parts]),
        }
        for n, row in enumerate(first.scales)
    ]
    return replace(
        first,
        scales=scales,
        gain=square([part.gain for part in parts]),
        improved=stacked("improved").all(0),
        fits=stacked("fits").float().mean(0) > 0.5,
        weight=stacked("weight").mean(0),
        likeness=stacked("likeness").mean(0),
        distance=stacked("distance").amax(0),
        surplus=stacked("surplus").mean(0),
        variation=stacked("variation").mean(0),
        offsets=[
            [torch.cat([part.offsets[s][n] for part in parts]) for n in range(len(layers))]
            for s, layers in enumerate(first.offsets)
        ],
        residual={
            "whole": square([part.residual["whole"] for part in parts]),
            "bands": square([part.residual["bands"] for part in parts]),
        },
    )
