"""Data sets: CIFAR-10's batches, folders and zips of images, fastMRI's files, and random phase."""

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from iasolve.networks import HVAE
from iasolve.spectrum import fft2, radius
from iasolve.training import (
    Augmentation,
    DataConfig,
    DegradationMix,
    Objective,
    TrainingConfig,
    load_config,
    load_images,
    load_split,
    normalise,
    read_cifar,
    read_fastmri,
    read_folder,
)
from iasolve.training.cifar import read_batch
from iasolve.training.phase import PhaseField

CONFIGS = sorted((Path(__file__).parents[2] / "benchmarks" / "configs").glob("*.toml"))


# ------------------------------------------------------------------------------------------- CIFAR-10


class _Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, as the official batches have them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        if len(obj) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(obj)]) + obj)
        else:
            self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)

    dispatch[bytes] = save_bytes

    def save_global(self, obj, name=None):
        module = {"numpy._core.multiarray": "numpy.core.multiarray"}.get(obj.__module__, obj.__module__)
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode())

    dispatch[type(lambda: 0)] = dispatch[type(len)] = dispatch[type] = save_global


def write_batch(path, data):
    batch = {
        b"batch_label": b"a batch",
        b"labels": [0] * len(data),
        b"data": data,
        b"filenames": [b"x.png"] * len(data),
    }
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(batch)
    path.write_bytes(stream.getvalue())


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    parts = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        parts[name] = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        write_batch(tmp_path / name, parts[name])
    return tmp_path, parts


def test_the_official_batches_are_read_file_by_file(cifar):
    folder, parts = cifar
    assert b"numpy.core.multiarray\n_reconstruct" in (folder / "test_batch").read_bytes()
    train, test = read_cifar(folder), read_cifar(folder, "test")
    assert (train.shape, test.shape, train.dtype) == ((20, 3, 32, 32), (4, 3, 32, 32), np.uint8)
    np.testing.assert_array_equal(train[5].ravel(), parts["data_batch_2"][1])
    np.testing.assert_array_equal(test[3].ravel(), parts["test_batch"][3])
    split = load_split(DataConfig(folder.name, kind="cifar10", validation_every=5), folder.parent)
    assert (split.train.shape, split.validation.shape) == ((16, 3, 32, 32), (4, 3, 32, 32))
    with pytest.raises(ValueError, match="'validation'"):
        read_cifar(folder, "validation")
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3"):
        read_cifar(folder)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_batches_of_todays_python_are_read_where_they_hold_the_same(tmp_path, protocol):
    data = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": data}, protocol=protocol))
    if protocol == 4:
        np.testing.assert_array_equal(read_batch(tmp_path / "batch").reshape(2, -1), data)
    else:
        # helpers that official batches do not need
        with pytest.raises(ValueError, match=r"asks for (_codecs\.encode|numpy.*\._frombuffer)"):
            read_batch(tmp_path / "batch")


class _Trap:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("place", ["alone", "data", "labels", "key"])
def test_a_malicious_pickle_is_refused_by_name_and_not_run(tmp_path, place):
    mark = tmp_path / "sprung"
    trap = _Trap(subprocess.call, ["touch", str(mark)])
    data = np.zeros((1, 3072), np.uint8)
    batch = {
        "alone": trap,
        "data": {b"data": trap},
        "labels": {b"data": data, b"labels": [trap]},
        "key": {b"data": data, b"more": {b"deep": [trap]}},
    }[place]
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=4))
    with pytest.raises(ValueError, match=r"batch is refused.*subprocess\.call"):
        read_batch(tmp_path / "batch")
    assert not mark.exists()


@pytest.mark.parametrize("function", [eval, getattr, np.load, np.frombuffer, pickle.loads, __import__])
def test_no_function_but_the_arrays_own_is_found(tmp_path, function):
    (tmp_path / "batch").write_bytes(pickle.dumps(_Trap(function, "1"), protocol=4))
    with pytest.raises(ValueError, match=rf"asks for .*{function.__name__}"):
        read_batch(tmp_path / "batch")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"no pickle", pickle.dumps([]), pickle.dumps({b"data": [1]}), pickle.dumps({b"data": b"x"})],
)
def test_damaged_batches_are_refused(tmp_path, content):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(ValueError, match="batch"):
        read_batch(tmp_path / "batch")


