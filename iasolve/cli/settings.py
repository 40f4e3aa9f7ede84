"""What the user asked for, checked and in plain types; nothing here needs torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from iasolve.cli.errors import UsageError
from iasolve.cli.options import Running, Solving, Spreading
from iasolve.recipe import Recipe, load_recipe

__all__ = ["AUTO", "Settings", "parse_sigma", "resolve"]

AUTO = "auto"

_SAMPLES_FOR_ERROR_BARS = 8


@dataclass(frozen=True)
class Settings:
    """A solving run.

    Attributes
    ----------
    sigma, offset : float or None
        None: to be estimated.
    noise : str
        Its kind: see :func:`iasolve.noise_level.estimate_noise`.
    recipe : Recipe
        With the command line's changes.
    prior : str
        Name or path; ``"auto"``: the one that the measurement speaks for.
    among : tuple of str
        Names of the priors that it was chosen from; none where it was named.
    own_recipe : bool
        Whether the recipe, or its steps, were asked for; else they are the command's.
    tile, overlap : int or None
        None: the prior's size, a quarter of it.
    fit, device : str
    seed : int
    batch_size : int or None
        Tiles at a time; None: as many as the memory allows, up to 8 (128 on a GPU).
    memory : str or None
        The budget; None: half of what is free, at most 1.5 GB.
    """

    sigma: float | None
    offset: float | None
    noise: str
    recipe: Recipe
    prior: str
    seed: int
    fit: str
    tile: int | None
    overlap: int | None
    device: str
    batch_size: int | None
    memory: str | None = None
    among: tuple[str, ...] = ()
    own_recipe: bool = False


def parse_sigma(text: str, option: str = "--sigma") -> float | None:
    """Noise level, or None for ``auto``.

    Raises
    ------
    UsageError
        When it is neither.
    """
    if text.strip().lower() == "auto":
        return None
    value = _number(text)
    if value is None or value < 0:
        raise UsageError(f"{option} {text}: expected a number of at least 0, in the file's units, or auto")
    return value


def _parse_offset(text: str) -> float | None:
    if text.strip().lower() == "auto":
        return None
    value = _number(text)
    if value is None:
        raise UsageError(f"--offset {text}: expected a number in the file's units, or auto")
    return value


def resolve(solving: Solving, running: Running, recipe: str, spreading: Spreading | None = None) -> Settings:
    """Check the shared options of a solving command.

    Parameters
    ----------
    solving, running : Solving, Running
        As given.
    recipe : str
        The command's own recipe, for when none is asked for.
    spreading : Spreading, optional
        Who does the work: workers of this machine share its memory.

    Raises
    ------
    UsageError, RecipeError
        For values that cannot be.
    """
    if solving.fit not in ("auto", "canvas", "field-of-view"):
        raise UsageError(f"--fit {solving.fit}: expected auto, canvas or field-of-view")
    if solving.noise not in ("auto", "gaussian", "spectral", "rician"):
        raise UsageError(f"--noise {solving.noise}: expected auto, gaussian, spectral or rician")
    if solving.noise == "spectral" and parse_sigma(solving.sigma) is not None:
        raise UsageError(f"--noise spectral: the levels are estimated; leave out --sigma {solving.sigma}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", running.device):
        raise UsageError(f"--device {running.device}: expected auto, cpu or cuda")
    if running.memory is not None:
        from iasolve.files.memory import parse_memory

        try:
            parse_memory(running.memory)
        except ValueError as error:
            raise UsageError(f"--memory {running.memory}: {error}") from None
    tile = None
    if solving.tile != "auto":
        if not solving.tile.isdecimal():
            raise UsageError(f"--tile {solving.tile}: expected auto or the prior's size in pixels")
        tile = int(solving.tile)
    return Settings(
        sigma=parse_sigma(solving.sigma),
        offset=_parse_offset(solving.offset),
        noise=solving.noise,
        recipe=_recipe(solving, recipe),
        prior=solving.prior,
        seed=solving.seed,
        fit=solving.fit,
        tile=tile,
        overlap=solving.overlap,
        device=running.device,
        batch_size=running.batch_size,
        memory=running.memory if spreading is None else _of_each(running.memory, spreading),
        own_recipe=solving.recipe is not None or solving.steps is not None,
    )


def _of_each(memory: str | None, spreading: Spreading) -> str | None:
    """The budget of each worker, the same wherever it is: pieces are cut before they are sent."""
    if spreading.workers is not None and spreading.scheduler is not None:
        raise UsageError("--workers starts processes here, --scheduler names those that are there: give one of both")
    if memory is not None or (spreading.workers is None and spreading.scheduler is None):
        return memory
    from iasolve.files.memory import default_memory

    return str(default_memory(spreading.workers or 1))


def _recipe(solving: Solving, default: str) -> Recipe:
    recipe = load_recipe(solving.recipe or default)
    changes: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    if solving.steps is not None:
        steps["count"] = _table("--steps", solving.steps, whole=True)
        # one reading and nothing else: what recipes with views or passes leave out, this one is made to be without
        alone = recipe.views == 1 and not (recipe.passes.count or recipe.takes_steps)
        if steps["count"] and alone:
            raise UsageError(
                f"--steps {solving.steps}: recipe {recipe.name!r} is the amortized guess; choose another --recipe"
            )
    if solving.beta is not None:
        steps["beta"] = _table("--beta", solving.beta, whole=False)
        if not recipe.changed(steps=steps).takes_steps:
            raise UsageError(
                f"--beta {solving.beta}: recipe {recipe.name!r} takes no refinement steps, and beta guides nothing "
                "else; add --steps N"
            )
    if steps:
        changes["steps"] = steps
    if solving.passes is not None:
        changes["passes"] = {"count": solving.passes}
    if solving.guess_stop is not None:
        stop = solving.guess_stop.strip()
        changes["guess"] = {"stop": int(stop) if stop.isdecimal() else stop}
    if solving.samples is not None:
        if solving.samples > 0 and solving.std_out is None and solving.figure is None:
            raise UsageError(
                f"--samples {solving.samples}: samples make the error bar; say where it goes, with --std-out FILE or "
                "--figure FILE.png"
            )
        changes["samples"] = solving.samples
    if solving.std_out is not None:
        if solving.samples == 0:
            raise UsageError("--std-out needs samples: leave out --samples 0")
        if solving.samples is None and recipe.samples == 0:
            changes["samples"] = _SAMPLES_FOR_ERROR_BARS
    return recipe.changed(**changes) if changes else recipe


def _table(option: str, text: str, *, whole: bool) -> Any:
    """A number, or ``scale=number`` pairs separated by commas."""
    wanted = "a whole number" if whole else "a number"
    example = f'{option} "8=10,16=25"'

    def number(part: str) -> float | int:
        value = _number(part)
        if value is None or value < 0 or (whole and value != int(value)):
            raise UsageError(
                f"{option} {text}: {part.strip()!r} is not {wanted} of at least 0; scale by scale: {example}"
            )
        return int(value) if whole else value

    if "=" not in text:
        return number(text)
    table: dict[int, float | int] = {}
    for pair in text.split(","):
        scale, equals, value = pair.partition("=")
        if not equals or not scale.strip().isdecimal():
            raise UsageError(f"{option} {text}: {pair.strip()!r} is not scale=number, as in {example}")
        if int(scale) in table:
            raise UsageError(f"{option} {text}: scale {int(scale)} is named twice")
        table[int(scale)] = number(value)
    return table


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
