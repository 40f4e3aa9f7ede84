"""The stationary Gaussian answers where the trained prior does not fit."""

import warnings

import numpy as np
import pytest
import skimage
import torch
from tiny import bundled, circulant, decaying_power, images, relative, tiny_network, tiny_prior, tiny_reader

import iasolve
from iasolve import UnlikePriorWarning, solve
from iasolve.inference import Gaussian, Options, fitted_power, trials, unexplained
from iasolve.operators import (
    CircularBlur,
    Convolution,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    NonUniformFourier,
    PixelMask,
    gaussian_kernel,
    line_mask,
)
from iasolve.priors import HVAEPrior
from iasolve.problem import Measurement
from iasolve.samples import load_samples
from iasolve.spectrum import fft2, ifft2, radius

SHAPE = (1, 32, 32)
DOUBLE = torch.float64
TRAINED = {"validation": {"elbo": 0.0}}


def untrained(dtype=torch.float32, is_complex=False, **card):
    """The tiny prior, whose weights are random and images too strong, as one that its card says to be trained."""
    network = tiny_network(is_complex=is_complex)
    network.ring_std.mul_(50)
    return HVAEPrior(network, "tiny", TRAINED | card).to(dtype=dtype)


def measured(operator, sigma, count=2, dtype=torch.float32):
    x = images(count, dtype=dtype)
    y = GaussianNoise(sigma).sample(operator(x), torch.Generator().manual_seed(3))
    y = y * operator.mask if isinstance(operator, KSpaceMask) else y
    return x, y


def batch_of(operator, sigma, count=2, dtype=torch.float32):
    x, y = measured(operator, sigma, count, dtype)
    return x, Measurement(y, torch.full((count,), sigma, dtype=DOUBLE if dtype == DOUBLE else torch.float32), operator)


def operators(dtype=torch.float32):
    blur = CircularBlur(gaussian_kernel(1.0), SHAPE, dtype)
    points = torch.rand(32, 32, generator=torch.Generator().manual_seed(2)) < 0.3
    points[12:21, 12:21] = True
    return {
        "identity": Identity(SHAPE, dtype),
        "blur": blur,
        "points": KSpaceMask(points, SHAPE, dtype),
        "any": LinearOperator.from_functions(blur.forward, blur.adjoint, in_shape=SHAPE, dtype=dtype),
    }


@pytest.mark.parametrize("name", ["identity", "blur", "points", "any"])
@pytest.mark.slow
def test_an_untrained_prior_gives_way_and_says_so(name):
    operator = operators()[name]
    x, y = measured(operator, 0.1)
    noise = GaussianNoise(0.1)
    with pytest.warns(UnlikePriorWarning, match=r"2 of 2 images are unlike those .*'tiny' was trained on.*falls back"):
        result = solve(y, operator, untrained(), noise=noise, recipe="fast")
    assert result.prior_used == ["gaussian", "gaussian"]
    alone = solve(y, operator, untrained(), noise=noise, recipe="fast", fallback=False, warn=False)
    assert alone.prior_used == ["tiny", "tiny"]
    assert relative(result.image, x) < relative(alone.image, x)


def test_the_answer_is_the_posterior_mean_of_the_fitted_gaussian():
    operator = CircularBlur(gaussian_kernel(1.0), SHAPE, DOUBLE)
    _, batch = batch_of(operator, 0.2, dtype=DOUBLE)
    found = Gaussian(batch, tiny_prior(DOUBLE), Options())
    power = found.power * found.problem.gain.square().reshape(-1, 1, 1, 1)
    basis = torch.eye(32 * 32, dtype=DOUBLE).reshape(-1, *SHAPE)
    matrix = operator(basis).reshape(32 * 32, -1).T
    for item, y, image in zip(power[:, 0], batch.y, found.image(False), strict=True):
        covariance = circulant(item)
        gain = covariance @ matrix.T @ torch.linalg.inv(matrix @ covariance @ matrix.T + 0.04 * torch.eye(32 * 32))
        torch.testing.assert_close(image.flatten(), gain @ y.flatten(), rtol=1e-6, atol=1e-8)


