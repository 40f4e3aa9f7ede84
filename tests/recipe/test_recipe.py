"""Recipes: the ready ones, round trips, and refusals by name."""

import math
import string
import tomllib
from dataclasses import FrozenInstanceError, fields
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iasolve import Recipe, RecipeError, list_recipes, load_recipe
from iasolve.recipe import Closing, Guess, Passes, Steps, recipe_text

SCALES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
GROUPS = {"guess": Guess, "passes": Passes, "steps": Steps, "closing": Closing}
KEYS = [f.name for f in fields(Recipe)]
INNER = [(group, f.name) for group, kind in GROUPS.items() for f in fields(kind)]

scale = st.sampled_from(SCALES)
positive = st.floats(0, 1e6, allow_nan=False)
count = st.one_of(st.integers(0, 10**6), st.dictionaries(scale, st.integers(0, 500)))
beta = st.one_of(positive, st.dictionaries(scale, positive))
# quasi-Newton steps need an objective without draws
walks = st.one_of(
    st.tuples(st.sampled_from(["variational", "map", "expected"]), st.sampled_from(["adam", "gradient"])),
    st.tuples(st.sampled_from(["map", "expected"]), st.just("lbfgs")),
)
# offsets move all later latents
moves = st.one_of(
    st.tuples(st.just("latents"), st.sampled_from(["whole", "scale", "latent"])), st.just(("offsets", "whole"))
)


@st.composite
def recipes(draw):
    objective, optimizer = draw(walks)
    variables, blocks = draw(moves)
    steps = st.builds(
        partial(Steps, objective=objective, optimizer=optimizer, variables=variables, blocks=blocks),
        count=count,
        beta=beta,
        size=st.floats(1e-300, 1e6),
        views=st.integers(0, 30),
    )
    return draw(
        st.builds(
            Recipe,
            name=st.text(min_size=1, max_size=20),
            views=st.integers(1, 25),
            samples=st.integers(0, 10**6),
            guess=st.builds(Guess, stop=st.one_of(st.sampled_from(["all", "auto"]), scale)),
            passes=st.builds(Passes, count=st.integers(0, 100), end=st.floats(1e-300, 1e6)),
            steps=steps,
            closing=st.builds(Closing, error=st.sampled_from(["local", "stationary", "none"])),
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
    assert set(list_recipes()) == {"denoise", "deblur", "compressed-sensing", "fast"}
    fast = load_recipe("fast")
    assert [fast.steps.at(s) for s in SCALES] == [0] * len(SCALES)
    assert not fast.takes_steps


def test_a_recipe_of_nothing_is_denoise():
    assert Recipe() == load_recipe("denoise")
    assert Recipe(views=2).name == "custom"
    assert Recipe().changed(views=2).name == "denoise"


def test_there_are_at_most_fifteen_keys():
    assert len([key for key in KEYS if key not in GROUPS]) + len(INNER) <= 15


@settings(deadline=None, database=None, max_examples=40)
@given(recipes())
@pytest.mark.slow
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


@settings(deadline=None, database=None, max_examples=40)
@given(st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), plain, max_size=4))
def test_arbitrary_dictionaries_are_recipes_or_refused_as_such(data):
    try:
        recipe = Recipe.from_dict(data)
    except RecipeError:
        return
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@settings(deadline=None, database=None, max_examples=40)
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


@settings(deadline=None, database=None, max_examples=40)
@given(st.sampled_from(INNER), plain)
def test_arbitrary_values_of_a_groups_key_are_accepted_or_refused_by_its_name(key, value):
    group, name = key
    try:
        recipe = Recipe.from_dict({group: {name: value}})
    except RecipeError as error:
        refusal = str(error)
    else:
        refusal = f"{group}.{name}"
        assert Recipe.from_toml(recipe.to_toml()) == recipe
    assert f"{group}.{name}" in refusal


