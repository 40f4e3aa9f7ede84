"""Refinement: gradients, the promise never to end worse than the guess, schedules, batches and seeds."""

import pytest
import torch
from counting import CountedPrior
from flat_recipes import recipe_of
from refining import Setting as Posed
from tiny import images, relative, tiny_prior

from iasolve import solve
from iasolve.inference.objective import ImageTerm
from iasolve.inference.passes import descend
from iasolve.inference.refine import Part
from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, LowPass, gaussian_kernel, line_mask
from iasolve.priors.hierarchy import values
from iasolve.problem import OperatorLikelihood

SHAPE = (1, 32, 32)
SCALES = (1, 2, 4, 8, 16, 32)
SIGMA = 0.1
DOUBLE = torch.float64


def operators(dtype=DOUBLE):
    mask = line_mask((32, 32), 3, 0.15, seed=1)
    return {
        "identity": Identity(SHAPE, dtype),
        "mask": KSpaceMask(mask, SHAPE, dtype),
        "blur": CircularBlur(gaussian_kernel(1.0), SHAPE, dtype),
        "blurred mask": KSpaceMask(mask, SHAPE, dtype) @ CircularBlur(gaussian_kernel(0.8), SHAPE, dtype),
        "low-pass": LowPass(8, SHAPE, dtype),
    }


def measure(operator, count=2, sigma=SIGMA, seed=0, dtype=DOUBLE):
    clean = operator(images(count, seed, dtype=dtype))
    return GaussianNoise(sigma).sample(clean, torch.Generator().manual_seed(seed + 100))


class Setting(Posed):
    """A posed problem with the guess for it."""

    def __init__(self, name="mask", recipe=None, count=2, seed=0, iterations=8, force_general=False):
        operator = operators()[name]
        super().__init__(
            recipe or recipe_of(steps=5),
            tiny_prior(DOUBLE),
            operator,
            measure(operator, count, seed=seed),
            SIGMA,
            iterations=iterations,
            general=force_general,
            seed=seed,
        )

    def scale(self, index):
        """A scale as a part, and its means."""
        hierarchy = self.hierarchy()
        numbers = [n for n, scale in enumerate(hierarchy.scale_of) if scale == index]
        return Part(numbers[0], numbers[-1] + 1, index, []), [self.latents[n] for n in numbers]

    @torch.no_grad()
    def total(self, guess):
        """The whole MAP objective of a guess: the likelihood of its image once, and every latent's cost."""
        way = self.hierarchy().descend(values(guess.latents))
        contributions = self.prior.contributions(list(way.done.contexts))
        for found, kept in zip(contributions, guess.contributions, strict=True):
            torch.testing.assert_close(found, kept, rtol=1e-9, atol=1e-10)
        pairs = [(z, node.prior) for z, node in zip(way.latents, way.nodes, strict=True)]
        cost = sum((0.5 * ((z - p.mean) / p.std) ** 2 + p.log_std).flatten(1).sum(1) for z, p in pairs)
        image = self.prior.spectrum.inverse(self.prior.assemble(contributions))
        data = self.problem.likelihood
        if isinstance(data, OperatorLikelihood):
            data = OperatorLikelihood(data.operator, data.y, data.sigma, iterations=400)
        return data.value(image, self.problem.variance).nats + cost


@pytest.mark.parametrize(
    ("name", "general", "index"), [("mask", False, 2), ("blur", False, 5), ("blurred mask", True, 5), ("blur", True, 2)]
)
@pytest.mark.parametrize("objective", ["variational", "map"])
def test_gradient_of_a_scale_is_the_finite_difference(objective, name, general, index):
    recipe = recipe_of(objective=objective, beta=0.7)
    setting = Setting(name, recipe, count=1, iterations=300, force_general=general)
    part, means = setting.scale(index)
    generator = torch.Generator().manual_seed(index)
    draws = None
    if objective == "variational":
        draws = [torch.randn(m.shape, generator=generator, dtype=DOUBLE) for m in means]
    direction = [torch.randn(m.shape, generator=generator, dtype=DOUBLE) for m in means]

    def value(step):
        moved = [m.detach() + step * d for m, d in zip(means, direction, strict=True)]
        return setting.value(part, moved, draws)[0].sum()

    variables = [m.detach().clone().requires_grad_(True) for m in means]
    total, _ = setting.value(part, variables, draws)
    gradients = torch.autograd.grad(total.sum(), variables)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    eps = 1e-4
    with torch.no_grad():
        # fourth-order central difference
        numeric = (8 * (value(eps) - value(-eps)) - (value(2 * eps) - value(-2 * eps))) / (12 * eps)
    # conjugate gradients stop at a residual of 1e-6, which the finest ring (the smallest variance) shows most
    assert float(slope) == pytest.approx(float(numeric), rel=1e-3 if general else 1e-6)


