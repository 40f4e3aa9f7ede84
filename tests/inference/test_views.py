"""Moved views of a problem, and passes that read moved images."""

import numpy as np
import pytest
import torch
from counting import CountedPrior
from flat_recipes import recipe_of
from tiny import images, relative, tiny_prior

from iasolve import HVAEPrior, solve
from iasolve.inference import Options
from iasolve.inference.passes import SHIFTS, first_guess, read_again
from iasolve.operators import CircularShift, GaussianNoise, Identity, KSpaceMask, LinearOperator, line_mask
from iasolve.problem.options import Watch
from iasolve.problem.pose import pose
from iasolve.recipe import RecipeError

DOUBLE = torch.float64
SIGMA = 0.05


def moved_prior():
    """A prior whose card says that its training images were moved."""
    return HVAEPrior(tiny_prior(DOUBLE).network, "moved", {"shift": 2.0})


def measured(operator, count=2):
    x = images(count, 4, dtype=DOUBLE)
    return GaussianNoise(SIGMA).sample(operator(x), torch.Generator().manual_seed(1))


def run(y, operator, prior=None, **changes):
    options = {key: changes.pop(key) for key in ("tolerance", "samples") if key in changes}
    recipe = recipe_of(**{"steps": 0, **changes})
    prior = moved_prior() if prior is None else prior
    return solve(y, operator, prior, noise=GaussianNoise(SIGMA), recipe=recipe, seed=3, warn=False, **options)


def masked(size=(32, 32)):
    return KSpaceMask(line_mask(size, 2, 0.2, seed=2), (1, *size), DOUBLE)


def test_the_shifts_are_all_there_are_and_begin_with_none():
    largest = max(map(max, SHIFTS))
    side = range(-largest, largest + 1)
    assert SHIFTS[0] == (0, 0)
    assert sorted(SHIFTS) == [(dy, dx) for dy in side for dx in side]
    # any four are on four rows and four columns
    assert all(len({s[axis] for s in SHIFTS[:4]}) == 4 for axis in (0, 1))


@pytest.mark.parametrize("error", ["stationary", "local"])
def test_views_are_the_mean_of_solutions_for_moved_images(error):
    y = measured(Identity((1, 32, 32), DOUBLE))
    operator = Identity((1, 32, 32), DOUBLE)
    found = run(y, operator, views=3, error=error, tolerance=1e-12).image
    singly = []
    for dy, dx in SHIFTS[:3]:
        moved = run(torch.roll(y, (-dy, -dx), (-2, -1)), operator, error=error, tolerance=1e-12).image
        singly.append(torch.roll(moved, (dy, dx), (-2, -1)))
    torch.testing.assert_close(found, torch.stack(singly).mean(0))
    assert relative(singly[0], singly[1]) > 1e-4  # or this would have shown nothing


@pytest.mark.slow
def test_of_the_views_some_take_the_steps_and_the_others_stop_at_the_guess():
    y, operator = measured(masked()), masked()
    how = {"objective": "expected", "blocks": "whole", "optimizer": "lbfgs", "size": 0.1}
    found = run(y, operator, views=3, refined_views=2, steps=4, **how)
    two, guesses = (run(y, operator, views=n, steps=s, **how).image for n, s in ((2, 4), (3, 0)))
    third = 3 * guesses - 2 * run(y, operator, views=2, **how).image
    torch.testing.assert_close(found.image, (2 * two + third) / 3)
    assert relative(two, guesses) > 1e-4  # or this would have shown nothing
    assert found.scales[0]["steps"] == 4
    every = run(y, operator, views=3, steps=4, **how).image
    for number in (3, 5):
        assert run(y, operator, views=3, refined_views=number, steps=4, **how).image.equal(every)
    # without an encoder there is no guess for a view to stop at
    every, some = (
        run(y, operator, views=2, refined_views=number, steps=2, stop="none", **how).image for number in (0, 1)
    )
    assert some.equal(every)


