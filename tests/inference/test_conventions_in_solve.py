"""What is wrong by convention, through ``solve`` and ``reconstruct``."""

import numpy as np
import pytest
import torch
from tiny import images, tiny_network, tiny_prior

from iasolve import reconstruct, solve
from iasolve.operators import FourierTransform, GaussianNoise, Identity, KSpaceMask, line_mask
from iasolve.priors import HVAEPrior

SHAPE = (1, 32, 32)


def test_channels_last_are_told():
    with pytest.raises(ValueError, match=r"look like 32 x 32 pixels with 1 channel\(s\) last: pass array\[..., 0\]"):
        solve(np.zeros((32, 32, 1), np.float32), Identity(SHAPE), tiny_prior())


def test_k_space_from_the_corner_is_told():
    operator = FourierTransform((1, 64, 64))
    k = operator(images(1, size=64) + 3)
    options = {"noise": GaussianNoise(0.1), "recipe": "fast", "warn": False}
    solve(k, operator, tiny_prior(), **options)
    with pytest.raises(ValueError, match=r"index \(0, 0\).*fftshift"):
        solve(torch.fft.ifftshift(k, dim=(-2, -1)), operator, tiny_prior(), **options)
    # of lines, the middle is 0 where they were moved
    lines = KSpaceMask(line_mask((64, 64), 4, 0.1, seed=0), (1, 64, 64))
    with pytest.raises(ValueError, match=r"index \(0, 0\).*fftshift"):
        solve(torch.fft.ifftshift(lines(images(1, size=64) + 3), dim=(-2, -1)), lines, tiny_prior(), **options)
    # an operator that measures the corner alone has nothing in the middle
    mask = torch.ones(64, 64)
    mask[24:40, 24:40] = 0
    outer = KSpaceMask(mask, (1, 64, 64))
    solve(outer(images(1, size=64)), outer, tiny_prior(), **options)


@pytest.mark.parametrize("seed", [None, "1", -1, True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be at least 0"):
        solve(images(1), Identity(SHAPE), tiny_prior(), seed=seed)


@pytest.mark.parametrize("degrees", [0, 5, 180, 188])
def test_the_sign_of_an_image_is_a_phase(degrees):
    prior = HVAEPrior(tiny_network(), "tiny", {"nonnegative": True})
    x = images(2).abs() + 1
    k = FourierTransform(SHAPE)(x) * np.exp(1j * np.deg2rad(degrees))
    options = {"noise": GaussianNoise(0.02), "recipe": "fast", "warn": False}
    found = reconstruct(k, prior, **options)
    plain = reconstruct(FourierTransform(SHAPE)(x), prior, **options)
    torch.testing.assert_close(found.image, plain.image, rtol=0.05, atol=0.05)
