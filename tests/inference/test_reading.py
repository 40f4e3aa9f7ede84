"""Solutions of a prior with a reader: whole images of any size, passes, and the mean with the hierarchy's."""

import sys

import pytest
import torch
from tiny import SIZE, bundled, decaying_power, images, reading_prior, relative, tiny_network, tiny_reader

from iasolve import PriorError, ReaderPrior, Recipe, RecipeError, load_prior, load_recipe, solve
from iasolve.evidence import fold, wiener_posterior
from iasolve.inference.passes import mirrors
from iasolve.inference.sampling import StationaryError
from iasolve.metrics import psnr
from iasolve.operators import (
    CircularBlur,
    Convolution,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    Radon,
    line_mask,
    motion_kernel,
)
from iasolve.priors import HVAEPrior, save_checkpoint
from iasolve.samples import load_samples
from iasolve.spectrum import fft2

DOUBLE = torch.float64
ONE = Recipe(views=1, steps={"count": 0})


def noisy(x, sigma=0.3):
    generator = torch.Generator().manual_seed(5)
    return x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize("shape", [(32, 32), (20, 37), (90, 41), (3, 3), (1, 17)])
@pytest.mark.parametrize("is_complex", [False, True])
def test_the_guess_is_the_readers_posterior_mean(shape, is_complex):
    """Against the reader asked by hand, at the gain that the solver reports."""
    dtype = torch.complex128 if is_complex else DOUBLE
    prior = reading_prior(DOUBLE, is_complex)
    x = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    y = noisy(x)
    # a noisy image itself is continued beyond its frame first: see test_edges
    operator = CircularBlur(torch.ones(1, 1), (1, *shape), dtype)
    result = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=ONE, warn=False)
    for i, gain in enumerate(result.gain):
        folded = fold(
            fft2(y[i : i + 1] / gain),
            torch.ones(shape),
            0.3 / gain,
            real_image=not is_complex,
            complex_noise=is_complex,
        )
        reading = prior.reader(*wiener_posterior(folded, prior.reader.power, is_complex=is_complex))
        assert relative(result.image[i], gain * reading.estimate[0]) < 1e-9


def test_a_batch_gives_what_single_images_give():
    prior = reading_prior(DOUBLE)
    y = noisy(images(3, dtype=DOUBLE))
    operator = Identity((1, SIZE, SIZE), DOUBLE)
    recipe = ONE.changed(views=3, passes={"count": 2})
    together = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=recipe, warn=False)
    for i in range(3):
        alone = solve(y[i], operator, prior, noise=GaussianNoise(0.3), recipe=recipe, warn=False)
        assert relative(together.image[i], alone.image) < 1e-9


def test_magnitudes_stay_above_zero():
    prior = reading_prior(DOUBLE, nonnegative=True)
    y = noisy(images(1, dtype=DOUBLE).abs())
    operator = Identity((1, SIZE, SIZE), DOUBLE)
    plain = ONE.changed(closing={"error": "none"})
    bounded = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=plain, warn=False)
    free = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=plain, warn=False, nonnegative=False)
    assert float(free.image.min()) < 0
    assert relative(bounded.image, free.image.clamp_min(0)) < 1e-12
    # this reader is not trained, and what it says contradicts the measurement: closed, it says so less
    closed = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=ONE, warn=False, fallback=False)
    assert float(closed.image.min()) >= 0
    assert float((closed.image - y).square().mean()) < float((bounded.image - y).square().mean())


@pytest.mark.parametrize("is_complex", [False, True])
def test_passes_keep_exact_measurements_and_need_no_conjugate_gradients(is_complex):
    dtype = torch.complex128 if is_complex else DOUBLE
    prior = reading_prior(DOUBLE, is_complex)
    operator = KSpaceMask(line_mask((SIZE, SIZE), 3, 0.15, seed=1), (1, SIZE, SIZE), dtype)
    y = operator(images(2, dtype=dtype))
    recipe = ONE.changed(passes={"count": 3})
    result = solve(y, operator, prior, noise=GaussianNoise(1e-6), recipe=recipe, warn=False)
    assert relative(operator(result.image), y) < 1e-4
    assert result.solver is None
    once = solve(y, operator, prior, noise=GaussianNoise(1e-6), recipe=ONE, warn=False)
    assert relative(result.image, once.image) > 1e-3


