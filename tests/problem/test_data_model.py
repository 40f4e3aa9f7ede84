"""Data term, posterior mean, variance and draws against dense Gaussian algebra; conjugate gradients."""

import pytest
import torch
from tiny import circulant, decaying_power, dense, relative, stacked

from iasolve.classical.conjugate import Isometry, Regularised, conjugate_gradients
from iasolve.evidence import fold
from iasolve.operators import CircularBlur, Identity, KSpaceMask, gaussian_kernel
from iasolve.problem import DiagonalLikelihood, OperatorLikelihood
from iasolve.spectrum import fft2, filtered, ifft2, radius

SIGMA = 0.3


def lopsided_mask(height, width):
    """A k-space mask without any symmetry."""
    generator = torch.Generator().manual_seed(height * width)
    mask = torch.rand(height, width, generator=generator) < 0.5
    mask[height // 2, width // 2] = True
    return mask


def skewed_kernel():
    return torch.tensor([[0.1, 0.3, 0.0], [0.2, 0.5, 0.15]], dtype=torch.float64)


OPERATORS = {
    "identity": lambda shape: Identity(shape, torch.float64),
    "mask": lambda shape: KSpaceMask(lopsided_mask(*shape[1:]), shape, torch.float64),
    "blur": lambda shape: CircularBlur(skewed_kernel(), shape, torch.float64),
    "blurred mask": lambda shape: (
        KSpaceMask(lopsided_mask(*shape[1:]), shape, torch.float64)
        @ CircularBlur(skewed_kernel(), shape, torch.float64)
    ),
}


class Case:
    """A small measurement with both data models and the dense answer."""

    def __init__(self, name, shape=(1, 8, 8), batch=2, sigma=SIGMA):
        self.operator = OPERATORS[name](shape)
        generator = torch.Generator().manual_seed(5)
        self.variance = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
        self.variance = (self.variance + torch.roll(self.variance.flip((-2, -1)), (1, 1), (-2, -1))) / 2
        self.x0 = torch.randn((batch, *shape), generator=generator, dtype=torch.float64)
        truth = self.x0 + torch.randn((batch, *shape), generator=generator, dtype=torch.float64)
        self.clean = clean = self.operator(truth)
        self.y = clean + sigma * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        self.sigma = torch.full((batch,), sigma, dtype=torch.float64)
        folded = fold(
            self.operator.to_grid(self.y),
            self.operator.transfer(),
            self.sigma.reshape(-1, 1, 1, 1),
            real_image=True,
            complex_noise=self.y.is_complex(),
        )
        self.diagonal = DiagonalLikelihood(folded, is_complex=False)
        self.general = OperatorLikelihood(self.operator, self.y, self.sigma, iterations=300, tolerance=0)

    def dense(self):
        """Posterior mean ``(B, n)`` and covariance ``(n, n)`` by linear algebra."""
        A = stacked(dense(self.operator))
        share = 2 if self.y.is_complex() else 1
        prior = circulant(self.variance[0])
        y = self.y.flatten(1)
        y = torch.cat([y.real, y.imag], 1) if y.is_complex() else y
        noise = torch.eye(len(A), dtype=torch.float64) * float(self.sigma[0]) ** 2 / share
        gain = prior @ A.T @ torch.linalg.inv(A @ prior @ A.T + noise)
        x0 = self.x0.flatten(1)
        return x0 + (y - x0 @ A.T) @ gain.T, prior - gain @ A @ prior


def gradient(data, x0, variance):
    x0 = x0.clone().requires_grad_(True)
    (out,) = torch.autograd.grad(data.value(x0, variance).nats.sum(), x0)
    return out


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 6), (1, 5, 9)])
def test_posterior_mean_is_the_dense_one(name, shape):
    case = Case(name, shape)
    mean, _ = case.dense()
    for data in (case.diagonal, case.general):
        found = data.mean(case.x0, case.variance, iterations=300).flatten(1)
        assert relative(found, mean) < 1e-5


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 7, 6), (1, 5, 9)])
def test_posterior_variance_is_the_dense_one_in_every_bin(name, shape):
    case = Case(name, shape)
    _, covariance = case.dense()
    height, width = shape[1:]
    # B^H C B: transform the columns, then the rows
    columns = fft2(covariance.T.reshape(-1, height, width)).reshape(len(covariance), -1).T
    rows = fft2(columns.conj().reshape(-1, height, width)).reshape(len(covariance), -1).conj()
    expected = rows.diagonal().real.reshape(height, width)
    found = case.diagonal.posterior_variance(case.variance)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_term_is_the_marginal_likelihood_and_both_paths_have_its_gradient(name):
    case = Case(name)
    A = stacked(dense(case.operator))
    share = 2 if case.y.is_complex() else 1
    marginal = A @ circulant(case.variance[0]) @ A.T
    marginal += torch.eye(len(A), dtype=torch.float64) * SIGMA**2 / share
    y = case.y.flatten(1)
    y = torch.cat([y.real, y.imag], 1) if y.is_complex() else y
    residual = y - case.x0.flatten(1) @ A.T
    weighed = residual @ torch.linalg.inv(marginal)
    values = 0.5 * (residual * weighed).sum(1)
    slope = -(weighed @ A).reshape(case.x0.shape)
    for data in (case.diagonal, case.general):
        assert relative(gradient(data, case.x0, case.variance), slope) < 1e-5
    # differences: measured values that no real image can explain are a constant, which folding leaves out
    for data in (case.diagonal, case.general):
        other = case.x0 + 0.1
        moved = y - other.flatten(1) @ A.T
        expected = 0.5 * (moved @ torch.linalg.inv(marginal) * moved).sum(1) - values
        found = data.value(other, case.variance).nats - data.value(case.x0, case.variance).nats
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", ["diagonal", "general"])
@pytest.mark.parametrize("name", ["blur", "blurred mask"])
@pytest.mark.slow
def test_draws_have_the_posterior_mean_and_covariance(name, path):
    count = 20_000
    case = Case(name, shape=(1, 4, 5))
    mean, covariance = case.dense()
    generator = torch.Generator().manual_seed(1)

    def white(shape):
        return torch.randn((count, *shape), generator=generator, dtype=torch.float64)

    data, x0 = getattr(case, path), case.x0[:1]
    if path == "general":
        data = OperatorLikelihood(case.operator, case.y[:1].repeat(count, *[1] * 3), case.sigma[:1].repeat(count))
        x0 = x0.repeat(count, 1, 1, 1)
    else:
        data.folded = type(data.folded)(*(t[:1] for t in data.folded))
    _, draws = data.draw(x0, case.variance, white)
    flat = draws.flatten(1)
    scale = covariance.diagonal().sqrt()
    assert ((flat.mean(0) - mean[0]) / scale).abs().max() < 5 / count**0.5
    found = torch.cov(flat.T)
    assert ((found - covariance) / torch.outer(scale, scale)).abs().max() < 7 / count**0.5


