"""Recipes: how a problem is solved, as frozen data that round-trips through TOML."""

from iasolve.recipe.groups import Closing, Guess, Passes, Steps
from iasolve.recipe.recipe import Recipe, list_recipes, load_recipe, recipe_text
from iasolve.recipe.values import RecipeError

__all__ = [
    "Closing",
    "Guess",
    "Passes",
    "Recipe",
    "RecipeError",
    "Steps",
    "list_recipes",
    "load_recipe",
    "recipe_text",
]
