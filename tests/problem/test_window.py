"""Convolutions seen through a window: the posterior mean against dense linear algebra, and what it costs."""

import pytest
import torch
from tiny import bundled

from iasolve.operators import CircularBlur, Convolution, KSpaceMask, gaussian_kernel
from iasolve.operators.crop import Crop
from iasolve.problem import OperatorLikelihood
from iasolve.spectrum import fft2, ifft2, radius

DOUBLE = torch.float64
SHAPE = (1, 14, 17)


def kernel(height=3, width=5):
    values = torch.rand(height, width, generator=torch.Generator().manual_seed(height), dtype=DOUBLE)
    return values / values.sum()


def camera(shape=SHAPE, dtype=DOUBLE):
    return Convolution(kernel().to(dtype), shape, dtype, boundary="valid")


def crop_of_blur():
    return Crop(SHAPE, (9, 11), DOUBLE) @ CircularBlur(kernel(), SHAPE, DOUBLE)


def dense(operator):
    count = operator.in_shape[0] * operator.in_shape[1] * operator.in_shape[2]
    units = torch.eye(count, dtype=DOUBLE).reshape(count, *operator.in_shape)
    return operator(units).flatten(1).T


def covariance(power):
    """Of images whose frequencies are independent."""
    count = power.numel()
    units = torch.eye(count, dtype=DOUBLE).reshape(count, 1, *power.shape)
    return ifft2(power * fft2(units)).real.flatten(1)


@pytest.mark.parametrize("make", [camera, crop_of_blur])
@pytest.mark.parametrize("start", [False, True])
def test_the_posterior_mean_is_that_of_dense_linear_algebra(make, start):
    operator = make()
    assert operator.window() is not None
    generator = torch.Generator().manual_seed(0)
    power = (1.0 + radius(*SHAPE[1:])) ** -3.0
    x0 = torch.randn(2, *SHAPE, generator=generator, dtype=DOUBLE)
    y = torch.randn(2, *operator.out_shape, generator=generator, dtype=DOUBLE)
    sigma = torch.tensor([0.1, 0.02], dtype=DOUBLE)
    likelihood = OperatorLikelihood(operator, y, sigma, tolerance=0.0)
    begin = torch.randn(2, *SHAPE, generator=generator, dtype=DOUBLE) if start else x0
    found = likelihood._through_window(operator.window(), x0, power[None, None], begin, 400, 0.0, None).image
    a, v = dense(operator), covariance(power)
    for one, values, level, mean in zip(x0, y, sigma, found, strict=True):
        gain = v @ a.T @ torch.linalg.inv(a @ v @ a.T + level**2 * torch.eye(len(a), dtype=DOUBLE))
        expected = one.flatten() + gain @ (values.flatten() - a @ one.flatten())
        torch.testing.assert_close(mean.flatten(), expected, rtol=1e-6, atol=1e-7)


def test_it_takes_a_tenth_of_the_iterations_on_images():
    shape = (1, 64, 80)
    shaken = torch.zeros(15, 15)
    shaken[torch.arange(15), torch.arange(15)] = 1 / 15
    operator = Convolution(shaken, shape, boundary="valid")
    power = 4000 * (1.0 + radius(*shape[1:])) ** -2.5
    x = ifft2(power.sqrt() * fft2(torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)))).real
    y = operator(x) + 0.01 * torch.randn(1, *operator.out_shape, generator=torch.Generator().manual_seed(1))
    likelihood = OperatorLikelihood(operator, y, torch.tensor([0.01]))
    seen = likelihood.mean(torch.zeros_like(x), power[None, None])
    used = likelihood.solves.applications
    plain = OperatorLikelihood(operator, y, torch.tensor([0.01]), tolerance=1e-6)
    plain._window = None
    exact = plain.solve(torch.zeros_like(x), power[None, None], 2000).image
    assert used < 0.2 * plain.solves.applications
    error = lambda image: float((image - x)[..., 7:-7, 7:-7].square().mean())  # noqa: E731
    assert error(seen) < 1.02 * error(exact)


def test_what_is_no_convolution_seen_through_a_window_says_so():
    mask = torch.ones(14, 17)
    assert KSpaceMask(mask, SHAPE).window() is None
    assert Convolution(kernel(), SHAPE, DOUBLE, boundary="reflect").window() is None
    assert (camera((1, 9, 11)) @ Crop(SHAPE, (9, 11), DOUBLE)).window() is None


@pytest.mark.parametrize("boundary", ["valid", "reflect"])
def test_far_from_edges_a_convolution_is_its_interior_transfer(boundary):
    shape = (1, 40, 50)
    operator = Convolution(kernel(), shape, DOUBLE, boundary=boundary)
    spot = torch.zeros(shape, dtype=DOUBLE)
    spot[0, 20, 25] = 1
    seen = torch.zeros(40, 50, dtype=DOUBLE)
    rows, columns = operator.out_shape[1:]
    top, left = (40 - rows) // 2, (50 - columns) // 2
    seen[top : top + rows, left : left + columns] = operator(spot)[0]
    found = operator.interior_transfer((40, 50))[0]
    torch.testing.assert_close(found, torch.fft.fft2(seen).abs(), rtol=1e-6, atol=1e-9)
    assert operator.interior_transfer((2, 50)) is None


def test_the_reader_is_told_of_a_blur_what_it_is_told_of_a_circular_one():
    """Evidence of a picture of a larger scene, frequency by frequency."""
    from iasolve.problem.options import Options
    from iasolve.problem.pose import pose

    prior, shape = bundled("mri-t1-128"), (1, 128, 128)
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    blur = gaussian_kernel(1.5)
    sigma = torch.tensor([0.01])
    known = [
        pose(operator(x), operator, prior, sigma, Options(), whole=True).weights
        for operator in (CircularBlur(blur, shape), Convolution(blur, shape, boundary="valid"))
    ]
    assert float((known[0] - known[1]).abs().max()) < 0.05