# ------------------------------------------------------------------------------------------- folders


def picture(size=(8, 8), mode="RGB", seed=0):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save_pictures(folder):
    for seed, name in enumerate(["train/cat/2.png", "train/cat/10.png", "train/ant/1.PNG", "test/cat/0.png"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed=seed).save(path, format="PNG")
    (folder / "train" / "notes.txt").write_text("no image")


def pixels(seed):
    return np.moveaxis(np.asarray(picture(seed=seed)), -1, 0)


@pytest.mark.parametrize("zipped", [False, True])
def test_folders_and_zips_of_images_are_read_in_order(tmp_path, zipped):
    folder = tmp_path / "pictures"
    save_pictures(folder)
    path = folder
    if zipped:
        path = tmp_path / "pictures.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
    train = read_folder(path, "train")
    assert train.dtype == np.uint8
    np.testing.assert_array_equal(train, np.stack([pixels(2), pixels(1), pixels(0)]))
    np.testing.assert_array_equal(read_folder(path, "test"), pixels(3)[None])
    assert len(read_folder(path)) == 4
    assert read_folder(path, "train/cat", channels=1, size=4).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"no \.png.*'valid'"):
        read_folder(path, "valid")
    split = load_split(
        DataConfig(path.name, kind="folder", train_part="train", validation_part="test", max_images=2), tmp_path
    )
    assert (split.train.shape, split.validation.shape) == ((2, 3, 8, 8), (1, 3, 8, 8))
    np.testing.assert_array_equal(split.train.numpy(), train[[0, 2]])


