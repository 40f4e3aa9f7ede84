"""The vanilla HVAE: one non-linear decoder of all latents, refined through all later layers."""

import pytest
import torch
from cli_fixtures import cli
from counting import CountedPrior
from flat_recipes import recipe_of
from refining import Setting as Posed
from tiny import images, tiny_network, tiny_prior

from iasolve import HVAEPrior, Prior, load_prior, solve
from iasolve.inference import OBJECTIVES
from iasolve.inference.passes import descend
from iasolve.inference.refine import Part
from iasolve.networks import Gaussian, NetworkConfig, kl_divergence
from iasolve.operators import CircularBlur, GaussianNoise, KSpaceMask, gaussian_kernel, line_mask
from iasolve.priors import save_checkpoint
from iasolve.priors.activity import latent_activity
from iasolve.priors.hierarchy import START, Hierarchy, values
from iasolve.priors.likeness import image_elbo
from iasolve.training import Objective

DOUBLE = torch.float64
SHAPE = (1, 32, 32)
LAYERS = 9
SIGMA = 0.1
FIXED = GaussianNoise(SIGMA)


def vanilla_prior(dtype=torch.float32, **changes):
    return HVAEPrior(tiny_network(decoder="vanilla", **changes), "vanilla", {}).to(dtype=dtype)


def operator(name="mask", dtype=torch.float32):
    if name == "blur":
        return CircularBlur(gaussian_kernel(1.0), SHAPE, dtype)
    return KSpaceMask(line_mask((32, 32), 3, 0.15, seed=1), SHAPE, dtype)


def measure(a, count=2, seed=0):
    clean = a(images(count, seed, dtype=a.in_dtype))
    return FIXED.sample(clean, torch.Generator().manual_seed(seed + 100))


class Setting(Posed):
    """A posed problem and its guess."""

    def __init__(self, recipe, *, prior=None, count=1, general=False, name="mask"):
        prior, a = vanilla_prior(DOUBLE) if prior is None else prior, operator(name, DOUBLE)
        super().__init__(recipe, prior, a, measure(a, count), SIGMA, iterations=300, general=general)

    def rest(self, number):
        """The way down from latent ``number`` as one part."""
        return Part(number, LAYERS, None, [])


# ------------------------------------------------------------------------------------------- network


def test_the_trunk_is_the_separable_ones():
    ours, theirs = tiny_network(decoder="vanilla"), tiny_network()
    names = [set(dict(n.named_parameters())) for n in (ours, theirs)]
    assert all(name.startswith("head.") for name in names[0] - names[1])
    assert all(".head." in name for name in names[1] - names[0])
    assert (ours.separable, theirs.separable) == (False, True)
    assert isinstance(vanilla_prior(), Prior)


