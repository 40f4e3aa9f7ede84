"""``iasolve train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iasolve.cli.common import Printing

__all__ = ["train"]


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Network, data and optimisation.")],
    printing: Printing,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Checkpoint, log and prior.  (default: runs/NAME)")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")] = False,
    init: Annotated[str | None, typer.Option(metavar="NAME|PATH", help="Start from the weights of a prior.")] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", min=0.0, help="Stop after so long, if not done earlier.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Stop after so many images in all."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="auto: the GPU if there is one.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over in a folder that holds a run.")] = False,
    part: Annotated[
        str, typer.Option(metavar="hierarchy|reader", help="Which part of the prior: the IA-HVAE, or its reader.")
    ] = "hierarchy",
) -> None:
    """Train a prior on one's own images.

    The hierarchy is exported as NAME.safetensors with its card NAME.json, the reader as NAME.reader.safetensors. A
    prior is both, side by side. Train the hierarchy first: --init gives the reader the power of its images.

    On several GPUs: torchrun --nproc-per-node=N --no-python iasolve train CONFIG.toml
    """
    import os
    from dataclasses import replace

    from iasolve.cli.errors import INTERRUPTED, UnfitInput, UsageError
    from iasolve.cli.reporting import Reporter

    if resume and init is not None:
        raise UsageError("--resume and --init: the one continues a run, the other starts one; give one of them")
    # under torchrun, the first process speaks for all
    reporter = Reporter(printing if os.environ.get("RANK", "0") == "0" else Printing(quiet=True))
    try:
        from iasolve.training.config import load_config

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
    folder = out if out is not None else Path("runs") / usual
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: this is a file. Expected a folder")
    checkpoint = folder / "checkpoint.safetensors"
    if resume and not checkpoint.is_file():
        raise UsageError(f"--resume: nothing to resume, no {checkpoint}. Leave out --resume to start")
    if checkpoint.is_file() and not (resume or overwrite):
        raise UsageError(f"{folder} holds a run already: --resume continues it, --overwrite starts over")
    from iasolve.cli.solving import choose_device
    from iasolve.priors import find_prior
    from iasolve.training.loop import train as run

    chosen = choose_device(device)
    first = None if init is None else find_prior(init)
    rows: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) == 1:
            reporter.say(_line(dict.fromkeys(_SHOWN)))
        reporter.say(_line(row))

    reporter.say(f"training {settings.name} on {chosen}, in {folder}")
    try:
        path = run(
            settings, folder, resume=resume, init=first, minutes=minutes, device=chosen, part=part, report=report
        )
    except KeyboardInterrupt:
        kept = "the last checkpoint is intact; the same command with --resume continues from it"
        reporter.error(
            f"interrupted: {kept if checkpoint.is_file() else 'before the first checkpoint, nothing is kept'}"
        )
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, FileNotFoundError) as error:
        raise UnfitInput(f"{config}: {error}") from error
    reporter.say(f"prior written to {path}; use it with --prior {path}")
    reporter.result({"command": "train", "prior": str(path), "folder": str(folder), "log": rows})


_SHOWN = {
    "images": "images",
    "seconds": "seconds",
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


def _line(row: dict[str, Any]) -> str:
    """The row's figures, or the names of the columns for a row of None."""
    cells = []
    for key, name in _SHOWN.items():
        value = row.get(key)
        cells.append((name if value is None and all(v is None for v in row.values()) else _number(value)).rjust(9))
    return " ".join(cells)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.5g}"
