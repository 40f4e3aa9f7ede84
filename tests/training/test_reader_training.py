"""Training the reader: its objective, its part of the loop, and its weights on disk."""

import json
import math
from functools import partialmethod

import numpy as np
import pytest
import torch
from test_training import SIZE, blobs, config_data

from iasolve import PriorError, load_prior
from iasolve.evidence import Folded, fold, wiener_posterior
from iasolve.networks import Reader, ReaderConfig, Reading
from iasolve.priors import list_priors
from iasolve.priors.reader import load_reader, reader_beside
from iasolve.spectrum import fft2, uneven_variance
from iasolve.training import (
    CHECKED,
    ReaderObjective,
    Streams,
    Trainer,
    TrainingConfig,
    calibrate,
    train,
    validate_reader,
)
from iasolve.training.degradations import Degradation
from iasolve.training.parts import part_of

READER = {
    "widths": [8, 12],
    "blocks": [1, 1],
    "embedding": 16,
    "crops": 0.25,
    "crop": 8,
    "optimisation": {"degraded": 1.0, "learning_rate": 1e-2, "images": 160, "validate_every": 80},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("reader")
    np.savez(path / "blobs.npz", images=blobs(), label=np.arange(24) % 3, number=np.arange(100, 124))
    return path


@pytest.fixture(scope="module", autouse=True)
def _quick_statistics():
    patch = pytest.MonkeyPatch()
    patch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=8))
    yield
    patch.undo()


def config(folder, **changes):
    return TrainingConfig.from_dict(config_data() | {"reader": READER | changes}, folder)


@pytest.fixture(scope="module")
def trained(folder):
    return train(config(folder), folder / "run", part="reader")


def test_a_reader_is_trained_logged_and_exported_beside_the_hierarchy(trained, folder):
    assert trained == folder / "run" / "blobs.reader.safetensors"
    rows = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["val_error"] < rows[0]["val_error"]
    assert {"psnr_noise_0.1", "expected"} <= {k.removeprefix("val_") for k in rows[-1]}
    reader, card = load_reader(trained)
    assert card["kind"] == "reader"
    assert card["training"]["images"] == rows[-1]["images"]
    assert isinstance(reader, Reader)
    assert not reader.training
    assert reader_beside(trained.with_name("blobs.safetensors")) == trained
    assert reader_beside(trained.with_name("other.safetensors")) is None


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_for_bit(trained, folder):
    half = READER["optimisation"]["images"] // 2
    first = config(folder, optimisation=READER["optimisation"] | {"images": half})
    train(first, folder / "halves", part="reader")
    resumed = train(config(folder), folder / "halves", part="reader", resume=True)
    assert load_reader(resumed)[1]["sha256"] == load_reader(trained)[1]["sha256"]


