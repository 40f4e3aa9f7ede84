"""The non-uniform Fourier transform against explicit sums and the fast Fourier transform."""

import math
import sys

import numpy as np
import pytest
import torch
from tiny import dense, relative

from iasolve.operators import PixelMask, centred_fft2, check_operator
from iasolve.operators.coils import Sensitivities
from iasolve.operators.nonuniform import NonUniformFourier

SIZES = [(8, 8), (7, 7), (6, 9), (5, 4)]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
CASES = list(zip(SIZES, DTYPES, strict=True))
"""Every precision, and every size: what depends on both at once is the transform's, not the operator's."""


def random(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def trajectory(size, shape=(4, 9)):
    uniform = torch.rand((*shape, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (uniform - 0.5) * torch.tensor(size)


def cartesian(size):
    axes = [torch.arange(n) - n // 2 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def test_without_the_library_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "finufft", None)
    with pytest.raises(ImportError, match=r"pip install 'iasolve\[nufft\]'"):
        NonUniformFourier(torch.zeros(3, 2), (1, 4, 4))


@pytest.mark.parametrize(
    ("coordinates", "shape", "word"),
    [
        (torch.zeros(3, 3), (1, 4, 4), r"\(3, 3\)"),
        (torch.zeros(2), (1, 4, 4), r"\(2,\)"),
        (torch.zeros(0, 2), (1, 4, 4), r"\(0, 2\)"),
        (torch.zeros(3, 2) + 0j, (1, 4, 4), "complex64"),
        (torch.full((3, 2), torch.nan), (1, 4, 4), "NaN"),
        (torch.tensor([[2.0, 3.1]]), (1, 4, 6), r"\|kx\| = 3.1 .*4x6.* 2 and 3"),
        (torch.zeros(3, 2), (4, 4), r"\(4, 4\)"),
    ],
)
def test_impossible_coordinates_are_refused(coordinates, shape, word):
    with pytest.raises(ValueError, match=word):
        NonUniformFourier(coordinates, shape)


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, 1.0, math.nan])
def test_impossible_tolerances_are_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        NonUniformFourier(torch.zeros(3, 2), (1, 4, 4), tolerance=tolerance)


class TestWithTheLibrary:
    @pytest.fixture(autouse=True)
    def _library(self):
        pytest.importorskip("finufft", reason="needs finufft: pip install 'iasolve[nufft]'")

    @pytest.mark.parametrize(("size", "dtype"), CASES)
    def test_the_check_passes(self, size, dtype):
        report = check_operator(NonUniformFourier(trajectory(size), (2, *size), dtype))
        assert report.ok, str(report)
        assert max(error for name, error in report.errors.items() if "adjoint" in name) < 1e-6

    @pytest.mark.parametrize("size", SIZES)
    def test_it_is_the_explicit_sum(self, size):
        k = trajectory(size)
        operator = NonUniformFourier(k, (1, *size), torch.complex128)
        assert operator.out_shape == (1, 4, 9)
        height, width = size
        rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
        phase = k[..., :1, None] * rows[:, None] / height + k[..., 1:, None] * columns / width
        expected = torch.exp(-2j * math.pi * phase).reshape(36, -1) / math.sqrt(height * width)
        assert relative(dense(operator, torch.complex128), expected) < 1e-11
        assert relative(dense(operator.H, torch.complex128), expected.mH) < 1e-11

    @pytest.mark.parametrize(("size", "dtype"), [*CASES, ((128, 128), torch.complex64)])
    def test_on_cartesian_positions_it_is_the_centred_fourier_transform(self, size, dtype):
        operator = NonUniformFourier(cartesian(size), (2, *size), dtype)
        x = random((3, 2, *size), dtype)
        y = operator(x)
        double = dtype in (torch.float64, torch.complex128)
        assert y.dtype == operator.out_dtype == (torch.complex128 if double else torch.complex64)
        assert relative(y, centred_fft2(x)) < (1e-11 if double else 1e-5)
        # orthonormal: the adjoint is the inverse
        assert relative(operator.adjoint(y), x) < (1e-11 if double else 2e-5)

    def test_the_adjoint_is_exact_at_any_tolerance(self):
        fine = NonUniformFourier(trajectory((16, 12)), (1, 16, 12), torch.complex128)
        rough = NonUniformFourier(trajectory((16, 12)), (1, 16, 12), torch.complex128, tolerance=1e-3)
        x = random((1, 16, 12), torch.complex128)
        assert 1e-6 < relative(rough(x), fine(x)) < 5e-3
        assert check_operator(rough).ok

    @pytest.mark.parametrize("size", [*SIZES, (1, 6), (13, 22)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    def test_the_gram_is_the_adjoint_of_the_transform(self, size, dtype):
        """By a convolution on twice the grid, at any size, also of a rough transform."""
        k = trajectory(size, (2, size[0] * size[1]))
        for tolerance in (None, 1e-2):
            operator = NonUniformFourier(k, (1, *size), dtype, tolerance=tolerance)
            matrix = dense(NonUniformFourier(k, (1, *size), dtype), dtype)
            expected = matrix.mH @ matrix
            assert relative(dense(operator.gram, dtype), expected if dtype.is_complex else expected.real) < 1e-11
            assert check_operator(operator.gram).ok
        assert all(n >= 2 * length - 1 for n, length in zip(operator.convolution.shape, size, strict=True))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
    def test_the_gram_takes_any_batch_and_keeps_precision(self, dtype):
        operator = NonUniformFourier(trajectory((6, 9)), (2, 6, 9), dtype)
        x = random((2, 3, 2, 6, 9), dtype)
        moved = operator.gram(x)
        assert moved.dtype == dtype
        assert relative(moved, operator.adjoint(operator(x))) < 1e-5
        torch.testing.assert_close(moved[1, 2], operator.gram(x[1, 2]))
        double = operator.gram(x.to(torch.promote_types(dtype, torch.float64)))
        assert relative(moved, double) < 1e-6

    def test_a_composition_takes_the_short_way(self):
        inner = PixelMask(random((6, 9)) < 0.5, (2, 6, 9), torch.complex128)
        outer = NonUniformFourier(trajectory((6, 9)), (2, 6, 9), torch.complex128)
        sees = Sensitivities(random((2, 6, 9), torch.complex128), torch.float64)
        for operator in (outer @ inner, outer @ sees):
            matrix = dense(operator, operator.in_dtype)
            expected = matrix.mH @ matrix
            expected = expected if operator.is_complex else expected.real
            assert relative(dense(operator.gram, operator.in_dtype), expected) < 1e-11
            assert type(operator.gram.middle) is type(outer.gram)

    def test_a_batch_is_a_loop(self):
        operator = NonUniformFourier(trajectory((6, 9)).numpy()[:, ::-1], (2, 6, 9), torch.float64)
        x = random((2, 3, 2, 6, 9))
        y = operator(x)
        assert y.shape == (2, 3, 2, 4, 9)
        torch.testing.assert_close(y[1, 2], operator(x[1, 2]))
        torch.testing.assert_close(operator.adjoint(y)[1, 2], operator.adjoint(y[1, 2]))
        assert operator(x[:0]).shape == (0, 3, 2, 4, 9)
        assert operator.adjoint(y[:, :0]).shape == (2, 0, 2, 6, 9)

    def test_precision_follows_the_input(self):
        operator = NonUniformFourier(trajectory((6, 9)), (1, 6, 9))
        x = random((1, 6, 9))
        assert operator(x).dtype == torch.complex128
        assert operator(x.float()).dtype == torch.complex64
        assert operator.adjoint(operator(x)).dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    @pytest.mark.slow
    def test_gradients_are_the_adjoint_twice_over(self, dtype):
        operator = NonUniformFourier(trajectory((4, 3), (5,)), (1, 4, 3), dtype)
        x = random((2, 1, 4, 3), dtype).requires_grad_()
        assert torch.autograd.gradcheck(operator, x)
        assert torch.autograd.gradgradcheck(lambda x: operator(x).abs().square(), x)
        y = random((2, 1, 5), torch.complex128, seed=1)
        misfit = (operator(x) - y).abs().square().sum() / 2
        (gradient,) = torch.autograd.grad(misfit, x)
        torch.testing.assert_close(gradient, operator.adjoint(operator(x) - y).detach())

    def test_inputs_are_left_alone_and_outputs_are_new(self):
        operator = NonUniformFourier(trajectory((6, 9)), (1, 6, 9), torch.complex128)
        x = random((1, 6, 9), torch.complex128)
        kept = x.clone()
        operator(x).zero_()
        assert torch.equal(x, kept)
        torch.testing.assert_close(operator(x.conj()), operator(x.conj().resolve_conj()))

    @pytest.mark.slow
    def test_it_is_sigpys_up_to_sigpys_accuracy(self):
        linop = pytest.importorskip("sigpy.linop", reason="needs sigpy")
        k = trajectory((32, 24), (50,))
        x = random((32, 24), torch.complex128)
        expected = linop.NUFFT((32, 24), k.numpy(), oversamp=2, width=6)(x.numpy())
        found = NonUniformFourier(k, (1, 32, 24), torch.complex128)(x[None])[0]
        assert relative(found, torch.from_numpy(np.asarray(expected))) < 1e-3
