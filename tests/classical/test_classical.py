import math

import numpy as np
import pytest
import torch
from phantoms import noise_case, phantom

from iasolve.classical import total_variation, wiener
from iasolve.spectrum import fft2, radius, reflect

torch.set_num_threads(1)


def mask_case(height=16, width=16, sigma=0.05, seed=0, keep=0.4):
    """Half-known spectrum: bins and their mirrors dropped together, precision 0, 1 or 2 over sigma^2."""
    generator = torch.Generator().manual_seed(seed)
    once = (torch.rand(height, width, generator=generator) < keep).double()
    once[0, 0] = 1
    count = once + reflect(once)
    precision, folded = noise_case(height, width, sigma, seed)
    return precision * count / 2, torch.where(count > 0, folded, 0)


def shifted(x, step, axis):
    """``np.roll`` by one, which takes four times as long on images as small as these."""
    return x.take(np.arange(-step, x.shape[axis] - step), axis, mode="wrap")


def np_gradient(x):
    return np.stack([shifted(x, -1, 0) - x, shifted(x, -1, 1) - x])


def np_objective(precision, folded, weight, x):
    misfit = np.abs(np.fft.fft2(x, norm="ortho") - folded) ** 2
    known = np.isfinite(precision) & (precision > 0)
    return 0.5 * (precision[known] * misfit[known]).sum() + weight * np.sqrt((np_gradient(x) ** 2).sum(0)).sum()


def primal_dual(precision, folded, weight, iterations, nonnegative=False):
    """Chambolle and Pock 2011, algorithm 1; full grid, float64, no line shared with the code under test."""
    lam, y = precision.numpy(), folded.numpy()
    step = 0.99 / math.sqrt(9.0 if nonnegative else 8.0)
    ratio = 10.0 / weight * np.abs(np.fft.ifft2(y, norm="ortho")).mean()
    tau, sigma = step * ratio, step / ratio
    with np.errstate(invalid="ignore"):
        known = np.where(np.isinf(lam), 1.0, tau * lam / (1 + tau * lam))
    x = np.fft.ifft2(y, norm="ortho").real
    p, q, x_bar = np.zeros((2, *x.shape)), np.zeros_like(x), x
    for _ in range(iterations):
        p = p + sigma * np_gradient(x_bar)
        p /= np.maximum(1, np.sqrt((p**2).sum(0)) / weight)
        v = x - tau * (shifted(p[0], 1, 0) - p[0] + shifted(p[1], 1, 1) - p[1])
        if nonnegative:
            q = np.minimum(q + sigma * x_bar, 0)
            v = v - tau * q
        h = np.fft.fft2(v, norm="ortho")
        new = np.fft.ifft2(h + known * (y - h), norm="ortho").real
        x, x_bar = new, 2 * new - x
    return x, np_objective(lam, y, weight, x)


def distance(a, b):
    return float((a - b).norm() / b.norm())


# --- Wiener ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (5, 4), (3, 7)])
def test_wiener_is_the_gaussian_posterior_mean(shape):
    """Against dense linear algebra over pixels: x = C F^H (F C F^H + 1 / Lambda)^-1 y, measured bins only."""
    height, width = shape
    precision, folded = mask_case(height, width, sigma=0.5)
    power = 1 / (1 + radius(height, width).double() ** 2)
    n = height * width
    f = fft2(torch.eye(n, dtype=torch.float64).reshape(n, height, width)).reshape(n, n).T
    cov = (f.conj().T @ torch.diag(power.flatten()).to(f.dtype) @ f).real
    known = precision.flatten() > 0
    a = f[known]
    gram = a @ cov.to(f.dtype) @ a.conj().T + torch.diag(1 / precision.flatten()[known]).to(f.dtype)
    expected = cov.to(f.dtype) @ a.conj().T @ torch.linalg.solve(gram, folded.flatten()[known])
    assert expected.imag.abs().max() < 1e-12
    assert torch.allclose(wiener(precision, folded, power).flatten(), expected.real)


