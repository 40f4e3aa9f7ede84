"""Further readings of the measurement, and images known to hold no negative value."""

import numpy as np
import pytest
import torch
from flat_recipes import recipe_of
from scipy.optimize import nnls
from tiny import circulant, decaying_power, dense, images, mute_prior, relative, tiny_prior

from iasolve import Recipe, RecipeError, solve
from iasolve.evidence import Folded, evidence, fold
from iasolve.inference import Options
from iasolve.inference.passes import first_guess, levels, read_again
from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, gaussian_kernel, line_mask
from iasolve.priors import HVAEPrior
from iasolve.problem import DiagonalLikelihood, OperatorLikelihood, nonnegative_mode
from iasolve.problem.closing import closest_image
from iasolve.problem.options import Watch
from iasolve.problem.pose import pose

DOUBLE = torch.float64
SIGMA = 0.1


def masked(size=32, dtype=DOUBLE):
    return KSpaceMask(line_mask((size, size), 3, 0.15, seed=1), (1, size, size), dtype)


def magnitude_prior(dtype=DOUBLE):
    """The tiny prior, declared to be over magnitudes."""
    prior = tiny_prior(dtype)
    return HVAEPrior(prior.network, "magnitudes", {"nonnegative": True})


# ------------------------------------------------------------------------------------------- x >= 0


def problems(size=8):
    """Operator, measurement, centre and variances of a small problem whose unconstrained solution has both signs."""
    shape = (1, size, size)
    generator = torch.Generator().manual_seed(3)
    x0 = images(1, 5, size=size, dtype=DOUBLE)
    variance = (0.5 * decaying_power(size) + 0.01)[None]
    operators = {
        "noise": Identity(shape, DOUBLE),
        "mask": masked(size),
        "blur": CircularBlur(gaussian_kernel(0.8, 5), shape, DOUBLE),
    }
    for name, operator in operators.items():
        y = GaussianNoise(SIGMA).sample(operator(images(1, 6, size=size, dtype=DOUBLE)), generator)
        yield pytest.param(operator, y, x0, variance, id=name)


def exact_mode(operator, y, x0, variance):
    """Non-negative least squares of the two quadratic terms, their square roots stacked."""
    matrix = dense(operator)
    scale = SIGMA / 2**0.5 if y.is_complex() else SIGMA
    data, target = matrix / scale, y.flatten() / scale
    if y.is_complex():
        data, target = torch.cat([data.real, data.imag]), torch.cat([target.real, target.imag])
    root = circulant(1 / variance[0].sqrt())
    found, _ = nnls(torch.cat([data, root]).numpy(), torch.cat([target, root @ x0.flatten()]).numpy(), maxiter=10_000)
    return torch.from_numpy(found).reshape(x0.shape)


@pytest.mark.parametrize(("operator", "y", "x0", "variance"), problems())
@pytest.mark.parametrize("general", [False, True], ids=["diagonal", "general"])
@pytest.mark.slow
def test_the_mode_is_that_of_non_negative_least_squares(operator, y, x0, variance, general):
    if general:
        data = OperatorLikelihood(operator, y, torch.full((1,), SIGMA, dtype=DOUBLE))
    else:
        folded = fold(operator.to_grid(y), operator.transfer(), SIGMA, real_image=True, complex_noise=y.is_complex())
        data = DiagonalLikelihood(folded, False)
    wanted = exact_mode(operator, y, x0, variance)
    assert (wanted == 0).any()
    assert (data.mean(x0, variance) < 0).any()
    found = nonnegative_mode(data, x0, variance, iterations=400).image
    assert (found >= 0).all()
    assert relative(found, wanted) < 1e-5
    assert relative(nonnegative_mode(data, x0, variance).image, wanted) < 0.1


def test_a_positive_posterior_mean_is_its_own_mode():
    x0 = images(2, 1, size=8, dtype=DOUBLE) + 20
    variance = torch.full((1, 8, 8), 0.1, dtype=DOUBLE)
    folded = Folded(torch.fft.fft2(x0, norm="ortho"), torch.full((2, 1, 8, 8), 0.2, dtype=DOUBLE))
    data = DiagonalLikelihood(folded, False)
    torch.testing.assert_close(closest_image(data, x0, variance, True).image, data.mean(x0, variance))


