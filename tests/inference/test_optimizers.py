"""Quasi-Newton steps: exact on quadratics, each image by itself, never upwards; and the objective they go with."""

import itertools

import pytest
import torch

from iasolve import Recipe
from iasolve.inference import LBFGS, OBJECTIVES, OPTIMIZERS, Plan
from iasolve.networks import Gaussian
from iasolve.recipe import RecipeError

DOUBLE = torch.float64


def quadratics(count, size, seed=0, spread=30.0):
    """``0.5 (x - c)^T H (x - c)`` of random positive ``H`` with eigenvalues from 1 to ``spread``."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(count, size, size, generator=generator, dtype=DOUBLE))
    h = q @ torch.diag(torch.logspace(0, torch.tensor(spread).log10(), size, dtype=DOUBLE)) @ q.mT
    return h, torch.randn(count, size, generator=generator, dtype=DOUBLE)


def follow(value_and_gradient, start, blocks, steps, first=0.1):
    rule = LBFGS(Plan(start, blocks, [steps] * len(blocks), first))
    values = []
    for _ in range(steps):
        value, gradient = value_and_gradient(rule.trial)
        rule.tell(value, gradient)
        values.append(value_and_gradient(rule.best)[0])
    return rule, torch.stack(values)


def test_a_quadratic_is_solved_and_the_lowest_value_never_rises():
    h, centre = quadratics(5, 8)

    def value_and_gradient(x):
        gradient = torch.einsum("bij,bj->bi", h, x - centre)
        return 0.5 * (gradient * (x - centre)).sum(1), gradient

    rule, values = follow(value_and_gradient, torch.zeros(5, 8, dtype=DOUBLE), [3, 5], 60)
    assert (values[1:] <= values[:-1]).all()
    torch.testing.assert_close(rule.best, centre, rtol=0, atol=1e-5)
    # gradient descent at the best fixed length, 2 / (1 + 30), leaves (29/31)^60 = 2 % of the distance
    assert float((rule.best - centre).norm() / centre.norm()) < 1e-5


def test_blocks_carry_scales_that_one_number_cannot():
    """Two blocks with curvatures 1 and 10,000."""
    curvature = torch.cat([torch.ones(6, dtype=DOUBLE), torch.full((6,), 1e4, dtype=DOUBLE)])
    centre = torch.linspace(-1, 1, 12, dtype=DOUBLE)[None]

    def value_and_gradient(x):
        return 0.5 * (curvature * (x - centre).square()).sum(1), curvature * (x - centre)

    start = torch.zeros(1, 12, dtype=DOUBLE)
    apart = follow(value_and_gradient, start, [6, 6], 6)[1][-1]
    together = follow(value_and_gradient, start, [12], 6)[1][-1]
    assert float(apart) < 1e-2 * float(together)


def test_each_image_goes_its_own_way():
    h, centre = quadratics(4, 6, seed=1)
    h[2] *= 1e4

    def of(images):
        def value_and_gradient(x):
            off = x - centre[images]
            gradient = torch.einsum("bij,bj->bi", h[images], off) + off**3
            return 0.5 * (gradient * off).sum(1) - 0.25 * (off**4).sum(1), gradient

        return follow(value_and_gradient, torch.zeros(len(images), 6, dtype=DOUBLE), [2, 4], 15)[0].best

    together = of([0, 1, 2, 3])
    for image in range(4):
        torch.testing.assert_close(of([image])[0], together[image], rtol=1e-9, atol=1e-11)


def test_a_curved_valley_is_followed_downhill():
    def value_and_gradient(x):
        x = x.detach().requires_grad_(True)
        value = (1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2  # Rosenbrock
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0]], dtype=DOUBLE)
    rule, values = follow(value_and_gradient, start, [2], 150)
    assert (values[1:] <= values[:-1]).all()
    torch.testing.assert_close(rule.best, torch.ones(2, 2, dtype=DOUBLE), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_trial_that_is_not_finite_is_taken_back(bad):
    def value_and_gradient(x):
        value, gradient = 0.5 * (x - 3).square().sum(1), x - 3
        # beyond 2 the objective breaks down for the first image
        broken = (x[:, 0] > 2) & torch.tensor([True, False])
        return value.where(~broken, torch.tensor(bad, dtype=DOUBLE)), gradient.where(~broken[:, None], bad)

    rule, _ = follow(value_and_gradient, torch.zeros(2, 1, dtype=DOUBLE), [1], 30, first=1.0)
    assert torch.isfinite(rule.best).all()
    assert 1 <= float(rule.best[0, 0]) <= 2
    assert float(rule.best[1, 0]) == pytest.approx(3)


def test_nothing_moves_where_the_gradient_is_nothing():
    rule, values = follow(lambda x: (x.sum(1) * 0, x * 0), torch.ones(2, 3, dtype=DOUBLE), [3], 5)
    assert torch.equal(rule.best, torch.ones(2, 3, dtype=DOUBLE))
    assert torch.equal(rule.trial, rule.best)
    assert (values == 0).all()


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_steps_end_when_their_number_is_reached(optimizer):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 16, generator=generator, dtype=DOUBLE)
    rule = OPTIMIZERS[optimizer](Plan(start, [12, 4], [20, 4], 0.1))
    seen = []
    for _ in range(20):
        seen.append(rule.trial)
        # with a fourth power, no quasi-Newton step ends in the minimum
        d = rule.trial - 1
        rule.tell((d.square() + d.pow(4) / 10).sum(1), 2 * d + 0.4 * d.pow(3))
    moved = [not torch.equal(a[:, 12:], b[:, 12:]) for a, b in itertools.pairwise(seen)]
    assert any(moved[:4])
    assert not any(moved[5:])
    assert not torch.equal(seen[6][:, :12], seen[5][:, :12])
    last = rule.iterates[-1]
    assert float((last - 1).square().sum()) < 0.9 * float((start - 1).square().sum())


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_value_that_no_gradient_asks_to_move_stays(optimizer):
    start = torch.ones(2, 6, dtype=DOUBLE)
    held = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=DOUBLE)
    rule = OPTIMIZERS[optimizer](Plan(start, [6], [8], 0.1))
    for _ in range(8):
        rule.tell((held * rule.trial).square().sum(1), 2 * held * rule.trial)
    for point in rule.iterates:
        assert torch.equal(point[:, 3:], start[:, 3:])


def test_expected_cost_is_the_mean_cost_of_draws():
    generator = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, 5, generator=generator, dtype=DOUBLE)
    q, p = Gaussian(mean, torch.full((5,), -0.3, dtype=DOUBLE)), Gaussian(other, torch.linspace(-1, 1, 5, dtype=DOUBLE))
    draws = mean + q.std * torch.randn(200000, 5, generator=generator, dtype=DOUBLE)
    sampled = OBJECTIVES["map"].of(Gaussian(draws, q.log_std), p).mean(0)
    torch.testing.assert_close(OBJECTIVES["expected"].of(q, p), sampled, rtol=0.02, atol=0.02)
    exact = -torch.distributions.Normal(p.mean, p.std).log_prob(mean) - 0.5 * torch.tensor(2 * torch.pi).log()
    torch.testing.assert_close(OBJECTIVES["map"].of(q, p), exact)


def test_random_draws_are_refused():
    with pytest.raises(RecipeError, match=r"lbfgs.*'map' or 'expected'"):
        Recipe(steps={"objective": "variational"})
    assert Recipe(steps={"objective": "map"}).steps.optimizer == "lbfgs"
