"""``iasolve recipe list|show``."""

from __future__ import annotations

from typing import Annotated

import typer

from iasolve.cli.help import Group, add_command
from iasolve.cli.options import Printing

__all__ = ["app", "list_", "show"]

app = typer.Typer(
    cls=Group, help="Ready recipes: how a problem is solved.", epilog="iasolve recipe list\niasolve recipe show denoise"
)


def list_(printing: Printing) -> None:
    """List the recipes that come with iasolve.

    Examples
    --------
    iasolve recipe list
    """
    from iasolve.cli.reporter import Reporter
    from iasolve.recipe import list_recipes, load_recipe, recipe_text

    reporter = Reporter(printing)
    rows = [["recipe", "views", "passes", "steps", "when to use it"]]
    reports = []
    for name in list_recipes():
        recipe = load_recipe(name)
        about = [line.lstrip("# ") for line in recipe_text(name).splitlines() if line.startswith("#")]
        counts = [str(n) for n in (recipe.views, recipe.passes.count, recipe.steps.count)]
        rows.append([name, *counts, about[0] if about else ""])
        reports.append({**recipe.to_dict(), "about": " ".join(about)})
    reporter.table(rows, text=(0, 4))
    reporter.result({"recipes": reports})


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A ready recipe, or a .toml file.")], printing: Printing
) -> None:
    """Print a recipe with its comments: a start for one's own.

    Examples
    --------
    iasolve recipe show denoise > mine.toml
    """
    from iasolve.cli.reporter import Reporter
    from iasolve.files import read_text
    from iasolve.recipe import load_recipe, recipe_text

    reporter = Reporter(printing)
    recipe = load_recipe(name)
    text = read_text(name) if name.endswith(".toml") else recipe_text(name)
    reporter.say(text.rstrip())
    reporter.result(recipe.to_dict())


add_command(app, "list", list_)
add_command(app, "show", show)
