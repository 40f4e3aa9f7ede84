"""``iasolve reconstruct``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iasolve.cli.options import Printing, Running, Solving, Spreading, Writing

if TYPE_CHECKING:
    from iasolve.cli.sources import Source
    from iasolve.cli.task import Task

__all__ = ["reconstruct", "task"]


@dataclass(frozen=True)
class Sampling:
    """How the k-space was measured, and what is made of it."""

    mask: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto",
            help="Sampling mask (H, W) or (W,); auto: the one in the file, else the entries that are not zero.",
        ),
    ] = "auto"
    maps: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto",
            help="Sensitivity maps, complex, of the k-space's shape; auto: estimated from the sampled centre.",
        ),
    ] = "auto"
    coils: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Compress to N coils.  [default: 12, if there are more]"),
    ] = None
    phase: Annotated[
        str,
        typer.Option(
            metavar="auto|none",
            help="For a prior over real images. auto: estimate the phase and take it out (for a single coil only if "
            "the image has a phase). none: treat the image as real.",
        ),
    ] = "auto"
    keep_oversampling: Annotated[
        bool,
        typer.Option(
            "--keep-oversampling",
            help="Keep the whole field of view of fastMRI's k-space; by default it is cropped as the header says.",
        ),
    ] = False


def reconstruct(
    source: Annotated[Path, typer.Argument(metavar="IN", help="K-space, or a folder of such files.")],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Image (npy, npz, tif, h5, mat, cfl, nii), or a folder for the images."),
    ],
    *,
    sampling: Sampling,
    solving: Solving,
    running: Running,
    spreading: Spreading,
    writing: Writing,
    printing: Printing,
) -> None:
    """Reconstruct images from undersampled k-space.

    Reads k-space from npy, npz, mat, fastMRI's h5, ISMRMRD (h5, mrd) and BART's cfl: centred (DC in the middle) and
    orthonormal, as fastMRI has it, of shape (H, W), (coils, H, W) or (slices, coils, H, W). Several coils: sensitivity
    maps and phase are estimated slice by slice, and said in the report.

    Examples
    --------
    iasolve reconstruct kspace.h5 image.h5 --report look.html
    iasolve reconstruct kspace.npy image.tif --mask mask.npy --std-out error.tif
    iasolve reconstruct kspace.cfl image.nii.gz --maps maps.cfl
    iasolve reconstruct scans/ images/ --recipe fast --resume
    """
    from iasolve.cli.workflow import run

    run(partial(task, sampling), source, out, solving, running, spreading, writing, printing)


def task(sampling: Sampling) -> Task:
    """What this command does to a measurement."""
    from iasolve.cli.errors import UsageError
    from iasolve.cli.sources import kspace_source
    from iasolve.cli.task import Task
    from iasolve.files import KSPACE_SUFFIXES, split_key

    mask, maps, coils, phase = sampling.mask, sampling.maps, sampling.coils, sampling.phase
    if phase not in ("auto", "none"):
        raise UsageError(f"--phase {phase}: expected auto or none")

    def solve(source: Source, y: Any, prior: Any, **options: Any) -> Any:
        import iasolve

        return iasolve.reconstruct(y, prior, maps=source.maps, mask=source.mask, coils=coils, phase=phase, **options)

    def choose(source: Source, y: Any, priors: Any, **options: Any) -> Any:
        from iasolve.reconstruction import choose_kspace_prior

        return choose_kspace_prior(y, priors, maps=source.maps, mask=source.mask, coils=coils, phase=phase, **options)

    def candidates() -> Any:
        from iasolve.priors import load_kspace_priors

        return load_kspace_priors()

    files = {name: split_key(value)[0] for name, value in (("--mask", mask), ("--maps", maps)) if value != "auto"}
    return Task(
        "reconstruct",
        "compressed-sensing",
        KSPACE_SUFFIXES,
        lambda path: kspace_source(path, mask, maps, sampling.keep_oversampling),
        None,
        asdict(sampling),
        solve,
        choose,
        candidates=candidates,
        files=lambda: files,
    )
