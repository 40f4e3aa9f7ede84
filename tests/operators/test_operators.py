"""The contract of every operator; those diagonal in Fourier space, the user's own, masks, noise, and the check."""

import math
import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny import dense, relative, stacked

from iasolve.operators import (
    BlockAverage,
    BlurDownsample,
    CircularBlur,
    CircularShift,
    Convolution,
    Downsample,
    FourierTransform,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    PixelMask,
    SampleKSpace,
    acceleration,
    centred_fft2,
    centred_ifft2,
    check_operator,
    disk_kernel,
    gaussian_kernel,
    line_mask,
    mask_from_fastmri,
    motion_kernel,
    point_mask,
    vstack,
)
from iasolve.operators.kernels import gaussian_transfer, kernel_transfer
from iasolve.spectrum import fft2, ifft2, radius

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import fastmri
    from fastmri.data import subsample

SIZES = [(8, 8), (7, 7), (6, 9), (5, 4)]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
CASES = list(zip(SIZES, DTYPES, strict=True))
"""Every precision, and every size: what depends on both at once is the transform's, not the operator's."""


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def half_mask(height, width):
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[height // 2, width // 2] = True
    return mask


def kernel():
    return torch.tensor([[0.1, 0.4, 0.0, 0.3], [0.05, 0.5, -0.2, 0.1], [0.0, 0.2, 0.7, 0.0]], dtype=torch.float64)


@cache
def catalogue(size, dtype):
    """Every operator of this package but those of multi-coil, Radon and non-uniform sampling, and their algebra."""
    shape, height = (2, *size), size[0]
    mask, blur = KSpaceMask(half_mask(*size), shape, dtype), CircularBlur(kernel(), shape, dtype)
    low, fourier = LowPass(4, shape, dtype), FourierTransform(shape, dtype)
    sample = SampleKSpace(half_mask(*size), shape, fourier.out_dtype)
    pixels = PixelMask(half_mask(*size), shape, dtype)
    valid = Convolution(kernel(), shape, dtype, boundary="valid")
    return {
        "identity": Identity(shape, dtype),
        "mask": mask,
        "blur": blur,
        "low-pass": low,
        "shift": CircularShift((2, -3), shape, dtype),
        "fourier": fourier,
        "uncentred fourier": FourierTransform(shape, dtype, centred=False),
        "sample k-space": sample,
        "sample uncentred k-space": SampleKSpace(half_mask(*size), shape, fourier.out_dtype, centred=False),
        "valid": valid,
        "reflect": Convolution(kernel(), shape, dtype, boundary="reflect"),
        "pixels": pixels,
        "blocks": BlockAverage((height, 1), shape, dtype),
        "stride": Downsample((2, 3), shape, dtype),
        "super-resolution": BlurDownsample(kernel(), 2, shape, dtype),
        "circular super-resolution": BlurDownsample(kernel(), (3, 2), shape, dtype, boundary="circular"),
        "own": LinearOperator.from_functions(lambda x: 2 * x.diff(dim=-1), in_shape=shape, dtype=dtype),
        "mask @ blur": mask @ blur,
        "sample @ fourier @ blur": sample @ fourier @ blur,
        "blur @ blur": blur @ blur,
        "mask @ shift": mask @ CircularShift((-1, 2), shape, dtype),
        "blur + low-pass": blur + low,
        "blur - pixels": blur - pixels,
        "blur + mask": blur + mask,
        "0.3 * blur": 0.3 * blur,
        "(2 - 1j) * mask": (2 - 1j) * mask,
        "mask + mask @ blur": mask + mask @ blur,
        "blur.H": blur.H,
        "blur.gram": blur.gram,
        "mask.H": mask.H,
        "mask.gram": mask.gram,
        "stack of equals": vstack(mask, fourier @ blur),
        "stack of kinds": vstack(blur, mask),
        "stack of shapes": vstack(0.5 * blur, valid, mask),
    }


NAMES = tuple(catalogue((8, 8), torch.complex64))


# ------------------------------------------------------------------------------------------- the catalogue


@pytest.mark.parametrize(("size", "dtype"), CASES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_every_operator_passes_the_check(name, size, dtype):
    report = check_operator(catalogue(size, dtype)[name])
    assert report.ok, str(report)
    assert "adjoint on the pair y = Ax" in str(report)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_every_adjoint_is_the_adjoint(size, dtype, batch):
    """Independently of the check: on random pairs and on ``y = A x``, relative to the lengths, item by item."""
    for name, operator in catalogue(size, dtype).items():
        x = random((*batch, *operator.in_shape), operator.in_dtype)
        Ax = operator(x)
        assert Ax.shape == (*batch, *operator.out_shape), name
        assert Ax.dtype == operator.out_dtype, name
        for y in (random(Ax.shape, Ax.dtype, seed=2), Ax):
            back = operator.adjoint(y)
            assert back.shape == x.shape, name
            assert back.dtype == x.dtype, name
            left = (y.conj() * Ax).flatten(len(batch)).sum(-1)
            right = (back.conj() * x).flatten(len(batch)).sum(-1)
            gap = (left - right).abs() if Ax.is_complex() and x.is_complex() else (left - right).real.abs()
            sizes = [t.flatten(len(batch)).abs().square().sum(-1).sqrt() for t in (Ax, y, x, back)]
            assert bool((gap <= 1e-10 * (sizes[0] * sizes[1] + sizes[2] * sizes[3])).all()), name


@pytest.mark.parametrize("size", SIZES)
def test_transfer_functions_describe_the_operators(size):
    """``to_grid(A x) = D fft2(x)``, for every operator that claims to be diagonal."""
    for dtype in (torch.float64, torch.complex128):
        x = random((3, 2, *size), dtype)
        found = set()
        for name, operator in catalogue(size, dtype).items():
            d = operator.transfer()
            if d is not None and operator.domain == "image":
                found.add(name)
                assert relative(operator.to_grid(operator(x)), d * fft2(x)) < 1e-9, name
        assert {"identity", "fourier", "sample @ fourier @ blur", "mask.gram", "blur.H", "stack of equals"} < found
        assert ("stack of kinds" in found) == dtype.is_complex
        assert not found & {"valid", "reflect", "pixels", "blocks", "stride", "own", "blur - pixels", "stack of shapes"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_norms_are_the_largest_singular_values(dtype):
    for name, operator in catalogue((6, 9), dtype).items():
        if name == "mask.H" and not dtype.is_complex:
            continue  # linear over the reals only: no matrix of complex numbers
        expected = float(torch.linalg.matrix_norm(stacked(dense(operator, operator.in_dtype)), 2))
        if operator.is_complex:
            expected = float(torch.linalg.matrix_norm(dense(operator, operator.in_dtype), 2))
        exact = operator.transfer() is not None or name in ("pixels", "blocks", "stride")
        assert operator.norm() == pytest.approx(expected, rel=1e-9 if exact else 1e-3), name
        assert operator.norm(300, seed=3) == pytest.approx(expected, rel=1e-9 if exact else 1e-4), name
        assert isinstance(operator.norm(), float)


def test_norms_of_any_size():
    for norm in (1e-30, 1e30):
        scale = norm * torch.tensor([1.0, 0.5, 0.25])
        operator = LinearOperator.from_functions(lambda x, s=scale: s * x, lambda y, s=scale: s * y, in_shape=(3,))
        assert operator.norm() == pytest.approx(norm, rel=1e-5)
    assert LinearOperator.from_functions(lambda x: 0 * x, in_shape=(3,)).norm() == 0


def test_double_in_double_out():
    for name, operator in catalogue((6, 9), torch.float32).items():
        x = random((2, *operator.in_shape), torch.promote_types(operator.in_dtype, torch.float64))
        exact = catalogue((6, 9), torch.float64)[name]
        assert torch.equal(operator(x), exact(x)) or relative(operator(x), exact(x)) < 1e-14, name
        y = operator(x)
        assert y.dtype == exact.out_dtype, name
        assert relative(operator.adjoint(y), exact.adjoint(y)) < 1e-14, name


def test_operators_move_with_to():
    """On the meta device nothing is computed, but a tensor left behind on the CPU is an error."""
    for name, operator in catalogue((6, 9), torch.float32).items():
        moved = operator.to("meta")
        x = torch.empty(2, *operator.in_shape, dtype=operator.in_dtype, device="meta")
        y = moved(x)
        assert y.device.type == moved.adjoint(y).device.type == "meta", name
        d = moved.transfer()
        if d is not None:
            assert d.device.type == moved.device.type == moved.to_grid(y).device.type == "meta", name


def test_what_happens_to_the_callers_mask_later_is_none_of_the_operators_business():
    mask = torch.ones(1, 4, 6)
    operators = [PixelMask(mask, (1, 4, 6)), KSpaceMask(mask[0], (1, 4, 6)), SampleKSpace(mask[0], (1, 4, 6))]
    mask.zero_()
    assert all(bool((operator.mask == 1).all()) for operator in operators)


def test_examples_in_the_documentation_run():
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "own-operator.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec("\n".join(blocks), names)
    assert check_operator(names["A"]).ok
    assert check_operator(names["Flip"]((1, 4, 6))).ok


# ------------------------------------------------------------------------------------------- k-space


@pytest.mark.parametrize("size", [*SIZES, (1, 5), (16, 3)])
def test_centred_transforms_are_fastmris(size):
    x = random((3, *size), torch.complex128)
    pairs = torch.view_as_real(x)
    torch.testing.assert_close(torch.view_as_real(centred_fft2(x)), fastmri.fft2c(pairs))
    torch.testing.assert_close(torch.view_as_real(centred_ifft2(x)), fastmri.ifft2c(pairs))


@pytest.mark.parametrize("size", SIZES)
def test_k_space_mask_is_the_masked_fastmri_transform(size):
    mask = half_mask(*size)
    x = random((3, 1, *size))
    pairs = torch.stack([x, torch.zeros_like(x)], -1)
    expected = fastmri.fft2c(pairs) * mask[..., None]
    for given in (mask, mask.numpy(), mask.int()):
        operator = KSpaceMask(given, (1, *size), torch.float64)
        torch.testing.assert_close(torch.view_as_real(operator(x)), expected)
    back = operator.adjoint(operator(x))
    torch.testing.assert_close(back, fastmri.ifft2c(expected)[..., 0])
    # DC, the sum over the root of the number of pixels, stands in the middle
    dc = operator(torch.ones(1, *size, dtype=torch.float64))[0, size[0] // 2, size[1] // 2]
    assert complex(dc) == pytest.approx((size[0] * size[1]) ** 0.5)


@pytest.mark.parametrize("size", SIZES)
def test_fourier_transforms_are_torchs_and_fastmris(size):
    x = random((3, 1, *size))
    uncentred = FourierTransform((1, *size), torch.float64, centred=False)
    torch.testing.assert_close(uncentred(x), torch.fft.fft2(x, norm="ortho"))
    torch.testing.assert_close(FourierTransform((1, *size), torch.float64)(x), centred_fft2(x))
    for operator in (uncentred, FourierTransform((1, *size), torch.float64)):
        torch.testing.assert_close(operator.adjoint(operator(x)), x)
        assert operator.codomain == ("spectrum" if operator is uncentred else "kspace")


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_sampling_a_fourier_transform_is_the_k_space_mask(dtype):
    shape, mask = (2, 6, 9), half_mask(6, 9)
    one = KSpaceMask(mask, shape, dtype)
    two = SampleKSpace(mask, shape, torch.complex128) @ FourierTransform(shape, dtype)
    x = random((3, *shape), dtype)
    assert torch.equal(one(x), two(x))
    assert torch.equal(one.adjoint(one(x)), two.adjoint(one(x)))
    assert torch.equal(one.transfer(), two.transfer().float())
    # the same bins, with the mask and the k-space in the other order
    three = SampleKSpace(torch.fft.ifftshift(mask), shape, torch.complex128, centred=False)
    three = three @ FourierTransform(shape, dtype, centred=False)
    assert torch.equal(three.transfer(), two.transfer())
    torch.testing.assert_close(three.gram(x), two.gram(x))


def test_k_space_of_two_orders_does_not_mix_unseen():
    """A centred mask on an uncentred transform is a legitimate matrix, but not a diagonal one."""
    shape = (1, 6, 9)
    operator = SampleKSpace(half_mask(6, 9), shape) @ FourierTransform(shape, centred=False)
    assert operator.transfer() is None
    assert check_operator(operator).ok


def test_masks_broadcast_and_are_checked():
    lines = torch.tensor([0, 1, 1, 0, 1, 0])
    operator = KSpaceMask(lines, (1, 4, 6))
    assert torch.equal(operator.mask, lines.float().expand(4, 6))
    column = KSpaceMask(np.array([[1], [0], [1], [1]]), (1, 4, 6))
    assert torch.equal(column.mask[:, 3], torch.tensor([1.0, 0, 1, 1]))
    flipped = KSpaceMask(lines.numpy()[::-1], (1, 4, 6))
    assert torch.equal(flipped.mask, lines.flip(0).float().expand(4, 6))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: KSpaceMask(torch.ones(5, 6), (1, 4, 6)), ("(5, 6)", "(4, 6)")),
        (lambda: KSpaceMask(torch.full((4, 6), 0.5), (1, 4, 6)), ("0 and 1",)),
        (lambda: KSpaceMask(torch.zeros(4, 6), (1, 4, 6)), ("samples nothing",)),
        (lambda: CircularBlur(torch.ones(5, 3), (1, 4, 6)), ("5x3", "4x6")),
        (lambda: CircularBlur(torch.ones(3), (1, 4, 6)), ("(3,)",)),
        (lambda: CircularBlur(torch.zeros(3, 3), (1, 4, 6)), ("zero",)),
        (lambda: CircularBlur(torch.full((3, 3), torch.nan), (1, 4, 6)), ("finite",)),
        (lambda: LowPass(0, (1, 4, 6)), ("0",)),
        (lambda: CircularShift((0.5, 1), (1, 4, 6)), ("(0.5, 1)", "whole")),
        (lambda: Identity((4, 6)), ("(4, 6)", "(C, H, W)")),
        (lambda: Identity((1, 0, 6)), ("(1, 0, 6)",)),
        (lambda: Identity((1, 4, 6)) @ Identity((1, 6, 4)), ("(1, 4, 6)", "(1, 6, 4)")),
        (lambda: Identity((1, 4, 6)) + Identity((1, 6, 4)), ("(1, 4, 6)", "(1, 6, 4)")),
        (lambda: 1j * Identity((1, 4, 6)), ("complex", "float32")),
        (lambda: Identity((1, 4, 6))(torch.ones(2, 4, 6)), ("(2, 4, 6)", "1, 4, 6")),
        (lambda: Identity((1, 4, 6))(torch.ones(4, 6)), ("(4, 6)", "1, 4, 6")),
        (lambda: Identity((1, 4, 6))(torch.ones(1, 4, 6) + 0j), ("complex64", "float32")),
        (lambda: KSpaceMask(torch.ones(4, 6), (1, 4, 6)).adjoint(torch.ones(3, 1, 6, 4)), ("(3, 1, 6, 4)", "1, 4, 6")),
        (lambda: Identity((1, 4, 6)).H.adjoint(torch.ones(6)), ("(6,)", "1, 4, 6")),
        (lambda: LinearOperator((1,), (1,), domain="wavelet"), ("wavelet",)),
        (lambda: LinearOperator((1,), (1,)).to_grid(torch.ones(1)), ("not diagonal",)),
        (lambda: SampleKSpace(torch.ones(4, 6), (1, 4, 6), torch.float32), ("float32", "complex64")),
        (lambda: SampleKSpace(torch.ones(5, 6), (1, 4, 6)), ("(5, 6)", "(4, 6)")),
        (lambda: PixelMask(torch.ones(2, 4, 6), (1, 4, 6)), ("(2, 4, 6)", "(1, 4, 6)")),
        (lambda: PixelMask(torch.zeros(4, 6), (1, 4, 6)), ("samples nothing",)),
        (lambda: FourierTransform((4, 6)), ("(4, 6)", "(C, H, W)")),
        (lambda: float("nan") * Identity((1, 4, 6)), ("nan", "finite")),
        (lambda: disk_kernel(0), ("positive", "0")),
    ],
)
def test_errors_name_what_was_found_and_expected(build, words):
    with pytest.raises(ValueError, match=r".") as caught:
        build()
    for word in words:
        assert word in str(caught.value)


def test_a_sum_or_product_with_something_else_is_a_type_error():
    with pytest.raises(TypeError):
        Identity((1, 4, 4)) + 3
    with pytest.raises(TypeError):
        Identity((1, 4, 4)) @ torch.ones(4, 4)
    with pytest.raises(TypeError):
        "2" * Identity((1, 4, 4))
    with pytest.raises(TypeError):
        np.ones(2) * Identity((1, 4, 4))
    with pytest.raises(TypeError):
        Identity((1, 4, 4)) - 1


# ------------------------------------------------------------------------------------------- blur, low-pass


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (6, 9)])
@pytest.mark.parametrize("shape", [(3, 3), (2, 2), (4, 3), (1, 5), (6, 6)])
def test_circular_blur_is_the_explicit_circular_sum(size, shape):
    weights, x = random(shape, seed=1), random((1, *size))
    height, width = size
    expected = torch.zeros(1, *size, dtype=torch.float64)
    for i in range(shape[0]):
        for j in range(shape[1]):
            # weights[i, j] moves the image by (i, j) minus the centre, size // 2
            shift = (i - shape[0] // 2, j - shape[1] // 2)
            expected += weights[i, j] * torch.roll(x, shift, dims=(-2, -1))
    found = CircularBlur(weights, (1, height, width), torch.float64)(x)
    torch.testing.assert_close(found, expected)
    by_scipy = ndimage.convolve(x[0].numpy(), weights.numpy(), mode="wrap")
    np.testing.assert_allclose(found[0].numpy(), by_scipy, atol=1e-12)
    for kernel_size in (1, 2, 3):
        impulse = torch.zeros(kernel_size, kernel_size)
        impulse[kernel_size // 2, kernel_size // 2] = 1
        torch.testing.assert_close(CircularBlur(impulse, (1, height, width), torch.float64)(x), x)


def test_a_kernel_may_be_as_large_as_the_image():
    x = random((1, 5, 6))
    impulse = torch.zeros(5, 6)
    impulse[2, 3] = 1
    torch.testing.assert_close(CircularBlur(impulse, (1, 5, 6), torch.float64)(x), x)


def test_gaussian_and_motion_kernels():
    g = gaussian_kernel(1.3)
    assert float(g.sum()) == pytest.approx(1.0)
    assert g.shape == (13, 13)
    t = torch.arange(13.0) - 6
    assert float((g.sum(0) * t.square()).sum()) == pytest.approx(1.3**2, rel=1e-2)
    assert torch.equal(g, g.T)
    # sampled and untruncated Gaussians agree where the blur is wide enough to be sampled
    sampled = kernel_transfer(gaussian_kernel(2.0, 33), (33, 33))
    torch.testing.assert_close(sampled.real, gaussian_transfer(2.0, (33, 33)), rtol=0, atol=1e-6)
    flat = motion_kernel(5.0, 0.0)
    assert float(flat.sum()) == pytest.approx(1.0)
    middle = flat.shape[0] // 2
    assert float(flat[middle].sum()) == pytest.approx(1.0)
    torch.testing.assert_close(flat, flat.flip(-1))
    torch.testing.assert_close(motion_kernel(5.0, np.pi / 2), flat.T, rtol=0, atol=1e-12)
    for wrong in (lambda: gaussian_kernel(0), lambda: motion_kernel(-1, 0)):
        with pytest.raises(ValueError, match="positive"):
            wrong()


@pytest.mark.parametrize("radius_", [0.3, 0.5, 1.0, 2.5, 3.7])
def test_a_disk_weighs_areas(radius_):
    found = disk_kernel(radius_)
    assert found.dtype == torch.float64
    assert found.shape[0] == found.shape[1] == 2 * math.ceil(radius_ - 0.5) + 1
    assert float(found.sum()) == pytest.approx(1.0)
    for same in (found.T, found.flip(0), found.flip(1)):
        torch.testing.assert_close(found, same, rtol=0, atol=1e-14)
    # by counting subpixels
    half, fine = found.shape[0] // 2, 200
    t = (torch.arange(found.shape[0] * fine, dtype=torch.float64) + 0.5) / fine - half - 0.5
    inside = (t[:, None] ** 2 + t[None, :] ** 2 <= radius_**2).double()
    counted = inside.unflatten(0, (-1, fine)).unflatten(2, (-1, fine)).mean(dim=(1, 3))
    torch.testing.assert_close(found * math.pi * radius_**2, counted, rtol=0, atol=2e-3)


def test_a_disk_reaches_where_its_radius_says():
    kernel_ = disk_kernel(1.0)
    # one pixel inside, four cut by the circle, four corners: areas known in closed form
    area = math.pi * kernel_
    corner = (math.pi / 3 + 1 - math.sqrt(3)) / 4
    assert float(area[1, 1]) == pytest.approx(1.0)
    assert float(area[0, 0]) == pytest.approx(corner)
    assert float(area[0, 1]) == pytest.approx((math.pi - 1 - 4 * corner) / 4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 2, 4, 64])
def test_low_pass_is_the_orthogonal_projection_on_its_scales(size, scale):
    operator = LowPass(scale, (1, *size), torch.float64)
    matrix = dense(operator)
    torch.testing.assert_close(matrix @ matrix, matrix)
    torch.testing.assert_close(matrix.T, matrix)
    assert round(float(matrix.trace())) == int((radius(*size) <= scale / 2).sum())
    x = random((1, *size))
    h = fft2(operator(x))[0]
    assert (h[radius(*size) > scale / 2].abs() < 1e-12).all()
    if scale == 1:
        torch.testing.assert_close(operator(x), x.mean().expand_as(x))
    if scale == 64:
        torch.testing.assert_close(operator(x), x)


# ------------------------------------------------------------------------------------------- the user's own


def test_from_functions_with_and_without_adjoint():
    matrix = random((12, 20))

    def forward(x):
        return x.flatten(-2) @ matrix.T

    def adjoint(y):
        return (y @ matrix).unflatten(-1, (4, 5))

    with_adjoint = LinearOperator.from_functions(forward, adjoint, in_shape=(4, 5), dtype=torch.float64)
    without = LinearOperator.from_functions(forward, in_shape=(4, 5), dtype=torch.float64)
    for operator in (with_adjoint, without):
        assert operator.out_shape == (12,)
        assert operator.transfer() is None
        assert check_operator(operator).ok
        torch.testing.assert_close(dense(operator), matrix)
        torch.testing.assert_close(dense(operator.H), matrix.T)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_from_functions_with_complex_output(given, dtype):
    matrix = random((7, 12), torch.complex128)

    def adjoint(y):
        x = (y @ matrix.conj()).unflatten(-1, (3, 4))
        return x if dtype.is_complex else x.real

    operator = LinearOperator.from_functions(
        lambda x: x.flatten(-2).to(matrix.dtype) @ matrix.T, adjoint if given else None, in_shape=(3, 4), dtype=dtype
    )
    assert operator.out_dtype == torch.complex128
    assert check_operator(operator).ok
    torch.testing.assert_close(dense(operator, dtype), matrix)
    y = random((2, 7), torch.complex128)
    expected = (y @ matrix.conj()).unflatten(-1, (3, 4))
    torch.testing.assert_close(operator.adjoint(y), expected if dtype.is_complex else expected.real)


def test_from_functions_item_by_item():
    seen = []

    def forward(x):
        assert x.ndim == 2
        seen.append(x.shape)
        return x.T.contiguous()

    for adjoint in (None, lambda y: y.T.contiguous()):
        operator = LinearOperator.from_functions(forward, adjoint, in_shape=(3, 4), batched=False)
        assert check_operator(operator).ok
        x = random((2, 5, 3, 4), torch.float32)
        assert torch.equal(operator(x), x.mT)
        assert torch.equal(operator.adjoint(x.mT.contiguous()), x)
    assert all(shape == (3, 4) for shape in seen)


def test_from_functions_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match=r"fails on zeros of shape \(3, 4\).*float32"):
        LinearOperator.from_functions(lambda x: x @ torch.ones(9, 9), in_shape=(3, 4))
    with pytest.raises(ValueError, match="must return a tensor, got ndarray"):
        LinearOperator.from_functions(lambda x: x.numpy(), in_shape=(3, 4))
    opaque = LinearOperator.from_functions(lambda x: torch.from_numpy(x.detach().numpy() * 2), in_shape=(3, 4))
    with pytest.raises(ValueError, match=r"not differentiable.*adjoint"):
        opaque.adjoint(torch.ones(3, 4))


