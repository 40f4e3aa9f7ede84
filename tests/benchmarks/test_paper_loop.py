"""The paper's loop, kept beside the figures that compare with it."""

import pytest
import torch
from paper_loop import RingLoss, paper_loop
from tiny import images, tiny_prior

from iasolve.evidence import evidence, fold
from iasolve.operators import GaussianNoise, KSpaceMask, line_mask
from iasolve.priors.hierarchy import Hierarchy, posterior_mean, values

pytestmark = pytest.mark.benchmark
DOUBLE = torch.float64


def problem():
    prior = tiny_prior(DOUBLE)
    operator = KSpaceMask(line_mask((32, 32), 3, 0.15, seed=1), (1, 32, 32), DOUBLE)
    y = GaussianNoise(0.1).sample(operator(images(2, 0, dtype=DOUBLE)), torch.Generator().manual_seed(0))
    folded = fold(operator.to_grid(y), operator.transfer(), 0.1, real_image=True, complex_noise=True)
    seen = evidence(folded, prior.power, prior.spectrum)
    return prior, folded, prior.encode(seen.image, seen.profile)


def contributions_of(prior, way):
    return prior.contributions(list(way.done.contexts))


def test_the_loss_is_the_sum_over_the_measured_bins_of_the_full_grid():
    prior, folded, features = problem()
    with torch.no_grad():
        found = contributions_of(prior, Hierarchy(prior, 2, features).descend(posterior_mean))
    h = torch.fft.fft2(prior.spectrum.inverse(prior.assemble(found)), norm="ortho")
    off = (h - folded.value) * torch.isfinite(folded.variance)
    loss = RingLoss(prior, folded)
    total = sum(loss(scale, contribution) for scale, contribution in enumerate(found))
    torch.testing.assert_close(total, (off.real.abs() + off.imag.abs()).flatten(1).sum(1))


def test_the_loop_lowers_the_loss_and_no_step_is_the_guess():
    prior, folded, features = problem()
    hierarchy, loss = Hierarchy(prior, 2, features), RingLoss(prior, folded)
    losses = []
    with torch.no_grad():
        guess = hierarchy.descend(posterior_mean)
    for steps in (0, 5):
        latents = paper_loop(prior, features, folded, steps)
        with torch.no_grad():
            found = contributions_of(prior, hierarchy.descend(values(latents)))
        losses.append(sum(loss(scale, h) for scale, h in enumerate(found)))
        if steps == 0:
            assert all(torch.equal(a, b) for a, b in zip(latents, guess.latents, strict=True))
    assert (losses[1] < losses[0]).all()
