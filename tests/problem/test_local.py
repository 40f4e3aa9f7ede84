"""Closing with an error that follows the image, against dense Gaussian posteriors."""

import pytest
import torch
from flat_recipes import recipe_of
from tiny import images, mute_prior

from iasolve import solve
from iasolve.evidence import fold
from iasolve.inference import Options
from iasolve.operators import CircularBlur, GaussianNoise, KSpaceMask, line_mask
from iasolve.problem import DiagonalLikelihood, LocalError, OperatorLikelihood, local_spread
from iasolve.problem.pose import pose
from iasolve.spectrum import fft2, ifft2, radius

SHAPE, SIGMA = (1, 8, 6), 0.3


def kernel():
    return torch.tensor([[0.1, 0.2, 0.05], [0.1, 0.3, 0.1], [0.05, 0.05, 0.05]], dtype=torch.float64)


def dense(apply):
    count = SHAPE[1] * SHAPE[2]
    return apply(torch.eye(count, dtype=torch.float64).reshape(count, *SHAPE)).reshape(count, -1).T


@pytest.fixture(scope="module")
def prior():
    return mute_prior()


@pytest.fixture
def operator_and_y():
    operator = KSpaceMask(line_mask((32, 32), 3, 0.15, seed=1), (1, 32, 32), torch.float32)
    return operator, GaussianNoise(0.2).sample(operator(images(2, 0)), torch.Generator().manual_seed(50))


@pytest.fixture
def case():
    """A blurred measurement, a decoded image, ``V``, and the dense posterior's mean and covariance."""
    generator = torch.Generator().manual_seed(0)
    operator = CircularBlur(kernel(), SHAPE, torch.float64)
    x0, y = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    variance = (0.5 / (1 + radius(8, 6).double()))[None]
    a = dense(operator)
    square = dense(lambda u: local_spread(x0) * ifft2(variance.sqrt() * fft2(u)).real)
    prior = torch.linalg.inv(square @ square.T)
    covariance = torch.linalg.inv(a.T @ a / SIGMA**2 + prior)
    mean = covariance @ (a.T @ y.flatten() / SIGMA**2 + prior @ x0.flatten())
    return operator, x0, y, variance, mean.reshape(1, *SHAPE), covariance


def models(operator, y):
    is_complex = y.is_complex()
    folded = fold(fft2(y), operator.transfer(), SIGMA, real_image=not is_complex, complex_noise=is_complex)
    sigma = torch.full((len(y),), SIGMA, dtype=torch.float64)
    return {"diagonal": DiagonalLikelihood(folded, is_complex), "general": OperatorLikelihood(operator, y, sigma)}


@pytest.mark.parametrize("path", ["diagonal", "general"])
def test_the_mean_is_the_dense_posteriors(case, path):
    operator, x0, y, variance, mean, _ = case
    data = models(operator, y)[path]
    found = LocalError(data, x0, variance, tolerance=0.0).mean(x0)
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6)
    if path == "general":
        assert data.solves.applications > 0
        assert float(data.solves.residual.max()) < 1e-8


@pytest.mark.parametrize("path", ["diagonal", "general"])
def test_draws_have_the_dense_posteriors_covariance(case, path):
    operator, x0, y, variance, mean, covariance = case
    count = 3000
    data = models(operator, y.expand(count, *SHAPE))[path]
    generator = torch.Generator().manual_seed(1)

    def white(shape):
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    many = x0.expand(count, *SHAPE)
    _, draws = LocalError(data, many, variance, tolerance=1e-8).draw(many, white)
    gap = (draws - mean).flatten(1)
    found = gap.T @ gap / count
    assert float((found - covariance).norm() / covariance.norm()) < 0.15
    torch.testing.assert_close(found.diagonal(), covariance.diagonal(), rtol=0.15, atol=0)


def test_the_spread_has_mean_square_one_and_follows_the_image():
    image = torch.zeros(2, 1, 33, 40)
    image[:, :, 10:20, 10:25] = torch.tensor([1.0, 7.0]).reshape(2, 1, 1, 1)
    spread = local_spread(image)
    torch.testing.assert_close(spread.square().mean((-3, -2, -1)), torch.ones(2))
    torch.testing.assert_close(spread[0], spread[1])
    assert float(spread[0, 0, 15, 17] / spread[0, 0, 30, 35]) == pytest.approx((1 / 0.05**2 + 1) ** 0.5, rel=0.02)