@settings(deadline=None, database=None, max_examples=40)
@given(st.one_of(st.text(), st.text(alphabet=string.printable), st.sampled_from(KEYS).map(lambda k: f"{k} = ")))
def test_arbitrary_text_is_a_recipe_or_refused_as_such(text):
    try:
        recipe = Recipe.from_toml(text)
    except RecipeError:
        return
    assert isinstance(recipe, Recipe)


@settings(deadline=None, database=None, max_examples=40)
@given(st.sampled_from(KEYS), st.text(alphabet="0123456789.eE+-_\"'[]{}=x #\n", max_size=24))
def test_almost_recipes_are_recipes_or_refused_as_such(key, text):
    try:
        Recipe.from_toml(f"{key} = {text}")
    except RecipeError:
        return


@pytest.mark.parametrize("group_key", INNER)
def test_a_number_no_float_can_hold_is_refused(group_key):
    """TOML integers have no bound; 10**400 is larger than any float, though smaller than infinity."""
    group, key = group_key
    text = f"[{group}]\n{key} = 1{'0' * 400}"
    with pytest.raises(RecipeError, match=rf"{group}\.{key}"):
        Recipe.from_toml(text)


@pytest.mark.parametrize("text", ["samples = {}", "[passes]\ncount = {}", "[steps]\ncount = {{8 = {}}}"])
def test_a_count_that_would_fill_the_memory_is_refused(text):
    Recipe.from_toml(text.format(10**6))
    with pytest.raises(RecipeError, match="must be at most 1000000, got 1000001"):
        Recipe.from_toml(text.format(10**6 + 1))


@pytest.mark.parametrize("text", ["steps = 1" + "0" * 5000, "steps = " + "[" * 100_000])
def test_hostile_text_is_refused(text):
    with pytest.raises(RecipeError):
        Recipe.from_toml(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"stepps": 3}, ("stepps", "steps")),
        ({"a": 1, "b": 2}, ("a, b",)),
        ({"steps": {"counts": 3}}, ("steps.counts", "steps.count")),
        ({"steps": "25"}, ("steps", "table", "'25'")),
        ({"steps": {"objective": None}}, ("steps.objective", "None")),
        ({"steps": {"blocks": ["scale"]}}, ("steps.blocks",)),
        ({"steps": {"blocks": "joint"}}, ("steps.blocks", "whole, scale, latent", "'joint'")),
        ({"steps": {"count": -1}}, ("steps.count", "-1")),
        ({"steps": {"count": 2.5}}, ("steps.count", "2.5")),
        ({"steps": {"count": True}}, ("steps.count", "True")),
        ({"steps": {"count": "25"}}, ("steps.count", "'25'")),
        ({"steps": {"count": {"3": 5}}}, ("steps.count", "'3'")),
        ({"steps": {"count": {"8": 1.5}}}, ("steps.count.8", "1.5")),
        ({"steps": {"beta": {"8": -1}}}, ("steps.beta.8", "-1")),
        ({"steps": {"beta": math.nan}}, ("steps.beta", "nan")),
        ({"steps": {"beta": math.inf}}, ("steps.beta", "inf")),
        ({"steps": {"size": 0}}, ("steps.size", "positive")),
        ({"steps": {"size": math.inf}}, ("steps.size", "inf")),
        ({"passes": {"end": -0.5}}, ("passes.end", "-0.5")),
        ({"guess": {"stop": "some"}}, ("guess.stop", "'some'")),
        ({"guess": {"stop": 12}}, ("guess.stop", "12")),
        ({"guess": {"stop": True}}, ("guess.stop", "True")),
        ({"guess": {"stop": "none"}, "passes": {"count": 3}}, ("guess.stop", "passes.count", "encoder")),
        ({"samples": -1}, ("samples", "-1")),
        ({"samples": 1.0}, ("samples", "1.0")),
        ({"closing": {"error": 1}}, ("closing.error", "local, stationary, none")),
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
    recipe = Recipe.from_toml("[steps]\nbeta = 2\n[steps.count]\n8 = 10\n16 = 25\n1 = 3.0\n")
    assert recipe.steps.count == {1: 3, 8: 10, 16: 25}
    assert [recipe.steps.at(s) for s in (1, 2, 4, 8, 16, 32)] == [3, 0, 0, 10, 25, 0]
    assert recipe.steps.most == 25
    assert recipe.steps.beta_at(4) == 2.0
    weighted = Recipe(steps={"beta": {4: 0.5}}).steps
    assert [weighted.beta_at(s) for s in (2, 4, 8)] == [1.0, 0.5, 1.0]
    assert recipe.to_dict()["steps"]["count"] == {"1": 3, "8": 10, "16": 25}
    assert not Recipe(steps={"count": {}}).takes_steps
    assert not Recipe(steps={"count": {8: 0}}).takes_steps


