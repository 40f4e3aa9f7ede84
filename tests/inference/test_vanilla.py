"""The vanilla HVAE: one non-linear decoder of all latents, refined through all later layers."""

import pytest
import torch
from cli_fixtures import cli
from tiny import images, ring_term, tiny_network, tiny_prior

from iasolve import HVAEPrior, Prior, Recipe, load_prior, solve
from iasolve.inference.hierarchy import START, Hierarchy
from iasolve.inference.objective import ImageTerm
from iasolve.inference.problem import pose
from iasolve.inference.topdown import Noise, descend
from iasolve.inference.whole import WholeRefiner, whole_fit
from iasolve.networks import Gaussian, NetworkConfig, kl_divergence
from iasolve.operators import CircularBlur, GaussianNoise, KSpaceMask, gaussian_kernel, line_mask
from iasolve.priors import save_checkpoint
from iasolve.priors.activity import latent_activity
from iasolve.priors.counting import CountedPrior
from iasolve.priors.likeness import image_elbo
from iasolve.training.objective import Objective

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


class Setting:
    """A posed problem, its guess, and a refiner of it."""

    def __init__(self, recipe, *, prior=None, count=1, general=False, name="mask", iterative=False):
        self.prior = vanilla_prior(DOUBLE) if prior is None else prior
        a = operator(name, DOUBLE)
        sigma = torch.full((count,), SIGMA, dtype=DOUBLE)
        self.problem = pose(measure(a, count), a, self.prior, sigma, iterations=300, force_general=general)
        seen = self.problem.evidence
        self.features = None if iterative else self.prior.encode(seen.image, seen.profile)
        self.stop = torch.full((count,), 5)
        with torch.no_grad():
            self.guess = descend(self.prior, self.features, count, stop=self.stop)
        p = self.problem
        if p.direct:
            term = ring_term(p, self.prior, recipe.loss)
        else:
            term = ImageTerm(self.prior, p.geometry, p.data, p.variance, self.guess.contributions)
        self.refiner = WholeRefiner(
            self.prior, recipe, term, Noise(0, torch.device("cpu"), DOUBLE), 1, self.stop, self.features
        )
        self.latents = [q for s in self.guess.scales for q in s.guess]


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
        hierarchy = Hierarchy(prior, None, torch.full((1,), 5))
        with torch.no_grad():
            guess = descend(prior, None, 1, stop=torch.full((1,), 5))
        latents = [q for s in guess.scales for q in s.guess]
        last = latents[-1].mean.clone().requires_grad_(True)
        value = hierarchy.evaluate(START, [*latents[:-1], Gaussian(last, latents[-1].log_std)], None)
        reached = [
            float(torch.autograd.grad(h.abs().square().sum(), last, retain_graph=True, allow_unused=True)[0].norm()) > 0
            if h.requires_grad
            else False
            for h in value.contributions
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
def test_the_gradient_is_the_finite_difference(objective, general, number):
    """Of one latent with the later ones completed (per latent), and of all latents at once (joint)."""
    setting = Setting(Recipe(objective=objective), general=general)
    refiner, hierarchy = setting.refiner, setting.refiner.hierarchy
    prefix, latents = START, setting.latents
    if number is not None:
        for q in latents[:number]:
            prefix = hierarchy.advance(prefix, q.mean)
        latents = latents[number : number + 1]
    generator = torch.Generator().manual_seed(1)
    draws = None
    if objective == "variational":
        shapes = [q.mean.shape for q in setting.latents[prefix.first :]]
        draws = [torch.randn(s, generator=generator, dtype=DOUBLE) for s in shapes]
    directions = [torch.randn(q.mean.shape, generator=generator, dtype=DOUBLE) for q in latents]

    def value(step):
        moved = [Gaussian(q.mean + step * d, q.log_std) for q, d in zip(latents, directions, strict=True)]
        return refiner.value(prefix, moved, draws).sum()

    step = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(step), step)
    with torch.no_grad():
        h = 1e-5
        expected = (value(torch.tensor(h)) - value(torch.tensor(-h))) / (2 * h)
    # on the general path, conjugate gradients end within a tolerance
    assert float(gradient) == pytest.approx(float(expected), rel=1e-3 if general else 1e-6)


