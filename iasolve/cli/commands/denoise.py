"""``iasolve denoise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iasolve.cli.options import Printing, Running, Solving, Writing

__all__ = ["denoise"]


def denoise(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Noisy image, or a folder of them.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Result, or a folder for the results.")],
    *,
    solving: Solving,
    running: Running,
    writing: Writing,
    printing: Printing,
) -> None:
    """Remove white Gaussian noise from images.

    Reads png, jpg, bmp, webp, tif, npy, npz, mat, fastMRI's h5, BART's cfl, and with the extras nifti and dicom also
    nii, nii.gz and dcm. What comes out has the input's type and range; slices, pages and colours are kept. OUT.json
    beside it says what was done.

    Examples
    --------
    iasolve denoise noisy.png clean.png
    iasolve denoise noisy.tif clean.tif --sigma 20 --std-out error.tif --report look.html
    iasolve denoise scans/ denoised/ --recipe fast --resume
    """
    from iasolve.cli.sources import image_source
    from iasolve.cli.task import Task
    from iasolve.cli.workflow import run
    from iasolve.files import IMAGE_SUFFIXES

    def operator(source: Any, shape: Any, dtype: Any) -> Any:
        from iasolve.operators import Identity

        source.facts["kind"] = "identity"
        return Identity(shape, dtype)

    task = Task("denoise", "denoise", IMAGE_SUFFIXES, image_source, operator)
    run(task, source, out, solving, running, writing, printing)
