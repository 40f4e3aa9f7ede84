"""Noise models: samples by their moments, whitening against dense matrices."""

import pytest
import torch
from tiny import dense, relative

from iasolve.operators import GaussianNoise, Identity, KSpaceMask, LinearOperator, check_operator
from iasolve.operators.coil_noise import CoilNoise, estimate_covariance, outermost_samples
from iasolve.operators.coils import SensitivityEncoding, birdcage_maps
from iasolve.operators.noise import PoissonNoise, WeightedGaussianNoise


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def covariance(coils=3, seed=0):
    root = random((coils, coils), torch.complex128, seed)
    return root @ root.mH / coils + 0.1 * torch.eye(coils)


def half_mask(height, width):
    mask = torch.rand(height, width, generator=generator(1)) < 0.5
    mask[height // 2, width // 2] = True
    return mask


def test_white_noise_is_white_already():
    noise, operator, y = GaussianNoise(0.3), Identity((1, 4, 4)), torch.ones(2, 1, 4, 4)
    assert noise.whitened(y, operator) == (y, operator, noise)


# ------------------------------------------------------------------------------------------- a level for each value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_weighted_samples_have_their_levels(dtype):
    sigma = torch.tensor([0.1, 1.0, 30.0])
    n = WeightedGaussianNoise(sigma).sample(torch.ones(40_000, 3, dtype=dtype), generator()) - 1
    assert n.dtype == dtype
    torch.testing.assert_close(n.abs().square().mean(0).sqrt().float(), sigma, rtol=0.02, atol=0)
    if dtype.is_complex:
        torch.testing.assert_close(n.real.square().mean(0).float(), sigma**2 / 2, rtol=0.04, atol=0)


def test_equal_levels_are_white_noise():
    clean = random((2, 4, 5), seed=1)
    for shape in ((), (4, 5)):
        weighted, white = WeightedGaussianNoise(torch.full(shape, 0.7, dtype=torch.float64)), GaussianNoise(0.7)
        torch.testing.assert_close(weighted.sample(clean, generator()), white.sample(clean, generator()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_weighted_whitening(dtype):
    mask = KSpaceMask(half_mask(5, 6), (1, 5, 6), dtype)
    sigma = 0.1 + torch.rand(5, 6, generator=generator(), dtype=torch.float64)
    noise = WeightedGaussianNoise(sigma)
    y = random((3, 1, 5, 6), torch.complex128)
    whitened = noise.whitened(y, mask)
    assert whitened.noise == GaussianNoise(1.0)
    torch.testing.assert_close(whitened.y, y / sigma)
    torch.testing.assert_close(dense(whitened.operator, dtype), dense(mask, dtype) / sigma.reshape(-1, 1))
    assert whitened.operator.transfer() is not None
    assert check_operator(whitened.operator).ok


def test_impossible_levels_are_refused():
    for wrong in (torch.tensor(0.0), torch.tensor([1.0, -1.0]), torch.tensor(torch.inf), torch.tensor(1j)):
        with pytest.raises(ValueError, match="positive and finite"):
            WeightedGaussianNoise(wrong)
    noise = WeightedGaussianNoise(torch.ones(3))
    for shape in ((4, 5), (2, 1), ()):
        with pytest.raises(ValueError, match=r"levels have shape \(3,\)"):
            noise.sample(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\(3,\).*\(1, 4, 4\)"):
        noise.whitened(torch.ones(1, 4, 4), Identity((1, 4, 4)))


# ------------------------------------------------------------------------------------------- coils


def test_coil_samples_have_their_covariance():
    noise = CoilNoise(covariance())
    n = noise.sample(torch.ones(2, 3, 150, 150, dtype=torch.complex128), generator()) - 1
    flat = n.movedim(-3, 0).flatten(1)
    assert relative(flat @ flat.mH / flat.shape[1], noise.covariance) < 0.02
    # circular: no correlation without conjugation
    assert float((flat @ flat.mT / flat.shape[1]).abs().max()) < 0.02
    white = noise.whiten(n).movedim(-3, 0).flatten(1)
    assert relative(white @ white.mH / white.shape[1], torch.eye(3, dtype=white.dtype)) < 0.02
    assert noise.sigma == pytest.approx(float(n.abs().square().mean().sqrt()), rel=0.02)
    single = noise.sample(torch.ones(3, 4, 4, dtype=torch.complex64), generator())
    assert single.dtype == torch.complex64
    assert "3 coils" in repr(noise)


def test_uncorrelated_coils_of_one_level_are_white_noise():
    clean = random((2, 3, 4, 5), torch.complex128, seed=1)
    coil, white = CoilNoise(0.49 * torch.eye(3)), GaussianNoise(0.7)
    torch.testing.assert_close(coil.sample(clean, generator()), white.sample(clean, generator()))
    assert coil.sigma == pytest.approx(0.7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("general", [False, True])
def test_coil_whitening_weighs_by_the_inverse_covariance(dtype, general):
    encoding = SensitivityEncoding(birdcage_maps((4, 5), 3), half_mask(4, 5), dtype)
    operator = encoding
    if general:
        operator = LinearOperator.from_functions(encoding.forward, encoding.adjoint, in_shape=(1, 4, 5), dtype=dtype)
    noise = CoilNoise(covariance())
    y = encoding.mask * random((3, 4, 5), torch.complex128)
    whitened = noise.whitened(y, operator)
    assert whitened.noise == GaussianNoise(1.0)
    assert isinstance(whitened.operator, SensitivityEncoding) != general
    assert check_operator(whitened.operator).ok
    # the normal equations of the correlated problem, A^H S^-1 A x = A^H S^-1 y
    matrix = dense(encoding, dtype).to(torch.complex128)
    inverse = torch.kron(torch.linalg.inv(noise.covariance).contiguous(), torch.eye(20, dtype=torch.complex128))
    white = dense(whitened.operator, dtype).to(torch.complex128)
    torch.testing.assert_close(white.mH @ white, matrix.mH @ inverse @ matrix)
    torch.testing.assert_close(white.mH @ whitened.y.flatten(), matrix.mH @ inverse @ y.flatten())


def test_a_batch_is_whitened_as_its_items():
    noise, y = CoilNoise(covariance()), random((2, 5, 3, 4, 6), torch.complex64)
    torch.testing.assert_close(noise.whiten(y)[1, 3], noise.whiten(y[1, 3]))
    torch.testing.assert_close(noise.whitening @ noise.factor, torch.eye(3, dtype=torch.complex128))


def test_impossible_coil_noise_is_refused():
    for wrong, words in (
        (torch.ones(3), r"\(coils, coils\)"),
        (torch.tensor([[1.0, 0.5], [0.2, 1.0]]), "Hermitian"),
        (torch.tensor([[1.0, 0.5j], [0.5j, 1.0]]), "Hermitian"),
        (torch.full((2, 2), torch.nan), "finite"),
        (torch.ones(2, 2), "singular"),
        (-torch.eye(2), "singular"),
        (torch.zeros(2, 2), "singular"),
    ):
        with pytest.raises(ValueError, match=words):
            CoilNoise(wrong)
    noise = CoilNoise(torch.eye(3))
    with pytest.raises(ValueError, match=r"\(2, 4, 4\).*3 coils"):
        noise.whiten(torch.ones(2, 4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match="float32"):
        noise.sample(torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        noise.whitened(torch.ones(1, 4, 4), KSpaceMask(torch.ones(4, 4), (1, 4, 4)))
    with pytest.raises(ValueError, match="float32"):
        noise.whitened(torch.ones(3, 4, 4), Identity((3, 4, 4)))
    apart = SensitivityEncoding(torch.ones(3, 4, 4), torch.eye(4).expand(3, 4, 4))
    with pytest.raises(ValueError, match="different places"):
        noise.whitened(torch.ones(3, 4, 4, dtype=torch.complex64), apart)


def test_a_covariance_is_estimated_from_noise():
    noise = CoilNoise(covariance())
    samples = noise.sample(torch.zeros(3, 100, 200, dtype=torch.complex64), generator())
    found = estimate_covariance(samples.numpy())
    assert found.dtype == torch.complex128
    assert relative(found, noise.covariance) < 0.03
    assert CoilNoise(found).sigma == pytest.approx(noise.sigma, rel=0.03)
    with pytest.raises(ValueError, match="at least 3 noise samples of each, got 2"):
        estimate_covariance(samples[:, 0, :2])
    with pytest.raises(ValueError, match="float32"):
        estimate_covariance(samples.real)
    with pytest.raises(ValueError, match="NaN"):
        estimate_covariance(samples * torch.nan)


def test_outermost_samples_stand_in_for_a_noise_scan():
    """An image whose spectrum ends before the edge of k-space leaves nothing but noise there."""
    mask = half_mask(64, 48)
    noise = CoilNoise(1e-4 * covariance())
    operator = SensitivityEncoding(birdcage_maps((64, 48), 3), mask)
    y, x = torch.arange(64.0)[:, None] - 32, torch.arange(48.0)[None, :] - 24
    image = torch.exp(-(y**2 + x**2) / 50).to(torch.complex64)[None]
    kspace = operator.mask * noise.sample(operator(image), generator())
    samples = outermost_samples(kspace, 0.3)
    assert samples.shape == (3, round(0.3 * int(mask.sum())))
    assert relative(estimate_covariance(samples), noise.covariance) < 0.15
    everything = outermost_samples(kspace, 1.0)
    assert float(everything.abs().max()) == float(kspace.abs().max())
    assert (everything != 0).all()
    for wrong, words in (
        (lambda: outermost_samples(kspace, 0), "got 0"),
        (lambda: outermost_samples(kspace[0]), r"\(64, 48\)"),
        (lambda: outermost_samples(torch.zeros_like(kspace)), "every entry is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


# ------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize("gain", [0.5, 20.0])
def test_poisson_samples_have_mean_and_variance(gain):
    clean = torch.tensor([0.0, 0.2, 1.0, 7.0])
    y = PoissonNoise(gain).sample(clean.expand(200_000, 4), generator())
    torch.testing.assert_close(y.mean(0), clean, rtol=0.02, atol=1e-6)
    torch.testing.assert_close(y.var(0), clean / gain, rtol=0.03, atol=1e-6)
    counts = gain * y
    torch.testing.assert_close(counts, counts.round())


@pytest.mark.parametrize("counts", [0.3, 2.0, 10.0, 100.0])
def test_the_weighted_gaussian_form_of_counts_is_unbiased(counts):
    """Least squares for one constant intensity, with weights from the data: low counts must not pull it down."""
    gain, level = 4.0, counts / 4.0
    noise, operator = PoissonNoise(gain), Identity((1, 400, 400), torch.float64)
    y = noise.sample(torch.full((1, 400, 400), level, dtype=torch.float64), generator())
    whitened = noise.whitened(y, operator)
    weights = whitened.operator(torch.ones_like(y))
    found = float((weights * whitened.y).sum() / weights.square().sum())
    assert found == pytest.approx(level, rel=0.02)
    if counts >= 10:
        residual = whitened.y - level * weights
        assert float(residual.square().mean()) == pytest.approx(1, abs=0.15)


def test_poisson_whitening_is_an_operator_like_any_other():
    noise, operator = PoissonNoise(10.0), Identity((1, 5, 6), torch.float64)
    y = noise.sample(torch.rand(1, 5, 6, generator=generator(), dtype=torch.float64), generator())
    whitened = noise.whitened(y, operator)
    assert whitened.noise == GaussianNoise(1.0)
    assert whitened.operator.transfer() is None
    assert check_operator(whitened.operator).ok
    expected = (y + y.clamp_max(0.1)) / ((10 * y + 1).sqrt() / 10)
    torch.testing.assert_close(whitened.y, expected)


def test_impossible_counts_are_refused():
    for gain in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="gain"):
            PoissonNoise(gain)
    noise, operator = PoissonNoise(1.0), Identity((1, 4, 4))
    with pytest.raises(ValueError, match="clean values must not be negative"):
        noise.sample(-torch.ones(3))
    with pytest.raises(ValueError, match="complex64"):
        noise.sample(torch.ones(3) * 1j)
    with pytest.raises(ValueError, match="one by one"):
        noise.whitened(torch.ones(2, 1, 4, 4), operator)
    with pytest.raises(ValueError, match="measured values"):
        noise.whitened(torch.full((1, 4, 4), torch.nan), operator)
