"""What a decoded image leaves unexplained, ring by ring, through operators that mix the rings."""

import pytest
import torch
from flat_recipes import recipe_of
from tiny import dense, mute_prior, relative

from iasolve import solve
from iasolve.inference import Options
from iasolve.operators import (
    BlockAverage,
    GaussianNoise,
    Identity,
    KSpaceMask,
    PixelMask,
    SensitivityEncoding,
    birdcage_maps,
    line_mask,
)
from iasolve.operators.probes import response, surplus_of_rings
from iasolve.problem.pose import pose
from iasolve.spectrum import RingGrid, fft2, ifft2, ring_index

SIZE = 16
SHAPE = (1, SIZE, SIZE)
RINGS = ring_index(SIZE)
COUNTS = torch.bincount(RINGS.flatten()).double()
DOUBLE = torch.float64
GRID = RingGrid(RINGS, COUNTS.float())
OPERATORS = {
    "coils": SensitivityEncoding(birdcage_maps((SIZE, SIZE), 3), line_mask((SIZE, SIZE), 2, 0.2, seed=1), DOUBLE),
    "complex": SensitivityEncoding(
        birdcage_maps((SIZE, SIZE), 3), line_mask((SIZE, SIZE), 2, 0.2, seed=1), torch.complex128
    ),
    "pixels": PixelMask(torch.arange(SIZE) % 3 > 0, SHAPE, DOUBLE),
}


