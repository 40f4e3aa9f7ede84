"""Refinement by offsets from the posteriors in the context at hand (``variables = "offsets"``)."""

import pytest
import torch
from test_vanilla import Setting, measure, operator, vanilla_prior
from tiny import images, relative, tiny_prior

import iasolve
from iasolve import Recipe, solve
from iasolve.inference.hierarchy import START, Hierarchy
from iasolve.inference.whole import whole_fit
from iasolve.networks import Gaussian
from iasolve.operators import GaussianNoise, Identity
from iasolve.recipe import RecipeError

DOUBLE = torch.float64
HOW = {"schedule": "whole", "objective": "expected", "optimizer": "lbfgs", "step_size": 0.1}
OFFSETS = HOW | {"variables": "offsets"}
DECODERS = ("separable", "vanilla")


def prior_of(decoder):
    return tiny_prior(DOUBLE) if decoder == "separable" else vanilla_prior(DOUBLE)


def random_offsets(setting, size=0.3):
    generator = torch.Generator().manual_seed(7)
    return [size * torch.randn(q.mean.shape, generator=generator, dtype=DOUBLE) for q in setting.latents]


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_the_means_that_offsets_stand_for_have_the_same_objective(decoder, iterative):
    setting = Setting(Recipe(**OFFSETS), prior=prior_of(decoder), iterative=iterative)
    hierarchy = setting.refiner.hierarchy
    by_offsets = hierarchy.evaluate(START, setting.latents, None, random_offsets(setting))
    means = [Gaussian(m, q.log_std) for m, q in zip(by_offsets.means, setting.latents, strict=True)]
    by_means = hierarchy.evaluate(START, means, None)
    torch.testing.assert_close(torch.stack(by_offsets.costs), torch.stack(by_means.costs))
    for a, b in zip(by_offsets.contributions, by_means.contributions, strict=True):
        torch.testing.assert_close(a, b)
    # and they lie where they are said to: the first off its posterior, later ones off those in the moved context
    first = setting.latents[0]
    torch.testing.assert_close(by_offsets.means[0], first.mean + first.std * random_offsets(setting)[0])
    moved = by_offsets.means[-1] - setting.latents[-1].mean - setting.latents[-1].std * random_offsets(setting)[-1]
    assert float(moved.abs().max()) > 1e-4


@torch.no_grad()
def test_no_offset_is_the_guess():
    setting = Setting(Recipe(**OFFSETS), prior=tiny_prior(DOUBLE))
    zero = [torch.zeros_like(q.mean) for q in setting.latents]
    found = setting.refiner.hierarchy.evaluate(START, setting.latents, None, zero)
    for a, q in zip(found.means, setting.latents, strict=True):
        torch.testing.assert_close(a, q.mean)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("number", [0, 3, 8])
def test_the_gradient_is_the_finite_difference(number, general):
    setting = Setting(Recipe(**OFFSETS), prior=tiny_prior(DOUBLE), general=general)
    refiner = setting.refiner
    start = random_offsets(setting)
    direction = torch.randn(start[number].shape, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)

    def value(t):
        offsets = [o + t * direction if n == number else o for n, o in enumerate(start)]
        costs, contributions, _ = refiner.hierarchy.evaluate(START, setting.latents, None, offsets)
        return (whole_fit(refiner.data, contributions, refiner.betas) + torch.stack(costs).sum(0)).sum()

    t = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(value(t), t)
    h = 1e-5
    with torch.no_grad():
        expected = (value(torch.tensor(h)) - value(torch.tensor(-h))) / (2 * h)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


def run(y, a, prior, sigma=0.1, **changes):
    return solve(y, a, prior, noise=GaussianNoise(sigma), recipe=Recipe(**changes), seed=0, warn=False)


@pytest.mark.parametrize("objective", ["expected", "map", "variational"])
@pytest.mark.parametrize("mode", ["hybrid", "iterative"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_refinement_lowers_the_objective(decoder, mode, objective):
    optimizer = {"optimizer": "adam", "step_size": 0.02} if objective == "variational" else {}
    how = OFFSETS | {"objective": objective, "mode": mode} | optimizer
    a = operator("mask", DOUBLE)
    found = run(measure(a), a, prior_of(decoder), steps=6, **how)
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
    how = OFFSETS | {"steps": 3, "iterations": 300, "tolerance": 1e-14, "closing": False}
    direct = run(y, a, tiny_prior(DOUBLE), **how)
    general = solve(
        y, a, tiny_prior(DOUBLE), noise=GaussianNoise(0.1), recipe=Recipe(**how), warn=False, force_general=True
    )
    # the two paths estimate the image's scale, and the evidence, in different ways: a part of what the steps change
    guess = run(y, a, tiny_prior(DOUBLE), **(how | {"steps": 0}))
    assert relative(general.image, direct.image) < 0.1 * relative(guess.image, direct.image)


def test_latents_beyond_the_guess_stop_follow_their_prior():
    a = operator("mask", DOUBLE)
    found = run(measure(a), a, tiny_prior(DOUBLE), steps=4, guess_stop=8, **OFFSETS)
    assert [s["steps"] for s in found.scales] == [4, 4, 4, 4, 0, 0]
    for layers, scale in zip(found.offsets, (1, 2, 4, 8, 16, 32), strict=True):
        moved = max(float(o.abs().max()) for o in layers)
        assert (moved > 1e-3) == (scale <= 8)
        assert scale <= 8 or moved < 1e-9


@pytest.mark.parametrize("trust", [0.05, 0.2])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_trust_region_is_counted_in_the_context_at_hand(trust, optimizer):
    a = operator("mask", DOUBLE)
    found = run(measure(a), a, tiny_prior(DOUBLE), steps=6, trust=trust, **(OFFSETS | {"optimizer": optimizer}))
    farthest = max(float(o.abs().max()) for layers in found.offsets for o in layers)
    assert 0.5 * trust < farthest <= trust * (1 + 1e-6)


def test_five_steps_of_offsets_get_further_than_ten_of_latents():
    """Random fields under a trained prior; measured on real images in ``benchmarks/results/tune_clean.md``."""
    prior = iasolve.load_prior("cifar10")
    x = images(2, size=32).repeat(1, 3, 1, 1).abs()
    y = GaussianNoise(0.05).sample(x, torch.Generator().manual_seed(0))
    ends = {}
    for variables, steps in (("latents", 10), ("offsets", 5)):
        found = run(y, Identity((3, 32, 32)), prior, 0.05, steps=steps, variables=variables, **HOW)
        ends[variables] = torch.stack([s["after"] for s in found.scales]).sum(0)
    assert bool((ends["offsets"] < ends["latents"]).all())


@pytest.mark.parametrize("changes", [{"schedule": "joint"}, {"schedule": "sequential"}, {"metric": "raw"}])
def test_what_does_not_go_together_is_refused(changes):
    with pytest.raises(RecipeError, match="'variables' is 'offsets'"):
        Recipe(**(OFFSETS | {"optimizer": "adam"} | changes))
    with pytest.raises(RecipeError, match="'variables' must be one of latents, offsets"):
        Recipe(variables="context")


def test_hierarchy_without_offsets_is_what_it_was():
    prior = tiny_prior(DOUBLE)
    hierarchy = Hierarchy(prior, None, torch.full((1,), 5))
    setting = Setting(Recipe(), prior=prior)
    with torch.no_grad():
        found = hierarchy.evaluate(START, setting.latents, None)
    for a, q in zip(found.means, setting.latents, strict=True):
        assert a is q.mean
