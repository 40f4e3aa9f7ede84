"""What a refinement step costs where the operator is not diagonal: applications counted, and no network layer more."""

import pytest
import torch
from counting import CountedPrior
from flat_recipes import recipe_of
from tiny import SIZE, decaying_power, images, relative, tiny_prior

from iasolve import solve
from iasolve.operators import (
    BlockAverage,
    GaussianNoise,
    Identity,
    LinearOperator,
    PixelMask,
    SensitivityEncoding,
    birdcage_maps,
)
from iasolve.operators.shift import CircularShift
from iasolve.operators.whitening import Weighting
from iasolve.problem import OperatorLikelihood, Probed
from iasolve.spectrum import fft2, ifft2, rings_at

SIGMA = 0.05
EXACT = Identity((1, SIZE, SIZE), torch.float64)


class Counted(LinearOperator):
    """Multi-coil k-space whose applications are counted; the general path knows no short cut for it."""

    def __init__(self):
        maps = birdcage_maps((SIZE, SIZE), 3)
        self.encoding = (SensitivityEncoding(maps, torch.arange(SIZE) % 2 == 0, torch.float64),)  # no submodule
        super().__init__((1, SIZE, SIZE), (3, SIZE, SIZE), in_dtype=torch.float64, out_dtype=torch.complex128)
        self.forwards = self.adjoints = 0

    def forward(self, x):
        self.forwards += 1
        return self.encoding[0](x)

    def adjoint(self, y):
        self.adjoints += 1
        return self.encoding[0].adjoint(y)

    def counts(self):
        return self.forwards, self.adjoints


@pytest.fixture
def measured():
    operator = Counted()
    x = images(2, seed=1, dtype=torch.float64)
    y = GaussianNoise(SIGMA).sample(operator(x), torch.Generator().manual_seed(0))
    return operator, y


@pytest.mark.parametrize("iterations", [1, 3, 6])
def test_a_step_costs_j_applications_and_one_for_its_value(measured, iterations):
    operator, y = measured
    data = OperatorLikelihood(operator, y, torch.full((2,), SIGMA, dtype=torch.float64), iterations)
    variance = torch.full((1, SIZE, SIZE), 0.1, dtype=torch.float64)
    spent, start = [], None
    for seed in range(4):
        before = operator.counts()
        x0 = images(2, seed=seed, dtype=torch.float64).requires_grad_(True)
        nats, start = data.value(x0, variance, start)
        torch.autograd.grad(nats.sum(), x0)
        spent.append(tuple(b - a for a, b in zip(before, operator.counts(), strict=True)))
    # the first has no product to start from; the value of the objective takes one A more
    assert spent == [(iterations + 2, iterations + 1)] + [(iterations + 1, iterations)] * 3


@pytest.mark.slow
def test_steps_cost_no_layer_more_than_on_the_exact_path(measured):
    """And J + 1 applications of A each, J of the adjoint, as :class:`Recipe` says."""
    operator, y = measured
    iterations, spent = 2, []

    def recorded(self, x0, variance, start=None, original=OperatorLikelihood.value):
        before = operator.counts()
        value = original(self, x0, variance, start)
        spent.append(tuple(b - a for a, b in zip(before, operator.counts(), strict=True)))
        return value

    layers = {}
    for name in ("general", "exact"):
        prior = CountedPrior(tiny_prior(torch.float64))
        options = {"recipe": recipe_of(steps=5), "iterations": iterations, "warn": False}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OperatorLikelihood, "value", recorded)
            if name == "general":
                solve(y, operator, prior, noise=GaussianNoise(SIGMA), **options)
            else:
                solve(y[:, :1].real, EXACT, prior, noise=GaussianNoise(SIGMA), **options)
        layers[name] = prior.with_gradient
    scales = len(tiny_prior().spectrum.scales)
    assert layers["general"] == layers["exact"] > 0
    assert len(spent) == 5 * scales
    assert max(spent) == (iterations + 2, iterations + 1)
    # one solve a scale, the first, begins elsewhere: comparisons came between
    assert spent.count((iterations + 1, iterations)) >= 4 * scales


@pytest.mark.parametrize("size", [SIZE, SIZE - 4])
def test_the_profile_of_an_operator_is_probed_once(size, monkeypatch):
    """Also where the operator is put onto a larger grid, which makes another object of it in every call."""
    operator = SensitivityEncoding(birdcage_maps((size, size), 3), torch.arange(size) % 2 == 0, torch.float64)
    y = GaussianNoise(SIGMA).sample(operator(images(2, size=size, dtype=torch.float64)))
    sent = []

    def counted(self, sigma, original=Probed.profile):
        sent.append(sigma)
        return original(self, sigma)

    monkeypatch.setattr(Probed, "profile", counted)
    for _ in range(2):
        solve(y, operator, tiny_prior(torch.float64), noise=GaussianNoise(SIGMA), recipe="fast", warn=False)
    # once for each noise level in units of the image, not again in the second call
    assert len(sent) == len(set(sent)) <= 2