@pytest.mark.parametrize("name", ["identity", "mask", "blur", "blurred mask", "low-pass"])
@pytest.mark.slow
def test_ring_path_and_image_paths_give_the_same_gradient(name):
    setting = Setting(name, recipe_of(objective="map"))
    general = Setting(name, iterations=400, force_general=True)
    # the same units on both paths: their estimates of the image's scale differ a little
    gain = setting.problem.gain.reshape(-1, 1, 1, 1)
    data = OperatorLikelihood(setting.operator, setting.y / gain, SIGMA / setting.problem.gain, 400)
    exact = ImageTerm(lambda h: setting.problem.decode(setting.prior, h), data, general.problem.variance, setting.betas)
    for index in range(6):
        part, means = setting.scale(index)
        found = []
        for term in (setting.term, setting.image_term(), exact):
            variables = [m.detach().clone().requires_grad_(True) for m in means]
            total, _ = setting.value(part, variables, term=term)
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(total.sum(), variables)]))
        assert relative(found[1], found[0]) < 1e-9
        assert relative(found[2], found[0]) < 1e-4


@pytest.mark.parametrize("general", [False, True])
def test_evaluating_an_objective_changes_nothing(general):
    setting = Setting("mask", recipe_of(objective="map"), force_general=general)
    part, means = setting.scale(4)
    with torch.no_grad():
        first = setting.value(part, means)[0]
        setting.value(part, [m + 1 for m in means])
        settled = setting.term.settled(setting.guess.contributions)
        again = setting.value(part, means)[0]
    assert torch.equal(first, again)
    assert torch.equal(settled, setting.term.settled(setting.guess.contributions))


MIXED = recipe_of(steps=1, size=3.0, objective="expected", optimizer="lbfgs", blocks="whole")
"""One step so long that it helps some images only."""
WILD = [
    MIXED,
    recipe_of(steps=3, size=3.0, objective="map"),
    recipe_of(steps=3, size=3.0, objective="map", blocks="latent"),
    recipe_of(steps=3, size=0.05, objective="map", optimizer="gradient"),
    recipe_of(steps=3, size=0.05, objective="map", beta=3.0),
    recipe_of(steps=3, size=50.0),
    recipe_of(steps=3, size=0.03),
    recipe_of(steps=2, size=0.03, blocks="latent"),
    recipe_of(steps=2, size=0.1, blocks="whole"),
    recipe_of(steps=3, size=0.1, objective="map", optimizer="lbfgs"),
    recipe_of(steps=3, size=30.0, objective="map", optimizer="lbfgs", blocks="whole"),
    recipe_of(steps=3, size=0.1, objective="expected", optimizer="lbfgs", blocks="whole"),
    recipe_of(steps=2, size=0.1, objective="expected", blocks="latent"),
]


