"""``iasolve deblur`` of a picture of a larger scene, against the scene itself; and which boundary a picture has."""

import json

import numpy as np
import pytest
from cli_fixtures import cli, heads, tiny
from scipy.signal import convolve2d

from iasolve.metrics import psnr

__all__ = ["heads", "tiny"]  # fixtures

QUICK = ("--recipe", "fast")


def shake(length=11):
    kernel = np.eye(length)
    kernel[:, length // 2] += 0.3
    return kernel / kernel.sum()


@pytest.fixture
def picture(tmp_path):
    """A blurred picture of the middle of a scene, the scene's part that it shows, and the kernel's file."""
    rows, columns = np.mgrid[:98, :107] / 12.0
    scene = 100 + 60 * np.sin(rows) * np.cos(1.3 * columns) + 40 * ((rows.astype(int) + columns.astype(int)) % 2)
    kernel = shake()
    blurred = convolve2d(scene, kernel, mode="valid") + np.random.default_rng(0).normal(0, 0.5, (88, 97))
    np.save(tmp_path / "blurred.npy", blurred.astype(np.float32))
    np.save(tmp_path / "kernel.npy", kernel)
    return tmp_path / "blurred.npy", scene[5:-5, 5:-5], tmp_path / "kernel.npy"


@pytest.mark.slow
def test_a_picture_of_a_larger_scene_is_right_up_to_its_rim(tmp_path, picture):
    blurred, truth, kernel = picture
    found = {}
    for boundary in ("auto", "unknown", "circular"):
        out = tmp_path / f"{boundary}.npy"
        asked = ("--kernel", kernel, "--boundary", boundary, "--sigma", 0.5, "--prior", "mri-t1-128", "--json", *QUICK)
        done = cli("deblur", blurred, out, *asked)
        assert done.code == 0, done.err
        found[boundary] = np.load(out)
        assert found[boundary].shape == truth.shape
        assert done.report["operator"]["boundary"] == boundary.replace("auto", "unknown")
    np.testing.assert_array_equal(found["auto"], found["unknown"])
    assert psnr(found["unknown"], truth) > psnr(np.load(blurred), truth) + 4
    assert psnr(found["unknown"], truth) > psnr(found["circular"], truth) + 8
    error = np.abs(found["unknown"] - truth)
    rim = np.concatenate([error[:5].ravel(), error[-5:].ravel()])
    assert np.sqrt((rim**2).mean()) < 1.5 * np.sqrt((error[10:-10, 10:-10] ** 2).mean())


def test_a_mirrored_scene_is_one_that_goes_on(tmp_path, picture):
    """What was blurred with mirrored borders is a picture of a larger scene, too."""
    _, truth, kernel = picture
    extended = np.pad(truth, 5, mode="symmetric")
    y = convolve2d(extended, np.load(kernel), mode="valid") + np.random.default_rng(1).normal(0, 0.5, truth.shape)
    np.save(tmp_path / "mirrored.npy", y.astype(np.float32))
    asked = ("--kernel", kernel, "--sigma", 0.5, "--prior", "mri-t1-128", *QUICK)
    assert cli("deblur", tmp_path / "mirrored.npy", tmp_path / "x.npy", *asked).code == 0
    assert psnr(np.load(tmp_path / "x.npy"), truth) > psnr(y, truth) + 4


def test_what_was_simulated_wraps_around_and_says_so(tmp_path, heads, tiny):
    np.save(tmp_path / "heads.npy", heads[:1])
    y = tmp_path / "y.npy"
    assert cli("simulate", tmp_path / "heads.npy", y, "--task", "gaussian", "--width", 1.5, "--sigma", 1).code == 0
    assert json.loads((tmp_path / "y.npy.json").read_text())["operator"]["boundary"] == "circular"
    done = cli("deblur", y, tmp_path / "x.npy", "--gaussian", 1.5, "--prior", tiny, *QUICK, "--json")
    assert done.report["operator"]["boundary"] == "circular"
    assert done.report["asked"]["boundary"] == "auto"
    for damaged in ("{", "[]", '{"command": "simulate", "operator": 3}'):
        (tmp_path / "y.npy.json").write_text(damaged)
        done = cli("deblur", y, tmp_path / "x.npy", "--gaussian", 1.5, "--prior", tiny, *QUICK, "--json", "--overwrite")
        assert done.report["operator"]["boundary"] == "unknown"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--gaussian", 1, "--boundary", "mirror"), "expected auto, unknown or circular"),
        (("--cutoff", 8, "--boundary", "unknown"), "expected circular or auto"),
    ],
)
def test_impossible_boundaries_are_refused(tmp_path, picture, tiny, asked, words):
    done = cli("deblur", picture[0], tmp_path / "x.npy", *asked, "--prior", tiny)
    assert done.code == 2
    assert words in " ".join(done.err.split())


@pytest.mark.slow
def test_a_folder_of_pictures_of_several_sizes(tmp_path, picture, tiny):
    folder = tmp_path / "in"
    folder.mkdir()
    values = np.load(picture[0])[:44, :49]
    np.save(folder / "a.npy", values)
    np.save(folder / "b.npy", np.stack([values[:38, :41]] * 2))
    asked = ("--kernel", picture[2], "--prior", tiny, "--std-out", tmp_path / "std", "--samples", 2, *QUICK, "--json")
    done = cli("deblur", folder, tmp_path / "out", *asked)
    assert done.code == 0, done.err
    assert np.load(tmp_path / "out" / "a.npy").shape == values.shape
    assert np.load(tmp_path / "std" / "b.npy").shape == (2, 38, 41)
