"""What is estimated of noise, against noise that was put there; blank, tiny and constant images."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.data import camera

from iasolve.noise_level import estimate_noise, estimate_sigma, filled_fraction, ring_levels
from iasolve.operators import (
    FourierTransform,
    GaussianNoise,
    Identity,
    PixelMask,
    RicianNoise,
    SpectralNoise,
)
from iasolve.samples import load_samples


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image(index=0):
    x = torch.as_tensor(np.asarray(load_samples().images[index], np.float64)).reshape(1, 128, 128)
    return x / x.max()


def noisy(sigma=0.05, seed=0):
    return GaussianNoise(sigma).sample(image(), generator(seed))


def doubled(y):
    return torch.as_tensor(ndimage.zoom(y.numpy(), (1, 2, 2), order=3, mode="mirror"))


def zero_filled(y):
    h, w = y.shape[-2:]
    k = torch.fft.fftshift(torch.fft.fft2(y), dim=(-2, -1))
    k = torch.nn.functional.pad(k, (w - w // 2, w // 2, h - h // 2, h // 2))
    return 4 * torch.fft.ifft2(torch.fft.ifftshift(k, dim=(-2, -1))).real


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_white_noise_is_found_white(sigma):
    found = estimate_noise(noisy(sigma), Identity((1, 128, 128)))
    assert isinstance(found, GaussianNoise)
    assert found.sigma == pytest.approx(sigma, rel=0.08)


@pytest.mark.parametrize("levels", [(1, 1, 0.8, 0.5, 0.3, 0.2, 0.1, 0.05), (1, 1, 1.2, 1.5, 2, 2, 2, 2)])
def test_levels_that_differ_are_found(levels):
    true = 0.05 * torch.tensor(levels, dtype=torch.float64).repeat_interleave(2)
    found = estimate_noise(SpectralNoise(true).sample(image(), generator()), Identity((1, 128, 128)))
    assert isinstance(found, SpectralNoise)
    # a step from ring to ring is seen through blocks of 16 pixels: up to a fifth, where it is one of a half
    torch.testing.assert_close(torch.tensor(found.levels[4:]).double(), true[4:], rtol=0.25, atol=0.002)


def test_interpolated_noise_is_not_taken_for_less():
    y, clean = doubled(noisy()), doubled(image())
    found = estimate_noise(y, Identity((1, 256, 256)))
    assert isinstance(found, SpectralNoise)
    assert found.sigma == pytest.approx(float((y - clean).std()), rel=0.15)
    assert float(estimate_sigma(y[None], Identity((1, 256, 256)))) < 0.2 * found.sigma


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_magnitudes_have_the_level_of_tissue(sigma):
    y = RicianNoise(sigma).sample(image(), generator())
    assert estimate_noise(y, Identity((1, 128, 128))).sigma == pytest.approx(sigma, rel=0.15)


def test_levels_of_complex_images_are_of_complex_values():
    y = GaussianNoise(0.05).sample(image().to(torch.complex128), generator())
    found = estimate_noise(y, Identity((1, 128, 128), torch.complex64))
    assert found.sigma == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e12])
def test_levels_have_the_images_units(unit):
    y = noisy().float()
    expected, found = ring_levels(y), ring_levels(unit * y)
    torch.testing.assert_close(found.levels, unit * expected.levels, rtol=1e-4, atol=0)
    A = Identity((1, 128, 128))
    torch.testing.assert_close(estimate_sigma(unit * y[None], A), unit * estimate_sigma(y[None], A))


@pytest.mark.parametrize("border", [0.0, 0.2, 1.0, -3.0])
def test_a_constant_border_does_not_count(border):
    y = torch.nn.functional.pad(noisy(), (64, 64, 64, 64), value=border).float()
    A = Identity((1, 256, 256))
    assert float(estimate_sigma(y[None], A)) == pytest.approx(0.05, rel=0.1)
    assert estimate_noise(y, A).sigma == pytest.approx(0.05, rel=0.1)
    # a gradient of units, as Hounsfield's, is a constant too
    assert float(estimate_sigma(1000 * y[None] - 1024, A)) == pytest.approx(50, rel=0.1)


def test_integers_have_levels():
    y, A = (200 * noisy(0.02) + 50).round(), Identity((1, 128, 128))
    for dtype in (torch.int16, torch.uint8, torch.int64, torch.float16):
        found = estimate_sigma(y.to(dtype)[None], A)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, estimate_sigma(y.float()[None], A))
        assert estimate_noise(y.to(dtype), A).sigma == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0])
def test_blank_and_constant_images_have_no_noise(value):
    y, A = torch.full((1, 64, 64), value), Identity((1, 64, 64))
    assert estimate_noise(y, A) == GaussianNoise(0.0)
    assert float(estimate_sigma(y[None], A)) == 0
    assert filled_fraction(y) == (1.0, 1.0)
    both = estimate_sigma(torch.stack([y, noisy()[:, :64, :64].float()]), A)
    torch.testing.assert_close(both[1], estimate_sigma(noisy()[None, :, :64, :64].float(), A)[0])


def test_k_space_and_small_images_have_one_level():
    F = FourierTransform((1, 128, 128))
    found = estimate_noise(GaussianNoise(0.05).sample(F(image()), generator()), F)
    assert isinstance(found, GaussianNoise)
    small = GaussianNoise(1.0).sample(torch.zeros(1, 12, 12), generator())
    assert estimate_noise(small, Identity((1, 12, 12))).sigma == pytest.approx(1, rel=0.5)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="neither an image nor k-space"):
        estimate_noise(torch.ones(1, 32, 32), PixelMask(torch.ones(32, 32), (1, 32, 32)))
    with pytest.raises(ValueError, match="one by one"):
        estimate_noise(torch.ones(2, 1, 32, 32), Identity((1, 32, 32)))
    with pytest.raises(ValueError, match="at least 8 x 8"):
        estimate_noise(torch.ones(1, 4, 32), Identity((1, 4, 32)))


@pytest.mark.parametrize("crop", [(128, 128), (101, 128), (97, 75)])
def test_empty_outer_k_space_is_recognised(crop):
    y = noisy()[:, : crop[0], : crop[1]]
    assert filled_fraction(zero_filled(y)) == pytest.approx((0.5, 0.5), abs=0.03)
    # rounded to whole numbers, as files hold them
    assert filled_fraction((1000 * zero_filled(y)).round().to(torch.int16)) == pytest.approx((0.5, 0.5), abs=0.03)
    assert filled_fraction(y) == filled_fraction(image()) == filled_fraction(doubled(y)) == (1.0, 1.0)


@pytest.mark.parametrize("side", [40, 64, 96])
def test_small_crops_of_a_photograph_are_seldom_taken_for_interpolated(side):
    """A fifth to a half of them were, where the power of a few coarse frequencies fell as fast as an edge does."""
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        row, column = rng.integers(512 - side, size=2)
        crop = camera()[row : row + side, column : column + side]
        found.append(filled_fraction(torch.from_numpy(crop + rng.normal(0, 5, crop.shape))[None]))
    assert sum(min(one) < 1 for one in found) <= 1


def test_a_small_image_that_was_interpolated_is_still_found():
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        row, column = rng.integers(480, size=2)
        crop = camera()[row : row + 32, column : column + 32]
        found.append(filled_fraction(zero_filled(torch.from_numpy(crop + rng.normal(0, 5, crop.shape))[None])))
    assert sum(one == pytest.approx((0.5, 0.5), abs=0.05) for one in found) >= 18


def test_k_space_may_be_empty_along_one_axis():
    k = torch.fft.fft2(noisy())
    k[:, :, 45:84] = 0
    found = filled_fraction(torch.fft.ifft2(k).real)
    assert found[0] == 1
    assert found[1] == pytest.approx(90 / 128, abs=0.03)