def test_the_level_of_each_band_is_that_of_the_image():
    x = 3 * images(1, dtype=DOUBLE)
    true = 9 * decaying_power(32)
    # a prior that expects ten times less of everything beyond 4 cycles
    network = tiny_network()
    with torch.no_grad():
        network.power[..., radius(32, 32) > 4] *= 0.1
    prior = HVAEPrior(network, "dull", {}).to(dtype=DOUBLE)
    y = GaussianNoise(0.01).sample(x, torch.Generator().manual_seed(0))
    found = Gaussian(Measurement(y, torch.tensor([0.01], dtype=DOUBLE), Identity(SHAPE, DOUBLE)), prior, Options())
    fine = radius(32, 32) > 4
    power = found.power[0, 0] * found.problem.gain.square()
    assert float((power[fine] / true[fine]).log().mean().exp()) == pytest.approx(1, abs=0.25)


def test_the_error_bar_is_as_large_as_the_error():
    operator = Identity(SHAPE)
    x, y = measured(operator, 0.3, count=8)
    result = solve(y, operator, untrained(), noise=GaussianNoise(0.3), recipe="fast", samples=6, warn=False)
    assert set(result.prior_used) == {"gaussian"}
    assert result.samples.shape == (6, 8, *SHAPE)
    error = float((result.image - x).square().mean().sqrt())
    assert float(result.std.square().mean().sqrt()) == pytest.approx(error, rel=0.15)
    spread = (result.samples - result.image).square().mean().sqrt()
    assert float(spread) == pytest.approx(error, rel=0.15)


@pytest.mark.parametrize("name", ["identity", "blur", "any"])
def test_noise_drawn_anew_tells_the_error(name):
    """Of estimates of what is seen, the trial's error differs as their distances from the truth do."""
    operator = operators(DOUBLE)[name]
    x, batch = batch_of(operator, 0.3, count=40, dtype=DOUBLE)
    trial = next(trials(batch))
    assert torch.allclose(trial.seen.sigma, batch.sigma * 1.25**0.5)
    near, far = 0.9 * trial.seen.y, 0.5 * trial.seen.y
    power = torch.ones_like(x)
    assert bool((trial.error(x, power) < trial.error(far, power)).all())
    if name == "identity":
        true = ((near - x).square() - (far - x).square()).flatten(1).sum(1).mean()
        found = (trial.error(near, power) - trial.error(far, power)).mean()
        # frequencies are weighted by 1 / (|D|^2 + 0.003)
        assert 1.003 * float(found) == pytest.approx(float(true), rel=0.1)


