"""Objectives and optimizers of one's own: registered in one place, and then names that a recipe takes."""

import subprocess
import sys

import pytest
import torch
from tiny import images, relative, tiny_prior

from iasolve import Recipe, RecipeError, solve
from iasolve.inference import OBJECTIVES, OPTIMIZERS, Cost, GradientDescent
from iasolve.operators import GaussianNoise, Identity

DOUBLE = torch.float64
A = Identity((1, 32, 32), DOUBLE)


def solved(**steps):
    steps = {"objective": "map", "optimizer": "gradient", "count": 4} | steps
    return solve(images(1, dtype=DOUBLE), A, tiny_prior(DOUBLE), noise=GaussianNoise(0.3), recipe=Recipe(steps=steps))


def test_a_registered_optimizer_is_one_that_recipes_take(monkeypatch):
    class Uphill(GradientDescent):
        def direction(self, gradient):
            return -gradient

    with pytest.raises(RecipeError, match=r"'steps.optimizer' must be one of adam, gradient, lbfgs; got 'uphill'"):
        Recipe(steps={"optimizer": "uphill"})
    monkeypatch.setitem(OPTIMIZERS, "uphill", Uphill)
    assert not solved(optimizer="uphill").improved.any()
    assert solved().improved.all()


def test_a_registered_objective_is_one_that_recipes_take(monkeypatch):
    with pytest.raises(RecipeError, match=r"'steps.objective' must be one of expected, map, variational; got 'twice'"):
        Recipe(steps={"objective": "twice"})
    once = OBJECTIVES["map"]
    monkeypatch.setitem(OBJECTIVES, "twice", Cost(lambda q, p: 2 * once.of(q, p)))
    monkeypatch.setitem(OBJECTIVES, "once", Cost(once.of))
    assert torch.equal(solved(objective="once").image, solved().image)
    assert relative(solved(objective="twice").image, solved().image) > 1e-6


def test_ready_recipes_need_no_look_at_the_tables():
    """Their names are checked without torch, which the tables' modules import; that of a new entry may import it."""
    code = (
        "import sys, iasolve\n"
        "for name in iasolve.list_recipes(): iasolve.load_recipe(name)\n"
        "iasolve.Recipe(steps={'objective': 'variational', 'optimizer': 'adam'})\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