def test_a_kept_prefix_changes_nothing():
    """The value of the hierarchy behind a prefix is that of the whole, less the prefix's own cost."""
    setting = Setting(Recipe(objective="map"))
    hierarchy, latents = setting.refiner.hierarchy, setting.latents
    with torch.no_grad():
        whole = hierarchy.evaluate(START, latents, None)
        prefix = START
        for number, q in enumerate(latents[:-1]):
            prefix = hierarchy.advance(prefix, q.mean)
            rest = hierarchy.evaluate(prefix, latents[number + 1 :], None)
            # completed from their posteriors, the later latents are the guess's own
            completed = hierarchy.evaluate(prefix, [], None)
            for a, b, c in zip(whole.contributions, rest.contributions, completed.contributions, strict=True):
                torch.testing.assert_close(a, b)
                torch.testing.assert_close(a, c)
    assert len(prefix.contexts) == 5


def test_a_separable_priors_last_scale_has_the_same_gradient_either_way():
    """Nothing follows the last scale, so that the whole hierarchy's objective is the scale's own there."""
    from iasolve.inference.objective import evaluate_scale

    setting = Setting(Recipe(objective="map"), prior=tiny_prior(DOUBLE))
    refiner, latents = setting.refiner, setting.latents
    prefix = START
    for q in latents[:-1]:
        prefix = refiner.hierarchy.advance(prefix, q.mean)
    z = latents[-1].mean.clone().requires_grad_(True)
    (ours,) = torch.autograd.grad(refiner.value(prefix, [Gaussian(z, latents[-1].log_std)], None).sum(), z)
    context = setting.prior.enter(5, prefix.context, 1)
    scale = evaluate_scale(setting.prior, 5, context, [z], [latents[-1].std], None, refiner.data, 1.0, 1)
    (theirs,) = torch.autograd.grad(scale.total.sum(), z)
    torch.testing.assert_close(ours, theirs)


# ------------------------------------------------------------------------------------------- refinement


@pytest.mark.parametrize("mode", ["hybrid", "iterative"])
@pytest.mark.parametrize("schedule", ["joint", "sequential"])
@pytest.mark.parametrize("objective", ["map", "variational"])
def test_refinement_lowers_the_objective(mode, schedule, objective):
    a = operator()
    recipe = Recipe(mode=mode, schedule=schedule, objective=objective, steps=4)
    result = solve(measure(a), a, vanilla_prior(), noise=FIXED, recipe=recipe, warn=False)
    assert result.improved.all()
    assert [row["scale"] for row in result.scales] == [1, 2, 4, 8, 16, 32]
    assert all(row["steps"] == 4 for row in result.scales)
    before, after = (sum(row[key] for row in result.scales) for key in ("before", "after"))
    assert (after < before).all()


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
@pytest.mark.parametrize("objective", ["map", "variational"])
def test_the_general_path_agrees_with_the_diagonal_one(schedule, objective):
    a = operator("blur", DOUBLE)
    recipe = Recipe(schedule=schedule, objective=objective, steps=3, iterations=300, adaptive=False)
    prior, y = vanilla_prior(DOUBLE), measure(operator("blur", DOUBLE))
    diagonal, general = (
        solve(y, a, prior, noise=FIXED, recipe=recipe, warn=False, force_general=force) for force in (False, True)
    )
    # the two paths estimate the image's scale, and the evidence, in different ways
    assert float((diagonal.image - general.image).norm() / diagonal.image.norm()) < 0.05


