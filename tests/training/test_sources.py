"""Sources of training images: crops of images of any size, their split, and mixtures."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import label as components

from iasolve.networks import HVAE
from iasolve.training import (
    Augmentation,
    CroppedImages,
    Crops,
    DataConfig,
    Degradation,
    DegradationMix,
    Mixture,
    Trainer,
    TrainingConfig,
    WholeImages,
    load_config,
    load_split,
    open_source,
    train,
)
from iasolve.training.crops import _area_average
from iasolve.training.degradations import shake_kernel
from iasolve.training.partition import load_partition

IDLE = Augmentation(exact=1.0, shift=0.0, gamma=(1.0, 1.0), bias_field=0.0, gain=0.0, flip=(False, False))
CPU = torch.device("cpu")
PRIORS = Path(__file__).parents[2] / "iasolve" / "priors" / "weights"


def picture(height, width, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)).save(path, lossless=True)


# ------------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize(("start", "factor"), [(0.0, 1.0), (2.0, 2.0), (0.3, 1.7), (-3.4, 2.5), (5.5, 1.0)])
def test_area_average_integrates_a_piecewise_constant_signal(axis, start, factor):
    image = picture(14, 13, 2)
    edges = start + factor * np.arange(6)
    found = _area_average(image, edges, axis)
    # the same integral, pixel by pixel
    n = np.arange(image.shape[axis])
    overlap = np.clip(np.minimum(edges[1:, None], n + 1) - np.maximum(edges[:-1, None], n), 0, None) / factor
    expected = np.moveaxis(np.tensordot(overlap, image.astype(float), (1, image.ndim + axis)), 0, axis)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_native_crops_are_the_images_own_pixels():
    image, crops = picture(40, 37, 3), Crops(16, native=1.0, transpose=False)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 16, 16))[0]
    places = set()
    for seed in range(40):
        crop = crops.draw(image, 1.0, np.random.default_rng(seed))
        hits = np.argwhere((windows == crop).all((-3, -2, -1)))
        assert len(hits) == 1
        places.add(tuple(hits[0]))
    assert {max(p[i] for p in places) > 15 and min(p[i] for p in places) < 5 for i in (0, 1)} == {True}
    turned = replace(crops, transpose=True)
    both = {
        np.array_equal(turned.draw(image[:, :16, :16], 1.0, np.random.default_rng(s)), image[:, :16, :16])
        for s in range(20)
    }
    assert both == {True, False}


def test_scaled_crops_hold_the_part_of_the_image_that_their_factor_says():
    # a ramp shows both the place and the factor
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None], (1, 100, 60))
    crops = Crops(20, scale=(1.0, 5.0), transpose=False)
    factors = []
    for seed in range(200):
        column = crops.draw(ramp, 1.0, np.random.default_rng(seed))[0, :, 0].astype(float)
        steps = np.diff(column)
        np.testing.assert_allclose(steps, steps[0], atol=0.6)
        factors.append((column[-1] - column[0]) / 19)
    # the shorter side holds three crops: larger factors do not occur, whatever the range says
    assert 1.0 <= min(factors) < 1.1
    assert 2.7 < max(factors) <= 3.05
    assert np.median(factors) == pytest.approx(np.sqrt(3), rel=0.15), "log-uniform"


def test_whole_images_are_shrunk_into_zeros_and_never_magnified():
    crops = Crops(16, whole=1.0, transpose=False)
    rng = np.random.default_rng(0)
    tall = crops.draw(np.full((1, 32, 16), 100, np.uint8), 100.0, rng)[0]
    assert (tall[:, 4:12] == 100).all()
    assert tall.sum() == 100 * 16 * 8
    small = picture(9, 6)
    crop = crops.draw(small, 1.0, rng)[0]
    np.testing.assert_array_equal(crop[4:13, 5:11], small[0])
    assert np.count_nonzero(crop) == np.count_nonzero(small)
    np.testing.assert_array_equal(Crops(16, transpose=False).draw(small, 1.0, rng)[0], crop)


def test_dark_crops_are_drawn_anew():
    image = np.zeros((1, 32, 128), np.uint8)
    image[..., 96:] = 100

    def dark(share):
        crops = Crops(32, darkest=share)
        return np.mean([crops.draw(image, 50.0, np.random.default_rng(s)).max() == 0 for s in range(300)])

    # two thirds of the places show nothing: after eight draws, 4 % are left
    assert dark(0.0) == pytest.approx(2 / 3, abs=0.1)
    assert dark(0.1) < 0.12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 0}, "size"),
        ({"scale": [0.5, 2.0]}, "scale"),
        ({"scale": [3.0, 2.0]}, "scale"),
        ({"native": 0.6, "whole": 0.6}, "native"),
        ({"darkest": 1.0}, "darkest"),
        ({"zoom": 2}, "zoom"),
    ],
)
def test_impossible_crops_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Crops.from_dict({"size": 8} | change)
    with pytest.raises(ValueError, match="size"):
        Crops.from_dict({"scale": [1.0, 2.0]})


# ------------------------------------------------------------------------------------------- splits


@pytest.fixture
def photographs(tmp_path):
    """Tiles ``a0 .. z1``, two of each of 26 photographs, of several sizes, in a zip with an index."""
    rows = ["file,source,original"]
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for letter in range(26):
            for tile in range(2):
                name = f"set/{chr(97 + letter)}{tile}.webp"
                pixels = picture(16 + letter % 3, 17, 3)
                pixels[:] = 8 * letter + tile
                stream = io.BytesIO()
                Image.fromarray(np.moveaxis(pixels, 0, -1)).save(stream, format="WEBP", lossless=True)
                archive.writestr(name, stream.getvalue())
                rows.append(f"{name},x,{chr(97 + letter)}.jpg")
        archive.writestr("index.csv", "\n".join(rows) + "\n")
    return tmp_path


def letters(images):
    return [int(i[0, 0, 0]) // 8 for i in images]


def test_tiles_of_one_photograph_stay_together(photographs):
    crops = Crops(16)
    config = DataConfig(
        "tiles.zip", kind="folder", crops=crops, group="original", validation_every=10, test_every=8, channels=1
    )
    parts = load_partition(config, photographs)
    assert letters(parts.validation) == [0, 0, 10, 10, 20, 20]
    assert letters(parts.test) == [1, 1, 9, 9, 18, 18]
    assert sorted(letters(parts.train) + letters(parts.validation) + letters(parts.test)) == sorted([*range(26)] * 2)
    assert {i.shape[0] for part in parts for i in part} == {1}
    each = load_partition(replace(config, group=""), photographs)
    assert letters(each.validation) == [0, 5, 10, 15, 20, 25]
    with pytest.raises(ValueError, match=r"no column photographer"):
        load_partition(replace(config, group="photographer"), photographs)
    with zipfile.ZipFile(photographs / "tiles.zip", "a") as archive:
        stream = io.BytesIO()
        Image.new("RGB", (16, 16)).save(stream, format="PNG")
        archive.writestr("set/new.png", stream.getvalue())
    with pytest.raises(ValueError, match=r"no row for set/new\.png"):
        load_partition(config, photographs)


def test_an_array_says_which_part_an_image_is_of_and_where_its_padding_ends(tmp_path):
    images = np.zeros((5, 16, 16), np.uint8)
    images[:, 3:13, 4:12] = np.arange(1, 6)[:, None, None]
    images[4] = 9
    native = np.array([[10, 8]] * 4 + [[64, 32]])
    split = np.array(["train", "test", "validation", "test", "train"])
    np.savez(tmp_path / "a.npz", images=images, split=split, native=native)
    config = DataConfig("a.npz", split="split", crops=Crops(8, frame="native"))
    parts = load_partition(config, tmp_path)
    assert [i.shape for i in parts.train] == [(1, 10, 8), (1, 16, 8)]
    assert [len(p) for p in parts] == [2, 1, 2]
    assert all((i > 0).all() for part in parts for i in part)
    for change, words in (({"split": "part"}, "'part'"), ({"crops": Crops(8, frame="size")}, "'size'")):
        with pytest.raises(ValueError, match=rf"no array {words}.*native"):
            load_partition(replace(config, **change), tmp_path)
    np.savez(tmp_path / "a.npz", images=images, split=np.array(["train", "tune"] * 2 + ["test"]))
    with pytest.raises(ValueError, match=r"train, validation or test, got \['tune'\]"):
        load_partition(replace(config, crops=Crops(8)), tmp_path)
    np.savez(tmp_path / "a.npz", images=images, split=np.array(["train"] * 5))
    with pytest.raises(ValueError, match="no validation images"):
        load_partition(replace(config, crops=Crops(8)), tmp_path)
    np.savez(tmp_path / "a.npz", images=images / 9.0)
    with pytest.raises(ValueError, match=r"uint8.*float64"):
        load_partition(DataConfig("a.npz", crops=Crops(8)), tmp_path)


# ------------------------------------------------------------------------------------------- sources


def test_the_single_table_draws_what_it_always_drew(tmp_path):
    images = picture(16, 16, 24).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    config, augmentation = DataConfig("a.npz", validation_every=6), Augmentation(tone=0.5, floor=0.1, window=0.3)
    source = open_source(config, augmentation, tmp_path)
    split = load_split(config, tmp_path)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        picks = torch.from_numpy(rng.integers(len(split.train), size=9))
        expected = augmentation(split.train[picks], rng)
        other = np.random.default_rng(seed)
        assert torch.equal(source.draw(9, other), expected)
        assert other.bit_generator.state == rng.bit_generator.state
    assert torch.equal(source.validation, split.validation)
    assert (source.shape, source.count, source.is_complex, source.nonnegative) == ((1, 16, 16), 20, False, True)


def test_crops_repeat_with_their_seed_and_validation_always(photographs):
    crops = Crops(12, scale=(1.0, 1.3), native=0.5, validation=3)
    config = DataConfig("tiles.zip", kind="folder", crops=crops, group="original", validation_every=10)
    one, two = (open_source(config, Augmentation(), photographs) for _ in range(2))
    a, b, c = (s.draw(5, np.random.default_rng(seed)) for s, seed in ((one, 1), (two, 1), (one, 2)))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert (a.shape, a.dtype) == ((5, 3, 12, 12), torch.float32)
    assert torch.equal(one.validation, two.validation)
    assert one.validation.shape == (18, 3, 12, 12)
    assert (one.shape, one.count, one.nonnegative) == ((3, 12, 12), 46, True)


def test_drawn_crops_are_training_images_only(photographs):
    config = DataConfig(
        "tiles.zip", kind="folder", crops=Crops(16), group="original", validation_every=10, test_every=8, channels=1
    )
    parts = load_partition(config, photographs)
    source = CroppedImages(parts, Crops(16), IDLE, CPU)
    source.augmentation = lambda images, rng: images
    drawn = source.draw(400, np.random.default_rng(0))
    assert set(letters(drawn.numpy())) == set(letters(parts.train))


class Constant:
    """A source whose images all have one value."""

    shape, is_complex, nonnegative, count = (1, 4, 4), False, True, 3

    def __init__(self, value, shape=(1, 4, 4)):
        self.value, self.shape = value, shape
        self.validation = self.draw(10, None)

    def draw(self, count, rng):
        return torch.full((count, *self.shape), float(self.value))


def test_a_mixture_draws_by_weight_and_in_no_order():
    source = Mixture([Constant(1), Constant(2), Constant(3)], [1.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    drawn = torch.stack([source.draw(8, rng)[:, 0, 0, 0] for _ in range(500)])
    assert [float((drawn == v).float().mean()) for v in (1, 2, 3)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    # the first image of a batch is of any source
    assert float((drawn[:, 0] == 3).float().mean()) == pytest.approx(0.25, abs=0.07)
    assert {*source.validation[:8, 0, 0, 0].tolist()} == {1.0, 2.0, 3.0}
    assert (source.count, len(source.validation)) == (9, 30)
    with pytest.raises(ValueError, match=r"not alike.*\(1, 4, 4\), \(1, 8, 8\)"):
        Mixture([Constant(1), Constant(1, (1, 8, 8))], [1, 1])


def mixture(**changes):
    crops = {"size": 16, "scale": [1.0, 2.0]}
    table = {
        "sources": [
            {"path": "a.npz", "weight": 2.0, "name": "A", "licence": "CC0", "augmentation": {"gain": 0.5}},
            {"path": "tiles.zip", "kind": "folder", "channels": 1, "crops": crops, "name": "B", "licence": "CC0"},
        ]
    }
    return table | changes


def test_sources_read_from_toml_have_their_own_augmentation(photographs):
    np.savez(photographs / "a.npz", images=picture(16, 16, 24))
    config = DataConfig.from_dict(mixture())
    assert (config.name, config.licence, config.citation) == ("A; B", "CC0", "")
    assert DataConfig.from_dict(mixture(name="both")).name == "both"
    source = open_source(config, IDLE, photographs)
    assert [type(s) for s in source.sources] == [WholeImages, CroppedImages]
    assert [s.augmentation.gain for s in source.sources] == [0.5, 0.0]
    np.testing.assert_allclose(source.probabilities, [2 / 3, 1 / 3])
    rms = source.draw(60, np.random.default_rng(0)).square().mean((1, 2, 3)).sqrt()
    assert float((rms - 1).abs().lt(1e-5).float().mean()) == pytest.approx(1 / 3, abs=0.15)
    phased = open_source(DataConfig.from_dict(mixture(phase={"smooth": 0.3})), IDLE, photographs)
    assert phased.is_complex
    assert not phased.nonnegative
    assert phased.draw(3, np.random.default_rng(0)).is_complex()
    assert phased.validation.is_complex()
    torch.testing.assert_close(phased.validation.abs(), source.validation)
    with pytest.raises(ValueError, match="open_source"):
        load_split(config, photographs)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (mixture(path="x.npz"), "not both"),
        ({}, "needs a path"),
        ({"sources": []}, "needs a path"),
        ({"sources": [mixture()]}, "of its own"),
        ({"sources": [{"path": "a.npz", "phase": {}}]}, "phase of its own"),
        ({"path": "a.npz", "weight": 0}, "weight"),
        ({"path": "a.npz", "group": "subject"}, "crops"),
        ({"path": "a", "kind": "cifar10", "crops": {"size": 8}}, "npz or folder"),
        ({"path": "a.npz", "augmentation": {"gains": 1}}, "gains"),
        ({"sources": [{"path": "a.npz", "colour": 1}]}, "colour"),
    ],
)
def test_impossible_data_are_refused(table, words):
    with pytest.raises(ValueError, match=words):
        DataConfig.from_dict(table)


# ------------------------------------------------------------------------------------------- augmentation, degradations


def test_inversion_exchanges_bright_and_dark_tissue_and_leaves_air_dark():
    values = [0.0] * 4 + [0.03] * 4 + [0.5, 0.7, 0.9, 1.0] + [1.0] * 51 + [3.0]
    x = torch.tensor(values).reshape(1, 8, 8).repeat(64, 1, 1, 1)
    out = replace(IDLE, invert=1.0)(x, np.random.default_rng(0)).flatten(1)
    assert float(out[:, :4].abs().max()) == 0
    assert bool((out[:, 8:12].diff(dim=-1) < 0).all()), "darker tissue is brighter now"
    assert bool((out[:, 4:8] < 0.25 * out[:, 8:9]).all()), "noise in air is not"
    some = replace(IDLE, invert=0.3)(x, np.random.default_rng(0)).flatten(1)
    assert float((some[:, -1] == 0).float().mean()) == pytest.approx(0.3, abs=0.15)


def test_shaken_kernels_are_connected_paths_of_the_length_asked_for():
    for seed in range(20):
        length = 3.0 + seed
        kernel = shake_kernel(length, np.random.default_rng(seed))
        assert kernel.sum() == pytest.approx(1.0)
        assert kernel.min() >= 0
        assert kernel.shape[0] % 2 == 1
        rows, columns = np.nonzero(kernel)
        extent = max(np.ptp(rows), np.ptp(columns))
        assert length - 1 <= extent <= length + 2
        assert components(kernel > 0, np.ones((3, 3)))[1] == 1
        middle = len(kernel) // 2
        mean = [(kernel.sum(axis) * np.arange(len(kernel))).sum() for axis in (0, 1)]
        np.testing.assert_allclose(mean, middle, atol=1e-6)


def test_a_shaken_camera_is_a_degradation():
    entry = Degradation.from_dict({"sigma": [0.01, 0.1], "transfer": [{"kind": "camera-shake", "length": [4, 12]}]})
    transfer, _ = entry.draw(np.random.default_rng(0), 64)
    assert transfer[0, 0].abs() == pytest.approx(1.0, abs=1e-6)
    assert float(transfer.abs().max()) <= 1 + 1e-6
    assert float(transfer.abs()[24:40, 24:40].mean()) < 0.5
    folded = DegradationMix([entry])(torch.rand(2, 1, 64, 64), np.random.default_rng(0))
    assert torch.isfinite(folded.value.abs()).all()


# ------------------------------------------------------------------------------------------- training


def run_of(data):
    return {
        "name": "mixed",
        "network": {
            "size": 16,
            "widths": [8] * 5,
            "layers": [1] * 5,
            "latents": [2] * 5,
            "encoder_blocks": [1] * 5,
            "grid_cap": 8,
        },
        "data": data,
        "degradations": [{"sigma": [0.01, 1.0]}],
        "optimisation": {"images": 16, "batch": 8, "validate_every": 8},
    }


@pytest.mark.slow
def test_training_draws_from_a_mixture_and_its_card_names_every_source(photographs, monkeypatch):
    np.savez(photographs / "a.npz", images=picture(16, 16, 24))
    monkeypatch.setattr(Trainer.measure_statistics, "__defaults__", (2,))
    config = TrainingConfig.from_dict(run_of(mixture()), photographs)
    train(config, photographs / "run")
    card = json.loads((photographs / "run" / "mixed.json").read_text())
    assert card["data"]["name"] == "A; B"
    assert card["data"]["train_images"] == 22 + 49
    assert card["data"]["validation_images"] == 2 + 3
    data = run_of(mixture())
    data["network"]["channels"] = 3
    with pytest.raises(ValueError, match=r"\(1, 16, 16\).*\(3, 16, 16\)"):
        Trainer(TrainingConfig.from_dict(data, photographs), photographs / "other")


@pytest.mark.parametrize("name", ["photo-grey-128", "photo-128", "mri-any-128"])
def test_configurations_of_priors_to_bundle(name):
    config = load_config(PRIORS / f"{name}.toml")
    assert config.name == name
    assert 2 * sum(p.numel() for p in HVAE(config.network).parameters()) < 25e6
    assert all(s.name and s.licence and s.citation for s in config.data.sources)
    assert {s.crops.size for s in config.data.sources if s.crops} == {config.network.size}
    assert {s.channels or 1 for s in config.data.sources} == {config.network.channels}
    drawn = [entry.draw(np.random.default_rng(0), 128) for entry in config.degradations]
    assert all(torch.isfinite(torch.view_as_real(t)).all() for t, _ in drawn)