def test_wiener_limits():
    _, folded = noise_case(8, 6)
    lam = torch.zeros(8, 6)
    lam[0, 0], lam[1, 0], lam[-1, 0] = math.inf, 4.0, 4.0
    power = torch.ones(8, 6, dtype=torch.float64)
    power[0, 0] = 0  # 0 / 0 where it matters: exact data win
    folded = torch.where(lam > 0, folded, complex(math.nan, 0))  # what folding leaves where nothing is measured
    h = fft2(wiener(lam, folded, power))
    assert torch.allclose(h[0, 0], folded[0, 0])
    assert torch.allclose(h[1, 0], 0.8 * folded[1, 0])
    assert h[lam == 0].abs().max() < 1e-12


def test_wiener_batch_and_dtype():
    cases = [noise_case(seed=s, sigma=0.2 + s) for s in range(3)]
    precision = torch.stack([p for p, _ in cases]).float()
    folded = torch.stack([f for _, f in cases]).to(torch.complex64)
    power = 1 / (1 + radius(16, 16))
    batch = wiener(precision, folded, power)
    assert batch.dtype == torch.float32
    for i in range(3):
        assert torch.allclose(batch[i], wiener(precision[i], folded[i], power), atol=1e-6)


# --- total variation: closed forms ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 16), (5, 15), (1, 12)])
@pytest.mark.parametrize("weight", [0.1, 1.0, 2.5])
def test_step_shrinks_by_the_known_amount(shape, weight):
    """Per row, two levels on n1 and n2 pixels joined by two jumps (periodic).

    d/da [lam / 2 n1 (a - a0)^2 + 2 w |a - b|] = 0: the upper level sinks by 2 w / (lam n1), the lower rises
    by 2 w / (lam n2), until they meet.
    """
    height, width = shape
    n1 = 5
    x = torch.zeros(shape, dtype=torch.float64)
    x[:, 2 : 2 + n1] = 3.0
    lam = 1.7
    expected = torch.full(shape, 2 * weight / (lam * (width - n1)), dtype=torch.float64)
    expected[:, 2 : 2 + n1] = 3.0 - 2 * weight / (lam * n1)
    assert expected.max() > expected.min()
    result = total_variation(torch.full(shape, lam), fft2(x), weight, tolerance=1e-8, max_iterations=5000)
    assert bool(result.converged)
    assert torch.allclose(result.image, expected, atol=1e-6)
    jump = float(expected.max() - expected.min())
    misfit = lam / 2 * float((expected - x).square().sum())
    assert float(result.objective) == pytest.approx(misfit + weight * 2 * height * jump, rel=1e-6)
    flipped = total_variation(torch.full(shape, lam).T, fft2(x.T), weight, tolerance=1e-8, max_iterations=5000)
    assert torch.allclose(flipped.image, expected.T, atol=1e-6)


