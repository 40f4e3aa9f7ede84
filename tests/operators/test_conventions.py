"""Inputs that are wrong by convention: computed rightly, or refused with what to do."""

import numpy as np
import pytest
import torch
from tiny import relative

from iasolve.operators import (
    FourierTransform,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    NonUniformFourier,
    PixelMask,
    PoissonNoise,
    Radon,
    SensitivityEncoding,
    SpectralNoise,
    WeightedGaussianNoise,
    birdcage_maps,
    centred_fft2,
    check_operator,
    line_mask,
)
from iasolve.operators.base import as_tensor
from iasolve.operators.conventions import (
    check_batch_size,
    check_image_axes,
    check_kspace_order,
    check_operator_kind,
)
from iasolve.samples import load_samples

SHAPE = (1, 16, 12)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def head(crop=(128, 128)):
    x = torch.as_tensor(np.asarray(load_samples().images[0], np.float32)).reshape(1, 128, 128)
    return x[:, : crop[0], : crop[1]] / x.max()


# ------------------------------------------------------------------------------------------------- kinds of numbers


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.bool, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "operator",
    [
        Identity(SHAPE),
        KSpaceMask(torch.ones(12), SHAPE),
        PixelMask(torch.arange(12) % 2, SHAPE),
        Radon([0.0, 40.0], SHAPE),
        LinearOperator.from_functions(lambda x: x / 3, lambda y: y / 3, in_shape=SHAPE),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_integers_and_half_precision_are_computed_in_single(operator, dtype):
    x = torch.randint(0, 2, SHAPE, generator=generator()).to(dtype)
    out = operator(x)
    assert out.dtype in (torch.float32, torch.complex64)
    assert relative(out, operator(x.float())) < 1e-6
    back = operator.adjoint(torch.ones(operator.out_shape).to(dtype))
    assert relative(back, operator.adjoint(torch.ones(operator.out_shape))) < 1e-6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_noise_models_take_integers(dtype):
    y = torch.randint(0, 60, SHAPE, generator=generator()).to(dtype)
    clean = torch.randint(1, 60, SHAPE, generator=generator(1)).to(dtype)
    for noise in (
        WeightedGaussianNoise(torch.full(SHAPE, 0.4)),
        GaussianNoise(0.4),
        PoissonNoise(2.0),
        SpectralNoise((0.4, 0.2)),
    ):
        white, expected = noise.whitened(y, Identity(SHAPE)), noise.whitened(y.float(), Identity(SHAPE))
        torch.testing.assert_close(white.y.float(), expected.y)
        assert noise.sample(clean, generator()).dtype == torch.float32


def test_arrays_of_extended_precision_become_double_and_objects_are_refused():
    assert as_tensor(np.ones(3, np.longdouble)).dtype == torch.float64
    assert as_tensor(np.ones(3, np.clongdouble)).dtype == torch.complex128
    with pytest.raises(TypeError, match="expected an array of numbers, got dtype"):
        as_tensor(np.array(["a"]))


def test_masked_arrays_are_refused_where_something_is_masked():
    values = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match=r"1 masked value.*PixelMask\(~array.mask"):
        as_tensor(np.ma.array(values, mask=values == 2))
    assert as_tensor(np.ma.array(values)).tolist() == values.tolist()


@pytest.mark.parametrize("make", [lambda m: KSpaceMask(m, SHAPE), lambda m: PixelMask(m, SHAPE)])
def test_masks_are_0_and_1(make):
    mask = torch.ones(12)
    mask[3] = 0.3
    with pytest.raises(ValueError, match=r"the mask holds 0\.3, expected only 0 and 1"):
        make(mask)


# ------------------------------------------------------------------------------------------------------ trajectories


def radial(reach):
    angle = torch.arange(6) * torch.pi / 6
    radius = torch.linspace(-reach, reach, 40, dtype=torch.float64)
    return torch.stack([radius * angle.sin()[:, None], radius * angle.cos()[:, None]], -1)


