"""Folding, Wiener estimate and evidence profile against dense linear algebra on small images."""

import pytest
import torch
from tiny import circulant, decaying_power, dense, relative, stacked

from iasolve.evidence import Folded, evidence, fold, profile, wiener
from iasolve.operators import CircularBlur, Identity, KSpaceMask, LowPass
from iasolve.spectrum import Spectrum, fft2, ifft2, reflect, rings_at

SIZES = [(8, 8), (7, 7), (6, 9)]
SIGMA = 0.4


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lopsided(height, width):
    mask = torch.rand(height, width, generator=generator(height + width)) < 0.6
    mask[height // 2, width // 2] = True
    return mask


def kernel():
    return torch.tensor([[0.1, 0.4, 0.05], [0.0, 0.6, 0.2]], dtype=torch.float64)


OPERATORS = {
    "identity": lambda s: Identity(s, torch.float64),
    "mask": lambda s: KSpaceMask(lopsided(*s[1:]), s, torch.float64),
    "blur": lambda s: CircularBlur(kernel(), s, torch.float64),
    "low-pass": lambda s: LowPass(4, s, torch.float64),
    "masked blur": lambda s: KSpaceMask(lopsided(*s[1:]), s, torch.float64) @ CircularBlur(kernel(), s, torch.float64),
    "complex factor": lambda s: (0.6 - 1.7j) * KSpaceMask(lopsided(*s[1:]), s, torch.float64),
}


def measured(name, size, sigma=SIGMA, seed=1):
    operator = OPERATORS[name]((1, *size))
    x = torch.randn(1, *size, generator=generator(seed), dtype=torch.float64)
    y = operator(x)
    y = y + sigma * torch.randn(y.shape, generator=generator(seed + 1), dtype=y.dtype)
    return operator, x, y


def folded_of(operator, y, sigma=SIGMA):
    return fold(
        operator.to_grid(y),
        operator.transfer(),
        sigma,
        real_image=not operator.is_complex,
        complex_noise=y.is_complex(),
    )


def real_system(operator, y):
    """``A`` and ``y`` as real numbers, and the variance of each entry's noise over sigma^2."""
    flat = y.flatten()
    values = torch.cat([flat.real, flat.imag]) if y.is_complex() else flat
    return stacked(dense(operator)), values, 0.5 if y.is_complex() else 1.0


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("size", SIZES)
def test_folded_value_is_the_dense_least_squares_solution(name, size):
    operator, _, y = measured(name, size)
    A, values, _ = real_system(operator, y)
    # minimum-norm solution: zero where nothing was measured, as the folded value is
    solution = (torch.linalg.pinv(A, rtol=1e-9) @ values).reshape(1, *size)
    folded = folded_of(operator, y)
    torch.testing.assert_close(folded.value, fft2(solution), rtol=1e-9, atol=1e-10)
    assert torch.equal(torch.isinf(folded.variance), folded.value == 0)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("size", SIZES)
def test_folded_variance_is_the_dense_covariance_in_every_bin(name, size):
    operator, _, y = measured(name, size)
    A, _, share = real_system(operator, y)
    inverse = torch.linalg.pinv(A, rtol=1e-9)
    covariance = share * SIGMA**2 * inverse @ inverse.T
    count = covariance.shape[0]
    F = fft2(torch.eye(count, dtype=torch.float64).reshape(count, *size)).reshape(count, count).T
    bins = F @ covariance.to(F.dtype) @ F.mH
    folded = folded_of(operator, y)
    known = torch.isfinite(folded.variance)
    found = torch.where(known, folded.variance, torch.zeros_like(folded.variance)).flatten()
    torch.testing.assert_close(found, bins.diagonal().real, rtol=1e-8, atol=1e-12)
    # and nothing is correlated but a bin with itself: frequencies are on their own
    off = bins - torch.diag(bins.diagonal())
    assert off.abs().max() < 1e-9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPERATORS)
def test_folded_data_are_sufficient(name, size):
    """Prior plus folded data give the posterior covariance and mean that prior plus raw data give."""
    operator, _, y = measured(name, size)
    A, values, share = real_system(operator, y)
    power = torch.rand(size, generator=generator(9), dtype=torch.float64) + 0.2
    power = (power + reflect(power)) / 2
    C = circulant(power)
    noise = share * SIGMA**2 * torch.eye(len(A), dtype=torch.float64)
    gain = C @ A.T @ torch.linalg.inv(A @ C @ A.T + noise)
    folded = folded_of(operator, y)
    estimate, rho = wiener(folded, power)
    assert relative(ifft2(estimate).real.flatten(), gain @ values) < 1e-9
    assert ifft2(estimate).imag.abs().max() < 1e-12
    torch.testing.assert_close(circulant(((1 - rho) * power)[0]), C - gain @ A @ C, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["identity", "mask", "low-pass"])
@pytest.mark.parametrize("size", SIZES)
def test_without_noise_measured_bins_are_the_images_own(name, size):
    operator, x, y = measured(name, size, sigma=0.0)
    folded = folded_of(operator, y, sigma=0.0)
    known = torch.isfinite(folded.variance)
    torch.testing.assert_close(folded.value[known], fft2(x)[known], rtol=1e-10, atol=1e-11)
    assert (folded.variance[known] == 0).all()
    assert (folded.value[~known] == 0).all()
    estimate, rho = wiener(folded, decaying_power(8)[: size[0], :1] + 1.0)
    assert torch.equal(rho, known.double())
    assert torch.equal(estimate[known], folded.value[known])