def test_the_vanilla_decoder_is_spatial():
    values = tiny_network().config.to_dict()
    with pytest.raises(ValueError, match=r"network\.decoder.*'wavelet'"):
        NetworkConfig.from_dict(values | {"decoder": "wavelet"})
    with pytest.raises(ValueError, match=r"network\.head_domain"):
        NetworkConfig.from_dict(values | {"decoder": "vanilla", "head_domain": "spectral"})
    del values["decoder"]
    assert NetworkConfig.from_dict(values).decoder == "separable", "cards written before there was a choice"


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("cap", [4, 16, 32])
def test_the_image_is_the_heads(is_complex, cap):
    network = tiny_network(decoder="vanilla", is_complex=is_complex, grid_cap=cap, channels=2)
    context = torch.randn(3, 16, cap, cap, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image = network.head(context)
        rings = network.contributions([context] * 6)
    assert image.shape == (3, 2, 32, 32)
    assert image.is_complex() == is_complex
    torch.testing.assert_close(network.spectrum.inverse(network.assemble(rings)), image, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="contributions"):
        network.contribution(0, context)


def test_every_latent_reaches_every_ring_of_a_vanilla_decoder_only():
    for decoder in ("vanilla", "separable"):
        prior = HVAEPrior(tiny_network(decoder=decoder), decoder, {})
        hierarchy = Hierarchy(prior, 1)
        with torch.no_grad():
            latents = descend(prior, None, torch.full((1,), 5)).latents
        last = latents[-1].clone().requires_grad_(True)
        way = hierarchy.descend(values([*latents[:-1], last]))
        contributions = prior.contributions(list(way.done.contexts))
        reached = [
            float(torch.autograd.grad(h.abs().square().sum(), last, retain_graph=True, allow_unused=True)[0].norm()) > 0
            if h.requires_grad
            else False
            for h in contributions
        ]
        assert reached == ([True] * 6 if decoder == "vanilla" else [False] * 5 + [True])


def test_training_reaches_every_parameter():
    network = tiny_network(decoder="vanilla", channels=3)
    x = images(6).reshape(2, 3, 32, 32)
    losses = Objective(network)(x, None)
    losses.total.backward()
    assert losses.ring_mse.shape == (3, 6)
    assert all(p.grad is not None for n, p in network.named_parameters() if "modulation" not in n)


def test_a_vanilla_prior_survives_saving(tmp_path):
    path = tmp_path / "vanilla.safetensors"
    network = tiny_network(decoder="vanilla", is_complex=True)
    save_checkpoint(network, {"name": "vanilla"}, path)
    found = load_prior(path)
    assert not found.separable
    assert found.network.config == network.config
    x = images(2, dtype=torch.complex64)
    torch.testing.assert_close(image_elbo(found, x), image_elbo(HVAEPrior(network, "", {}), x), rtol=1e-2, atol=1e-2)


# ------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("objective", ["map", "variational"])
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("number", [0, 3, LAYERS - 1, None], ids=["first", "middle", "last", "joint"])
@pytest.mark.slow
def test_the_gradient_is_the_finite_difference(objective, general, number):
    """Of one latent with the later ones completed (per latent), and of all latents at once (joint)."""
    setting = Setting(recipe_of(objective=objective), general=general)
    first = number or 0
    moving = setting.latents if number is None else setting.latents[number : number + 1]
    generator = torch.Generator().manual_seed(1)
    draws = None
    if objective == "variational":
        draws = [torch.randn(z.shape, generator=generator, dtype=DOUBLE) for z in setting.latents[first:]]
    directions = [torch.randn(z.shape, generator=generator, dtype=DOUBLE) for z in moving]

    def value(step):
        moved = [z + step * d for z, d in zip(moving, directions, strict=True)]
        return setting.value(setting.rest(first), moved, draws)[0].sum()

    step = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(step), step)
    with torch.no_grad():
        h = 1e-5
        expected = (value(torch.tensor(h)) - value(torch.tensor(-h))) / (2 * h)
    # on the general path, conjugate gradients end within a tolerance
    assert float(gradient) == pytest.approx(float(expected), rel=1e-3 if general else 1e-6)


@torch.no_grad()
@pytest.mark.slow
def test_a_kept_prefix_changes_nothing():
    """What follows a prefix is what follows it in the whole."""
    setting = Setting(recipe_of(objective="map"))
    prefix, hierarchy = START, setting.hierarchy()
    for number, z in enumerate(setting.latents[:-1]):
        prefix = hierarchy.descend(values([z], number), prefix, number + 1).done
        rest = hierarchy.descend(values(setting.latents), prefix)
        # completed from their posteriors, the later latents are the guess's own
        completed = hierarchy.descend(lambda node: node.posterior.mean, prefix)
        for way in (rest, completed):
            found = setting.prior.contributions(list(way.done.contexts))
            for a, b in zip(setting.guess.contributions, found, strict=True):
                torch.testing.assert_close(a, b)
    assert len(prefix.contexts) == 5