@pytest.mark.parametrize("operator", [Identity((1, 32, 32), DOUBLE), masked()])
def test_a_view_costs_one_pass_through_the_network(operator):
    """Likeness and objective are told of the first view; an objective of points takes no pass of its own."""
    y, layers = measured(operator), sum(len(moved_prior().layers(i)) for i in range(6))
    passes = []
    for views in (1, 2, 4):
        prior = CountedPrior(moved_prior())
        run(y, operator, prior, views=views, objective="expected")
        assert prior.with_gradient == 0
        passes.append(prior.without_gradient / layers)
    assert passes == [2, 3, 5]


def test_a_moved_problem_goes_the_same_way_whatever_the_path():
    class General(LinearOperator):
        """The same without a transfer."""

        def __init__(self, inner):
            super().__init__(inner.in_shape, inner.out_shape, in_dtype=inner.in_dtype, out_dtype=inner.out_dtype)
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

        def adjoint(self, y):
            return self.inner.adjoint(y)

    y = measured(masked())
    exact = run(y, masked(), views=2)
    general = run(y, General(masked()), views=2, tolerance=1e-10)
    # the gain is found by another way
    assert relative(general.image, exact.image) < 0.05
    assert (general.solver["applications"] > run(y, General(masked()), tolerance=1e-10).solver["applications"]).all()


@pytest.mark.parametrize("size", [(24, 20), (40, 48)])
def test_images_of_other_sizes_have_views(size):
    operator = Identity((1, *size), DOUBLE)
    x = torch.randn(1, *size, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    still, moved = run(x, operator).image, run(x, operator, views=2).image
    assert moved.shape == (1, *size)
    # a view that was not moved back would be off by as much as the image itself
    assert relative(moved, still) < 0.2


def test_samples_lie_about_the_mean_of_the_views():
    y = measured(masked())
    one, two = (run(y, masked(), views=n, samples=3) for n in (1, 2))
    torch.testing.assert_close(two.std, one.std)
    torch.testing.assert_close(two.samples - two.image, one.samples - one.image)


def test_views_in_a_batch_are_those_of_single_images():
    y = measured(masked(), 3)
    together = run(y, masked(), views=3, passes=2)
    for i in range(3):
        alone = run(y[i], masked(), views=3, passes=2)
        torch.testing.assert_close(together.image[i], alone.image, rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_spinning_passes_read_moved_images_and_end_where_the_image_lies():
    prior, stop = moved_prior(), torch.full((2,), 5)
    problem = pose(measured(masked()), masked(), prior, torch.full((2,), SIGMA, dtype=DOUBLE), Options())
    first = first_guess(problem, prior, recipe_of(), stop)

    def read(passes, reader):
        found = read_again(problem, reader, recipe_of(passes=passes), first, stop, False, Watch())
        return problem.decode(prior, found.contributions)

    still = tiny_prior(DOUBLE)
    assert 1e-5 < relative(read(3, prior), read(3, still)) < 0.2
    torch.testing.assert_close(read(1, prior), read(1, still))


def test_a_prior_of_images_in_one_place_has_one_view_and_does_not_spin():
    y = measured(masked())
    plain = run(y, masked(), tiny_prior(DOUBLE), passes=3)
    moved = run(y, masked(), tiny_prior(DOUBLE), passes=3, views=3)
    torch.testing.assert_close(moved.image, plain.image)


def test_the_shift_is_what_roll_does_and_its_transfer_too():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 6, 7)))
    operator = CircularShift((2, -3), (1, 6, 7), DOUBLE)
    rolled = torch.roll(x, (2, -3), (-2, -1))
    torch.testing.assert_close(operator(x), rolled)
    torch.testing.assert_close(torch.fft.ifft2(operator.transfer() * torch.fft.fft2(x)), rolled + 0j)


@pytest.mark.parametrize(
    "changes",
    [
        {"views": 0},
        {"views": 26},
        {"views": 1.5},
        {"refined_views": -1},
    ],
)
def test_impossible_values_are_refused_by_name(changes):
    with pytest.raises(RecipeError, match="views"):
        recipe_of(**changes)