@pytest.mark.parametrize("name", ["coils", "pixels"])
def test_the_profile_is_that_of_the_resolution_matrix(name):
    """Mean, and mean square within the ring, of ``(A^H A / s^2 + 1 / P)^-1 A^H A / s^2``, real images of complex data.

    One probe a ring tells both where there are frequencies enough. Of the others, which are known well, it tells as
    much: coarse rings of sampled pixels were taken for as well known as there were pixels.
    """
    size, chosen, weight = {"coils": (16, (3, 4), 2), "pixels": (32, (0, 1, 2), 1)}[name]
    known = torch.rand(size, size, generator=torch.Generator().manual_seed(0)) < 0.5
    lines = torch.arange(size) % 2 == 0
    operator = {
        "coils": SensitivityEncoding(birdcage_maps((size, size), 3), lines, torch.float64),
        "pixels": PixelMask(known, (1, size, size), torch.float64),
    }[name]
    power = decaying_power(size)[None]
    rings = rings_at((size, size), size, torch.device("cpu"))
    told = Probed(operator, operator(torch.ones(1, 1, size, size).double()), power, rings).profile(SIGMA)
    pixels = torch.eye(size * size, dtype=torch.float64).reshape(-1, 1, size, size)
    waves = fft2(pixels).flatten(1).mT
    seen = waves @ (weight / SIGMA**2 * operator.gram(pixels).flatten(1)).to(waves) @ waves.mH
    resolution = torch.linalg.solve(seen + torch.diag(1 / power.flatten()).to(seen), seen)
    for ring in chosen:
        inside = (rings.owner == ring).flatten()
        block = resolution[inside][:, inside]
        exact = block.diagonal().real.mean(), block.abs().square().sum(1).mean()
        torch.testing.assert_close(told[:, ring], torch.stack(exact), rtol=0, atol=0.05)


def test_of_coils_the_profile_is_that_of_what_they_see():
    """The air around an object was counted as not known: of a head coarse rings as known by 0.65 to 0.8, not by 1."""
    size = 32
    across = torch.arange(size, dtype=torch.float64) - size / 2 + 0.5
    disc = (across[:, None] ** 2 + across**2).sqrt() < 11
    operator = SensitivityEncoding(birdcage_maps((size, size), 3) * disc, torch.arange(size) % 2 == 0, torch.float64)
    power = decaying_power(size)[None]
    rings = rings_at((size, size), size, torch.device("cpu"))
    probed = Probed(operator, operator(torch.ones(1, 1, size, size).double()), power, rings)
    told = probed.profile(SIGMA)
    pixels = torch.eye(size * size, dtype=torch.float64).reshape(-1, 1, size, size)
    gram = 2 / SIGMA**2 * operator.gram(pixels).flatten(1)
    inverse = ifft2(fft2(pixels) / power).real.flatten(1)
    inside = disc.flatten().double()
    seen = inside[:, None] * torch.linalg.solve(gram + inverse, gram) * inside
    waves = fft2(pixels).flatten(1).mT
    for ring in (1, 2, 3, 4):
        chosen = waves[(rings.owner == ring).flatten()]
        block = chosen @ seen.to(waves) @ chosen.mH
        most = (chosen @ torch.diag(inside).to(waves) @ chosen.mH).diagonal().real.sum()
        assert abs(float(told[0, ring]) - float(block.diagonal().real.sum() / most)) < 0.05
    assert float(told[0, :3].min()) > 0.95


def test_the_result_tells_what_conjugate_gradients_did(measured):
    operator, y = measured
    loose, tight = (
        solve(
            y,
            operator,
            tiny_prior(torch.float64),
            noise=GaussianNoise(SIGMA),
            recipe=recipe_of(steps=0),
            warn=False,
            tolerance=tolerance,
        )
        for tolerance in (1e-2, 1e-8)
    )
    assert loose.solver["residual"].shape == loose.solver["applications"].shape == (2,)
    assert (tight.solver["residual"] < 1e-2 * loose.solver["residual"]).all()
    assert (tight.solver["applications"] > loose.solver["applications"]).all()
    noise = GaussianNoise(SIGMA)
    exact = solve(y[:, :1].real, EXACT, tiny_prior(torch.float64), noise=noise, recipe="fast", warn=False)
    assert exact.solver is None