def test_coordinates_in_other_units_are_refused_or_converted():
    pytest.importorskip("finufft")
    shape = (1, 64, 48)
    cycles = radial(0.5) * torch.tensor([64, 48])
    expected = NonUniformFourier(cycles, shape)(head((64, 48)))
    for unit, name, k in (
        ("pixel", "cycles per pixel", radial(0.5)),
        ("radian", "radians per pixel", radial(torch.pi)),
    ):
        with pytest.raises(ValueError, match=f"they look like {name}. Give unit='{unit}'"):
            NonUniformFourier(k, shape)
        assert relative(NonUniformFourier(k, shape, unit=unit)(head((64, 48))), expected) < 1e-5
    # the centre of k-space alone, said so; and a small image, which reaches no further
    assert check_operator(NonUniformFourier(radial(3.0), shape, unit="field-of-view")).ok
    assert check_operator(NonUniformFourier(radial(3.0), (1, 8, 8))).ok
    with pytest.raises(ValueError, match="the unit of coordinates must be one of"):
        NonUniformFourier(cycles, shape, unit="metre")


# ----------------------------------------------------------------------------------------------------- order of axes


@pytest.mark.parametrize("size", [(128, 128), (128, 90), (101, 128)])
@pytest.mark.parametrize(("coils", "acceleration"), [(1, 4), (2, 1), (8, 4), (16, 1)])
def test_coils_last_and_dc_in_the_corner_are_refused(size, coils, acceleration):
    mask = line_mask(size, acceleration, 0.08)
    k = SensitivityEncoding(birdcage_maps(size, coils), mask, torch.float32)(head(size))
    k = mask * GaussianNoise(0.02).sample(k, generator())
    check_kspace_order(k)
    check_kspace_order(1e-15 * k.numpy())
    with pytest.raises(ValueError, match=rf"as if {coils} coils of {size[0]} x {size[1]} came last"):
        check_kspace_order(k.movedim(0, -1))
    with pytest.raises(ValueError, match=r"where DC is expected: pass numpy.fft.fftshift"):
        check_kspace_order(torch.fft.ifftshift(k, dim=(-2, -1)))


def test_k_space_of_noise_and_of_few_columns_passes():
    check_kspace_order(torch.randn(4, 64, 64, dtype=torch.complex64, generator=generator()))
    check_kspace_order(torch.zeros(4, 64, 64))
    # more rows than coils, and narrow: (coils, H, W) all the same
    narrow = centred_fft2(head((128, 40))[:, :, :].expand(64, 128, 40).to(torch.complex64))
    check_kspace_order(narrow)


@pytest.mark.parametrize("shape", [(128, 128, 1), (5, 64, 80, 1), (64, 64, 3), (64, 64, 4)])
def test_channels_last_are_refused(shape):
    with pytest.raises(ValueError, match=rf"{shape[-1]} channel\(s\) last"):
        check_image_axes(shape)


@pytest.mark.parametrize("shape", [(1, 128, 128), (128, 128), (3, 64, 64), (1, 128, 1), (8, 8, 1), (4, 64, 64, 2)])
def test_other_shapes_pass(shape):
    check_image_axes(shape)


# --------------------------------------------------------------------------------------------------------- arguments


def test_operators_of_another_kind_are_refused():
    check_operator_kind(Identity(SHAPE))
    for wrong, advice in (
        (lambda x: x, "LinearOperator.from_functions"),
        (np.ones((2, 2)), "from_scipy"),
        (None, "Identity"),
    ):
        with pytest.raises(TypeError, match=advice):
            check_operator_kind(wrong)


def test_batch_sizes_are_whole_numbers_from_1():
    for good in (1, 16, np.int64(3)):
        check_batch_size(good)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {wrong}, expected at least 1"):
            check_batch_size(wrong)
    for wrong in (2.0, "4", None, True):
        with pytest.raises(TypeError, match="expected a whole number"):
            check_batch_size(wrong)


@pytest.mark.parametrize(
    "zero",
    [
        0.0 * Identity(SHAPE),
        LinearOperator.from_functions(lambda x: 0 * x, lambda y: 0 * y, in_shape=SHAPE),
        PixelMask(torch.arange(12) < 3, SHAPE) @ PixelMask(torch.arange(12) >= 3, SHAPE),
    ],
    ids=["scaled", "functions", "disjoint masks"],
)
def test_operators_of_norm_0_are_refused(zero):
    report = check_operator(zero)
    assert not report.ok
    assert "the operator is zero" in " ".join(report.failures)
    assert check_operator(1e-30 * FourierTransform(SHAPE, torch.complex128)).ok