@pytest.mark.slow
def test_an_interrupted_run_of_muon_goes_on_bit_for_bit(folder):
    both = [READER["optimisation"] | {"optimizer": "muon", "images": images} for images in (160, 80)]
    whole = train(config(folder, optimisation=both[0]), folder / "muon", part="reader")
    train(config(folder, optimisation=both[1]), folder / "muon halves", part="reader")
    resumed = train(config(folder, optimisation=both[0]), folder / "muon halves", part="reader", resume=True)
    assert load_reader(resumed)[1]["sha256"] == load_reader(whole)[1]["sha256"]
    rows = [json.loads(line) for line in (folder / "muon" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["val_error"] < rows[0]["val_error"]


@pytest.mark.slow
def test_a_reader_takes_a_hierarchys_power_or_a_readers_weights(trained, folder):
    prior = train(config(folder), folder / "hierarchy")
    trainer = Trainer(config(folder), folder / "third", part="reader")
    trainer.initialise(prior)
    assert torch.equal(trainer.network.power, load_prior(prior).power)
    assert trainer.progress.images == 0
    trainer.initialise(trained)
    ours, theirs = trainer.network.state_dict(), load_reader(trained)[0].state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert trainer.progress.images == load_reader(trained)[1]["training"]["images"]


def test_a_reader_of_another_prior_gives_its_weights_alone(trained, folder):
    data = config_data() | {"name": "others", "reader": READER}
    trainer = Trainer(TrainingConfig.from_dict(data, folder), folder / "others", part="reader")
    trainer.measure_statistics()
    own = trainer.network.power.clone()
    trainer.initialise(trained)
    ours, theirs = trainer.network.state_dict(), load_reader(trained)[0].state_dict()
    assert torch.equal(trainer.network.power, own)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs if k != "power")
    assert trainer.progress.images == 0


@pytest.mark.slow
def test_calibration_moves_the_expected_error_alone(trained, folder):
    reader, card = load_reader(trained)
    images = torch.randn(100, *reader.power.shape, generator=torch.Generator().manual_seed(3))
    before = {k: v.clone() for k, v in reader.state_dict().items()}
    # white images of the reader's power are what its Wiener posterior expects: the error's head has much to learn
    mix = config(folder).degradations
    spread = validate_reader(reader, images, mix)["spread"]
    assert calibrate(reader, images, mix, steps=40)
    changed = {k for k, v in reader.state_dict().items() if not torch.equal(v, before[k])}
    assert {name.split(".")[0] for name in changed} == {"error", "spread"}
    assert validate_reader(reader, images, mix)["spread"] < spread
    assert all(p.requires_grad for p in reader.parameters())
    assert not calibrate(reader, images[: CHECKED + 10], mix)
    assert isinstance(card["calibrated"], bool)


def test_parts_are_called_by_name(folder):
    with pytest.raises(ValueError, match="'hierarchy' and 'reader', got 'encoder'"):
        part_of(config(folder), "encoder")
    with pytest.raises(ValueError, match=r"no \[reader\]"):
        part_of(TrainingConfig.from_dict(config_data(), folder), "reader")


@pytest.mark.parametrize(("key", "value"), [("crops", 1.5), ("crop", 12), ("crop", 64)])
def test_impossible_crops_are_refused(folder, key, value):
    with pytest.raises(ValueError, match=r"reader\.crops must lie in 0 \.\. 1 and reader\.crop be one of"):
        config(folder, **{key: value})


def test_windows_are_parts_of_the_images(folder):
    part = part_of(config(folder, crops=1.0), "reader")
    x = 3 * torch.rand(2, 1, SIZE, SIZE)
    windows, rng = part.prepare(x, Streams.of_part(0, 0, 2))
    assert windows.shape == (8, 1, 8, 8)
    assert torch.allclose(windows.square().mean((1, 2, 3)), torch.ones(8))
    assert rng.random(8).shape == (8,), "each window goes on with random numbers of its own"
    faint, _ = part.prepare(0.01 * x, np.random.default_rng(0))
    assert float(faint.abs().max()) < 0.15
    assert part_of(config(folder, crops=0.0), "reader").prepare(x, np.random.default_rng(0))[0] is x


def test_weights_that_are_damaged_or_no_readers_are_refused(trained, folder, tmp_path):
    copy = tmp_path / trained.name
    copy.write_bytes(trained.read_bytes()[:-1] + b"x")
    copy.with_suffix(".json").write_bytes(trained.with_suffix(".json").read_bytes())
    with pytest.raises(PriorError, match="are damaged"):
        load_reader(copy)
    from importlib import resources

    hierarchy = resources.files("iasolve.priors.weights") / "cifar10.safetensors"
    with pytest.raises(PriorError, match="is no reader"):
        load_reader(hierarchy)
    assert not any(name.endswith(".reader") for name in list_priors())


@torch.no_grad()
def test_the_losses_are_those_of_the_formulas():
    """An untouched error head expects the Wiener posterior's variance at every frequency."""
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(SIZE, widths=(8, 12), blocks=(1, 1), embedding=16)).eval()
    x = torch.randn(4, 1, SIZE, SIZE)
    # power 1 and noise 1: a Wiener filter of a half
    folded = fold(fft2(x + torch.randn_like(x)), torch.ones(SIZE, SIZE), 1.0, real_image=True, complex_noise=False)
    losses = ReaderObjective(reader)(x, folded)
    reading = reader(*wiener_posterior(folded, reader.power, is_complex=False))
    squared = (reading.estimate - x).square().mean((1, 2, 3))
    assert torch.allclose(reading.variance, torch.full_like(x, 0.5))
    assert math.isclose(losses.mse, squared.mean(), rel_tol=1e-6)
    assert math.isclose(losses.error, 0.5 * (squared + 0.003 * 0.5 + 1e-6).log().mean(), rel_tol=1e-5)
    assert abs(float(losses.spread)) < 0.2


