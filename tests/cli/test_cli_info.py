"""``iasolve info``: what is in a file, measured where the answer is known."""

import numpy as np
import pytest
from cli_fixtures import cli
from PIL import Image

from iasolve.samples import load_kspace, load_samples


@pytest.fixture(scope="module")
def heads():
    """Four slices of 128 x 128, 0 to 255."""
    return load_samples().images.astype(np.float64)


def told(*arguments):
    done = cli("info", *arguments, "--json")
    assert done.code == 0, done.err
    return done.report


def test_a_volume_of_heads_in_white_noise(tmp_path, heads):
    noisy = heads + np.random.default_rng(0).normal(0, 20, heads.shape)
    np.save(tmp_path / "v.npy", noisy)
    found = told(tmp_path / "v.npy")
    assert (found["kind"], found["shape"], found["type"]) == ("image", [4, 1, 128, 128], "float64")
    assert found["range"] == pytest.approx([noisy.min(), noisy.max()])
    assert found["noise"]["white"]
    np.testing.assert_allclose(found["noise"]["level"], 20, rtol=0.05)
    assert found["priors"][0]["name"] == "mri-t1-128"
    assert found["priors"][0]["fits"]
    text = cli("info", tmp_path / "v.npy").out
    assert "4 pages, 1 channel, 128 rows, 128 columns" in text
    assert "mri-t1-128: fits" in text


def test_noise_that_is_not_white_has_its_spectrum(tmp_path, heads):
    white = np.random.default_rng(1).normal(0, 20, (128, 128))
    smooth = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1) + np.roll(white, (1, 1), (0, 1))) / 4
    np.save(tmp_path / "a.npy", heads[0] + smooth)
    found = told(tmp_path / "a.npy")["noise"]
    assert not found["white"]
    # a mean of neighbours keeps the coarse and loses the fine
    assert found["rings"][5] > 2 * found["rings"][14]
    assert found["level"] == pytest.approx([10.0], rel=0.15)


def test_coils_are_kspace_and_a_photograph_is_no_head(tmp_path):
    np.save(tmp_path / "k.npy", load_kspace().kspace)
    found = told(tmp_path / "k.npy")
    assert (found["kind"], found["shape"]) == ("k-space", [1, 8, 230, 180])
    assert len(found["noise"]["coils"]) == 8
    assert found["acceleration"] == pytest.approx(8, abs=0.1)
    from skimage.data import camera

    Image.fromarray(camera()).save(tmp_path / "p.png")
    priors = {prior["name"]: prior["fits"] for prior in told(tmp_path / "p.png")["priors"]}
    assert priors["mri-t1-128"] is False
    assert priors["cifar10"] is False


@pytest.mark.parametrize(
    ("name", "options", "code", "words"),
    [("none.png", (), 3, "none.png"), ("a.npy", ("--kind", "sound"), 2, "expected auto, image or kspace")],
)
def test_what_cannot_be_read_is_said(tmp_path, name, options, code, words):
    np.save(tmp_path / "a.npy", np.ones((16, 16)))
    done = cli("info", tmp_path / name, *options)
    assert done.code == code
    assert words in done.err


def test_a_small_flat_image_has_no_noise_and_no_crash(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 5)))
    assert told(tmp_path / "a.npy")["noise"]["level"] is None
    np.save(tmp_path / "b.npy", np.zeros((16, 16)))
    assert told(tmp_path / "b.npy")["noise"]["level"] == [0.0]
