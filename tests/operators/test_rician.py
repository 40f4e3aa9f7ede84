"""Magnitude noise: moments against scipy, debiasing on Rician data made from the samples."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from iasolve.metrics import foreground
from iasolve.operators import CircularBlur, FourierTransform, Identity, RicianNoise, gaussian_kernel
from iasolve.operators.rician import rician_mean, rician_variance
from iasolve.samples import load_samples


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def head(index):
    x = np.asarray(load_samples().images[index], np.float64).reshape(128, 128)
    x = x / x.max()
    inside = foreground(x)
    # air without what the scan itself holds of noise and ghosts
    air = ~ndimage.binary_dilation(inside, iterations=6)
    x[~ndimage.binary_dilation(inside, iterations=2)] = 0
    return torch.from_numpy(x)[None], torch.from_numpy(air)[None], torch.from_numpy(inside)[None]


def test_moments_are_those_of_the_rice_distribution():
    signal = torch.tensor([0.0, 1e-3, 0.3, 1, 3, 10, 30], dtype=torch.float64)
    mean, variance = stats.rice.stats(signal.numpy(), moments="mv")
    np.testing.assert_allclose(rician_mean(signal), mean, rtol=1e-10)
    np.testing.assert_allclose(rician_variance(signal), variance, rtol=1e-8)
    assert float(rician_mean(torch.tensor(0.0))) == pytest.approx(np.sqrt(np.pi / 2))
    assert float(rician_variance(torch.tensor(0.0))) == pytest.approx(2 - np.pi / 2)
    # no signal is too large: mean a + 1 / (2 a), variance 1
    large = torch.tensor([1e3, 1e6], dtype=torch.float64)
    np.testing.assert_allclose(rician_mean(large) - large, 0.5 / large, rtol=1e-3)
    np.testing.assert_allclose(rician_variance(large), 1, atol=1e-6)


@pytest.mark.parametrize("signal", [0.0, 0.5, 2.0, 20.0])
def test_samples_have_the_moments(signal):
    noise, clean = RicianNoise(0.3), torch.full((300, 300), 0.3 * signal)
    y = noise.sample(clean, generator())
    assert float(y.mean()) == pytest.approx(float(noise.mean(clean[:1, :1])), rel=0.01)
    assert float(y.var()) == pytest.approx(float(noise.variance(clean[:1, :1])), rel=0.02)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
def test_air_goes_to_zero_and_tissue_stays(index, sigma):
    clean, air, tissue = head(index)
    noise = RicianNoise(sigma)
    y = noise.sample(clean, generator())
    out = noise.whitened(y, Identity(tuple(clean.shape)))
    off = (out.y - clean) / sigma
    assert float(((y - clean) / sigma)[air].mean()) > 1.2
    assert abs(float(off[air].mean())) < 0.2
    assert abs(float(off[tissue].mean())) < 0.1
    assert out.noise.sigma == sigma
    # with the signal known, no bias is left anywhere
    known = (noise.debiased(y, clean) - clean) / sigma
    assert abs(float(known[air].mean())) < 0.03
    assert abs(float(known[tissue].mean())) < 0.03


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, 2.0, 4.0])
def test_uniform_regions_are_not_darkened(level):
    clean = torch.full((8, 96, 96), level, dtype=torch.float64)
    out = RicianNoise(1.0).debiased(RicianNoise(1.0).sample(clean, generator()))
    assert float(out.mean()) == pytest.approx(level, abs=0.15)


def test_other_operators_and_integers():
    blur = CircularBlur(gaussian_kernel(1.0), (1, 32, 32))
    y = torch.randint(0, 9, (1, 32, 32), generator=generator(), dtype=torch.int16)
    out = RicianNoise(2.0).whitened(y, blur)
    assert out.operator is blur
    assert out.y.dtype == torch.float32
    torch.testing.assert_close(out.y, RicianNoise(2.0).whitened(y.float(), blur).y)


def test_what_is_no_magnitude_is_refused():
    noise = RicianNoise(1.0)
    with pytest.raises(ValueError, match="down to -1"):
        noise.whitened(-torch.ones(1, 8, 8), Identity((1, 8, 8)))
    with pytest.raises(ValueError, match="noise of k-space and of complex images is Gaussian"):
        noise.whitened(torch.ones(1, 8, 8), FourierTransform((1, 8, 8)))
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive and finite"):
            RicianNoise(sigma)
