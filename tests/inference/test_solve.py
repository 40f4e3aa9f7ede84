"""``solve``: units, kinds, shapes, refusals, noise estimation, sizes other than the prior's, error bars."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from flat_recipes import recipe_of
from tiny import SIZE, bundled, images, mute_prior, relative, tiny_prior

from iasolve import NonFiniteError, RecipeError, UnlikePriorWarning, load_recipe, solve
from iasolve.inference import Options
from iasolve.inference.passes import descend
from iasolve.noise_level import estimate_sigma
from iasolve.operators import (
    CircularBlur,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    PixelMask,
    PoissonNoise,
    Radon,
    WeightedGaussianNoise,
    centred_fft2,
    centred_ifft2,
    check_operator,
    gaussian_kernel,
    line_mask,
)
from iasolve.operators.crop import Crop
from iasolve.problem import Canvas, FieldOfView, Whole, likely_sigma
from iasolve.problem.pose import pose
from iasolve.samples import load_samples
from iasolve.spectrum import Spectrum, fft2, ifft2, radius, ring_index

SHAPE = (1, 32, 32)
QUICK = recipe_of(steps=1)
FAST = recipe_of(steps=0)


def mask(size=(32, 32), seed=1):
    return line_mask(size, 3, 0.15, seed=seed)


def operators(dtype=torch.float32, size=(32, 32)):
    shape = (1, *size)
    return {
        "identity": Identity(shape, dtype),
        "mask": KSpaceMask(mask(size), shape, dtype),
        "blur": CircularBlur(gaussian_kernel(1.0), shape, dtype),
    }


NAMES = ("identity", "mask", "blur")


def measure(operator, sigma, count=2, seed=0, dtype=torch.float32, size=(32, 32)):
    x = images(count, seed, size=max(*size, 32), dtype=dtype)[..., : size[0], : size[1]]
    return x, GaussianNoise(sigma).sample(operator(x), torch.Generator().manual_seed(seed + 50))


# ------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(("name", "factor"), [("identity", 1000.0), ("mask", 3e-4), ("blur", 1000.0)])
@pytest.mark.slow
def test_the_users_scale_is_theirs(name, factor):
    operator, prior = operators()[name], tiny_prior()
    _, y = measure(operator, 0.1)
    one = solve(y, operator, prior, noise=GaussianNoise(0.1), recipe=QUICK, samples=2)
    other = solve(factor * y, operator, prior, noise=GaussianNoise(0.1 * factor), recipe=QUICK, samples=2)
    assert relative(other.image, factor * one.image) < 1e-3
    assert relative(other.std, factor * one.std) < 1e-3
    assert relative(other.samples, factor * one.samples) < 1e-3
    torch.testing.assert_close(other.gain, factor * one.gain, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.sigma, factor * one.sigma)


def test_the_users_scale_is_theirs_on_the_general_path_and_with_sigma_estimated():
    operator, prior = operators()["mask"], tiny_prior()
    _, y = measure(operator, 0.1)
    one = solve(y, operator, prior, recipe=QUICK, force_general=True)
    other = solve(1024 * y, operator, prior, recipe=QUICK, force_general=True)
    assert relative(other.image, 1024 * one.image) < 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("general", [False, True])
def test_the_estimated_gain_is_near_the_images_root_mean_square(name, general):
    operator, prior = operators()[name], tiny_prior()
    x, y = measure(operator, 0.05, count=4)
    found = solve(7 * y, operator, prior, noise=GaussianNoise(0.35), recipe=FAST, force_general=general).gain
    true = 7 * x.square().mean((1, 2, 3)).sqrt()
    assert ((found / true - 1).abs() < 0.2).all()


def test_the_sign_of_an_image_is_the_datas():
    operator, prior = operators()["mask"], tiny_prior()
    x, y = measure(operator, 0.02)
    assert relative(solve(y, operator, prior, noise=GaussianNoise(0.02), recipe=FAST).image, x) < 0.6
    assert relative(solve(-y, operator, prior, noise=GaussianNoise(0.02), recipe=FAST).image, -x) < 0.6


# ------------------------------------------------------------------------------------------- kinds and shapes


@pytest.mark.parametrize("kind", ["read-only", "reversed", "float64", "uint8", "big-endian", "fortran"])
def test_any_numpy_array_will_do(kind):
    operator, prior = operators()["identity"], tiny_prior()
    x, _ = measure(operator, 0.0, count=1)
    plain = np.round(40 * x.numpy() + 120).clip(0, 255).astype(np.float32)
    options = {"noise": GaussianNoise(4.0), "recipe": FAST}
    expected = solve(plain, operator, prior, **options).image
    given = plain.copy()
    if kind == "read-only":
        given.flags.writeable = False
    elif kind == "reversed":
        given = np.ascontiguousarray(plain[..., ::-1])[..., ::-1]
    elif kind == "fortran":
        given = np.asfortranarray(plain)
    else:
        given = plain.astype({"float64": "<f8", "uint8": "u1", "big-endian": ">f4"}[kind])
    found = solve(given, operator, prior, **options).image
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_a_lazily_conjugated_tensor_will_do():
    operator, prior = operators()["mask"], tiny_prior()
    _, y = measure(operator, 0.1)
    options = {"noise": GaussianNoise(0.1), "recipe": FAST}
    expected = solve(y, operator, prior, **options).image
    assert torch.equal(solve(y.conj().resolve_conj().conj(), operator, prior, **options).image, expected)


def test_the_input_is_not_changed():
    operator, prior = operators()["mask"], tiny_prior()
    _, y = measure(operator, 0.1)
    kept = y.clone()
    solve(y, operator, prior, noise=GaussianNoise(0.1), recipe=QUICK, samples=1)
    assert torch.equal(y, kept)


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (2, 1, 2)])
@pytest.mark.slow
def test_leading_batch_dimensions(lead):
    operator, prior = operators()["mask"], tiny_prior()
    count = math.prod(lead)
    _, y = measure(operator, 0.1, count=count)
    result = solve(y.reshape(*lead, *SHAPE), operator, prior, noise=GaussianNoise(0.1), recipe=FAST, samples=3)
    assert result.image.shape == (*lead, *SHAPE)
    assert result.std.shape == (*lead, *SHAPE)
    assert result.samples.shape == (3, *lead, *SHAPE)
    for values in (result.sigma, result.gain, result.improved, result.likeness, result.scales[2]["misfit"]):
        assert values.shape == lead
    flat = solve(y, operator, prior, noise=GaussianNoise(0.1), recipe=FAST, samples=3)
    torch.testing.assert_close(result.samples.reshape(3, count, *SHAPE), flat.samples)


def test_the_result_says_how_it_came_about():
    operator, prior = operators()["mask"], tiny_prior()
    _, y = measure(operator, 0.1)
    seen = []
    result = solve(
        y,
        operator,
        prior,
        noise=GaussianNoise(0.1),
        recipe="compressed-sensing",
        seed=5,
        batch_size=1,
        samples=0,
        callback=lambda s: seen.append((s.image, s.images)) if s.stage == "done" else None,
    )
    assert seen == [(1, 2), (2, 2)]
    assert (result.recipe.name, result.seed) == ("compressed-sensing", 5)
    assert result.seconds > 0
    assert result.std is None
    assert result.samples is None
    assert [row["scale"] for row in result.scales] == [1, 2, 4, 8, 16, 32]
    assert torch.equal(result.sigma, torch.full((2,), 0.1))


def test_a_complex_prior_solves_complex_images():
    prior = tiny_prior(is_complex=True)
    operator = operators(torch.complex64)["mask"]
    x, y = measure(operator, 0.05, dtype=torch.complex64)
    result = solve(y, operator, prior, noise=GaussianNoise(0.05), recipe=QUICK, samples=12)
    assert result.image.dtype == torch.complex64
    assert result.std.dtype == torch.float32
    assert relative(result.image, x) < 0.7
    # nothing tells real from imaginary here: samples spread as far in one part as in the other
    spread = (result.samples - result.samples.mean(0)).flatten()
    assert float(spread.real.square().mean() / spread.imag.square().mean()) == pytest.approx(1.0, abs=0.25)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.zeros(1, 16, 32), ("16, 32", "1, 32, 32")),
        (torch.zeros(2, 2, 32, 32), ("2, 2, 32, 32", "1, 32, 32")),
        (torch.zeros(32, 32), ("32, 32", "1, 32, 32")),
        (torch.zeros(0, 1, 32, 32), ("empty", "0, 1, 32, 32")),
        (torch.zeros(1, 32, 32, dtype=torch.complex64), ("complex", "float32")),
        (torch.full((1, 32, 32), torch.nan), ("1024", "NaN")),
    ],
)
def test_unfit_measurements_are_refused_by_name(y, words):
    for given in (y, y.numpy()):
        with pytest.raises(ValueError, match=r".") as caught:
            solve(given, Identity(SHAPE), tiny_prior(), noise=GaussianNoise(0.1), recipe=FAST)
        assert all(word in str(caught.value) for word in words)


def test_nan_in_the_imaginary_part_and_infinities_are_counted():
    operator = operators()["mask"]
    y = torch.zeros(1, 32, 32, dtype=torch.complex64)
    y[0, 3, 4] = complex(0, math.nan)
    y[0, 5, 5] = complex(math.inf, 0)
    with pytest.raises(ValueError, match="2 NaN or infinite"):
        solve(y, operator, tiny_prior(), recipe=FAST)


def test_a_number_is_no_noise_model_and_a_seed_no_negative_number():
    with pytest.raises(TypeError, match=r"GaussianNoise\(0.1\).*got 0.1"):
        solve(images(1), Identity(SHAPE), tiny_prior(), noise=0.1)
    with pytest.raises(ValueError, match=r"seed.*-1"):
        solve(images(1), Identity(SHAPE), tiny_prior(), noise=GaussianNoise(0.1), seed=-1)


@pytest.mark.parametrize("factor", [math.nan, 1e30])
def test_an_operator_that_is_not_finite_is_named(factor):
    wild = LinearOperator.from_functions(lambda x: factor * x, lambda y: factor * y, in_shape=SHAPE)
    y = torch.full((1, *SHAPE), 1e20)
    with pytest.raises(NonFiniteError, match="check_operator"):
        solve(y, wild, tiny_prior(), noise=GaussianNoise(0.1), recipe=FAST)


@pytest.mark.slow
def test_a_batch_of_counts_gives_what_single_ones_give():
    x = images(3, seed=1).abs() + 0.1
    noise = PoissonNoise(50.0)
    y = noise.sample(x, torch.Generator().manual_seed(0)).reshape(3, 1, *SHAPE)
    whole = solve(y, Identity(SHAPE), tiny_prior(), noise=noise, recipe=QUICK, samples=2)
    assert whole.image.shape == y.shape
    for item, expected, std in zip(y[:, 0], whole.image[:, 0], whole.std[:, 0], strict=True):
        single = solve(item, Identity(SHAPE), tiny_prior(), noise=noise, recipe=QUICK, samples=2)
        torch.testing.assert_close(single.image, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(single.std, std, rtol=1e-3, atol=1e-4)


def test_images_below_zero_are_told_of_the_bound(monkeypatch):
    prior = tiny_prior()
    monkeypatch.setitem(prior.card, "nonnegative", True)
    x = images(2)
    noise = GaussianNoise(0.1)
    bounded = load_recipe("fast")
    with pytest.warns(UnlikePriorWarning, match="goes down to -.*nonnegative=False"):
        solve(x - 2, Identity(SHAPE), prior, noise=noise, recipe=bounded, offset=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(x - 2, Identity(SHAPE), prior, noise=noise, recipe=bounded, nonnegative=False)
        solve(
            noise.sample(x.abs(), torch.Generator().manual_seed(0)), Identity(SHAPE), prior, noise=noise, recipe=bounded
        )


def test_operators_and_priors_that_do_not_fit_are_refused():
    y = torch.zeros(3, 32, 32)
    with pytest.raises(ValueError, match=r"3 channel.*1"):
        solve(y, Identity((3, 32, 32)), tiny_prior(), noise=GaussianNoise(0.1))
    with pytest.raises(ValueError, match=r"complex images.*real images"):
        solve(y[:1].to(torch.complex64), Identity(SHAPE, torch.complex64), tiny_prior(), noise=GaussianNoise(0.1))
    flat = LinearOperator.from_functions(lambda x: 2 * x, in_shape=(32, 32))
    with pytest.raises(ValueError, match=r"\(32, 32\).*\(C, H, W\)"):
        solve(y[0], flat, tiny_prior(), noise=GaussianNoise(0.1))
    with pytest.raises(ValueError, match="'stretch'"):
        solve(y[:1], Identity(SHAPE), tiny_prior(), noise=GaussianNoise(0.1), fit="stretch")
    with pytest.raises(RecipeError, match=r"scale 64.*\(1, 2, 4, 8, 16, 32\)"):
        solve(y[:1], Identity(SHAPE), tiny_prior(), noise=GaussianNoise(0.1), recipe=recipe_of(steps={64: 3}))
    with pytest.raises(RecipeError, match="no recipe 'nothing'"):
        solve(y[:1], Identity(SHAPE), tiny_prior(), noise=GaussianNoise(0.1), recipe="nothing")


def test_a_result_that_is_not_finite_is_refused():
    wild = tiny_prior().to(dtype=torch.float32)
    wild.network.stage(3).head.last.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        solve(images(1), Identity(SHAPE), wild, noise=GaussianNoise(0.1), recipe=FAST)


@pytest.mark.parametrize(("name", "noise"), [("identity", None), ("mask", GaussianNoise(0.1)), ("blur", None)])
@pytest.mark.slow
def test_a_blank_image_stays_blank(name, noise):
    """A volume has empty slices: they must not stop the batch, nor come back as anything but noise."""
    operator = operators()[name]
    _, y = measure(operator, 0.1)
    y[0] = 0
    result = solve(y, operator, tiny_prior(), noise=noise, recipe=QUICK)
    assert result.image[0].abs().max() < 0.05
    assert relative(result.image[1], solve(y[1], operator, tiny_prior(), noise=noise, recipe=QUICK).image) < 1e-3


def test_k_space_given_as_real_numbers_means_the_same_as_complex():
    """A real k-space has complex noise all the same, so the answer must not depend on the dtype."""
    operator, prior = operators()["mask"], tiny_prior()
    _, y = measure(operator, 0.3)
    y = y.real
    as_complex = solve(y.to(torch.complex64), operator, prior, noise=GaussianNoise(0.3), recipe=FAST)
    try:
        as_real = solve(y, operator, prior, noise=GaussianNoise(0.3), recipe=FAST)
    except ValueError:  # refusing it is as good
        return
    assert relative(as_real.image, as_complex.image) < 1e-4


# ------------------------------------------------------------------------------------------- noise level


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_the_noise_level_of_images_and_k_space_is_estimated(sigma):
    size = 64
    shape = (1, size, size)
    for operator, dtype in (
        (Identity(shape), torch.float32),
        (CircularBlur(gaussian_kernel(1.5), shape), torch.float32),
        (LowPass(16, shape), torch.float32),
        (Identity(shape, torch.complex64), torch.complex64),
        (KSpaceMask(mask((size, size)), shape), torch.float32),
        (KSpaceMask(torch.ones(size, size), shape, torch.complex64), torch.complex64),
    ):
        # nothing but smooth structure, which must not be taken for noise
        x = ifft2((1.0 + Spectrum(size, True).ring.double().square()).pow(-6) * fft2(images(3, size=size, dtype=dtype)))
        x = (x if dtype.is_complex else x.real).to(dtype)
        y = GaussianNoise(sigma).sample(operator(x), torch.Generator().manual_seed(1))
        found = estimate_sigma(y, operator)
        assert found.shape == (3,)
        assert ((found / sigma - 1).abs() < 0.2).all(), operator


def test_solve_reports_the_noise_level_it_estimated():
    operator = operators()["mask"]
    _, y = measure(operator, 0.3, count=3)
    auto = solve(y, operator, tiny_prior(), recipe=FAST)
    assert ((auto.sigma / 0.3 - 1).abs() < 0.35).all()
    known = solve(y[0], operator, tiny_prior(), noise=GaussianNoise(float(auto.sigma[0])), recipe=FAST)
    assert relative(known.image, auto.image[0]) < 1e-5


def test_k_space_too_small_to_estimate_from_asks_for_sigma():
    operator = KSpaceMask(torch.ones(6, 32), (1, 6, 32))
    with pytest.raises(ValueError, match=r"\(1, 6, 32\).*give it \(sigma"):
        solve(torch.zeros(1, 6, 32, dtype=torch.complex64), operator, tiny_prior(), recipe=FAST)


UNKNOWN_KINDS = {
    "sinogram": Radon(torch.arange(0, 180, 5.0), SHAPE, circle=False),
    "list of values": LinearOperator.from_functions(lambda x: x.flatten(-3)[..., ::2] * 7, in_shape=SHAPE),
    "complex": LinearOperator.from_functions(lambda x: torch.fft.rfft2(x, norm="ortho")[..., :24, :], in_shape=SHAPE),
    "masked pixels": PixelMask(torch.arange(32) % 3 > 0, SHAPE),
}


@pytest.mark.parametrize("kind", UNKNOWN_KINDS)
@pytest.mark.parametrize("relative_level", [0.1, 0.5])
@pytest.mark.slow
def test_the_noise_level_of_anything_else_is_the_likely_one(kind, relative_level):
    operator = UNKNOWN_KINDS[kind]
    power = (0.5 + radius(32, 32)[None].square()) ** -2.5
    power = power / power.mean()
    white = fft2(torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5)))
    clean = operator(ifft2(power.sqrt() * white).real)  # images as the model has them, of any scale
    sigma = relative_level * float(clean.abs().square().mean().sqrt())
    y = GaussianNoise(sigma).sample(clean, torch.Generator().manual_seed(1))
    y = torch.where(clean == 0, 0, y)
    found = likely_sigma(y, operator, power)
    assert ((found / sigma - 1).abs() < 0.35).all(), found / sigma
    assert abs(float(found.log().mean().exp()) / sigma - 1) < 0.25
    torch.testing.assert_close(likely_sigma(1e4 * y[1:2], operator, power), 1e4 * found[1:2], rtol=1e-3, atol=0)
    assert float(likely_sigma(0 * y[:1], operator, power)) == 0


def test_solve_estimates_the_level_of_anything():
    operator, prior = UNKNOWN_KINDS["list of values"], tiny_prior()
    y = operator(images(3)) + torch.randn(3, 512, generator=torch.Generator().manual_seed(0))
    auto = solve(y, operator, prior, recipe=FAST, warn=False, batch_size=2)
    torch.testing.assert_close(auto.sigma, likely_sigma(y, operator, prior.power))
    single = solve(y[2], operator, prior, recipe=FAST, warn=False)
    torch.testing.assert_close(single.sigma, auto.sigma[2])


# ------------------------------------------------------------------------------------------- geometry


CANVASES = [((64, 64), 8), ((40, 32), 8), ((33, 50), 0), ((100, 47), 24), ((64, 64), 0), ((95, 32), 31)]


@pytest.mark.parametrize(("shape", "overlap"), CANVASES)
def test_windows_are_a_partition_of_unity(shape, overlap):
    canvas = Canvas(32, shape, overlap)
    ones = canvas.image(torch.ones(2 * canvas.tiles, 1, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(ones, torch.ones(2, 1, *shape, dtype=torch.float64), rtol=0, atol=1e-6)
    assert (canvas.windows >= 0).all()
    x = torch.randn(2, 1, *shape, dtype=torch.float64)
    torch.testing.assert_close(canvas.image(canvas.cut(x)), x, rtol=0, atol=1e-5)
    rows, columns = ({c[i] for c in canvas.corners} for i in (0, 1))
    for starts, length in ((sorted(rows), shape[0]), (sorted(columns), shape[1])):
        assert (starts[0], starts[-1]) == (0, length - 32)
        assert all(0 < b - a <= 32 - overlap for a, b in pairwise(starts))


@pytest.mark.parametrize(("shape", "overlap"), CANVASES)
def test_deviations_keep_their_variance_where_tiles_overlap(shape, overlap):
    canvas = Canvas(32, shape, overlap)
    # response of the map to each tile's own pixel: independent tiles, so squares add up
    total = torch.zeros(shape, dtype=torch.float64)
    for tile in range(canvas.tiles):
        alone = torch.zeros(canvas.tiles, 1, 32, 32, dtype=torch.float64)
        alone[tile] = 1
        total += canvas.deviation(alone)[0, 0].square()
    torch.testing.assert_close(total, torch.ones(shape, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("geometry", [Canvas(32, (50, 41), 8), FieldOfView(32, (50, 41)), FieldOfView(32, (20, 27))])
def test_the_adjoint_of_a_geometry_is_what_autograd_uses(geometry):
    generator = torch.Generator().manual_seed(0)
    tiles = torch.randn(2 * geometry.tiles, 1, 32, 32, generator=generator, dtype=torch.float64, requires_grad=True)
    image = geometry.image(tiles)
    assert image.shape == (2, 1, *geometry.shape)
    w = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((image * w).sum(), tiles)
    if isinstance(geometry, Canvas):
        expected = geometry.cut(w) * geometry.windows.repeat(2, 1, 1)[:, None]
    else:
        # band-limiting either way; only the scale of a spectrum value differs
        expected = geometry.cut(w) * geometry.gain**2
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    other = torch.randn(tiles.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        geometry.image(2 * other - 3 * tiles.detach()), 2 * geometry.image(other) - 3 * image.detach()
    )


def test_a_canvas_of_the_priors_size_is_the_image_itself():
    canvas, whole, spectrum = Canvas(32, (32, 32), 8), Whole((32, 32)), Spectrum(32)
    tiles = torch.randn(3, 1, 32, 32)
    assert canvas.tiles == 1
    for name in ("image", "deviation", "cut", "per_bin"):
        assert torch.equal(getattr(canvas, name)(tiles), getattr(whole, name)(tiles))
    for a, b in zip(canvas.rings(spectrum), whole.rings(spectrum), strict=True):
        assert torch.equal(a, b)
    assert type(pose(tiles, Identity(SHAPE), tiny_prior(), torch.ones(3), Options()).geometry) is Whole


@pytest.mark.parametrize("shape", [(64, 64), (48, 64), (65, 32)])
def test_power_on_a_canvas_is_a_function_of_cycles_per_pixel(shape):
    canvas = Canvas(32, shape, 8)
    power = tiny_prior(torch.float64).power
    carried = canvas.per_bin(power)
    assert carried.shape == (1, *shape)
    assert (carried > 0).all()
    # where the canvas has a frequency of the tile, the density is the tile's
    if shape[0] % 32 == 0:
        torch.testing.assert_close(carried[0, :: shape[0] // 32, 0], power[0, :, 0])
    rings, counts = canvas.rings(Spectrum(32))
    assert torch.equal(counts, torch.bincount(rings.flatten(), minlength=6).float())
    assert int(rings[0, 0]) == 0
    assert int(rings[shape[0] // 2, 0]) == 5
    assert torch.equal(torch.unique(rings), torch.arange(6))
    # a flat spectrum stays flat
    torch.testing.assert_close(canvas.per_bin(torch.ones(1, 32, 32)), torch.ones(1, *shape))


@pytest.mark.parametrize("shape", [(50, 64), (45, 33), (32, 32), (96, 96)])
def test_a_tile_survives_the_way_to_the_field_of_view_and_back(shape):
    fov = FieldOfView(32, shape)
    tile = images(2, dtype=torch.float64)
    h = fft2(tile)
    h[..., 16, :] = 0
    h[..., :, 16] = 0
    limited = ifft2(h).real
    torch.testing.assert_close(fov.cut(fov.image(tile)), limited)
    image = fov.image(limited)
    # the same pixel values on a finer grid: mean and mean square do not change
    torch.testing.assert_close(image.mean((-2, -1)), limited.mean((-2, -1)))
    torch.testing.assert_close(image.square().mean((-2, -1)), limited.square().mean((-2, -1)))
    torch.testing.assert_close(image[..., 0, 0], limited[..., 0, 0])


def test_field_of_view_variance_keeps_the_pixel_variance_within_the_band():
    power = tiny_prior(torch.float64).power
    fov = FieldOfView(32, (64, 48))
    carried = fov.per_bin(power)
    tile = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    delta = ifft2(tile).real * 32  # flat spectrum
    inside = fft2(fov.image(delta)).abs()[0] > 1e-6
    assert int(inside.sum()) == 31 * 31
    band = power.clone()
    band[..., 16, :] = 0
    band[..., :, 16] = 0
    # mean over pixels of the variance: sum over bins over the number of pixels
    assert float(carried[inside].sum() / (64 * 48)) == pytest.approx(float(band.sum() / 32**2))
    outside = carried[~inside]
    assert (outside > 0).all()
    assert outside.max() < carried[inside].max() / 100
    rings, counts = fov.rings(Spectrum(32))
    assert torch.equal(rings[~inside[0]], torch.full((int((~inside).sum()),), -1))
    assert float(counts.sum()) == 32 * 32


@pytest.mark.parametrize(("outer", "inner"), [((5, 6), (3, 2)), ((7, 4), (2, 3)), ((4, 4), (4, 4))])
def test_crop_is_central_and_has_its_adjoint(outer, inner):
    crop = Crop((2, *outer), inner, torch.float64)
    assert check_operator(crop).ok
    x = torch.arange(2 * outer[0] * outer[1], dtype=torch.float64).reshape(2, *outer)
    top, left = (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
    assert torch.equal(crop(x), x[:, top : top + inner[0], left : left + inner[1]])


@pytest.mark.parametrize(
    ("size", "name", "fit"),
    [
        ((64, 64), "identity", "canvas"),
        ((64, 64), "mask", "field-of-view"),
        ((20, 24), "blur", "canvas"),
        ((20, 24), "identity", "field-of-view"),
        ((48, 20), "mask", "canvas"),
        ((48, 20), "blur", "field-of-view"),
    ],
)
@pytest.mark.slow
def test_images_of_any_size(size, name, fit):
    prior = tiny_prior()
    operator = operators(size=size)[name]
    x, y = measure(operator, 0.05, size=size)
    options = {"samples": 1, "fit": fit, "overlap": 6, "iterations": 2}
    result = solve(y, operator, prior, noise=GaussianNoise(0.05), recipe=recipe_of(steps={4: 1}), **options)
    assert result.image.shape == x.shape
    assert result.std.shape == x.shape
    assert result.samples.shape == (1, *x.shape)
    assert (result.std > 0).all()
    naive = operator.adjoint(y)
    # a random prior knows little, but fully measured images must come out nearly as they went in
    assert relative(result.image, x) < (0.2 if name == "identity" else max(0.9, relative(naive, x)))


def test_batch_is_the_loop_of_singles_on_a_canvas():
    prior, size = tiny_prior(torch.float64), (40, 50)
    operator = operators(torch.float64, size)["mask"]
    _, y = measure(operator, 0.1, size=size, dtype=torch.float64)
    options = {"noise": GaussianNoise(0.1), "recipe": recipe_of(steps={1: 1, 8: 2}), "samples": 2}
    whole = solve(y, operator, prior, **options)
    for i in range(2):
        alone = solve(y[i], operator, prior, **options)
        torch.testing.assert_close(alone.image, whole.image[i], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(alone.samples, whole.samples[:, i], rtol=1e-6, atol=1e-7)


def test_refinement_on_a_canvas_lowers_the_objective():
    size = (64, 40)
    operator = operators(size=size)["mask"]
    _, y = measure(operator, 0.05, size=size)
    result = solve(y, operator, tiny_prior(), noise=GaussianNoise(0.05), recipe=recipe_of(steps=4, objective="map"))
    assert result.improved.all()
    assert (result.scales[2]["after"] < result.scales[2]["before"]).all()


@pytest.mark.slow
def test_a_canvas_shows_no_seams():
    """Samples of a stationary posterior are as wide where tiles overlap as in their middle."""
    size, prior = (32, 96), tiny_prior()
    operator = KSpaceMask(torch.zeros(size).index_fill_(0, torch.tensor([15, 16, 17]), 1), (1, *size))
    _, y = measure(operator, 0.2, count=1, size=size)
    count = 60
    result = solve(y, operator, prior, noise=GaussianNoise(0.2), recipe=FAST, samples=count, overlap=12)
    canvas = Canvas(32, size, 12)
    overlapping = (
        canvas.windows.max(0).values.new_tensor(1.0) - canvas.image(torch.ones(canvas.tiles, 1, 32, 32))
    ).abs()
    assert overlapping.max() < 1e-5
    weight = canvas._paste(canvas.windows.square()[None, :, None])[0, 0]
    spread = result.samples[:, 0, 0].var(0)
    seam, middle = spread[weight < 0.7].mean(), spread[weight > 0.99].mean()
    assert float(seam / middle) == pytest.approx(1.0, abs=0.35)
    assert float(result.std[0, 0][weight < 0.7].mean() / result.std[0, 0][weight > 0.99].mean()) == pytest.approx(
        1.0, abs=0.2
    )


# ------------------------------------------------------------------------------------------- general operators


def own_mask_operator(values):
    sampled = values.float()
    return LinearOperator.from_functions(
        lambda x: sampled * centred_fft2(x), lambda y: centred_ifft2(sampled * y).real, in_shape=SHAPE
    )


@pytest.mark.slow
def test_a_users_own_operator_gives_what_the_diagonal_one_gives():
    prior, sampled = tiny_prior(), mask()
    x, y = measure(KSpaceMask(sampled, SHAPE), 0.05)
    noise = GaussianNoise(0.05)
    recipe = recipe_of(steps=4, objective="map")
    known = solve(y, KSpaceMask(sampled, SHAPE), prior, noise=noise, recipe=recipe)
    own = solve(y, own_mask_operator(sampled), prior, noise=noise, recipe=recipe, iterations=30)
    exact = KSpaceMask(sampled, SHAPE)
    forced = solve(y, exact, prior, noise=noise, recipe=recipe, force_general=True, iterations=30)
    assert relative(own.image, forced.image) < 1e-4
    assert relative(own.image, known.image) < 0.1
    # and both know the image about as well
    assert relative(own.image, x) < 1.1 * relative(known.image, x)


@pytest.mark.slow
def test_operators_that_no_transfer_function_describes():
    """Random projections, real and complex: the closed image explains the data better than nothing does."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(600, 1024, generator=generator) / 32
    prior = tiny_prior()
    for rows in (matrix, torch.complex(matrix[:300], matrix[300:])):
        operator = LinearOperator.from_functions(
            lambda x, rows=rows: x.flatten(-3).to(rows.dtype) @ rows.T, in_shape=SHAPE
        )
        assert check_operator(operator).ok
        x = images(2)
        y = GaussianNoise(0.02).sample(operator(x), generator)
        result = solve(y, operator, prior, noise=GaussianNoise(0.02), recipe=recipe_of(steps={8: 2}))
        assert result.image.dtype == torch.float32
        assert relative(operator(result.image), operator(x)) < 0.2
        assert relative(result.image, x) < 0.7


