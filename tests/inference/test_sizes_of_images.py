"""Images of other sizes than the prior's, as they come: one tile where they are not larger, in units of their own."""

import numpy as np
import pytest
import torch
from tiny import bundled, circulant, decaying_power, images, relative, tiny_prior

from iasolve import solve
from iasolve.operators import GaussianNoise, Identity
from iasolve.problem import crop_power, image_power
from iasolve.problem.options import Options
from iasolve.problem.pose import pose
from iasolve.samples import load_samples
from iasolve.spectrum import fft2


@pytest.mark.parametrize("shape", [(5, 8), (1, 11), (16, 16), (3, 3)])
def test_the_power_of_a_crop_is_that_of_its_covariance(shape):
    power = decaying_power(16)
    covariance = circulant(power).reshape(16, 16, 16, 16)[: shape[0], : shape[1], : shape[0], : shape[1]]
    # E |F x|^2: the transform of the covariance from both sides
    both = fft2(fft2(covariance.to(torch.complex128)).conj().permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
    count = shape[0] * shape[1]
    expected = both.reshape(count, count).diagonal().real.reshape(shape)
    torch.testing.assert_close(crop_power(power[None], shape)[0], expected, rtol=1e-9, atol=1e-9)


def test_the_energy_of_the_mean_grows_with_the_area():
    prior = bundled("mri-t1-128")
    whole = float(prior.power.sum()) / 128**2
    for shape in ((256, 256), (512, 300)):
        found = image_power(prior.power, shape, "auto")
        assert float(found.sum()) / (shape[0] * shape[1]) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    ("size", "fit", "general"),
    [(24, "auto", True), (24, "canvas", False), (48, "canvas", True), (48, "auto", False), (100, "auto", False)],
)
def test_the_gain_of_a_small_image_is_its_root_mean_square(size, fit, general):
    prior = bundled("mri-t1-128")
    x = torch.from_numpy(load_samples().images[:1, None]).float() / 255
    x = torch.nn.functional.interpolate(x, (size, size), mode="area")
    y = GaussianNoise(0.02).sample(x, torch.Generator().manual_seed(0))
    options = Options(fit=fit, force_general=general)
    found = pose(y, Identity((1, size, size)), prior, torch.tensor([0.02]), options)
    assert float(found.gain) == pytest.approx(float(x.square().mean().sqrt()), rel=0.1)


@pytest.mark.parametrize("shape", [(24, 24), (31, 20), (1, 40), (40, 1), (3, 3), (1, 1), (20, 48)])
def test_any_size_is_solved(shape):
    x = images(1, size=48)[..., : shape[0], : shape[1]] + 2
    y = GaussianNoise(0.1).sample(x, torch.Generator().manual_seed(0))
    for noise in (GaussianNoise(0.1), None):
        if noise is None and min(shape) < 8:
            with pytest.raises(ValueError, match="at least 8 x 8 values are needed"):
                solve(y, Identity((1, *shape)), tiny_prior(), recipe="fast")
            continue
        result = solve(y, Identity((1, *shape)), tiny_prior(), noise=noise, recipe="fast", warn=False)
        assert result.image.shape == x.shape
        assert bool(torch.isfinite(result.image).all())
        # of the right size, that is: the prior is untrained
        assert relative(result.image, x) < 0.5


def test_small_images_are_one_tile_by_default():
    x = images(1)[..., 4:24, 2:30]
    y = GaussianNoise(0.1).sample(x, torch.Generator().manual_seed(0))
    operator, noise = Identity((1, 20, 28)), GaussianNoise(0.1)
    asked = {
        fit: solve(y, operator, tiny_prior(), noise=noise, recipe="fast", fit=fit) for fit in ("auto", "field-of-view")
    }
    np.testing.assert_array_equal(asked["auto"].image, asked["field-of-view"].image)
    large = GaussianNoise(0.1).sample(images(1, size=64)[..., :20, :], torch.Generator().manual_seed(0))
    asked = {
        fit: solve(large, Identity((1, 20, 64)), tiny_prior(), noise=noise, recipe="fast", fit=fit)
        for fit in ("auto", "canvas")
    }
    np.testing.assert_array_equal(asked["auto"].image, asked["canvas"].image)