def test_noise_of_both_parts_of_complex_values_is_independent():
    operator = Identity((1, 64, 64), torch.complex64)
    y = torch.zeros(1, 1, 64, 64, dtype=torch.complex64)
    fresh = next(trials(Measurement(y, torch.ones(1), operator))).seen.y
    assert float(fresh.abs().square().mean()) == pytest.approx(0.25, rel=0.05)
    assert abs(float((fresh.real * fresh.imag).mean())) < 0.01


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_what_is_kept_back_of_k_space_is_not_seen(lines, dtype):
    generator = torch.Generator().manual_seed(1)
    mask = line_mask((32, 48), 2, 0.2) if lines else (torch.rand(32, 48, generator=generator) < 0.4).float()
    operator = KSpaceMask(mask, (1, 32, 48), dtype)
    x = torch.randn(2, 1, 32, 48, dtype=dtype, generator=generator)
    trial = next(trials(Measurement(operator(x), torch.full((2,), 0.1), operator)))
    seen = (trial.seen.y != 0).any(0)[0]
    back = (operator(x) != 0).any(0)[0] & ~seen
    assert 0 < int(back.sum()) < 0.35 * int((operator(x) != 0).any(0).sum())
    assert bool((back.any(0) == back.all(0)).all()) == lines
    assert not bool(back[16, 24])
    # nothing of it is left in the mirrored half of a real image's k-space either
    mirrored = torch.roll(back.flip(0, 1), (1, 1), (0, 1))
    if not dtype.is_complex:
        assert not bool((mirrored & seen).any())
    torch.testing.assert_close(trial.seen.operator(x), trial.seen.y)
    power = torch.ones((2, 1, 32, 48))
    assert float(trial.error(x, power).max()) < 1e-6
    assert float(trial.error(torch.zeros_like(x), power).min()) > 1
    other = list(trials(Measurement(operator(x), torch.full((2,), 0.1), operator)))[1]
    assert bool(other.back.any())
    assert not bool((other.back & trial.back).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_errors_of_k_space_are_over_what_the_gaussian_expects(dtype):
    """The part kept back, of noise and a Gaussian image, has under the image zero the deviation that was expected."""
    shape, generator = (1, 32, 48), torch.Generator().manual_seed(1)
    power = radius(32, 48).clamp_min(1) ** -3.0
    mask = (torch.rand(32, 48, generator=generator) < 0.5).float()
    operator = KSpaceMask(mask, shape, dtype)
    x = torch.randn(200, *shape, dtype=dtype, generator=generator)
    x = ifft2(fft2(x) * power.sqrt())
    x = x if dtype.is_complex else x.real
    noise = GaussianNoise(0.02)
    y = noise.sample(operator(x), generator) * mask
    trial = next(trials(Measurement(y, torch.full((200,), noise.sigma), operator)))
    found = trial.error(torch.zeros_like(x), power.expand(200, *shape))
    deviation = (torch.fft.fftshift(power) + noise.sigma**2).sqrt()
    assert float(found.mean()) == pytest.approx(float(deviation[trial.back].sum()), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_how_much_larger_the_error_is_than_expected_is_told_by_what_was_kept_back(dtype):
    shape, generator = (1, 64, 96), torch.Generator().manual_seed(1)
    mask = (torch.rand(64, 96, generator=generator) < 0.5).float()
    operator = KSpaceMask(mask, shape, dtype)
    x = torch.randn(30, *shape, dtype=dtype, generator=generator)
    noise = GaussianNoise(0.004)
    y = noise.sample(operator(x), generator) * mask
    trial = next(trials(Measurement(y, torch.full((30,), noise.sigma), operator)))
    expected = (0.02 * radius(64, 96).clamp_min(1) ** -1.0).expand(30, *shape)
    for factor in (0.25, 1.0, 4.0):
        error = ifft2(fft2(torch.randn(x.shape, dtype=dtype, generator=generator)) * (factor * expected).sqrt())
        found = trial.surplus(x + (error if dtype.is_complex else error.real), expected)
        # about 500 places are kept back, in a real image each twice
        assert float(found.log().std()) < 0.15
        assert float(found.mean()) == pytest.approx(factor, rel=0.15)
    other = next(trials(Measurement(x, torch.full((30,), 0.1), PixelMask(torch.ones(64, 96), shape, dtype))))
    assert torch.equal(other.surplus(x, expected), torch.ones(30))


@pytest.mark.parametrize("operator", [Identity((1, 64, 64)), CircularBlur(gaussian_kernel(1.0), (1, 64, 64))])
def test_noise_drawn_anew_tells_how_large_the_error_is(operator):
    generator = torch.Generator().manual_seed(1)
    x, sigma = torch.randn(100, *operator.in_shape, generator=generator), 0.5
    y = GaussianNoise(sigma).sample(operator(x), generator)
    trial = next(trials(Measurement(y, torch.full((100,), sigma), operator)))
    expected = (0.2 * sigma**2 * torch.ones(64, 64)).expand(100, *operator.in_shape)
    found = []
    for factor in (0.25, 1.0, 4.0):
        error = ifft2(fft2(torch.randn(x.shape, generator=generator)) * (factor * expected).sqrt()).real
        found.append(trial.surplus(x + error, expected))
    # of little information: pulled to 1, and never down to nothing
    low, usual, high = (float(one.mean()) for one in found)
    assert low < usual < high
    assert 0.7 < usual < 1.5
    assert 0.25 < low < 1.3
    assert 1.1 < high < 4.5
    assert float(found[0].min()) > 0.1


def test_a_batch_is_judged_image_by_image():
    prior = bundled("mri-t1-128")
    head = torch.from_numpy(load_samples().images[0]).float()
    head = head / head.std()
    generator = torch.Generator().manual_seed(0)
    text = torch.rand(head.shape, generator=generator) * 2
    operator, noise = Identity((1, 128, 128)), GaussianNoise(0.1)
    y = noise.sample(torch.stack([head, text])[:, None], generator)
    with pytest.warns(UnlikePriorWarning, match="1 of 2 images are unlike"):
        both = solve(y, operator, prior, noise=noise, recipe="fast", samples=2)
    assert both.prior_used == ["mri-t1-128", "gaussian"]
    for index in range(2):
        one = solve(y[index].numpy(), operator, prior, noise=noise, recipe="fast", samples=2, warn=False)
        assert one.prior_used == both.prior_used[index]
        np.testing.assert_allclose(one.image, both.image[index], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.std, both.std[index], rtol=1e-3, atol=1e-4)
    trained = solve(y[1], operator, prior, noise=noise, recipe="fast", fallback=False, warn=False).image
    error = lambda image: float((image - text).square().mean())  # noqa: E731
    assert error(both.image[1]) < min(error(trained), error(y[1]))


def test_images_with_a_sign_are_not_bounded():
    prior = untrained(nonnegative=True)
    x = images(1)
    y = GaussianNoise(0.1).sample(x, torch.Generator().manual_seed(0))
    result = solve(y, Identity(SHAPE), prior, noise=GaussianNoise(0.1), recipe="fast", warn=False)
    assert result.prior_used == ["gaussian"]
    assert relative(result.image, x) < relative(y, x)
    magnitude = x.abs()
    y = GaussianNoise(0.1).sample(magnitude, torch.Generator().manual_seed(0))
    result = solve(y, Identity(SHAPE), prior, noise=GaussianNoise(0.1), recipe="fast", warn=False, samples=2)
    assert float(result.image.min()) == 0
    assert float(result.samples.min()) == 0


def test_images_of_any_size_and_kind():
    for shape, dtype in (((1, 20, 44), torch.float32), ((1, 40, 33), torch.complex64)):
        prior = untrained(is_complex=dtype.is_complex)
        x = torch.ones(shape, dtype=dtype)
        y = GaussianNoise(0.1).sample(x, torch.Generator().manual_seed(0))
        result = solve(y, Identity(shape, dtype), prior, noise=GaussianNoise(0.1), recipe="fast", warn=False)
        assert result.prior_used == "gaussian"
        assert result.image.shape == shape
        assert result.image.dtype == dtype
        assert relative(result.image, x) < relative(y, x)


def test_a_reader_gives_way_too():
    reader = tiny_reader()
    reader.power.mul_(1000)
    prior = HVAEPrior(tiny_network(), "tiny", TRAINED, reader=reader)
    x, y = measured(Identity(SHAPE), 0.1)
    with pytest.warns(UnlikePriorWarning, match="images are unlike"):
        result = solve(y, Identity(SHAPE), prior, noise=GaussianNoise(0.1), recipe="fast")
    assert result.prior_used == ["gaussian", "gaussian"]
    assert relative(result.image, x) < relative(y, x)


def test_recipes_that_ask_for_the_priors_own_image_have_no_rival():
    _, y = measured(Identity(SHAPE), 0.1)
    recipe = iasolve.load_recipe("fast").changed(closing={"error": "none"})
    assert solve(y, Identity(SHAPE), untrained(), noise=GaussianNoise(0.1), recipe=recipe).prior_used == ["tiny"] * 2


def test_blank_images_stay_blank():
    y = torch.zeros(2, *SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlikePriorWarning)
        result = solve(y, Identity(SHAPE), untrained(), noise=GaussianNoise(0.1), recipe="fast", samples=2)
    assert bool(torch.isfinite(result.image).all())
    assert float(result.image.abs().max()) < 0.02


@pytest.mark.parametrize("sigma", [30.0, 1e-6])
def test_blank_images_stay_blank_off_the_exact_path(sigma):
    """Their scale was 1, whatever the noise, and what the prior makes of nothing came back at that scale."""
    angles = np.arange(12) * np.pi / 12
    spokes = np.stack([np.outer(np.sin(angles), np.arange(-16, 16)), np.outer(np.cos(angles), np.arange(-16, 16))], -1)
    known = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.5
    for operator in (NonUniformFourier(spokes.reshape(-1, 2), SHAPE), PixelMask(known, SHAPE)):
        y = torch.zeros(2, *operator.out_shape, dtype=operator.out_dtype)
        y[1] = operator(batch_of(Identity(SHAPE), 0.1)[0][0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnlikePriorWarning)
            result = solve(y, operator, untrained(), noise=GaussianNoise(sigma), recipe="fast")
        assert float(result.image[0].abs().max()) < 0.05 * sigma
        assert float(result.gain[0]) < 0.1 * sigma


def test_a_residual_is_in_units_of_the_noise():
    _, batch = batch_of(Identity(SHAPE), 0.5)
    noise = torch.randn(batch.y.shape, generator=torch.Generator().manual_seed(5))
    assert float(unexplained(batch, batch.y - 0.5 * noise).mean()) == pytest.approx(1, abs=0.1)
    assert float(unexplained(batch, batch.y + 3).min()) > 30


def test_fitted_power_of_bands_without_data_is_the_priors():
    mask = torch.zeros(32, 32)
    mask[12:21, 12:21] = 1
    operator = KSpaceMask(mask, SHAPE)
    _, batch = batch_of(operator, 0.05)
    found = Gaussian(batch, tiny_prior(), Options())
    far = radius(32, 32) > 8
    ratio = fitted_power(found.problem)[:, 0][:, far] / found.problem.power[0][far]
    torch.testing.assert_close(ratio, torch.ones_like(ratio))


def test_fft_of_the_answer_is_the_shrunk_spectrum():
    _, batch = batch_of(Identity(SHAPE), 0.3)
    found = Gaussian(batch, tiny_prior(), Options())
    power = found.power * found.problem.gain.square().reshape(-1, 1, 1, 1)
    expected = power / (power + 0.09) * fft2(batch.y)
    torch.testing.assert_close(fft2(found.image(False)), expected, rtol=1e-3, atol=1e-3)


def test_off_the_exact_path_errors_count_where_a_blur_hides_them():
    """In units of the measurement, an image without the detail that the blur removes would look as good."""
    prior = bundled("mri-t1-128")
    head = torch.from_numpy(load_samples().images[0]).float()[None, 20:108, 20:108]
    head = head / head.max()
    operator = Convolution(gaussian_kernel(2.0), (1, 88, 88))
    noise = GaussianNoise(0.01)
    for seed in range(2):
        y = noise.sample(operator(head), torch.Generator().manual_seed(seed))
        assert solve(y, operator, prior, noise=noise, recipe="fast", warn=False).prior_used == "mri-t1-128"


@pytest.mark.parametrize(("acceleration", "centre", "seeds"), [(4, 0.08, (1,)), (8, 0.04, (0, 2))])
@pytest.mark.slow
def test_few_lines_do_not_speak_against_the_priors_own_images(acceleration, centre, seeds):
    prior = bundled("mri-t1-128")
    heads = torch.from_numpy(load_samples().images).float()[:, None]
    heads = heads / heads.amax((1, 2, 3), keepdim=True)
    for seed in seeds:
        mask = line_mask((128, 128), acceleration, centre, seed=seed)
        operator, noise = KSpaceMask(mask, (1, 128, 128)), GaussianNoise(0.005)
        y = noise.sample(operator(heads), torch.Generator().manual_seed(seed)) * mask
        result = solve(y, operator, prior, noise=noise, recipe="fast", warn=False)
        assert set(result.prior_used) == {"mri-t1-128"}


@pytest.mark.parametrize("kind", ["flat", "noise"])
def test_few_lines_tell_images_that_a_prior_spoils(kind):
    prior = bundled("mri-t1-128")
    image = {
        "flat": torch.ones(128, 128),
        "noise": torch.rand(128, 128, generator=torch.Generator().manual_seed(3)),
    }[kind][None, None]
    mask = line_mask((128, 128), 4, 0.08, seed=1)
    operator = KSpaceMask(mask, (1, 128, 128))
    noise = GaussianNoise(0.02 * float(image.std()) or 0.02)
    y = noise.sample(operator(image), torch.Generator().manual_seed(0)) * mask
    result = solve(y, operator, prior, noise=noise, recipe="fast", warn=False)
    alone = solve(y, operator, prior, noise=noise, recipe="fast", warn=False, fallback=False)
    assert result.prior_used == ["gaussian"]
    assert relative(result.image, image) < relative(alone.image, image)


def test_a_reading_that_contradicts_its_measurement_takes_the_exact_mode():
    """A point on nothing: where what is below zero was merely cut off, the trial went against the prior."""
    prior, operator = (
        bundled("mri-t1-128"),
        KSpaceMask(line_mask((128, 128), 4, 0.08, seed=1), (1, 128, 128)),
    )
    point = torch.zeros(1, 1, 128, 128)
    point[..., 64, 64] = 1
    noise = GaussianNoise(1.5e-4)
    y = noise.sample(operator(point), torch.Generator().manual_seed(0)) * operator.mask
    result = solve(y, operator, prior, noise=noise, recipe="fast", warn=False)
    assert relative(result.image, point) < 0.05  # 0.74 by the linear estimate


def test_a_reader_alone_warns_of_images_whose_coarse_power_is_another():
    """A picture that fills its frame: one reading is quick, and the bound is not asked for it."""
    prior = bundled("mri-t1-128")
    head = torch.from_numpy(load_samples().images[0]).float()[None]
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    picture = (100 + 40 * torch.sin(rows / 9) * torch.cos(columns / 14))[None]
    noise, operator = GaussianNoise(5.0), Identity((1, 128, 128))
    generator = torch.Generator().manual_seed(0)
    with pytest.warns(UnlikePriorWarning, match="power of its coarse scales"):
        result = solve(noise.sample(picture, generator), operator, prior, noise=noise, recipe="fast")
    assert bool(torch.isnan(result.likeness).all())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(noise.sample(head, generator), operator, prior, noise=noise, recipe="fast")


@pytest.mark.parametrize(
    "operator", [KSpaceMask(line_mask((128, 128), 4, 0.08, seed=0), (1, 128, 128)), LowPass(8, (1, 128, 128))]
)
def test_noise_where_nothing_was_measured_does_not_speak_against_the_prior(operator):
    """It once did: 4x lines of the prior's own images fell back, 7 dB below its guess."""
    head = torch.from_numpy(load_samples().images[:2, None]).float()
    sigma = 0.02 * float(head.std())
    y = GaussianNoise(sigma).sample(operator(head), torch.Generator().manual_seed(0))
    prior = bundled("mri-t1-128")
    everywhere = solve(y, operator, prior, noise=GaussianNoise(sigma), recipe="fast", warn=False)
    assert everywhere.fits.all()
    if operator.codomain == "kspace":
        masked = solve(y * operator.mask, operator, prior, noise=GaussianNoise(sigma), recipe="fast", warn=False)
        torch.testing.assert_close(everywhere.image, masked.image, rtol=1e-3, atol=5e-3 * float(head.max()))


@pytest.mark.slow
def test_half_of_the_pixels_do_not_speak_against_the_prior():
    """By one reading alone they did: 3 in 4 heads fell back, 2 dB below the prior's answer."""
    image, prior = load_samples().images[:2, None], bundled("mri-t1-128")
    heads = torch.from_numpy(image).float()
    operator = PixelMask(torch.rand(128, 128, generator=torch.Generator().manual_seed(0)) < 0.5, (1, 128, 128))
    noise = GaussianNoise(0.05 * float(heads.std()))
    y = noise.sample(operator(heads), torch.Generator().manual_seed(0)) * operator.mask
    result = solve(y, operator, prior, noise=noise, warn=False)
    assert result.recipe.name == "compressed-sensing"
    assert result.fits.all()


def test_images_of_flat_regions_are_said_to_be_so():
    """Cells with flat insides, where total variation is far ahead; a head is none of them."""
    rows, columns = np.mgrid[:128, :128]
    cells = np.zeros((128, 128), np.float32)
    for value, row, column in ((1.0, 40, 40), (0.6, 80, 50), (0.8, 60, 90), (0.4, 95, 95)):
        cells[(rows - row) ** 2 + (columns - column) ** 2 < 18**2] = value
    prior = bundled("photo-grey-128")
    generator = torch.Generator().manual_seed(0)
    for image, flat in ((torch.from_numpy(cells)[None], True), (head(), False)):
        noise = GaussianNoise(0.05 * float(image.std()))
        y = noise.sample(image, generator)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnlikePriorWarning)
            solve(y, Identity((1, 128, 128)), prior, noise=noise, recipe="fast")
        assert any("flat regions" in str(one.message) for one in caught) == flat


def head():
    return torch.from_numpy(load_samples().images[:1]).float()


@pytest.mark.slow
def test_a_texture_is_a_mean_of_both_answers():
    """Lines of fine grain, of which the prior makes a little: its answer alone lies below the linear one."""
    grain = torch.from_numpy(skimage.data.grass().reshape(128, 4, 128, 4).mean((1, 3))).float()
    truth = (grain / grain.std())[None, None]
    operator, noise = KSpaceMask(line_mask((128, 128), 4, 0.08, seed=1), (1, 128, 128)), GaussianNoise(0.02)
    y = noise.sample(operator(truth), torch.Generator().manual_seed(0)) * operator.mask
    prior = bundled("mri-t1-128")
    with pytest.warns(UnlikePriorWarning, match=r"a linear \(Wiener\) estimate beside the prior's answer"):
        result = solve(y, operator, prior, noise=noise, recipe="compressed-sensing")
    own = solve(y, operator, prior, noise=noise, recipe="compressed-sensing", fallback=False, warn=False)
    assert 0 < float(result.weight) < 0.75
    assert float((result.image - truth).norm()) < 0.96 * float((own.image - truth).norm())
    # on a line between the two
    batch = Measurement(y, torch.tensor([0.02]), operator).shifted(prior, "auto")
    offset = 0 if batch.offset is None else float(batch.offset)
    rivals = [Gaussian(batch, prior, Options()).image(bounded) + offset for bounded in (False, True)]
    weight = float(result.weight)
    means = [weight * own.image + (1 - weight) * rival for rival in rivals]
    assert min(relative(result.image, mean) for mean in means) < 1e-3