def test_a_separable_priors_last_scale_has_the_same_gradient_either_way():
    """Nothing follows the last scale, so that the whole hierarchy's objective is the scale's own there."""
    setting = Setting(recipe_of(objective="map"), prior=tiny_prior(DOUBLE))
    gradients = []
    for part in (setting.rest(LAYERS - 1), Part(LAYERS - 1, LAYERS, 5, [])):
        z = setting.latents[-1].clone().requires_grad_(True)
        total, _ = setting.value(part, [z])
        gradients.append(torch.autograd.grad(total.sum(), z)[0])
    torch.testing.assert_close(*gradients)


# ------------------------------------------------------------------------------------------- refinement


@pytest.mark.parametrize(
    ("stop", "blocks", "objective"),
    [
        ("all", "scale", "map"),
        ("none", "latent", "map"),
        ("all", "latent", "variational"),
        ("none", "scale", "variational"),
    ],
)
@pytest.mark.slow
def test_refinement_lowers_the_objective(stop, blocks, objective):
    a = operator()
    recipe = recipe_of(stop=stop, blocks=blocks, objective=objective, steps=4)
    result = solve(measure(a), a, vanilla_prior(), noise=FIXED, recipe=recipe, warn=False)
    assert result.improved.all()
    assert [row["scale"] for row in result.scales] == [1, 2, 4, 8, 16, 32]
    assert all(row["steps"] == 4 for row in result.scales)
    before, after = (sum(row[key] for row in result.scales) for key in ("before", "after"))
    assert (after < before).all()


@pytest.mark.parametrize(("blocks", "objective"), [("scale", "variational"), ("latent", "map")])
@pytest.mark.slow
def test_the_general_path_agrees_with_the_diagonal_one(blocks, objective):
    a = operator("blur", DOUBLE)
    recipe = recipe_of(blocks=blocks, objective=objective, steps=3)
    prior, y = vanilla_prior(DOUBLE), measure(operator("blur", DOUBLE))
    diagonal, general = (
        solve(y, a, prior, noise=FIXED, recipe=recipe, warn=False, force_general=force, iterations=300)
        for force in (False, True)
    )
    # the two paths estimate the image's scale, and the evidence, in different ways
    assert float((diagonal.image - general.image).norm() / diagonal.image.norm()) < 0.05


