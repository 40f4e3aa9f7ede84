"""What the scripts of the paper's quality figures share: the two data sets, priors, paired comparisons, pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from frechet import as_rgb
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

import common
import iasolve
from iasolve.metrics import mean_interval
from iasolve.training.data import DataConfig, load_images, load_split, normalise
from iasolve.training.phase import PhaseField

NOTES = {
    "cifar10": "The CIFAR-10 copy was once saved as JPEG (4:2:0): figures on it are not comparable with figures on the "
    "lossless set, the paper's among them.",
    "mri-complex": "Complex MR images are not the paper's fastMRI: magnitudes of another set (T1-weighted, "
    "contrast-enhanced), times smooth random phase.",
}
"""What has to stand beside figures on a data set."""
TITLES = {"cifar10": "CIFAR-10 (JPEG copy)", "mri-complex": "complex MR"}
PAPER_SETTING = iasolve.Recipe(
    name="clean",
    views=1,
    steps={
        "count": 25,
        "variables": "latents",
        "objective": "variational",
        "optimizer": "adam",
        "size": 0.03,
        "blocks": "scale",
        "views": 0,
    },
    closing={"error": "none"},
)
"""Beta 1, closing off; Adam's steps of the posteriors' means, in units of their widths, scale by scale."""

# options that scripts share
Data = Annotated[Path | None, typer.Option(help="Folder of the data; default: IASOLVE_DATA")]
Cifar10 = Annotated[str, typer.Option(help="Clean-trained prior, by name or path")]
ComplexMri = Annotated[str, typer.Option(help="Clean-trained prior of complex images")]
Twin = Annotated[str, typer.Option(help="Its vanilla twin")]
Only = Annotated[str, typer.Option(help="cifar10 or mri-complex; empty: both")]
Tuned = Annotated[Path | None, typer.Option(help="What tune_clean.py wrote; default: in the results")]
Batch = Annotated[int, typer.Option(help="Images solved at a time")]
Seed = Annotated[int, typer.Option(help="Seed of images, phases and draws")]
Quick = Annotated[bool, typer.Option(help="Few images and steps: a look, not a result")]
Out = Annotated[Path, typer.Option(help="Folder of the results")]


def chosen_sets(sets: dict[str, Any], only: str) -> dict[str, Any]:
    """The data sets that an option ``--only`` leaves: all of them, or one."""
    if only and only not in sets:
        raise SystemExit(f"--only {only}: no such data set; there are {', '.join(sets)}")
    return {only: sets[only]} if only else sets


def images_of(name: str, part: str, count: int, seed: int, folder: Path | None = None) -> Tensor:
    """``count`` images, ``(n, C, N, N)``, root mean square 1, drawn without replacement; 0 takes all.

    Parameters
    ----------
    name : {"cifar10", "mri-complex"}
        Of CIFAR-10, the folder of the official batches is taken where there is one, else the zip of the JPEG copy.
    part : {"test", "validation"}
        Validation images are those that training leaves out.
    count, seed : int
        The seed draws the images and, for MR, their phase.
    folder : Path, optional
        Where the data are; by default the environment variable ``IASOLVE_DATA`` says.
    """
    found = (_cifar if name == "cifar10" else _complex_mri)(part, seed, folder)
    return normalise(common.pick(found, count or len(found), seed))


def _cifar(part: str, seed: int, folder: Path | None) -> Tensor:
    folder = folder or Path(os.environ.get("IASOLVE_DATA", "."))
    official, copy = folder / "cifar-10-batches-py", folder / "cifar10-jpeg.zip"
    if official.is_dir():
        config = DataConfig(str(official), kind="cifar10", train_part="train", validation_every=100)
    elif copy.is_file():
        config = DataConfig(str(copy), kind="folder", train_part="train", channels=3, validation_every=100)
    else:
        raise SystemExit(f"neither {official} nor {copy}: give --data FOLDER, or set IASOLVE_DATA to the folder")
    return load_images(config, "test") if part == "test" else load_split(config).validation


def _complex_mri(part: str, seed: int, folder: Path | None) -> Tensor:
    magnitudes = common.slices(folder / "mri-t1ce-128.npz" if folder else None, part)
    return PhaseField()(magnitudes, np.random.default_rng(seed))


def ratio_of_means(values: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """``mean(values) / mean(reference)`` of paired values with its 95 % interval, by linearisation."""
    ratio = values.mean() / reference.mean()
    return mean_interval((values - ratio * reference) / reference.mean() + ratio)


def change_of_mean(values: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Relative change of a mean, ``mean(values) / mean(reference) - 1``, with its 95 % interval; values are paired."""
    ratio, low, high = ratio_of_means(values, reference)
    return ratio - 1, low - 1, high - 1


def percent(interval: tuple[float, float, float]) -> str:
    """``-2.2 % (-2.5 to -1.9)``."""
    return f"{100 * interval[0]:+.1f} % ({100 * interval[1]:+.1f} to {100 * interval[2]:+.1f})"


def spread(values: np.ndarray, digits: int = 4) -> str:
    """``0.0100 ± 0.0004``: a mean and half of its 95 % interval."""
    mean, low, _ = mean_interval(values)
    return f"{mean:.{digits}f} ± {mean - low:.{digits}f}"


def loaded(prior: str, images: Tensor) -> iasolve.HVAEPrior:
    """A prior by path or by name, of those in ``weights/`` too; ends the program when it is not one of such images."""
    own = Path(__file__).parent / "weights" / f"{prior}.safetensors"
    try:
        found = iasolve.load_prior(own if own.is_file() else prior)
    except iasolve.PriorError as error:
        raise SystemExit(str(error)) from None
    wanted = (found.channels, found.spectrum.size, found.spectrum.is_complex)
    if wanted != (images.shape[1], images.shape[-1], images.is_complex()):
        raise SystemExit(f"the prior {found!r} is not one of images {tuple(images.shape[1:])} {images.dtype}")
    return found


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error that counts images."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar


def on_screen(images: Tensor, like: Tensor) -> np.ndarray:
    """For imshow, ``(n, H, W, 3)`` or ``(n, H, W)``: colour as it is, else magnitudes; 1: the brightest of ``like``."""
    shown = as_rgb(images, like).movedim(1, -1).numpy()
    return shown if images.shape[1] == 3 else shown[..., 0]


def describe(about: dict[str, Any], priors: list[iasolve.HVAEPrior]) -> str:
    """Commit, machine, seed, and every prior's training, for the head of a page."""
    lines = [f"Commit {about['commit']}; seed {about['seed']}; {about['machine']}.\n"]
    for prior in priors:
        training = prior.card.get("training", {})
        lines.append(
            f"- `{prior.name}`: {prior.card.get('parameters', 0) / 1e6:.1f} million parameters, "
            f"{training.get('images')} images seen, sha256 {str(prior.card.get('sha256'))[:12]}"
        )
    return "\n".join(lines) + "\n"