# ------------------------------------------------------------------------------------------- the check


class Broken(LinearOperator):
    """An operator from two functions on one item or a batch, with an optional transfer function."""

    def __init__(self, forward, adjoint, shape=(1, 6, 7), transfer=None, **kinds):
        super().__init__(shape, shape, **({"domain": "image", "codomain": "image"} | kinds))
        self.functions, self.given = (forward, adjoint), transfer

    def forward(self, x):
        return self.functions[0](x)

    def adjoint(self, y):
        return self.functions[1](y)

    def transfer(self):
        return self.given


def bad_operators():
    mask = half_mask(6, 7).float()
    m = random((6, 6), torch.float32)
    c = random((6, 6), torch.complex64)
    kinds = {"in_dtype": torch.complex64}
    kspace = {"out_dtype": torch.complex64, "codomain": "kspace"}
    spectrum = {"out_dtype": torch.complex64, "codomain": "spectrum"}
    nowhere = {"codomain": None}
    good = KSpaceMask(mask, (1, 6, 7))

    def changes(x):
        x *= 2
        return x

    def masked(x):
        return mask * centred_fft2(x)

    wrong_side = torch.roll(mask, 1, -1)
    return {
        "missing conjugate": Broken(lambda x: (1 + 1j) * x, lambda y: (1 + 1j) * y, **kinds),
        "transpose instead of adjoint": Broken(lambda x: c @ x, lambda y: c.mT @ y, **kinds),
        "missing conjugate, real images": Broken(masked, lambda y: centred_fft2(mask * y).real, **kspace),
        "shifted mask in the adjoint": Broken(masked, lambda y: centred_ifft2(wrong_side * y).real, **kspace),
        "shifted mask in the transfer": Broken(masked, good.adjoint, transfer=mask[None], **kspace),
        "uncentred": Broken(masked, lambda y: torch.fft.ifft2(mask * y, norm="ortho").real, **kspace),
        "a thousandth off": Broken(lambda x: m @ x, lambda y: 1.001 * (m.T @ y)),
        "tiny and wrong": Broken(lambda x: 1e-6 * (m @ x), lambda y: 1e-6 * (m @ y)),
        "huge and wrong": Broken(lambda x: 1e4 * (m @ x), lambda y: 1.001e4 * (m.T @ y)),
        "no adjoint at all": Broken(lambda x: m @ x, torch.zeros_like),
        "affine": Broken(lambda x: m @ x + 0.01, lambda y: m.T @ y),
        "not linear": Broken(lambda x: (m @ x).abs(), lambda y: m.T @ y),
        "clips": Broken(lambda x: x.clamp(-2, 2), lambda y: y),
        "only real-linear": Broken(lambda x: x.conj(), lambda y: y.conj(), **kinds),
        "changes its input": Broken(changes, lambda y: 2 * y),
        "adjoint changes its input": Broken(lambda x: 2 * x, changes),
        "mixes the batch": Broken(lambda x: x + (x.roll(1, 0) if x.ndim > 3 else 0), lambda y: y),
        "normalises by the batch": Broken(lambda x: x / (len(x) if x.ndim > 3 else 1), lambda y: y),
        "drops the batch": Broken(lambda x: x.reshape(-1, 1, 6, 7)[0], lambda y: y),
        "wrong shape": Broken(lambda x: x[..., :-1], lambda y: y),
        "wrong dtype": Broken(lambda x: x.double(), lambda y: y),
        "not finite": Broken(lambda x: x / 0, lambda y: y),
        "raises": Broken(lambda x: x @ torch.ones(2, 2), lambda y: y),
        "mixes two batch dimensions only": Broken(lambda x: x.roll(1, 0) if x.ndim > 4 else x, lambda y: y),
        "one batch dimension at most": Broken(lambda x: x.reshape(-1, 1, 6, 7) if x.ndim > 3 else x, lambda y: y),
        "changes a batch only": Broken(lambda x: changes(x) if x.ndim > 3 else 2 * x, lambda y: 2 * y),
        "clips far out": Broken(lambda x: x.clamp(-1000, 1000), lambda y: y),
        "thresholds": Broken(lambda x: torch.where(x.abs() > 0.01, x, 0), lambda y: y),
        "affine adjoint": Broken(lambda x: x, lambda y: y + 1e-4),
        "random": Broken(lambda x: x + 1e-3 * torch.randn_like(x), lambda y: y),
        "transfer of another shape": Broken(lambda x: x, lambda y: y, transfer=torch.ones(1, 5, 7)),
        "transfer without a basis": Broken(lambda x: x, lambda y: y, transfer=torch.ones(1, 6, 7), **nowhere),
        "transfer without its conjugate": Broken(
            lambda x: fft2(x) * 1j, lambda y: (ifft2(y) * -1j).real, transfer=torch.tensor(-1j), **spectrum
        ),
        "not an isometry on the grid": OtherGrid(lambda x: 2 * x, lambda y: 2 * y, transfer=torch.ones(1, 6, 7)),
        "norm too small": OtherNorm(lambda x: 2 * x, lambda y: 2 * y),
        "ignores strides": Broken(lambda x: x.as_strided((1, 6, 7), (42, 7, 1)) if x.ndim == 3 else x, lambda y: y),
    }


