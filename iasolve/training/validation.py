"""What training watches: bound and error on validation images, and guesses from fixed degradations of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iasolve.evidence import Folded, evidence, wiener_posterior
from iasolve.networks import HVAE, Reader
from iasolve.priors.likeness import image_elbo
from iasolve.priors.trained import HVAEPrior
from iasolve.training.calibration import CHECKED
from iasolve.training.degradations import Degradation, DegradationMix
from iasolve.training.objective import Objective
from iasolve.training.reading import ReaderObjective

__all__ = ["validate", "validate_reader"]

_PROBES = {
    "psnr_noise_0.1": Degradation(1, (0.1, 0.1)),
    "psnr_noise_0.3": Degradation(1, (0.3, 0.3)),
    "psnr_noise_1.0": Degradation(1, (1.0, 1.0)),
    "psnr_lines_4x": Degradation(
        1, (0.02, 0.02), "complex", ({"kind": "lines", "acceleration": (4, 4), "centre": (0.08, 0.08)},)
    ),
}
"""Degradations on which validation watches the amortized guess."""


@torch.no_grad()
def validate(network: HVAE, images: Tensor) -> dict[str, float]:
    """Figures of a network, with the same draws each time.

    Parameters
    ----------
    network : HVAE
    images : Tensor
        ``(B, C, N, N)``, of root mean square 1, on the network's device.

    Returns
    -------
    dict
        ``elbo``, ``kl`` (nats per dimension), ``mse``, the lowest ELBO of an image, and the PSNR in dB of guesses
        from fixed degradations of the first 32.
    """
    objective = Objective(network).eval()
    sums: dict[str, float] = {}
    with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
        torch.manual_seed(1)
        for start in range(0, len(images), 32):
            batch = images[start : start + 32]
            losses = objective(batch, None)
            for key in ("elbo", "kl", "mse"):
                sums[key] = sums.get(key, 0.0) + float(getattr(losses, key)) * len(batch)
    out = {k: v / len(images) for k, v in sums.items()}
    own = HVAEPrior(network, "in training", {})
    each = torch.cat([image_elbo(own, images[i : i + 32]) for i in range(0, len(images), 32)])
    out["elbo_lowest"] = float(each.min())
    for name, entry in _PROBES.items():
        out[name] = _probe(objective, images[:32], entry)
    return out


@torch.no_grad()
def validate_reader(reader: Reader, images: Tensor, degradations: Sequence[Degradation]) -> dict[str, float]:
    """Figures of a reader, with the same draws each time.

    Parameters
    ----------
    reader : Reader
    images : Tensor
        ``(B, C, N, N)``, of root mean square 1, on the reader's device; the first 64 are read.
    degradations : sequence of Degradation
        The configuration's.

    Returns
    -------
    dict
        ``error`` and ``spread`` over the configuration's degradations (see
        :class:`iasolve.training.reading.ReaderLosses`), ``expected``: root mean square of the error that the reader
        expects over that of the error that it makes, and the PSNR in dB of one reading of fixed degradations of the
        first 32.
    """
    images = images[:CHECKED]
    objective = ReaderObjective(reader).eval()
    folded = _on(DegradationMix(degradations)(images.cpu(), np.random.default_rng(7)), images.device)
    sums = {"error": 0.0, "spread": 0.0}
    for start in range(0, len(images), 16):
        some = slice(start, start + 16)
        losses = objective(images[some], Folded(*(t[some] for t in folded)))
        for key in sums:
            sums[key] += float(getattr(losses, key)) * len(images[some])
    out = {key: value / len(images) for key, value in sums.items()}
    expected = made = 0.0
    images = images[:32]
    for name, entry in _PROBES.items():
        folded = _on(DegradationMix.apply([entry] * len(images), images.cpu(), np.random.default_rng(7)), images.device)
        reading = reader(*wiener_posterior(folded, reader.power, is_complex=images.is_complex()))
        squared = (reading.estimate - images).abs().square().mean((-3, -2, -1))
        expected, made = expected + float(reading.variance.mean()), made + float(squared.mean())
        out[name] = _psnr(images, squared)
    out["expected"] = (expected / made) ** 0.5
    return out


def _on(folded: Folded, device: torch.device) -> Folded:
    return Folded(*(t.to(device) for t in folded))


def _psnr(images: Tensor, squared: Tensor) -> float:
    """Mean PSNR in dB for mean squared errors ``(B,)``, peak = the image's largest magnitude."""
    return float((10 * torch.log10(images.abs().amax((-3, -2, -1)).square() / squared)).mean())


def _probe(objective: Objective, images: Tensor, entry: Degradation) -> float:
    """PSNR of the closed amortized guess on one fixed degradation, peak = the image's largest magnitude."""
    net = objective.network
    # drawn on the processor, so that the figures of all devices are of the same measurements
    drawn = DegradationMix.apply([entry] * len(images), images.cpu(), np.random.default_rng(7))
    folded = _on(drawn, images.device)
    seen = evidence(folded, net.power, net.spectrum)
    estimate = objective.guess(net.encode(seen.image, seen.profile), len(images))
    closed = net.spectrum.inverse(objective.close(estimate, folded))
    return _psnr(images, (closed - images).abs().square().mean((-3, -2, -1)))
