"""Offsets of shifted images against the shift that was made."""

import pytest
import torch
from test_noise_level import generator, image

from iasolve.noise_level import estimate_offset
from iasolve.operators import (
    BlockAverage,
    CircularBlur,
    GaussianNoise,
    Identity,
    KSpaceMask,
    PixelMask,
    SpectralNoise,
    gaussian_kernel,
    line_mask,
)

SHAPE = (1, 128, 128)


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
@pytest.mark.parametrize(("scale", "shift"), [(1, -0.5), (2, -1), (5, -1.1), (1000, -1024), (1e-12, -1e-12)])
def test_shifts_of_images_are_found(sigma, scale, shift):
    noise = GaussianNoise(sigma * scale)
    y = noise.sample((scale * image(1) + shift).float(), generator())
    found = estimate_offset(y, Identity(SHAPE), noise)
    assert found == pytest.approx(shift, abs=0.02 * scale + 0.3 * noise.sigma)


@pytest.mark.parametrize(
    "operator",
    [CircularBlur(3 * gaussian_kernel(1.5), SHAPE), KSpaceMask(line_mask((128, 128), 3, 0.1), SHAPE)],
    ids=["blur", "lines"],
)
def test_shifts_are_found_through_operators(operator):
    noise = GaussianNoise(0.03)
    y = noise.sample(operator((image(1) - 0.5).float()), generator())
    y = y * operator.mask if isinstance(operator, KSpaceMask) else y
    # missing lines leave ringing and aliases that reach below zero as well
    assert estimate_offset(y, operator, noise) == pytest.approx(-0.5, abs=0.15)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("noise", [GaussianNoise(0.03), SpectralNoise((0.03, 0.03))])
def test_shifts_are_found_where_pixels_are_missing(share, noise):
    """Zeros of missing pixels are no floor, of images above zero nor of those below."""
    operator = PixelMask(torch.rand(128, 128, generator=generator()) <= share, SHAPE)
    for clean, shift in ((image(1), -0.5), (image(1), -1024), (image(1), 0), (image(0), 0), (image(1) + 3, 0)):
        y = operator.mask * noise.sample(operator((clean + shift).float()), generator())
        assert estimate_offset(y, operator, noise) == pytest.approx(shift, abs=0.05 if shift else 0)


def test_shifts_are_found_under_noise_of_many_levels():
    noise = SpectralNoise((0.1, 0.1, 0.05, 0.0))
    y = noise.sample(image(1) - 0.4, generator())
    assert estimate_offset(y, Identity(SHAPE), noise) == pytest.approx(-0.4, abs=0.04)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.3])
def test_images_that_are_not_shifted_have_no_offset(sigma):
    noise = GaussianNoise(sigma)
    for clean in (image(0), image(1), image(1) + 3, 0 * image(0)):
        assert estimate_offset(noise.sample(clean, generator()), Identity(SHAPE), noise) == 0


@pytest.mark.parametrize("acceleration", [2, 4])
def test_aliases_are_no_offset(acceleration):
    operator = KSpaceMask(line_mask((128, 128), acceleration, 0.08), SHAPE)
    noise = GaussianNoise(0.02)
    for clean in (image(0), image(1)):
        y = operator.mask * noise.sample(operator(clean.float()), generator())
        assert estimate_offset(y, operator, noise) == 0


def test_blank_images_have_no_offset_and_other_operators_are_refused():
    for operator in (Identity(SHAPE), PixelMask(torch.ones(128), SHAPE)):
        assert estimate_offset(torch.zeros(SHAPE), operator, GaussianNoise(0.0)) == 0
    with pytest.raises(ValueError, match="give the offset"):
        estimate_offset(torch.zeros(1, 64, 64), BlockAverage(2, SHAPE), GaussianNoise(1.0))
    with pytest.raises(ValueError, match="one by one"):
        estimate_offset(torch.zeros(2, *SHAPE), Identity(SHAPE), GaussianNoise(1.0))
