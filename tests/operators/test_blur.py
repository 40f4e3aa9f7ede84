"""Convolution without wrap-around, against scipy; exact adjoints."""

import numpy as np
import pytest
import torch
from scipy import ndimage, signal
from tiny import dense, relative

from iasolve.operators import CircularBlur, Convolution, check_operator, disk_kernel, gaussian_kernel

IMAGES = [(8, 8), (7, 7), (6, 9), (5, 4)]
KERNELS = [(1, 1), (3, 3), (2, 2), (4, 3), (1, 4), (5, 4)]
DTYPES = [torch.float64, torch.complex128]
CASES = [(IMAGES[(n + k) % 4], shape, DTYPES[k]) for n, shape in enumerate(KERNELS) for k in range(2)]
"""Every kernel on two images, a real and a complex one; every image under three kernels."""


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "shape", "dtype"), CASES)
def test_values_are_scipys(size, shape, dtype):
    kernel, x = random(shape, seed=1), random((2, 3, *size), dtype)
    reflect = Convolution(kernel, (3, *size), dtype, boundary="reflect")(x)
    valid = Convolution(kernel, (3, *size), dtype, boundary="valid")(x)
    assert reflect.dtype == valid.dtype == dtype
    for item, reflected, cut in zip(x.flatten(0, 1), reflect.flatten(0, 1), valid.flatten(0, 1), strict=True):
        expected = ndimage.convolve(item.numpy(), kernel.numpy(), mode="reflect")
        np.testing.assert_allclose(reflected.numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(cut.numpy(), signal.convolve2d(item, kernel, mode="valid"), atol=1e-12)


@pytest.mark.parametrize(("size", "shape", "dtype"), CASES)
@pytest.mark.parametrize("boundary", ["reflect", "valid"])
@pytest.mark.slow
def test_adjoint_is_exact(size, shape, dtype, boundary):
    operator = Convolution(random(shape, seed=1), (1, *size), dtype, boundary=boundary)
    matrix = dense(operator, dtype)
    torch.testing.assert_close(dense(operator.H, dtype), matrix.mH, rtol=1e-10, atol=1e-13)
    # from below, the slower the closer the largest singular values are to each other
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    assert 0.99 * norm < operator.norm() < norm * (1 + 1e-9)
    assert operator.transfer() is None
    assert check_operator(operator).ok


def test_a_kernel_larger_than_the_image_is_reflected_again_and_again():
    kernel, x = random((9, 14), seed=1), random((1, 3, 2))
    operator = Convolution(kernel, (1, 3, 2), torch.float64)
    expected = ndimage.convolve(x[0].numpy(), kernel.numpy(), mode="reflect")
    np.testing.assert_allclose(operator(x)[0].numpy(), expected, atol=1e-12)
    torch.testing.assert_close(dense(operator.H), dense(operator).T)
    line = Convolution(kernel, (1, 1, 1), torch.float64)
    assert float(line(torch.ones(1, 1, 1, dtype=torch.float64))) == pytest.approx(float(kernel.sum()))


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_reflection_at_the_pixels_edges_keeps_constants_and_means(size):
    """The reason to mirror at the edges of the border pixels and not at their centres."""
    x = random((1, *size))
    for kernel in (gaussian_kernel(1.2), disk_kernel(2.0)):
        operator = Convolution(kernel, (1, *size), torch.float64)
        torch.testing.assert_close(operator(torch.ones_like(x)), torch.ones_like(x))
        torch.testing.assert_close(operator(x).mean(), x.mean())
        torch.testing.assert_close(dense(operator), dense(operator).T)
        assert operator.norm() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", KERNELS)
def test_boundaries_differ_at_the_boundary_only(shape):
    kernel, x = random(shape, seed=1), random((1, 12, 15))
    circular, reflect, valid = (
        build(kernel, (1, 12, 15), torch.float64, **extra)(x)
        for build, extra in (
            (CircularBlur, {}),
            (Convolution, {"boundary": "reflect"}),
            (Convolution, {"boundary": "valid"}),
        )
    )
    top, left = (k - 1 - k // 2 for k in shape)
    inside = (..., slice(top, top + 12 - shape[0] + 1), slice(left, left + 15 - shape[1] + 1))
    torch.testing.assert_close(circular[inside], valid)
    torch.testing.assert_close(reflect[inside], valid)


def test_precision_follows_the_input():
    operator = Convolution(gaussian_kernel(1.0), (1, 16, 18))
    x = random((1, 16, 18))
    exact = Convolution(gaussian_kernel(1.0), (1, 16, 18), torch.float64)(x)
    assert operator(x.float()).dtype == torch.float32
    assert relative(operator(x.float()).double(), exact) < 1e-6
    assert relative(operator(x), exact) < 1e-14


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Convolution(torch.ones(3, 7), (1, 4, 6), boundary="valid"), ("3x7", "4x6", "reflect")),
        (lambda: Convolution(torch.ones(3, 3), (1, 4, 6), boundary="zero"), ("zero", "valid", "CircularBlur")),
        (lambda: Convolution(torch.ones(3), (1, 4, 6)), ("(3,)",)),
        (lambda: Convolution(torch.zeros(3, 3), (1, 4, 6)), ("zero",)),
        (lambda: Convolution(torch.ones(3, 3) + 0j, (1, 4, 6)), ("complex64", "real")),
        (lambda: Convolution(torch.ones(3, 3), (4, 6)), ("(4, 6)", "(C, H, W)")),
        (lambda: Convolution(torch.ones(3, 3), (1, 4, 6), boundary="valid").adjoint(torch.ones(1, 4, 6)), ("1, 2, 4",)),
        (lambda: Convolution(torch.ones(3, 3), (1, 4, 6))(torch.ones(2, 4, 6)), ("(2, 4, 6)", "1, 4, 6")),
    ],
)
def test_errors_name_what_was_found_and_expected(build, words):
    with pytest.raises(ValueError, match=r".") as caught:
        build()
    for word in words:
        assert word in str(caught.value)
