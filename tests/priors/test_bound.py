"""The evidence lower bound of a posterior that refinement has moved."""

import math

import pytest
import torch
from flat_recipes import recipe_of
from tiny import images, mute_prior, tiny_network, tiny_prior

from iasolve import HVAEPrior, solve
from iasolve.operators import GaussianNoise, Identity
from iasolve.priors import distortion, follow
from iasolve.priors.bound import bound
from iasolve.priors.likeness import image_elbo
from iasolve.training import normalise

DOUBLE = torch.float64


def clean(count=3, dtype=DOUBLE):
    return normalise(images(count, 5, dtype=dtype))


def refine(prior, x, **changes):
    recipe = recipe_of(error="none", **changes)
    operator = Identity(tuple(x.shape[1:]), x.dtype)
    return solve(x, operator, prior, noise=GaussianNoise(0.0), recipe=recipe, warn=False)


def test_latents_that_say_nothing_leave_the_exact_likelihood():
    """With a decoder that ignores its latents the bound is the Gaussian log density less the divergence."""
    prior, x = mute_prior(DOUBLE), clean()
    spectrum = prior.spectrum
    found = follow(prior, prior.encode(x, x.new_ones(3, 2, 6)), 3)
    density = torch.distributions.Normal(spectrum.inverse(prior.assemble(found.contributions)), 1.0)
    prior.network.sigma_x.fill_(1.0)
    expected = -density.log_prob(x).flatten(1).sum(1) - x[0].numel() * math.log(2 * math.pi) / 2
    torch.testing.assert_close(distortion(prior, x, found.contributions), expected)
    torch.testing.assert_close(bound(prior, x).elbo, -(expected + found.kl) / x[0].numel())


@pytest.mark.slow
def test_the_bound_without_offsets_is_the_training_objectives():
    from iasolve.training import Objective

    network = tiny_network()
    x = clean(2, torch.float32)
    ours = bound(HVAEPrior(network, "", {}), x, draws=60).elbo.mean()
    torch.manual_seed(0)
    with torch.no_grad():
        theirs = torch.stack([Objective(network).eval()(x, None).elbo for _ in range(60)])
    assert float(ours) == pytest.approx(float(theirs.mean()), abs=4 * float(theirs.std()) / math.sqrt(60))


@pytest.mark.parametrize("decoder", ["separable", "vanilla"])
@pytest.mark.parametrize("blocks", ["scale", "latent", "whole"])
@pytest.mark.slow
def test_offsets_decode_to_the_image_that_solve_returns(decoder, blocks):
    prior = HVAEPrior(tiny_network(decoder=decoder), decoder, {}).to(dtype=DOUBLE)
    x = clean()
    result = refine(prior, x, steps=4, blocks=blocks)
    assert max(float(o.abs().max()) for scale in result.offsets for o in scale) > 1e-3
    gain = result.gain.reshape(-1, 1, 1, 1)
    found = follow(prior, prior.encode(x / gain, x.new_ones(3, 2, 6)), 3, result.offsets)
    image = gain * prior.spectrum.inverse(prior.assemble(found.contributions))
    torch.testing.assert_close(image, result.image, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_refinement_raises_the_bound_and_moves_latents_of_iterative_inference():
    prior, x = tiny_prior(DOUBLE), clean()
    result = refine(prior, x, steps=10)
    gain = result.gain.reshape(-1, 1, 1, 1)
    before, after = bound(prior, x / gain), bound(prior, x / gain, result.offsets)
    assert (after.elbo > before.elbo).all()
    iterative = refine(prior, x, stop="none", objective="map", steps=10, size=0.1)
    start = bound(prior, x, encoder=False)
    moved = bound(prior, x, iterative.offsets, encoder=False)
    assert float((moved.nll - start.nll).abs().min()) > 1e-3


def test_the_density_of_latents_at_their_prior_means():
    prior, x = tiny_prior(DOUBLE), clean()
    found = bound(prior, x, encoder=False)
    context, total, count = None, torch.zeros(3, dtype=DOUBLE), 0
    for index in range(6):
        context = prior.enter(index, context, 3)
        for layer in prior.layers(index):
            p, feature = layer.prior(context)
            density = torch.distributions.Normal(p.mean, p.std).log_prob(p.mean)
            total = total - (density + math.log(2 * math.pi) / 2).flatten(1).sum(1)
            count += p.mean[0].numel()
            context = layer.update(context, p.mean, feature)
    torch.testing.assert_close(found.nll, total / count)


def test_draws_come_in_pairs_and_by_seed():
    prior, x = tiny_prior(DOUBLE), clean(2)
    assert torch.equal(bound(prior, x, seed=3).elbo, bound(prior, x, seed=3).elbo)
    assert not torch.equal(bound(prior, x, seed=3).elbo, bound(prior, x, seed=4).elbo)
    # the draw-free value is not the average over draws
    assert not torch.allclose(bound(prior, x).elbo, image_elbo(prior, x), rtol=1e-4)
    with pytest.raises(ValueError, match="even"):
        bound(prior, x, draws=3)