@pytest.mark.parametrize("recipe", WILD)
@pytest.mark.slow
def test_refinement_never_ends_worse_than_its_guess(recipe):
    setting = Setting("mask", recipe, count=3)
    final, reports, improved = setting.improved()
    before = sum(r["before"] for r in reports)
    after = sum(r["after"] for r in reports)
    assert torch.isfinite(after).all()
    assert (after <= before).all()
    assert torch.equal(improved, after < before)
    if recipe is MIXED:
        assert 0 < int(improved.sum()) < 3
    if recipe.steps.objective == "map" and recipe.steps.beta == 1.0:
        kept = setting.total(setting.guess)
        # per image: the sum of the scales' objectives is the whole one, since rings do not touch
        torch.testing.assert_close(before, kept)
        torch.testing.assert_close(after, setting.total(final))
    # an image that did not improve is the guess itself
    for found, kept in zip(final.contributions, setting.guess.contributions, strict=True):
        torch.testing.assert_close(found[~improved], kept[~improved], rtol=0, atol=0)
    assert all((o[~improved] == 0).all() for o in final.offsets)


@pytest.mark.parametrize(("size", "iterations"), [(0.05, 1), (30.0, 1), (30.0, 50)])
@pytest.mark.slow
def test_refinement_on_the_general_path_never_ends_worse_than_its_guess(size, iterations):
    """The promise is about the whole objective, in which the likelihood of the image counts once."""
    recipe = recipe_of(steps=3, size=size, objective="map")
    changes = []
    for seed in range(2):
        setting = Setting("blurred mask", recipe, count=3, seed=seed, iterations=iterations, force_general=True)
        before = setting.total(setting.guess)
        final, _, improved = setting.improved()
        if improved.any():
            changes.append(float((setting.total(final) - before)[improved].max()))
    # "improved" must mean it: better conjugate-gradient convergence of the same image is no improvement
    assert max(changes, default=-1.0) < 0


@pytest.mark.slow
def test_refinement_lowers_the_objective():
    for recipe in (
        recipe_of(steps=25, objective="map"),
        recipe_of(steps=25),
        recipe_of(steps=8, blocks="latent"),
    ):
        setting = Setting("mask", recipe, count=3)
        _, reports, improved = setting.improved()
        assert improved.all()
        assert all((r["after"] <= r["before"]).all() for r in reports if r["scale"] == 1)
        assert [r["steps"] for r in reports] == [recipe.steps.count] * 6


def test_refining_one_scale_leaves_coarser_ones_alone():
    setting = Setting("mask", recipe_of(steps={8: 10}, objective="map", size=0.1))
    final, reports, _ = setting.improved()
    assert [r["steps"] for r in reports] == [0, 0, 0, 10, 0, 0]
    for index in range(3):
        assert torch.equal(final.contributions[index], setting.guess.contributions[index])
    assert not torch.equal(final.contributions[3], setting.guess.contributions[3])


@pytest.mark.slow
def test_blocks_agree_for_a_scale_of_one_layer():
    """One point step each: no draws and no iterate to choose from, so both must do the same."""
    for step in ({16: 1}, {32: 1}, {2: 1}):
        joint = Setting("mask", recipe_of(steps=step, objective="map", size=0.05))
        alone = Setting("mask", recipe_of(steps=step, objective="map", size=0.05, blocks="latent"))
        a, b = joint.improved().guess, alone.improved().guess
        same = all(torch.equal(x, y) for x, y in zip(a.contributions, b.contributions, strict=True))
        # scale 16 has two layers (they differ), scales 2 and 32 one
        assert same == (16 not in step)
    for size in (0.01, 0.03):
        recipe = recipe_of(steps={32: 20}, objective="map", size=size)
        joint = Setting("mask", recipe)
        alone = Setting("mask", recipe.changed(steps={"blocks": "latent"}))
        a, b = joint.improved().scales, alone.improved().scales
        # descent is steady at these steps, so the last iterate is the best one
        torch.testing.assert_close(a[-1]["after"], b[-1]["after"])


