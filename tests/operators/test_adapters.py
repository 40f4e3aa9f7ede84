"""Operators of other libraries, each against the library itself, and iasolve's in SciPy's solvers."""

import importlib
import sys

import numpy as np
import pytest
import torch
from libraries import library
from scipy import sparse
from scipy.sparse.linalg import LinearOperator as ScipyOperator
from scipy.sparse.linalg import aslinearoperator, lsqr
from tiny import dense, relative

from iasolve.operators import CircularBlur, Identity, KSpaceMask, centred_fft2, check_operator
from iasolve.operators.adapt_deepinv import from_deepinv
from iasolve.operators.adapt_scipy import from_scipy, to_scipy
from iasolve.operators.adapt_sigpy import from_sigpy
from iasolve.operators.radon import Radon

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def ones_mask(height, width):
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[height // 2, width // 2] = True
    return mask.float()


# ------------------------------------------------------------------------------------------- from scipy


@pytest.mark.parametrize("wrap", [lambda m: m, sparse.csr_array, sparse.coo_matrix, aslinearoperator])
@pytest.mark.parametrize("kind", DTYPES)
def test_from_scipy_is_the_matrix(kind, wrap):
    matrix = random((10, 24), kind)
    operator = from_scipy(wrap(matrix.numpy()), (2, 3, 4), (5, 2))
    assert (operator.in_dtype, operator.out_dtype) == (kind, kind)
    assert (operator.in_shape, operator.out_shape) == ((2, 3, 4), (5, 2))
    torch.testing.assert_close(dense(operator, kind), matrix)
    torch.testing.assert_close(dense(operator.H, kind), matrix.mH)
    report = check_operator(operator)
    assert report.ok, str(report)


@pytest.mark.parametrize("image", DTYPES)
@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
def test_images_and_matrix_may_differ_in_kind(image, kind):
    matrix = random((7, 12), kind)
    operator = from_scipy(matrix.numpy(), (1, 3, 4), dtype=image)
    assert operator.in_dtype == image
    assert operator.out_dtype.is_complex == (image.is_complex or kind.is_complex)
    report = check_operator(operator)
    assert report.ok, str(report)
    x, y = random((2, 1, 3, 4), image), random((2, 7), operator.out_dtype, seed=1)
    wide = torch.promote_types(torch.promote_types(kind, image), torch.float64)
    torch.testing.assert_close(
        operator(x).to(wide), x.reshape(2, 12).to(wide) @ matrix.mT.to(wide), rtol=1e-5, atol=1e-5
    )
    back = y.to(torch.complex128) @ matrix.conj().to(torch.complex128)
    back = (back if image.is_complex else back.real).reshape(2, 1, 3, 4)
    torch.testing.assert_close(operator.adjoint(y).to(back.dtype), back, rtol=1e-5, atol=1e-5)


def test_a_linear_operator_of_functions_with_any_declared_dtype():
    mask = random((3, 4)).numpy()

    def forward(v):
        return np.fft.fft2(mask * v.reshape(3, 4)).ravel()

    def adjoint(v):
        return (mask * np.fft.ifft2(v.reshape(3, 4)) * 12).ravel()

    for dtype in (None, np.float64, np.complex128):
        given = ScipyOperator((12, 12), matvec=forward, rmatvec=adjoint, dtype=dtype)
        for image in (torch.float64, torch.complex128):
            operator = from_scipy(given, (1, 3, 4), dtype=image)
            assert operator.out_dtype == torch.complex128
            assert check_operator(operator).ok
            x = random((1, 3, 4), image)
            torch.testing.assert_close(operator(x).reshape(3, 4), torch.fft.fft2(torch.from_numpy(mask) * x[0]))


def test_a_real_linear_operator_never_sees_complex_vectors():
    def doubled(v):
        assert not np.iscomplexobj(v)
        return 2 * v

    given = ScipyOperator((12, 12), matvec=doubled, rmatvec=doubled, dtype=float)
    operator = from_scipy(given, (1, 3, 4), (1, 3, 4), dtype=torch.complex64)
    assert check_operator(operator).ok
    x = random((2, 5, 1, 3, 4), torch.complex64)
    torch.testing.assert_close(operator(x), 2 * x)
    assert operator(x[:0]).shape == (0, 5, 1, 3, 4)


def test_integer_matrices_are_double_and_the_input_decides_the_precision():
    operator = from_scipy(sparse.eye_array(12, dtype=np.int64) * 3, (1, 3, 4), (1, 3, 4))
    assert operator.in_dtype == torch.float64
    x = random((1, 3, 4), torch.float32)
    assert torch.equal(operator(x), 3 * x)
    assert operator(x.double()).dtype == torch.float64


def test_gradients_pass_through_scipy():
    operator = from_scipy(random((7, 12)).numpy(), (1, 3, 4))
    assert torch.autograd.gradcheck(operator, random((2, 1, 3, 4)).requires_grad_())


def test_from_scipy_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match=r"in_shape \(1, 3, 5\) holds 15 .* 7x12 matrix 12"):
        from_scipy(np.ones((7, 12)), (1, 3, 5))
    with pytest.raises(ValueError, match=r"out_shape \(2, 3\) holds 6 .* 7x12 matrix 7"):
        from_scipy(np.ones((7, 12)), (1, 3, 4), (2, 3))
    with pytest.raises(ValueError, match="rmatvec"):
        from_scipy(ScipyOperator((3, 4), matvec=lambda v: v[:3], dtype=float), (4,))
    for wrong in (np.ones((2, 3, 4)), "matrix", torch.ones(3, 4)):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            from_scipy(wrong, (4,))