def test_the_stopping_rule_leaves_little_of_the_posteriors_width(measured):
    """What is left of the exponent after stopping is about ten times the tolerance, not a thousand times."""
    operator, y = measured
    sigma = torch.full((2,), SIGMA, dtype=torch.float64)
    x0, variance = torch.zeros(2, 1, SIZE, SIZE, dtype=torch.float64), tiny_prior(torch.float64).power
    exact = OperatorLikelihood(operator, y, sigma, tolerance=0)
    target = exact.mean(x0, variance, iterations=1000)
    least = exact._value(target, x0, variance)
    for tolerance in (1e-2, 1e-4):
        data = OperatorLikelihood(operator, y, sigma, tolerance=tolerance)
        left = (exact._value(data.mean(x0, variance), x0, variance) - least) / x0[0].numel()
        assert (left < 30 * tolerance).all()
        assert data.solves.applications < exact.solves.applications


def test_few_values_measured_do_not_end_the_solves_early():
    """Dense random rows on white pixels: what an iteration gains is little per pixel, and much per value."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, SIZE * SIZE, generator=generator, dtype=torch.float64)
    operator = LinearOperator.from_functions(
        lambda x: x.flatten(-3) @ rows.T,
        lambda y: (y @ rows).unflatten(-1, (1, SIZE, SIZE)),
        in_shape=(1, SIZE, SIZE),
        dtype=torch.float64,
    )
    y = operator(torch.randn(1, 1, SIZE, SIZE, generator=generator, dtype=torch.float64))
    variance = tiny_prior(torch.float64).power
    data = OperatorLikelihood(operator, y, torch.full((1,), 0.1, dtype=torch.float64))
    x0 = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    found = data.mean(x0, variance)
    exact = OperatorLikelihood(operator, y, torch.full((1,), 0.1, dtype=torch.float64), tolerance=0)
    assert relative(found, exact.mean(x0, variance, iterations=1000)) < 0.02


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_the_estimate_of_sampled_pixels_has_no_holes(share):
    """Iterations that each gain little were taken for the end: twice the exact estimate's error."""
    shape, generator = (1, SIZE, SIZE), torch.Generator().manual_seed(0)
    operator = PixelMask(torch.rand(SIZE, SIZE, generator=generator) < share, shape, torch.float64)
    power = decaying_power(SIZE)[None]
    truth = ifft2(power.sqrt() * fft2(torch.randn(16, *shape, generator=generator, dtype=torch.float64))).real
    y = operator(truth)
    found = OperatorLikelihood(operator, y, torch.full((16,), 0.02, dtype=torch.float64)).mean(0 * truth, power)
    # by the covariance of all pixels
    unit = torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, *shape)
    covariance = ifft2(power * fft2(unit)).real.flatten(1)
    known = operator.mask.flatten() > 0
    noisy = covariance[known][:, known] + 0.02**2 * torch.eye(int(known.sum()), dtype=torch.float64)
    exact = (covariance[:, known] @ torch.linalg.solve(noisy, y.flatten(1)[:, known].T)).T.reshape(truth.shape)
    error, least = ((image - truth).square().mean() for image in (found, exact))
    assert error < 1.05 * least


@pytest.mark.parametrize("name", ["pixels", "blocks", "weighted"])
def test_orthogonal_rows_and_a_white_prior_need_no_iterations(name):
    shape = (1, SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    pixels = PixelMask(torch.rand(SIZE, SIZE, generator=generator) < 0.4, shape, torch.float64)
    operator = {
        "pixels": pixels @ CircularShift((1, -2), shape, torch.float64),
        "blocks": BlockAverage(2, shape, torch.float64),
        "weighted": Weighting(0.5 + torch.rand(shape, generator=generator), shape, torch.float64) @ pixels,
    }[name]
    y = operator(torch.randn(3, *shape, generator=generator, dtype=torch.float64))
    sigma = torch.tensor([0.05, 0.3, 2.0], dtype=torch.float64)
    x0 = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    white = torch.full(shape, 0.2**2, dtype=torch.float64)
    closed = OperatorLikelihood(operator, y, sigma)
    found = closed.mean(x0, white)
    assert closed.solves.applications == 1
    # by iterations: an operator that does not say what it is
    plain = LinearOperator.from_functions(operator.forward, operator.adjoint, in_shape=shape, dtype=torch.float64)
    iterated = OperatorLikelihood(plain, y, sigma, tolerance=0)
    torch.testing.assert_close(found, iterated.mean(x0, white, 1000), rtol=1e-8, atol=1e-9)
    assert iterated.solves.applications > 1
    # and per image, as closing has it
    levels = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).reshape(3, 1, 1, 1).expand_as(x0)
    torch.testing.assert_close(closed.mean(x0, levels), iterated.mean(x0, levels, 1000), rtol=1e-8, atol=1e-9)