def test_diagonal_stripes_feel_the_isotropic_gradient():
    """x[i, j] = f(i + j): both differences are f's, so a jump costs sqrt(2) times an axis-aligned one."""
    n, lam, weight = 12, 2.0, 0.8
    index = (torch.arange(n)[:, None] + torch.arange(n)) % n
    level = (index < n // 2).double()
    shift = math.sqrt(2) * 2 * weight / (lam * n / 2)
    expected = level + torch.where(level > 0, -shift, shift)
    result = total_variation(torch.full((n, n), lam), fft2(level), weight, tolerance=1e-8, max_iterations=5000)
    assert torch.allclose(result.image, expected, atol=1e-6)


@pytest.mark.parametrize("weight", [30.0, 1e6])
@pytest.mark.parametrize("case", [noise_case, mask_case])
def test_large_weight_gives_the_mean(case, weight):
    precision, folded = case(sigma=0.3)
    for dtype in (torch.float32, torch.float64):
        result = total_variation(precision.to(dtype), folded.to(dtype.to_complex()), weight)
        assert bool(result.converged)
        mean = float(folded[0, 0].real) / 16
        assert torch.allclose(result.image, torch.full((16, 16), mean, dtype=dtype), atol=1e-4)


def test_zero_weight_gives_the_data():
    precision, folded = mask_case(15, 8)
    result = total_variation(precision, folded, 0.0)
    h = fft2(result.image)
    assert torch.allclose(h[precision > 0], folded[precision > 0])
    assert h[precision == 0].abs().max() < 1e-12
    assert float(result.objective) == pytest.approx(0, abs=1e-12)
    assert int(result.iterations) == 0


# --- total variation: against an independent long run ---------------------------------------------


@pytest.mark.parametrize(("weight", "iterations"), [(0.02, 600), (0.3, 1000), (20.0, 3000)])
def test_denoising_reaches_the_primal_dual_optimum(weight, iterations):
    precision, folded = noise_case(sigma=0.3)
    image, objective = primal_dual(precision, folded, weight, iterations)
    result = total_variation(precision, folded, weight)
    assert bool(result.converged)
    assert int(result.iterations) < 500
    assert float(result.objective) == pytest.approx(objective, rel=1e-4)
    assert distance(result.image, torch.from_numpy(image)) < 3e-3
    sharp = total_variation(precision, folded, weight, tolerance=1e-8, max_iterations=20000)
    assert float(sharp.objective) <= objective * (1 + 1e-7)
    assert distance(sharp.image, torch.from_numpy(image)) < 1e-3


@pytest.mark.parametrize(("shape", "weight"), [((16, 16), 0.5), ((15, 12), 0.5), ((12, 15), 10.0)])
def test_masked_data_reach_the_primal_dual_optimum(shape, weight):
    precision, folded = mask_case(*shape)
    _, objective = primal_dual(precision, folded, weight, 1500)
    sharp = total_variation(precision, folded, weight, tolerance=1e-7, max_iterations=20000)
    assert float(sharp.objective) <= objective * (1 + 1e-6)
    default = total_variation(precision, folded, weight)
    assert bool(default.converged)
    assert float(default.objective) == pytest.approx(float(sharp.objective), rel=1e-3)
    assert distance(default.image, sharp.image) < 1e-2


def test_exact_bins_are_constraints():
    _, folded = mask_case(14, 16)
    known = mask_case(14, 16)[0] > 0
    precision = torch.where(known, math.inf, 0.0)
    _, objective = primal_dual(precision, folded, 2.0, 1500)
    result = total_variation(precision, folded, 2.0, tolerance=1e-7, max_iterations=20000)
    assert torch.allclose(fft2(result.image)[known], folded[known])
    assert float(result.objective) == pytest.approx(objective, rel=1e-4)
    # and they are the limit of ever higher precisions
    near = total_variation(torch.where(known, 1e8, 0.0), folded, 2.0, tolerance=1e-7, max_iterations=20000)
    assert distance(near.image, result.image) < 1e-3


@pytest.mark.parametrize("case", [noise_case, mask_case])
def test_nonnegative_reaches_the_primal_dual_optimum(case):
    precision, folded = case(sigma=0.2)
    free = total_variation(precision, folded, 1.0)
    assert free.image.min() < -0.05  # the constraint has work to do
    image, objective = primal_dual(precision, folded, 1.0, 3500, nonnegative=True)
    assert image.min() > -2e-3
    result = total_variation(precision, folded, 1.0, nonnegative=True, tolerance=1e-7, max_iterations=20000)
    assert bool(result.converged)
    assert result.image.min() >= 0
    assert float(result.objective) == pytest.approx(objective, rel=1e-3)
    assert float(result.objective) > float(free.objective)


def test_nonnegative_without_total_variation_clips_white_noise():
    precision, folded = noise_case(8, 9)
    result = total_variation(precision, folded, 0.0, nonnegative=True, tolerance=1e-8)
    noisy = torch.fft.ifft2(folded, norm="ortho").real
    assert torch.allclose(result.image, noisy.clamp_min(0), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (7, 8), (8, 7), (5, 5), (4, 2), (3, 2)])
def test_objective_is_the_full_grid_sum(shape):
    precision, folded = mask_case(*shape)
    result = total_variation(precision, folded, 0.7, max_iterations=3)
    expected = np_objective(precision.numpy(), folded.numpy(), 0.7, result.image.numpy())
    assert float(result.objective) == pytest.approx(expected, rel=1e-10)


