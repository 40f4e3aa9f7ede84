"""Multi-coil k-space posed as a problem and reconstructed: maps, phase, compression, whitening, slices, errors."""

import importlib
import warnings

import numpy as np
import pytest
import torch
from tiny import SIZE, bundled, images, relative, tiny_prior

import iasolve
from iasolve.classical import total_variation
from iasolve.classical.sense import total_variation_sense
from iasolve.evidence import fold
from iasolve.operators import (
    CoilNoise,
    GaussianNoise,
    KSpaceMask,
    SensitivityEncoding,
    birdcage_maps,
    centred_fft2,
    centred_ifft2,
)
from iasolve.recipe import load_recipe
from iasolve.reconstruction import image_phase, imaginary_share, pose_coils, sampled_positions
from iasolve.reconstruction.phase import cg_sense
from iasolve.samples import load_kspace, load_samples

SIGMA = 0.02
NOISY = {"noise": GaussianNoise(SIGMA)}
FAST = {"recipe": "fast"} | NOISY


def smooth_phase(size=SIZE):
    t = torch.linspace(-1, 1, size)
    return torch.exp(1j * (1.2 * t[:, None] + 0.8 * t[None, :] ** 2))


def lines():
    """Every other line, and twelve in the middle."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[:, ::2] = mask[:, 10:22] = True
    return mask


def measurement(x, coils=4, phase=None, mask=None, noise=None):
    """K-space ``(coils, H, W)`` of one image, and the operator behind it."""
    maps = birdcage_maps((SIZE, SIZE), coils).to(torch.complex64)
    dtype = torch.complex64 if x.is_complex() else torch.float32
    operator = SensitivityEncoding(maps, lines() if mask is None else mask, dtype, phase=phase)
    generator = torch.Generator().manual_seed(1)
    return operator.mask * (noise or GaussianNoise(SIGMA)).sample(operator(x), generator), operator


@pytest.fixture(scope="module")
def image():
    return images(1, seed=3)[0].abs()


# ---------------------------------------------------------------------------------------------- posing


def test_a_posed_problem_explains_the_data_and_says_how_it_came_about(image):
    y, _ = measurement(image, phase=smooth_phase())
    posed = pose_coils(y, is_complex=False, noise=GaussianNoise(SIGMA))
    assert posed.facts == {
        "coils": 4,
        "coils_used": 4,
        "acceleration": pytest.approx(SIZE**2 / int(lines().sum())),
        "whitened": False,
        "maps": "espirit",
        "calibration": [24, 13],
        "phase": "TV-SENSE",
        "phase_size": 32,
    }
    assert not posed.operator.is_complex
    torch.testing.assert_close(posed.y, y)
    assert torch.equal(posed.operator.mask.bool(), lines())
    # the true image, in this problem's own convention for phase, explains the data
    assert relative(posed.operator(image), y) < 0.3


def test_a_complex_prior_takes_the_data_as_they_are(image):
    y, _ = measurement(image * smooth_phase())
    posed = pose_coils(y, is_complex=True)
    assert posed.operator.is_complex
    assert posed.facts["phase"] == "none"
    assert posed.noise is None
    found = cg_sense(posed.y, posed.operator, SIGMA)
    assert relative(posed.operator(found), y) < 0.1


def test_compression_is_for_many_coils_and_keeps_noise_white(image):
    y, operator = measurement(image, coils=16)
    posed = pose_coils(y, is_complex=False)
    assert (posed.facts["coils"], posed.facts["coils_used"], len(posed.y)) == (16, 12, 12)
    assert 0.99 < posed.facts["energy_kept"] <= 1
    assert "energy_kept" not in pose_coils(y[:12], is_complex=False).facts
    # given maps are combined like the coils: the encoding of the true image stays right
    given = pose_coils(y, is_complex=False, maps=operator.maps, coils=6, phase="none")
    assert given.facts["maps"] == "given"
    assert relative(given.operator(image), given.y) < 0.1
    noise = torch.randn(16, SIZE, SIZE, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    # the coils that are kept are those with most of this very noise
    assert pose_coils(noise, is_complex=True, maps=operator.maps, coils=6).y.abs().square().mean() == pytest.approx(
        1, rel=0.25
    )


def test_correlated_noise_is_whitened_at_its_own_level(image):
    generator = torch.Generator().manual_seed(2)
    mixture = torch.randn(4, 4, dtype=torch.complex128, generator=generator)
    noise = CoilNoise(SIGMA**2 * (mixture @ mixture.mH + torch.eye(4)))
    y, operator = measurement(image, noise=noise)
    posed = pose_coils(y, is_complex=False, maps=operator.maps, noise=noise, phase="none")
    assert posed.facts["whitened"]
    assert posed.noise.sigma == pytest.approx(noise.sigma)
    residual = (posed.y - posed.operator(image))[:, lines()]
    covariance = residual @ residual.mH / residual.shape[1]
    expected = noise.sigma**2 * torch.eye(4, dtype=covariance.dtype)
    assert (covariance - expected).abs().max() < 0.2 * noise.sigma**2


def test_the_sampled_positions_are_found_or_given(image):
    y, _ = measurement(image)
    y[0, 5, 16] = 0  # one coil that happens to be 0 there
    assert torch.equal(sampled_positions(y), lines())
    assert torch.equal(sampled_positions(y, lines()[0].numpy()), lines())
    fewer = lines().clone()
    fewer[:, 0] = False
    posed = pose_coils(y, is_complex=False, mask=fewer)
    assert not posed.y[:, :, 0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kspace": torch.ones(4, 8, 8)},
            r"complex k-space of one slice, \(coils, H, W\), got shape \(4, 8, 8\), torch.fl",
        ),
        ({"kspace": torch.ones(2, 4, 8, 8) + 0j}, r"got shape \(2, 4, 8, 8\).*slices of a volume one by one"),
        ({"kspace": torch.full((4, 8, 8), float("nan")) + 0j}, "256 NaN"),
        ({"kspace": torch.zeros(4, 8, 8) + 0j}, "zero wherever it is sampled"),
        ({"maps": torch.ones(3, 8, 8)}, r"maps have shape \(3, 8, 8\), k-space \(4, 8, 8\)"),
        ({"mask": torch.ones(7, 8)}, r"mask has shape \(7, 8\), expected one broadcastable to \(8, 8\)"),
        ({"mask": torch.zeros(8, 8)}, "zero wherever it is sampled"),
        ({"coils": 9}, "between 1 and 4"),
        ({"phase": "yes"}, "'auto' or 'none', got 'yes'"),
    ],
)
def test_errors_name_what_was_found_and_expected(changes, message):
    values = {"kspace": centred_fft2(torch.rand(4, 8, 8)), "is_complex": False, **changes}
    with pytest.raises(ValueError, match=message):
        pose_coils(values.pop("kspace"), **values)


def test_phase_is_smoothed_as_far_as_the_data_bear_it():
    head = torch.from_numpy(load_samples().images[0] / 80.0).float()[None]
    t = torch.linspace(-1, 1, 128)
    disc = (t[:, None] ** 2 + t[None, :] ** 2 < 0.15).float()
    maps = birdcage_maps((128, 128), 4).to(torch.complex64)
    encoding = SensitivityEncoding(maps, torch.arange(128) % 2 == 0)
    chosen = []
    for angle in (t[:, None] + t[None, :] ** 2, 2.5 * disc):
        y = encoding(head * torch.exp(1j * angle))
        noisy = encoding.mask * GaussianNoise(SIGMA).sample(y, torch.Generator().manual_seed(0))
        phase, size = image_phase(noisy, encoding, SIGMA)
        torch.testing.assert_close(phase.abs(), torch.ones(128, 128))
        chosen.append(size)
    assert chosen == [64, None]
    assert image_phase(noisy, encoding, SIGMA, size=20)[1] == 20


# ------------------------------------------------------------------------------------- reconstruction


def test_a_real_image_with_phase_is_recovered_with_its_phase_and_lost_without(image):
    y, _ = measurement(image, phase=smooth_phase())
    errors = {
        phase: relative(iasolve.reconstruct(y, tiny_prior(), phase=phase, **FAST).image, image)
        for phase in ("auto", "none")
    }
    assert errors["auto"] < 0.25
    assert errors["none"] > 2 * errors["auto"]


def test_a_volume_is_a_loop_over_its_slices_and_keeps_their_units(image):
    y, _ = measurement(image)
    stack = torch.stack([y, 50 * y])
    seen = []

    def count(status):
        if status.stage == "done":
            seen.append((status.image, status.images))

    options = {"recipe": "fast", "samples": 2, "seed": 5}
    whole = iasolve.reconstruct(stack, tiny_prior(), callback=count, **options)
    assert whole.image.shape == whole.std.shape == (2, 1, SIZE, SIZE)
    assert whole.samples.shape == (2, 2, 1, SIZE, SIZE)
    assert whole.sigma.shape == whole.gain.shape == whole.scales[0]["misfit"].shape == (2,)
    assert len(whole.facts) == 2
    assert seen == [(1, 2), (2, 2)]
    one = iasolve.reconstruct(stack[1], tiny_prior(), **options)
    assert one.image.shape == (1, SIZE, SIZE)
    assert one.sigma.shape == ()
    for name in ("image", "std", "sigma", "gain"):
        torch.testing.assert_close(getattr(one, name), getattr(whole, name)[1])
    torch.testing.assert_close(one.samples, whole.samples[:, 1])
    assert relative(whole.image[1], 50 * whole.image[0]) < 1e-2


def test_numpy_in_numpy_out_and_maps_for_all_slices_or_each(image):
    y, operator = measurement(image)
    stack, maps = np.stack([y.numpy()] * 2), operator.maps.numpy()
    shared = iasolve.reconstruct(stack, tiny_prior(), maps=maps, phase="none", **FAST)
    each = iasolve.reconstruct(stack, tiny_prior(), maps=np.stack([maps] * 2), phase="none", **FAST)
    assert isinstance(shared.image, np.ndarray)
    np.testing.assert_array_equal(shared.image, each.image)
    assert relative(torch.from_numpy(shared.image[0]), image) < 0.15


def test_a_complex_prior_recovers_phase_by_itself(image):
    x = images(1, seed=4, dtype=torch.complex64)[0]
    y, operator = measurement(x, mask=torch.ones(SIZE, SIZE))
    result = iasolve.reconstruct(y, tiny_prior(is_complex=True), maps=operator.maps, **FAST)
    assert result.image.is_complex()
    assert relative(result.image, x) < 0.1


def test_a_single_coil_without_phase_is_what_solve_makes_of_it(image):
    operator = KSpaceMask(lines(), (1, SIZE, SIZE))
    y = operator.mask * GaussianNoise(SIGMA).sample(operator(image), torch.Generator().manual_seed(0))
    stack = torch.stack([y, 2 * y])
    result = iasolve.reconstruct(stack, tiny_prior(), **FAST)
    expected = iasolve.solve(stack, operator, tiny_prior(), **FAST)
    torch.testing.assert_close(result.image, expected.image)
    assert [found["phase"] for found in result.facts] == ["none"] * 2
    assert all(found["imaginary_share"] < 0.01 for found in result.facts)
    # slices that were sampled differently each keep their own mask; compared with the closing that is solved exactly:
    # the iterative one ends at its tolerance, and one slice's operator is not two slices'
    exact = {**FAST, "recipe": load_recipe("fast").changed(closing={"error": "stationary"})}
    expected = iasolve.solve(stack, operator, tiny_prior(), **exact)
    stack[1, ..., 0] = 0
    own = iasolve.reconstruct(stack, tiny_prior(), **exact)
    torch.testing.assert_close(own.image[0], expected.image[0], rtol=1e-3, atol=1e-4)
    assert own.facts[1]["acceleration"] > own.facts[0]["acceleration"]


def test_phase_of_a_single_coil_is_noticed_and_taken_out(image):
    y = lines() * centred_fft2(image * smooth_phase())
    result = iasolve.reconstruct(y, tiny_prior(), **FAST)
    (found,) = result.facts
    assert (found["phase"], found["phase_size"]) == ("TV-SENSE", 32)
    assert found["imaginary_share"] > 0.05
    plain = iasolve.reconstruct(y, tiny_prior(), phase="none", **FAST)
    assert relative(result.image, image) < 0.6 * relative(plain.image, image)


def test_the_imaginary_share_is_that_of_the_image():
    x = torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.0, 0.1, 0.5])
    turned = torch.complex((1 - shares).sqrt()[:, None, None, None] * x, shares.sqrt()[:, None, None, None] * x)
    noise = SIGMA * torch.randn(turned.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    mask = lines()
    found = imaginary_share(mask * (centred_fft2(turned) + noise), mask, torch.full((3,), SIGMA))
    torch.testing.assert_close(found, shares, atol=0.01, rtol=0)


@pytest.mark.slow
def test_a_volume_of_unlike_slices_is_warned_of_once(image):
    prior = tiny_prior()
    y, operator = measurement(image)
    strict = iasolve.HVAEPrior(prior.network, "strict", {"validation": {"elbo_lowest": 1e6}})
    with pytest.warns(iasolve.UnlikePriorWarning, match="2 of 2 slices") as caught:
        iasolve.reconstruct(torch.stack([y, y]), strict, maps=operator.maps, **FAST)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iasolve.reconstruct(y, strict, maps=operator.maps, warn=False, **FAST)


@pytest.mark.parametrize(
    ("kspace", "options", "message"),
    [
        (torch.ones(8, 8) + 0j, {}, r"got shape \(8, 8\).*kspace\[None\]"),
        (torch.ones(4, 8, 8), {}, "torch.float32"),
        (torch.ones(2, 4, 8, 8) + 0j, {"maps": torch.ones(3, 8, 8)}, r"expected \(2, 4, 8, 8\), or \(4, 8, 8\)"),
    ],
)
def test_reconstruct_refuses_what_it_cannot_take(kspace, options, message):
    with pytest.raises(ValueError, match=message):
        iasolve.reconstruct(kspace, tiny_prior(), **options)


def test_the_bundled_sample_is_multi_coil_k_space():
    sample = load_kspace()
    assert sample.kspace.shape == (8, 230, 180)
    assert sample.kspace.dtype == np.complex64
    sampled = (sample.kspace != 0).any(0)
    assert sampled.mean() == pytest.approx(0.1243, abs=1e-4)
    assert sampled[103:127, 78:102].all()
    assert "BSD-3" in sample.attribution


# ------------------------------------------------------------------------------- total variation, SENSE


@pytest.mark.parametrize("nonnegative", [False, True])
def test_total_variation_of_one_coil_has_the_diagonal_solvers_minimum(nonnegative, image):
    operator = KSpaceMask(lines(), (1, SIZE, SIZE))
    y = operator.mask * GaussianNoise(0.1).sample(operator(image), torch.Generator().manual_seed(0))
    folded = fold(operator.to_grid(y), operator.transfer(), 0.1, real_image=True, complex_noise=True)
    exact = total_variation(
        1 / folded.variance, folded.value, 5.0, tolerance=1e-5, max_iterations=5000, nonnegative=nonnegative
    )
    found = total_variation_sense(operator, y[None], 0.1, 5.0, tolerance=1e-4, nonnegative=nonnegative)
    assert found.converged
    assert relative(found.image[0], exact.image) < 3e-3


def test_total_variation_sense_beats_zero_filling_and_takes_complex_images(image):
    y, operator = measurement(image * smooth_phase())
    found = total_variation_sense(operator, y[None], SIGMA, 5.0)
    assert found.converged
    assert found.image.is_complex()
    truth = image * smooth_phase()
    assert relative(found.image[0], truth) < 0.6 * relative(operator.adjoint(y), truth)
    better = total_variation_sense(operator, y[None], SIGMA, 5.0, tolerance=1e-4).objective
    assert float(found.objective[0]) < 1.01 * float(better[0])


def test_total_variation_sense_refuses_impossible_numbers(image):
    y, operator = measurement(image)
    for changes, message in (
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"weight": -1.0}, "weight must be positive"),
        ({"y": y}, r"expected measurements \(B, 4, 32, 32\)"),
    ):
        values = {"y": y[None], "sigma": 1.0, "weight": 1.0, **changes}
        with pytest.raises(ValueError, match=message):
            total_variation_sense(operator, values["y"], values["sigma"], values["weight"])


@pytest.mark.parametrize("fit", ["canvas", "field-of-view"])
@pytest.mark.slow
def test_nothing_is_made_up_where_the_maps_say_there_is_nothing(fit, image):
    """Beyond the maps the data say nothing: what a prior would put there is not a measurement."""
    y, operator = measurement(image)
    seen = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    seen[4:28, 6:30] = True
    cut = SensitivityEncoding(operator.maps * seen, operator.mask, torch.float32)
    recipe = load_recipe("fast").changed(samples=4)
    whole, part = (
        iasolve.solve(y, a, tiny_prior(), recipe=recipe, noise=GaussianNoise(SIGMA), fit=fit, warn=False)
        for a in (operator, cut)
    )
    assert float(part.image[:, ~seen].abs().max()) == float(part.std[:, ~seen].max()) == 0
    assert float(part.samples[..., ~seen].abs().max()) == 0
    assert float(part.std[:, seen].min()) > 0
    assert float(whole.image[:, ~seen].abs().max()) > 0
    numpy = iasolve.solve(y.numpy(), cut, tiny_prior(), recipe=recipe, noise=GaussianNoise(SIGMA), fit=fit, warn=False)
    np.testing.assert_array_equal(numpy.image, part.image.numpy())


def test_a_support_that_does_not_fit_is_refused(image):
    y, operator = measurement(image)
    for wrong in (torch.ones(SIZE, SIZE), torch.ones(SIZE, dtype=torch.bool)):
        operator.support = lambda wrong=wrong: wrong
        with pytest.raises(ValueError, match=r"support\(\) is .* expected boolean \(32, 32\)"):
            iasolve.solve(y, operator, tiny_prior(), **FAST)


@pytest.fixture(scope="module")
def bundled_slice():
    """Three coils of the bundled slice: maps and phase are made once for all ways to fit it."""
    return pose_coils(load_kspace().kspace, is_complex=False, coils=3)


@pytest.mark.parametrize("fit", ["canvas", "field-of-view"])
@pytest.mark.slow
def test_the_bundled_prior_holds_on_the_bundled_slice(bundled_slice, fit):
    """Tiles of a larger head are unlike its data: a guess may be poor there, but must not break down."""
    y, operator, noise, _ = bundled_slice
    image = iasolve.solve(y, operator, bundled("mri-t1-128"), noise=noise, fit=fit, recipe="fast", warn=False).image
    combined = centred_ifft2(y).abs().square().sum(0).sqrt()
    assert float(image.max()) < 3 * float(combined.max())
    assert 0.5 < float(image.norm() / combined.norm()) < 2


@pytest.mark.slow
def test_a_slice_is_posed_once_for_choice_and_solution_and_gives_the_same(image, monkeypatch):
    """With the prior that was chosen, to the bit: what the choice left behind is what a solve would make."""
    module = importlib.import_module("iasolve.reconstruction.reconstruct")
    first, second = tiny_prior(seed=0), tiny_prior(seed=1)
    second.name = "other"
    posed = []

    def counted(*args, **options):
        posed.append(args)
        return pose_coils(*args, **options)

    monkeypatch.setattr(module, "pose_coils", counted)
    monkeypatch.setattr(module, "load_kspace_priors", lambda: (first, second))
    volume = torch.stack([measurement(image, coils)[0] for coils in (4, 4, 4)])
    chosen = module.choose_kspace_prior(volume, **NOISY).prior
    assert len(posed) == 1
    automatic = iasolve.reconstruct(volume, **FAST)
    assert len(posed) == 1 + 3
    told = iasolve.reconstruct(volume, chosen, **FAST)
    assert automatic.prior == told.prior == chosen.name
    assert torch.equal(automatic.image, told.image)
    assert automatic.facts == told.facts