class OtherGrid(Broken):
    """``A = (2 W) D B^H`` with ``D = 1``: right for ``A x``, but ``2 W`` is no isometry."""

    def to_grid(self, y):
        return super().to_grid(y) / 2


class OtherNorm(Broken):
    """Says a norm of its own."""

    def norm(self, iterations=100, seed=0):
        return 1.0


@pytest.mark.parametrize("name", bad_operators())
def test_the_check_finds(name):
    report = check_operator(bad_operators()[name])
    assert not report.ok, str(report)
    assert report.failures
    assert "NOT ok" in str(report)
    assert all(len(sentence) > 10 for sentence in report.failures)
    # the same fault in another trial is not another fault
    said = [sentence.partition(" (error ")[0] for sentence in report.failures]
    assert len(said) == len(set(said)), report.failures


@pytest.mark.parametrize(("norm", "dtype"), [(1e4, torch.float32), (1.0, torch.float64), (1e-6, torch.complex64)])
@pytest.mark.parametrize("wrong", ["a thousandth off", "transpose", "another"])
def test_wrong_adjoints_are_found_at_any_norm(norm, dtype, wrong):
    matrix, other = (norm * random((20, 20), dtype, seed) for seed in (0, 1))
    back = {"a thousandth off": 1.001 * matrix.conj(), "transpose": matrix, "another": other}[wrong]
    if wrong == "transpose" and not dtype.is_complex:
        back = matrix.T
    operator = LinearOperator.from_functions(lambda x: x @ matrix.T, lambda y: y @ back, in_shape=(20,), dtype=dtype)
    assert not check_operator(operator).ok


