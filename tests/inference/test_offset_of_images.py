"""Images that a constant was taken from: solved as if it had not been."""

import numpy as np
import pytest
import torch
from tiny import bundled, images, tiny_network, tiny_prior

from iasolve import solve
from iasolve.operators import (
    CircularBlur,
    Convolution,
    GaussianNoise,
    Identity,
    KSpaceMask,
    SpectralNoise,
    gaussian_kernel,
    line_mask,
)
from iasolve.priors import HVAEPrior
from iasolve.samples import load_samples

SHAPE = (1, 128, 128)


def head():
    x = torch.from_numpy(load_samples().images[0]).float()[None]
    return x / x.max()


def psnr(image, truth):
    return float(10 * torch.log10((truth.max() - truth.min()) ** 2 / (image - truth).square().mean()))


def operators():
    return {
        "identity": Identity(SHAPE),
        "blur": CircularBlur(2 * gaussian_kernel(1.5), SHAPE),
        "lines": KSpaceMask(line_mask((128, 128), 3, 0.1), SHAPE),
    }


@pytest.mark.parametrize(
    ("name", "factor", "offset"),
    [("identity", 4.0, -0.9), ("lines", 4.0, -0.9), ("blur", 2.0, -1.0), ("lines", 1000.0, -1024.0)],
)
@pytest.mark.slow
def test_an_offset_changes_nothing(name, factor, offset):
    """z-scored images, images in [-1, 1], Hounsfield units."""
    prior, operator, x = bundled("mri-t1-128"), operators()[name], head()
    noise = 0.05 * GaussianNoise(1.0).sample(operator(torch.zeros(SHAPE)), torch.Generator().manual_seed(0))
    noise = noise * operator.mask if name == "lines" else noise
    plain = solve(operator(x) + noise, operator, prior, noise=GaussianNoise(0.05), recipe="fast")
    assert float(plain.offset) == 0
    truth = factor * x + offset
    y = operator(truth) + factor * noise
    for asked in ("auto", offset):
        found = solve(y, operator, prior, noise=GaussianNoise(0.05 * factor), recipe="fast", offset=asked)
        # aliases of missing lines blur the floor, and a single reading of them follows
        blurred = name == "lines" and asked == "auto"
        assert psnr(found.image, truth) > psnr(plain.image, x) - (0.35 if blurred else 0.1)
    assert float(found.offset) == pytest.approx(offset)


def test_samples_are_put_back_too():
    prior, x = bundled("mri-t1-128"), 2 * head() - 1
    y = GaussianNoise(0.1).sample(x, torch.Generator().manual_seed(0))
    found = solve(np.stack([y, y + 1]), Identity(SHAPE), prior, recipe="fast", samples=4, noise=GaussianNoise(0.1))
    assert found.offset == pytest.approx([-1, 0], abs=0.05)
    assert np.abs(found.samples.mean(0) - found.image).mean() < 0.05
    assert psnr(torch.from_numpy(found.image[0]), x) > 30


def test_levels_of_many_frequencies_do_not_hide_it():
    prior, x = bundled("mri-t1-128"), 2 * head() - 1
    noise = SpectralNoise(torch.linspace(0.1, 0.005, 16))
    y = noise.sample(x, torch.Generator().manual_seed(0))
    assert float(solve(y, Identity(SHAPE), prior, noise=noise, recipe="fast").offset) == pytest.approx(-1, abs=0.05)


def test_a_known_offset_serves_any_operator_and_prior():
    operator = Convolution(gaussian_kernel(1.0), (1, 32, 32))
    x = images(1)
    y = GaussianNoise(0.05).sample(operator(x), torch.Generator().manual_seed(0))
    options = {"noise": GaussianNoise(0.05), "recipe": "fast", "warn": False}
    plain = solve(y, operator, tiny_prior(), **options)
    moved = solve(y + 3 * operator(torch.ones(1, 32, 32)), operator, tiny_prior(), offset=3, **options)
    torch.testing.assert_close(moved.image, plain.image + 3, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(moved.offset, torch.tensor([3.0]))


def test_nothing_is_taken_off_where_images_have_a_sign():
    y = images(1) - 3
    assert float(solve(y, Identity((1, 32, 32)), tiny_prior(), noise=GaussianNoise(0.1), recipe="fast").offset) == 0
    magnitudes = HVAEPrior(tiny_network(), "tiny", {"nonnegative": True})
    options = {"noise": GaussianNoise(0.1), "recipe": "fast", "warn": False}
    assert float(solve(y, Identity((1, 32, 32)), magnitudes, **options).offset) < -3


@pytest.mark.parametrize("offset", ["none", float("nan"), float("inf"), None, True])
def test_what_is_no_offset_is_refused(offset):
    with pytest.raises(ValueError, match="offset must be 'auto' or a finite number"):
        solve(images(1), Identity((1, 32, 32)), tiny_prior(), offset=offset)
