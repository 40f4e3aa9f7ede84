"""BART's .cfl and .hdr, against the functions of BART's own Python module."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from file_fixtures import rng

from iasolve import files
from iasolve.files import FileError, UnfitData, UnreadableFile, WriteError

__all__ = ["rng"]  # a fixture


def _bart():
    """BART's Python functions, as mri-nufft carries them: the file alone, for the package imports deepinv."""
    package = importlib.util.find_spec("mrinufft")
    if package is None:
        pytest.skip("needs BART's Python functions: pip install mri-nufft", allow_module_level=True)
    found = importlib.util.spec_from_file_location("cfl", Path(package.origin).parent / "io" / "cfl.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


cfl = _bart()


def save(path, array):
    """By BART's Python functions, as mri-nufft carries them."""
    cfl._writecfl(array, path)
    return path


def load(path):
    return cfl._readcfl(path)


def dimensions(header):
    """All that a header names; BART's reader leaves the last ones out."""
    return [int(word) for word in header.read_text().splitlines()[1].split()]


def noise(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize(
    ("dims", "shape", "axis"),
    [
        ((6, 8), (1, 1, 6, 8), None),
        ((6, 8, 1, 4), (1, 4, 6, 8), None),
        ((6, 8, 1, 4, *(1,) * 12), (1, 4, 6, 8), None),
        ((6, 8, 1, 4, *(1,) * 9, 3, 1, 1), (3, 4, 6, 8), "slice"),
        ((6, 8, 1, 1, 1, 1, 1, 1, 1, 1, 5, 1, 1, 3), (15, 1, 6, 8), "time x slice"),
    ],
)
def test_kspace(tmp_path, rng, dims, shape, axis):
    array = noise(rng, *dims)
    read = files.read_kspace(save(tmp_path / "k.cfl", array))
    assert (read.kspace.shape, read.dtype, read.slice_axis) == (shape, np.complex64, axis)
    assert (read.sliced, read.coiled) == (axis is not None, shape[1] > 1)
    full = array.reshape(*dims, *(1,) * (16 - len(dims)))
    for coil in range(shape[1]):
        plane = full[:, :, 0, coil, 0, 0, 0, 0, 0, 0, -1, 0, 0, -1, 0, 0]
        np.testing.assert_array_equal(read.kspace[-1, coil], plane)


def test_kspace_that_is_no_stack_of_planes_is_refused(tmp_path, rng):
    with pytest.raises(UnfitData, match=r"axis 2 \(z\).*fft -i -u 4"):
        files.read_kspace(save(tmp_path / "k.cfl", noise(rng, 6, 8, 5, 4)))
    with pytest.raises(UnfitData, match=r"axis 4 \(map\).*bart slice 4"):
        files.read_kspace(save(tmp_path / "k.cfl", noise(rng, 6, 8, 1, 4, 2)))


@pytest.mark.parametrize(
    ("dims", "lead", "axis"),
    [
        ((9, 7), (), None),
        ((9, 7, 4), (4,), "z"),
        ((9, 7, 1, 1, 1, 1, 1, 1, 1, 1, 5, 1, 1, 3), (5, 3), "time x slice"),
    ],
)
@pytest.mark.parametrize("real", [False, True])
def test_images_come_back_exactly(tmp_path, rng, dims, lead, axis, real):
    array = noise(rng, *dims)
    array = array.real.astype(np.complex64) if real else array
    image = files.read_image(save(tmp_path / "a.cfl", array))
    assert image.dtype == (np.float32 if real else np.complex64)
    assert (image.lead, image.slice_axis, image.pixels.shape[2:]) == (lead, axis, (9, 7))
    np.testing.assert_array_equal(image.pixels[0, 0], array.reshape(9, 7, -1, order="F")[..., 0])
    files.write_image(tmp_path / "b.cfl", image.pixels, image)
    assert dimensions(tmp_path / "b.hdr") == [*dims, *(1,) * (16 - len(dims))]
    back = load(tmp_path / "b.cfl")
    np.testing.assert_array_equal(back.reshape(dims), array)


def test_other_stacks_go_along_the_slices(tmp_path, rng):
    stack = rng.standard_normal((4, 9, 7)).astype(np.float32)
    np.save(tmp_path / "a.npy", stack)
    image = files.read_image(tmp_path / "a.npy")
    files.write_image(tmp_path / "b.cfl", image.pixels, image)
    assert dimensions(tmp_path / "b.hdr") == [9, 7, *(1,) * 11, 4, 1, 1]
    back = load(tmp_path / "b.cfl")
    np.testing.assert_array_equal(np.moveaxis(back.reshape(9, 7, 4), -1, 0), stack)
    np.testing.assert_array_equal(files.read_image(tmp_path / "b.cfl").pixels, image.pixels)
    with pytest.raises(WriteError, match="uint8"):
        files.require_carry(tmp_path / "b.cfl", dtype=np.uint8)


def test_a_pair_that_does_not_belong_together(tmp_path, rng):
    path = save(tmp_path / "k.cfl", noise(rng, 6, 8))
    data = path.read_bytes()
    for length in (1, 8, len(data) - 8, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableFile, match=rf"{length} bytes, where k\.hdr tells of 6 x 8"):
            files.read_kspace(path)
    path.write_bytes(data)
    for text in ("", "# Dimensions\n", "# Dimensions\n6 eight\n", "# D\n6 -8\n", "6 8" + " 1" * 16, "# D\n6 ü\n"):
        path.with_suffix(".hdr").write_text(text, encoding="latin-1")
        with pytest.raises(FileError):
            files.read_kspace(path)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(UnreadableFile, match=r"no k\.hdr beside it"):
        files.read_image(path)


def test_the_pair_is_written_whole_or_not_at_all(tmp_path, rng, monkeypatch):
    image = files.read_image(save(tmp_path / "a.cfl", noise(rng, 9, 7)))
    (tmp_path / "b.hdr").write_text("somebody else's")
    with pytest.raises(WriteError, match=r"b\.hdr: the file exists already"):
        files.guard_output(tmp_path / "b.cfl")
    with pytest.raises(WriteError, match="NaN"):
        files.write_image(tmp_path / "b.cfl", image.pixels * np.nan, image)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("iasolve.files.kinds.bart._shape", lambda picture: (9, 7, *(1,) * 14))
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match="no space left"):
        files.write_image(tmp_path / "b.cfl", image.pixels, image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cfl", "a.hdr", "b.hdr"]
    assert (tmp_path / "b.hdr").read_text() == "somebody else's"