@pytest.mark.parametrize("general", [False, True])
@torch.no_grad()
def test_the_reports_add_up_to_the_objective(general):
    setting = Setting(recipe_of(objective="map", steps=3), general=general)
    found, reports, _ = setting.improved()
    way = setting.hierarchy().descend(values(found.latents))
    costs = [
        OBJECTIVES["map"].of(Gaussian(z, z), node.prior).flatten(1).sum(1)
        for z, node in zip(way.latents, way.nodes, strict=True)
    ]
    shares = torch.stack([r["after"] for r in reports])
    fit = setting.term.settled(found.contributions)
    torch.testing.assert_close(shares.sum(0), fit + sum(costs), rtol=1e-6, atol=1e-6)
    for scale in range(6):
        cost = sum(c for c, node in zip(costs, way.nodes, strict=True) if node.scale == scale)
        of_scale = fit / 6 if general else setting.term.settled(found.contributions, scale)
        torch.testing.assert_close(shares[scale], cost + of_scale, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_batch_is_its_images_and_seeds_repeat():
    a, prior = operator(), vanilla_prior()
    y = measure(a, 3)
    recipe = recipe_of(steps=2, blocks="latent", samples=2)
    whole = solve(y, a, prior, noise=FIXED, recipe=recipe, warn=False)
    again = solve(y, a, prior, noise=FIXED, recipe=recipe, warn=False)
    assert torch.equal(whole.image, again.image)
    single = torch.cat([solve(v[None], a, prior, noise=FIXED, recipe=recipe, warn=False).image for v in y])
    torch.testing.assert_close(whole.image, single, rtol=1e-3, atol=1e-4)


def test_steps_per_scale_and_the_guess_stop_leave_latents_alone():
    setting = Setting(recipe_of(objective="map", steps={4: 2}), count=2)
    found, scale_of = setting.stepped().guess, setting.hierarchy().scale_of
    # contexts change after scale 4: only what stands before it can be compared
    for offset, scale in zip(found.offsets, scale_of, strict=True):
        if scale < 2:
            torch.testing.assert_close(offset, torch.zeros_like(offset), rtol=0, atol=1e-9)
        if scale == 2:
            assert float(offset.abs().max()) > 0
    assert [r["steps"] for r in setting.improved().scales] == [0, 0, 2, 0, 0, 0]
    a = operator()
    stopped = solve(measure(a), a, vanilla_prior(), noise=FIXED, recipe=recipe_of(steps=2, stop=4), warn=False)
    assert [row["steps"] for row in stopped.scales] == [2, 2, 2, 0, 0, 0]


# ------------------------------------------------------------------------------------------- cost


def evaluations(prior, **recipe):
    """Layer evaluations of refinement steps in one solution."""
    counted, a = CountedPrior(prior), operator()
    assert isinstance(counted, Prior)
    solve(measure(a), a, counted, noise=FIXED, recipe=recipe_of(**recipe), warn=False)
    return counted.with_gradient


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("objective", ["map", "variational"])
@pytest.mark.slow
def test_layer_evaluations_follow_the_formulas(steps, objective):
    prior = vanilla_prior()
    per_latent = LAYERS * (LAYERS + 1) // 2
    assert evaluations(prior, steps=steps, objective=objective, blocks="latent") == steps * per_latent
    assert evaluations(prior, steps=steps, objective=objective, blocks="scale") == steps * LAYERS
    # a scale refined on its own evaluates its own layers
    assert evaluations(tiny_prior(), steps=steps, objective=objective, blocks="scale") == steps * LAYERS


def test_one_layer_a_scale_makes_sequential_and_joint_the_same():
    prior, a = HVAEPrior(tiny_network(layers=(1,) * 6), "one", {}), operator()
    y = measure(a)
    # of a single step, both keep the guess or the step
    joint, sequential = (
        solve(y, a, prior, noise=FIXED, recipe=recipe_of(objective="map", steps=1, blocks=s), warn=False)
        for s in ("scale", "latent")
    )
    assert joint.improved.any()
    torch.testing.assert_close(joint.image, sequential.image)
    assert evaluations(prior, steps=2, blocks="latent") == evaluations(prior, steps=2, blocks="scale") == 12


# ------------------------------------------------------------------------------------------- activity


def test_active_units_and_kl():
    prior, x = tiny_prior(), images(40)
    rows = latent_activity(prior, x, batch_size=16)
    assert [r["scale"] for r in rows] == [1, 2, 4, 4, 8, 8, 16, 16, 32]
    assert [r["units"] for r in rows] == [4 * min(r["scale"], 16) ** 2 for r in rows]
    # independently, layer 1: its posterior's mean depends on the images alone
    with torch.no_grad():
        features = prior.encode(x, torch.ones(40, 2, 6))
        context = prior.enter(0, None, 40)
        layer = prior.layers(0)[0]
        p, _ = layer.prior(context)
        q = layer.posterior(context, features[0], p)
    assert rows[0]["active"] == int((q.mean.var(0, correction=0) > 0.01).sum())
    assert rows[0]["kl"] == pytest.approx(float(kl_divergence(q, p).sum()) / 40, rel=1e-3)
    assert all(r["kl"] > 0 for r in rows)
    assert latent_activity(prior, x[:1]) is None
    same = latent_activity(prior, x[:1].repeat(4, 1, 1, 1))
    assert all(r["active"] == 0 for r in same)


def test_prior_show_prints_the_latents(tmp_path):
    prior, path = tiny_prior(), tmp_path / "a.safetensors"
    rows = latent_activity(prior, images(4))
    save_checkpoint(tiny_network(), {"name": "a", "latents": rows}, path)
    shown = cli("prior", "show", path)
    assert shown.code == 0
    assert f"{rows[2]['active']} of {rows[2]['units']}" in shown.out
    assert cli("prior", "show", path, "--json").report["latents"] == rows