@pytest.mark.parametrize("where", ["adjoint", "transfer"])
def test_one_wrong_entry_of_a_large_mask_is_found(where):
    """In single precision one sample in 16,384 is close to rounding; the operator is checked in double as well."""
    mask = (random((128, 128)) > 0).float()
    wrong = mask.clone()
    wrong[70, 60] = 1 - wrong[70, 60]
    good, bad = (KSpaceMask(m, (1, 128, 128), torch.complex64) for m in (mask, wrong))
    kinds = {"shape": (1, 128, 128), "in_dtype": torch.complex64, "codomain": "kspace"}
    operator = Broken(
        good.forward,
        bad.adjoint if where == "adjoint" else good.adjoint,
        transfer=bad.transfer() if where == "transfer" else good.transfer(),
        **kinds,
    )
    for seed in range(3):
        assert not check_operator(operator, seed).ok
    right = Broken(good.forward, good.adjoint, transfer=good.transfer(), **kinds)
    assert check_operator(right).ok


@pytest.mark.parametrize("cast", [False, True])
def test_operators_in_single_precision_only_pass(cast):
    """Whether they refuse double input or answer it in double after computing in single."""
    matrix = random((300, 300), torch.float32)

    def kind(x):
        return x.float() if cast else x

    operator = LinearOperator.from_functions(
        lambda x: (kind(x) @ matrix.T).to(x.dtype), lambda y: (kind(y) @ matrix).to(y.dtype), in_shape=(300,)
    )
    report = check_operator(operator)
    assert report.ok, str(report)
    assert "single precision only" in str(report)
    assert report.tolerance == 2e-5


