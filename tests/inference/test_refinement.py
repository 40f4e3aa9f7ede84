"""Refinement: gradients, the promise never to end worse than the guess, schedules, batches and seeds."""

from dataclasses import replace

import pytest
import torch
from tiny import images, relative, ring_term, tiny_prior

from iasolve import Recipe, solve
from iasolve.inference.general_data import GeneralData
from iasolve.inference.guess import Guess
from iasolve.inference.objective import ImageTerm, RingTerm, evaluate_scale
from iasolve.inference.problem import pose
from iasolve.inference.refine import Refiner
from iasolve.inference.refinement import improve
from iasolve.inference.topdown import Noise, descend
from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, LowPass, gaussian_kernel, line_mask
from iasolve.priors.counting import CountedPrior

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


class Setting:
    """A posed problem with the guess for it."""

    def __init__(self, name="mask", recipe=None, count=2, seed=0, iterations=None, force_general=False):
        self.prior = tiny_prior(DOUBLE)
        self.operator = operators()[name]
        self.recipe = recipe or Recipe(steps=5)
        self.y = measure(self.operator, count, seed=seed)
        sigma = torch.full((count,), SIGMA, dtype=DOUBLE)
        self.problem = pose(
            self.y,
            self.operator,
            self.prior,
            sigma,
            iterations=iterations or self.recipe.iterations,
            force_general=force_general,
        )
        self.features = self.prior.encode(self.problem.evidence.image, self.problem.evidence.profile)
        self.stop = torch.full((count,), 5)
        self.draw = Noise(seed, self.y.device, DOUBLE)
        with torch.no_grad():
            self.guess = self.descend()

    def descend(self, offsets=None, refine=None):
        return descend(self.prior, self.features, len(self.y), stop=self.stop, offsets=offsets, refine=refine)

    def ring_term(self):
        return ring_term(self.problem, self.prior, self.recipe.loss)

    def image_term(self):
        p = self.problem
        return ImageTerm(self.prior, p.geometry, p.data, p.variance, self.guess.contributions)

    def contexts(self):
        """The context with which every scale starts, along the guess."""
        found = []
        self.descend(refine=lambda index, context, guess, means: found.append((context, guess, means)) or means)
        return found

    @torch.no_grad()
    def refined(self):
        start = Guess(self.features, self.guess)
        guess, reports, improved = improve(self.problem, self.prior, self.recipe, start, self.stop, self.draw)
        return guess.found, reports, improved

    @torch.no_grad()
    def total(self, found, which=None):
        """The whole MAP objective of a pass: the likelihood of its image once, and every latent's cost.

        ``which`` marks the images whose latents the pass's posteriors and offsets describe (all by default).
        """
        which = torch.ones(len(self.y), dtype=torch.bool) if which is None else which
        cost, context = 0.0, None
        for index, scale in enumerate(found.scales):
            context = self.prior.enter(index, context, len(self.y))
            means = [q.mean + q.std * o for q, o in zip(scale.guess, scale.offsets, strict=True)]
            stds = [q.std for q in scale.guess]
            part, contribution, _ = evaluate_scale(self.prior, index, context, means, stds, None, _NoData(), 0.0, 1)
            torch.testing.assert_close(contribution[which], scale.contribution[which], rtol=1e-9, atol=1e-10)
            cost = cost + part
            for layer, mean in zip(self.prior.layers(index), means, strict=True):
                context = layer.update(context, mean, layer.prior(context)[1])
        image = self.prior.spectrum.inverse(self.prior.assemble(found.contributions))
        data = self.problem.data
        if isinstance(data, GeneralData):
            data = GeneralData(data.operator, data.y, data.sigma, iterations=400)
        return data.term(image, self.problem.variance) + cost


class _NoData:
    def __call__(self, index, contribution):
        return contribution.real.new_zeros(len(contribution))

    settled = __call__


