"""Inpainting and super-resolution operators: known values, exact adjoints, norms."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import block_reduce
from tiny import dense

from iasolve.operators import (
    BlockAverage,
    BlurDownsample,
    CircularBlur,
    Convolution,
    Downsample,
    PixelMask,
    check_operator,
    gaussian_kernel,
)

DTYPES = [torch.float64, torch.complex128]


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9), (5, 4)])
@pytest.mark.slow
def test_matrices_norms_and_adjoints(size, dtype):
    shape, kernel = (2, *size), random((3, 4), seed=1)
    for operator in (
        PixelMask(random(size) > 0, shape, dtype),
        BlockAverage((size[0], 1), shape, dtype),
        Downsample(2, shape, dtype),
        Downsample((3, 7), shape, dtype),
        BlurDownsample(kernel, 2, shape, dtype),
        BlurDownsample(kernel, (1, 3), shape, dtype, boundary="valid"),
        BlurDownsample(kernel, (3, 2), shape, dtype, boundary="circular"),
    ):
        matrix = dense(operator, dtype)
        torch.testing.assert_close(dense(operator.H, dtype), matrix.mH, rtol=1e-10, atol=1e-13)
        assert operator.norm() == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-3)
        assert operator.transfer() is None
        assert check_operator(operator).ok, str(check_operator(operator))


def test_pixel_mask_keeps_known_pixels():
    mask = random((2, 6, 9)) > 0
    x = random((5, 2, 6, 9))
    for given in (mask, mask.numpy(), mask.int()):
        y = PixelMask(given, (2, 6, 9), torch.float64)(x)
        assert torch.equal(y, torch.where(mask, x, 0))
    per_image = PixelMask(mask[0], (2, 6, 9), torch.float64)
    assert torch.equal(per_image(x), torch.where(mask[0], x, 0))
    # a projection
    assert torch.equal(per_image.gram(x), per_image(x))


@pytest.mark.parametrize("factor", [1, 2, (3, 4), (6, 8)])
def test_block_averages_are_scikit_images(factor):
    x = random((2, 1, 6, 8))
    operator = BlockAverage(factor, (1, 6, 8), torch.float64)
    block = (factor, factor) if isinstance(factor, int) else factor
    for item, found in zip(x[:, 0], operator(x)[:, 0], strict=True):
        np.testing.assert_allclose(found, block_reduce(item.numpy(), block, np.mean))
    # the mean of the whole is kept; sharing out keeps the sum
    torch.testing.assert_close(operator(x).mean(), x.mean())
    y = random((2, *operator.out_shape))
    torch.testing.assert_close(operator.adjoint(y).sum(), y.sum())


def test_blur_then_stride_is_scipys():
    kernel, x = gaussian_kernel(1.3, 6), random((1, 11, 14))
    found = BlurDownsample(kernel, (2, 3), (1, 11, 14), torch.float64)(x)[0]
    assert found.shape == (6, 5)
    expected = ndimage.convolve(x[0].numpy(), kernel.numpy(), mode="reflect")[::2, ::3]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_blur_then_stride_is_the_composition():
    kernel, shape, x = random((3, 4)), (2, 9, 10), random((3, 2, 9, 10))
    for boundary, blur in (
        ("circular", CircularBlur(kernel, shape, torch.float64)),
        ("reflect", Convolution(kernel, shape, torch.float64, boundary="reflect")),
        ("valid", Convolution(kernel, shape, torch.float64, boundary="valid")),
    ):
        operator = BlurDownsample(kernel, 2, shape, torch.float64, boundary=boundary)
        assert torch.equal(operator(x), blur(x)[..., ::2, ::2])
        assert operator.H.H is operator


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: BlockAverage(4, (1, 6, 9)), ("4x4", "6x9", "4x8")),
        (lambda: BlockAverage(0, (1, 6, 9)), ("positive", "0")),
        (lambda: Downsample((2, 1.5), (1, 6, 9)), ("whole", "1.5")),
        (lambda: Downsample((2, 2, 2), (1, 6, 9)), ("pair", "(2, 2, 2)")),
        (lambda: BlurDownsample(torch.ones(3, 3), 2, (1, 6, 9), boundary="same"), ("same", "circular")),
        (lambda: BlurDownsample(torch.ones(9, 3), 2, (1, 6, 9), boundary="valid"), ("9x3", "6x9")),
        (lambda: PixelMask(torch.full((6, 9), 0.5), (1, 6, 9)), ("0 and 1",)),
        (lambda: PixelMask(torch.ones(9, 6), (1, 6, 9)), ("(9, 6)", "(1, 6, 9)")),
        (lambda: Downsample(2, (1, 6, 9)).adjoint(torch.ones(1, 6, 9)), ("(1, 6, 9)", "1, 3, 5")),
    ],
)
def test_errors_name_what_was_found_and_expected(build, words):
    with pytest.raises(ValueError, match=r".") as caught:
        build()
    for word in words:
        assert word in str(caught.value)
