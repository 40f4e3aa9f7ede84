"""What solve is asked for and gives: options, the recipe for an operator, what a callback sees, arrays of a kind."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from flat_recipes import recipe_of
from tiny import images, tiny_prior

import iasolve
from iasolve import HVAEPrior, Recipe, solve
from iasolve.inference import Options, SolveOptions, Status
from iasolve.inference.result import as_numpy, join
from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, PixelMask, gaussian_kernel, line_mask
from iasolve.reconstruction import ReconstructOptions

SHAPE = (1, 32, 32)
NOISE = GaussianNoise(0.1)


def measured(count=2, operator=None):
    operator = operator or Identity(SHAPE)
    return NOISE.sample(operator(images(count)), torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------- options


def test_the_options_that_are_typed_are_those_that_there_are():
    assert list(SolveOptions.__annotations__) == [f.name for f in fields(Options)]
    assert set(SolveOptions.__annotations__) < set(ReconstructOptions.__annotations__)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fit": "stretch"}, "'stretch'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"batch_size": 0}, "batch_size"),
        ({"iterations": 0}, "iterations"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_impossible_options_are_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        solve(measured(), Identity(SHAPE), tiny_prior(), noise=NOISE, **changes)


def test_options_that_there_are_not_are_refused():
    with pytest.raises(TypeError, match="seeds"):
        solve(measured(), Identity(SHAPE), tiny_prior(), noise=NOISE, seeds=3)
    with pytest.raises(TypeError, match="coil"):
        iasolve.reconstruct(measured().to(torch.complex64), tiny_prior(), coil=3)


def test_samples_may_be_asked_for_beside_the_recipe():
    how = {"noise": NOISE, "recipe": recipe_of(steps=0), "warn": False}
    assert solve(measured(), Identity(SHAPE), tiny_prior(), samples=3, **how).samples.shape == (3, 2, *SHAPE)
    assert solve(measured(), Identity(SHAPE), tiny_prior(), **how).samples is None


# ------------------------------------------------------------------------------------------- the recipe for an operator


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (Identity(SHAPE), "denoise"),
        (CircularBlur(gaussian_kernel(1.0), SHAPE), "deblur"),
        (KSpaceMask(line_mask((32, 32), 3, 0.1, seed=0), SHAPE), "compressed-sensing"),
        (PixelMask(torch.arange(32) % 3 > 0, SHAPE), "compressed-sensing"),
    ],
)
def test_every_operator_has_a_recipe(operator, name):
    assert Recipe.for_operator(operator).name == name


def test_without_a_recipe_the_one_for_the_operator_is_taken():
    operator = CircularBlur(gaussian_kernel(1.0), SHAPE)
    y, how = measured(1, operator), {"noise": NOISE, "warn": False}
    chosen = solve(y, operator, tiny_prior(), **how)
    asked = solve(y, operator, tiny_prior(), recipe="deblur", **how)
    assert chosen.recipe == asked.recipe == iasolve.load_recipe("deblur")
    assert torch.equal(chosen.image, asked.image)
    assert "deblur" in chosen.chosen
    assert "CircularBlur" in chosen.chosen
    assert asked.chosen == ""


# ------------------------------------------------------------------------------------------- callback


def test_a_callback_sees_every_stage():
    prior = HVAEPrior(tiny_prior().network, "moved", {"shift": 2.0})
    seen = []
    recipe = recipe_of(passes=2, steps=3, views=2, samples=2, objective="map")
    solve(
        measured(3), Identity(SHAPE), prior, noise=NOISE, recipe=recipe, batch_size=2, warn=False, callback=seen.append
    )
    assert all(isinstance(status, Status) for status in seen)
    stages = [stage for stage, _ in itertools.groupby(status.stage for status in seen)]
    view = ["guess", "pass", "step", "closing"]
    assert stages == 2 * [*view, "sample", *view, "done"]
    batches = [[s for s in seen if s.image == image] for image in (0, 2)]
    assert [s.image for s in seen if s.stage == "done"] == [2, 3]
    assert {s.images for s in seen} == {3}
    steps = [s for s in batches[0] if s.stage == "step"]
    # two views, six scales one after the other, three steps each
    assert [s.step for s in steps] == 2 * 6 * [1, 2, 3]
    assert {s.steps for s in steps} == {3}
    for status, count in ((steps[0], 2), ([s for s in seen if s.stage == "step"][-1], 1)):
        assert status.objective.shape == (count,)
        assert not status.objective.requires_grad
    assert [s.step for s in seen if s.stage == "sample"] == [1, 2, 1, 2]
    seconds = [s.seconds for s in seen]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0


def test_what_a_callback_sees_of_quasi_newton_steps_is_the_objective():
    """The value before the first step is that of the guess, and the report ends at or below the lowest seen."""
    seen = []
    recipe = recipe_of(steps=5, objective="map", optimizer="lbfgs", size=0.1, blocks="whole")
    found = solve(
        measured(1), Identity(SHAPE), tiny_prior(), noise=NOISE, recipe=recipe, warn=False, callback=seen.append
    )
    values = [float(s.objective) for s in seen if s.stage == "step"]
    before, after = (float(sum(row[key] for row in found.scales)) for key in ("before", "after"))
    assert values[0] == pytest.approx(before, rel=1e-5)
    assert after <= min(values) + 1e-4 * abs(before)


def test_an_error_of_a_callback_ends_the_solution():
    def stop(status):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(measured(1), Identity(SHAPE), tiny_prior(), noise=NOISE, recipe="fast", callback=stop, warn=False)


# ------------------------------------------------------------------------------------------- results


def arrays(value):
    if isinstance(value, (torch.Tensor, np.ndarray)):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays(item)
    elif isinstance(value, list):
        for item in value:
            yield from arrays(item)


@pytest.mark.parametrize("general", [False, True])
def test_numpy_gives_numpy_and_torch_gives_torch(general):
    how = {"noise": NOISE, "recipe": recipe_of(steps=1, samples=1), "warn": False, "force_general": general}
    y = measured()
    ours = solve(y, Identity(SHAPE), tiny_prior(), **how)
    theirs = solve(y.numpy(), Identity(SHAPE), tiny_prior(), **how)
    for field in fields(ours):
        mine, other = (list(arrays(getattr(result, field.name))) for result in (ours, theirs))
        assert len(mine) == len(other)
        for a, b in zip(mine, other, strict=True):
            assert isinstance(a, torch.Tensor)
            assert isinstance(b, np.ndarray)
            np.testing.assert_array_equal(a.numpy(), b)
    assert (ours.solver is None) == (not general)


def test_joined_results_are_those_of_one_batch():
    how = {"noise": NOISE, "recipe": recipe_of(steps=1, samples=2), "warn": False, "force_general": True}
    y = measured(3)
    parts = [solve(y[some], Identity(SHAPE), tiny_prior(), **how) for some in (slice(0, 1), slice(1, 3))]
    whole = join(parts, (3,), torch.device("cpu"))
    for name in ("image", "std", "sigma", "gain", "improved", "likeness", "distance"):
        found = getattr(whole, name)
        assert len(found) == 3
        expected = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert whole.samples.shape == (2, 3, *SHAPE)
    assert torch.equal(whole.samples[:, 1:], parts[1].samples)
    assert [row["scale"] for row in whole.scales] == [1, 2, 4, 8, 16, 32]
    assert all(len(row["misfit"]) == 3 for row in whole.scales)
    assert len(whole.solver["applications"]) == 3
    assert whole.seconds == pytest.approx(sum(part.seconds for part in parts))
    assert isinstance(as_numpy(replace(whole, std=None)).image, np.ndarray)


def test_a_notebook_shows_a_result():
    result = solve(measured(1), Identity(SHAPE), tiny_prior(), noise=NOISE, warn=False)
    page = result._repr_html_()
    assert "data:image/png;base64," in page
    assert "denoise" in page