def test_operators_that_want_contiguous_tensors_pass_with_a_note():
    operator = LinearOperator.from_functions(
        lambda x: x.view(*x.shape[:-2], 12) * 2, lambda y: 2 * y.view(*y.shape[:-1], 3, 4), in_shape=(3, 4)
    )
    assert check_operator(operator).ok
    strict = LinearOperator.from_functions(
        lambda x: x.view(torch.int32).view(torch.float32) * 2, lambda y: 2 * y, in_shape=(3, 4), batched=False
    )
    report = check_operator(strict)
    assert report.ok, str(report)


def test_the_check_says_what_is_wrong():
    found = {name: " ".join(check_operator(op).failures) for name, op in bad_operators().items()}
    for name, word in {
        "a thousandth off": "y = Ax",
        "affine": "A(0) is not 0",
        "only real-linear": "not complex-linear",
        "changes its input": "forward changed its input",
        "adjoint changes its input": "adjoint changed its input",
        "mixes the batch": "batch",
        "drops the batch": "batch",
        "wrong shape": "(1, 6, 6)",
        "wrong dtype": "float64",
        "not finite": "NaN",
        "raises": "RuntimeError",
        "shifted mask in the transfer": "transfer",
        "one batch dimension at most": "batch",
        "changes a batch only": "forward changed its input",
        "clips far out": "c = 4096",
        "thresholds": "c = 0.000244141",
        "affine adjoint": "A^H(0) is not 0",
        "transfer of another shape": "(1, 5, 7)",
        "transfer without a basis": "basis",
        "not an isometry on the grid": "conjugate transfer",
        "norm too small": "norm() says 1,",
        "ignores strides": "not contiguous",
    }.items():
        assert word in found[name], (name, found[name])