def test_any_operator_is_read():
    """A matrix that no transform makes diagonal, on an image of an odd size."""
    prior = reading_prior()
    x = torch.randn(1, 1, 9, 11, generator=torch.Generator().manual_seed(0))
    matrix = torch.randn(120, 99, generator=torch.Generator().manual_seed(1)) / 10
    operator = LinearOperator.from_functions(
        lambda v: v.flatten(-3) @ matrix.T,
        lambda v: (v @ matrix).unflatten(-1, (1, 9, 11)),
        in_shape=(1, 9, 11),
    )
    y = operator(x)
    result = solve(y, operator, prior, noise=GaussianNoise(1e-3), recipe=ONE.changed(passes={"count": 4}), warn=False)
    assert result.image.shape == x.shape
    # more rows than unknowns, and next to no noise: the answer is the image
    assert relative(result.image, x) < 0.05
    assert int(result.solver["applications"]) > 0


OFF_THE_EXACT_PATH = {
    "valid": Convolution(motion_kernel(9, 0.5), (1, 128, 128), boundary="valid"),
    "projections": Radon(torch.linspace(0, 180, 19)[:-1], (1, 128, 128)),
}


@pytest.mark.parametrize("name", OFF_THE_EXACT_PATH)
@pytest.mark.slow
def test_a_reading_of_any_operator_agrees_with_the_measurement(name):
    """Of projections only each ring's evidence is known: a reading had seven times the noise, and lost its trial."""
    clean = torch.from_numpy(load_samples().images[3]).float()[None]
    operator = OFF_THE_EXACT_PATH[name]
    noise = GaussianNoise(0.02 * float(operator(clean).std()))
    y = noise.sample(operator(clean), torch.Generator().manual_seed(0))
    result = solve(y, operator, bundled("mri-t1-128"), noise=noise, recipe="fast", warn=False)
    assert result.prior_used == "mri-t1-128"
    assert 0.5 < float(result.residual["whole"]) < 1.2
    # the decoded reading is what a recipe without closing asks for
    raw = Recipe.from_dict({**load_recipe("fast").to_dict(), "closing": {"error": "none"}})
    reading = solve(y, operator, bundled("mri-t1-128"), noise=noise, recipe=raw, warn=False)
    if name == "projections":
        assert float(reading.residual["whole"]) > 1.5
        assert psnr(result.image, clean) > psnr(reading.image, clean) + 0.5
    else:
        torch.testing.assert_close(reading.image, result.image)


def test_steps_take_the_mean_with_the_hierarchy():
    prior, operator = reading_prior(DOUBLE), Identity((1, SIZE, SIZE), DOUBLE)
    y, noise = noisy(images(1, dtype=DOUBLE)), GaussianNoise(0.3)
    recipe = Recipe(views=1, steps={"count": 2})
    both = solve(y, operator, prior, noise=noise, recipe=recipe, warn=False)
    alone = HVAEPrior(prior.network, "alone", prior.card)
    whole = solve(y, operator, prior, noise=noise, recipe=recipe.changed(steps={"count": 0}), warn=False)
    hierarchy = solve(y, operator, alone, noise=noise, recipe=recipe, warn=False)
    assert relative(both.image, 0.8 * whole.image + 0.2 * hierarchy.image) < 1e-9
    assert [row["steps"] for row in both.scales] == [2] * 6
    assert torch.isfinite(both.likeness).all()
    views = solve(y, operator, prior, noise=noise, recipe=ONE.changed(views=4), warn=False)
    reader = ReaderPrior(prior.reader, "reader", {})
    mirrored = solve(y, operator, reader, noise=noise, recipe=ONE.changed(views=4), warn=False)
    guess = solve(y, operator, alone, noise=noise, recipe=ONE, warn=False)
    assert relative(views.image, 0.8 * mirrored.image + 0.2 * guess.image) < 1e-9


def test_where_nothing_was_measured_the_hierarchy_alone_guesses():
    """Otherwise a mean, frequency by frequency: 0.2 dB better on a low-pass of eight frequencies."""
    prior, operator = reading_prior(DOUBLE), LowPass(8, (1, SIZE, SIZE), DOUBLE)
    y, noise = operator(images(1, dtype=DOUBLE)), GaussianNoise(0.01)
    recipe = Recipe(views=1, steps={"count": 2})
    told = {"noise": noise, "nonnegative": False, "warn": False}
    both = solve(y, operator, prior, recipe=recipe, **told)
    whole = solve(y, operator, prior, recipe=recipe.changed(steps={"count": 0}), **told)
    alone = solve(y, operator, HVAEPrior(prior.network, "alone", prior.card), recipe=recipe, **told)
    seen = operator.kept[0] != 0
    found, read, guessed = (torch.fft.fft2(r.image) for r in (both, whole, alone))
    assert relative(found[..., ~seen], guessed[..., ~seen]) < 1e-9
    assert relative(found[..., seen], (0.8 * read + 0.2 * guessed)[..., seen]) < 1e-9
    assert relative(read[..., ~seen], guessed[..., ~seen]) > 1e-3