def test_images_that_cannot_be_used_are_named(tmp_path):
    picture().save(tmp_path / "a.png")
    picture((9, 8)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png is \(3, 8, 9\).*size"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, size=8).shape == (2, 3, 8, 8)
    picture((8, 8), "L").save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png is \(1, 8, 8\).*channels"):
        read_folder(tmp_path)
    picture().convert("P").save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png.*mode is P.*channels"):
        read_folder(tmp_path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b\.png cannot be used"):
        read_folder(tmp_path)
    (tmp_path / "c.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        read_folder(tmp_path / "c.zip")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        read_folder(tmp_path, channels=2)


def test_a_large_image_is_averaged_down(tmp_path):
    picture((20, 16)).save(tmp_path / "a.png")
    found = read_folder(tmp_path, size=4)[0].astype(float)
    middle = np.asarray(picture((20, 16)))[:, 2:18].astype(float)
    np.testing.assert_allclose(found, middle.reshape(4, 4, 4, 4, 3).mean((1, 3)).transpose(2, 0, 1), atol=1)


# ------------------------------------------------------------------------------------------- fastMRI

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{r}</x><y>{r}</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""


def centred(function, x):
    return np.fft.fftshift(function(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


def write_volume(path, image, recon, masked=False):
    """A volume as fastMRI's single-coil files are; ``image`` ``(slices, H, W)`` complex."""
    height, width = image.shape[-2:]
    top, left = (height - recon) // 2, (width - recon) // 2
    target = np.abs(image[:, top : top + recon, left : left + recon]).astype(np.float32)
    header = HEADER.format(x=height, y=width, r=recon, last=width - 1, centre=width // 2)
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header.encode()
        file["kspace"] = centred(np.fft.fft2, image).astype(np.complex64)
        file["reconstruction_esc"] = target
        if masked:
            file["mask"] = np.ones(width, dtype=np.float32)
        file.attrs.update(acquisition="CORPD_FBK", patient_id="0", norm=float(np.linalg.norm(target)))
        file.attrs["max"] = float(target.max())


def smooth_image(slices, height, width, waves, seed=0):
    """Band-limited: ``waves`` is the largest frequency, in periods over 32 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(height)[:, None] - height // 2, np.arange(width) - width // 2
    out = np.zeros((slices, height, width), dtype=complex)
    for image in out:
        for _ in range(4):
            ky, kx = rng.integers(-waves, waves + 1, 2)
            image += rng.standard_normal() * np.exp(2j * np.pi * (rng.random() + (ky * y + kx * x) / 32))
    return out


@pytest.fixture
def knee(tmp_path):
    for part, count in (("singlecoil_train", 3), ("singlecoil_val", 2)):
        (tmp_path / part).mkdir()
        for number in range(count):
            image = smooth_image(2, 64, 36, 6, seed=10 * count + number)
            write_volume(tmp_path / part / f"file100000{number}.h5", image, 32, masked=part.endswith("val"))
    return tmp_path


def test_fastmri_slices_are_cropped_and_resampled(knee):
    found = read_fastmri(knee / "singlecoil_train", 16)
    assert (found.shape, found.dtype) == ((6, 1, 16, 16), np.complex64)
    # the image's middle 32 x 32, of which every other pixel is what a band-limited resampling to 16 gives
    image = smooth_image(2, 64, 36, 6, seed=30)[1, 16:48, 2:34]
    np.testing.assert_allclose(found[1, 0], 2 * image[::2, ::2], atol=1e-4)
    # at full size, magnitudes are the file's own reconstruction
    with h5py.File(knee / "singlecoil_train" / "file1000000.h5") as file:
        target = file["reconstruction_esc"][1]
    np.testing.assert_allclose(np.abs(read_fastmri(knee / "singlecoil_train", 32)[1, 0]), target, atol=1e-5)


def test_fastmri_is_split_as_its_folders_are(knee):
    config = DataConfig(
        str(knee),
        kind="fastmri",
        train_part="singlecoil_train",
        validation_part="singlecoil_val",
        size=16,
    )
    split = load_split(config)
    assert (split.train.shape, split.validation.shape) == ((6, 1, 16, 16), (4, 1, 16, 16))
    assert split.train.dtype == torch.complex64
    few = read_fastmri(knee / "singlecoil_train", 16, max_images=3)
    np.testing.assert_array_equal(few, split.train.numpy()[[0, 2, 5]])
    out = Augmentation()(split.train, np.random.default_rng(0))
    assert out.dtype == torch.complex64


def test_fastmri_files_that_cannot_be_used_are_named(knee):
    with pytest.raises(ValueError, match=r"file1000000\.h5.*32 pixels.*less than 64"):
        read_fastmri(knee / "singlecoil_train", 64)
    with pytest.raises(ValueError, match=r"needs data\.size"):
        DataConfig("knee", kind="fastmri")
    with pytest.raises(ValueError, match="no folder of fastMRI"):
        read_fastmri(knee / "none", 16)
    path = knee / "singlecoil_val" / "a.h5"
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros(3)
    with pytest.raises(ValueError, match="no folder of fastMRI"):
        read_fastmri(knee / "singlecoil_val", 16)
    path.unlink()
    write_volume(path, smooth_image(1, 64, 36, 6), 32)
    with h5py.File(path, "r+") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        file["kspace"] = np.repeat(kspace[:, None], 4, axis=1)
    with pytest.raises(ValueError, match=r"a\.h5.*single-coil"):
        read_fastmri(knee / "singlecoil_val", 16)


@pytest.mark.slow
def test_reading_fastmri_imports_nothing_that_fails_beside_a_cpu_build(knee):
    code = (
        "import sys; from pathlib import Path; from iasolve.training.fastmri import read_fastmri;"
        f"read_fastmri(Path({str(knee / 'singlecoil_val')!r}), 16);"
        "bad = {'torchvision', 'pytorch_lightning', 'torchmetrics'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------- phase


def test_a_phase_field_turns_magnitudes_and_keeps_them():
    x = torch.rand(5, 2, 16, 16)
    out = PhaseField()(x, np.random.default_rng(0))
    assert out.dtype == torch.complex64
    torch.testing.assert_close(out.abs(), x)
    torch.testing.assert_close((out / x)[:, 0], (out / x)[:, 1])
    again, other = (PhaseField()(x, np.random.default_rng(s)) for s in (0, 1))
    assert torch.equal(out, again)
    assert not torch.allclose(out, other)
    torch.testing.assert_close(PhaseField(0, 0, 0)(x, np.random.default_rng(0)), x.to(torch.complex64))


def test_a_phase_field_has_the_spread_it_states():
    rng = np.random.default_rng(0)
    smooth = PhaseField(constant=0, linear=0, smooth=0.5).draw(400, (16, 12), rng)
    assert smooth.shape == (400, 16, 12)
    assert float(smooth.square().mean().sqrt()) == pytest.approx(0.5, rel=0.05)
    constant = PhaseField(linear=0, smooth=0).draw(400, (4, 4), rng)
    assert float(constant.abs().max()) == pytest.approx(np.pi, rel=0.02)
    assert torch.equal(constant, constant[:, :1, :1].expand(-1, 4, 4))
    linear = PhaseField(constant=0, linear=2.0, smooth=0).draw(800, (8, 8), rng)
    rise = (linear[:, -1, 0] - linear[:, 0, 0]) * 8 / 7
    assert float(rise.std()) == pytest.approx(2.0, rel=0.1)


def test_a_phase_field_is_smooth_and_follows_its_power_law():
    field = PhaseField(constant=0, linear=0, smooth=1.0, modes=3, exponent=2.0)
    # on twice the field of view the waves are periodic: their amplitudes can be read off
    phi = field.draw(600, (64, 64), np.random.default_rng(0)).double()
    t = torch.arange(64, dtype=torch.float64) / 64
    waves = [(ky, kx) for ky in range(4) for kx in range(-3, 4) if ky > 0 or kx > 0]
    angle = torch.stack([torch.pi * (ky * t[:, None] + kx * t) for ky, kx in waves]).flatten(1)
    basis = torch.cat([angle.cos(), angle.sin()])
    fitted = torch.linalg.lstsq(basis.T, phi.flatten(1).T)
    weights = fitted.solution.T.reshape(600, 2, len(waves))
    torch.testing.assert_close((weights.reshape(600, -1) @ basis), phi.flatten(1), atol=1e-4, rtol=0)
    found = weights.square().mean((0, 1)).sqrt()
    law = torch.tensor([np.hypot(*k) ** -2.0 for k in waves])
    torch.testing.assert_close(found, law / law.norm(), rtol=0.15, atol=0)


@pytest.mark.parametrize("change", [{"speed": 1}, {"smooth": -1.0}, {"modes": -1}])
def test_impossible_phases_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        PhaseField.from_dict(change)


def test_training_images_get_a_new_phase_and_validation_images_a_fixed_one(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.random.default_rng(0).integers(1, 255, (12, 16, 16), dtype=np.uint8))
    data = {
        "name": "a",
        "network": {
            "size": 16,
            "widths": [8] * 5,
            "layers": [1] * 5,
            "latents": [2] * 5,
            "encoder_blocks": [1] * 5,
            "grid_cap": 8,
            "is_complex": True,
        },
        "data": {"path": "a.npz", "validation_every": 4, "phase": {"smooth": 0.3}},
        "augmentation": {"exact": 1.0, "shift": 0.0, "gamma": [1.0, 1.0], "bias_field": 0.0, "flip": [False, False]},
        "degradations": [{"sigma": [0.1, 1.0]}],
        "optimisation": {"images": 8},
    }
    config = TrainingConfig.from_dict(data, tmp_path)
    first, second = load_split(config.data, tmp_path), load_split(config.data, tmp_path)
    assert torch.equal(first.validation, second.validation)
    assert first.validation.is_complex()
    assert not first.train.is_complex()
    rng = np.random.default_rng(0)
    one, two = config.augmentation(first.train, rng), config.augmentation(first.train, rng)
    assert one.is_complex()
    assert float((one.angle() - two.angle()).abs().mean()) > 0.1
    torch.testing.assert_close(normalise(one).abs(), normalise(two).abs(), rtol=1e-4, atol=1e-4)
    data["network"]["is_complex"] = False
    with pytest.raises(ValueError, match="is_complex"):
        TrainingConfig.from_dict(data, tmp_path)
    with pytest.raises(ValueError, match="phase"):
        Augmentation.from_dict({"phase": {}})


# ------------------------------------------------------------------------------------------- configurations


def test_there_are_configurations():
    names = {p.stem for p in CONFIGS}
    for base in ("cifar10", "mri-complex-128"):
        for kind in ("", "-vanilla", "-spectral", "-clean", "-clean-vanilla", "-paper", "-paper-vanilla"):
            assert base + kind in names


def batch_for(config, count=2):
    """Random images of the network's size with a falling spectrum."""
    n = config.network
    generator = torch.Generator().manual_seed(0)
    white = torch.randn((count, n.channels, n.size, n.size), generator=generator)
    images = torch.fft.ifft2(fft2(white) / (1 + radius(n.size, n.size)) ** 1.5).real
    return config.augmentation(normalise(images.abs()), np.random.default_rng(0))


STEPPED = ("cifar10", "cifar10-spectral", "cifar10-vanilla", "mri-complex-128")
"""Configurations that make a training step here: one of each kind of network and data; the others differ in numbers."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
@pytest.mark.slow
def test_a_configuration_makes_a_network_and_a_training_step(path):
    config = load_config(path)
    assert config.name == path.stem
    network = HVAE(config.network)
    count = sum(p.numel() for p in network.parameters())
    if "paper" in path.stem:
        depth = {32: 30, 128: 40}[config.network.size]
        assert sum(config.network.layers) == depth
        assert config.network.grids == config.network.scales
        assert 7e6 < count < 17e6
        return
    assert 2 * count < 25e6, "in half precision it can be bundled"
    objective = Objective(network)
    images = batch_for(config)
    if config.data.kind == "fastmri":
        images = images.to(torch.complex64)
    assert images.is_complex() == config.network.is_complex
    share = round(2 * config.optimisation.degraded)
    degraded = DegradationMix(config.degradations)(images[:share], np.random.default_rng(0)) if share else None
    if path.stem not in STEPPED:
        return
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    losses = objective(images, degraded)
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    assert torch.isfinite(norm)
    assert torch.isfinite(losses.total)


def test_twins_differ_in_nothing_but_their_decoder():
    for path in CONFIGS:
        if not path.stem.endswith("-vanilla"):
            continue
        twin, other = load_config(path), load_config(path.with_stem(path.stem.removesuffix("-vanilla")))
        assert twin.network.decoder == "vanilla"
        assert {**vars(twin), "name": "", "network": None} == {**vars(other), "name": "", "network": None}
        assert twin.network.to_dict() | {"decoder": "separable"} == other.network.to_dict()


def test_a_configuration_builds_on_another(tmp_path):
    (tmp_path / "a.toml").write_text(
        'name = "a"\ndegradations = [{ sigma = [0.1, 1.0] }]\n'
        "[network]\nsize = 4\nwidths = [8, 8, 8]\nlayers = [1, 1, 1]\nlatents = [1, 1, 1]\n"
        "encoder_blocks = [1, 1, 1]\ngrid_cap = 4\n[data]\npath = 'x.npz'\n[optimisation]\nimages = 10\n"
    )
    (tmp_path / "b.toml").write_text('base = "a.toml"\nname = "b"\n[network]\nlayers = [2, 1, 1]\n')
    (tmp_path / "c.toml").write_text('base = "b.toml"\nname = "c"\n[optimisation]\nbatch = 3\n')
    found = load_config(tmp_path / "c.toml")
    assert (found.name, found.network.layers, found.network.widths) == ("c", (2, 1, 1), (8, 8, 8))
    assert (found.optimisation.images, found.optimisation.batch) == (10, 3)
    (tmp_path / "a.toml").write_text('base = "c.toml"\n')
    with pytest.raises(ValueError, match="base"):
        load_config(tmp_path / "c.toml")
    (tmp_path / "b.toml").write_text("base = 3\n")
    with pytest.raises(ValueError, match="base"):
        load_config(tmp_path / "b.toml")


def test_a_data_set_of_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.kind.*'hdf'"):
        DataConfig("x", kind="hdf")
    with pytest.raises(ValueError, match="no parts"):
        DataConfig("x.npz", train_part="train")
    with pytest.raises(FileNotFoundError, match=r"none\.zip"):
        load_images(DataConfig("none.zip", kind="folder"), "train", tmp_path)
