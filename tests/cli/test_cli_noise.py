"""What the command line is told of noise and offsets, and what it says of them."""

import json

import numpy as np
import pytest
from cli_fixtures import cli, heads, tiny

__all__ = ["heads", "tiny"]  # fixtures


def shown(path):
    return json.loads(path.with_name(path.name + ".json").read_text())


def scan(tmp_path, enlarged=False):
    """Magnitudes with noise of 10; enlarged by zeros around k-space."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    clean = 100.0 * ((y - 32) ** 2 + (x - 32) ** 2 < 400)
    image = np.hypot(clean + 10 * rng.standard_normal((64, 64)), 10 * rng.standard_normal((64, 64)))
    if enlarged:
        k = np.fft.fftshift(np.fft.fft2(image))
        image = np.abs(np.fft.ifft2(np.fft.ifftshift(np.pad(k, 32)))) * 4
    np.save(tmp_path / "scan.npy", image.astype(np.float32))
    return tmp_path / "scan.npy"


def test_kinds_of_noise(tiny, tmp_path):
    source = scan(tmp_path)
    air = {}
    for kind in ("gaussian", "rician", "spectral"):
        out = tmp_path / f"{kind}.npy"
        done = cli("denoise", source, out, "--noise", kind, "--prior", tiny, "--recipe", "fast")
        assert done.code == 0, done.err
        report = shown(out)
        assert report["asked"]["noise"] == kind
        assert report["sigma"][0] == pytest.approx(10, rel=0.25)
        assert (report["levels"] is None) == (kind != "spectral")
        assert ("levels    from" in done.out) == (kind == "spectral")
        air[kind] = abs(np.load(out)[:10, :10].mean())
    assert air["rician"] < 0.5 * air["gaussian"]


def test_impossible_kinds_of_noise(tiny, tmp_path):
    source = scan(tmp_path)
    options = ("--prior", tiny, "--recipe", "fast")
    done = cli("denoise", source, tmp_path / "o.npy", "--noise", "pink", *options)
    assert done.code == 2
    assert "expected auto, gaussian, spectral or rician" in done.err
    done = cli("denoise", source, tmp_path / "o.npy", "--noise", "spectral", "--sigma", 10, *options)
    assert done.code == 2
    assert "leave out --sigma 10" in done.err


def test_an_enlarged_image_is_said_to_be_one(tiny, tmp_path):
    out = tmp_path / "o.npy"
    done = cli("denoise", scan(tmp_path, enlarged=True), out, "--prior", tiny, "--recipe", "fast")
    assert done.code == 0, done.err
    (note,) = [w for w in shown(out)["warnings"] if "zero-filled" in w]
    assert "49% x 49%" in note
    assert "from about 63 x 63 pixels" in note
    assert "levels    from" in done.out


def test_offsets(tiny, tmp_path):
    source = scan(tmp_path)
    plain, moved = tmp_path / "plain.npy", tmp_path / "moved.npy"
    options = ("--sigma", 10, "--prior", tiny, "--recipe", "fast")
    assert cli("denoise", source, plain, *options).code == 0
    np.save(source, np.load(source) - 1024)
    done = cli("denoise", source, moved, "--offset", "-1024", *options)
    assert done.code == 0, done.err
    assert "offset    -1024" in done.out
    assert shown(moved)["offset"] == [-1024]
    np.testing.assert_allclose(np.load(moved), np.load(plain) - 1024, atol=0.05)
    done = cli("denoise", source, tmp_path / "o.npy", "--offset", "floor", *options)
    assert done.code == 2
    assert "expected a number in the file's units, or auto" in done.err