def test_recovers_a_piecewise_constant_image_from_a_third_of_its_spectrum():
    x = torch.zeros(32, 32, dtype=torch.float64)
    x[4:20, 6:15], x[12:28, 18:29] = 1.0, -0.5
    known = mask_case(32, 32, keep=0.2)[0] > 0
    assert 0.3 < known.double().mean() < 0.45
    filled = torch.fft.ifft2(torch.where(known, fft2(x), 0), norm="ortho").real
    assert distance(filled, x) > 0.2
    result = total_variation(torch.where(known, math.inf, 0.0), fft2(x), 1.0, tolerance=1e-5)
    assert distance(result.image, x) < 1e-3


# --- total variation: what must not matter --------------------------------------------------------


@pytest.mark.parametrize("weight", [0.3, 5.0])
def test_start_and_penalty_do_not_matter(weight):
    precision, folded = mask_case()
    generator = torch.Generator().manual_seed(5)
    far = 10 * torch.randn(16, 16, dtype=torch.float64, generator=generator)
    reference = total_variation(precision, folded, weight, tolerance=1e-8, max_iterations=20000)
    for start, penalty in ((far, None), (None, 1e-3), (None, 1e5), (reference.image, None), (far, 1e3)):
        result = total_variation(precision, folded, weight, start=start, penalty=penalty, tolerance=1e-6)
        assert bool(result.converged)
        assert distance(result.image, reference.image) < 1e-3
        assert float(result.objective) == pytest.approx(float(reference.objective), rel=1e-5)


def test_batch_is_the_loop_of_singles():
    cases = [noise_case(16, 12, sigma=0.3), mask_case(16, 12), noise_case(16, 12, sigma=1.0, seed=1)] * 2
    precision = torch.stack([p for p, _ in cases]).reshape(2, 3, 16, 12)
    folded = torch.stack([f for _, f in cases]).reshape(2, 3, 16, 12)
    weight = torch.tensor([[0.01, 1.0, 5.0], [3.0, 30.0, 0.0]])
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        p, f = precision.to(dtype), folded.to(dtype.to_complex())
        batch = total_variation(p, f, weight)
        assert batch.image.shape == (2, 3, 16, 12)
        assert batch.image.dtype == dtype
        assert batch.iterations.unique().numel() > 2  # images that finish early must not keep changing
        for i in range(2):
            for j in range(3):
                single = total_variation(p[i, j], f[i, j], float(weight[i, j]))
                assert torch.allclose(batch.image[i, j], single.image, atol=atol, rtol=0)
                assert bool(batch.converged[i, j])
                assert float(batch.objective[i, j]) == pytest.approx(float(single.objective), rel=1e-4)
                if dtype == torch.float64:
                    assert int(batch.iterations[i, j]) == int(single.iterations)


def test_one_precision_serves_a_batch():
    precision, folded = mask_case()
    both = torch.stack([folded, 2 * folded])
    batch = total_variation(precision, both, 1.0)
    assert torch.allclose(batch.image[0], total_variation(precision, folded, 1.0).image)
    swapped = total_variation(torch.stack([precision, precision]), folded, 1.0)
    assert torch.allclose(swapped.image[1], batch.image[0])


def test_equivariance():
    """Units, shifts, offsets and the transpose; units down to the same iterates."""
    precision, folded = mask_case(12, 15)
    result = total_variation(precision, folded, 2.0)
    scaled = total_variation(precision, 50 * folded, 100.0)
    assert torch.allclose(scaled.image, 50 * result.image, atol=1e-10)
    assert torch.equal(scaled.iterations, result.iterations)
    noisier = total_variation(precision / 16, folded, 2.0 / 16)
    assert torch.allclose(noisier.image, result.image, atol=1e-10)

    plain = torch.fft.ifft2(folded, norm="ortho").real
    rolled = total_variation(precision, fft2(plain.roll((3, 5), (0, 1))), 2.0)
    assert torch.allclose(rolled.image, result.image.roll((3, 5), (0, 1)), atol=1e-9)
    turned = total_variation(precision.T, folded.T, 2.0)
    assert torch.allclose(turned.image, result.image.T, atol=1e-9)
    raised = total_variation(precision, fft2(plain + 4.0), 2.0, tolerance=1e-6)
    exact = total_variation(precision, folded, 2.0, tolerance=1e-6)
    assert torch.allclose(raised.image, exact.image + 4.0, atol=1e-4)