def test_scales_that_a_prior_does_not_have_are_refused():
    scales = (1, 2, 4, 8)
    Recipe(steps={"count": {8: 1}, "beta": {1: 0.0}}, guess={"stop": 4}).check_scales(scales)
    for changes, key in (
        ({"steps": {"count": {16: 1}}}, "steps.count"),
        ({"steps": {"beta": {16: 1.0}}}, "steps.beta"),
        ({"guess": {"stop": 16}}, "guess.stop"),
    ):
        with pytest.raises(RecipeError, match=rf"'{key}' names scale 16.*\(1, 2, 4, 8\)"):
            Recipe(**changes).check_scales(scales)


def test_recipes_are_frozen_and_changes_are_checked():
    recipe = Recipe()
    with pytest.raises(FrozenInstanceError):
        recipe.views = 3
    with pytest.raises(FrozenInstanceError):
        recipe.steps.count = 3
    changed = recipe.changed(steps={"count": 5})
    assert changed.steps == Steps(count=5)
    assert changed.changed(steps=Steps()) == recipe
    with pytest.raises(RecipeError, match=r"steps\.size"):
        recipe.changed(steps={"size": -1})
    with pytest.raises(RecipeError, match="stepps"):
        recipe.changed(stepps={"count": 1})


OLD = """
name = "mine"
mode = "hybrid"
guess_stop = 32
passes = 4
coupling_end = 0.1
schedule = "joint"
step_size = 0.02
residual = "local"
temperature = 0.5
nonnegative = false
beta = 0.5
[steps]
8 = 10
"""


def test_a_recipe_of_the_old_form_is_refused_with_its_new_form():
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(OLD)
    text = str(caught.value)
    new = Recipe.from_toml(text[text.index("name = ") : text.index("Keys that are gone")])
    assert new == Recipe(
        name="mine",
        views=1,
        guess={"stop": 32},
        passes={"count": 4, "end": 0.1},
        steps={
            "count": {8: 10},
            "beta": 0.5,
            "variables": "latents",
            "objective": "variational",
            "optimizer": "adam",
            "size": 0.02,
            "blocks": "scale",
            "views": 0,
        },
    )
    assert "temperature" in text
    assert "nonnegative=False" in text
    assert "momentum" not in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('mode = "amortized"', {"steps": {"count": 0}}),
        ('mode = "iterative"\nsteps = 5', {"guess": {"stop": "none"}, "steps": {"count": 5}}),
        ("closing = false", {"closing": {"error": "none"}}),
        ("steps = 7", {"steps": {"count": 7}}),
        ('schedule = "sequential"', {"steps": {"blocks": "latent"}}),
    ],
)
def test_every_old_choice_has_its_new_one(old, new):
    with pytest.raises(RecipeError, match="new form") as caught:
        Recipe.from_toml(old)
    text = str(caught.value)
    found = Recipe.from_toml(text[text.index("name = ") :])
    for group, values in new.items():
        for key, value in values.items():
            assert getattr(getattr(found, group), key) == value


def test_files(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(Recipe(name="own", steps={"count": {8: 2}}).to_toml(), encoding="utf-8")
    assert load_recipe(path) == load_recipe(str(path)) == Recipe(name="own", steps={"count": {8: 2}})
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


def test_a_name_that_no_file_can_have_is_refused_in_words():
    with pytest.raises(RecipeError, match="cannot be read: embedded null byte"):
        load_recipe("a\0b.toml")
