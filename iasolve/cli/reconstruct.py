"""``iasolve reconstruct``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iasolve.cli.common import Printing, Running, Solving, Writing

if TYPE_CHECKING:
    from iasolve.cli.inputs import Source

__all__ = ["reconstruct"]


def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="IN", help="K-space, or a folder of such files.")],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Image (npy, npz, tif, h5, mat, cfl, nii), or a folder for the images."),
    ],
    *,
    mask: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto",
            help="Sampling mask (H, W) or (W,); auto: the one in the file, else the entries that are not zero.",
        ),
    ] = "auto",
    solving: Solving,
    running: Running,
    writing: Writing,
    printing: Printing,
) -> None:
    """Reconstruct images from undersampled k-space.

    Reads single-coil k-space from npy, npz, mat, fastMRI's h5, ISMRMRD (h5, mrd) and BART's cfl: centred (DC in the
    middle) and orthonormal, as fastMRI has it, of shape (H, W), (1, H, W) or (slices, 1, H, W). Slices are solved as a
    batch. Bundled priors are over real images: phase is lost, and warned about.
    """
    from iasolve.cli.inputs import kspace_source
    from iasolve.cli.running import run
    from iasolve.cli.task import Task
    from iasolve.files import KSPACE_SUFFIXES

    def operator(source: Source, shape: Any, dtype: Any) -> Any:
        from iasolve.operators import KSpaceMask

        assert source.mask is not None
        return KSpaceMask(source.mask, shape, dtype)

    task = Task(
        "reconstruct",
        "compressed-sensing",
        KSPACE_SUFFIXES,
        lambda path: kspace_source(path, mask),
        operator,
        {"mask": mask},
    )
    run(task, source, out, solving, running, writing, printing)
