"""``iasolve reconstruct`` on k-space of several coils, and of one coil with phase."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import torch
from cli_fixtures import SIZE, cli, heads, tiny

from iasolve.metrics import psnr
from iasolve.operators import birdcage_maps, centred_ifft2
from iasolve.samples import load_kspace

__all__ = ["heads", "tiny"]  # fixtures

FAST = ("--recipe", "fast", "--sigma", 1)


def centred_fft2(x):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


def lines():
    mask = np.zeros(SIZE, bool)
    mask[::2] = mask[10:22] = True
    return mask


def phase():
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    return np.exp(1j * (1.2 * y + 0.8 * x**2))


def measured(images, coils=4, seed=0):
    """K-space ``(slices, coils, H, W)`` of images with phase, in noise of level 1, every other line."""
    maps = birdcage_maps((SIZE, SIZE), coils).numpy()
    y = centred_fft2(maps * (images * phase())[:, None])
    noise = np.random.default_rng(seed).normal(0, np.sqrt(0.5), (2, *y.shape))
    return ((y + noise[0] + 1j * noise[1]) * lines()).astype(np.complex64)


@pytest.fixture
def kspace(heads, tmp_path):
    """One slice of four coils."""
    path = tmp_path / "y.npy"
    np.save(path, measured(heads[:1])[0])
    return path


def test_coils_come_first_and_the_report_says_what_was_done(kspace, heads, tiny, tmp_path):
    done = cli("reconstruct", kspace, tmp_path / "x.tif", "--prior", tiny, *FAST)
    assert done.code == 0, done
    image = tifffile.imread(tmp_path / "x.tif")
    assert image.shape == (SIZE, SIZE)
    assert image.dtype == np.float32
    assert psnr(image, heads[0]) > 20
    report = json.loads((tmp_path / "x.tif.json").read_text())
    assert report["shape"] == [1, 1, SIZE, SIZE]
    assert report["sigma"] == [1]
    assert report["asked"]["maps"] == "auto"
    operator = report["operator"]
    assert operator["kind"] == "sensitivity encoding"
    assert operator["acceleration"] == pytest.approx(SIZE / lines().sum())
    (found,) = operator["slices"]
    assert (found["coils"], found["coils_used"], found["maps"]) == (4, 4, "espirit")
    assert found["calibration"] == [24, 13]
    assert (found["phase"], found["phase_size"]) == ("TV-SENSE", 32)
    assert report["solver"]["applications"][0] > 0
    assert 0 <= report["solver"]["residual"][0] < 0.1
    assert "4; maps: espirit, from the central 24 x 13" in done.out
    assert "estimated: TV-SENSE" in done.out


def test_the_noise_level_is_estimated_from_all_coils(kspace, tiny, tmp_path):
    report = cli("reconstruct", kspace, tmp_path / "x.npy", "--prior", tiny, "--recipe", "fast", "--json").report
    assert report["sigma_estimated"] is True
    assert 0.8 < report["sigma"][0] < 20  # an upper bound: at this size the signal reaches the outermost samples


@pytest.mark.parametrize("layout", ["npy", "fastmri"])
@pytest.mark.slow
def test_slices_are_solved_one_by_one(layout, heads, tiny, tmp_path):
    y = measured(heads[:2])
    if layout == "npy":
        source = tmp_path / "y.npy"
        np.save(source, y)
    else:
        source = tmp_path / "y.h5"
        with h5py.File(source, "w") as file:
            file["kspace"], file["mask"] = y, lines().astype(np.float32)
    out = tmp_path / ("x.npy" if layout == "npy" else "x.h5")
    done = cli("reconstruct", source, out, "--prior", tiny, *FAST, "--std-out", tmp_path / "std.npy")
    assert done.code == 0, done
    if layout == "npy":
        images = np.load(out)
    else:
        with h5py.File(out) as file:
            images = file["reconstruction"][()]
    assert images.shape == np.load(tmp_path / "std.npy").shape == (2, SIZE, SIZE)
    np.save(tmp_path / "one.npy", y[1])
    assert cli("reconstruct", tmp_path / "one.npy", tmp_path / "alone.npy", "--prior", tiny, *FAST).code == 0
    np.testing.assert_allclose(np.load(tmp_path / "alone.npy"), images[1], rtol=1e-3, atol=0.05)


def test_given_maps_are_taken_and_checked(kspace, heads, tiny, tmp_path):
    maps = birdcage_maps((SIZE, SIZE), 4).numpy().astype(np.complex64)
    np.save(tmp_path / "maps.npy", maps)
    common = ("--prior", tiny, *FAST)
    done = cli("reconstruct", kspace, tmp_path / "x.npy", "--maps", tmp_path / "maps.npy", *common, "--json")
    assert done.code == 0, done
    assert done.report["operator"]["slices"][0]["maps"] == "given"
    assert psnr(np.load(tmp_path / "x.npy"), heads[0]) > 20
    np.save(tmp_path / "three.npy", maps[:3])
    done = cli("reconstruct", kspace, tmp_path / "o.npy", "--maps", tmp_path / "three.npy", *common)
    assert done.code == 3
    assert "1 x 3 x 32 x 32" in done.err
    assert "1 x 4 x 32 x 32" in done.err


def test_coils_are_compressed_when_there_are_many_or_when_asked(heads, tiny, tmp_path):
    np.save(tmp_path / "y.npy", measured(heads[:1], coils=14)[0])
    common = ("--prior", tiny, *FAST, "--json")
    for options, used in (((), 12), (("--coils", 5), 5)):
        done = cli("reconstruct", tmp_path / "y.npy", tmp_path / f"{used}.npy", *options, *common)
        assert done.code == 0, done
        (found,) = done.report["operator"]["slices"]
        assert (found["coils"], found["coils_used"]) == (14, used)
        assert found["energy_kept"] > 0.98
        assert psnr(np.load(tmp_path / f"{used}.npy"), heads[0]) > 20
    done = cli("reconstruct", tmp_path / "y.npy", tmp_path / "o.npy", "--coils", 20, *common[:-1])
    assert done.code == 3
    assert "between 1 and 14" in done.err


def test_phase_of_a_single_coil_is_taken_out_unless_told_otherwise(heads, tiny, tmp_path):
    y = (centred_fft2(heads[0] * phase()) * lines()).astype(np.complex64)
    np.save(tmp_path / "y.npy", y)
    scores = {}
    for choice in ("auto", "none"):
        out = tmp_path / f"{choice}.npy"
        done = cli("reconstruct", tmp_path / "y.npy", out, "--prior", tiny, *FAST, "--phase", choice)
        assert done.code == 0, done
        assert ("what has phase is lost" in done.err) is (choice == "none")
        scores[choice] = psnr(np.load(out), heads[0])
    assert scores["auto"] > scores["none"] + 5
    (found,) = json.loads((tmp_path / "auto.npy.json").read_text())["operator"]["slices"]
    assert found["phase"] == "TV-SENSE"
    assert found["imaginary_share"] > 0.05


def test_without_phase_a_single_coil_stays_on_the_exact_path(heads, tiny, tmp_path):
    np.save(tmp_path / "y.npy", (centred_fft2(heads[:, None]) * lines()).astype(np.complex64))
    report = cli("reconstruct", tmp_path / "y.npy", tmp_path / "o.npy", "--prior", tiny, *FAST, "--json").report
    assert [found["phase"] for found in report["operator"]["slices"]] == ["none"] * 4
    assert report["operator"]["kind"] == "k-space mask"


@pytest.mark.parametrize("fit", ["canvas", "field-of-view"])
def test_real_k_space_of_another_size_than_the_prior(fit, tiny, tmp_path):
    # the centre of the bundled sample: the slice at a fifth of its resolution
    y = load_kspace().kspace[:, 92:138, 72:108]
    np.save(tmp_path / "y.npy", y)
    out = tmp_path / "x.npy"
    done = cli("reconstruct", tmp_path / "y.npy", out, "--prior", tiny, "--recipe", "fast", "--fit", fit, "--coils", 4)
    assert done.code == 0, done
    image = np.load(out)
    assert image.shape == (46, 36)
    assert image.dtype == np.float32
    combined = np.linalg.norm(centred_ifft2(torch.from_numpy(y)), axis=0)
    assert np.corrcoef(image.ravel(), combined.ravel())[0, 1] > 0.9


def test_k_space_without_a_sampled_centre_is_refused_with_a_way_out(heads, tiny, tmp_path):
    y = measured(heads[:1])[0]
    y[:, :, SIZE // 2] = 0
    np.save(tmp_path / "y.npy", y)
    done = cli("reconstruct", tmp_path / "y.npy", tmp_path / "o.npy", "--prior", tiny, *FAST)
    assert done.code == 3
    assert "no sampled centre" in done.err
    assert "maps" in done.err


def test_an_unknown_choice_of_phase_is_refused(kspace, tiny, tmp_path):
    done = cli("reconstruct", kspace, tmp_path / "o.npy", "--prior", tiny, "--phase", "maybe")
    assert done.code == 2
    assert "auto or none" in done.err