def test_the_reports_add_up_to_the_objective():
    for general in (False, True):
        setting = Setting(Recipe(objective="map", steps=3), general=general)
        refiner = setting.refiner
        with torch.no_grad():
            found = refiner(setting.guess)
            latents = [
                Gaussian(q.mean + q.std * o, q.log_std)
                for s in found.scales
                for q, o in zip(s.guess, s.offsets, strict=True)
            ]
            costs, contributions, _ = refiner.hierarchy.evaluate(START, latents, None)
            fit = whole_fit(refiner.data, contributions, [1.0] * 6)
        for report, cost, h in zip(refiner.reports, costs, contributions, strict=True):
            torch.testing.assert_close(report.cost, cost)
            torch.testing.assert_close(report.contribution, h)
        after = torch.stack([r.after - r.cost for r in refiner.reports])
        torch.testing.assert_close(after.mean(0) if general else after.sum(0), fit, rtol=1e-6, atol=1e-6)


def test_a_batch_is_its_images_and_seeds_repeat():
    a, prior = operator(), vanilla_prior()
    y = measure(a, 3)
    recipe = Recipe(steps=2, schedule="sequential", samples=2)
    whole = solve(y, a, prior, noise=FIXED, recipe=recipe, warn=False)
    again = solve(y, a, prior, noise=FIXED, recipe=recipe, warn=False)
    assert torch.equal(whole.image, again.image)
    single = torch.cat([solve(v[None], a, prior, noise=FIXED, recipe=recipe, warn=False).image for v in y])
    torch.testing.assert_close(whole.image, single, rtol=1e-3, atol=1e-4)


def test_steps_per_scale_and_the_guess_stop_leave_latents_alone():
    setting = Setting(Recipe(objective="map", steps={4: 2}), count=2)
    with torch.no_grad():
        found = setting.refiner(setting.guess)
    # contexts change after scale 4: only what stands before it can be compared
    for index in range(2):
        for offset in found.scales[index].offsets:
            torch.testing.assert_close(offset, torch.zeros_like(offset), rtol=0, atol=1e-9)
    assert all(float(o.abs().max()) > 0 for o in found.scales[2].offsets)
    assert [r.steps for r in setting.refiner.reports] == [0, 0, 2, 0, 0, 0]
    a = operator()
    stopped = solve(measure(a), a, vanilla_prior(), noise=FIXED, recipe=Recipe(steps=2, guess_stop=4), warn=False)
    assert [row["steps"] for row in stopped.scales] == [2, 2, 2, 0, 0, 0]


# ------------------------------------------------------------------------------------------- cost


def evaluations(prior, **recipe):
    """Layer evaluations of refinement steps in one solution."""
    counted, a = CountedPrior(prior), operator()
    assert isinstance(counted, Prior)
    solve(measure(a), a, counted, noise=FIXED, recipe=Recipe(**recipe), warn=False)
    return counted.with_gradient


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("objective", ["map", "variational"])
def test_layer_evaluations_follow_the_formulas(steps, objective):
    prior = vanilla_prior()
    per_latent = LAYERS * (LAYERS + 1) // 2
    assert evaluations(prior, steps=steps, objective=objective, schedule="sequential") == steps * per_latent
    assert evaluations(prior, steps=steps, objective=objective, schedule="joint") == steps * LAYERS
    # a scale refined on its own evaluates its own layers
    assert evaluations(tiny_prior(), steps=steps, objective=objective, schedule="joint") == steps * LAYERS


def test_one_layer_a_scale_makes_sequential_and_joint_the_same():
    prior, a = HVAEPrior(tiny_network(layers=(1,) * 6), "one", {}), operator()
    y = measure(a)
    # of a single step, both keep the guess or the step
    joint, sequential = (
        solve(y, a, prior, noise=FIXED, recipe=Recipe(objective="map", steps=1, schedule=s), warn=False)
        for s in ("joint", "sequential")
    )
    assert joint.improved.any()
    torch.testing.assert_close(joint.image, sequential.image)
    assert evaluations(prior, steps=2, schedule="sequential") == evaluations(prior, steps=2, schedule="joint") == 12


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