def test_what_steps_made_of_passes_is_the_result(monkeypatch):
    prior, operator = reading_prior(DOUBLE), Identity((1, SIZE, SIZE), DOUBLE)
    y, noise = noisy(images(1, dtype=DOUBLE)), GaussianNoise(0.3)
    module = sys.modules["iasolve.inference.view"]
    found = {}
    for passes in (0, 2):
        recipe = Recipe(views=1, passes={"count": passes}, steps={"count": 2})
        for weight in (0.3, 0.9):
            monkeypatch.setattr(module, "HIERARCHY", weight)
            found[passes, weight] = solve(y, operator, prior, noise=noise, recipe=recipe, warn=False).image
    assert relative(found[0, 0.9], found[0, 0.3]) > 1e-3
    assert relative(found[2, 0.9], found[2, 0.3]) < 1e-12


def test_samples_lie_around_the_readers_image():
    prior, operator = reading_prior(DOUBLE), Identity((1, SIZE, SIZE), DOUBLE)
    y = noisy(images(1, dtype=DOUBLE))
    recipe = ONE.changed(samples=64)
    result = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=recipe, warn=False)
    plain = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=ONE, warn=False)
    assert relative(result.image, plain.image) < 1e-9
    gap = (result.samples.mean(0) - result.image) / result.std
    assert float(gap.square().mean().sqrt()) < 0.4


def test_a_reader_alone_reports_no_objective_and_no_bound():
    y = noisy(images(1))
    result = solve(y, Identity((1, SIZE, SIZE)), reading_prior(), noise=GaussianNoise(0.3), recipe=ONE)
    assert bool(torch.isnan(result.likeness).all())
    assert [row["steps"] for row in result.scales] == [0] * 6
    assert bool(torch.isfinite(result.scales[0]["misfit"]).all())
    assert result.offsets == []


def test_a_guess_that_stops_early_is_the_hierarchys():
    prior, operator = reading_prior(DOUBLE), Identity((1, SIZE, SIZE), DOUBLE)
    y, noise = noisy(images(1, dtype=DOUBLE)), GaussianNoise(0.3)
    stopped = ONE.changed(guess={"stop": 8})
    alone = HVAEPrior(prior.network, "alone", prior.card)
    with_reader = solve(y, operator, prior, noise=noise, recipe=stopped, warn=False)
    assert torch.equal(with_reader.image, solve(y, operator, alone, noise=noise, recipe=stopped, warn=False).image)


def test_bfloat16_is_close_to_single_precision():
    prior = reading_prior()
    x = images(2)
    folded = fold(fft2(noisy(x)), torch.ones(SIZE, SIZE), 0.3, real_image=True, complex_noise=False)
    evidence = wiener_posterior(folded, prior.power, is_complex=False)
    exact, quick = prior.reader(*evidence), prior.read(evidence)
    left = (prior.power * (1 - evidence.rho)).mean().sqrt()
    assert float((exact.estimate - quick.estimate).abs().mean()) < 0.02 * float(left)
    assert quick.estimate.dtype == torch.float32


def test_a_reader_is_loaded_with_the_weights_beside_it(tmp_path):
    save_checkpoint(tiny_network(), {"name": "tiny"}, tmp_path / "tiny.safetensors")
    assert not load_prior(tmp_path / "tiny.safetensors").reads
    with pytest.raises(ValueError, match="has no reader"):
        load_prior(tmp_path / "tiny.safetensors").read(None)
    reader = tiny_reader()
    save_checkpoint(reader, {"name": "tiny", "kind": "reader"}, tmp_path / "tiny.reader.safetensors")
    prior = load_prior(tmp_path / "tiny.safetensors")
    assert prior.reads
    assert prior.to(dtype=DOUBLE).reader.power.dtype == DOUBLE
    reader.power.copy_(2 * decaying_power(SIZE).float())
    save_checkpoint(reader, {"name": "tiny", "kind": "reader"}, tmp_path / "tiny.reader.safetensors")
    with pytest.raises(PriorError, match="another image power"):
        load_prior(tmp_path / "tiny.safetensors")
    save_checkpoint(tiny_reader(True), {"name": "tiny", "kind": "reader"}, tmp_path / "tiny.reader.safetensors")
    with pytest.raises(PriorError, match="images of another kind"):
        load_prior(tmp_path / "tiny.safetensors")


def reader_prior(dtype=torch.float32, **card):
    return ReaderPrior(tiny_reader(), "alone", {"shift": 2.0} | card).to(dtype=dtype)


