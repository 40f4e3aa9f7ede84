"""A slice of which every entry of k-space was measured by 8 coils: real data with a truth, at 4x and 8x lines.

The truth is the root sum of squares over the coils' images of all data. Lines are taken away along the longer axis, the
24 in the middle stay; every method gets the same lines, maps from the same ESPIRiT of what is left, and, where it has a
weight, the weight that predicts hidden measured entries best: the truth is looked at by the scores only. All images are
compared by magnitude, over the whole field of view, air included.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from coil_methods import Method, Seen, classical_methods, hide, own_methods, tuned
from comparison import Scores
from torch import Tensor

from iasolve.operators import acceleration, centred_ifft2, compress_coils, line_mask, root_sum_of_squares
from iasolve.training.data import find

FILE, CENTRE = "brain-8coil-full-230x180.npy", 24


def full_slice(priors: list[Any], seed: int, quick: bool) -> tuple[dict[str, Any], str]:
    """PSNR of every method at each acceleration, and its table."""
    y = torch.from_numpy(np.load(find(FILE)))
    if quick:  # lower resolution and fewer coils: another, easier problem
        y = compress_coils(y[:, 43:187, 34:146].contiguous(), 4).kspace
    truth = root_sum_of_squares(centred_ifft2(y))[None]
    generator = torch.Generator().manual_seed(seed)
    methods = classical_methods(quick)
    for prior in priors:
        methods += own_methods(prior, seed, quick)
    report: dict[str, Any] = {}
    text = []
    for factor in (4,) if quick else (4, 8):
        mask = line_mask((y.shape[-2], y.shape[-1]), factor, CENTRE / y.shape[-2], axis=-2, seed=seed)
        seen = Seen(y * mask)
        fewer, hidden = hide(seen.y, generator)
        trial = Seen(fewer)
        weights = {m.name: tuned(m, trial, hidden) for m in methods if m.start is not None}
        scores = Scores()
        scores.run({"root sum of squares, zero-filled": partial(_zero_filled, seen.y)}, truth)
        for method in methods:
            _ = seen.real if method.real else seen.complex  # maps and phase are made once, outside of the seconds
            scores.run({method.name: partial(_magnitude, method, seen, weights.get(method.name, 0.0))}, truth)
        scores.say(f"{factor}x")
        real = acceleration(mask)
        report[f"{factor}x"] = {"acceleration": real, "weights": weights, "methods": scores.to_dict()}
        best = max((m.name for m in methods if not m.name.startswith("iasolve")), key=lambda n: scores.psnr[n][0])
        text += [f"### {factor}x lines, {real:.2f}x in all; best classical: {best}\n", scores.table(best)]
    return report, "\n".join(text)


def _zero_filled(y: Tensor) -> Tensor:
    return root_sum_of_squares(centred_ifft2(y))[None]


def _magnitude(method: Method, seen: Seen, weight: float) -> Tensor:
    image = method.solve(seen, weight)
    return image.abs().reshape(1, 1, *image.shape[-2:])
