"""Priors over complex images and over several channels: bookkeeping, training, solving."""

import json
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from flat_recipes import recipe_of
from refining import Setting
from tiny import decaying_power, images, relative, tiny_network, tiny_prior
from watching import at_validation

from iasolve import HVAEPrior, load_prior, solve
from iasolve.evidence import evidence
from iasolve.networks import HVAE, NetworkConfig
from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, LowPass, gaussian_kernel, line_mask
from iasolve.priors import save_checkpoint
from iasolve.priors.activity import latent_activity
from iasolve.priors.likeness import image_elbo, ring_statistics
from iasolve.spectrum import fft2
from iasolve.training import Degradation, DegradationMix, Objective, Trainer, TrainingConfig, train

SHAPE = (1, 32, 32)
SIGMA = 0.1
NOISE = GaussianNoise(SIGMA)
C64, C128 = torch.complex64, torch.complex128


def masked(dtype=C64, shape=SHAPE):
    return KSpaceMask(line_mask(shape[1:], 3, 0.15, seed=1), shape, dtype)


def measure(a, x, seed=0):
    return NOISE.sample(a(x), torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------- bookkeeping


@pytest.mark.parametrize("dtype", [torch.float64, C128])
@pytest.mark.parametrize("domain", ["spatial", "spectral"])
def test_squared_errors_agree_between_pixels_and_rings(dtype, domain):
    """Parseval, ring by ring, of whatever a decoder puts out against an image."""
    network = tiny_network(is_complex=dtype.is_complex, head_domain=domain, channels=2).double()
    spectrum, x = network.spectrum, images(4, dtype=dtype).reshape(2, 2, 32, 32)
    contexts, context = [], None
    with torch.no_grad():
        for index in range(6):
            context = network.stage(index).enter(context, 2)
            contexts.append(context)
        rings = network.contributions(contexts)
        h = network.assemble(rings)
    decoded = spectrum.inverse(h)
    assert decoded.dtype == dtype
    torch.testing.assert_close(spectrum.transform(decoded), h)
    in_rings = spectrum.ring_sums((spectrum.transform(x) - h).abs().square())
    in_pixels = (x - decoded).abs().square().sum((-2, -1))
    torch.testing.assert_close(in_rings.sum(-1), in_pixels)
    assert int(spectrum.bins_per_ring.sum()) == 32**2
    # what a ring holds, alone, is an image whose other rings are empty
    for index in range(6):
        only = [r if i == index else torch.zeros_like(r) for i, r in enumerate(rings)]
        alone = spectrum.ring_sums(spectrum.transform(spectrum.inverse(network.assemble(only))).abs().square())
        assert float(alone[..., index].sum()) > 0
        alone[..., index] = 0
        assert float(alone.max()) < 1e-25


def test_the_elbo_of_complex_images_counts_complex_values_once():
    """A complex Gaussian of variance v: -log density is |r|^2 / v + log v (and log pi, left out everywhere)."""
    network = tiny_network(is_complex=True)
    network.sigma_x.fill_(0.01)
    x = images(4, dtype=C64)
    objective = Objective(network).eval()
    with torch.no_grad():
        torch.manual_seed(0)
        losses = objective(x, None)
    rings, sigma2 = network.spectrum.bins_per_ring, network.sigma_x.square()
    gaussian = (rings * (losses.ring_mse / sigma2 + sigma2.log())).sum() / 32**2
    torch.testing.assert_close(losses.elbo, -(gaussian + losses.kl))
    torch.testing.assert_close(losses.mse, (rings * losses.ring_mse).sum() / 32**2)


@pytest.mark.parametrize("noise", ["real", "complex"])
def test_degradations_of_complex_images_are_complex_and_unfolded(noise):
    count = 400
    x = images(1, dtype=C64).repeat(count, 1, 1, 1)
    found = DegradationMix.apply([Degradation(1.0, (0.3, 0.3), noise)] * count, x, np.random.default_rng(0))
    torch.testing.assert_close(found.variance, torch.full_like(found.variance, 0.09))
    error = found.value - fft2(x)
    assert float(error.abs().square().mean() / 0.09) == pytest.approx(1.0, abs=0.02)
    # circular: real and imaginary parts alike and uncorrelated
    assert float(error.real.square().mean() / error.imag.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert abs(float((error.real * error.imag).mean())) < 0.001
    mask = {"kind": "lines", "acceleration": (3, 3), "centre": (0.1, 0.1)}
    lines = DegradationMix.apply([Degradation(1.0, (0.3, 0.3), noise, (mask,))], x[:1], np.random.default_rng(0))
    # a real image's lines come in pairs, a complex image's do not
    measured = torch.isfinite(lines.variance[0, 0])
    mirrored = torch.roll(torch.flip(measured, (-2, -1)), (1, 1), (-2, -1))
    assert not torch.equal(measured, mirrored)
    seen = evidence(lines, decaying_power().float()[None], tiny_prior(is_complex=True).spectrum)
    assert seen.image.is_complex()
    assert seen.profile.shape == (1, 2, 6)


# ------------------------------------------------------------------------------------------- solving


@pytest.mark.parametrize("objective", ["map", "variational"])
@pytest.mark.parametrize("index", [0, 3, 5])
def test_gradient_of_a_complex_scale_is_the_finite_difference(objective, index):
    prior, a = tiny_prior(torch.float64, is_complex=True), masked(C128)
    y = measure(a, images(1, dtype=C128))
    setting = Setting(recipe_of(objective=objective), prior, a, y, SIGMA)
    assert setting.problem.folded is not None
    part = setting.parts[index]
    means = setting.latents[part.first : part.end]
    generator = torch.Generator().manual_seed(0)
    directions = [torch.randn(m.shape, generator=generator, dtype=torch.float64) for m in means]
    draws = None
    if objective == "variational":
        draws = [torch.randn(m.shape, generator=generator, dtype=torch.float64) for m in means]

    def value(step):
        moved = [m + step * d for m, d in zip(means, directions, strict=True)]
        return setting.value(part, moved, draws)[0].sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(value(step), step)
    with torch.no_grad():
        h = 1e-5
        expected = (value(torch.tensor(h)) - value(torch.tensor(-h))) / (2 * h)
    assert float(gradient) == pytest.approx(float(expected), rel=1e-6)


OPERATORS = {
    "mask": masked(),
    "identity": Identity(SHAPE, C64),
    "blur": CircularBlur(gaussian_kernel(1.0), SHAPE, C64),
    "low-pass": LowPass(8, SHAPE, C64),
}


@pytest.mark.parametrize(
    ("name", "blocks"), [("mask", "scale"), ("identity", "latent"), ("blur", "whole"), ("low-pass", "scale")]
)
@pytest.mark.slow
def test_complex_images_are_solved(name, blocks):
    a, prior = OPERATORS[name], tiny_prior(is_complex=True)
    y = measure(a, images(2, dtype=C64))
    assert y.is_complex()
    result = solve(y, a, prior, noise=NOISE, recipe=recipe_of(steps=2, blocks=blocks, samples=2), warn=False)
    assert result.image.shape == (2, 1, 32, 32)
    assert result.image.dtype == C64
    assert result.std.dtype == torch.float32
    assert result.samples.shape == (2, 2, 1, 32, 32)
    assert (result.std > 0).all()
    assert float(result.image.imag.abs().mean()) > 0
    assert result.improved.all()
    if name != "blur":
        # of next to exact data, what the operator lets through comes back: nothing takes a real part on the way
        known = solve(y, a, prior, noise=GaussianNoise(1e-4), recipe=recipe_of(steps=0), warn=False)
        assert relative(a(known.image), a(a.adjoint(y))) < 0.01


def test_the_complex_general_path_agrees_with_the_diagonal_one():
    prior = tiny_prior(torch.float64, is_complex=True)
    a = CircularBlur(gaussian_kernel(1.0), SHAPE, C128)
    y = measure(a, images(2, dtype=C128))
    recipe = recipe_of(steps=4, objective="map")
    one, two = (
        solve(y, a, prior, noise=NOISE, recipe=recipe, warn=False, force_general=force, iterations=200)
        for force in (False, True)
    )
    assert relative(two.image, one.image) < 0.05


def test_without_noise_a_complex_measurement_is_met_exactly():
    a, prior = masked(C128), tiny_prior(torch.float64, is_complex=True)
    y = a(images(2, dtype=C128))
    result = solve(y, a, prior, noise=GaussianNoise(0.0), recipe=recipe_of(steps=2), warn=False)
    assert relative(a(result.image), y) < 1e-6


@pytest.mark.parametrize("fit", ["canvas", "field-of-view"])
def test_a_complex_image_of_another_size(fit):
    a = masked(C64, (1, 48, 40))
    x = images(1, size=64, dtype=C64)[..., :48, :40]
    y = measure(a, x)
    result = solve(y, a, tiny_prior(is_complex=True), noise=NOISE, recipe=recipe_of(steps=2), fit=fit, warn=False)
    assert result.image.shape == (1, 1, 48, 40)
    assert result.image.is_complex()


def test_a_global_phase_of_the_measurement_leaves_the_scale_alone():
    a, prior = masked(), tiny_prior(is_complex=True)
    y = measure(a, images(1, dtype=C64))
    one, two = (
        solve(v, a, prior, noise=NOISE, recipe=recipe_of(steps=0), warn=False) for v in (y, y * torch.tensor(1j))
    )
    torch.testing.assert_close(one.gain, two.gain)


# ------------------------------------------------------------------------------------------- channels


def colour(count, seed=0):
    """Images whose channels differ in power, as ring statistics per channel must notice."""
    x = images(3 * count, seed).reshape(count, 3, 32, 32)
    return x * torch.tensor([1.0, 0.5, 0.25])[:, None, None]


def colour_prior(**changes):
    network = tiny_network(channels=3, **changes)
    for statistic in (network.ring_std, network.sigma_x):
        statistic.mul_(torch.tensor([1.0, 0.5, 0.25])[:, None])
    network.power.mul_(torch.tensor([1.0, 0.25, 0.0625])[:, None, None])
    return HVAEPrior(network, "colour", {})


@pytest.mark.parametrize("decoder", ["separable", "vanilla"])
def test_channels_have_their_own_noise_level(decoder):
    prior = colour_prior(decoder=decoder)
    network, x = prior.network, colour(4)
    objective = Objective(network, track=1.0)
    folded = DegradationMix([Degradation(1.0, (0.1, 0.2))])(x[:2], np.random.default_rng(0))
    losses = objective(x, folded)
    assert losses.ring_mse.shape == (3, 6)
    objective.follow({name: value.detach() for name, value in losses._asdict().items()})
    torch.testing.assert_close(network.sigma_x.square(), losses.ring_mse.detach())
    losses = objective.eval()(x, None)
    rings, sigma2 = network.spectrum.bins_per_ring, network.sigma_x.square()
    gaussian = 0.5 * (rings * (losses.ring_mse / sigma2 + sigma2.log())).sum() / (3 * 32**2)
    torch.testing.assert_close(losses.elbo, -(gaussian + losses.kl))


@pytest.mark.parametrize("decoder", ["separable", "vanilla"])
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.slow
def test_colour_images_are_solved(decoder, general):
    shape = (3, 32, 32)
    a = CircularBlur(gaussian_kernel(0.8), shape)
    x = colour(2)
    y = measure(a, x)
    result = solve(
        y,
        a,
        colour_prior(decoder=decoder),
        noise=NOISE,
        recipe=recipe_of(steps=2, samples=2),
        warn=False,
        force_general=general,
    )
    assert result.image.shape == result.std.shape == (2, *shape)
    assert result.improved.all()
    assert result.gain.shape == (2,)
    # each channel is its own, and the weakest is the least certain relative to itself
    assert all(relative(result.image[:, c], x[:, c]) < 1.0 for c in range(3))


def test_likeness_of_colour_images_is_one_number_an_image():
    prior, x = colour_prior(), colour(12)
    assert image_elbo(prior, x).shape == (12,)
    assert len(ring_statistics(prior.spectrum, x)["mean"]) == 3


# ------------------------------------------------------------------------------------------- training


def training_config(folder, decoder="separable", **network):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    discs = [
        200 / (1 + np.exp(np.hypot(y - rng.uniform(5, 11), x - rng.uniform(5, 11)) - rng.uniform(2, 5)))
        for _ in range(24)
    ]
    np.savez(folder / "discs.npz", images=np.stack(discs).round().astype(np.uint8))
    return TrainingConfig.from_dict(
        {
            "name": "discs",
            "network": {
                "size": 16,
                "is_complex": True,
                "widths": [8] * 5,
                "layers": [1] * 5,
                "latents": [2] * 5,
                "encoder_blocks": [1] * 5,
                "grid_cap": 8,
                "head_blocks": 1,
                "decoder": decoder,
            }
            | network,
            "data": {
                "path": "discs.npz",
                "validation_every": 4,
                "phase": {"constant": 0.5, "linear": 0.5, "smooth": 0.3},
            },
            "augmentation": {"shift": 2.0},
            "degradations": [
                {"sigma": [0.05, 1.0]},
                {
                    "sigma": [0.01, 0.1],
                    "transfer": [{"kind": "lines", "acceleration": [2, 4], "centre": [0.1, 0.2]}],
                },
            ],
            "optimisation": {
                "images": 48,
                "batch": 8,
                "warmup": 3,
                "kl_warmup": 32,
                "validate_every": 24,
                "learning_rate": 2e-3,
                "decay": 0.0,
            },
        },
        folder,
    )


@pytest.fixture(autouse=True)
def _quick_statistics(monkeypatch):
    monkeypatch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=8))