def white(count, dtype, seed):
    return torch.randn(count, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def errors(variance, count, dtype, seed=0):
    """Images whose bins have the variance of their ring."""
    x = ifft2(variance[RINGS].sqrt().to(dtype) * fft2(white(count, dtype, seed)))
    return x if dtype.is_complex else x.real


def found_of(operator, variance, usual, sigma, count):
    x0 = torch.zeros(count, *SHAPE, dtype=operator.in_dtype)
    y = operator(errors(variance, count, operator.in_dtype))
    y = GaussianNoise(sigma).sample(y, torch.Generator().manual_seed(1))
    residual = operator.adjoint(y - operator(x0))
    level = torch.full((count,), sigma, dtype=DOUBLE)
    return surplus_of_rings(residual, level, usual, response(operator, operator, y, GRID), GRID)


@pytest.mark.parametrize("name", OPERATORS)
def test_probes_tell_how_an_operator_answers_a_ring(name):
    operator = OPERATORS[name]
    y = operator(torch.zeros(1, *SHAPE, dtype=operator.in_dtype))
    answers = [response(operator, operator, y, GRID, seed) for seed in range(60)]
    energy = torch.stack([a.energy for a in answers]).mean(0)
    noise = torch.stack([a.noise for a in answers]).mean(0)
    complex_operator = operator.is_complex
    matrix = dense(operator, operator.in_dtype)
    gram = matrix.mH @ matrix
    gram = gram if complex_operator else gram.real
    transform = fft2(torch.eye(SIZE**2, dtype=torch.complex128).reshape(-1, *SHAPE)).reshape(SIZE**2, -1).T
    mixed = (transform @ gram.to(torch.complex128) @ transform.mH).abs().square()
    for s in range(len(COUNTS)):
        inside = RINGS.flatten() == s
        exact = torch.stack([mixed[inside][:, RINGS.flatten() == t].sum() for t in range(len(COUNTS))])
        torch.testing.assert_close(energy[s], exact, rtol=0.3, atol=0.02 * float(exact.max()))
        heard = (transform @ matrix.mH.to(torch.complex128))[inside].abs().square().sum()
        # the real part of what complex noise leaves is half of it
        heard = heard / 2 if not complex_operator and y.is_complex() else heard
        assert abs(float(noise[s] / heard) - 1) < 0.25
    assert (answers[0].freedom <= COUNTS * (2 if complex_operator else 1) * 1.01).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_the_variance_of_each_ring_is_found(name):
    operator = OPERATORS[name]
    usual = torch.tensor([0.1, 0.1, 0.05, 0.02, 0.01], dtype=DOUBLE)
    variance = usual + torch.tensor([0.0, 0.0, 0.8, 0.4, 0.1], dtype=DOUBLE)
    found = found_of(operator, variance, usual, 0.1, 400).mean(0)
    # a standard error less than it is: most of all where rings have few bins
    more = (variance - usual)[2:]
    assert (found[2:] < 1.1 * more).all()
    assert (found[3:] > 0.5 * more[1:]).all(), found
    assert found[2] > 0.2 * more[0]


@pytest.mark.parametrize("name", OPERATORS)
def test_chance_raises_little(name):
    usual = torch.tensor([0.5, 0.5, 0.3, 0.2, 0.1], dtype=DOUBLE)
    found = found_of(OPERATORS[name], usual, usual, 0.3, 400)
    assert (found >= 0).all()
    assert (found[:, 2:].mean(0) < 0.25 * usual[2:]).all()
    assert ((found[:, 2:] > 0).double().mean(0) < 0.35).all()


def test_a_diagonal_operator_tells_the_same_on_both_paths():
    prior = mute_prior()
    size = prior.spectrum.size
    operator = KSpaceMask(line_mask((size, size), 2, 0.2, seed=1), (1, size, size))
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(6, 1, size, size, generator=generator)
    sigma = torch.full((6,), 0.3)
    y = GaussianNoise(0.3).sample(operator(x), generator)
    y = y * operator.mask
    levels = []
    for force in (False, True):
        problem = pose(y, operator, prior, sigma, Options(force_general=force))
        raised = problem.unexplained(problem.likelihood, torch.zeros_like(x))
        assert (raised >= problem.variance).all()
        levels.append(torch.stack([raised[..., problem.rings.owner == ring].mean((1, 2)) for ring in (3, 4, 5)]))
    torch.testing.assert_close(levels[1].mean(1), levels[0].mean(1), rtol=0.2, atol=0)


def test_what_is_not_measured_is_left_as_it_is():
    blind = 0 * Identity(SHAPE, DOUBLE)
    usual = torch.full((5,), 0.1, dtype=DOUBLE)
    assert float(found_of(blind, usual, usual, 0.1, 3).abs().max()) == 0
    coarse = BlockAverage(8, SHAPE, DOUBLE)  # four values
    assert torch.isfinite(found_of(coarse, 10 * usual, usual, 0.01, 3)).all()


def test_with_a_stationary_error_the_training_sets_variance_stands():
    prior = mute_prior()
    size = prior.spectrum.size
    operator = PixelMask(torch.arange(size) % 2 == 0, (1, size, size))
    y = 5 * operator(torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0)))
    images = [
        solve(y, operator, prior, noise=GaussianNoise(0.1), recipe=recipe_of(steps=0, error=error), warn=False).image
        for error in ("local", "stationary")
    ]
    seen = y != 0
    off = [relative(image[seen], y[seen]) for image in images]
    assert off[0] < 0.7 * off[1]


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_operators_scale_does_not_matter(scale):
    usual = torch.tensor([0.1, 0.1, 0.05, 0.02, 0.01])
    variance = usual + torch.tensor([0.0, 0.0, 0.8, 0.4, 0.1])
    mask = PixelMask(torch.arange(SIZE) % 3 > 0, SHAPE)
    one, other = (found_of(a, variance, usual, s, 20) for a, s in ((mask, 0.1), (scale * mask, 0.1 * scale)))
    assert (one[:, 3:] > 0).any()
    torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)


def test_values_that_are_not_finite_raise_nothing():
    operator = OPERATORS["pixels"]
    y = operator(white(2, DOUBLE, 0))
    answer = response(operator, operator, y, GRID)
    sigma, usual = torch.full((2,), 0.1, dtype=DOUBLE), torch.full((5,), 0.1, dtype=DOUBLE)
    assert float(surplus_of_rings(torch.full_like(y, torch.nan), sigma, usual, answer, GRID).abs().max()) == 0