BLOCKS = ["scale", "latent", "whole"]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_offsets_describe_the_refined_solution(blocks):
    """Samples are drawn around the offsets, so walking down with them must give the solution."""
    setting = Setting("mask", recipe_of(steps=5, size=0.2, blocks=blocks, objective="map"))
    found = setting.stepped().guess
    offsets = found.offsets
    with torch.no_grad():
        again = descend(
            setting.prior,
            found.features,
            setting.stop,
            lambda node: node.posterior.mean + node.posterior.std * offsets[node.number],
        )
    for a, b in zip(again.contributions, found.contributions, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.slow
def test_scales_beyond_the_guess_stop_are_the_prior_and_are_not_refined(blocks):
    setting = Setting("mask", recipe_of(steps=3, size=0.1, blocks=blocks, objective="map"))
    # each tile has its own stop: the first ends at scale 4, the second goes all the way
    found = setting.stepped(torch.tensor([2, 5])).guess
    scale_of = setting.hierarchy().scale_of
    for scale, offset in zip(scale_of, found.offsets, strict=True):
        # with whole blocks a finer prior's mean is held, and the context moves below it
        if scale >= 3 and blocks != "whole":
            assert (offset[0] == 0).all()
    assert any((o[1] != 0).any() for o, scale in zip(found.offsets, scale_of, strict=True) if scale == 4)
    shortest = setting.stepped(torch.tensor([2, 2])).guess
    longest = setting.stepped(torch.tensor([5, 5])).guess
    pairs = zip(found.contributions, shortest.contributions, longest.contributions, strict=True)
    for mixed, short, long in pairs:
        torch.testing.assert_close(mixed[0], short[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(mixed[1], long[1], rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_beyond_the_guess_stop_latents_are_prior_means():
    setting = Setting("mask")
    features = setting.guess.features
    none = descend(setting.prior, None, torch.tensor([5, 5]))
    stopped = descend(setting.prior, features, torch.tensor([-1, -1]))
    part = descend(setting.prior, features, torch.tensor([1, 1]))
    full = setting.guess
    for a, b, c, d in zip(
        none.contributions, stopped.contributions, part.contributions, full.contributions, strict=True
    ):
        assert torch.equal(a, b)
        assert c.shape == d.shape
    for index in (0, 1):
        assert torch.equal(part.contributions[index], full.contributions[index])
    for index in (2, 3):
        assert not torch.equal(part.contributions[index], full.contributions[index])
    assert [q.mean.shape for q in part.posteriors] == [q.mean.shape for q in stopped.posteriors]


MODES = {
    "joint": recipe_of(steps=3),
    "sequential": recipe_of(steps=2, blocks="latent"),
    "map": recipe_of(steps=3, objective="map", stop="auto"),
    "iterative": recipe_of(steps=3, stop="none"),
    "open": recipe_of(steps=2, blocks="latent", objective="map", optimizer="gradient", size=1e-3, error="none"),
    "lbfgs": recipe_of(steps=4, optimizer="lbfgs", objective="expected", blocks="whole", size=0.1),
    "lbfgs joint": recipe_of(steps=4, optimizer="lbfgs", objective="map", size=0.1),
    "passes": recipe_of(steps=2, passes=2, error="local"),
    "sequential auto": recipe_of(steps=2, blocks="latent", objective="map", stop="auto", size=0.2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_batch_is_the_loop_of_singles(mode):
    prior, operator = tiny_prior(DOUBLE), operators()["blurred mask"]
    y = measure(operator, 3)
    y[1] *= 0.02  # far noisier than the others, in its own units: its guess stops elsewhere
    noise, recipe = GaussianNoise(0.05), MODES[mode]
    whole = solve(y, operator, prior, noise=noise, recipe=recipe, samples=2, seed=3)
    for batch_size in (1,):
        parts = solve(y, operator, prior, noise=noise, recipe=recipe, samples=2, seed=3, batch_size=batch_size)
        torch.testing.assert_close(parts.image, whole.image, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(parts.samples, whole.samples, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(parts.std, whole.std, rtol=1e-6, atol=1e-8)
        for a, b in zip(parts.scales, whole.scales, strict=True):
            torch.testing.assert_close(a["before"], b["before"], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(a["after"], b["after"], rtol=1e-6, atol=1e-6)
    alone = solve(y[1], operator, prior, noise=noise, recipe=recipe, samples=2, seed=3)
    torch.testing.assert_close(alone.samples, whole.samples[:, 1], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_batch_is_the_loop_of_singles_on_the_general_path():
    prior, operator = tiny_prior(DOUBLE), operators()["blurred mask"]
    y, noise = measure(operator, 3), GaussianNoise(0.1)
    options = {"noise": noise, "recipe": recipe_of(steps=2), "samples": 2, "force_general": True}
    whole = solve(y, operator, prior, **options)
    for i in range(3):
        alone = solve(y[i], operator, prior, **options)
        torch.testing.assert_close(alone.image, whole.image[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.std, whole.std[i], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_seeds_repeat_and_differ():
    prior, operator = tiny_prior(), operators(torch.float32)["mask"]
    y, noise = measure(operator, 2, dtype=torch.float32), GaussianNoise(SIGMA)

    def found(seed, **changes):
        return solve(y, operator, prior, noise=noise, recipe=recipe_of(steps=4, **changes), samples=2, seed=seed)

    first, again, other = found(1), found(1), found(2)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.samples, again.samples)
    assert not torch.equal(first.image, other.image)
    assert not torch.allclose(first.samples, other.samples)
    assert not torch.allclose(first.samples[0], first.samples[1])
    # point steps draw nothing: the estimate does not depend on the seed
    assert torch.equal(found(1, objective="map").image, found(2, objective="map").image)


def test_solving_leaves_the_global_random_state_alone():
    prior, operator = tiny_prior(), operators(torch.float32)["mask"]
    y = measure(operator, 1, dtype=torch.float32)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    solve(y, operator, prior, noise=GaussianNoise(SIGMA), recipe=recipe_of(steps=1), samples=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_steps_is_the_amortized_guess():
    prior, operator = tiny_prior(), operators(torch.float32)["blur"]
    y, noise = measure(operator, 2, dtype=torch.float32), GaussianNoise(SIGMA)
    amortized = solve(y, operator, prior, noise=noise, recipe=recipe_of(steps=0), samples=2)
    for steps in (0, {}, {16: 0}):
        idle = solve(y, operator, prior, noise=noise, recipe=recipe_of(steps=steps), samples=2)
        assert torch.equal(idle.image, amortized.image)
        assert torch.equal(idle.samples, amortized.samples)
        assert not idle.improved.any()
        assert [row["steps"] for row in idle.scales] == [0] * 6
        for row in idle.scales:
            assert torch.equal(row["before"], row["after"])


def test_guess_stop_auto_finds_the_finest_ring_with_evidence():
    prior, noise = tiny_prior(DOUBLE), GaussianNoise(0.05)
    for scale in (2, 8, 32):
        operator = LowPass(scale, SHAPE, DOUBLE)
        y = measure(operator, 2, sigma=0.05)
        auto = solve(y, operator, prior, noise=noise, recipe=recipe_of(steps=2, stop="auto"))
        fixed = solve(y, operator, prior, noise=noise, recipe=recipe_of(steps=2, stop=scale))
        assert [row["steps"] for row in auto.scales] == [2 if s <= scale else 0 for s in SCALES]
        assert torch.equal(auto.image, fixed.image)


def test_beta_weighs_the_data_term():
    values_of = []
    for beta in (2.5, 0.5):
        setting = Setting("mask", recipe_of(objective="map", beta=beta))
        part, means = setting.scale(3)
        total, found = setting.value(part, means)
        values_of.append(total)
    plain = Setting("mask").term.ring(3, found.contributions[3])
    torch.testing.assert_close(values_of[0] - values_of[1], 2.0 * plain)


@pytest.mark.parametrize("objective", ["map", "variational", "expected"])
@pytest.mark.slow
def test_steps_evaluate_as_many_layers_as_the_formulas_say(objective):
    counts = [len(tiny_prior(DOUBLE).layers(i)) for i in range(len(SCALES))]
    for blocks, layers in (("scale", sum(counts)), ("latent", sum(m * (m + 1) // 2 for m in counts))):
        prior = CountedPrior(tiny_prior(DOUBLE))
        y = measure(operators()["mask"], 1)
        recipe = recipe_of(steps=3, blocks=blocks, objective=objective)
        solve(y, operators()["mask"], prior, noise=GaussianNoise(SIGMA), recipe=recipe, warn=False)
        assert prior.with_gradient == 3 * layers