def test_a_batch_gives_the_modes_of_its_items():
    cases = [p.values for p in problems()][1]
    operator, _, _, variance = cases
    x0, clean = images(3, 5, size=8, dtype=DOUBLE), images(3, 6, size=8, dtype=DOUBLE)
    x0[1] += 20  # whose bound does not bind: it is not iterated for, beside others that are
    clean[1] += 20
    y = operator(clean)
    sigma = torch.tensor([0.05, 0.1, 0.4], dtype=DOUBLE)

    def mode(of):
        data = OperatorLikelihood(operator, y[of], sigma[of])
        return nonnegative_mode(data, x0[of], variance).image

    together = mode(slice(None))
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], mode(slice(i, i + 1)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["magnitudes", "tiny"])
def test_only_a_prior_over_magnitudes_bounds_the_image(name):
    prior = magnitude_prior() if name == "magnitudes" else tiny_prior(DOUBLE)
    y = GaussianNoise(0.3).sample(images(2, 3, dtype=DOUBLE), torch.Generator().manual_seed(0))
    result = solve(
        y,
        Identity((1, 32, 32), DOUBLE),
        prior,
        noise=GaussianNoise(0.3),
        recipe=recipe_of(steps=0, samples=3),
        offset=0.0,
        warn=False,
    )
    assert bool((result.image < 0).any()) == (name == "tiny")
    assert bool((result.samples < 0).any()) == (name == "tiny")
    signed = solve(
        y,
        Identity((1, 32, 32), DOUBLE),
        prior,
        noise=GaussianNoise(0.3),
        recipe=recipe_of(steps=0),
        offset=0.0,
        warn=False,
        nonnegative=False,
    )
    assert (signed.image < 0).any()


# ------------------------------------------------------------------------------------------- passes


def posed(prior, count=2, general=False, iterations=6):
    operator = masked()
    y = GaussianNoise(SIGMA).sample(operator(images(count, 4, dtype=DOUBLE)), torch.Generator().manual_seed(1))
    sigma = torch.full((count,), SIGMA, dtype=DOUBLE)
    return pose(y, operator, prior, sigma, Options(iterations=iterations, force_general=general))


def read_on(problem, prior, recipe, stop, first):
    return read_again(problem, prior, recipe, first, stop, prior.nonnegative, Watch())


def test_levels_fall_in_equal_ratios_from_the_first_to_the_last():
    np.testing.assert_allclose(levels(4, 0.025), [0.2, 0.1, 0.05, 0.025])
    assert levels(1, 0.1) == [0.1]
    assert levels(0, 0.1) == []


def test_the_evidence_of_an_image_in_white_noise_is_that_of_such_a_measurement():
    prior = tiny_prior(DOUBLE)
    problem = posed(prior)
    x = images(2, 9, dtype=DOUBLE)
    folded = Folded(torch.fft.fft2(x, norm="ortho"), torch.full((2, 1, 32, 32), 0.3**2, dtype=DOUBLE))
    wanted = evidence(folded, prior.power, prior.spectrum)
    found = problem.evidence_of(x, 0.3)
    torch.testing.assert_close(found.image, wanted.image)
    torch.testing.assert_close(found.profile, wanted.profile)