def test_a_black_image_has_the_same_spread_everywhere():
    torch.testing.assert_close(local_spread(torch.zeros(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


def test_complex_images_keep_their_kind():
    generator = torch.Generator().manual_seed(2)
    x0, y = (torch.randn(1, *SHAPE, generator=generator, dtype=torch.complex128) for _ in range(2))
    operator = CircularBlur(kernel(), SHAPE, torch.complex128)
    variance = (0.5 / (1 + radius(8, 6).double()))[None]
    both = [LocalError(data, x0, variance, 0.0).mean(x0) for data in models(operator, y).values()]
    assert both[0].is_complex()
    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_samples_spread_as_the_error_bar_says(prior, operator_and_y):
    operator, y = operator_and_y
    recipe = recipe_of(steps=0, error="local")
    result = solve(y, operator, prior, noise=GaussianNoise(0.2), recipe=recipe, samples=40)
    spread = (result.samples - result.image).square().mean(0)
    assert float((spread / result.std.square()).mean()) == pytest.approx(1.0, abs=0.1)


def test_a_batch_gives_what_singles_give(prior, operator_and_y):
    operator, y = operator_and_y
    recipe = recipe_of(steps=0, error="local")
    whole = solve(y, operator, prior, noise=GaussianNoise(0.2), recipe=recipe).image
    single = torch.stack([solve(item, operator, prior, noise=GaussianNoise(0.2), recipe=recipe).image for item in y])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=2e-4)


def test_without_noise_the_measurement_is_kept(prior, operator_and_y):
    """As far as to a hundredth of the decoder's error, and float32, go."""
    operator, _ = operator_and_y
    y = operator(images(2, 0))
    found = solve(y, operator, prior, noise=GaussianNoise(0.0), recipe=recipe_of(steps=0, error="local")).image
    assert float((operator(found) - y).norm() / y.norm()) < 0.02


@pytest.mark.parametrize("path", ["diagonal", "general"])
def test_the_exponent_is_the_dense_posteriors(case, path):
    operator, x0, y, variance, mean, covariance = case
    local = LocalError(models(operator, y)[path], x0, variance, tolerance=0.0)
    x = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    off = (x - mean).flatten()
    wanted = 0.5 * off @ torch.linalg.solve(covariance, off)
    found = local.exponent(x, x0) - local.exponent(mean, x0)
    torch.testing.assert_close(found, wanted[None], rtol=1e-6, atol=1e-6)


def test_a_poor_guess_of_precise_kspace_is_closed_by_the_exact_mode_and_a_good_one_is_clamped(prior):
    operator = KSpaceMask(line_mask((32, 32), 2, 0.2, seed=1), (1, 32, 32), torch.float32)
    x = images(2, 0).clamp_min(0)
    problem = pose(operator(x), operator, prior, torch.full((2,), 0.01), Options())
    x = x / problem.gain.reshape(-1, 1, 1, 1)
    poor = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    guesses = torch.stack([poor[0], x[1]])
    local = LocalError(problem.likelihood, guesses, problem.variance, tolerance=1e-4)
    found, clamped = local.nonnegative(guesses), local.mean(guesses).clamp_min(0)
    torch.testing.assert_close(found[1], clamped[1])
    assert found.min() >= 0
    exponents = [local.exponent(image, guesses)[0] for image in (found, clamped)]
    assert exponents[0] < exponents[1] - 10


def test_precise_data_are_not_explained_by_the_map_of_the_error_alone():
    """An error far beyond the usual one that does not follow the image: half of k-space, hardly any noise."""
    generator = torch.Generator().manual_seed(0)
    power = (1 + radius(32, 32).double()[None].square()) ** -1.5

    def smooth():
        white = torch.randn(1, 1, 32, 32, generator=generator, dtype=torch.float64)
        return ifft2(power.sqrt() * fft2(white)).real

    x0 = 4 * smooth().clamp_min(0)
    truth = x0 + smooth()
    operator = KSpaceMask(line_mask((32, 32), 2, 0.2, seed=1), (1, 32, 32), torch.float64)
    y = GaussianNoise(1e-3).sample(operator(truth), generator)
    folded = fold(operator.to_grid(y), operator.transfer(), 1e-3, real_image=True, complex_noise=True)
    data = DiagonalLikelihood(folded, False)
    believed, doubted = (LocalError(data, x0, power, 0.0, usual).mean(x0) for usual in (None, 1e-3 * power))
    assert (doubted - truth).norm() < 0.7 * (believed - truth).norm()