@pytest.mark.parametrize("shape", [(32, 32), (21, 34)])
def test_views_are_readings_of_mirrored_images(shape):
    """Solving a mirrored measurement and mirroring back is what a view is, for any diagonal operator."""
    prior = reader_prior(DOUBLE)
    x = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    kernel = torch.rand(3, 5, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    both = (-2, -1)

    def solved(y, kernel, views):
        operator = CircularBlur(kernel / kernel.sum(), (1, *shape), DOUBLE)
        return solve(y, operator, prior, noise=GaussianNoise(0.1), recipe=ONE.changed(views=views), warn=False).image

    y = noisy(CircularBlur(kernel / kernel.sum(), (1, *shape), DOUBLE)(x), 0.1)
    # a blur of a mirrored image is the mirrored blur by the mirrored kernel
    other = solved(y.flip(both), kernel.flip(both), 1).flip(both)
    assert relative(solved(y, kernel, 2), (solved(y, kernel, 1) + other) / 2) < 1e-9


def test_only_axes_that_training_has_mirrored_are_mirrored():
    assert mirrors(reader_prior()) == [(), (-2, -1), (-1,), (-2,)]
    assert mirrors(reader_prior(mirrors=[-1])) == [(), (-1,)]
    assert mirrors(reader_prior(mirrors=[])) == [()]


def test_a_reader_alone_is_a_prior(tmp_path):
    reader = tiny_reader()
    path = tmp_path / "alone.reader.safetensors"
    save_checkpoint(reader, {"name": "alone", "kind": "reader", "nonnegative": True, "shift": 3.0}, path)
    prior = load_prior(path)
    assert isinstance(prior, ReaderPrior)
    assert prior.nonnegative
    assert prior.reads
    assert not prior.descends
    assert relative(prior.sigma_x.square().sum(), ring_power_sum(prior)) < 1e-6
    operator = KSpaceMask(line_mask((SIZE, SIZE), 3, 0.15, seed=1), (1, SIZE, SIZE))
    y = operator(images(1).abs())
    result = solve(y, operator, prior, noise=GaussianNoise(0.3), warn=False)
    assert "reader alone" in result.chosen
    assert result.recipe.steps.most == 0
    with pytest.raises(RecipeError, match=r"reader alone.*'steps.count'"):
        solve(y, operator, prior, recipe=Recipe(steps={"count": 3}))
    with pytest.raises(ValueError, match="without a hierarchy"):
        prior.encode(y, y)


def ring_power_sum(prior):
    spectrum = prior.spectrum
    return spectrum.ring_means(spectrum.half(prior.power)).sum()


@pytest.mark.parametrize("is_complex", [False, True])
def test_a_readers_error_has_the_variance_that_it_says_at_each_pixel_and_frequency(is_complex):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 6, 9, generator=generator)
    image = torch.complex(image, 0.3 * image) if is_complex else image
    variance = torch.rand(1, 1, 6, 9, generator=generator)
    variance = (variance + torch.roll(variance.flip((-2, -1)), (1, 1), (-2, -1))) / 2
    variance[..., 0, 0] = 0
    error = StationaryError(variance, 0.2 + image.abs(), is_complex)
    draws = torch.stack([error.draw(lambda shape: torch.randn(1, *shape, generator=generator)) for _ in range(4000)])
    # four standard errors of a variance from 4000 real draws
    assert (draws.abs().square().mean(0).sqrt() / error.std - 1).abs().max() < 0.05
    power = fft2(draws).abs().square().mean(0)
    assert float(power[..., 0, 0]) < 1e-9
    assert ((power - error.power).abs() <= 0.1 * error.power + 1e-9).all()
    # noise that is as uneven, not filtered, has the same power everywhere
    assert torch.allclose(error.power, variance * (0.2 + image.abs()).square().mean())


def test_a_strange_neighbour_takes_no_error_bar_away():
    """The Gaussian answers for mere noise, without samples too, and the other's error bar is what it is alone."""
    prior, operator = bundled("mri-t1-128"), Identity((1, 128, 128))
    x = torch.from_numpy(load_samples().images[:1]).reshape(1, 1, 128, 128).float()
    sigma = 0.3 * float(x.std())
    y = noisy(x, sigma)
    how = {"noise": GaussianNoise(sigma), "recipe": load_recipe("denoise").changed(views=1), "warn": False}
    alone = solve(y, operator, prior, **how)
    strange = 5 * sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    both = solve(torch.cat([strange, y]), operator, prior, **how)
    assert both.fits.tolist() == [False, True]
    assert both.samples is None
    assert torch.isfinite(both.std).all()
    assert relative(both.std[1], alone.std[0]) < 1e-3
    assert relative(both.image[1], alone.image[0]) < 1e-3