# ------------------------------------------------------------------------------------------- to scipy


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_scipy_is_the_matrix_in_either_form(dtype):
    kernel = torch.tensor([[0.1, 0.4, 0.0], [0.05, 0.5, -0.2]], dtype=torch.float64)
    blur = CircularBlur(kernel, (1, 4, 5), dtype)
    tolerance = 1e-5 if dtype in (torch.float32, torch.complex64) else 1e-12
    for operator in (
        blur,
        KSpaceMask(ones_mask(4, 5), (1, 4, 5), dtype) @ blur,
        blur.H,
        Radon([0, 40], (1, 4, 5), True, dtype),
    ):
        m = dense(operator, dtype).numpy()
        found = to_scipy(operator)
        assert found.shape == m.shape
        assert found.dtype == m.dtype
        np.testing.assert_allclose(found @ np.eye(m.shape[1]), m, atol=tolerance)
        np.testing.assert_allclose(found.H @ np.eye(m.shape[0]), m.conj().T, atol=tolerance)
        # a matrix is linear over the complex numbers, whatever the images
        z, w = (random((n,), torch.complex128, n).numpy() for n in m.shape[::-1])
        np.testing.assert_allclose(found.matvec(z), m @ z, atol=10 * tolerance)
        np.testing.assert_allclose(found.rmatvec(w), m.conj().T @ w, atol=10 * tolerance)

        stacked = np.vstack([m.real, m.imag]) if np.iscomplexobj(m) else m
        if dtype.is_complex:
            stacked = np.block([[m.real, -m.imag], [m.imag, m.real]])
        real = to_scipy(operator, real_form=True)
        assert real.dtype == m.real.dtype
        np.testing.assert_allclose(real @ np.eye(stacked.shape[1]), stacked, atol=tolerance)
        np.testing.assert_allclose(real.H @ np.eye(stacked.shape[0]), stacked.T, atol=tolerance)
        with pytest.raises(ValueError, match="real vectors, got complex128"):
            real.matvec(np.ones(stacked.shape[1]) + 0j)


def test_the_adjoint_of_a_transform_of_real_images_has_a_real_form_only():
    operator = KSpaceMask(ones_mask(4, 5), (1, 4, 5), torch.float64)
    with pytest.raises(ValueError, match="real_form"):
        to_scipy(operator.H)
    found = to_scipy(operator.H, real_form=True)
    assert found.shape == (20, 40)
    np.testing.assert_allclose(found @ np.eye(40), (to_scipy(operator, real_form=True).H @ np.eye(40)), atol=1e-12)


