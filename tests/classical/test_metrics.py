import math

import numpy as np
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity

from iasolve.metrics import evaluate, foreground, mean_interval, nmse, psnr, ssim


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def head(size=64, radius=0.35):
    """A bright ellipse with a dark inside in faint air."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    r = np.hypot(y, x * 1.2)
    return np.where(r < radius, np.where(r < radius * 0.6, 0.02, 1.0), 0.03) + 0.01 * np.sin(40 * y)


def test_psnr_of_a_known_error():
    reference = np.zeros((16, 16))
    reference[0, 0], reference[0, 1] = -1.0, 3.0  # range 4
    estimate = reference + 0.04
    assert psnr(estimate, reference) == pytest.approx(40.0)
    assert psnr(estimate, reference, data_range=0.4) == pytest.approx(20.0)
    assert psnr(reference, reference) == math.inf


def test_nmse_of_a_known_error(rng):
    reference = rng.normal(size=(3, 8, 9))
    assert nmse(0.9 * reference, reference) == pytest.approx(0.01)
    assert nmse(reference, reference) == 0.0


def test_complex_error_sees_the_phase_and_ssim_does_not(rng):
    reference = head() * np.exp(1j * rng.uniform(0, 2 * np.pi, (64, 64)))
    turned = reference * np.exp(0.1j)
    assert nmse(turned, reference) == pytest.approx(abs(np.exp(0.1j) - 1) ** 2)
    assert ssim(turned, reference) == pytest.approx(1.0)
    peak = np.abs(reference).max()
    expected = 10 * np.log10(peak**2 / np.mean(np.abs(turned - reference) ** 2))
    assert psnr(turned, reference) == pytest.approx(expected)


def test_invariance_to_scale(rng):
    reference = head()
    estimate = reference + 0.05 * rng.normal(size=reference.shape)
    for key, value in evaluate(estimate, reference).items():
        assert evaluate(7 * estimate, 7 * reference)[key] == pytest.approx(value, rel=1e-9), key


def test_dtype_does_not_matter(rng):
    reference = rng.integers(0, 255, (32, 32)).astype(np.uint8)
    estimate = rng.integers(0, 255, (32, 32)).astype(np.uint8)  # a difference would wrap around in uint8
    assert psnr(estimate, reference) == psnr(estimate.astype(float), reference.astype(float))
    assert ssim(torch.from_numpy(estimate), torch.from_numpy(reference)) == ssim(estimate, reference)


def test_ssim_against_its_formula_with_explicit_windows(rng):
    a, b = rng.uniform(size=(2, 13, 13))
    t = np.arange(-5, 6)
    window = np.exp(-(t**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    values = []
    for i in range(3):
        for j in range(3):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b, data_range=1.0) == pytest.approx(np.mean(values))


def test_channels_are_averaged(rng):
    a, b = rng.uniform(size=(2, 3, 24, 20))
    each = [ssim(p, q, data_range=1.0) for p, q in zip(a, b, strict=True)]
    assert ssim(a, b, data_range=1.0) == pytest.approx(np.mean(each))


def test_mask_restricts_the_error(rng):
    reference = head()
    mask = foreground(reference)
    estimate = np.where(mask, reference, reference + rng.normal(size=reference.shape))
    scores = evaluate(estimate, reference)
    assert scores["psnr_foreground"] == math.inf
    assert scores["nmse_foreground"] == 0
    assert scores["psnr"] < 30
    assert scores["ssim_foreground"] > scores["ssim"]
    _, values = structural_similarity(
        estimate,
        reference,
        data_range=np.ptp(reference),
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    assert scores["ssim_foreground"] == pytest.approx(values[mask].mean())
    everywhere = np.ones_like(mask)
    assert psnr(estimate, reference, mask=everywhere) == pytest.approx(scores["psnr"])
    assert nmse(estimate, reference, mask=everywhere) == pytest.approx(scores["nmse"])


def test_foreground_is_the_filled_head(rng):
    size = 128
    mask = foreground(head(size) + 0.02 * rng.normal(size=(size, size)))
    y, x = np.mgrid[:size, :size] / size - 0.5
    r = np.hypot(y, x * 1.2)
    assert mask[r < 0.33].all()  # the dark inside too
    assert not mask[r > 0.38].any()


def test_foreground_ignores_scale_sign_of_phase_and_orientation():
    image = head()[:, 8:]
    mask = foreground(image)
    assert np.array_equal(foreground(100 * image), mask)
    assert np.array_equal(foreground(image * 1j), mask)
    assert np.array_equal(foreground(image[::-1, ::-1]), mask[::-1, ::-1])
    assert np.array_equal(foreground(image.T), mask.T)
    assert np.array_equal(foreground(np.stack([image, image, image])), mask)


@pytest.mark.parametrize("kind", ["constant", "zero", "noise", "gradient", "speck"])
def test_foreground_falls_back_to_the_whole_image(kind, rng):
    image = {
        "constant": np.full((32, 40), 3.0),
        "zero": np.zeros((32, 40)),
        "noise": rng.uniform(0.5, 1.0, (32, 40)),
        "gradient": np.linspace(1, 2, 40) * np.ones((32, 1)),
        "speck": np.pad(np.ones((2, 2)), ((15, 15), (19, 19))),
    }[kind]
    assert foreground(image).shape == image.shape
    assert foreground(image).all()


def test_mean_interval_is_the_t_test(rng):
    values = rng.normal(0.3, 1.0, 20)
    mean, low, high = mean_interval(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    # n = 2, 95 %: t = 12.706, s / sqrt(n) = 1 for the values -1, 1
    assert mean_interval([-1.0, 1.0]) == pytest.approx((0.0, -12.7062, 12.7062), rel=1e-5)


def test_mean_interval_covers_as_often_as_it_says(rng):
    samples = rng.normal(size=(400, 5))
    covered = [low < 0 < high for _, low, high in map(mean_interval, samples)]
    assert 0.91 < np.mean(covered) < 0.985


@pytest.mark.parametrize("metric", [psnr, ssim, nmse, evaluate])
def test_bad_images_are_refused_with_both_shapes(metric):
    good = np.arange(256.0).reshape(16, 16)
    with pytest.raises(ValueError, match=r"\(16, 15\).*\(16, 16\)"):
        metric(good[:, 1:], good)
    with pytest.raises(ValueError, match=r"finite.*\(16, 16\)"):
        metric(np.where(good > 3, good, np.nan), good)
    with pytest.raises(ValueError, match="finite"):
        metric(good, np.where(good > 3, good, np.inf))
    with pytest.raises(ValueError, match=r"non-empty.*\(0, 4\)"):
        metric(np.zeros((0, 4)), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="non-empty"):
        metric(good.ravel(), good.ravel())


def test_other_bad_arguments():
    image = np.arange(256.0).reshape(16, 16)
    with pytest.raises(ValueError, match="data_range"):
        psnr(image, np.ones((16, 16)))
    with pytest.raises(ValueError, match="data_range"):
        ssim(image, image, data_range=0.0)
    with pytest.raises(ValueError, match="zero"):
        nmse(image, np.zeros((16, 16)))
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(image[:10], image[:10])
    with pytest.raises(ValueError, match="mask"):
        psnr(image, image, mask=np.ones((4, 4), bool))
    with pytest.raises(ValueError, match="empty"):
        nmse(image, image, mask=np.zeros((16, 16), bool))
    with pytest.raises(ValueError, match="boolean"):
        nmse(image, image, mask=np.ones((16, 16)))
    for values in ([1.0], [], [1.0, np.nan], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="two finite"):
            mean_interval(values)
    with pytest.raises(ValueError, match="level"):
        mean_interval([1.0, 2.0], 1.0)