@pytest.mark.parametrize(
    ("decoder", "domain"), [("separable", "spatial"), ("separable", "spectral"), ("vanilla", "spatial")]
)
@pytest.mark.slow
def test_a_complex_prior_is_trained_saved_and_used(tmp_path, decoder, domain):
    config = training_config(tmp_path, decoder, head_domain=domain)
    rows = []
    path = train(config, tmp_path / "run", callback=at_validation(rows.append))
    assert rows[-1]["val_elbo"] > rows[0]["val_elbo"]
    assert rows[-1]["skipped"] == 0
    prior = load_prior(path)
    assert prior.spectrum.is_complex
    assert prior.separable == (decoder == "separable")
    assert float(prior.power.sum() / 16**2) == pytest.approx(1.0, abs=0.05)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["architecture"]["decoder"] == decoder
    x = config.data.phase(torch.rand(2, 1, 16, 16), np.random.default_rng(5))
    a = KSpaceMask(line_mask((16, 16), 2, 0.2, seed=0), (1, 16, 16), C64)
    result = solve(measure(a, x), a, prior, noise=NOISE, recipe=recipe_of(steps=2), warn=False)
    assert result.image.is_complex()
    assert torch.isfinite(torch.view_as_real(result.image)).all()
    assert len(latent_activity(prior, x)) == 5


