"""Training: configuration, data, augmentation, degradations, objective, and whole tiny runs."""

import json
import math
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import images as fields
from tiny import relative, tiny_network
from watching import at_validation

from iasolve import PriorError, load_prior
from iasolve.evidence import Folded
from iasolve.networks import Gaussian, NetworkConfig, kl_divergence
from iasolve.spectrum import fft2, radius, reflect, ring_index
from iasolve.training import (
    Augmentation,
    DataConfig,
    Degradation,
    DegradationMix,
    Objective,
    Trainer,
    TrainingConfig,
    clean_evidence,
    load_config,
    load_split,
    normalise,
    train,
)
from iasolve.training.augmentation import _roll
from iasolve.training.data import find
from iasolve.training.objective import _divergence

SIZE = 16
IDLE = {
    "exact": 1.0,
    "rotate": 0.0,
    "zoom": (1.0, 1.0),
    "shift": 0.0,
    "gamma": (1.0, 1.0),
    "bias_field": 0.0,
    "gain": 0.0,
    "flip": (False, False),
}


def blobs(count=24, size=SIZE, seed=0):
    """Images of bright discs on a dark ground, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    out = np.zeros((count, size, size))
    for image in out:
        for _ in range(3):
            cy, cx, r = *rng.uniform(4, size - 4, 2), rng.uniform(2, 4)
            image += rng.uniform(50, 80) / (1 + np.exp(2 * (np.hypot(y - cy, x - cx) - r)))
    return out.round().astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("training")
    np.savez(path / "blobs.npz", images=blobs(), label=np.arange(24) % 3, number=np.arange(100, 124))
    return path


def config_data(**optimisation):
    return {
        "name": "blobs",
        "network": {
            "size": SIZE,
            "widths": [8] * 5,
            "layers": [1] * 5,
            "latents": [2] * 5,
            "encoder_blocks": [1] * 5,
            "grid_cap": 8,
            "head_blocks": 1,
        },
        "data": {"path": "blobs.npz", "validation_every": 6, "name": "discs", "licence": "CC0"},
        "augmentation": {"shift": 2.0},
        "degradations": [
            {"weight": 1.0, "sigma": [0.01, 1.0]},
            {
                "weight": 1.0,
                "sigma": [0.01, 0.1],
                "noise": "complex",
                "transfer": [{"kind": "lines", "acceleration": [2, 4], "centre": [0.1, 0.2]}],
            },
        ],
        "optimisation": {
            "images": 72,
            "batch": 8,
            "warmup": 5,
            "kl_warmup": 80,
            "validate_every": 24,
            "decay": 0.0,
            "learning_rate": 3e-3,
        }
        | optimisation,
    }


def config(folder, **optimisation):
    return TrainingConfig.from_dict(config_data(**optimisation), folder)


def log(path):
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _quick_statistics():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=8))
        yield


@pytest.fixture(scope="module")
def trained(folder):
    """A run."""
    rows = []
    path = train(config(folder), folder / "whole", callback=at_validation(rows.append))
    return path, rows


# ------------------------------------------------------------------------------------------- whole runs


def test_training_learns_logs_and_exports(trained, folder):
    path, rows = trained
    assert rows == log(folder / "whole")
    assert [row["images"] for row in rows] == [24, 48, 72]
    assert rows[-1]["val_elbo"] > rows[0]["val_elbo"]
    assert rows[-1]["val_mse"] < rows[0]["val_mse"]
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    prior = load_prior(path)
    card = prior.card
    assert (card["name"], card["data"]["name"], card["data"]["licence"]) == ("blobs", "discs", "CC0")
    assert (card["data"]["train_images"], card["data"]["validation_images"]) == (20, 4)
    assert (card["training"]["images"], card["training"]["seed"]) == (72, 0)
    assert card["validation"]["elbo"] == pytest.approx(rows[-1]["val_elbo"], abs=1e-4)
    assert card["validation"]["mse"] == pytest.approx(rows[-1]["val_mse"], abs=1e-4)
    np.testing.assert_allclose(card["sigma_x"], prior.sigma_x, atol=1e-6)
    # images of root mean square 1 have a total power of one a pixel
    assert float(prior.power.sum() / SIZE**2) == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(prior.power, reflect(prior.power))
    assert (prior.sigma_x > 0).all()
    assert len(card["sha256"]) == 64


@pytest.mark.slow
def test_a_state_that_is_damaged_or_of_another_network_is_refused(trained, folder, tmp_path):
    state = (folder / "whole" / "checkpoint.safetensors").read_bytes()
    theirs = tmp_path / "checkpoint.safetensors"
    theirs.write_bytes(state)
    richer = replace(config(folder), network=replace(config(folder).network, latents=(3, 2, 2, 2, 2)))
    deeper = replace(config(folder), network=replace(config(folder).network, layers=(1, 1, 1, 1, 2)))
    with pytest.raises(ValueError, match=r"network.latents is \[2, 2, 2, 2, 2\], in the configuration's \[3, 2"):
        train(richer, tmp_path, resume=True)
    with pytest.raises(
        ValueError, match=r"network.layers is \[1, 1, 1, 1, 1\], in the configuration's \[1, 1, 1, 1, 2"
    ):
        train(deeper, tmp_path, resume=True)
    for damaged in (state[: len(state) // 2], b"", (folder / "whole" / "blobs.safetensors").read_bytes()):
        theirs.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged or no state of a training run .*--overwrite"):
            train(config(folder), tmp_path, resume=True)
        assert theirs.read_bytes() == damaged


@pytest.mark.slow
def test_starting_over_leaves_nothing_of_the_run_before(folder, tmp_path):
    rows = []
    train(config(folder, images=8), tmp_path)

    def interrupt(row):
        raise StopHereError

    old = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(StopHereError):
        train(config(folder, seed=1), tmp_path, callback=at_validation(interrupt))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() != old
    assert [row["images"] for row in log(tmp_path)] == [24]
    train(config(folder, seed=1), tmp_path, resume=True, callback=at_validation(rows.append))
    assert [row["images"] for row in log(tmp_path)] == [24, 48, 72]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_prior_and_another_a_different_one(folder):
    one, same = (train(config(folder, images=8), folder / name) for name in ("one", "same"))
    assert same.read_bytes() == one.read_bytes()
    other = train(config(folder, seed=1, images=8), folder / "other")
    assert not torch.equal(load_prior(other).power, load_prior(same).power)


@pytest.mark.slow
def test_starting_from_a_prior_counts_its_images(trained, folder):
    rows = []
    path = train(config(folder, images=96), folder / "continued", init=trained[0], callback=at_validation(rows.append))
    assert [row["images"] for row in rows] == [96]
    card = load_prior(path).card
    assert card["training"]["images"] == 96
    assert card["training"]["started_from_sha256"] == load_prior(trained[0]).card["sha256"]
    assert rows[-1]["val_elbo"] > trained[1][0]["val_elbo"]
    spectral = replace(config(folder), network=replace(config(folder).network, head_domain="spectral"))
    with pytest.raises(ValueError, match="head_domain is spatial, the configuration's spectral"):
        train(spectral, folder / "unlike", init=trained[0])


def test_another_architecture_starts_from_the_weights_that_fit(trained, folder):
    changed = replace(config(folder), network=replace(config(folder).network, latents=(3, 2, 2, 2, 2)))
    trainer = Trainer(changed, folder / "fewer")
    trainer.initialise(trained[0])
    theirs, ours = load_prior(trained[0]).network.state_dict(), trainer.network.state_dict()
    unlike = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert unlike
    assert all(name.startswith("stages.0.layers.0.") for name in unlike)
    assert trainer.progress.fresh == len(unlike)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name not in unlike and name != "power")
    with pytest.raises(PriorError):
        train(config(folder), folder / "unlike", init=folder / "none.safetensors")


def test_a_run_ends_by_the_clock(folder):
    path = train(config(folder, images=10**9, validate_every=10**9), folder / "clock", minutes=1e-9)
    assert load_prior(path).card["training"]["images"] < 100
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(config(folder), folder / "empty", resume=True)


def test_the_rate_decays_and_steps_that_are_not_finite_are_skipped(folder):
    trainer = Trainer(config(folder, decay=0.5, warmup=1), folder / "steps")
    trainer.measure_statistics()
    rates = []
    for done in (0.0, 0.4, 0.75, 0.999):
        trainer._step(done)
        rates.append(float(trainer.update.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([3e-3, 3e-3, 1.5e-3, 1.5e-4])
    before = [p.detach().clone() for p in trainer.network.parameters()]
    good = trainer.source.train.clone()
    trainer.source.train[:] = math.nan
    trainer.update.means()
    trainer._step(0.0)
    assert int(trainer.update.skipped) == 1
    assert math.isnan(trainer.update.means()["total"])
    for old, new in zip(before, trainer.network.parameters(), strict=True):
        assert torch.equal(old, new)
    # it left nothing behind, the tracked noise level included: the next good step goes on from there
    trainer.source.train.copy_(good)
    trainer._step(0.0)
    assert all(math.isfinite(v) for v in trainer.update.means().values())


def test_a_burst_is_undone_and_training_goes_on_at_half_the_rate(folder):
    trainer = Trainer(config(folder, warmup=1), folder / "burst")
    trainer.measure_statistics()
    trainer._step(0.0)
    trainer._undo_burst(1.0, 1.0)
    good = [t.clone() for t in trainer._state()]
    trainer._step(0.0)
    trainer._undo_burst(0.9, 0.9)  # training wanders
    wandered = [t.clone() for t in trainer._state()]
    assert not all(torch.equal(a, b) for a, b in zip(good, wandered, strict=True))
    trainer._step(0.0)
    trainer._undo_burst(0.95, -3.0)
    for now, then in zip(trainer._state(), wandered, strict=True):
        assert torch.equal(now, then)
    assert trainer.progress.taken_back == 1
    trainer._step(0.0)
    assert float(trainer.update.optimizer.param_groups[0]["lr"]) == pytest.approx(1.5e-3)
    trainer._undo_burst(math.nan, 1.0)
    assert trainer.progress.taken_back == 2


# ------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ((), "nets"),
        (("network",), "width"),
        (("data",), "url"),
        (("augmentation",), "mirror"),
        (("degradations", 0), "strength"),
        (("optimisation",), "lr"),
        (("degradations", 1, "transfer", 0), "speed"),
    ],
)
def test_unknown_keys_are_refused_by_name(folder, place, key):
    data = config_data()
    table = data
    for step in place:
        table = table[step]
    table[key] = [1, 2]
    with pytest.raises(ValueError, match=key):
        TrainingConfig.from_dict(data, folder)


@pytest.mark.parametrize("key", ["name", "network", "data", "degradations", "optimisation"])
def test_missing_tables_are_named(folder, key):
    data = config_data()
    del data[key]
    with pytest.raises(ValueError, match=key):
        TrainingConfig.from_dict(data, folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": [0.5, 0.1]}, "sigma"),
        ({"sigma": [0.0, 0.1]}, "sigma"),
        ({"sigma": 0.1}, "sigma"),
        ({}, "sigma"),
        ({"sigma": [0.1, 0.2], "noise": "pink"}, "real|complex"),
        ({"sigma": [0.1, 0.2], "weight": 0}, "weight"),
        ({"sigma": [0.1, 0.2], "transfer": [{"kind": "wavelet"}]}, "wavelet"),
    ],
)
def test_impossible_degradations_are_refused(change, words):
    with pytest.raises(ValueError, match=words.replace("|", r"\|")):
        Degradation.from_dict(change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 24}, "24"),
        ({"widths": (8, 8)}, "network.widths.*5.*got 2"),
        ({"layers": (1, 0, 1, 1, 1)}, "network.layers"),
        ({"grid_cap": 5}, "grid_cap"),
        ({"bottleneck": 0.0}, "bottleneck"),
        ({"head_domain": "wavelet"}, "wavelet"),
        ({"channels": 0}, "channels"),
    ],
)
def test_impossible_networks_are_refused(change, words):
    good = config_data()["network"]
    assert NetworkConfig.from_dict(NetworkConfig.from_dict(good).to_dict()) == NetworkConfig.from_dict(good)
    with pytest.raises(ValueError, match=words):
        NetworkConfig.from_dict(good | change)


def test_a_configuration_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'name = "a"\ndegradations = [{ sigma = [0.1, 1.0] }]\n'
        "[network]\nsize = 4\nwidths = [8, 8, 8]\nlayers = [1, 1, 1]\nlatents = [1, 1, 1]\n"
        "encoder_blocks = [1, 1, 1]\ngrid_cap = 4\n[data]\npath = 'x.npz'\n[optimisation]\nimages = 10\n"
    )
    found = load_config(path)
    assert (found.folder, found.network.widths, found.augmentation) == (tmp_path, (8, 8, 8), Augmentation())
    path.write_text("name = ")
    with pytest.raises(ValueError, match=r"run\.toml is not valid TOML"):
        load_config(path)


# ------------------------------------------------------------------------------------------- data


def test_the_split_follows_labels_exclusions_and_validation_every(folder):
    found = load_split(
        DataConfig(
            "blobs.npz", label="label", train_labels=(0, 2), index="number", exclude=(100, 105), validation_every=5
        ),
        folder,
    )
    kept = [i for i in range(24) if i % 3 in (0, 2) and i not in (0, 5)]
    all_images = torch.from_numpy(blobs().astype(np.float32))[:, None]
    assert torch.equal(found.validation, all_images[kept[::5]])
    assert torch.equal(found.train, all_images[[k for i, k in enumerate(kept) if i % 5]])


def test_data_that_cannot_be_used_are_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'pictures'.*images"):
        load_split(DataConfig("blobs.npz", images="pictures"), folder)
    with pytest.raises(ValueError, match="nothing to train on"):
        load_split(DataConfig("blobs.npz", label="label", train_labels=(7,)), folder)
    with pytest.raises(ValueError, match="nothing to train on"):
        load_split(DataConfig("blobs.npz", validation_every=1), folder)
    with pytest.raises(FileNotFoundError, match="IASOLVE_DATA"):
        find("none.npz", folder)
    monkeypatch.setenv("IASOLVE_DATA", str(folder))
    assert find("blobs.npz", tmp_path) == folder / "blobs.npz"
    np.savez(tmp_path / "wide.npz", images=blobs(size=32))
    with pytest.raises(ValueError, match=r"1, 32, 32.*1, 16, 16"):
        Trainer(replace(config(folder), data=DataConfig("wide.npz"), folder=tmp_path), tmp_path / "run")
    np.savez(tmp_path / "holes.npz", images=np.full((8, SIZE, SIZE), np.nan))
    with pytest.raises(ValueError, match="NaN"):
        Trainer(replace(config(folder), data=DataConfig("holes.npz"), folder=tmp_path), tmp_path / "run")
    np.savez(tmp_path / "pickled.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        load_split(DataConfig("pickled.npz"), tmp_path)


def test_normalised_images_have_root_mean_square_one():
    x = torch.rand(3, 2, 5, 5) * torch.tensor([1.0, 1e-3, 500.0])[:, None, None, None]
    torch.testing.assert_close(normalise(x).square().mean((1, 2, 3)), torch.ones(3))
    assert torch.equal(normalise(torch.zeros(1, 1, 4, 4)), torch.zeros(1, 1, 4, 4))


def pictures(count=6):
    return torch.from_numpy(blobs(count).astype(np.float32))[:, None]


def test_augmentation_keeps_shape_and_normalisation():
    x = pictures(12)
    out = Augmentation(gain=0.0)(x, np.random.default_rng(0))
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    torch.testing.assert_close(out.square().mean((1, 2, 3)), torch.ones(12))
    assert torch.isfinite(Augmentation()(torch.zeros(2, 1, SIZE, SIZE), np.random.default_rng(0))).all()
    gains = (
        Augmentation(**IDLE | {"gain": 0.1})(x.repeat(40, 1, 1, 1), np.random.default_rng(0)).square().mean((1, 2, 3))
    )
    assert float(gains.sqrt().log().std()) == pytest.approx(0.1, rel=0.15)


def test_augmentation_repeats_with_its_seed():
    a, b, c = (Augmentation()(pictures(), np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_idle_augmentation_is_exact():
    x = pictures()
    torch.testing.assert_close(Augmentation(**IDLE)(x, np.random.default_rng(0)), normalise(x), rtol=1e-6, atol=1e-6)


def test_exact_augmentation_only_moves_pixels():
    x = pictures()
    out = Augmentation(**IDLE | {"shift": 5.0, "flip": (True, True)})(x, np.random.default_rng(0))
    assert not torch.allclose(out, normalise(x))
    torch.testing.assert_close(out.flatten(1).sort().values, normalise(x).flatten(1).sort().values)
    # the magnitudes of an image's spectrum do not see shifts and flips of both axes
    out = Augmentation(**IDLE | {"shift": 5.0})(x, np.random.default_rng(0))
    torch.testing.assert_close(fft2(out).abs(), fft2(normalise(x)).abs(), rtol=1e-4, atol=1e-4)


def test_warping_keeps_the_finest_ring():
    """Interpolation at rest must be nearly the identity in every frequency, the finest ones too."""
    x = fields(8, size=32)
    out = Augmentation(**IDLE | {"exact": 0.0})(x, np.random.default_rng(0))
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))  # beyond its edge a warped image is empty
    assert relative(out[inside], normalise(x)[inside]) < 0.08
    window = torch.hann_window(32, periodic=False)
    power = [fft2(i * window[:, None] * window).abs().square().mean((0, 1)) for i in (out, normalise(x))]
    finest = (radius(32, 32) > 12) & (radius(32, 32) < 16)
    assert float(power[0][finest].sum() / power[1][finest].sum()) == pytest.approx(1.0, abs=0.15)


def test_warping_shifts_and_zooms_as_it_says():
    x = pictures(4)
    two = Augmentation(**IDLE | {"exact": 0.0, "zoom": (2.0, 2.0)})(x, np.random.default_rng(0))
    # magnified about the centre: the middle half of the image fills all of it
    shrunk = torch.nn.functional.avg_pool2d(two, 2)
    middle = normalise(x)[..., SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    correlation = torch.corrcoef(torch.stack([shrunk.flatten(), middle.flatten()]))[0, 1]
    assert float(correlation) > 0.97


def test_windows_cut_heads_off_at_the_edges():
    x = pictures(24)[:, :, 2:-2, 2:-2]
    x = torch.nn.functional.pad(x * (x > 5), (2, 2, 2, 2))
    whole, cut = (Augmentation(**IDLE | {"window": w})(x, np.random.default_rng(0)) for w in (0.0, 1.0))
    assert torch.isfinite(cut).all()
    torch.testing.assert_close(cut.square().mean((1, 2, 3)), torch.ones(24), rtol=1e-4, atol=1e-4)
    edge = torch.ones(SIZE, SIZE, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert float(whole[..., edge].abs().max()) < 1e-5
    assert float((cut[..., edge].amax((-2, -1)) > 0.5).float().mean()) > 0.5


def test_images_roll_each_by_its_own_shift():
    x = fields(3, size=SIZE).repeat(1, 2, 1, 1)
    shifts = np.array([[0, 0], [3, -2], [-5, 7]])
    expected = torch.stack([torch.roll(i, tuple(s), dims=(-2, -1)) for i, s in zip(x, shifts.tolist(), strict=True)])
    assert torch.equal(_roll(x, shifts), expected)


def test_augmentation_takes_complex_images():
    x = fields(3, size=16, dtype=torch.complex64)
    out = Augmentation(gain=0.0)(x, np.random.default_rng(0))
    assert out.dtype == torch.complex64
    torch.testing.assert_close(out.abs().square().mean((1, 2, 3)), torch.ones(3))


# ------------------------------------------------------------------------------------------- degradations


@pytest.mark.parametrize("noise", ["real", "complex"])
def test_degraded_values_are_off_by_the_stated_variance(noise):
    entry, count = Degradation(1.0, (0.3, 0.3), noise), 400
    x = fields(1, size=SIZE).repeat(count, 1, 1, 1)
    folded = DegradationMix.apply([entry] * count, x, np.random.default_rng(0))
    # real noise is the same number at k and -k, complex noise is measured twice
    expected = 0.09 if noise == "real" else 0.045
    torch.testing.assert_close(folded.variance, torch.full_like(folded.variance, expected))
    error = (folded.value - fft2(x)).abs().square().mean(0)
    assert float((error / expected).mean()) == pytest.approx(1.0, abs=0.03)
    assert ((error / expected - 1).abs() < 6 * (2 / count) ** 0.5).all()
    torch.testing.assert_close(folded.value, reflect(folded.value).conj(), rtol=0, atol=1e-4)


def test_a_ring_has_one_gain_and_a_scatter_no_centre():
    rng = np.random.default_rng(0)
    rings = Degradation(1.0, (0.1, 0.1), "complex", ({"kind": "rings", "gain": (0.01, 1.0)},))
    index = ring_index(SIZE)
    drawn = [rings.draw(rng, SIZE)[0].real for _ in range(20)]
    for transfer in drawn:
        for ring in range(5):
            assert len(torch.unique(transfer[index == ring])) == 1
            assert 0.01 / SIZE <= float(transfer[index == ring][0]) <= 1.0
    scatter = Degradation(1.0, (0.1, 0.1), "complex", ({"kind": "scatter", "keep": (0.25, 0.25)},))
    masks = torch.stack([scatter.draw(rng, SIZE)[0].real for _ in range(400)])
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert float(masks.mean()) == pytest.approx(0.25, abs=0.01)
    assert float(masks[:, 0, 0].mean()) == pytest.approx(0.25, abs=0.09)


LINES = {"kind": "lines", "acceleration": (4, 4), "centre": (0.1, 0.1)}
FACTORS = [
    LINES,
    {"kind": "points", "acceleration": (3, 3), "centre": (0.1, 0.1)},
    {"kind": "low-pass", "cutoff": (8, 8)},
    {"kind": "gaussian-blur", "width": (0.7, 0.7)},
    {"kind": "motion-blur", "length": (3, 3)},
    {"kind": "rings", "gain": (0.3, 1.0)},
    {"kind": "scatter", "keep": (0.6, 0.6)},
]


@pytest.mark.parametrize("factor", FACTORS, ids=lambda f: f["kind"])
def test_without_noise_folded_values_are_the_images_own(factor):
    x = fields(4)
    entry = Degradation(1.0, (1e-7, 1e-7), "complex", (factor,))
    folded = DegradationMix.apply([entry] * 4, x, np.random.default_rng(0))
    known = torch.isfinite(folded.variance) & (folded.variance < 1e-9)
    assert known.float().mean() > 0.02
    torch.testing.assert_close(folded.value[known], fft2(x)[known], rtol=1e-2, atol=1e-3)
    unmeasured = torch.isinf(folded.variance)
    assert (folded.value[unmeasured] == 0).all()
    if factor["kind"] in ("lines", "points", "low-pass", "scatter"):
        assert torch.equal(unmeasured, ~known)


def test_line_masks_of_training_have_the_acceleration_asked_for():
    rng, shares = np.random.default_rng(0), []
    for _ in range(60):
        transfer, sigma = Degradation(1.0, (0.01, 0.1), "complex", (LINES,)).draw(rng, 64)
        values = transfer.real
        assert ((values == 0) | (values == 1)).all()
        assert (values == values[:1]).all() or (values == values[:, :1]).all()
        assert values[0, 0] == 1, "DC is sampled, and stands at the corner of the unshifted grid"
        assert 0.01 <= sigma <= 0.1
        shares.append(float(values.mean()))
    assert np.mean(shares) == pytest.approx(0.25, rel=0.1)


def test_noise_levels_are_log_uniform_and_entries_come_by_weight():
    rng = np.random.default_rng(0)
    levels = [Degradation(1.0, (0.01, 1.0)).draw(rng, 2)[1] for _ in range(2000)]
    assert stats.kstest(np.log10(levels), stats.uniform(-2, 2).cdf).pvalue > 1e-3
    mix = DegradationMix([Degradation(3.0, (0.1, 0.1)), Degradation(1.0, (0.2, 0.2))])
    folded = mix(torch.zeros(2000, 1, 2, 2), rng)
    assert float((folded.variance[:, 0, 0, 0] < 0.02).double().mean()) == pytest.approx(0.75, abs=0.04)
    with pytest.raises(ValueError, match="empty"):
        DegradationMix([])


def test_factors_multiply():
    blur = {"kind": "gaussian-blur", "width": (1.0, 1.0)}
    both = Degradation(1.0, (0.1, 0.1), "complex", (blur, LINES)).draw(np.random.default_rng(1), 32)[0]
    alone = Degradation(1.0, (0.1, 0.1), "complex", (blur,)).draw(np.random.default_rng(1), 32)[0]
    sampled = both != 0
    assert 0.1 < sampled.float().mean() < 0.5
    torch.testing.assert_close(both[sampled], alone[sampled])


# ------------------------------------------------------------------------------------------- objective


def test_kl_divergence_is_torchs():
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(4)]
    q, p = Gaussian(*values[:2]), Gaussian(*values[2:])
    normals = [torch.distributions.Normal(g.mean, g.std) for g in (q, p)]
    torch.testing.assert_close(kl_divergence(q, p), torch.distributions.kl_divergence(*normals))
    assert torch.equal(kl_divergence(q, q), torch.zeros(5, 4, dtype=torch.float64))


def test_a_degraded_posterior_pays_the_divergence_up_to_three_widths():
    zero = torch.zeros(1, dtype=torch.float64)
    clean = Gaussian(zero, zero - 3)
    for distance, log_std in ((0.0, -3.0), (0.5, -1.0), (2.8, 0.0), (0.05, -3.5)):
        degraded = Gaussian(zero + distance, zero + log_std)
        torch.testing.assert_close(_divergence(clean, degraded), kl_divergence(clean, degraded))
    place = torch.linspace(0, 50, 2001, dtype=torch.float64, requires_grad=True)
    far = _divergence(Gaussian(zero, zero), Gaussian(place, zero))
    (gradient,) = torch.autograd.grad(far.sum(), place)
    # it goes on growing, without a jump, with a pull that never exceeds that of three widths
    assert (far.diff() > 0).all()
    assert float(gradient.diff().abs().max()) < 0.03
    assert float(gradient.max()) == pytest.approx(3.0, abs=0.2)


def test_clean_images_are_their_own_evidence():
    x = fields(3)
    seen = clean_evidence(x, 6)
    assert seen.image is x
    assert torch.equal(seen.profile, torch.ones(3, 2, 6))


def folded(x, sigma):
    return Folded(fft2(x), torch.full_like(x, sigma**2))


def test_a_degradation_that_does_nothing_costs_nothing():
    objective, x = Objective(tiny_network(), guess_fraction=0.0).eval(), fields(4)
    with torch.no_grad():
        none, some = (objective(x, folded(x, sigma)) for sigma in (0.0, 1.0))
    assert float(none.amortization) == pytest.approx(0.0, abs=1e-6)
    assert float(none.guess) == 0.0
    assert float(some.amortization) > 1e-4


def test_the_elbo_is_distortion_and_kl():
    network, x = tiny_network(), fields(4)
    # one small noise level, below any cap: the training loss is then the bound itself
    network.sigma_x.fill_(0.01)
    objective = Objective(network).eval()

    def found(kl_weight=1.0):
        torch.manual_seed(0)
        with torch.no_grad():
            return objective(x, None, kl_weight)

    losses = found()
    rings = network.spectrum.bins_per_ring
    sigma2 = network.sigma_x.square()
    gaussian = 0.5 * (rings * (losses.ring_mse / sigma2 + sigma2.log())).sum() / 32**2
    torch.testing.assert_close(losses.elbo, -(gaussian + losses.kl))
    torch.testing.assert_close(losses.total, gaussian + losses.kl)
    torch.testing.assert_close(losses.mse, (rings * losses.ring_mse).sum() / 32**2)
    torch.testing.assert_close(found(0.1).total, gaussian + 0.1 * losses.kl)


def test_reading_degraded_images_teaches_the_encoder_alone():
    network, x = tiny_network(), fields(4)
    objective = Objective(network)
    losses = objective(x, folded(x, 0.5))
    for loss in (losses.amortization, losses.guess):
        network.zero_grad()
        loss.backward(retain_graph=True)
        taught = {n for n, p in network.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}
        assert any(n.startswith("encoder.") for n in taught)
        assert any(".posterior_block." in n for n in taught)
        others = [n for n in taught if not n.startswith("encoder.") and ".posterior_block." not in n]
        assert others == []
    assert all(p.requires_grad for p in network.parameters())
    network.zero_grad()
    losses.elbo.backward()
    assert all(p.grad is not None for n, p in network.named_parameters() if n.startswith("stages."))


def test_the_decoders_noise_level_follows_the_error_once_a_step():
    network, x = tiny_network(), fields(4)
    objective, before = Objective(network, track=0.5), network.sigma_x.clone()
    losses = objective(x, None)
    assert torch.equal(network.sigma_x, before)
    objective.follow(losses._asdict())
    after = network.sigma_x.clone()
    torch.testing.assert_close(after.square(), 0.5 * (before.square() + losses.ring_mse.detach()))
    objective.follow({"ring_mse": losses.ring_mse * math.nan})
    assert torch.equal(network.sigma_x, after)