@pytest.mark.parametrize("norm", [1e4, 1.0, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float64])
def test_right_operators_of_any_norm_pass(norm, dtype):
    matrix = norm * random((30, 42), dtype) / 8
    operator = LinearOperator.from_functions(
        lambda x: x.flatten(-3) @ matrix.T,
        lambda y: (y @ matrix.conj()).unflatten(-1, (1, 6, 7)),
        in_shape=(1, 6, 7),
        dtype=dtype,
    )
    report = check_operator(operator)
    assert report.ok, str(report)
    assert report.norm == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=0.05)


def test_a_right_operator_that_returns_lazily_conjugated_tensors_passes():
    """``torch.conj`` only sets a bit; nobody who writes an operator should have to know."""
    c = random((6, 7), torch.complex64)
    operator = LinearOperator.from_functions(
        lambda x: (x.conj() * c).conj(), lambda y: (y.conj() * c.conj()).conj(), in_shape=(6, 7), dtype=torch.complex64
    )
    report = check_operator(operator)
    assert report.ok, str(report)


def test_the_check_repeats_with_its_seed_and_takes_a_tolerance():
    operator = bad_operators()["a thousandth off"]
    assert check_operator(operator, 3).errors == check_operator(operator, 3).errors
    assert check_operator(operator, 3).errors != check_operator(operator, 4).errors
    assert check_operator(operator, tolerance=0.01).ok