@pytest.mark.parametrize("objective", ["variational", "map"])
@pytest.mark.parametrize(
    ("name", "general"), [("mask", False), ("blur", False), ("blurred mask", True), ("blur", True)]
)
@pytest.mark.parametrize("index", [2, 5])
def test_gradient_of_a_scale_is_the_finite_difference(objective, name, general, index):
    setting = Setting(name, count=1, iterations=300, force_general=general)
    term = setting.image_term() if general else setting.ring_term()
    context, guess, means = setting.contexts()[index]
    context, stds = context.detach(), [q.std.detach() for q in guess]
    generator = torch.Generator().manual_seed(index)
    draws = None
    if objective == "variational":
        draws = [torch.randn(m.shape, generator=generator, dtype=DOUBLE) for m in means]
    direction = [torch.randn(m.shape, generator=generator, dtype=DOUBLE) for m in means]

    def value(step):
        moved = [m.detach() + step * d for m, d in zip(means, direction, strict=True)]
        return evaluate_scale(setting.prior, index, context, moved, stds, draws, term, 0.7, 1)[0].sum()

    variables = [m.detach().clone().requires_grad_(True) for m in means]
    total, *_ = evaluate_scale(setting.prior, index, context, variables, stds, draws, term, 0.7, 1)
    gradients = torch.autograd.grad(total.sum(), variables)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    eps = 1e-4
    with torch.no_grad():
        # fourth-order central difference
        numeric = (8 * (value(eps) - value(-eps)) - (value(2 * eps) - value(-2 * eps))) / (12 * eps)
    # conjugate gradients stop at a residual of 1e-6, which the finest ring (the smallest variance) shows most
    assert float(slope) == pytest.approx(float(numeric), rel=1e-3 if general else 1e-6)


@pytest.mark.parametrize("name", ["identity", "mask", "blur", "blurred mask", "low-pass"])
def test_ring_path_and_image_paths_give_the_same_gradient(name):
    setting = Setting(name)
    general = Setting(name, iterations=400, force_general=True)
    # the same units on both paths: their estimates of the image's scale differ a little
    exact = pose(
        setting.y,
        setting.operator,
        setting.prior,
        torch.full((2,), SIGMA, dtype=DOUBLE),
        iterations=400,
        force_general=True,
    )
    gain = setting.problem.gain.reshape(-1, 1, 1, 1)
    data = type(exact.data)(setting.operator, setting.y / gain, SIGMA / setting.problem.gain, 400)
    held = setting.guess.contributions
    terms = [
        setting.ring_term(),
        setting.image_term(),
        ImageTerm(setting.prior, general.problem.geometry, data, general.problem.variance, held),
    ]
    for index, (context, guess, means) in enumerate(setting.contexts()):
        found = []
        for term in terms:
            variables = [m.detach().clone().requires_grad_(True) for m in means]
            stds = [q.std.detach() for q in guess]
            total, *_ = evaluate_scale(setting.prior, index, context.detach(), variables, stds, None, term, 1.0, 1)
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(total.sum(), variables)]))
        assert relative(found[1], found[0]) < 1e-9
        assert relative(found[2], found[0]) < 1e-4


MIXED = Recipe(steps=1, step_size=3.0, objective="expected", optimizer="lbfgs", schedule="whole")
"""One step so long that it helps some images only."""
WILD = [
    MIXED,
    Recipe(steps=6, step_size=3.0, objective="map"),
    Recipe(steps=6, step_size=3.0, objective="map", schedule="sequential"),
    Recipe(steps=6, step_size=0.05, objective="map", optimizer="gradient"),
    Recipe(steps=6, step_size=0.05, objective="map", beta=3.0),
    Recipe(steps=6, step_size=50.0),
    Recipe(steps=6, step_size=0.03),
    Recipe(steps=4, step_size=0.03, schedule="sequential"),
    Recipe(steps=4, step_size=0.1, schedule="whole"),
    Recipe(steps=6, step_size=0.1, objective="map", optimizer="lbfgs"),
    Recipe(steps=6, step_size=30.0, objective="map", optimizer="lbfgs", schedule="whole"),
    Recipe(steps=6, step_size=0.1, objective="expected", optimizer="lbfgs", schedule="whole"),
    Recipe(steps=4, step_size=0.1, objective="expected", schedule="sequential"),
    Recipe(steps=6, step_size=1.0, metric="raw", optimizer="gradient", loss="l1", objective="map"),
]


@pytest.mark.parametrize("recipe", WILD)
@pytest.mark.parametrize("seed", [0, 1])
def test_refinement_never_ends_worse_than_its_guess(recipe, seed):
    setting = Setting("mask", recipe, count=3, seed=seed)
    final, reports, improved = setting.refined()
    before = sum(r.before for r in reports)
    after = sum(r.after for r in reports)
    assert torch.isfinite(after).all()
    assert (after <= before).all()
    assert torch.equal(improved, after < before)
    if recipe is MIXED:
        assert 0 < int(improved.sum()) < 3
    if recipe.objective == "map" and recipe.loss == "likelihood" and recipe.beta == 1.0:
        kept = setting.total(setting.guess)
        # per image: the sum of the scales' objectives is the whole one, since rings do not touch
        torch.testing.assert_close(before, kept)
        if improved.all():
            torch.testing.assert_close(after, setting.total(final))
    # an image that did not improve is the guess itself
    for found, kept in zip(final.scales, setting.guess.scales, strict=True):
        torch.testing.assert_close(found.contribution[~improved], kept.contribution[~improved], rtol=0, atol=0)
        assert all((o[~improved] == 0).all() for o in found.offsets)


