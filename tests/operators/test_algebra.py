"""The algebra of operators: that of matrices, and diagonality that survives it."""

import numpy as np
import pytest
import torch
from tiny import dense, relative

from iasolve.evidence import fold
from iasolve.operators import (
    CircularBlur,
    Convolution,
    FourierTransform,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    PixelMask,
    SampleKSpace,
    check_operator,
    vstack,
)
from iasolve.problem import DiagonalLikelihood, OperatorLikelihood
from iasolve.spectrum import fft2, reflect

SIZES = [(8, 8), (7, 7), (6, 9), (5, 4)]
REAL, COMPLEX = torch.float64, torch.complex128


def random(shape, dtype=REAL, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def lopsided(height, width, seed=1):
    """A mask without any symmetry."""
    mask = random((height, width), seed=seed) > 0
    mask[height // 2, width // 2] = True
    return mask


def parts(size, dtype):
    """Mask, blur, Fourier transform and sampling of its k-space."""
    shape = (1, *size)
    return (
        KSpaceMask(lopsided(*size), shape, dtype),
        CircularBlur(random((3, 4), seed=2), shape, dtype),
        FourierTransform(shape, dtype),
        SampleKSpace(lopsided(*size, seed=3), shape, COMPLEX),
    )


def close(operator, matrix):
    torch.testing.assert_close(dense(operator, operator.in_dtype), matrix, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------------- matrices


@pytest.mark.parametrize("size", SIZES)
def test_algebra_is_that_of_matrices(size):
    B, A, F, S = parts(size, COMPLEX)
    b, a, f, s = (dense(op, COMPLEX) for op in (B, A, F, S))
    for operator, matrix in (
        (B @ A, b @ a),
        (S @ F @ A, s @ f @ a),
        (A + A.H, a + a.mH),
        (A - A.H @ A, a - a.mH @ a),
        (-A, -a),
        ((1 - 2j) * B, (1 - 2j) * b),
        (2 * A, 2 * a),
        (np.float64(0.5) * A, 0.5 * a),
        (np.complex64(2 - 1j) * B, (2 - 1j) * b),
        (A.H, a.mH),
        (B.H, b.mH),
        (A.gram, a.mH @ a),
        ((B @ A).gram, a.mH @ b.mH @ b @ a),
        (((1j * B) @ A).H, -1j * a.mH @ b.mH),
        ((A + 1j * B).H, a.mH - 1j * b.mH),
        (vstack(A, B), torch.cat([a, b])),
        (vstack(A, B).H, torch.cat([a.mH, b.mH], dim=1)),
        (vstack(A, B).gram, a.mH @ a + b.mH @ b),
    ):
        close(operator, matrix)
    assert A.H.H is A


@pytest.mark.parametrize("size", SIZES)
def test_algebra_on_real_images_is_that_of_matrices_over_the_reals(size):
    """The adjoint of a map from real images is that of the real inner product: it takes the real part."""
    B, A, F, S = parts(size, REAL)
    b, a, f, s = dense(B), dense(A), dense(F), dense(S, COMPLEX)
    for operator, matrix in (
        (B @ A, b @ a.to(COMPLEX)),
        (S @ F, s @ f),
        ((S @ F).gram, (f.mH @ s.mH @ s @ f).real),
        (B.gram, (b.mH @ b).real),
        (A @ B.H @ S @ F, a @ (b.mH @ s @ f).real),
        (A + B, a + b),
        ((A + B).gram, ((a + b).mH @ (a + b)).real),
        (((1 + 2j) * B).gram, 5 * (b.mH @ b).real),
        (vstack(A, B).gram, a.T @ a + (b.mH @ b).real),
        (B.H @ ((1 + 2j) * F), (b.mH @ ((1 + 2j) * f)).real),
    ):
        close(operator, matrix)


def test_composition_of_a_real_blur_with_a_complex_transform_of_it():
    shape = (1, 6, 7)
    blur = CircularBlur(random((2, 3)), shape, REAL)
    mask = KSpaceMask(lopsided(6, 7), shape, COMPLEX)
    both = mask @ blur
    assert check_operator(both).ok
    assert both.transfer() is not None
    with pytest.raises(ValueError, match=r"complex128.*float64"):
        blur @ mask


def test_sums_and_stacks_of_real_and_complex_operators():
    """The sum takes what both take: real images; and its adjoint gives real images."""
    shape = (1, 6, 7)
    real, whole = CircularBlur(random((2, 3)), shape, REAL), KSpaceMask(lopsided(6, 7), shape, COMPLEX)
    for operator in (real + whole, whole + real, vstack(real, whole)):
        assert (operator.in_dtype, operator.out_dtype) == (REAL, COMPLEX)
        assert operator.adjoint(operator(random(shape))).dtype == REAL
        assert check_operator(operator).ok
        with pytest.raises(ValueError, match=r"complex128.*float64"):
            operator(random(shape, COMPLEX))


def test_scaling_keeps_double_precision():
    operator = 0.1 * KSpaceMask(torch.ones(6, 6), (1, 6, 6), REAL)
    assert float((operator.transfer().double() - 0.1).abs().max()) < 1e-15
    assert check_operator(operator).ok
    assert (2 * Identity((1, 4, 4)))(torch.ones(1, 4, 4)).dtype == torch.float32
    assert (np.float64(2) * Identity((1, 4, 4)))(torch.ones(1, 4, 4)).dtype == torch.float32


# ------------------------------------------------------------------------------------------- diagonality


def diagonals(size, dtype):
    """Composites that must stay diagonal from images to images or to k-space, with what their transfer must be."""
    mask, blur, fourier, sample = parts(size, dtype)
    low = LowPass(4, (1, *size), dtype)
    m, d, s, p = (op.transfer().to(COMPLEX) for op in (mask, blur, sample, low))
    uncentred = FourierTransform((1, *size), dtype, centred=False)

    def hermitian(t):
        """What is left of a multiplication when real images take the real part."""
        return t if dtype.is_complex else (t + reflect(t).conj()) / 2

    return {
        "blur @ blur": (blur @ blur, d * d),
        "mask @ blur": (mask @ blur, m * d),
        "sample @ fourier @ blur": (sample @ fourier @ blur, s * d),
        "sample @ (fourier @ blur)": (sample @ (fourier @ blur), s * d),
        "uncentred @ blur": (uncentred @ blur, d),
        "blur + low": (blur + low, d + p),
        "mask - mask @ blur": (mask - mask @ blur, m - m * d),
        "(2 - 1j) * mask": ((2 - 1j) * mask, (2 - 1j) * m),
        "blur.H": (blur.H, d.conj()),
        "(blur @ low).H": ((blur @ low).H, (d * p).conj()),
        "blur.gram": (blur.gram, d.abs().square()),
        "mask.gram": (mask.gram, hermitian(m)),
        "(mask @ blur).gram": ((mask @ blur).gram, hermitian(m) * d.abs().square()),
        "fourier.H @ fourier": (fourier.H @ fourier, torch.ones_like(m)),
        "fourier.H @ sample @ fourier": (fourier.H @ sample @ fourier, hermitian(s)),
        "fourier.H @ (sample @ fourier)": (fourier.H @ (sample @ fourier), hermitian(s)),
        "blur @ fourier.H @ sample @ fourier": (blur @ fourier.H @ sample @ fourier, d * hermitian(s)),
        "blur + fourier.H @ sample @ fourier": (blur + fourier.H @ sample @ fourier, d + hermitian(s)),
        "0.5 * mask.gram.H": (0.5 * mask.gram.H, 0.5 * hermitian(m)),
        "stack": (vstack(mask, fourier @ blur), (m + d.abs().square()).sqrt()),
        "stack @ blur": (vstack(mask, fourier) @ blur, (m + 1).sqrt() * d),
        "2 * stack": (2 * vstack(blur, low), 2 * (d.abs().square() + p).sqrt()),
        "stack.gram": (vstack(mask, fourier).gram, hermitian(m + 1)),
        "stack of stacks": (
            vstack(vstack(mask, fourier), vstack(sample @ fourier @ blur, mask)),
            (2 * m + 1 + s * d.abs().square()).sqrt(),
        ),
    }


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.slow
def test_diagonality_survives(size, dtype):
    """The transfer function is the impulse response's spectrum, at every place of the impulse."""
    impulses = torch.eye(size[0] * size[1], dtype=dtype).reshape(-1, 1, *size)
    for name, (operator, expected) in diagonals(size, dtype).items():
        found = operator.transfer()
        assert found is not None, name
        torch.testing.assert_close(
            found.to(COMPLEX),
            expected.to(COMPLEX),
            rtol=1e-12,
            atol=1e-12,
            msg=lambda message, n=name: f"{n}: {message}",
        )
        response = operator.to_grid(operator(impulses))
        assert relative(response, found * fft2(impulses)) < 1e-10, name
        at_origin = response[0] * (size[0] * size[1]) ** 0.5
        assert relative(at_origin, found.expand(1, *size)) < 1e-10, name
        assert check_operator(operator).ok, (name, str(check_operator(operator)))


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_backprojection_of_a_diagonal_operator(dtype):
    """``B^H A^H y = conj(D) W^H y``, which is all that a solver needs; on real images, of its Hermitian part."""
    for name, (operator, _) in diagonals((6, 9), dtype).items():
        y = random((2, *operator.out_shape), operator.out_dtype)
        expected = operator.transfer().conj() * operator.to_grid(y)
        if not dtype.is_complex:
            expected = (expected + reflect(expected).conj()) / 2
        assert relative(fft2(operator.adjoint(y)), expected) < 1e-10, name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.slow
def test_what_is_not_diagonal_does_not_say_so(size):
    mask, blur, fourier, _ = parts(size, REAL)
    pixels = PixelMask(lopsided(*size), (1, *size), REAL)
    for operator in (
        pixels @ blur,
        blur @ pixels,
        blur + pixels,
        2 * pixels,
        pixels.H,
        pixels.gram,
        vstack(blur, pixels),
        mask.H,  # from k-space to real images: linear over the reals only
        blur + mask,  # an image and k-space
        vstack(blur, mask),  # real and complex noise do not make white noise on one grid
        vstack(mask, fourier).H,
        FourierTransform((1, *size), REAL).H @ FourierTransform((1, *size), REAL, centred=False),
    ):
        assert operator.transfer() is None
        assert check_operator(operator).ok, str(check_operator(operator))


def test_the_projection_of_k_space_on_that_of_real_images_is_linear_over_the_reals_only():
    fourier = FourierTransform((1, 6, 9), REAL)
    projection = fourier @ fourier.H
    assert projection.transfer() is None
    assert "not complex-linear" in str(check_operator(projection))
    y = random((1, 6, 9), COMPLEX)
    torch.testing.assert_close(projection(projection(y)), projection(y))


# ------------------------------------------------------------------------------------------- vertical stack


def test_a_stack_of_equal_shapes_has_a_new_first_axis():
    blur, low = CircularBlur(random((3, 3)), (2, 6, 9), REAL), LowPass(4, (2, 6, 9), REAL)
    A = vstack(blur, 2 * low, blur)
    x = random((5, 4, 2, 6, 9))
    assert A.out_shape == (3, 2, 6, 9)
    torch.testing.assert_close(A(x), torch.stack([blur(x), 2 * low(x), blur(x)], dim=2))
    y = random((5, 3, 2, 6, 9))
    torch.testing.assert_close(A.adjoint(y), blur.H(y[:, 0]) + 2 * low.H(y[:, 1]) + blur.H(y[:, 2]))
    assert all(torch.equal(a, b) for a, b in zip(A.split(y), y.unbind(1), strict=True))
    assert torch.equal(A.join(A.split(y)), y)
    assert vstack(blur).out_shape == (1, 2, 6, 9)


def test_a_stack_of_different_shapes_is_a_vector():
    shape = (2, 6, 9)
    blur, valid = CircularBlur(random((3, 3)), shape, REAL), Convolution(random((3, 4)), shape, REAL, boundary="valid")
    mask = KSpaceMask(lopsided(6, 9), shape, REAL)
    A = vstack(blur, valid, mask)
    x = random((5, 4, *shape))
    assert A.out_shape == (2 * 6 * 9 + 2 * 4 * 6 + 2 * 6 * 9,)
    assert A.out_dtype == COMPLEX
    torch.testing.assert_close(A(x), torch.cat([op(x).flatten(2).to(COMPLEX) for op in (blur, valid, mask)], dim=-1))
    y = random((5, *A.out_shape), COMPLEX)
    parts_ = A.split(y)
    assert [part.shape for part in parts_] == [(5, 2, 6, 9), (5, 2, 4, 6), (5, 2, 6, 9)]
    assert torch.equal(A.join((parts_[0].real, parts_[1].real, parts_[2])).imag[:, :156], torch.zeros(5, 156))
    torch.testing.assert_close(A.adjoint(y), blur.H(parts_[0].real) + valid.H(parts_[1].real) + mask.H(parts_[2]))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (vstack, ("at least one",)),
        (lambda: vstack(Identity((1, 4, 6)), Identity((1, 6, 4))), ("(1, 4, 6)", "(1, 6, 4)")),
        (lambda: vstack(Identity((1, 4, 6))).join([]), ("0", "1")),
        (lambda: vstack(Identity((1, 4, 6))).join([torch.ones(1, 6, 4)]), ("(1, 6, 4)", "1, 4, 6")),
        (lambda: vstack(Identity((1, 4, 6))).split(torch.ones(2, 1, 4, 6)), ("(2, 1, 4, 6)", "1, 1, 4, 6")),
        (lambda: vstack(PixelMask(torch.ones(4, 6), (1, 4, 6))).to_grid(torch.ones(1, 1, 4, 6)), ("not diagonal",)),
        (lambda: Identity((1, 4, 6)).H @ Identity((1, 6, 4)), ("(1, 4, 6)", "(1, 6, 4)")),
    ],
)
def test_errors_name_what_was_found_and_expected(build, words):
    with pytest.raises(ValueError, match=r".") as caught:
        build()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize("name", ["k-space", "images"])
def test_a_stack_of_diagonal_operators_solves_as_the_general_path_does(dtype, name):
    """Two masks of the same image, or two blurs: folded on one grid, the posterior mean is that of both together."""
    shape, sigma = (1, 6, 9), torch.full((2,), 0.3, dtype=REAL)
    if name == "k-space":
        A = vstack(*(KSpaceMask(lopsided(6, 9, seed), shape, dtype) for seed in (1, 2)))
    else:
        A = vstack(*(CircularBlur(random((2, 3), seed=seed), shape, dtype) for seed in (1, 2)))
    variance = random(shape).square() + 0.1
    variance = (variance + reflect(variance)) / 2
    x0, y = random((2, *shape), dtype), random((2, *A.out_shape), A.out_dtype, seed=4)
    folded = fold(
        A.to_grid(y),
        A.transfer(),
        sigma.reshape(-1, 1, 1, 1),
        real_image=not dtype.is_complex,
        complex_noise=y.is_complex(),
    )
    diagonal = DiagonalLikelihood(folded, dtype.is_complex).mean(x0, variance)
    # to the end of the precision: an image needs less
    general = OperatorLikelihood(A, y, sigma, tolerance=0.0).mean(x0, variance, iterations=300)
    assert relative(diagonal, general) < 1e-6


def test_stacks_and_sums_follow_to():
    A = vstack(Identity((1, 4, 4)), KSpaceMask(torch.ones(4, 4), (1, 4, 4))) @ CircularBlur(torch.ones(2, 2), (1, 4, 4))
    A.to("meta")
    assert {b.device.type for b in A.buffers()} == {"meta"}
    assert isinstance(A, LinearOperator)
    assert "VerticalStack" in repr(A)