@torch.no_grad()
def test_the_likelihood_of_the_place_is_that_of_the_formula():
    """Against dense algebra: the covariance of uneven noise, filtered. And a spread that is right has the lower one."""
    torch.manual_seed(0)
    n = 6
    variance, spread = torch.rand(2, 1, n, n, dtype=torch.float64), 0.2 + torch.rand(2, 1, n, n, dtype=torch.float64)
    variance = (variance + torch.roll(variance.flip((-2, -1)), (1, 1), (-2, -1))) / 2
    fourier = torch.fft.fft2(torch.eye(n * n, dtype=torch.float64).reshape(-1, n, n), norm="ortho").reshape(n * n, -1).T
    for one, place in zip(variance.flatten(1), spread.flatten(1), strict=True):
        root = (fourier.conj().T @ torch.diag(one.sqrt()).to(fourier.dtype) @ fourier).real @ torch.diag(place)
        wanted = (root @ root.T).diagonal()
        found = uneven_variance(one.reshape(n, n), place.reshape(n, n)).flatten()
        assert torch.allclose(found, wanted)
    errors = torch.randn(2, 1, n, n, dtype=torch.float64)
    reading = Reading(-errors, variance, spread, [])
    expected = uneven_variance(variance, spread)
    mean = variance.mean((1, 2, 3), keepdim=True)
    wanted = 0.5 * (errors.square() / expected + (expected / mean).log()).mean() - 0.5
    # images of both signs: nothing is cut off below 0
    signed = torch.full_like(errors, -1e-9)
    assert math.isclose(ReaderObjective(Reader(ReaderConfig(SIZE)))._place(reading, signed), wanted, rel_tol=1e-4)


@pytest.mark.slow
def test_the_spread_learns_where_errors_are():
    """Images with structure in one half alone: calibrated, the error bar is larger there, and of the right size."""
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(SIZE, widths=(8, 12), blocks=(1, 1), embedding=16))
    images = 0.05 * torch.randn(160, 1, SIZE, SIZE)
    images[..., : SIZE // 2] *= 20
    mix = [Degradation(1.0, sigma=(0.5, 0.5))]
    assert calibrate(reader, images, mix, steps=150)
    power = torch.ones(SIZE, SIZE)
    noisy = images + 0.5 * torch.randn_like(images)
    folded = fold(fft2(noisy), power, 0.5, real_image=True, complex_noise=False)
    with torch.no_grad():
        reading = reader.eval()(*wiener_posterior(folded, reader.power, is_complex=False))
        found = uneven_variance(reading.variance, reading.spread).mean((0, 1, 2)).sqrt()
    error = (reading.estimate - images).square().mean((0, 1, 2)).sqrt()
    quarter = SIZE // 4
    for half in (slice(1, quarter), slice(-quarter, -1)):
        assert 0.8 < float(found[half].mean() / error[half].mean()) < 1.25


def test_the_error_head_alone_learns_from_the_spread():
    reader = Reader(ReaderConfig(SIZE, widths=(8, 12), blocks=(1, 1), embedding=16))
    x = torch.randn(2, 1, SIZE, SIZE)
    folded = fold(fft2(x), torch.ones(SIZE, SIZE), 0.5, real_image=True, complex_noise=False)
    ReaderObjective(reader)(x, Folded(*folded)).spread.backward()
    moved = {name for name, p in reader.named_parameters() if p.grad is not None and bool(p.grad.abs().any())}
    assert moved
    assert all(name.startswith("error.") for name in moved)
    reader.zero_grad()
    ReaderObjective(reader)(x, Folded(*folded)).place.backward()
    moved = {name for name, p in reader.named_parameters() if p.grad is not None and bool(p.grad.abs().any())}
    assert moved
    assert all(name.startswith("spread.") for name in moved)


def test_a_reader_reads_degraded_images_alone(folder):
    """The hierarchy's share of degraded images is not the reader's, and its own cannot be another."""
    data = config_data(degraded=0.5) | {"reader": READER}
    settings = TrainingConfig.from_dict(data, folder)
    assert settings.optimisation.degraded == 0.5
    assert settings.reader.optimisation.degraded == 1
    own = {"optimisation": READER.get("optimisation", {}) | {"degraded": 0.5}}
    with pytest.raises(ValueError, match=r"reader\.optimisation\.degraded must be 1, got 0\.5"):
        config(folder, **own)