@pytest.mark.parametrize("path", ["diagonal", "general"])
def test_draws_of_complex_images_fill_both_parts(path):
    """The noise source may be real (it is, in ``solve``): a complex image still needs complex draws."""
    count, shape = 4000, (1, 4, 4)
    operator = Identity(shape, torch.complex128)
    y = torch.zeros(count, *shape, dtype=torch.complex128)
    sigma, variance = torch.full((count,), 1.0, dtype=torch.float64), torch.full(shape, 1.0, dtype=torch.float64)
    folded = fold(fft2(y), operator.transfer(), 1.0, real_image=False, complex_noise=True)
    data = DiagonalLikelihood(folded, is_complex=True) if path == "diagonal" else OperatorLikelihood(operator, y, sigma)
    generator = torch.Generator().manual_seed(2)

    def white(wanted):
        return torch.randn((count, *wanted), generator=generator, dtype=torch.float64)

    _, draws = data.draw(torch.zeros_like(y), variance, white)
    # variance 1 and noise 1: half remains, a quarter in each part, and the parts are independent
    assert draws.real.square().mean() == pytest.approx(0.25, rel=0.05)
    assert draws.imag.square().mean() == pytest.approx(0.25, rel=0.05)
    assert (draws.real * draws.imag).mean().abs() < 0.02


