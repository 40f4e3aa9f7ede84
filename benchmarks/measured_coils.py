"""A slice of which every entry of k-space was measured by 8 coils: real data with a truth, at 4x and 8x lines.

The truth is the root sum of squares over the coils' images of all data. Lines are taken away along the longer axis, the
24 in the middle stay; every method gets the same lines, maps from the same ESPIRiT of what is left, and, where it has a
weight, the weight that predicts hidden measured entries best: the truth is looked at by the scores only. All images are
compared by magnitude, over the whole field of view and inside the head. In the air around it the root sum of squares is
nothing but the noise of 8 coils, which is positive: who knows that there is nothing is further from it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from coil_methods import Method, Seen, classical_methods, hide, own_methods, tuned
from comparison import Scores
from scipy import ndimage
from torch import Tensor

import common
from iasolve.operators import acceleration, centred_ifft2, compress_coils, line_mask, root_sum_of_squares
from iasolve.training.data import find

FILE, CENTRE = "brain-8coil-full-230x180.npy", 24

_HEAD = 0.1
"""Share of the brightest value that is the head's; ten times the noise."""


def full_slice(priors: list[Any], seed: int, quick: bool) -> tuple[dict[str, Any], str]:
    """PSNR of every method at each acceleration, and its table."""
    y = torch.from_numpy(np.load(find(FILE)))
    if quick:  # lower resolution and fewer coils: another, easier problem
        y = compress_coils(y[:, 43:187, 34:146].contiguous(), 4).kspace
    truth = root_sum_of_squares(centred_ifft2(y))[None]
    inside = _head(truth[0, 0])
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
        images = scores.run({"root sum of squares, zero-filled": partial(_zero_filled, seen.y)}, truth)
        for method in methods:
            _ = seen.real if method.real else seen.complex  # maps and phase are made once, outside of the seconds
            images |= scores.run({method.name: partial(_magnitude, method, seen, weights.get(method.name, 0.0))}, truth)
        scores.say(f"{factor}x")
        found = scores.to_dict()
        for name, image in images.items():
            error = (image - truth).square()[0, 0][inside].mean()
            found[name]["psnr_head"] = 10 * math.log10(float((truth.max() - truth.min()).square() / error))
        real = acceleration(mask)
        report[f"{factor}x"] = {"acceleration": real, "weights": weights, "methods": found}
        rows = [
            [n, f"{v['psnr'][0]:.2f}", f"{v['psnr_head']:.2f}", f"{v['ssim'][0]:.3f}", f"{v['seconds']:.2f}"]
            for n, v in found.items()
        ]
        columns = ["method", "PSNR dB", "inside the head", "SSIM", "CPU s"]
        text += [f"### {factor}x lines, {real:.2f}x in all\n", common.table(columns, rows)]
    return report, "\n".join(text)


def _head(truth: Tensor) -> Tensor:
    """Where the head is, ``(H, W)``, boolean: its dark parts too, and no specks of the air."""
    bright = ndimage.binary_opening((truth > _HEAD * truth.max()).numpy(), iterations=3)
    return torch.from_numpy(ndimage.binary_fill_holes(bright))


def _zero_filled(y: Tensor) -> Tensor:
    return root_sum_of_squares(centred_ifft2(y))[None]


def _magnitude(method: Method, seen: Seen, weight: float) -> Tensor:
    image = method.solve(seen, weight)
    return image.abs().reshape(1, 1, *image.shape[-2:])
