"""What posing a problem costs, and which operators it refuses."""

import pytest
import torch
from flat_recipes import recipe_of
from tiny import images, reading_prior, tiny_prior

from iasolve import NonFiniteError, solve
from iasolve.inference import view
from iasolve.inference.sampling import Samples
from iasolve.operators import GaussianNoise, Identity, LinearOperator, PixelMask
from iasolve.problem.pose import Problem

SHAPE = (1, 32, 32)
NOISE = GaussianNoise(0.1)
HALVES = PixelMask(torch.arange(32) < 3, SHAPE) @ PixelMask(torch.arange(32) >= 3, SHAPE)


class Counted(Identity):
    """Counts what is asked of it."""

    applications = 0

    def forward(self, x):
        Counted.applications += 1
        return super().forward(x)

    def adjoint(self, y):
        Counted.applications += 1
        return super().adjoint(y)


@pytest.mark.parametrize("noise", [None, NOISE])
@pytest.mark.parametrize(
    "zero",
    [0.0 * Identity(SHAPE), LinearOperator.from_functions(lambda x: 0 * x, lambda y: 0 * y, in_shape=SHAPE), HALVES],
    ids=["scaled", "functions", "disjoint masks"],
)
def test_operators_of_norm_0_are_refused(zero, noise):
    with pytest.raises(ValueError, match=f"the operator {type(zero).__name__} is zero"):
        solve(images(2), zero, tiny_prior(), noise=noise, warn=False)


@pytest.mark.parametrize("general", [False, True])
def test_operators_of_tiny_norm_are_not(general):
    solve(images(1), 1e-12 * Identity(SHAPE), tiny_prior(), noise=NOISE, recipe="fast", force_general=general)


def test_a_transfer_function_that_is_not_finite_is_refused():
    class Broken(Identity):
        def transfer(self):
            return torch.full((32, 32), torch.nan)

    with pytest.raises(NonFiniteError, match="check_operator"):
        solve(images(1), Broken(SHAPE), tiny_prior(), noise=NOISE, warn=False)


def test_the_exact_path_applies_the_operator_for_the_residual_alone():
    Counted.applications = 0
    solve(images(2), Counted(SHAPE), tiny_prior(), noise=NOISE, recipe=recipe_of(steps=2, samples=1), warn=False)
    assert Counted.applications == 1


@pytest.mark.parametrize("reads", [False, True])
def test_only_what_is_read_is_made(reads, monkeypatch):
    """The encoder's input for priors without a reader, the reader's for guesses of the reader, samples if asked for."""
    asked = set()

    def noted(name, original):
        def get(self):
            asked.add(name)
            return original.__get__(self)

        return property(get)

    for name in ("evidence", "posterior", "stop"):
        monkeypatch.setattr(Problem, name, noted(name, vars(Problem)[name]))
    monkeypatch.setattr(Samples, "__init__", lambda *_: pytest.fail("no samples were asked for"))
    prior = reading_prior() if reads else tiny_prior()
    solve(images(1), Identity(SHAPE), prior, noise=NOISE, recipe=recipe_of(steps=0), warn=False)
    assert asked == {"posterior" if reads else "evidence"}


@pytest.mark.parametrize("samples", [0, 1])
def test_a_first_guess_is_made_where_it_is_read(samples, monkeypatch):
    """A reader's image takes its place after passes, but for samples, which are drawn about it."""
    made = []

    def noted(*arguments, original=view.first_guess):
        made.append(1)
        return original(*arguments)

    monkeypatch.setattr(view, "first_guess", noted)
    recipe = recipe_of(passes=1, steps=1, samples=samples)
    solve(images(1), Identity(SHAPE), reading_prior(), noise=NOISE, recipe=recipe, warn=False, fallback=False)
    assert len(made) == samples
