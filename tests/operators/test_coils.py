"""Sensitivity encoding against explicit sums, its algebra with coil mixtures, simulated maps, coil compression."""

import numpy as np
import pytest
import torch
from tiny import dense, relative

from iasolve.operators import (
    CircularShift,
    KSpaceMask,
    SampleKSpace,
    centred_fft2,
    centred_ifft2,
    check_operator,
    vstack,
)
from iasolve.operators.coils import Sensitivities, SensitivityEncoding, birdcage_maps, root_sum_of_squares
from iasolve.operators.compression import compress_coils
from iasolve.operators.crop import Crop
from iasolve.operators.whitening import CoilMixing, Weighting

SIZES = [(8, 8), (7, 7), (6, 9), (5, 4)]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
CASES = list(zip(SIZES, DTYPES, strict=True))
"""Every precision, and every size: what depends on both at once is the transform's, not the operator's."""


def random(shape, dtype=torch.complex128, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def half_mask(shape, seed=1):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[..., shape[-2] // 2, shape[-1] // 2] = True
    return mask


def unit_phase(size, seed=3):
    return torch.exp(1j * random(size, torch.float64, seed))


# ------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize(("size", "dtype"), CASES)
@pytest.mark.parametrize("kind", ["common mask", "mask per coil", "columns", "full", "phase"])
@pytest.mark.slow
def test_encoding_passes_the_check(size, dtype, kind):
    masks = {"mask per coil": half_mask((3, *size)), "columns": half_mask((1, size[1])), "full": None}
    phase = unit_phase(size) if kind == "phase" else None
    operator = SensitivityEncoding(random((3, *size)), masks.get(kind, half_mask(size)), dtype, phase=phase)
    report = check_operator(operator)
    assert report.ok, str(report)
    assert operator.in_shape == (1, *size)
    assert operator.out_shape == (3, *size)
    assert operator.transfer() is None
    x = random((2, 1, *size), dtype)
    torch.testing.assert_close(operator.gram(x), operator.adjoint(operator(x)))
    report = check_operator(operator.gram)
    assert report.ok, str(report)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("real", [False, True])
def test_encoding_is_the_explicit_sum_over_pixels(size, real):
    maps, mask, phase = random((2, *size)), half_mask(size), unit_phase(size)
    dtype = torch.float64 if real else torch.complex128
    operator = SensitivityEncoding(maps, mask, dtype, phase=phase)
    height, width = size
    ky, kx = (torch.arange(n, dtype=torch.float64) - n // 2 for n in size)
    fourier = torch.exp(
        -2j * torch.pi * (ky[:, None, None, None] * ky[:, None] / height + kx[None, :, None, None] * kx / width)
    ).reshape(height * width, -1) / np.sqrt(height * width)
    coils = [mask.flatten()[:, None] * fourier * (phase * m).flatten()[None, :] for m in maps]
    matrix = torch.cat(coils)
    torch.testing.assert_close(dense(operator, dtype), matrix)
    y = random((2, *size), seed=5)
    expected = (matrix.mH @ y.flatten()).reshape(1, *size)
    torch.testing.assert_close(operator.adjoint(y), expected.real if real else expected)


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_masked_transforms_of_what_each_coil_sees_are_the_encoding(size, dtype):
    maps, mask, phase = random((3, *size)), half_mask(size), unit_phase(size)
    whole = SensitivityEncoding(maps, mask, dtype, phase=phase)
    sees = Sensitivities(maps, dtype, phase=phase)
    assert check_operator(sees).ok
    x = random((2, 1, *size), dtype)
    kind = torch.complex128 if dtype in (torch.float64, torch.complex128) else torch.complex64
    pieces = KSpaceMask(mask, (3, *size), kind) @ sees
    assert pieces.in_dtype == whole.in_dtype
    torch.testing.assert_close(pieces(x), whole(x))
    torch.testing.assert_close(pieces.adjoint(whole(x)), whole.adjoint(whole(x)))


def test_where_no_coil_sees_anything_nothing_is_asked():
    maps = torch.zeros(2, 6, 9, dtype=torch.complex64)
    maps[:, 1:4, 2:7] = 1
    assert torch.equal(Sensitivities(maps).support(), maps[0] != 0)
    assert (KSpaceMask(torch.ones(6, 9), (2, 6, 9), torch.complex64) @ Sensitivities(maps)).support() is not None
    assert Sensitivities(torch.ones(2, 6, 9)).support() is None
    with pytest.raises(ValueError, match="zero everywhere"):
        Sensitivities(0 * maps)
    with pytest.raises(ValueError, match="magnitude 1"):
        Sensitivities(maps, torch.float32, phase=maps[0])


# lengths with small prime factors only and with a large one, of each a few lines and many
@pytest.mark.parametrize(
    ("length", "lines", "product"), [(36, 5, True), (36, 31, False), (94, 40, True), (94, 90, False)]
)
@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("whole", [True, False])
def test_the_gram_of_lines_is_both_applied(length, lines, product, axis, dtype, whole):
    """By a product with the Fourier matrix or by its fast algorithm, of maps that are 0 around an object.

    Of lines that are not ``whole``, some points are left out.
    """
    size = (length, 6) if axis == -2 else (6, length)
    sampled = torch.randperm(length, generator=torch.Generator().manual_seed(0))[:lines]
    mask = torch.zeros(length).index_fill(0, sampled, 1.0)
    mask = (mask[:, None] if axis == -2 else mask[None]).expand(size)
    mask = mask if whole else mask * half_mask(size)
    maps = torch.zeros(3, *size, dtype=torch.complex128)
    maps[:, 2:-1, 1:-2] = random((3, size[0] - 3, size[1] - 3))
    encoding = SensitivityEncoding(maps, mask, dtype)
    assert not whole or (encoding.gram.wave is not None) == product
    x = random((2, 1, *size), dtype)
    torch.testing.assert_close(encoding.gram(x), encoding.adjoint(encoding(x)))
    single = x.to(torch.complex64 if dtype.is_complex else torch.float32)
    assert encoding.gram(single).dtype == single.dtype
    assert relative(encoding.gram(single), encoding.gram(x)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_parts_of_larger_images_and_fewer_samples_keep_the_quick_gram(dtype):
    encoding = SensitivityEncoding(random((2, 8, 9)), half_mask((8, 9)), dtype)
    fewer = half_mask((8, 9), seed=5)
    sampling = SampleKSpace(fewer, encoding.out_shape, torch.complex128) @ encoding
    y = random(encoding.out_shape)
    torch.testing.assert_close(sampling.adjoint(y), encoding.adjoint(fewer * y))
    grown = sampling @ CircularShift((1, -2), (1, 8, 9), dtype) @ Crop((1, 12, 11), (8, 9), dtype)
    x = random((2, 1, 12, 11), dtype)
    torch.testing.assert_close(sampling(x[..., :8, :9]), fewer * encoding(x[..., :8, :9]))
    applied = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SensitivityEncoding, "forward", lambda *_: applied.append(1))
        quick = grown.gram(x)
    assert not applied
    torch.testing.assert_close(quick, grown.adjoint(grown(x)))
    nothing = SampleKSpace(1 - encoding.mask, encoding.out_shape, torch.complex128) @ encoding
    assert not nothing(x[..., :8, :9]).any()


def test_precision_follows_the_input():
    maps = random((3, 6, 5))
    single, double = SensitivityEncoding(maps.to(torch.complex64)), SensitivityEncoding(maps)
    for operator in (single, double):
        for dtype in (torch.complex64, torch.complex128):
            x = random((1, 6, 5), dtype)
            assert operator(x).dtype == dtype
            assert operator.adjoint(operator(x)).dtype == dtype
    x = random((4, 1, 6, 5))
    y = random((4, 3, 6, 5), seed=1)
    left, right = torch.vdot(y.flatten(), double(x).flatten()), torch.vdot(double.adjoint(y).flatten(), x.flatten())
    assert abs(left - right) < 1e-13 * abs(left) + 1e-12


def test_one_coil_of_sensitivity_one_is_a_masked_transform():
    mask = half_mask((6, 7))
    a, b = SensitivityEncoding(torch.ones(1, 6, 7), mask), KSpaceMask(mask, (1, 6, 7), torch.complex64)
    x = random((2, 1, 6, 7))
    torch.testing.assert_close(a(x), b(x))
    torch.testing.assert_close(a.adjoint(b(x)), b.adjoint(b(x)))


def test_a_phase_turns_a_complex_problem_into_a_real_one():
    maps, phase, x = random((3, 6, 7)), unit_phase((6, 7)), random((1, 6, 7), torch.float64)
    real, complex_ = SensitivityEncoding(maps, None, torch.float64, phase=phase), SensitivityEncoding(maps)
    torch.testing.assert_close(real(x), complex_(phase * x))


def test_arrays_of_any_kind_are_taken():
    maps = np.asfortranarray(random((2, 4, 6)).numpy().astype(">c16"))
    x = random((1, 4, 6))
    torch.testing.assert_close(
        SensitivityEncoding(maps, np.ones((4, 6), dtype=np.uint8))(x),
        centred_fft2(torch.from_numpy(maps.astype("c16")) * x),
    )
    assert SensitivityEncoding(np.ones((2, 4, 6)))(x).dtype == torch.complex128


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"maps": torch.ones(6, 7)}, r"\(coils, H, W\), got shape \(6, 7\)"),
        ({"maps": torch.full((2, 6, 7), torch.nan)}, "NaN"),
        ({"maps": torch.zeros(2, 6, 7)}, "zero everywhere"),
        ({"mask": torch.ones(6, 6)}, r"shape \(6, 6\).*\(6, 7\).*\(2, 6, 7\)"),
        ({"mask": torch.ones(3, 6, 7)}, r"shape \(3, 6, 7\).*\(2, 6, 7\)"),
        ({"mask": 2 * torch.ones(6, 7)}, "mask != 0"),
        ({"mask": torch.zeros(6, 7)}, "samples nothing"),
        ({"phase": torch.ones(7, 6, dtype=torch.complex64)}, r"shape \(7, 6\), expected \(6, 7\)"),
        ({"phase": torch.ones(6, 7)}, r"exp\(1j \* angle\)"),
        ({"phase": 2j * torch.ones(6, 7)}, "magnitude 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        SensitivityEncoding(**({"maps": torch.ones(2, 6, 7)} | changes))


def test_wrong_inputs_are_named():
    operator = SensitivityEncoding(torch.ones(2, 6, 7), None, torch.float32)
    with pytest.raises(ValueError, match=r"\(2, 6, 7\).*\(\.\.\., 1, 6, 7\)"):
        operator(torch.ones(2, 6, 7))
    with pytest.raises(ValueError, match=r"\(1, 6, 7\).*\(\.\.\., 2, 6, 7\)"):
        operator.adjoint(torch.ones(1, 6, 7))
    with pytest.raises(ValueError, match="complex"):
        operator(torch.ones(1, 6, 7, dtype=torch.complex64))


# ------------------------------------------------------------------------------------------- mixtures of coils


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_mixed_maps_are_a_mixture_of_coils(dtype):
    operator = SensitivityEncoding(random((3, 6, 7)), half_mask((6, 7)), dtype, phase=unit_phase((6, 7)))
    matrix = random((2, 3), seed=4)
    mixing = CoilMixing(matrix, operator.out_shape, torch.complex128)
    x = random((2, 1, 6, 7), dtype)
    torch.testing.assert_close(operator.mixed(matrix)(x), (mixing @ operator)(x))
    for mixed in (operator.mixed(matrix), mixing @ operator, mixing, CoilMixing(matrix, (3, 5, 4))):
        report = check_operator(mixed)
        assert report.ok, str(report)
    with pytest.raises(ValueError, match=r"\(2, 2\), expected \(new coils, 3\)"):
        operator.mixed(matrix[:, :2])
    apart = SensitivityEncoding(random((3, 6, 7)), half_mask((3, 6, 7)))
    assert operator.common_mask
    assert not apart.common_mask
    with pytest.raises(ValueError, match="different places"):
        apart.mixed(matrix)


@pytest.mark.parametrize(
    ("matrix", "shape", "dtype", "words"),
    [
        (torch.eye(3), (2, 4, 4), torch.complex64, r"\(3, 3\).*\(2, 4, 4\)"),
        (torch.ones(3), (3, 4, 4), torch.complex64, r"\(3,\)"),
        (torch.eye(3), (3, 4, 4), torch.float32, "float32"),
    ],
)
def test_impossible_mixtures_are_refused(matrix, shape, dtype, words):
    with pytest.raises(ValueError, match=words):
        CoilMixing(matrix, shape, dtype)


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_weighted_k_space_stays_diagonal(size, dtype):
    weights = 0.1 + torch.rand(size, generator=torch.Generator().manual_seed(0))
    mask = KSpaceMask(half_mask(size), (2, *size), dtype)
    weighting = Weighting(weights, mask.out_shape, mask.out_dtype, basis="kspace")
    both = weighting @ mask
    assert both.transfer() is not None
    for operator in (weighting, both):
        report = check_operator(operator)
        assert report.ok, str(report)
    x = random((2, *size), dtype)
    torch.testing.assert_close(both(x), weights * mask(x))
    pixels = Weighting(weights, (2, *size), dtype, basis="image")
    assert pixels.transfer() is None
    assert check_operator(pixels).ok


def test_impossible_weights_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(1, 4, 4\)"):
        Weighting(torch.ones(3), (1, 4, 4))
    for wrong in (torch.zeros(4), -torch.ones(4), torch.full((4,), torch.inf), torch.ones(4) * 1j):
        with pytest.raises(ValueError, match="positive and finite"):
            Weighting(wrong, (1, 4, 4))


# ------------------------------------------------------------------------------------------- simulated maps


@pytest.mark.parametrize("size", [(16, 16), (15, 15), (12, 21)])
@pytest.mark.parametrize("coils", [1, 4, 8])
def test_birdcage_maps(size, coils):
    maps = birdcage_maps(size, coils)
    assert maps.shape == (coils, *size)
    torch.testing.assert_close(root_sum_of_squares(maps), torch.ones(1, *size, dtype=torch.float64))
    height, width = size
    middle = maps[:, height // 2, width // 2]
    # from the centre, every coil is as strong as any other, and each is turned by its angle
    turned = middle * torch.exp(2j * torch.pi * torch.arange(coils, dtype=torch.float64) / coils)
    torch.testing.assert_close(turned, turned[0].expand(coils))
    if coils > 1:
        assert maps[0, height // 2].abs().argmax() == width - 1
        assert int(maps.abs().argmax(0)[height // 2, 0]) == coils // 2


def test_birdcage_maps_turn_with_the_coils():
    """The next of four coils sees what this one saw, a quarter turn on."""
    maps = birdcage_maps((17, 17), 4).abs()
    torch.testing.assert_close(maps.roll(-1, 0), maps.rot90(-1, (1, 2)))


def test_impossible_birdcages_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        birdcage_maps((8, 8), 0)
    with pytest.raises(ValueError, match=r"sqrt\(2\)"):
        birdcage_maps((8, 8), 4, radius=1.2)


def test_maps_know_where_there_is_something():
    maps = birdcage_maps((12, 10), 3)
    left, lower = torch.zeros(12, 10, dtype=torch.bool), torch.zeros(12, 10, dtype=torch.bool)
    left[:, :4] = lower[8:] = True
    full, a, b = (SensitivityEncoding(maps * s) for s in (torch.ones_like(left), left, lower))
    assert full.support() is None
    assert torch.equal(a.support(), left)
    # a coil may be blind where another one sees
    one_blind = maps.clone()
    one_blind[0] = 0
    assert SensitivityEncoding(one_blind).support() is None
    assert torch.equal(a.mixed(torch.eye(3, dtype=torch.complex64)[:2]).support(), left)
    for derived in (2 * a, CoilMixing(torch.eye(3, dtype=torch.complex64), a.out_shape) @ a):
        assert torch.equal(derived.support(), left)
    assert torch.equal((a + b).support(), left | lower)
    assert torch.equal(vstack(a, b).support(), left | lower)
    assert (a + full).support() is None
    assert vstack(a, full).support() is None
    assert a.H.support() is None


def test_root_sum_of_squares():
    x = random((5, 3, 4, 6))
    torch.testing.assert_close(root_sum_of_squares(x), x.abs().square().sum(1, keepdim=True).sqrt())


# ------------------------------------------------------------------------------------------- compression


def coil_data(coils=8, size=(24, 20)):
    image = random((2, 1, *size))
    mask = half_mask(size)
    return mask * centred_fft2(birdcage_maps(size, coils) * image), mask


def test_compression_keeps_the_energy_that_singular_values_promise():
    y, mask = coil_data()
    flat = y.movedim(-3, 0).flatten(1)
    singular = torch.linalg.svdvals(flat).square()
    for count in (1, 3, 8):
        out = compress_coils(y, count)
        assert out.kspace.shape == (2, count, 24, 20)
        assert out.energy == pytest.approx(float(singular[:count].sum() / singular.sum()))
        assert out.energy == pytest.approx(float(out.kspace.abs().square().sum() / y.abs().square().sum()))
        torch.testing.assert_close(out.matrix @ out.matrix.mH, torch.eye(count, dtype=y.dtype))
        assert (out.kspace[..., ~mask] == 0).all()
    assert out.energy == pytest.approx(1)
    energies = [compress_coils(y, n).energy for n in range(1, 9)]
    assert energies == sorted(energies)


def test_compression_of_dependent_coils_loses_nothing():
    """Five coils that are mixtures of two."""
    y, _ = coil_data(2)
    mixed = torch.einsum("dc,bchw->bdhw", random((5, 2), seed=2), y)
    out = compress_coils(mixed, 2)
    assert out.energy == pytest.approx(1, abs=1e-12)
    back = torch.einsum("cd,bdhw->bchw", out.matrix.mH, out.kspace)
    assert relative(back, mixed) < 1e-10


def test_compressed_noise_is_white_and_the_image_is_the_same():
    y, mask = coil_data()
    out = compress_coils(y, 4)
    noise = torch.einsum("dc,bchw->bdhw", out.matrix, random((50, 8, 24, 20), seed=9))
    covariance = noise.movedim(1, 0).flatten(1)
    covariance = covariance @ covariance.mH / covariance.shape[1]
    assert relative(covariance, torch.eye(4, dtype=covariance.dtype)) < 0.03
    operator = SensitivityEncoding(birdcage_maps((24, 20), 8), mask)
    x = random((1, 24, 20), seed=1)
    full = compress_coils(operator(x), 8)
    torch.testing.assert_close(operator.mixed(full.matrix)(x), full.kspace)
    # a unitary mixture changes nothing that a solver sees
    torch.testing.assert_close(operator.mixed(full.matrix).gram(x), operator.gram(x))


def test_compression_repeats_in_either_precision():
    y, _ = coil_data()
    a, b = compress_coils(y, 3), compress_coils(y.numpy().astype(np.complex64), 3)
    assert b.kspace.dtype == torch.complex64
    assert relative(b.kspace, a.kspace) < 1e-4


@pytest.mark.parametrize(
    ("y", "count", "words"),
    [
        (torch.ones(4, 4, dtype=torch.complex64), 1, r"\(4, 4\)"),
        (torch.ones(2, 4, 4), 1, "float32"),
        (torch.ones(2, 4, 4, dtype=torch.complex64), 3, "between 1 and 2.*got 3"),
        (torch.ones(2, 4, 4, dtype=torch.complex64), 0, "got 0"),
        (torch.zeros(2, 4, 4, dtype=torch.complex64), 1, "nothing to compress"),
    ],
)
def test_impossible_compressions_are_refused(y, count, words):
    with pytest.raises(ValueError, match=words):
        compress_coils(y, count)


def test_coil_images_come_back_from_full_sampling():
    """Unit root-sum-of-squares maps and full sampling make the adjoint the inverse."""
    operator = SensitivityEncoding(birdcage_maps((9, 12), 5))
    x = random((2, 1, 9, 12))
    torch.testing.assert_close(operator.adjoint(operator(x)), x)
    torch.testing.assert_close(root_sum_of_squares(centred_ifft2(operator(x))), x.abs())
