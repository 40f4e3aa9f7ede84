"""Options that several commands share, written once and spliced into each command's signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from iasolve.cli.errors import Interrupted
from iasolve.cli.interruption import interrupted_by

__all__ = ["EXPERT", "Overwrite", "Printing", "Running", "Solving", "Spreading", "Writing", "expand"]

EXPERT = "Expert options"
"""Panel of the options that few need."""

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


@dataclass(frozen=True)
class Printing:
    """What is printed."""

    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=EXPERT)] = (
        False
    )


@dataclass(frozen=True)
class Writing:
    """What may be written over."""

    overwrite: Overwrite = False
    resume: Annotated[
        bool,
        typer.Option("--resume", help="In a folder: skip what an earlier run finished."),
    ] = False


@dataclass(frozen=True)
class Running:
    """Where and in what portions the work is done."""

    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="auto: the GPU if there is one.")] = "auto"
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Tiles that the networks take at a time.  [default: 8, on a GPU 128; fewer where memory is short]",
            rich_help_panel=EXPERT,
        ),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory to use at most, such as 1.5GB.  [default: half of what is free, at most 1.5GB; on a GPU its "
            "free memory]",
        ),
    ] = None


@dataclass(frozen=True)
class Spreading:
    """Who does the work, where it is not this process."""

    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Solve on N processes of this machine (needs the extra 'cluster').",
            rich_help_panel=EXPERT,
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Solve on the Dask cluster of this scheduler, as tcp://host:8786 (needs the extra 'cluster').",
            rich_help_panel=EXPERT,
        ),
    ] = None


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _recipes(incomplete: str) -> list[str]:
    """Names that complete ``--recipe``; a file's name is completed by the shell."""
    folder = resources.files("iasolve.recipes")
    return _beginning([f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")], incomplete)


def _priors(incomplete: str) -> list[str]:
    """Names that complete ``--prior``: those that come with iasolve."""
    weights = [f.name for f in resources.files("iasolve.priors.weights").iterdir() if f.name.endswith(".safetensors")]
    names = {w.removesuffix(".safetensors").removesuffix(".reader") for w in weights}
    return _beginning(["auto", *sorted(names)], incomplete)


def _trust(value: bool) -> bool:
    from iasolve.files import trust_links

    trust_links(value)
    return value


@dataclass(frozen=True)
class Solving:
    """What every solving command lets the user choose."""

    sigma: Annotated[
        str,
        typer.Option(
            metavar="S|auto",
            help="Noise level: root mean square of a noise value, in the file's units (an 8-bit image has units of "
            "grey levels, so 25 means 25 of 255). auto: estimated from the data, and reported.",
        ),
    ] = "auto"
    noise: Annotated[
        str,
        typer.Option(
            metavar="auto|gaussian|spectral|rician",
            help="Kind of noise. gaussian: white. spectral: a level for each ring of frequencies, as after "
            "interpolation, demosaicing or compression; always estimated. rician: noise of magnitude images, which "
            "brightens air. auto: gaussian; for images spectral, if the levels differ.",
        ),
    ] = "auto"
    offset: Annotated[
        str,
        typer.Option(
            metavar="B|auto",
            help="A constant to subtract before and to add back after, in the file's units (-1024 for Hounsfield "
            "units). auto: estimated, if the image goes further below zero than its noise.",
        ),
    ] = "auto"
    prior: Annotated[
        str,
        typer.Option(
            metavar="auto|NAME|PATH",
            help="Bundled prior, or a .safetensors file. auto: the one that best predicts a part of the measurement "
            "that was kept back.",
            autocompletion=_priors,
        ),
    ] = "auto"
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Ready recipe or .toml file; by default the one made for this command.",
            autocompletion=_recipes,
        ),
    ] = None
    steps: Annotated[
        str | None,
        typer.Option(
            metavar='N|"8=10,16=25"',
            help="Gradient steps, the same for every scale or scale by scale.",
            rich_help_panel=EXPERT,
        ),
    ] = None
    passes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="How often the network looks at the measurement again.", rich_help_panel=EXPERT
        ),
    ] = None
    guess_stop: Annotated[
        str | None,
        typer.Option(metavar="SCALE|auto|all", help="Finest scale of the first guess.", rich_help_panel=EXPERT),
    ] = None
    beta: Annotated[
        str | None,
        typer.Option(
            metavar='B|"8=1,16=2"',
            help="Weight of the measurement in the steps; 1 is the likelihood.",
            rich_help_panel=EXPERT,
        ),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(metavar="K", min=0, help="Posterior samples, for error bars."),
    ] = None
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of all random draws.")] = 0
    fit: Annotated[
        str,
        typer.Option(
            metavar="auto|canvas|field-of-view",
            help="What to do with images of another size than the prior's. canvas: overlapping tiles. field-of-view: "
            "one tile that shows the whole image. auto: canvas for larger images, field-of-view for smaller ones.",
        ),
    ] = "auto"
    tile: Annotated[
        str,
        typer.Option(metavar="auto|PIXELS", help="Size of a tile; a prior has only one.", rich_help_panel=EXPERT),
    ] = "auto"
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=0,
            help="Smallest overlap of tiles, pixels.  [default: tile / 4]",
            rich_help_panel=EXPERT,
        ),
    ] = None
    trust_links: Annotated[
        bool,
        typer.Option(
            "--trust-links",
            callback=_trust,
            help="Read HDF5 files (h5, mrd, mat) that take data from other files.",
            rich_help_panel=EXPERT,
        ),
    ] = False
    std_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the error bar: each pixel's standard deviation (npy, npz, tif, nii, ..). It takes 8 samples "
            "unless --samples says otherwise. With a folder as input, a folder.",
        ),
    ] = None
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw input, estimate and error bar. With a folder as input, a folder.",
        ),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE.html",
            help="Write a page to look at: before and after, error bar, residual, settings. A folder gets one page.",
        ),
    ] = None
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write the page of --report again and again while the work goes on."),
    ] = False


def expand(command: Callable[..., None]) -> Callable[..., None]:
    """Replace parameters that are one of the dataclasses above by the fields of the dataclass.

    Parameters
    ----------
    command : callable
        A command; its parameters annotated with a dataclass become options.

    Returns
    -------
    callable
        With a signature that typer reads, calling ``command`` with the dataclasses filled in.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Any], list[str]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if not (isinstance(kind, type) and is_dataclass(kind)):
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(kind, include_extras=True)
        groups[name] = (kind, [field.name for field in fields(kind)])
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is MISSING else field.default,
                annotation=types[field.name],
            )
            for field in fields(kind)
        ]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        for name, (kind, members) in groups.items():
            values[name] = kind(**{member: values.pop(member) for member in members})
        try:
            command(**values)
        except typer.Exit:
            raise
        except (KeyboardInterrupt, Exception) as error:
            if interrupted_by(error):  # which typer would end without a word
                raise Interrupted("interrupted") from None
            raise

    # both, since versions of typer read one or the other
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    del wrapper.__wrapped__  # type: ignore[attr-defined]  # or get_type_hints would look through
    return wrapper
