"""How like its training data a prior finds an image."""

import numpy as np
import pytest
import torch
from tiny import images, tiny_prior

import iasolve
from iasolve.operators import GaussianNoise, Identity
from iasolve.priors import HVAEPrior
from iasolve.priors.likeness import edge_share, image_elbo, level_share, ring_distance, ring_statistics
from iasolve.training import normalise


def prior_with_statistics():
    plain = tiny_prior(torch.float64)  # shared among tests: leave it as it is
    usual = normalise(images(40, 0, dtype=torch.float64))
    card = {"validation": {"coarse_rings": ring_statistics(plain.spectrum, usual)}}
    return HVAEPrior(plain.network, plain.name, card), usual


def test_distance_is_in_standard_deviations_of_the_validation_images():
    prior, usual = prior_with_statistics()
    distance = ring_distance(prior, usual)
    known = prior.card["validation"]["coarse_rings"]
    assert float(distance.max()) == pytest.approx(known["largest_distance"], rel=1e-2)
    assert float(distance.median()) < 3


def test_a_frame_filling_image_is_warned_about_with_the_number():
    prior, usual = prior_with_statistics()
    flat = torch.ones(1, 1, 32, 32, dtype=torch.float64) + 0.01 * usual[:1]
    solve = {"noise": GaussianNoise(0.01), "recipe": "fast"}
    with pytest.warns(iasolve.UnlikePriorWarning, match="coarse scales lies .* standard deviations off"):
        iasolve.solve(flat, Identity((1, 32, 32), torch.float64), prior, **solve)


@pytest.mark.parametrize("steps", [0, 1])
def test_the_warning_advises_steps_where_there_are_none(steps):
    prior, usual = prior_with_statistics()
    flat = torch.ones(1, 1, 32, 32, dtype=torch.float64) + 0.01 * usual[:1]
    recipe = iasolve.load_recipe("denoise").changed(steps={"count": steps})
    with pytest.warns(iasolve.UnlikePriorWarning) as caught:
        iasolve.solve(
            flat, Identity((1, 32, 32), torch.float64), prior, noise=GaussianNoise(0.01), recipe=recipe, fallback=False
        )
    assert ("steps adapt a guess" in str(caught[0].message)) == (steps == 0)


def test_a_card_without_statistics_says_nothing():
    prior = tiny_prior(torch.float64)
    assert torch.isnan(ring_distance(prior, normalise(images(2, 0, dtype=torch.float64)))).all()


def test_the_bound_of_an_image_does_not_depend_on_its_neighbours():
    prior, usual = prior_with_statistics()
    torch.testing.assert_close(image_elbo(prior, usual[:3])[1:2], image_elbo(prior, usual[1:2]))


def test_too_few_images_give_no_statistics():
    assert ring_statistics(tiny_prior().spectrum, images(9)) is None


def disc(size=128, radius=50):
    rows, columns = np.mgrid[:size, :size] - size / 2
    return torch.from_numpy((rows**2 + columns**2 < radius**2).astype(np.float64))[None, None]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 40 * x - 7,
        lambda x: 1 - x,
        lambda x: torch.nn.functional.pad(x, (60, 60, 60, 60)),
        lambda x: x * torch.exp(torch.tensor(0.7j)),
        lambda x: x.repeat(1, 3, 1, 1),
    ],
)
def test_the_share_of_edges_knows_neither_unit_nor_sign_nor_air(change):
    ramp = torch.linspace(0, 1, 128, dtype=torch.float64).expand(1, 1, 128, 128)
    flat, sloping = disc(), (0.5 + ramp) * disc()
    for image in (flat, sloping):
        torch.testing.assert_close(edge_share(change(image)), edge_share(image), atol=0.02, rtol=0)
    assert float(edge_share(flat)) > 0.99
    assert float(edge_share(sloping)) < 0.95


def test_the_share_of_edges_counts_the_steepest_tenth_of_the_object():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 40, 40, generator=generator, dtype=torch.float64) + 1
    x[..., :3, :] = x[..., -3:, :] = x[..., :3] = x[..., -3:] = 0
    for found, image in zip(edge_share(x), x[:, 0].numpy(), strict=True):
        gradient = np.hypot(np.diff(image, axis=0)[:, :-1], np.diff(image, axis=1)[:-1])
        inside = image > 0
        near = inside[:-1, :-1] | inside[1:, :-1] | inside[:-1, 1:]
        steep = np.sort(gradient[near])[::-1]
        assert float(found) == pytest.approx(steep[: len(steep) // 10].sum() / steep.sum(), abs=1e-9)


@pytest.mark.parametrize("shape", [(2, 1, 1, 9), (2, 1, 9, 1), (2, 1, 8, 8)])
def test_there_are_no_edges_where_there_is_no_object(shape):
    assert edge_share(torch.full(shape, 3.0)).tolist() == [0, 0]


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 40 * x - 7, lambda x: -x, lambda x: x * (1 + 0j)])
def test_the_commonest_greys_of_an_object_are_counted(change):
    """Half of the object is one grey, a fifth another, the rest a ramp over what is between; there is air around it."""
    x = torch.zeros(1, 1, 100, 100, dtype=torch.float64)
    x[..., 10:50, 10:90] = 1.0
    x[..., 50:66, 10:90] = 0.5
    x[..., 66:90, 10:90] = torch.linspace(0.6, 0.9, 24, dtype=torch.float64)[:, None]
    # of 80 rows, 40 are of one grey and 16 of the other; of the ramp, what comes within a bin of them
    (found,) = level_share(change(x))
    assert 56 / 80 <= float(found) <= 57 / 80


@pytest.mark.parametrize("shape", [(2, 1, 1, 9), (2, 1, 8, 8)])
def test_a_constant_image_has_no_object_whose_greys_could_be_counted(shape):
    assert level_share(torch.full(shape, 3.0)).tolist() == [0, 0]
