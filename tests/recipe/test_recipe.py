"""Recipes: the ready ones, round trips, and refusals by name."""

import math
import string
import tomllib
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import images, tiny_prior

from iasolve import Recipe, RecipeError, list_recipes, load_recipe, solve
from iasolve.operators import GaussianNoise, Identity
from iasolve.recipe import recipe_text

SCALES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
KEYS = [f.name for f in fields(Recipe)]

scale = st.sampled_from(SCALES)
positive = st.floats(0, 1e6, allow_nan=False)
steps = st.one_of(st.integers(0, 10**6), st.dictionaries(scale, st.integers(0, 500)))
beta = st.one_of(positive, st.dictionaries(scale, positive))
# quasi-Newton steps need an objective without draws
walks = st.one_of(
    st.tuples(st.sampled_from(["variational", "map", "expected"]), st.sampled_from(["adam", "gradient"])),
    st.tuples(st.sampled_from(["map", "expected"]), st.just("lbfgs")),
)


@st.composite
def recipes(draw):
    objective, optimizer = draw(walks)
    return draw(
        st.builds(
            partial(Recipe, objective=objective, optimizer=optimizer),
            name=st.text(min_size=1, max_size=20),
            mode=st.sampled_from(["hybrid", "amortized", "iterative"]),
            guess_stop=st.one_of(st.sampled_from(["all", "auto"]), scale),
            steps=steps,
            beta=beta,
            schedule=st.sampled_from(["joint", "sequential", "whole"]),
            step_size=st.floats(1e-300, 1e6),
            metric=st.sampled_from(["posterior", "raw"]),
            loss=st.sampled_from(["likelihood", "l1"]),
            temperature=positive,
            trust=positive,
            closing=st.booleans(),
            samples=st.integers(0, 10**6),
            iterations=st.integers(1, 10**6),
        )
    )


@pytest.mark.parametrize("name", list_recipes())
def test_ready_recipes_load_and_round_trip(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_toml(recipe_text(name)) == recipe
    assert recipe_text(name).startswith("#"), "a ready recipe says when to use it"
    recipe.check_scales((1, 2, 4, 8, 16, 32, 64, 128))


def test_the_ready_recipes_are_there():
    assert {"denoise", "deblur", "compressed-sensing", "fast", "paper"} <= set(list_recipes())
    paper = load_recipe("paper")
    assert (paper.schedule, paper.loss, paper.step_size, paper.beta, paper.steps) == (
        "sequential",
        "l1",
        0.001,
        1.0,
        25,
    )
    assert (paper.metric, paper.optimizer, paper.objective) == ("raw", "gradient", "map")
    fast = load_recipe("fast")
    assert [fast.steps_at(s) for s in SCALES] == [0] * len(SCALES)


@settings(deadline=None, database=None)
@given(recipes())
def test_recipes_round_trip(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe
    assert recipe.changed() == recipe
    assert load_recipe(recipe) is recipe


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@settings(deadline=None, database=None)
@given(st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), plain, max_size=4))
def test_arbitrary_dictionaries_are_recipes_or_refused_as_such(data):
    try:
        recipe = Recipe.from_dict(data)
    except RecipeError:
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@settings(deadline=None, database=None)
@given(st.sampled_from(KEYS), plain)
def test_arbitrary_values_of_one_key_are_accepted_or_refused_by_its_name(key, value):
    try:
        recipe = Recipe.from_dict({key: value})
    except RecipeError as error:
        refusal = str(error)
    else:
        refusal = key
        assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert key in refusal


@settings(deadline=None, database=None)
@given(st.one_of(st.text(), st.text(alphabet=string.printable), st.sampled_from(KEYS).map(lambda k: f"{k} = ")))
def test_arbitrary_text_is_a_recipe_or_refused_as_such(text):
    try:
        recipe = Recipe.from_toml(text)
    except RecipeError:
        return
    assert isinstance(recipe, Recipe)


@settings(deadline=None, database=None)
@given(st.sampled_from(KEYS), st.text(alphabet="0123456789.eE+-_\"'[]{}=x #\n", max_size=24))
def test_almost_recipes_are_recipes_or_refused_as_such(key, text):
    try:
        Recipe.from_toml(f"{key} = {text}")
    except RecipeError:
        return


@pytest.mark.parametrize(
    "key", ["step_size", "temperature", "trust", "beta", "steps", "samples", "iterations", "guess_stop"]
)
def test_a_number_no_float_can_hold_is_refused(key):
    """TOML integers have no bound; 10**400 is larger than any float, though smaller than infinity."""
    text = f"{key} = 1{'0' * 400}"
    if key in ("steps", "samples", "iterations"):
        # whole numbers of any size are numbers, but whoever takes one must not fall over it
        with suppress(RecipeError):
            assert getattr(Recipe.from_toml(text), key) == 10**400
    else:
        with pytest.raises(RecipeError, match=key):
            Recipe.from_toml(text)


