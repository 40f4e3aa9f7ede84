"""Refinement by offsets from the posteriors in the context at hand (``variables = "offsets"``)."""

import pytest
import torch
from flat_recipes import recipe_of
from test_vanilla import Setting, measure, operator, vanilla_prior
from tiny import bundled, images, relative, tiny_prior

from iasolve import Recipe, solve
from iasolve.inference.refine import Variables
from iasolve.networks import Gaussian
from iasolve.operators import GaussianNoise, Identity
from iasolve.recipe import RecipeError

DOUBLE = torch.float64
HOW = {"blocks": "whole", "objective": "expected", "optimizer": "lbfgs", "size": 0.1}
OFFSETS = HOW | {"variables": "offsets"}
DECODERS = ("separable", "vanilla")


def prior_of(decoder):
    return tiny_prior(DOUBLE) if decoder == "separable" else vanilla_prior(DOUBLE)


def random_offsets(setting, size=0.3):
    generator = torch.Generator().manual_seed(7)
    return [size * torch.randn(z.shape, generator=generator, dtype=DOUBLE) for z in setting.latents]


def by_offsets(setting, offsets):
    """The whole way down by offsets."""
    starts = [Gaussian(z, w) for z, w in zip(setting.latents, setting.log_widths, strict=True)]
    moving = Variables(starts, offsets, [None] * len(starts))
    return setting.objective().evaluate(moving.chooser(offsets, 0))


@pytest.mark.parametrize("stop", ["all", "none"])
@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_the_means_that_offsets_stand_for_have_the_same_objective(decoder, stop):
    setting = Setting(recipe_of(stop=stop, **OFFSETS), prior=prior_of(decoder))
    offsets = random_offsets(setting)
    moved = by_offsets(setting, offsets)
    _, found = setting.value(setting.rest(0), moved.latents)
    torch.testing.assert_close(torch.stack(moved.costs), torch.stack(found.costs))
    for a, b in zip(moved.contributions, found.contributions, strict=True):
        torch.testing.assert_close(a, b)
    # and they lie where they are said to: the first off its posterior, later ones off those in the moved context
    mean, width = setting.latents[0], setting.log_widths[0].exp()
    torch.testing.assert_close(moved.latents[0], mean + width * offsets[0])
    last = moved.latents[-1] - setting.latents[-1] - setting.log_widths[-1].exp() * offsets[-1]
    assert float(last.abs().max()) > 1e-4


@torch.no_grad()
def test_no_offset_is_the_guess():
    setting = Setting(recipe_of(**OFFSETS), prior=tiny_prior(DOUBLE))
    found = by_offsets(setting, [torch.zeros_like(z) for z in setting.latents])
    for a, z in zip(found.latents, setting.latents, strict=True):
        torch.testing.assert_close(a, z)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("number", [0, 3, 8])
def test_the_gradient_is_the_finite_difference(number, general):
    setting = Setting(recipe_of(**OFFSETS), prior=tiny_prior(DOUBLE), general=general)
    start = random_offsets(setting)
    direction = torch.randn(start[number].shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)

    def value(t):
        found = by_offsets(setting, [o + t * direction if n == number else o for n, o in enumerate(start)])
        return (setting.term.fit(found.contributions).nats + sum(found.costs)).sum()

    t = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(value(t), t)
    h = 1e-5
    with torch.no_grad():
        expected = (value(torch.tensor(h)) - value(torch.tensor(-h))) / (2 * h)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


def run(y, a, prior, sigma=0.1, **changes):
    # an image that the prior does not fit would be spared its steps
    asked = {"recipe": recipe_of(**changes), "seed": 0, "warn": False, "fallback": False}
    return solve(y, a, prior, noise=GaussianNoise(sigma), **asked)


@pytest.mark.parametrize(
    ("decoder", "stop", "objective"),
    [
        ("separable", "all", "expected"),
        ("separable", "none", "map"),
        ("separable", "none", "variational"),
        ("vanilla", "none", "expected"),
        ("vanilla", "all", "map"),
        ("vanilla", "all", "variational"),
    ],
)
@pytest.mark.slow
def test_refinement_lowers_the_objective(decoder, stop, objective):
    optimizer = {"optimizer": "adam", "size": 0.02} if objective == "variational" else {}
    how = OFFSETS | {"objective": objective, "stop": stop} | optimizer
    a = operator("mask", DOUBLE)
    found = run(measure(a), a, prior_of(decoder), steps=4, **how)
    assert bool(found.improved.all())
    before, after = (torch.stack([s[key] for s in found.scales]).sum(0) for key in ("before", "after"))
    assert bool((after < before).all())


def test_a_batch_is_its_images():
    a = operator("mask", DOUBLE)
    y = measure(a, 3)
    together = run(y, a, tiny_prior(DOUBLE), steps=4, **OFFSETS)
    for i in range(3):
        alone = run(y[i], a, tiny_prior(DOUBLE), steps=4, **OFFSETS)
        torch.testing.assert_close(together.image[i], alone.image, rtol=1e-6, atol=1e-8)


def test_the_general_path_agrees_with_the_diagonal_one():
    a = operator("mask", DOUBLE)
    y = measure(a)
    how = OFFSETS | {"steps": 3, "error": "none"}
    direct = run(y, a, tiny_prior(DOUBLE), **how)
    general = solve(
        y,
        a,
        tiny_prior(DOUBLE),
        noise=GaussianNoise(0.1),
        recipe=recipe_of(**how),
        warn=False,
        force_general=True,
        iterations=300,
        tolerance=1e-14,
    )
    # the two paths estimate the image's scale, and the evidence, in different ways: a part of what the steps change
    guess = run(y, a, tiny_prior(DOUBLE), **(how | {"steps": 0}))
    assert relative(general.image, direct.image) < 0.1 * relative(guess.image, direct.image)


def test_latents_beyond_the_guess_stop_follow_their_prior():
    a = operator("mask", DOUBLE)
    found = run(measure(a), a, tiny_prior(DOUBLE), steps=4, stop=8, **OFFSETS)
    assert [s["steps"] for s in found.scales] == [4, 4, 4, 4, 0, 0]
    for layers, scale in zip(found.offsets, (1, 2, 4, 8, 16, 32), strict=True):
        moved = max(float(o.abs().max()) for o in layers)
        assert (moved > 1e-3) == (scale <= 8)
        assert scale <= 8 or moved < 1e-9


@pytest.mark.slow
def test_five_steps_of_offsets_get_further_than_ten_of_latents():
    """Random fields under a trained prior; measured on real images in ``benchmarks/results/tune_clean.md``."""
    prior = bundled("cifar10")
    x = images(2, size=32).repeat(1, 3, 1, 1).abs()
    y = GaussianNoise(0.05).sample(x, torch.Generator().manual_seed(0))
    ends = {}
    for variables, steps in (("latents", 10), ("offsets", 5)):
        found = run(y, Identity((3, 32, 32)), prior, 0.05, steps=steps, variables=variables, **HOW)
        ends[variables] = torch.stack([s["after"] for s in found.scales]).sum(0)
    assert bool((ends["offsets"] < ends["latents"]).all())


@pytest.mark.parametrize("blocks", ["scale", "latent"])
def test_what_does_not_go_together_is_refused(blocks):
    with pytest.raises(RecipeError, match=r"'steps.variables' is 'offsets'"):
        Recipe(steps={"blocks": blocks})
    with pytest.raises(RecipeError, match=r"'steps.variables' must be one of offsets, latents"):
        Recipe(steps={"variables": "context"})
