"""``iasolve simulate``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from iasolve.cli.options import Overwrite, Printing

__all__ = ["simulate"]


@dataclass(frozen=True)
class Drawing:
    """What is drawn at random."""

    sigma: Annotated[
        float,
        typer.Option(metavar="S", min=0.0, help="Noise added: root mean square of a noise value, in the file's units."),
    ] = 0.0
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of noise and mask.")] = 0


@dataclass(frozen=True)
class Blurring:
    """The blur to make."""

    width: Annotated[float | None, typer.Option(metavar="PIXELS", help="gaussian: standard deviation.")] = None
    kernel: Annotated[Path | None, typer.Option(metavar="FILE", help="kernel: its file; scaled to sum to 1.")] = None
    cutoff: Annotated[float | None, typer.Option(metavar="SCALE", help="cutoff: the finest scale kept.")] = None


@dataclass(frozen=True)
class Masking:
    """The sampling mask to draw."""

    acceleration: Annotated[
        float,
        typer.Option(metavar="R", help="mask: acceleration aimed at; what came out is reported."),
    ] = 4.0
    centre_fraction: Annotated[float, typer.Option(metavar="F", help="mask: fully sampled part of the centre.")] = 0.08
    mask_kind: Annotated[
        str,
        typer.Option(metavar="random|equispaced|points", help="mask: lines as fastMRI draws them, or points."),
    ] = "random"
    mask_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="mask: write the mask (npy, png, tif)."),
    ] = None


def simulate(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Clean image, or a folder of them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Measurement, or a folder for them.")],
    *,
    task: Annotated[
        str,
        typer.Option(
            metavar="denoise|gaussian|kernel|cutoff|mask",
            help="Noise alone; a Gaussian blur, a blur kernel, a low-pass filter; undersampled k-space.",
        ),
    ],
    drawing: Drawing,
    blurring: Blurring,
    masking: Masking,
    overwrite: Overwrite = False,
    printing: Printing,
) -> None:
    """Make the measurements that the other commands read.

    Values go to npy, npz, tif, mat and nii as they are (float32); a png, jpg or dcm keeps the input's type, rounded and
    clipped.
    Of --task mask, k-space goes to npy, or with its mask to npz. The boundary of a blur is circular.

    Examples
    --------
    iasolve simulate clean.png noisy.npy --task denoise --sigma 20
    iasolve simulate clean.tif blurred.tif --task gaussian --width 2 --sigma 1
    iasolve simulate heads.npy kspace.npz --task mask --acceleration 4 --sigma 2
    """
    from iasolve.cli.simulation import Simulation, simulate_files

    asked = asdict(drawing) | asdict(blurring) | asdict(masking)
    mask_out = asked.pop("mask_out")
    simulate_files(Simulation(task, **asked), source, out, mask_out, overwrite, printing)