@pytest.mark.parametrize("text", ["steps = 1" + "0" * 5000, "steps = " + "[" * 100_000])
def test_hostile_text_is_refused(text):
    with pytest.raises(RecipeError):
        Recipe.from_toml(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"stepps": 3}, ("stepps", "steps")),
        ({"a": 1, "b": 2}, ("a, b",)),
        ({"mode": "fast"}, ("mode", "hybrid, amortized, iterative", "'fast'")),
        ({"objective": None}, ("objective", "None")),
        ({"schedule": ["joint"]}, ("schedule",)),
        ({"steps": -1}, ("steps", "-1")),
        ({"steps": 2.5}, ("steps", "2.5")),
        ({"steps": True}, ("steps", "True")),
        ({"steps": "25"}, ("steps", "'25'")),
        ({"steps": {"3": 5}}, ("steps", "'3'")),
        ({"steps": {"8": 1.5}}, ("steps.8", "1.5")),
        ({"beta": {"8": -1}}, ("beta.8", "-1")),
        ({"beta": math.nan}, ("beta", "nan")),
        ({"beta": math.inf}, ("beta", "inf")),
        ({"step_size": 0}, ("step_size", "positive")),
        ({"step_size": math.inf}, ("step_size", "inf")),
        ({"temperature": -0.5}, ("temperature", "-0.5")),
        ({"trust": "far"}, ("trust", "'far'")),
        ({"guess_stop": "some"}, ("guess_stop", "'some'")),
        ({"guess_stop": 12}, ("guess_stop", "12")),
        ({"guess_stop": True}, ("guess_stop", "True")),
        ({"samples": -1}, ("samples", "-1")),
        ({"samples": 1.0}, ("samples", "1.0")),
        ({"iterations": 0}, ("iterations", "at least 1")),
        ({"closing": 1}, ("closing", "true or false")),
        ({"name": ""}, ("name",)),
        ({"name": 5}, ("name", "5")),
    ],
)
def test_unknown_keys_and_impossible_values_are_refused_by_name(data, words):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(data)
    for word in words:
        assert word in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_tables_per_scale():
    recipe = Recipe.from_toml("beta = 2\n[steps]\n8 = 10\n16 = 25\n1 = 3.0\n")
    assert recipe.steps == {1: 3, 8: 10, 16: 25}
    assert [recipe.steps_at(s) for s in (1, 2, 4, 8, 16, 32)] == [3, 0, 0, 10, 25, 0]
    assert recipe.beta_at(4) == 2.0
    weighted = Recipe(beta={4: 0.5})
    assert [weighted.beta_at(s) for s in (2, 4, 8)] == [1.0, 0.5, 1.0]
    assert recipe.changed(mode="amortized").steps_at(8) == 0
    assert recipe.to_dict()["steps"] == {"1": 3, "8": 10, "16": 25}


def test_scales_that_a_prior_does_not_have_are_refused():
    scales = (1, 2, 4, 8)
    Recipe(steps={8: 1}, beta={1: 0.0}, guess_stop=4).check_scales(scales)
    for changes, key in (
        ({"steps": {16: 1}}, "steps"),
        ({"beta": {16: 1.0}}, "beta"),
        ({"guess_stop": 16}, "guess_stop"),
    ):
        with pytest.raises(RecipeError, match=rf"'{key}' names scale 16.*\(1, 2, 4, 8\)"):
            Recipe(**changes).check_scales(scales)


def test_recipes_are_frozen_and_changes_are_checked():
    recipe = Recipe()
    with pytest.raises(FrozenInstanceError):
        recipe.steps = 3
    assert recipe.changed(steps=3).steps == 3
    with pytest.raises(RecipeError, match="step_size"):
        recipe.changed(step_size=-1)


def test_files(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(Recipe(name="own", steps={8: 2}).to_toml(), encoding="utf-8")
    assert load_recipe(path) == load_recipe(str(path)) == Recipe(name="own", steps={8: 2})
    path.write_text("steps = ]", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"own\.toml: .*not valid TOML"):
        load_recipe(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(path)
    for wrong in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(wrong)
    with pytest.raises(RecipeError, match=r"no recipe 'nothing'.*denoise"):
        load_recipe("nothing")


def test_rings_are_not_compared_where_there_are_none():
    """Silently taking the likelihood instead would be no answer to who asks for the paper's loss."""
    prior, recipe = tiny_prior(), Recipe(loss="l1", steps=1)
    general = {"noise": GaussianNoise(0.1), "force_general": True, "warn": False}
    y = images(1)
    with pytest.raises(RecipeError, match=r"'l1'.*diagonal.*'likelihood'"):
        solve(y, Identity((1, 32, 32)), prior, recipe=recipe, **general)
    assert solve(y, Identity((1, 32, 32)), prior, recipe=recipe.changed(steps=0), **general).image.shape == y.shape