@pytest.mark.parametrize("is_complex", [False, True])
def test_noise_free_data_are_reproduced_where_measured_and_the_guess_stays_elsewhere(is_complex):
    shape, dtype = (1, 8, 8), torch.complex128 if is_complex else torch.float64
    operator = KSpaceMask(lopsided_mask(8, 8), shape, dtype)
    generator = torch.Generator().manual_seed(3)
    x, x0 = (torch.randn((3, *shape), generator=generator, dtype=dtype) for _ in range(2))
    y = operator(x)
    folded = fold(operator.to_grid(y), operator.transfer(), 0.0, real_image=not is_complex, complex_noise=True)
    data = DiagonalLikelihood(folded, is_complex)
    variance = decaying_power(8)[None]
    closed = data.mean(x0, variance)
    torch.testing.assert_close(operator(closed), y, rtol=0, atol=1e-12)
    free = torch.isinf(folded.variance)
    assert free.any()
    torch.testing.assert_close(fft2(closed)[free], fft2(x0)[free], rtol=0, atol=1e-12)
    assert (data.posterior_variance(variance)[~free] == 0).all()
    assert torch.isfinite(data.value(x0, variance).nats).all()


def test_closing_approaches_consistency_as_the_noise_vanishes():
    case = [Case("mask", sigma=s) for s in (1e-1, 1e-3, 1e-5)]
    gaps = [relative(c.operator(c.diagonal.mean(c.x0, c.variance)), c.clean) for c in case]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-4


def test_misfit_is_one_for_data_that_follow_the_model():
    generator = torch.Generator().manual_seed(4)
    shape = (1, 32, 32)
    variance = decaying_power(32)[None] * 0.1
    x0 = torch.randn((4, *shape), generator=generator, dtype=torch.float64)
    off = ifft2(variance.sqrt() * fft2(torch.randn(x0.shape, generator=generator, dtype=torch.float64))).real
    operator = CircularBlur(gaussian_kernel(0.5), shape, torch.float64)
    y = operator(x0 + off)
    y = y + SIGMA * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    sigma = torch.full((4,), SIGMA, dtype=torch.float64)
    folded = fold(fft2(y), operator.transfer(), SIGMA, real_image=True, complex_noise=False)
    found = DiagonalLikelihood(folded, is_complex=False).misfit(x0, variance)
    torch.testing.assert_close(found, torch.ones(4, dtype=torch.float64), rtol=0, atol=0.1)
    found = OperatorLikelihood(operator, y, sigma).misfit(x0, variance)
    torch.testing.assert_close(found, torch.ones(4, dtype=torch.float64), rtol=0, atol=0.2)
    # twice the noise is noticed
    worse = fold(fft2(y), operator.transfer(), SIGMA / 2, real_image=True, complex_noise=False)
    assert (DiagonalLikelihood(worse, is_complex=False).misfit(x0, variance) > 1.4).all()


def spd(count, size, seed):
    generator = torch.Generator().manual_seed(seed)
    m = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    return m @ m.mT + torch.eye(size, dtype=torch.float64), torch.randn(
        count, size, generator=generator, dtype=torch.float64
    )


def apply(matrices):
    return lambda x: torch.einsum("bij,bj->bi", matrices, x)