def test_precision_is_the_vectors_but_no_lower_than_declared():
    single, double = (to_scipy(Identity((1, 2, 3), dtype)) for dtype in (torch.float32, torch.float64))
    assert single.matvec(np.ones(6, np.float32)).dtype == np.float32
    assert single.matvec(np.ones(6)).dtype == np.float64
    assert single.matvec(np.ones(6, int)).dtype == np.float64
    assert double.matvec(np.ones(6, np.float32)).dtype == np.float64


def test_scipys_least_squares_solves_with_our_operators():
    x = random((1, 8, 7))
    operator = Radon(np.arange(0, 180, 10), (1, 8, 7), False, torch.float64)
    found = lsqr(to_scipy(operator), operator(x).numpy().ravel(), atol=1e-12, btol=1e-12, iter_lim=2000)[0]
    assert relative(torch.from_numpy(found).reshape(1, 8, 7), x) < 1e-5
    # half of k-space: enough for a real image if each pair k, -k is met at least once
    mask = torch.zeros(8, 7)
    mask[:5] = 1
    fourier = KSpaceMask(mask, (1, 8, 7), torch.float64)
    y = fourier(x).numpy().ravel()
    found = lsqr(to_scipy(fourier, real_form=True), np.concatenate([y.real, y.imag]), atol=1e-12, btol=1e-12)[0]
    assert relative(torch.from_numpy(found).reshape(1, 8, 7), x) < 1e-8


def test_there_and_back():
    operator = KSpaceMask(ones_mask(4, 5), (1, 4, 5), torch.complex128)
    back = from_scipy(to_scipy(operator), (1, 4, 5), (1, 4, 5))
    x = random((3, 1, 4, 5), torch.complex128)
    torch.testing.assert_close(back(x), operator(x))
    torch.testing.assert_close(back.adjoint(x), operator.adjoint(x))


# ------------------------------------------------------------------------------------------- sigpy


@pytest.fixture(scope="module")
def sigpy():
    return library("sigpy", "sigpy: pip install sigpy")


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigpys_sensitivity_encoding(sigpy, dtype):
    maps = random((3, 6, 5), torch.complex128, 1).numpy()
    linop = importlib.import_module("sigpy.mri.linop").Sense(maps)
    operator = from_sigpy(linop, (1, 6, 5), dtype)
    assert operator.out_shape == (3, 6, 5)
    assert operator.out_dtype.is_complex
    report = check_operator(operator)
    assert report.ok, str(report)
    x = random((2, 1, 6, 5), dtype)
    expected = centred_fft2(torch.from_numpy(maps) * x)
    double = dtype in (torch.float64, torch.complex128)
    assert relative(operator(x), expected.to(operator.out_dtype)) < (1e-12 if double else 1e-6)
    assert operator(x[0]).shape == (3, 6, 5)


def test_sigpys_real_operators(sigpy):
    linop = sigpy.linop.FiniteDifference((4, 5))
    for dtype in DTYPES:
        operator = from_sigpy(linop, dtype=dtype)
        assert operator.in_shape == (4, 5)
        assert operator.out_dtype == dtype
        assert check_operator(operator).ok
        x = random((4, 5), dtype)
        assert np.array_equal(operator(x).numpy(), linop(x.numpy()))


def test_sigpys_operators_leave_inputs_alone_and_differentiate(sigpy):
    operator = from_sigpy(sigpy.linop.Identity((4, 5)), (1, 4, 5), torch.complex128)
    x = random((1, 4, 5), torch.complex128)
    kept = x.clone()
    operator(x).zero_()
    assert torch.equal(x, kept)
    fft = from_sigpy(sigpy.linop.FFT((4, 5)), (1, 4, 5), torch.float64)
    assert torch.autograd.gradcheck(fft, x.real.clone().requires_grad_())


def test_from_sigpy_refuses_what_it_cannot_use(sigpy):
    with pytest.raises(ValueError, match=r"in_shape \(1, 4, 4\) holds 16 .* \(4, 5\) 20"):
        from_sigpy(sigpy.linop.Identity((4, 5)), (1, 4, 4))


def test_what_is_no_linop_is_named():
    with pytest.raises(TypeError, match="Identity"):
        from_sigpy(Identity((1, 4, 5)))


