"""Noise with a level per frequency ring: samples by ring, whitening against dense matrices."""

import itertools

import pytest
import torch
from tiny import dense, relative

from iasolve.operators import (
    CircularBlur,
    Convolution,
    FourierTransform,
    Identity,
    KSpaceMask,
    PixelMask,
    SpectralNoise,
    check_operator,
    gaussian_kernel,
)
from iasolve.operators.whitening import FrequencyFilter
from iasolve.spectrum import fft2, frequencies

SIZES = [(1, 12, 12), (2, 9, 14), (1, 7, 5)]


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def ring_rms(values, rings):
    fy, fx = (frequencies(n).abs().double() / n for n in values.shape[-2:])
    f = torch.maximum(fy[:, None], fx[None, :]).expand(values.shape)
    power = fft2(values).abs().square()
    edges = [i / (2 * rings) for i in range(rings)] + [1.0]
    return [float(power[(f >= a) & (f < b)].mean().sqrt()) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("size", [(128, 128), (63, 200)])
def test_samples_have_the_level_of_each_ring_at_any_size(dtype, size):
    levels = (3.0, 1.0, 0.1, 0.0)
    noise = SpectralNoise(levels).sample(torch.ones(8, *size, dtype=dtype), torch.Generator().manual_seed(0)) - 1
    assert noise.dtype == dtype
    for found, level in zip(ring_rms(noise, 4), levels, strict=True):
        assert found == pytest.approx(level, rel=0.03, abs=1e-6)


def test_sigma_is_the_root_mean_square_of_a_sample():
    noise = SpectralNoise((1.0, 0.5, 2.0))
    assert float(noise.sample(torch.zeros(4, 192, 192)).std()) == pytest.approx(noise.sigma, rel=0.02)
    assert SpectralNoise((0.3,) * 5).sigma == pytest.approx(0.3)


def test_equal_levels_are_white_noise():
    noise = SpectralNoise((0.4, 0.4))
    y = random((1, 6, 5))
    out = noise.whitened(y, Identity((1, 6, 5)))
    torch.testing.assert_close(out.y, y)
    assert out.noise.sigma == pytest.approx(0.4)


@pytest.mark.parametrize("shape", SIZES)
def test_whitened_noise_is_white_and_the_operator_stays_diagonal(shape):
    noise = SpectralNoise((2.0, 1.0, 0.3))
    operators = (
        Identity(shape, torch.float64),
        CircularBlur(gaussian_kernel(0.7, 3), shape, torch.float64),
        FourierTransform(shape, torch.float64),
        FourierTransform(shape, torch.float64, centred=False),
        KSpaceMask(torch.arange(shape[2]) % 2 == 0, shape, torch.float64),
    )
    for operator in operators:
        out = noise.whitened(operator(random(shape)), operator)
        assert out.operator.transfer() is not None
        assert check_operator(out.operator).ok, check_operator(out.operator)
        assert relative(out.y, out.operator(random(shape))) < 1e-12
    # covariance of the whitened noise
    root = dense(FrequencyFilter(noise.on_grid(shape[1:]), shape, torch.float64))
    whitening = dense(noise.whitened(random(shape), operators[0]).operator)
    covariance = whitening @ root @ root.mT @ whitening.mT
    torch.testing.assert_close(covariance, noise.sigma**2 * torch.eye(len(root), dtype=torch.float64))


def test_operators_that_are_not_diagonal_are_whitened_as_images():
    blur = Convolution(gaussian_kernel(1.0), (1, 12, 10), torch.float64)
    out = SpectralNoise((1.0, 0.2)).whitened(random(blur.out_shape), blur)
    assert out.operator.transfer() is None
    assert check_operator(out.operator).ok


def test_rings_without_noise_count_as_a_thousandth_of_the_highest_level():
    noise = SpectralNoise((1.0, 0.0))
    out = noise.whitened(random((1, 8, 8)), Identity((1, 8, 8)))
    weights = out.operator.transfer()
    assert float(weights.max() / weights.min()) == pytest.approx(1000)
    assert bool(torch.isfinite(out.y).all())


@pytest.mark.parametrize("levels", [(), (0.0, 0.0), (1.0, -1.0), (float("nan"),), (float("inf"),)])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ValueError, match="finite, not negative and not all 0"):
        SpectralNoise(levels)


def test_masked_pixels_and_lists_of_values_are_refused():
    noise, mask = SpectralNoise((1.0, 0.5)), torch.ones(6, 6)
    mask[2] = 0
    with pytest.raises(ValueError, match="6 values of the measurement never depend on the image"):
        noise.whitened(torch.ones(1, 6, 6), PixelMask(mask, (1, 6, 6)))


def test_filters_of_real_images_must_be_even():
    weights = torch.ones(4, 4)
    weights[1, 0] = 2
    with pytest.raises(ValueError, match="k and -k differ"):
        FrequencyFilter(weights, (1, 4, 4))
    assert check_operator(FrequencyFilter(weights, (1, 4, 4), torch.complex64)).ok