def test_conjugate_gradients_solve_each_item_as_alone():
    A, b = spd(4, 12, 0)
    d = A.diagonal(dim1=1, dim2=2)
    start = torch.zeros_like(b)
    for iterations in (3, 60):
        whole = conjugate_gradients(apply(A), b, lambda r: r / d, start, iterations, 1e-10)
        for i in range(4):
            j = slice(i, i + 1)
            single = conjugate_gradients(apply(A[j]), b[j], lambda r, j=j: r / d[j], start[j], iterations, 1e-10)
            torch.testing.assert_close(whole.solution[j], single.solution, rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(whole.residual[j], single.residual)
    torch.testing.assert_close(whole.solution, torch.linalg.solve(A, b), rtol=1e-8, atol=1e-9)
    assert (whole.residual <= 1e-10).all()


def test_a_converged_item_is_left_alone():
    A, b = spd(2, 12, 1)
    start = torch.zeros_like(b)
    start[0] = torch.linalg.solve(A[0], b[0])
    found = conjugate_gradients(apply(A), b, lambda r: r, start, 50, 1e-6)
    assert torch.equal(found.solution[0], start[0])
    assert relative(found.solution[1], torch.linalg.solve(A[1], b[1])) < 1e-5
    done = conjugate_gradients(apply(A), b, lambda r: r, torch.linalg.solve(A, b), 50, 1e-6)
    assert done.iterations == 0


@pytest.mark.parametrize("size", [(5, 6), (4, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_on_spectra_iterations_are_those_on_images(size, dtype):
    """Of a random gram and a diagonal in Fourier space: the same iterates, and at the end the dense solution."""
    generator = torch.Generator().manual_seed(0)
    n = size[0] * size[1]
    root = torch.randn(n // 2, n, dtype=dtype, generator=generator)
    matrix = root.mH @ root
    b = torch.randn(1, 1, *size, dtype=dtype, generator=generator)
    power = 1 / (1 + radius(*size)).double()

    def gram(x):
        return (x.flatten(1) @ matrix.mT).reshape(x.shape)

    space = Isometry(b)
    system = Regularised(gram, 1 / power, power, space)
    start = torch.zeros_like(b)
    for iterations in (3, 200):
        mine = system.solve(space.spectrum(b), space.spectrum(start), iterations, 1e-12)
        plain = conjugate_gradients(
            lambda x: gram(x) + filtered(x, 1 / power), b, lambda r: filtered(r, power), start, iterations, 1e-12
        )
        torch.testing.assert_close(space.image(mine.solution), plain.solution, rtol=1e-7, atol=1e-9)
    basis = torch.eye(n, dtype=dtype).reshape(-1, 1, *size)
    whole = matrix + filtered(basis, 1 / power).flatten(1).mT
    torch.testing.assert_close(space.image(mine.solution).flatten(), torch.linalg.solve(whole, b.flatten()))


def test_conjugate_gradients_of_nothing_give_nothing():
    A, b = spd(2, 5, 2)
    found = conjugate_gradients(apply(A), torch.zeros_like(b), lambda r: r, torch.zeros_like(b), 10, 1e-6)
    assert torch.equal(found.solution, torch.zeros_like(b))


def test_general_batch_is_the_loop_of_singles():
    case = Case("blurred mask", batch=3)
    together = case.general.mean(case.x0, case.variance, iterations=5)
    for i in range(3):
        j = slice(i, i + 1)
        alone = OperatorLikelihood(case.operator, case.y[j], case.sigma[j])
        torch.testing.assert_close(together[j], alone.mean(case.x0[j], case.variance, iterations=5))


def test_few_warm_started_iterations_reach_the_minimum():
    case = Case("blurred mask")
    few = OperatorLikelihood(case.operator, case.y, case.sigma, iterations=2)
    values, start = [], None
    for _ in range(12):
        nats, start = few.value(case.x0, case.variance, start)
        values.append(nats)
    values = torch.stack(values)
    assert (values[1:] <= values[:-1] * (1 + 1e-12)).all()
    torch.testing.assert_close(values[-1], case.general.value(case.x0, case.variance).nats, rtol=1e-5, atol=1e-8)