def test_unmeasured_values_do_not_leak():
    precision, folded = mask_case()
    garbage = torch.where(precision > 0, folded, complex(math.nan, math.inf))
    assert torch.equal(total_variation(precision, garbage, 1.0).image, total_variation(precision, folded, 1.0).image)


def test_inputs_are_left_alone():
    precision, folded = mask_case()
    start = phantom()
    copies = precision.clone(), folded.clone(), start.clone()
    total_variation(precision, folded, 1.0, start=start, nonnegative=True)
    assert all(torch.equal(a, b) for a, b in zip(copies, (precision, folded, start), strict=True))


def test_unmeasured_mean_is_zero():
    precision, folded = mask_case()
    precision[0, 0] = 0
    result = total_variation(precision, folded, 1.0)
    assert bool(result.converged)
    assert float(result.image.mean()) == pytest.approx(0, abs=1e-12)


def test_nothing_measured_and_nothing_to_smooth():
    nothing = total_variation(torch.zeros(2, 6, 6), torch.zeros(2, 6, 6, dtype=torch.complex64), 1.0)
    assert bool(nothing.converged.all())
    assert not nothing.image.any()
    flat = total_variation(torch.ones(7, 6), fft2(torch.full((7, 6), 3.0)), 1.0)
    assert bool(flat.converged)
    assert torch.allclose(flat.image, torch.full((7, 6), 3.0))


def test_too_few_iterations_are_owned_up_to():
    precision, folded = mask_case()
    short = total_variation(precision, folded, 10.0, max_iterations=7)
    assert not bool(short.converged)
    assert int(short.iterations) == 7
    assert torch.isfinite(short.image).all()
    enough = total_variation(precision, folded, 10.0)
    assert float(enough.objective) < float(short.objective)


def test_bad_arguments_are_refused():
    precision, folded = mask_case()
    with pytest.raises(ValueError, match=r"\(16, 15\).*\(16, 16\)"):
        total_variation(precision[:, 1:], folded, 1.0)
    with pytest.raises(ValueError, match=r"\(2, 16, 16\).*\(3, 16, 16\)"):
        total_variation(precision.expand(2, 16, 16), folded.expand(3, 16, 16), 1.0)
    with pytest.raises(ValueError, match="complex"):
        total_variation(precision, folded.real, 1.0)
    with pytest.raises(ValueError, match="not folded"):
        total_variation(precision, folded * 1j, 1.0)
    lopsided = precision.clone()
    lopsided[1, 2] += 1
    with pytest.raises(ValueError, match="not folded"):
        wiener(lopsided, folded, torch.ones(16, 16))
    with pytest.raises(ValueError, match="non-negative"):
        total_variation(-precision, folded, 1.0)
    with pytest.raises(ValueError, match="finite"):
        total_variation(precision, folded * math.nan, 1.0)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight"):
            total_variation(precision, folded, weight)
    with pytest.raises(ValueError, match=r"weight \(3,\).*\(2,\)"):
        total_variation(precision.expand(2, 16, 16), folded, torch.ones(3))
    with pytest.raises(ValueError, match="penalty"):
        total_variation(precision, folded, 1.0, penalty=0.0)
    with pytest.raises(ValueError, match=r"start \(8, 8\).*\(16, 16\)"):
        total_variation(precision, folded, 1.0, start=torch.zeros(8, 8))
    with pytest.raises(ValueError, match="tolerance"):
        total_variation(precision, folded, 1.0, tolerance=0.0)
    with pytest.raises(ValueError, match="power"):
        wiener(precision, folded, -torch.ones(16, 16))
    with pytest.raises(ValueError, match=r"power \(4, 4\).*\(16, 16\)"):
        wiener(precision, folded, torch.ones(4, 4))
