"""The diagonal of ``A A^H``, and what an operator leaves of an image."""

import pytest
import torch
from tiny import dense

from iasolve.operators import (
    BlockAverage,
    CircularBlur,
    Convolution,
    Downsample,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    PixelMask,
    Radon,
    SensitivityEncoding,
    birdcage_maps,
    gaussian_kernel,
    line_mask,
    motion_kernel,
)
from iasolve.operators.kinds import kind_of
from iasolve.operators.shift import CircularShift
from iasolve.operators.whitening import Weighting

DOUBLE = torch.float64
SHAPE = (2, 6, 8)
MASK = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) < 0.4
SHIFT = CircularShift((2, -3), SHAPE, DOUBLE)
PIXELS = PixelMask(MASK, SHAPE, DOUBLE)
WEIGHTS = Weighting(0.5 + torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)), SHAPE, DOUBLE)
ORTHOGONAL = {
    "identity": Identity(SHAPE, DOUBLE),
    "pixels": PIXELS,
    "blocks": BlockAverage((2, 4), SHAPE, DOUBLE),
    "every second": Downsample(2, SHAPE, DOUBLE),
    "shift": SHIFT,
    "pixels, moved": PIXELS @ SHIFT,
    "blocks, moved": 3 * BlockAverage(2, SHAPE, DOUBLE) @ SHIFT,
    "weighted": WEIGHTS @ Identity(SHAPE, DOUBLE),
    "weighted pixels": WEIGHTS @ PIXELS @ SHIFT,
}


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_row_gains_are_the_diagonal_of_a_diagonal_matrix(name):
    operator = ORTHOGONAL[name]
    matrix = dense(operator)
    product = matrix @ matrix.T
    gains = operator.row_gains().to(DOUBLE).expand(operator.out_shape).flatten()
    torch.testing.assert_close(product, torch.diag(gains), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "operator",
    [
        CircularBlur(gaussian_kernel(0.5), SHAPE, DOUBLE),
        BlockAverage(2, SHAPE, DOUBLE) @ PIXELS,
        LinearOperator.from_functions(lambda x: 2 * x, in_shape=SHAPE, dtype=DOUBLE),
    ],
)
def test_other_operators_have_none(operator):
    assert operator.row_gains() is None


LARGE = (1, 64, 48)
KINDS = {
    "identity": (Identity(LARGE), "complete"),
    "scaled": (3 * Identity(LARGE), "complete"),
    "fully sampled": (KSpaceMask(torch.ones(64, 48), LARGE), "complete"),
    "lines": (KSpaceMask(line_mask((64, 48), 4, 0.08, seed=0), LARGE), "incomplete"),
    "lines 2x": (KSpaceMask(line_mask((64, 48), 2, 0.2, seed=0), LARGE, torch.complex64), "incomplete"),
    "blur": (CircularBlur(gaussian_kernel(2.0), LARGE), "blurred"),
    "strong blur": (CircularBlur(gaussian_kernel(5.0), LARGE), "blurred"),
    "motion": (CircularBlur(motion_kernel(9, 30.0), LARGE), "blurred"),
    "reflecting blur": (Convolution(gaussian_kernel(1.0), LARGE), "blurred"),
    "a camera's picture": (Convolution(motion_kernel(9, 30.0), LARGE, boundary="valid"), "blurred"),
    "low-pass": (LowPass(16, (1, 64, 64)), "incomplete"),
    "fine low-pass": (LowPass(62, (1, 64, 64)), "complete"),
    "one line lost": (KSpaceMask(torch.arange(48) != 24, LARGE), "complete"),
    "coarse low-pass": (LowPass(8, (1, 64, 64)), "complete"),
    "masked blur": (
        KSpaceMask(line_mask((64, 48), 4, 0.1), LARGE) @ CircularBlur(gaussian_kernel(1.0), LARGE),
        "incomplete",
    ),
    "pixels": (PixelMask(torch.arange(48) % 3 == 0, LARGE), "incomplete"),
    "all pixels": (PixelMask(torch.ones(48), LARGE), "complete"),
    "blocks": (BlockAverage(2, LARGE), "incomplete"),
    "own mask": (LinearOperator.from_functions(lambda x: x * (torch.arange(48) % 2), in_shape=LARGE), "incomplete"),
    "own blur": (LinearOperator.from_functions(lambda x: x + torch.roll(x, 1, -1), in_shape=LARGE), "blurred"),
    "weights": (Weighting(1 + torch.rand(LARGE), LARGE), "complete"),
    "coils": (SensitivityEncoding(birdcage_maps((64, 48), 4), line_mask((64, 48), 2, 0.2)), "incomplete"),
    "projections": (Radon(torch.linspace(0, 180, 9)[:-1], (1, 48, 48)), "incomplete"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_an_operator_leaves_of_an_image(name):
    operator, kind = KINDS[name]
    assert kind_of(operator) == kind
