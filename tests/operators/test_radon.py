"""Projections against scikit-image, closed forms, and their transpose."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from skimage.transform import radon
from tiny import dense, relative

from iasolve.operators import check_operator
from iasolve.operators.radon import Radon

SIZES = [(8, 8), (7, 7), (6, 9), (9, 6), (4, 7), (2, 5)]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
CASES = list(zip([*SIZES, (1, 1)], [*DTYPES, *DTYPES[1:]], strict=True))
"""Every precision, and every size: what depends on both at once is the transform's, not the operator's."""
ANGLES = np.array([0.0, 13.7, 45, 90, 135.2, 180, 270, -30, 359])


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def theirs(image, angles, circle):
    with warnings.catch_warnings():
        # it warns of values outside the circle, whose treatment is compared here as well
        warnings.simplefilter("ignore")
        return radon(image, angles, circle=circle)


@pytest.mark.parametrize("circle", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_projections_are_scikit_images(size, circle):
    x = random((2, *size))
    found = Radon(ANGLES, (2, *size), circle, torch.float64)(x)
    for channel, sinogram in zip(x, found, strict=True):
        expected = theirs(channel.numpy(), ANGLES, circle)
        assert sinogram.shape == expected.shape
        np.testing.assert_allclose(sinogram.numpy(), expected, rtol=0, atol=1e-12)


def test_single_precision_is_scikit_images_too():
    x = random((1, 64, 64), torch.float32)
    found = Radon(ANGLES, (1, 64, 64))(x)
    assert found.dtype == torch.float32
    # scikit-image rounds the rotation itself to single precision
    assert relative(found[0], torch.from_numpy(theirs(x[0].numpy(), ANGLES, True))) < 1e-5
    assert relative(found.double(), Radon(ANGLES, (1, 64, 64), dtype=torch.float64)(x.double())) < 5e-7


@pytest.mark.parametrize(("size", "dtype"), CASES)
@pytest.mark.parametrize("circle", [True, False])
def test_the_check_passes(size, circle, dtype):
    report = check_operator(Radon(ANGLES, (2, *size), circle, dtype))
    assert report.ok, str(report)


def test_the_adjoint_is_the_transpose():
    operator = Radon(ANGLES, (1, 6, 7), False, torch.float64)
    torch.testing.assert_close(dense(operator.H), dense(operator).T, rtol=0, atol=1e-15)


def test_a_disk_casts_its_chords():
    """A disk of radius ``R`` at distance ``a`` from the centre has chords ``2 sqrt(R^2 - (d - a cos)^2)``."""
    size, radius, row, column = 129, 30.0, 10.0, -14.0
    centre = size // 2
    # every pixel is the fraction of 8x8 points that lie inside
    fine = (torch.arange(8 * size, dtype=torch.float64) + 0.5) / 8 - 0.5 - centre
    inside = ((fine[:, None] - row) ** 2 + (fine[None, :] - column) ** 2 <= radius**2).double()
    disk = inside.reshape(size, 8, size, 8).mean((1, 3))
    found = Radon(ANGLES, (1, size, size), True, torch.float64)(disk[None])[0]
    t = torch.deg2rad(torch.from_numpy(ANGLES))
    offset = torch.arange(size)[:, None] - centre - (column * t.cos() - row * t.sin())
    expected = 2 * (radius**2 - offset**2).clamp_min(0).sqrt()
    assert relative(found, expected) < 0.02
    well_inside = offset.abs() < radius - 3
    assert float((found - expected)[well_inside].abs().max()) < 0.5  # pixels, of chords up to 60


def test_every_ray_of_the_padded_square_keeps_the_mass():
    x = random((1, 6, 9)).abs()
    sinogram = Radon([0.0, 90, 180], (1, 6, 9), False, torch.float64)(x)
    torch.testing.assert_close(sinogram.sum(-2), x.sum().expand(1, 3))


def test_a_batch_is_a_loop_and_complex_images_are_two_real_ones():
    operator = Radon(ANGLES, (3, 8, 7), dtype=torch.complex128)
    x = random((2, 4, 3, 8, 7), torch.complex128)
    y = operator(x)
    assert y.shape == (2, 4, 3, 7, len(ANGLES))
    torch.testing.assert_close(y[1, 2], operator(x[1, 2]))
    real = Radon(ANGLES, (3, 8, 7), dtype=torch.float64)
    torch.testing.assert_close(y.imag, real(x.imag))
    torch.testing.assert_close(operator.adjoint(y.conj()), operator.adjoint(y).conj())
    assert operator(x[:0]).shape == (0, 4, 3, 7, len(ANGLES))
    assert operator.adjoint(y[:, :0]).shape == (2, 0, 3, 8, 7)


def test_precision_follows_the_input():
    x = random((1, 8, 8))
    single, double = Radon(ANGLES, (1, 8, 8)), Radon(ANGLES, (1, 8, 8), dtype=torch.float64)
    assert single(x).dtype == torch.float64
    assert relative(single(x), double(x)) < 1e-6
    assert double(x.float()).dtype == torch.float32


def test_gradients_are_the_adjoint_twice_over():
    operator = Radon(ANGLES, (1, 4, 5), dtype=torch.float64)
    x = random((2, 1, 4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).square(), x)
    assert torch.autograd.gradcheck(operator.adjoint, operator(x).detach().requires_grad_())


def test_it_copies_pickles_and_needs_four_bytes_an_index():
    operator = Radon(np.arange(0, 180, 10), (1, 32, 32))
    x = random((1, 32, 32), torch.float32)
    for twin in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert torch.equal(twin(x), operator(x))
    assert sum(b.nbytes for b in operator.buffers()) < 18 * 32 * 32 * 2 * 2 * 8 * 1.1
    assert list(operator.state_dict()) == ["angles"]


@pytest.mark.parametrize(
    ("angles", "shape", "word"),
    [
        ([], (1, 4, 4), "non-empty"),
        ([[0.0]], (1, 4, 4), r"\(1, 1\)"),
        ([np.nan], (1, 4, 4), "finite"),
        ([1j], (1, 4, 4), "complex"),
        ([0.0], (4, 4), r"\(C, H, W\).*\(4, 4\)"),
        ([0.0], (1, 0, 4), r"\(1, 0, 4\)"),
    ],
)
def test_impossible_geometries_are_refused(angles, shape, word):
    with pytest.raises(ValueError, match=word):
        Radon(angles, shape)


def test_wrong_inputs_are_named():
    operator = Radon(torch.tensor([0, 90]), (1, 4, 6))
    with pytest.raises(ValueError, match=r"\(1, 6, 4\).*1, 4, 6"):
        operator(torch.ones(1, 6, 4))
    with pytest.raises(ValueError, match=r"\(1, 4, 3\).*1, 4, 2"):
        operator.adjoint(torch.ones(1, 4, 3))
    with pytest.raises(ValueError, match=r"complex64.*float32"):
        operator(torch.ones(1, 4, 6) + 0j)
