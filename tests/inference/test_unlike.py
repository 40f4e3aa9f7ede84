"""Measurements in which nothing but a constant can be seen."""

import warnings

import pytest
import torch
from tiny import tiny_prior

from iasolve import UnlikePriorWarning, solve
from iasolve.inference.unlike import structureless
from iasolve.operators import (
    CircularBlur,
    Convolution,
    GaussianNoise,
    Identity,
    KSpaceMask,
    PixelMask,
    gaussian_kernel,
    line_mask,
)
from iasolve.problem import Measurement
from iasolve.samples import load_samples

SHAPE = (1, 128, 128)
SIGMA = 0.1


def measured(operator, x, sigma=SIGMA):
    y = GaussianNoise(sigma).sample(operator(x.to(operator.in_dtype)), torch.Generator().manual_seed(1))
    if isinstance(operator, KSpaceMask | PixelMask):
        y = y * operator.mask
    return Measurement(y, torch.full((len(y),), sigma), operator)


OPERATORS = {
    "identity": Identity(SHAPE),
    "complex": Identity(SHAPE, torch.complex64),
    "blur": CircularBlur(gaussian_kernel(2.0), SHAPE),
    "window": Convolution(gaussian_kernel(2.0), SHAPE, boundary="valid"),
    "lines": KSpaceMask(line_mask((128, 128), 4, 0.08, seed=0), SHAPE),
    "pixels": PixelMask(torch.rand(128, 128, generator=torch.Generator().manual_seed(2)) < 0.3, SHAPE),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_a_constant_and_noise_is_told_from_a_head(operator):
    constant = measured(operator, torch.full((3, *SHAPE), 5.0))
    assert structureless(constant)
    heads = torch.from_numpy(load_samples().images[:2, None]).float()
    sigma = float(heads.std())
    assert not structureless(measured(operator, heads, sigma))
    # one of a batch suffices
    assert not structureless(measured(operator, torch.cat([heads[:1], torch.ones_like(heads[:1])]), sigma))


def test_each_channel_has_a_constant_of_its_own():
    colours = torch.tensor([1.0, -2.0, 30.0])[None, :, None, None].expand(1, 3, 64, 64)
    assert structureless(measured(Identity((3, 64, 64)), colours))
    grey = torch.full((1, 3, 64, 64), 2.0)
    grey[:, 1, :32] += SIGMA
    assert not structureless(measured(Identity((3, 64, 64)), grey))


def test_what_is_faint_is_seen_where_it_is_strong_at_one_place_or_wide():
    """Both add less to the residual's power than its spread over measurements."""
    point = torch.zeros(1, *SHAPE)
    point[..., 50, 70] = 8 * SIGMA
    assert not structureless(measured(Identity(SHAPE), point))
    slope = SIGMA * 0.25 * torch.cos(torch.linspace(0, 3.14, 128)).expand(1, *SHAPE)
    assert not structureless(measured(Identity(SHAPE), slope))


def test_without_a_noise_level_nothing_is_said():
    assert not structureless(Measurement(torch.zeros(1, *SHAPE), torch.zeros(1), Identity(SHAPE)))


@pytest.mark.parametrize(("height", "said"), [(0.0, True), (5.0, False)])
def test_the_solver_says_that_there_is_nothing(height, said):
    x = torch.full((2, 1, 32, 32), 4.0)
    x[..., 8:20, 8:20] += height
    y = GaussianNoise(0.5).sample(x, torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnlikePriorWarning)
        solve(y, Identity((1, 32, 32)), tiny_prior(), noise=GaussianNoise(0.5), recipe="fast")
    assert any("nothing but a constant" in str(one.message) for one in caught) == said
