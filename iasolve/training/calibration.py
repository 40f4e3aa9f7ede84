"""A reader's expected error, calibrated on images as users have them.

Training images are augmented: blurred, sharpened, windowed, with a floor of noise. An expected error that is right on
average over them is too large of plain images, up to 2.4 times in the finest ring at strong noise. So after training
the heads of the expected error, of its rings and of its place, and nothing else, learn on plain images that training
has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from iasolve.evidence import Folded
from iasolve.networks import Reader
from iasolve.training.degradations import Degradation, DegradationMix
from iasolve.training.reading import ReaderObjective

__all__ = ["CHECKED", "calibrate"]

CHECKED = 64
"""Validation images, the first ones, that validation reads: calibration learns on the others."""

_LEAST = 32
_BATCH, _RATE = 16, 1e-3


def calibrate(
    reader: Reader, images: Tensor, degradations: Sequence[Degradation], *, steps: int = 300, half: bool = False
) -> bool:
    """Fit the heads of the expected error; whether there were images enough, 32, beside those of validation.

    Parameters
    ----------
    reader : Reader
        Changed in place; its estimates stay what they are.
    images : Tensor
        ``(B, C, N, N)`` validation images, of root mean square 1, on the reader's device.
    degradations : sequence of Degradation
        The configuration's.
    steps : int
        Of 16 images, mirrored at random. The same draws each time.
    half : bool
        Read in bfloat16.
    """
    images = images[CHECKED:]
    if len(images) < _LEAST:
        return False
    objective, mix = ReaderObjective(reader), DegradationMix(degradations)
    rng = np.random.default_rng(11)
    learning = {name: p.requires_grad for name, p in reader.named_parameters()}
    reader.requires_grad_(False)
    heads = nn.ModuleList([reader.error, reader.spread]).requires_grad_(True)
    optimizer = torch.optim.Adam(heads.parameters(), lr=_RATE)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        some = images[torch.from_numpy(rng.integers(len(images), size=_BATCH)).to(images.device)]
        for axis in (-2, -1):
            some = some.flip(axis) if rng.random() < _MIRRORED else some
        folded = Folded(*(t.to(images.device) for t in mix(some.cpu(), rng)))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            losses = objective(some, folded)
        optimizer.zero_grad(set_to_none=True)
        (losses.spread + losses.place).backward()
        optimizer.step()
    for name, parameter in reader.named_parameters():
        parameter.requires_grad_(learning[name])
    return True


_MIRRORED = 0.5
