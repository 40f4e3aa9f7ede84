"""Baselines of the tables: ridge regression from bins, and two denoisers."""

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from denoisers import nonlocal_means, wavelet_denoise
from phantoms import noise_case, phantom
from ridge import RidgeFromBins
from tiny import relative

from iasolve.spectrum import fft2, radius

pytestmark = pytest.mark.benchmark


# --- ridge regression -----------------------------------------------------------------------------


def smooth_images(count, height=16, width=12, seed=0):
    """Correlated Gaussian images whose coarse bins tell something about the fine ones."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(20, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    return 1.0 + torch.einsum("nk,khw->nhw", torch.randn(count, 20, dtype=torch.float64, generator=generator), basis)


def test_ridge_is_least_squares_on_noisy_copies():
    """The expected normal equations against many draws of noise and a generic least-squares solver."""
    images = smooth_images(40, 8, 6)
    mask = radius(8, 6) <= 1
    sigma, copies = 0.7, 800
    model = RidgeFromBins.fit(images, mask, sigma, 0.0)
    generator = torch.Generator().manual_seed(1)
    noise = sigma * torch.randn(copies, 40, 8, 6, dtype=torch.float64, generator=generator)
    h = fft2(images + noise).flatten(0, 1)
    features = torch.cat([h[:, mask].real, h[:, mask].imag, torch.ones(len(h), 1)], dim=1)
    solution = np.linalg.lstsq(features.numpy(), images.repeat(copies, 1, 1).flatten(1).numpy(), rcond=1e-10)[0]
    test = fft2(smooth_images(5, 8, 6, seed=7))
    f = torch.cat([test[:, mask].real, test[:, mask].imag, torch.ones(5, 1)], dim=1)
    expected = (f @ torch.from_numpy(solution)).reshape(5, 8, 6)
    assert relative(model.predict(test), expected) < 0.02


def test_ridge_is_exact_where_the_bins_tell_all():
    mask = radius(9, 8) <= 2  # odd and even axis
    images = torch.fft.ifft2(fft2(smooth_images(60, 9, 8)) * mask, norm="ortho").real
    model = RidgeFromBins.fit(images[:50], mask, 0.0, 1e-10)
    assert relative(model.predict(fft2(images[50:])), images[50:]) < 1e-6


def test_ridge_reads_its_bins_only_and_half_of_them():
    images = smooth_images(60)
    mask = radius(16, 12) <= 2
    model = RidgeFromBins.fit(images, mask, 0.1, 0.01)
    h = fft2(images[:3])
    expected = model.predict(h)
    assert torch.equal(model.predict(torch.where(mask, h, complex(math.nan, 0))), expected)
    assert torch.allclose(model.predict(h.reshape(3, 1, 16, 12))[:, 0], expected)
    assert model.predict(h[0].to(torch.complex64)).dtype == torch.float32
    assert torch.allclose(model.predict(h[1]), expected[1])


@pytest.mark.parametrize("shape", [(4, 6), (5, 4), (3, 5)])
def test_ridge_has_one_real_feature_per_bin(shape):
    """Nyquist bins included: with all bins there are as many numbers as pixels, and they tell all."""
    images = smooth_images(60, *shape)
    model = RidgeFromBins.fit(images, torch.ones(shape, dtype=torch.bool), 0.0, 1e-9)
    assert model._matrix.shape == (shape[0] * shape[1], shape[0] * shape[1])
    assert relative(model.predict(fft2(images[:2])), images[:2]) < 1e-6


def test_ridge_does_not_depend_on_units():
    images, test = smooth_images(30), fft2(smooth_images(3, seed=1))
    mask = radius(16, 12) <= 2
    model = RidgeFromBins.fit(images, mask, 0.1, 0.3)
    scaled = RidgeFromBins.fit(50 * images, mask, 5.0, 0.3)
    assert torch.allclose(scaled.predict(50 * test), 50 * model.predict(test))


def test_infinite_ridge_predicts_the_mean():
    images = smooth_images(30)
    model = RidgeFromBins.fit(images, radius(16, 12) <= 2, 0.1, 1e12)
    assert torch.allclose(model.predict(fft2(images[3])), images.mean(0), atol=1e-6)


def test_choose_minimises_the_validation_error_it_reports():
    train, validation = smooth_images(15), smooth_images(200, seed=1)
    mask = radius(16, 12) <= 2
    sigma = 0.2
    ridges = [0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
    model = RidgeFromBins.choose(train, validation, mask, sigma, ridges)
    assert list(model.validation_mse) == ridges
    assert model.validation_mse[model.ridge] == min(model.validation_mse.values())
    assert 0 < model.ridge < 10
    generator = torch.Generator().manual_seed(2)
    for ridge in (0.0, 1.0):
        again = RidgeFromBins.fit(train, mask, sigma, ridge)
        errors = []
        for _ in range(50):
            noise = torch.randn(validation.shape, dtype=torch.float64, generator=generator)
            noisy = validation + sigma * noise
            errors.append(float((again.predict(fft2(noisy)) - validation).square().mean()))
        assert np.mean(errors) == pytest.approx(model.validation_mse[ridge], rel=5e-3)


def test_ridge_refuses_bad_arguments():
    images = smooth_images(10)
    mask = radius(16, 12) <= 1
    with pytest.raises(ValueError, match=r"\(10, 16, 12\).*\(12, 16\)"):
        RidgeFromBins.fit(images, mask.T, 0.1, 0.1)
    with pytest.raises(ValueError, match="boolean"):
        RidgeFromBins.fit(images, mask.double(), 0.1, 0.1)
    lopsided = mask.clone()
    lopsided[2, 3] = True
    for bad in (lopsided, torch.zeros_like(mask)):
        with pytest.raises(ValueError, match="closed under"):
            RidgeFromBins.fit(images, bad, 0.1, 0.1)
    with pytest.raises(ValueError, match="ridge"):
        RidgeFromBins.fit(images, mask, 0.1, -1.0)
    with pytest.raises(ValueError, match="noise_sigma"):
        RidgeFromBins.fit(images, mask, math.nan, 1.0)
    with pytest.raises(ValueError, match="singular"):
        RidgeFromBins.fit(images[:5], mask, 0.0, 0.0)  # 9 features, 5 images
    with pytest.raises(ValueError, match=r"\(10, 16, 12\).*\(4, 8, 8\)"):
        RidgeFromBins.choose(images, torch.zeros(4, 8, 8), mask, 0.1, [0.1])
    model = RidgeFromBins.fit(images, mask, 0.1, 0.1)
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(16, 12\)"):
        model.predict(torch.zeros(8, 8, dtype=torch.complex64))


# --- denoisers ------------------------------------------------------------------------------------

DENOISERS = [
    nonlocal_means,
    pytest.param(wavelet_denoise, marks=pytest.mark.skipif(find_spec("pywt") is None, reason="needs PyWavelets")),
]


@pytest.mark.parametrize("denoise", DENOISERS)
def test_denoisers_denoise_and_batch(denoise):
    clean = torch.stack([phantom(32, 24, seed) for seed in (1, 2)])
    generator = torch.Generator().manual_seed(0)
    noisy = clean + 0.2 * torch.randn(clean.shape, dtype=torch.float64, generator=generator)
    copy = noisy.clone()
    out = denoise(noisy, 0.2)
    assert torch.equal(noisy, copy)
    assert (out - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    assert torch.allclose(out[1], denoise(noisy[1], 0.2))
    single = denoise(noisy.float(), 0.2)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), out, atol=1e-5)
    # no hidden clipping or rescaling: units must not matter
    assert torch.allclose(denoise(300 * noisy, 60.0), 300 * out, rtol=1e-6, atol=1e-6)
    for bad in (
        torch.zeros(4),
        torch.zeros(0, 4, 4),
        torch.full((8, 8), math.nan),
        noisy.to(torch.complex64),
    ):
        with pytest.raises(ValueError, match="need real finite images"):
            denoise(bad, 0.2)
    with pytest.raises(ValueError, match="sigma"):
        denoise(noisy, 0.0)


def test_nonlocal_means_strength():
    noisy = torch.fft.ifft2(noise_case(24, 24, sigma=0.2)[1], norm="ortho").real
    assert torch.allclose(nonlocal_means(noisy, 0.2, h=0.16), nonlocal_means(noisy, 0.2))
    assert nonlocal_means(noisy, 0.2, h=0.5).var() < nonlocal_means(noisy, 0.2).var()
    with pytest.raises(ValueError, match="h must"):
        nonlocal_means(noisy, 0.2, h=0.0)


@pytest.mark.skipif(find_spec("pywt") is None, reason="needs PyWavelets")
def test_cycle_spinning_averages_shifts():
    noisy = torch.fft.ifft2(noise_case(16, 16, sigma=0.2)[1], norm="ortho").real
    shifted = [wavelet_denoise(noisy.roll((a, b), (0, 1)), 0.2).roll((-a, -b), (0, 1)) for a in (0, 1) for b in (0, 1)]
    assert torch.allclose(wavelet_denoise(noisy, 0.2, shifts=2), torch.stack(shifted).mean(0))
    with pytest.raises(ValueError, match="shifts"):
        wavelet_denoise(noisy, 0.2, shifts=0)


def test_missing_pywavelets_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pywt", None)
    with pytest.raises(ImportError, match="pip install PyWavelets"):
        wavelet_denoise(torch.zeros(8, 8), 0.1)
