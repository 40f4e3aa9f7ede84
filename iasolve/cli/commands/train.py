"""``iasolve train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iasolve.cli.options import Printing

if TYPE_CHECKING:
    from iasolve.training.log import Row
    from iasolve.training.status import Status

__all__ = ["train"]


@dataclass(frozen=True)
class Starting:
    """Where a run begins, and where it lies."""

    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoint, log and prior.  (default: runs/NAME)")
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")] = False
    init: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Start from the weights of a prior.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over in a folder that holds a run.")] = False


@dataclass(frozen=True)
class Ending:
    """Where a run ends."""

    minutes: Annotated[
        float | None, typer.Option(metavar="M", min=0.0, help="Length of the whole run, if not done earlier.")
    ] = None
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Stop after so many images in all."),
    ] = None


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Network, data and optimisation.")],
    printing: Printing,
    starting: Starting,
    ending: Ending,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="auto: the GPU if there is one.")] = "auto",
    part: Annotated[
        str, typer.Option(metavar="hierarchy|reader", help="Which part of the prior: the IA-HVAE, or its reader.")
    ] = "hierarchy",
) -> None:
    """Train a prior on one's own images.

    The hierarchy is exported as NAME.safetensors with its card NAME.json, the reader as NAME.reader.safetensors. A
    prior is both, side by side. Train the hierarchy first: --init gives the reader the power of its images.

    On several GPUs: torchrun --nproc-per-node=N --no-python iasolve train CONFIG.toml

    Examples
    --------
    iasolve train mine.toml --minutes 600
    iasolve train mine.toml --resume
    iasolve train mine.toml --part reader --init runs/mine/mine.safetensors
    """
    import os
    from dataclasses import replace

    from iasolve.cli.errors import INTERRUPTED, UnfitInput, UsageError, blamed_on
    from iasolve.cli.folders import make_folders
    from iasolve.cli.reporter import Reporter

    resume, init, images = starting.resume, starting.init, ending.images
    if resume and init is not None:
        raise UsageError("--resume and --init: the one continues a run, the other starts one; give one of them")
    # under torchrun, the first process speaks for all
    reporter = Reporter(printing if os.environ.get("RANK", "0") == "0" else Printing(quiet=True))
    try:
        from iasolve.training.config import EMULATED, load_config

        settings = load_config(config)
        if images is not None:
            settings = replace(settings, optimisation=replace(settings.optimisation, images=images))
            if settings.reader is not None:
                own = replace(settings.reader.optimisation, images=images)
                settings = replace(settings, reader=replace(settings.reader, optimisation=own))
    except FileNotFoundError:
        raise UnfitInput(f"{config}: no such file. Expected a training configuration. Check the path") from None
    except (ValueError, OSError) as error:
        named = str(error) if str(config) in str(error) else f"{config}: {error}"
        raise UnfitInput(f"{named}. See the bundled configurations for examples") from None
    usual = settings.name if part == "hierarchy" else f"{settings.name}-{part}"
    folder = Path("runs") / usual if starting.out is None else starting.out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: this is a file. Expected a folder")
    checkpoint = folder / "checkpoint.safetensors"
    if resume and not checkpoint.is_file():
        raise UsageError(f"--resume: nothing to resume, no {checkpoint}. Leave out --resume to start")
    if checkpoint.is_file() and not (resume or starting.overwrite):
        raise UsageError(f"{folder} holds a run already: --resume continues it, --overwrite starts over")
    from iasolve.cli.solver import choose_device
    from iasolve.priors import find_prior
    from iasolve.training.burst import DivergedError
    from iasolve.training.loop import train as run

    chosen = choose_device(device)
    first = None if init is None else find_prior(init)
    rows: list[Row] = []

    def show(status: Status) -> None:
        if status.stage != "validation":
            return
        row = status.losses
        rows.append(row)
        if len(rows) == 1:
            reporter.say(" ".join(name.rjust(9) for name in _SHOWN.values()))
        reporter.say(" ".join(_cell(row.get(key)).rjust(9) for key in _SHOWN))
        if "note" in row:
            reporter.warn(str(row["note"]))

    make_folders([folder])
    reporter.say(f"training {settings.name} on {chosen}, in {folder}")
    if settings.emulated(part, chosen):
        reporter.say(EMULATED)
    try:
        with blamed_on(UnfitInput, f"{config}: training with it failed", "Check the types and ranges of its values"):
            try:
                path = run(
                    settings,
                    folder,
                    resume=resume,
                    init=first,
                    minutes=ending.minutes,
                    device=chosen,
                    part=part,
                    callback=show,
                )
            except (ValueError, FileNotFoundError) as error:
                if not folder.is_dir():
                    raise UsageError(f"{folder}: the folder of the run was removed meanwhile. Start again") from error
                raise UnfitInput(f"{config}: {error}") from error
            except DivergedError as error:
                kept = (
                    f"{checkpoint} is that of the last good window" if checkpoint.is_file() else "there was no good one"
                )
                raise DivergedError(f"{config}: {error}. Of checkpoints, {kept}") from error
    except KeyboardInterrupt:
        kept = "the last checkpoint is intact; the same command with --resume continues from it"
        reporter.error(
            f"interrupted: {kept if checkpoint.is_file() else 'before the first checkpoint, nothing is kept'}"
        )
        raise typer.Exit(INTERRUPTED) from None
    reporter.say(f"prior written to {path}; use it with --prior {path}")
    reporter.result({"command": "train", "prior": str(path), "folder": str(folder), "log": rows})


_SHOWN = {
    "images": "images",
    "seconds": "seconds",
    "images_per_second": "images/s",
    "elbo": "ELBO",
    "kl": "KL",
    "error": "error",
    "mse": "MSE",
    "val_elbo": "val ELBO",
    "val_mse": "val MSE",
    "val_error": "val error",
    "norm": "gradient",
    "skipped": "skipped",
}


def _cell(value: float | str | list[float] | None) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)