@pytest.mark.parametrize("step_size", [0.05, 30.0])
@pytest.mark.parametrize("iterations", [1, 50])
def test_refinement_on_the_general_path_never_ends_worse_than_its_guess(step_size, iterations):
    """The promise is about the whole objective, in which the likelihood of the image counts once."""
    recipe = Recipe(steps=6, step_size=step_size, objective="map", iterations=iterations)
    changes = []
    for seed in range(2):
        setting = Setting("blurred mask", recipe, count=3, seed=seed, force_general=True)
        before = setting.total(setting.guess)
        final, _, improved = setting.refined()
        if improved.any():
            # images that fell back hold the guess's contributions beside the refined pass's posteriors: leave them out
            changes.append(float((setting.total(final, improved) - before)[improved].max()))
    # "improved" must mean it: better conjugate-gradient convergence of the same image is no improvement
    assert max(changes, default=-1.0) < 0


def test_refinement_lowers_the_objective():
    for recipe in (Recipe(steps=25, objective="map"), Recipe(steps=25), Recipe(steps=8, schedule="sequential")):
        setting = Setting("mask", recipe, count=3)
        _, reports, improved = setting.refined()
        assert improved.all()
        assert all((r.after <= r.before).all() for r in reports if r.scale == 1)
        assert [r.steps for r in reports] == [recipe.steps] * 6


def test_refining_one_scale_leaves_coarser_ones_alone():
    setting = Setting("mask", Recipe(steps={8: 10}, objective="map", step_size=0.1))
    final, reports, _ = setting.refined()
    assert [r.steps for r in reports] == [0, 0, 0, 10, 0, 0]
    for index in range(3):
        assert torch.equal(final.scales[index].contribution, setting.guess.scales[index].contribution)
    assert not torch.equal(final.scales[3].contribution, setting.guess.scales[3].contribution)


def test_schedules_agree_for_a_scale_of_one_layer():
    """One point step each: no draws and no iterate to choose from, so the schedules must do the same."""
    for step in ({16: 1}, {32: 1}, {2: 1}):
        joint = Setting("mask", Recipe(steps=step, objective="map", step_size=0.05))
        sequential = Setting("mask", Recipe(steps=step, objective="map", step_size=0.05, schedule="sequential"))
        a, b = joint.refined()[0], sequential.refined()[0]
        same = all(torch.equal(x, y) for x, y in zip(a.contributions, b.contributions, strict=True))
        # scale 16 has two layers (they differ), scales 2 and 32 one
        assert same == (16 not in step)
    for size in (0.01, 0.03):
        recipe = Recipe(steps={32: 20}, objective="map", step_size=size)
        joint = Setting("mask", recipe)
        sequential = Setting("mask", replace(recipe, schedule="sequential"))
        (_, a, _), (_, b, _) = joint.refined(), sequential.refined()
        # descent is steady at these steps, so the last iterate is the best one
        torch.testing.assert_close(a[-1].after, b[-1].after)


def run(refiner_recipe, stop, setting):
    refiner = Refiner(setting.prior, refiner_recipe, setting.ring_term(), setting.draw, 1, stop, setting.features)
    with torch.no_grad():
        found = descend(setting.prior, setting.features, len(stop), stop=stop, refine=refiner)
    return found, refiner.reports


@pytest.mark.parametrize("schedule", ["joint", "sequential", "whole"])
@pytest.mark.parametrize("optimizer", ["adam", "gradient", "lbfgs"])
@pytest.mark.parametrize("trust", [0.05, 0.5])
def test_trust_region_is_respected(schedule, optimizer, trust):
    recipe = Recipe(steps=5, step_size=0.5, trust=trust, schedule=schedule, optimizer=optimizer, objective="map")
    setting = Setting("mask", recipe)
    refiner = Refiner(setting.prior, recipe, setting.ring_term(), setting.draw, 1, setting.stop, setting.features)
    reach = []

    def measured(index, context, guess, means):
        refined = refiner(index, context, guess, means)
        far = max(float(((r - m) / q.std).abs().max()) for r, m, q in zip(refined, means, guess, strict=True))
        # one after the other, the guess of a later latent moves with the earlier ones: its reach counts from there
        if schedule == "joint" or len(means) == 1:
            reach.append(far)
        return refined

    with torch.no_grad():
        setting.descend(refine=measured)
    assert max(reach) <= trust * (1 + 1e-9)
    assert max(reach) > 0.2 * trust