@pytest.mark.slow
def test_an_interrupted_vanilla_run_resumes_bit_for_bit(tmp_path):
    config = training_config(tmp_path, "vanilla")
    config = replace(config, optimisation=replace(config.optimisation, images=16, validate_every=8))
    whole = train(config, tmp_path / "whole")

    class StopHereError(Exception):
        pass

    def interrupt(row):
        if row["images"] == 8:
            raise StopHereError

    with pytest.raises(StopHereError):
        train(config, tmp_path / "parts", callback=at_validation(interrupt))
    assert train(config, tmp_path / "parts", resume=True).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("decoder", "is_complex"), [("separable", True), ("vanilla", True)])
@pytest.mark.slow
def test_checkpoints_keep_kind_and_channels(tmp_path, decoder, is_complex):
    network = tiny_network(decoder=decoder, is_complex=is_complex, channels=2)
    path = tmp_path / "a.safetensors"
    save_checkpoint(network, {"name": "a"}, path)
    found = load_prior(path).network
    assert found.config == network.config
    for name, value in network.state_dict().items():
        close = value if name in ("power", "ring_std", "sigma_x") else value.half().float()
        assert torch.equal(found.state_dict()[name], close)


def test_a_card_from_before_there_was_a_choice_of_decoder_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    network = tiny_network()
    save_checkpoint(network, {"name": "a"}, path)
    card = json.loads(path.with_suffix(".json").read_text())
    del card["architecture"]["decoder"]
    path.with_suffix(".json").write_text(json.dumps(card))
    assert load_prior(path).network.config == network.config
    assert isinstance(HVAE(NetworkConfig.from_dict(card["architecture"])), HVAE)
