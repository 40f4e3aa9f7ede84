"""What a solution leaves of the measurement: closed forms, and that every result says it."""

import numpy as np
import pytest
import torch

from iasolve.noise_level.residual import residual_of
from iasolve.operators import GaussianNoise, Identity, KSpaceMask, Radon, line_mask

SIZES = [(64, 64), (33, 70), (20, 9)]


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_white_noise_is_one_in_every_band(size):
    shape = (1, *size)
    noise = 0.3 * seeded(200, *shape)
    found = residual_of(noise, Identity(shape, torch.float64), torch.zeros_like(noise), torch.full((200,), 0.3))
    assert found["bands"].shape == (200, min(16, size[0] // 2, size[1] // 2))
    assert found["whole"].square().mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(found["bands"].square().mean(0), 1, atol=0.3)


def test_a_wave_lies_in_its_band():
    x = torch.arange(64, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * 20 * x / 64).expand(1, 1, 64, 64)
    bands = residual_of(wave, Identity((1, 64, 64)), torch.zeros_like(wave), torch.ones(1))["bands"][0]
    # 20 of 32 cycles: the band [10, 11) of 16
    assert int(bands.argmax()) == 10
    assert float(bands.square().sum() - bands[10].square()) == pytest.approx(0, abs=1e-20)


def test_only_measured_values_count():
    mask = line_mask((64, 64), 4, 0.08, seed=0)
    operator = KSpaceMask(mask, (1, 64, 64), torch.float64)
    noise = GaussianNoise(0.5).sample(
        torch.zeros(8, 1, 64, 64, dtype=torch.complex128), torch.Generator().manual_seed(1)
    )
    found = residual_of(noise * operator.mask, operator, torch.zeros(8, 1, 64, 64), torch.full((8,), 0.5))
    assert found["whole"].mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(found["bands"].square().mean(0), 1, atol=0.3)  # four deviations of the first band
    pixels = (torch.rand(64, 64, generator=torch.Generator().manual_seed(2)) < 0.3) * seeded(50, 1, 64, 64)
    found = residual_of(pixels, Identity((1, 64, 64)), torch.zeros_like(pixels), torch.ones(50))
    assert found["whole"].mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(found["bands"].square().mean(0), 1, atol=0.3)


def test_a_batch_is_its_items_and_no_noise_has_no_ratio():
    y, x, sigma = seeded(3, 1, 32, 48), seeded(3, 1, 32, 48).flip(0), torch.tensor([0.1, 2.0, 0.0]).double()
    operator = Identity((1, 32, 48), torch.float64)
    found = residual_of(y, operator, x, sigma)
    for n in range(3):
        one = residual_of(y[n : n + 1], operator, x[n : n + 1], sigma[n : n + 1])
        for key in found:
            torch.testing.assert_close(found[key][n : n + 1], one[key], equal_nan=True)
    assert found["whole"][2].isnan()
    assert found["bands"][2].isnan().all()


def test_sinograms_have_no_bands():
    operator = Radon(torch.arange(0, 180, 30.0), (1, 32, 32))
    found = residual_of(torch.ones(2, *operator.out_shape), operator, torch.zeros(2, 1, 32, 32), torch.ones(2))
    assert found["bands"].shape == (2, 0)
    assert found["whole"].tolist() == [1.0, 1.0]