@pytest.mark.parametrize("schedule", ["joint", "sequential", "whole"])
def test_offsets_describe_the_refined_solution(schedule):
    """Samples are drawn around the offsets, so at temperature 0 walking down with them must give the solution."""
    recipe = Recipe(steps=5, step_size=0.2, schedule=schedule, objective="map")
    setting = Setting("mask", recipe)
    found, _ = run(recipe, setting.stop, setting)
    with torch.no_grad():
        again = setting.descend([s.offsets for s in found.scales])
    for a, b in zip(again.contributions, found.contributions, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("schedule", ["joint", "sequential", "whole"])
def test_scales_beyond_the_guess_stop_are_the_prior_and_are_not_refined(schedule):
    recipe = Recipe(steps=3, step_size=0.1, schedule=schedule, objective="map")
    setting = Setting("mask", recipe)
    # each tile has its own stop: the first ends at scale 4, the second goes all the way
    found, reports = run(recipe, torch.tensor([2, 5]), setting)
    assert [r.steps for r in reports] == [3] * 6
    for index in range(3, 6):
        for offset in found.scales[index].offsets:
            assert (offset[0] == 0).all()
    assert any((o[1] != 0).any() for o in found.scales[4].offsets)
    alone = Setting("mask", recipe)
    shortest, _ = run(recipe, torch.tensor([2, 2]), alone)
    longest, _ = run(recipe, torch.tensor([5, 5]), alone)
    for mixed, short, long in zip(found.scales, shortest.scales, longest.scales, strict=True):
        torch.testing.assert_close(mixed.contribution[0], short.contribution[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(mixed.contribution[1], long.contribution[1], rtol=1e-9, atol=1e-10)


def test_beyond_the_guess_stop_latents_are_prior_means():
    setting = Setting("mask")
    with torch.no_grad():
        none = descend(setting.prior, None, 2, stop=torch.tensor([5, 5]))
        stopped = descend(setting.prior, setting.features, 2, stop=torch.tensor([-1, -1]))
        part = descend(setting.prior, setting.features, 2, stop=torch.tensor([1, 1]))
    for a, b, c, full in zip(none.scales, stopped.scales, part.scales, setting.guess.scales, strict=True):
        assert torch.equal(a.contribution, b.contribution)
        assert c.contribution.shape == full.contribution.shape
    for index in (0, 1):
        assert torch.equal(part.scales[index].contribution, setting.guess.scales[index].contribution)
    for index in (2, 3):
        for q, p in zip(part.scales[index].guess, stopped.scales[index].guess, strict=True):
            assert q.mean.shape == p.mean.shape
        assert not torch.equal(part.scales[index].contribution, setting.guess.scales[index].contribution)


MODES = {
    "joint": Recipe(steps=3),
    "sequential": Recipe(steps=2, schedule="sequential"),
    "map": Recipe(steps=3, objective="map", guess_stop="auto"),
    "iterative": Recipe(steps=3, mode="iterative"),
    "paper": Recipe(
        steps=2,
        mode="hybrid",
        schedule="sequential",
        objective="map",
        optimizer="gradient",
        metric="raw",
        loss="l1",
        step_size=1e-3,
        closing=False,
    ),
    "lbfgs": Recipe(steps=4, optimizer="lbfgs", objective="expected", schedule="whole", step_size=0.1),
    "lbfgs joint": Recipe(steps=4, optimizer="lbfgs", objective="map", step_size=0.1),
    "warm": Recipe(steps=2, temperature=0.7),
    "sequential auto": Recipe(steps=2, schedule="sequential", objective="map", guess_stop="auto", step_size=0.2),
}


@pytest.mark.parametrize("mode", MODES)
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


def test_batch_is_the_loop_of_singles_on_the_general_path():
    prior, operator = tiny_prior(DOUBLE), operators()["blurred mask"]
    y, noise = measure(operator, 3), GaussianNoise(0.1)
    options = {"noise": noise, "recipe": Recipe(steps=2), "samples": 2, "force_general": True}
    whole = solve(y, operator, prior, **options)
    for i in range(3):
        alone = solve(y[i], operator, prior, **options)
        torch.testing.assert_close(alone.image, whole.image[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.std, whole.std[i], rtol=1e-4, atol=1e-5)


def test_seeds_repeat_and_differ():
    prior, operator = tiny_prior(), operators(torch.float32)["mask"]
    y, noise = measure(operator, 2, dtype=torch.float32), GaussianNoise(SIGMA)

    def found(seed, **changes):
        return solve(y, operator, prior, noise=noise, recipe=Recipe(steps=4, **changes), samples=2, seed=seed)

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
    solve(y, operator, prior, noise=GaussianNoise(SIGMA), recipe=Recipe(steps=1), samples=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_steps_is_the_amortized_guess():
    prior, operator = tiny_prior(), operators(torch.float32)["blur"]
    y, noise = measure(operator, 2, dtype=torch.float32), GaussianNoise(SIGMA)
    amortized = solve(y, operator, prior, noise=noise, recipe=Recipe(mode="amortized", steps=25), samples=2)
    for steps in (0, {}, {16: 0}):
        idle = solve(y, operator, prior, noise=noise, recipe=Recipe(steps=steps), samples=2)
        assert torch.equal(idle.image, amortized.image)
        assert torch.equal(idle.samples, amortized.samples)
        assert not idle.improved.any()
        assert [row["steps"] for row in idle.scales] == [0] * 6
        for row in idle.scales:
            assert torch.equal(row["before"], row["after"])


def test_temperature_spreads_the_estimate():
    prior, operator = tiny_prior(DOUBLE), operators()["identity"]
    y, noise = measure(operator, 1), GaussianNoise(0.5)

    def found(temperature, seed=0):
        recipe = Recipe(mode="amortized", temperature=temperature, closing=False)
        return solve(y, operator, prior, noise=noise, recipe=recipe, seed=seed).image

    cold = found(0.0)
    assert torch.equal(cold, found(0.0, seed=1))
    distances = [relative(found(t), cold) for t in (0.01, 0.1, 1.0)]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert relative(found(1.0, seed=1), found(1.0)) > 0.1 * distances[2]


def test_guess_stop_auto_finds_the_finest_ring_with_evidence():
    prior, noise = tiny_prior(DOUBLE), GaussianNoise(0.05)
    for scale in (2, 8, 32):
        operator = LowPass(scale, SHAPE, DOUBLE)
        y = measure(operator, 2, sigma=0.05)
        auto = solve(y, operator, prior, noise=noise, recipe=Recipe(steps=2, guess_stop="auto"))
        fixed = solve(y, operator, prior, noise=noise, recipe=Recipe(steps=2, guess_stop=scale))
        assert [row["steps"] for row in auto.scales] == [2 if s <= scale else 0 for s in SCALES]
        assert torch.equal(auto.image, fixed.image)


def test_beta_weighs_the_data_term():
    setting = Setting("mask")
    term = setting.ring_term()
    context, guess, means = setting.contexts()[3]
    stds = [q.std for q in guess]

    def value(beta):
        return evaluate_scale(setting.prior, 3, context, means, stds, None, term, beta, 1)[0]

    contribution = evaluate_scale(setting.prior, 3, context, means, stds, None, term, 1.0, 1)[1]
    torch.testing.assert_close(value(2.5) - value(0.5), 2.0 * term(3, contribution))


def test_l1_loss_is_the_sum_over_the_measured_bins_of_the_full_grid():
    setting = Setting("mask", Recipe(loss="l1"))
    term = setting.ring_term()
    assert isinstance(term, RingTerm)
    spectrum, folded = setting.prior.spectrum, setting.problem.data.folded
    h = torch.fft.fft2(
        setting.prior.spectrum.inverse(setting.prior.assemble(setting.guess.contributions)), norm="ortho"
    )
    off = (h - folded.value) * torch.isfinite(folded.variance)
    expected = (off.real.abs() + off.imag.abs()).flatten(1).sum(1)
    found = sum(term(i, c) for i, c in enumerate(setting.guess.contributions))
    torch.testing.assert_close(found, expected)
    assert spectrum.scales == SCALES


@pytest.mark.parametrize("objective", ["map", "variational", "expected"])
def test_steps_evaluate_as_many_layers_as_the_formulas_say(objective):
    counts = [len(tiny_prior(DOUBLE).layers(i)) for i in range(len(SCALES))]
    for schedule, layers in (("joint", sum(counts)), ("sequential", sum(m * (m + 1) // 2 for m in counts))):
        prior = CountedPrior(tiny_prior(DOUBLE))
        y = measure(operators()["mask"], 1)
        recipe = Recipe(steps=3, schedule=schedule, objective=objective)
        solve(y, operators()["mask"], prior, noise=GaussianNoise(SIGMA), recipe=recipe, warn=False)
        assert prior.with_gradient == 3 * layers