# ------------------------------------------------------------------------------------------- deepinv


@pytest.fixture(scope="module")
def physics():
    return library("deepinv", "deepinv: pip install deepinv").physics


def test_deepinvs_physics_without_their_noise(physics):
    shape = (2, 8, 6)
    mask = ones_mask(8, 6).expand(shape)
    cases = {
        "inpainting": physics.Inpainting(shape, mask=mask, noise_model=physics.GaussianNoise(5.0)),
        "blur": physics.BlurFFT(shape, filter=physics.blur.gaussian_blur(1.0)),
        "downsampling": physics.Downsampling(img_size=shape, factor=2, filter=None),
    }
    for name, given in cases.items():
        operator = from_deepinv(given, shape)
        report = check_operator(operator)
        assert report.ok, f"{name}: {report}"
        x = random((3, *shape), torch.float32)
        torch.testing.assert_close(operator(x), given.A(x))
        torch.testing.assert_close(operator.adjoint(operator(x)), given.A_adjoint(given.A(x)))
        assert operator(x[0]).shape == operator.out_shape
        assert operator(x[:, None].double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_deepinvs_mri_is_the_masked_transform_of_pairs(physics, dtype):
    mask = ones_mask(8, 6)
    operator = from_deepinv(physics.MRI(mask=mask, img_size=(1, 2, 8, 6)), (1, 8, 6), dtype, pairs=True)
    ours = KSpaceMask(mask, (1, 8, 6), dtype)
    assert operator.out_shape == (1, 8, 6)
    assert operator.out_dtype == torch.complex64
    assert check_operator(operator).ok
    x = random((2, 3, 1, 8, 6), dtype)
    torch.testing.assert_close(operator(x), ours(x))
    torch.testing.assert_close(operator.adjoint(ours(x)), ours.adjoint(ours(x)))


def test_deepinvs_multi_coil_mri(physics):
    maps = random((1, 3, 8, 6), torch.complex64, 1)
    mask = ones_mask(8, 6)
    given = physics.MultiCoilMRI(mask=mask, coil_maps=maps, img_size=(1, 2, 8, 6))
    operator = from_deepinv(given, (1, 8, 6), torch.complex64, pairs=True)
    assert operator.out_shape == (1, 3, 8, 6)
    assert check_operator(operator).ok
    x = random((2, 1, 8, 6), torch.complex64)
    torch.testing.assert_close(operator(x), (mask * centred_fft2(maps * x))[:, None])


def test_a_later_change_of_the_physics_does_not_reach_the_operator(physics):
    given = physics.Inpainting((1, 4, 4), mask=torch.ones(1, 4, 4))
    operator = from_deepinv(given, (1, 4, 4))
    x = random((1, 4, 4), torch.float32)
    given.update(mask=torch.zeros(1, 1, 4, 4))
    torch.testing.assert_close(operator(x), x)


@pytest.mark.slow
def test_from_deepinv_refuses_what_it_cannot_use(physics):
    blur = physics.BlurFFT((1, 8, 8), filter=torch.ones(1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"BlurFFT.A fails on zeros of shape \(1, 1, 5, 4\)"):
        from_deepinv(blur, (1, 5, 4))
    with pytest.raises(TypeError, match=r"TensorList.*one by one"):
        from_deepinv(physics.stack(blur, blur), (1, 8, 8))
    with pytest.raises(TypeError, match="got Physics"):
        from_deepinv(physics.Physics(A=torch.square), (1, 8, 8))
    with pytest.raises(ValueError, match=r"one complex channel.*\(2, 8, 8\)"):
        from_deepinv(blur, (2, 8, 8), pairs=True)
    with pytest.raises(TypeError, match=r"two channels.*\(1, 1, 8, 8\)"):
        from_deepinv(physics.LinearPhysics(A=lambda x: x[:, :1]), (1, 8, 8), pairs=True)


def test_without_deepinv_the_error_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.delitem(sys.modules, "deepinv.physics", raising=False)
    with pytest.raises(ImportError, match=r"pip install deepinv.*CPU build of torchvision"):
        from_deepinv(Identity((1, 4, 4)), (1, 4, 4))