@torch.no_grad()
def test_a_pass_is_the_guess_of_what_guess_and_measurement_say_together():
    prior = tiny_prior(DOUBLE)
    problem = posed(prior)
    recipe = recipe_of(passes=1, end=0.2, steps=0, error="local")
    stop = torch.full((2,), 5)
    first = first_guess(problem, prior, recipe, stop)
    again = read_on(problem, prior, recipe, stop, first)
    image = prior.spectrum.inverse(prior.assemble(first.contributions))
    closed = problem.likelihood.mean(image, problem.unexplained(problem.likelihood, image))
    # the half-quadratic step, bin by bin
    folded = problem.likelihood.folded
    weight = 1 / folded.variance
    joined = (weight * folded.value + torch.fft.fft2(closed, norm="ortho") / 0.2**2) / (weight + 1 / 0.2**2)
    joined = torch.fft.ifft2(joined, norm="ortho").real
    seen = problem.evidence_of(joined, 0.2)
    features = prior.encode(seen.image, seen.profile)
    for a, b in zip(features, again.features, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("steps", [0, 4])
def test_passes_never_end_with_a_worse_objective(steps):
    y = GaussianNoise(SIGMA).sample(masked()(images(4, 4, dtype=DOUBLE)), torch.Generator().manual_seed(1))
    result = solve(
        y,
        masked(),
        tiny_prior(DOUBLE),
        noise=GaussianNoise(SIGMA),
        recipe=recipe_of(passes=3, steps=steps, samples=2),
        warn=False,
    )
    before, after = (torch.stack([row[key] for row in result.scales]).sum(0) for key in ("before", "after"))
    assert (after <= before + 1e-6 * before.abs()).all()
    torch.testing.assert_close(result.improved, after < before - 1e-6 * before.abs())


def test_passes_of_a_prior_without_latents_change_nothing():
    y = GaussianNoise(SIGMA).sample(masked()(images(2, 4, dtype=DOUBLE)), torch.Generator().manual_seed(1))

    def run(passes):
        recipe = recipe_of(passes=passes, steps=0)
        return solve(y, masked(), mute_prior(DOUBLE), noise=GaussianNoise(SIGMA), recipe=recipe, warn=False).image

    torch.testing.assert_close(run(4), run(0))


@pytest.mark.parametrize("prior", [tiny_prior(DOUBLE), magnitude_prior()], ids=["signed", "magnitudes"])
@pytest.mark.slow
def test_a_batch_gives_what_single_images_give(prior):
    y = GaussianNoise(SIGMA).sample(masked()(images(2, 4, dtype=DOUBLE)), torch.Generator().manual_seed(1))

    def run(measured):
        recipe = recipe_of(passes=2, steps=2, samples=2)
        return solve(measured, masked(), prior, noise=GaussianNoise(SIGMA), recipe=recipe, seed=5, warn=False)

    together = run(y)
    for i in range(2):
        alone = run(y[i])
        torch.testing.assert_close(together.image[i], alone.image, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(together.std[i], alone.std, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("prior", [tiny_prior(DOUBLE), magnitude_prior()], ids=["signed", "magnitudes"])
def test_the_general_path_reads_as_the_diagonal_one(prior):
    stop = torch.full((2,), 5)
    recipe = recipe_of(passes=2, steps=0)
    contributions = []
    with torch.no_grad():
        for general in (False, True):
            problem = posed(prior, general=general)
            first = first_guess(problem, prior, recipe, stop)
            again = read_on(problem, prior, recipe, stop, first)
            contributions.append(torch.cat(again.contributions, -1))
    # gain and evidence are found by other ways on the general path: close, not equal
    assert relative(*contributions) < 0.1


def test_a_canvas_and_complex_images_take_passes_too():
    mask = line_mask((40, 48), 2, 0.2, seed=2)
    recipe = recipe_of(passes=2, steps=0)
    for dtype in (torch.float64, torch.complex128):
        operator = KSpaceMask(mask, (1, 40, 48), dtype)
        prior = tiny_prior(DOUBLE) if dtype == DOUBLE else tiny_prior(DOUBLE, is_complex=True)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 40, 48, dtype=dtype, generator=generator)
        result = solve(operator(x), operator, prior, noise=GaussianNoise(0.05), recipe=recipe, warn=False)
        assert result.image.shape == (1, 40, 48)
        assert torch.isfinite(result.image.abs()).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", -1), ("count", 1.5), ("count", True), ("end", 0), ("end", -1), ("end", "0.1")],
)
def test_impossible_values_are_refused_by_name(key, value):
    with pytest.raises(RecipeError, match=f"passes.{key}"):
        Recipe(passes={key: value})


# ------------------------------------------------------------------------------------------- what the decoder leaves


@pytest.mark.parametrize("factor", [1.0, 4.0, 30.0])
def test_what_the_decoder_leaves_unexplained_is_seen_in_the_measurement(factor):
    prior = tiny_prior(DOUBLE)
    problem = posed(prior, count=64)
    base = problem.variance
    generator = torch.Generator().manual_seed(0)
    white = torch.randn((64, 1, 32, 32), generator=generator, dtype=DOUBLE)
    residual = torch.fft.ifft2((factor * base).sqrt() * torch.fft.fft2(white, norm="ortho"), norm="ortho").real
    sigma2 = 0.5 * base.mean()
    folded = Folded(torch.fft.fft2(residual, norm="ortho"), torch.full((64, 1, 32, 32), float(sigma2), dtype=DOUBLE))
    noise = torch.randn((64, 1, 32, 32), generator=generator, dtype=DOUBLE) * sigma2.sqrt()
    seen = DiagonalLikelihood(Folded(folded.value + torch.fft.fft2(noise, norm="ortho"), folded.variance), False)
    found = problem.unexplained(seen, torch.zeros_like(residual))
    assert (found >= base).all()
    fine = problem.rings.owner >= 4
    ratio = (found / base)[..., fine].mean()
    # a standard error is taken off, and what falls below the prior's level is lifted to it
    assert abs(float(ratio) / factor - 1) < 0.1


def test_only_what_was_measured_raises_the_unexplained():
    prior = tiny_prior(DOUBLE)
    problem = posed(prior)
    nothing = Folded(torch.zeros(2, 1, 32, 32, dtype=torch.complex128), torch.full((2, 1, 32, 32), torch.inf).double())
    far = torch.full((2, 1, 32, 32), 100.0, dtype=DOUBLE)
    torch.testing.assert_close(
        problem.unexplained(DiagonalLikelihood(nothing, False), far), problem.variance.expand(far.shape)
    )
