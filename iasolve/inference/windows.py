"""Noisy images too large for the memory, solved in windows that overlap.

What noise, offset and prior are is told of the whole image before. A window is then an image of its own, whose scale is
its own too, and a smooth weight leads from one into the next. The result differs from that of the whole by far less
than both from the truth: see ``tests/inference/test_windows.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from iasolve.inference.result import Result, ScaleReport
from iasolve.problem.geometry import flanks, positions
from iasolve.problem.measurement import Measurement
from iasolve.problem.options import Watch

__all__ = ["solve_windows"]

OVERLAP = 64
"""Pixels over which one window leads into the next; a quarter of a smaller window."""


def solve_windows(
    batch: Measurement, size: tuple[int, int], solve: Callable[[Measurement, int], Result[Tensor]], watch: Watch
) -> Result[Tensor]:
    """Solve noisy images window by window.

    Parameters
    ----------
    batch : Measurement
        Of images ``(B, C, H, W)`` (:attr:`Measurement.images`).
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
    images = batch.images
    assert images is not None
    first, second = images.shape[-2:]
    rows, columns = (positions(n, side, min(OVERLAP, side // 4)) for n, side in zip((first, second), size, strict=True))
    down, across = flanks(rows, first, size[0]), flanks(columns, second, size[1])
    whole: dict[str, Tensor] = {}
    reports: list[Result[Tensor]] = []
    count = len(rows) * len(columns)
    for y, top in enumerate(rows):
        for x, left in enumerate(columns):
            number = y * len(columns) + x
            place = (..., slice(top, top + size[0]), slice(left, left + size[1]))
            found = solve(batch.of_images(images[place].contiguous()), number)
            weight = torch.outer(down[y], across[x]).to(found.image.real)
            for name in ("image", "std", "samples"):
                values = getattr(found, name)
                if values is not None:
                    if name not in whole:
                        whole[name] = values.new_zeros((*values.shape[:-2], first, second))
                    whole[name][place] += weight * values
            reports.append(replace(found, std=None, samples=None, image=found.image[..., :0, :0]))
            watch.tell("closing", number + 1, count)
    return replace(_joined(reports), image=whole["image"], std=whole.get("std"), samples=whole.get("samples"))


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
        likeness=stacked("likeness").mean(0),
        distance=stacked("distance").amax(0),
        offsets=[
            [torch.cat([part.offsets[s][n] for part in parts]) for n in range(len(layers))]
            for s, layers in enumerate(first.offsets)
        ],
        residual={
            "whole": square([part.residual["whole"] for part in parts]),
            "bands": square([part.residual["bands"] for part in parts]),
        },
    )