@pytest.mark.parametrize("size", SIZES)
def test_complex_images_are_not_folded(size):
    shape = (2, *size)
    mask = lopsided(*size)
    operator = KSpaceMask(mask, shape, torch.complex128)
    x = torch.randn(shape, generator=generator(), dtype=torch.complex128)
    folded = folded_of(operator, operator(x))
    known = torch.fft.ifftshift(mask).expand(shape)
    torch.testing.assert_close(folded.value, fft2(x) * known, rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.isfinite(folded.variance), known)
    torch.testing.assert_close(folded.variance[known], torch.full((int(known.sum()),), SIGMA**2, dtype=torch.float64))


def test_a_bin_measured_twice_counts_twice():
    """Bins k and -k of a real image are one number: with both sampled its noise variance halves."""
    size = (8, 8)
    once, twice = torch.zeros(size), torch.zeros(size)
    once[4, 6] = twice[4, 6] = twice[4, 2] = 1
    for mask, expected in ((once, SIGMA**2), (twice, SIGMA**2 / 2)):
        operator = KSpaceMask(mask, (1, *size), torch.float64)
        folded = folded_of(operator, torch.zeros(1, *size, dtype=torch.complex128))
        assert float(folded.variance[0, 0, 2]) == pytest.approx(expected)
        assert float(folded.variance[0, 0, -2]) == pytest.approx(expected)
        assert int(torch.isfinite(folded.variance).sum()) == 2


@pytest.mark.parametrize("complex_noise", [False, True])
def test_real_images_fold_to_hermitian_spectra_with_the_stated_error(complex_noise):
    size, count = (6, 7), 4000
    operator = OPERATORS["masked blur" if complex_noise else "blur"]((1, *size))
    x = torch.randn(1, *size, generator=generator(), dtype=torch.float64)
    clean = operator(x)
    noise = torch.randn(count, *clean.shape, generator=generator(3), dtype=clean.dtype)
    folded = folded_of(operator, clean + SIGMA * noise)
    torch.testing.assert_close(folded.value, reflect(folded.value).conj(), rtol=0, atol=1e-12)
    known = torch.isfinite(folded.variance[0])
    error = (folded.value - fft2(x)).abs().square().mean(0)
    ratio = error[known] / folded.variance[0][known]
    assert (ratio - 1).abs().max() < 6 * (2 / count) ** 0.5


def test_sigma_may_differ_per_image():
    operator, _, y = measured("mask", (8, 8))
    sigma = torch.tensor([0.1, 0.5, 0.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    whole = folded_of(operator, y.expand(3, 1, 8, 8), sigma)
    for i, s in enumerate((0.1, 0.5, 0.0)):
        single = folded_of(operator, y, s)
        assert torch.equal(whole.value[i], single.value)
        assert torch.equal(whole.variance[i], single.variance)


@pytest.mark.parametrize("is_complex", [False, True])
def test_profile_is_one_for_clean_data_and_zero_for_none(is_complex):
    spectrum, power = Spectrum(16, is_complex), decaying_power(16)
    dtype = torch.complex128 if is_complex else torch.float64
    x = torch.randn(2, 1, 16, 16, generator=generator(), dtype=dtype)
    clean = evidence(Folded(fft2(x), torch.zeros(2, 1, 16, 16, dtype=torch.float64)), power, spectrum)
    torch.testing.assert_close(clean.profile, torch.ones(2, 2, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(clean.image, x)
    nothing = Folded(torch.zeros(2, 1, 16, 16, dtype=torch.complex128), torch.full((2, 1, 16, 16), torch.inf).double())
    none = evidence(nothing, power, spectrum)
    assert torch.equal(none.profile, torch.zeros(2, 2, 5, dtype=torch.float64))
    assert torch.equal(none.image, torch.zeros_like(x))
    assert none.image.dtype == dtype


def test_profile_tells_a_quarter_of_the_bins_from_all_bins_at_a_quarter():
    spectrum = Spectrum(16)
    ring = spectrum.ring_means(torch.ones(16, 9))
    torch.testing.assert_close(ring, torch.ones(5))
    even = profile(torch.full((1, 1, 16, 16), 0.25), rings_at((16, 16), 16))
    torch.testing.assert_close(even[0, 0], torch.full((5,), 0.25))
    torch.testing.assert_close(even[0, 1], torch.full((5,), 0.0625))
    rho = torch.zeros(1, 1, 16, 16)
    rho[..., 8, :] = 1.0  # one of the outermost rows: 16 of the 15 * 16 + 1 .. bins with r = 8 or 5..8
    some = profile(rho, rings_at((16, 16), 16))
    torch.testing.assert_close(some[0, 0], some[0, 1])
    own = int((Spectrum(16, True).ring == 4).sum())
    assert float(some[0, 0, 4]) == pytest.approx(16 / own)


def test_profile_falls_with_the_noise():
    spectrum, power = Spectrum(16), decaying_power(16)
    last = torch.full((2, 5), 1.1, dtype=torch.float64)
    for sigma in (0.01, 0.1, 1.0, 10.0):
        variance = torch.full((1, 1, 16, 16), sigma**2, dtype=torch.float64)
        found = evidence(Folded(variance.to(torch.complex128), variance), power, spectrum).profile[0]
        assert (found < last).all()
        assert (found[1] <= found[0]).all()
        last = found
