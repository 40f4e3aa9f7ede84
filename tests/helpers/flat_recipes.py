"""Recipes of many kinds of steps, from one flat list of keys."""

from iasolve import Recipe

STEPS = {
    "steps": "count",
    "beta": "beta",
    "variables": "variables",
    "objective": "objective",
    "optimizer": "optimizer",
    "size": "size",
    "blocks": "blocks",
    "refined_views": "views",
}
ADAM = {"steps": 25, "variables": "latents", "objective": "variational", "optimizer": "adam", "size": 0.03}


def recipe_of(stop="all", passes=0, end=0.05, error="stationary", views=1, samples=0, name=None, **steps):
    """Where nothing else is said: Adam's steps of the posterior's means, scale by scale, and a stationary error."""
    keys = ADAM | {"blocks": "scale", "refined_views": 0} | steps
    return Recipe(
        name=name,
        views=views,
        samples=samples,
        guess={"stop": stop},
        passes={"count": passes, "end": end},
        steps={STEPS[key]: value for key, value in keys.items()},
        closing={"error": error},
    )