def test_the_check_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    check_operator(Identity((1, 4, 4)))
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(("width", "accel", "centre"), [(128, 4, 0.08), (128, 8, 0.04), (100, 3, 0.1), (64, 2, 0.2)])
@pytest.mark.parametrize(
    ("kind", "function"), [("random", "RandomMaskFunc"), ("equispaced", "EquispacedMaskFractionFunc")]
)
def test_line_masks_are_fastmris(width, accel, centre, kind, function):
    for seed in range(3):
        theirs, count = getattr(subsample, function)([centre], [accel])((1, width, 2), None, seed)
        ours = line_mask((40, width), accel, centre, kind=kind, seed=seed)
        assert ours.dtype == torch.bool
        assert torch.equal(ours, (theirs.reshape(1, width) > 0).expand(40, width))
        rows = line_mask((width, 40), accel, centre, kind=kind, seed=seed, axis=-2)
        assert torch.equal(rows, ours.T)
        start = (width - count + 1) // 2
        assert ours[:, start : start + count].all()
        assert ours[:, width // 2].all()


def test_masks_from_fastmris_functions():
    for build in (subsample.RandomMaskFunc, subsample.EquiSpacedMaskFunc, subsample.EquispacedMaskFractionFunc):
        function = build([0.08], [4])
        for seed in range(3):
            theirs, _ = function((40, 64, 2), None, seed)
            ours = mask_from_fastmri(function, (40, 64), seed)
            assert ours.dtype == torch.bool
            assert torch.equal(ours, (theirs[..., 0] > 0).expand(40, 64))
        mask = mask_from_fastmri(function, (40, 64), 0)
        assert KSpaceMask(mask, (1, 40, 64)).transfer() is not None
        assert 1 < acceleration(mask) < 8

    class Points(subsample.MaskFunc):
        """A mask function of one's own, over both axes."""

        def __call__(self, shape, offset=None, seed=None):
            return (random(shape[:-1], seed=seed) > 0)[..., None].float(), 0

    points = mask_from_fastmri(Points([0.1], [4]), (40, 64), 5)
    assert torch.equal(points, random((40, 64), seed=5) > 0)
    with pytest.raises(ValueError, match=r"\(3,\).*\(4, 6, 1\)"):
        mask_from_fastmri(lambda shape, offset, seed: (torch.ones(3), 0), (4, 6))


def test_acceleration_is_what_came_out():
    assert acceleration(torch.eye(4)) == 4.0
    assert acceleration(torch.ones(3, 5, dtype=torch.bool)) == 1.0
    found = [acceleration(line_mask((32, 128), 4, 0.08, seed=s)) for s in range(60)]
    assert np.mean([1 / a for a in found]) == pytest.approx(1 / 4, rel=0.1)
    assert max(found) != min(found)
    with pytest.raises(ValueError, match="samples nothing"):
        acceleration(torch.zeros(3, 3))


def test_masks_repeat_with_their_seed():
    for draw in (
        lambda seed: line_mask((16, 64), 4, 0.1, seed=seed),
        lambda seed: line_mask((16, 64), 4, 0.1, kind="equispaced", seed=seed),
        lambda seed: point_mask((32, 32), 4, 0.1, seed=seed),
    ):
        assert torch.equal(draw(3), draw(3))
        assert any(not torch.equal(draw(3), draw(s)) for s in range(4, 8))


@pytest.mark.parametrize(("accel", "centre", "count"), [(1, 0.1, 32), (4, 0.25, 8), (4, 1.0, 32), (10, 0.5, 16)])
def test_a_centre_that_fills_the_budget_is_all_there_is(accel, centre, count):
    mask = line_mask((4, 32), accel, centre)
    assert int(mask[0].sum()) == count
    assert mask[:, 16].all()


@pytest.mark.parametrize("centre", [0.005, 0.01, 0.03])
def test_a_small_centre_is_at_least_one_line(centre):
    """Without DC the image's scale and mean would be unknown."""
    for seed in range(6):
        assert line_mask((4, 32), 4, centre, seed=seed)[:, 16].all()


@pytest.mark.parametrize("accel", [2, 4, 10])
def test_point_masks(accel):
    masks = torch.stack([point_mask((64, 48), accel, 0.1, seed=s) for s in range(20)])
    assert float(masks.double().mean()) == pytest.approx(1 / accel, rel=0.03)
    assert masks[:, 30:35, 22:27].all()
    rate = masks.double().mean(0)
    assert rate[16:48, 12:36].mean() > 2 * rate[:8].mean()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"acceleration": 0.5}, "0.5"),
        ({"centre_fraction": 0}, "0"),
        ({"centre_fraction": 1.5}, "1.5"),
        ({"kind": "spiral"}, "spiral"),
        ({"axis": 0}, "axis"),
    ],
)
def test_impossible_masks_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        line_mask(**({"shape": (8, 8), "acceleration": 4, "centre_fraction": 0.1} | changes))


# ------------------------------------------------------------------------------------------- noise


def test_sigma_is_the_root_mean_square_of_a_noise_value():
    noise, generator = GaussianNoise(0.7), torch.Generator().manual_seed(0)
    for dtype in DTYPES:
        n = noise.sample(torch.zeros(200, 200, dtype=dtype), generator)
        assert n.dtype == dtype
        assert float(n.abs().square().mean().sqrt()) == pytest.approx(0.7, rel=0.02)
        if dtype.is_complex:
            assert float(n.real.square().mean()) == pytest.approx(0.245, rel=0.03)
            assert abs(float((n.real * n.imag).mean())) < 0.01
    clean = random((5, 5))
    torch.testing.assert_close(GaussianNoise(0.0).sample(clean), clean)
    a, b = (noise.sample(clean, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_impossible_noise_is_refused(sigma):
    with pytest.raises(ValueError, match="noise level"):
        GaussianNoise(sigma)
