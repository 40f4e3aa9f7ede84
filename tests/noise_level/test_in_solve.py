"""What ``solve`` does with noise of many levels, and with arguments of another kind."""

import numpy as np
import pytest
import torch
from test_noise_level import doubled, image, noisy, zero_filled
from tiny import tiny_prior

from iasolve import solve
from iasolve.evidence import fold
from iasolve.noise_level import EstimatedNoise
from iasolve.operators import GaussianNoise, Identity, RicianNoise, SpectralNoise
from iasolve.problem.gain import gain_diagonal
from iasolve.spectrum import fft2, radius

A = Identity((1, 32, 32))


def test_arguments_of_another_kind_are_refused():
    y, prior = torch.ones(1, 32, 32), tiny_prior()
    with pytest.raises(TypeError, match="from_functions"):
        solve(y, lambda x: x, prior)
    with pytest.raises(TypeError, match="the prior is 'mri-t1-128', expected a prior"):
        solve(y, A, "mri-t1-128")
    with pytest.raises(ValueError, match="batch_size is 0"):
        solve(y, A, prior, batch_size=0)
    with pytest.raises(ValueError, match="is zero"):
        solve(y, 0.0 * A, prior)
    with pytest.raises(ValueError, match="PixelMask"):
        solve(np.ma.array(np.ones((1, 32, 32)), mask=np.eye(32, dtype=bool)[None]), A, prior)


@pytest.mark.parametrize("enlarged", [zero_filled, doubled])
def test_the_gain_does_not_come_from_empty_frequencies(enlarged):
    clean, y = enlarged(image()), enlarged(noisy())
    power = 1 / radius(256, 256).double().clamp_min(1).square()
    power = (power / power.mean())[None]
    levels = torch.tensor([0.05] * 8 + [0.00005] * 8)
    white = SpectralNoise(levels).whitened(y, Identity((1, 256, 256), torch.float64))
    operator, sigma = white.operator, white.noise.sigma
    folded = fold(
        operator.to_grid(white.y[None]), operator.transfer(), torch.tensor(sigma), real_image=True, complex_noise=False
    )
    expected = float(fft2(clean).abs().square().sum() / power.sum()) ** 0.5
    assert float(gain_diagonal(folded, power)) == pytest.approx(expected, rel=0.1)


def test_levels_that_differ_are_used():
    prior = tiny_prior()
    true = 0.3 * torch.linspace(1, 0.05, 16)
    clean = torch.zeros(1, 64, 64)
    y = SpectralNoise(true).sample(clean, torch.Generator().manual_seed(0))
    operator = Identity((1, 64, 64))
    auto = solve(torch.stack([y, y]), operator, prior, recipe="fast", warn=False)
    torch.testing.assert_close(auto.image[0], auto.image[1])
    assert float(auto.sigma[0]) == pytest.approx(SpectralNoise(true).sigma, rel=0.2)
    one = solve(y, operator, prior, noise=SpectralNoise(true), recipe="fast", warn=False)
    white = solve(y, operator, prior, noise=GaussianNoise(float(true[-1])), recipe="fast", warn=False)
    assert float(one.image.square().mean()) < float(white.image.square().mean())


def test_levels_are_reported_where_they_differ():
    prior = tiny_prior()
    true = 0.3 * torch.linspace(1, 0.05, 16)
    y = SpectralNoise(true).sample(torch.zeros(1, 64, 64), torch.Generator().manual_seed(0))
    white = GaussianNoise(0.1).sample(torch.zeros(1, 64, 64), torch.Generator().manual_seed(0))
    operator = Identity((1, 64, 64))
    both = solve(torch.stack([y, white]), operator, prior, recipe="fast", warn=False, batch_size=1)
    assert both.levels.shape == (2, 16)
    assert float((both.levels[0, 4:] / true[4:] - 1).abs().median()) < 0.15
    torch.testing.assert_close(both.levels[1], both.levels[1, :1].expand(16))
    assert solve(white, operator, prior, recipe="fast", warn=False).levels is None
    known = solve(y, operator, prior, noise=SpectralNoise(true), recipe="fast", warn=False)
    torch.testing.assert_close(known.levels, true)


@pytest.mark.parametrize("kind", ["gaussian", "spectral", "rician"])
def test_noise_of_a_known_kind_is_estimated(kind):
    prior = tiny_prior()
    clean = torch.zeros(2, 1, 64, 64)
    clean[:, :, 16:48, 16:48] = 3
    model = RicianNoise(0.2) if kind == "rician" else GaussianNoise(0.2)
    y = model.sample(clean, torch.Generator().manual_seed(0))
    operator = Identity((1, 64, 64))
    found = solve(y, operator, prior, noise=EstimatedNoise(kind), recipe="fast", warn=False)
    assert found.sigma.tolist() == pytest.approx([0.2, 0.2], rel=0.15)
    assert (found.levels is None) == (kind != "spectral")
    if kind == "rician":
        plain = solve(y, operator, prior, noise=EstimatedNoise("gaussian"), recipe="fast", warn=False)
        air = (slice(None), slice(None), slice(0, 8), slice(0, 8))
        # air is as bright as 1.25 levels of the noise in magnitudes
        assert float(plain.image[air].mean()) > 0.1
        assert abs(float(found.image[air].mean())) < 0.25 * float(plain.image[air].mean())


def test_noise_of_an_impossible_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of auto, gaussian, spectral, rician"):
        EstimatedNoise("white")
    signed = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"values from -.*without a negative value.*'gaussian'"):
        solve(signed, Identity((1, 64, 64)), tiny_prior(), noise=EstimatedNoise("rician"))
    with pytest.raises(ValueError, match="ten blocks of 16 x 16"):
        solve(torch.ones(1, 32, 32), A, tiny_prior(), noise=EstimatedNoise("spectral"))