# ------------------------------------------------------------------------------------------- error bars


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_the_error_bar_of_a_gaussian_posterior_is_exact(name):
    """Latents that leave no trace: all samples share their mean, so ``std`` is the closing step's alone."""
    prior, operator = mute_prior(), operators()[name]
    _, y = measure(operator, 0.2)
    result = solve(y, operator, prior, noise=GaussianNoise(0.2), recipe=QUICK, samples=2)
    problem = pose(y, operator, prior, torch.full((2,), 0.2), Options())
    within = problem.likelihood.posterior_variance(problem.variance).mean((-2, -1), keepdim=True).sqrt()
    expected = problem.gain.reshape(-1, 1, 1, 1) * within
    torch.testing.assert_close(result.std, expected.expand_as(result.std), rtol=1e-3, atol=0)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.slow
def test_samples_spread_as_the_error_bar_says(general):
    prior, operator = mute_prior(), operators()["mask"]
    _, y = measure(operator, 0.2, count=1)
    result = solve(y, operator, prior, noise=GaussianNoise(0.2), recipe=FAST, samples=40, force_general=general)
    spread = (result.samples - result.image).square().mean(0)
    assert float((spread / result.std.square()).mean()) == pytest.approx(1.0, abs=0.1)


def test_the_error_bar_is_calibrated_when_the_prior_is_right():
    """Truths drawn from the prior's own Gaussian: 90 % of pixels lie within 1.645 standard deviations."""
    prior, operator = mute_prior(torch.float64), operators(torch.float64)["mask"]
    h0 = prior.assemble(descend(prior, None, torch.tensor([5])).contributions)
    x0 = prior.spectrum.inverse(h0)
    variance = prior.sigma_x.square()[:, ring_index(32)]
    prior.network.power.copy_((fft2(x0).abs().square() + variance)[0])
    white = torch.randn(24, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = x0 + ifft2(variance.sqrt() * fft2(white)).real
    y = GaussianNoise(0.2).sample(operator(truth), torch.Generator().manual_seed(1))
    result = solve(y, operator, prior, noise=GaussianNoise(0.2), recipe=FAST, samples=2)
    score = (result.image - truth).abs() / result.std
    assert float((score < 1.645).double().mean()) == pytest.approx(0.9, abs=0.03)


def test_more_noise_means_wider_bars():
    prior, operator = tiny_prior(), operators()["mask"]
    bars = []
    for sigma in (0.02, 0.2, 1.0):
        _, y = measure(operator, sigma, seed=3)
        result = solve(y, operator, prior, noise=GaussianNoise(sigma), recipe=FAST, samples=4)
        bars.append(float((result.std / result.gain.reshape(-1, 1, 1, 1)).mean()))
    assert bars[0] < bars[1] < bars[2]


def test_closing_makes_exact_data_exact():
    prior, operator = tiny_prior(torch.float64), operators(torch.float64)["mask"]
    _, y = measure(operator, 0.0, dtype=torch.float64)
    closed = solve(y, operator, prior, noise=GaussianNoise(0.0), recipe=QUICK, samples=1)
    assert relative(operator(closed.image), y) < 1e-10
    assert relative(operator(closed.samples[0]), y) < 1e-10
    opened = solve(y, operator, prior, noise=GaussianNoise(0.0), recipe=QUICK.changed(closing={"error": "none"}))
    assert relative(operator(opened.image), y) > 1e-3


# ------------------------------------------------------------------------------------------- other noise


def test_one_level_for_all_values_is_white_noise():
    operator = Identity((1, 32, 32))
    y = GaussianNoise(0.2).sample(images(2, 3), torch.Generator().manual_seed(0))
    recipe = recipe_of(steps=2)
    white = solve(y, operator, tiny_prior(), noise=GaussianNoise(0.2), recipe=recipe, warn=False)
    noise = WeightedGaussianNoise(torch.full((1, 32, 32), 0.2))
    weighted = solve(y, operator, tiny_prior(), noise=noise, recipe=recipe, warn=False)
    # a weight per pixel is not diagonal in Fourier space: the general path, to conjugate gradients' tolerance
    assert relative(weighted.image, white.image) < 0.02
    torch.testing.assert_close(weighted.sigma, torch.ones(2))


def test_weighted_k_space_keeps_the_exact_path():
    operator = KSpaceMask(line_mask((32, 32), 2, 0.2, seed=1), (1, 32, 32))
    y = GaussianNoise(0.1).sample(operator(images(2, 3)), torch.Generator().manual_seed(0))
    recipe = recipe_of(steps=2)
    white = solve(y, operator, tiny_prior(), noise=GaussianNoise(0.1), recipe=recipe, warn=False)
    noise = WeightedGaussianNoise(torch.full((1, 32, 32), 0.1))
    weighted = solve(y, operator, tiny_prior(), noise=noise, recipe=recipe, warn=False)
    torch.testing.assert_close(weighted.image, white.image, rtol=1e-4, atol=1e-4)


def test_a_ring_that_is_hardly_measured_is_not_trusted_by_chance():
    """Blur leaves nothing of the finest ring: whatever its residual shows, V stays within four times their power."""
    prior, operator = tiny_prior(), CircularBlur(gaussian_kernel(3.0), SHAPE)
    noise = GaussianNoise(0.2)
    rings, power = ring_index(SHAPE[-1]), prior.power[0]
    most = torch.stack([power[rings == r].mean() for r in range(6)])
    for seed in range(8):
        y = noise.sample(operator(images(1, seed=seed)), torch.Generator().manual_seed(seed))
        problem = pose(y, operator, prior, torch.tensor([0.2]), Options())
        raised = problem.unexplained(problem.likelihood, torch.zeros(1, *SHAPE))[0, 0]
        usual = problem.variance[0]
        limit = torch.maximum(usual, 4 * most[rings] * (1 + 1e-4))
        assert (raised <= limit).all()
        assert (raised >= usual).all()


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.slow
def test_noise_stated_above_the_measurements_own_level_degrades_smoothly(general):
    """The gain stays what the strong frequencies say, and the error grows by little from step to step."""
    prior = bundled("mri-t1-128")
    x = torch.from_numpy(load_samples().images[:1, None]).float()
    x = x / x.square().mean().sqrt()
    y = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    level = float(y.square().mean().sqrt())
    operator = Identity((1, 128, 128))
    errors = []
    for share in (0.9, 1.0, 1.06, 1.2):
        noise = GaussianNoise(share * level)
        result = solve(y, operator, prior, noise=noise, recipe="fast", force_general=general, warn=False)
        assert abs(float(result.gain) - 1) < 0.12
        errors.append(float((result.image - x).square().mean().sqrt()))
    assert all(b < 1.2 * a for a, b in pairwise(errors))


def test_a_measurement_of_noise_alone_is_next_to_nothing():
    prior = tiny_prior()
    y = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    result = solve(y, Identity((1, SIZE, SIZE)), prior, noise=GaussianNoise(1.0), recipe="fast", warn=False)
    assert float(result.image.square().mean()) < 0.05
