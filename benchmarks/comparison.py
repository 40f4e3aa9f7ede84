"""Scores of several methods on the same images, image by image, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import typer
from torch import Tensor

import common
from iasolve import metrics
from iasolve.metrics import mean_interval


@dataclass
class Scores:
    """PSNR, SSIM and processor seconds of every method on every image of one case.

    Attributes
    ----------
    peak : float
        The range of the images; 0: each reference's own.
    """

    peak: float = 0.0
    psnr: dict[str, list[float]] = field(default_factory=dict)
    ssim: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, methods: Mapping[str, Callable[[], Tensor]], references: Tensor) -> dict[str, Tensor]:
        """Run each method on the same images ``(B, C, H, W)``, score and return its estimates."""
        out = {}
        for name, method in methods.items():
            out[name], seconds = common.timed(method, len(references))
            self._add(name, out[name], references, seconds)
        return out

    def _add(self, name: str, estimates: Tensor, references: Tensor, seconds: float) -> None:
        for estimate, reference in zip(estimates.numpy(), references.numpy(), strict=True):
            peak = self.peak or float(np.ptp(reference))
            mse = float(np.square(estimate - reference, dtype=np.float64).mean())
            self.psnr.setdefault(name, []).append(10 * np.log10(peak**2 / mse))
            self.ssim.setdefault(name, []).append(metrics.ssim(estimate, reference, peak))
            self.seconds.setdefault(name, []).append(seconds)

    def over(self, name: str, reference: str) -> tuple[float, float, float] | None:
        """Mean difference in dB to another method's, and its 95 % interval; of a single image there is none."""
        difference = np.array(self.psnr[name]) - np.array(self.psnr[reference])
        return mean_interval(difference) if len(difference) > 1 else None

    def table(self, reference: str) -> str:
        """A row for each method."""
        rows = []
        for name, values in self.psnr.items():
            gain = self.over(name, reference)
            rows.append(
                [
                    name,
                    f"{np.mean(values):.2f}",
                    f"{np.mean(self.ssim[name]):.3f}",
                    "" if gain is None else common.signed(gain),
                    f"{np.mean(self.seconds[name]):.2f}",
                ]
            )
        return common.table(["method", "PSNR dB", "SSIM", f"over {reference}, dB (95 %)", "CPU s / image"], rows)

    def to_dict(self) -> dict[str, Any]:
        """For the report: every image's values."""
        return {
            name: {"psnr": self.psnr[name], "ssim": self.ssim[name], "seconds": float(np.mean(self.seconds[name]))}
            for name in self.psnr
        }

    def say(self, case: str) -> None:
        """One line on the terminal."""
        typer.echo(f"{case}: " + ", ".join(f"{n} {np.mean(v):.2f}" for n, v in self.psnr.items()), err=True)
