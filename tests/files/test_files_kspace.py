"""K-space, masks and kernels. Inputs are written by other libraries or by hand."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from file_fixtures import rng, save_plain
from PIL import Image

from iasolve import files
from iasolve.files import UnfitData, WriteError

__all__ = ["rng"]  # a fixture


# --- k-space ---------------------------------------------------------------------------------------------


def write_fastmri(path, *, coils=None, slices=3, test=False):
    """Write the layout of the public fastMRI files: train and val hold the target, test files the mask."""
    rng = np.random.default_rng(0)
    shape = (slices, *(() if coils is None else (coils,)), 20, 16)
    kspace = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    mask = np.arange(16) % 4 == 0
    with h5py.File(path, "w") as file:
        file.create_dataset("ismrmrd_header", data="<ismrmrdHeader>é</ismrmrdHeader>", dtype=h5py.string_dtype())
        file.create_dataset("kspace", data=kspace * mask if test else kspace)
        if test:
            file.create_dataset("mask", data=mask.astype(np.uint8))
        else:
            file.create_dataset("reconstruction_esc", data=np.abs(kspace.reshape(slices, -1, 20, 16)[:, 0, 2:18]))
        file.attrs["acquisition"] = "CORPDFS_FBK"
        file.attrs["patient_id"] = "0123abcd"
        if test:
            file.attrs["num_low_frequency"] = np.int64(26)
            file.attrs["acceleration"] = np.int64(4)
        else:
            file.attrs["max"] = np.float64(0.5)
            file.attrs["norm"] = np.float64(1.25)
    return kspace, mask


def test_fastmri_single_coil(tmp_path):
    kspace, _ = write_fastmri(tmp_path / "a.h5")
    read = files.read_kspace(tmp_path / "a.h5")
    assert (read.kspace.shape, read.dtype, read.slices, read.coils) == ((3, 1, 20, 16), np.complex64, 3, 1)
    np.testing.assert_array_equal(read.kspace[:, 0], kspace)
    assert (read.mask, read.sliced, read.coiled) == (None, True, False)
    expected = {"acquisition": "CORPDFS_FBK", "patient_id": "0123abcd", "max": 0.5, "norm": 1.25}
    assert dict(read.attributes) == expected
    assert {name: type(value) for name, value in read.attributes.items()} == {
        name: type(value) for name, value in expected.items()
    }
    assert read.header == "<ismrmrdHeader>é</ismrmrdHeader>"
    with pytest.raises(UnfitData, match=r"float32.*complex"):
        files.read_kspace(f"{tmp_path}/a.h5:reconstruction_esc")


def test_fastmri_multicoil_test_file(tmp_path):
    kspace, mask = write_fastmri(tmp_path / "a.h5", coils=4, test=True)
    read = files.read_kspace(tmp_path / "a.h5")
    assert (read.kspace.shape, read.coiled) == ((3, 4, 20, 16), True)
    np.testing.assert_array_equal(read.kspace, kspace * mask)
    assert read.mask is not None
    assert (read.mask.shape, read.mask.dtype) == ((1, 16), bool)
    np.testing.assert_array_equal(read.mask[0], mask)
    assert read.attributes["acceleration"] == 4
    part = files.read_kspace(tmp_path / "a.h5", slices=slice(1, 2))
    np.testing.assert_array_equal(part.kspace, read.kspace[1:2])


def test_fastmri_reconstructions_are_what_fastmri_evaluate_reads(tmp_path, rng):
    """Through its own function, against the target of the same name: the error is the one that was put in."""
    evaluate = pytest.importorskip("fastmri.evaluate")
    targets, predictions = tmp_path / "targets", tmp_path / "predictions"
    targets.mkdir()
    predictions.mkdir()
    truth = rng.random((3, 16, 16)).astype(np.float32)
    with h5py.File(targets / "a.h5", "w") as file:
        file["reconstruction_esc"] = truth
    image = files.read_image(targets / "a.h5")
    assert (image.key, image.lead, image.dtype) == ("reconstruction_esc", (3,), np.float32)
    files.write_image(predictions / "a.h5", image.pixels + 0.1, image)
    with h5py.File(predictions / "a.h5") as file:
        assert list(file) == ["reconstruction"]
        assert (file["reconstruction"].shape, file["reconstruction"].dtype) == ((3, 16, 16), np.float32)
    arguments = SimpleNamespace(target_path=targets, predictions_path=predictions, acquisition=None, acceleration=None)
    metrics = evaluate.evaluate(arguments, "reconstruction_esc")
    assert metrics.means()["MSE"] == pytest.approx(0.01, rel=1e-4)
    again = files.read_image(predictions / "a.h5")
    assert again.key == "reconstruction"
    np.testing.assert_allclose(again.pixels[:, 0], truth + 0.1, rtol=1e-6)
    single = files.read_kspace(save_plain(tmp_path / "k.npy", truth[0] + 0j))
    files.write_image(tmp_path / "b.h5", np.abs(single.kspace))  # one slice is a stack of one
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["reconstruction"].shape == (1, 16, 16)


def test_what_fastmri_files_cannot_hold(tmp_path):
    for dtype in (np.uint8, np.complex64):
        with pytest.raises(WriteError, match=r"one of .*\.npy"):
            files.require_carry(tmp_path / "a.h5", dtype=dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones((2, 6, 8), np.complex64)
    with pytest.raises(UnfitData, match=r"no dataset named 'reconstruction'.*kspace \(2, 6, 8\).*iasolve reconstruct"):
        files.read_image(tmp_path / "a.h5")


def test_h5_files_that_do_not_fit(tmp_path):
    def write(**data):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, value in data.items():
                file[name] = value

    good = np.ones((2, 6, 8), np.complex64)
    write(image=np.ones((2, 6, 8)))
    with pytest.raises(UnfitData, match=r"image \(2, 6, 8\)"):
        files.read_kspace(tmp_path / "a.h5")
    assert files.split_key(f"{tmp_path}/a.h5:image")[1] == "image"
    write(kspace=good[0])
    with pytest.raises(UnfitData, match=r"shape \(6, 8\).*slices, H, W"):
        files.read_kspace(tmp_path / "a.h5")
    write(kspace=np.ones((2, 6, 8, 2), np.float32))
    with pytest.raises(UnfitData, match="real and imaginary"):
        files.read_kspace(tmp_path / "a.h5")
    write(kspace=good, mask=np.ones(9))
    with pytest.raises(UnfitData, match=r"mask of shape \(9,\)"):
        files.read_kspace(tmp_path / "a.h5")
    write(kspace=good, mask=np.full(8, 0.5))
    with pytest.raises(UnfitData, match="mask"):
        files.read_kspace(tmp_path / "a.h5")
    write(kspace=good * np.nan)
    with pytest.raises(UnfitData, match="96 NaN"):
        files.read_kspace(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_kspace_arrays(tmp_path, rng, suffix):
    for shape, expected, sliced, coiled in [
        ((6, 8), (1, 1, 6, 8), False, False),
        ((4, 6, 8), (1, 4, 6, 8), False, True),
        ((2, 4, 6, 8), (2, 4, 6, 8), True, True),
    ]:
        array = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        read = files.read_kspace(save_plain(tmp_path / f"a{suffix}", array))
        assert (read.kspace.shape, read.sliced, read.coiled) == (expected, sliced, coiled)
        assert read.dtype == np.complex128
        np.testing.assert_array_equal(read.kspace.reshape(shape), array)
    with pytest.raises(UnfitData, match=r"last axis of 2.*1j \* a\[\.\.\., 1\]"):
        files.read_kspace(save_plain(tmp_path / f"a{suffix}", np.ones((6, 8, 2))))
    with pytest.raises(UnfitData, match="If this is an image"):
        files.read_kspace(save_plain(tmp_path / f"a{suffix}", np.ones((6, 8))))
    with pytest.raises(UnfitData, match="coils, H, W"):
        files.read_kspace(save_plain(tmp_path / f"a{suffix}", np.ones(6, np.complex64)))


def test_kspace_npz_with_its_mask(tmp_path):
    kspace, mask = np.ones((6, 8), ">c8"), np.tile([1, 0], 4)
    np.savez(tmp_path / "a.npz", mask=mask, kspace=kspace, other=kspace)
    read = files.read_kspace(tmp_path / "a.npz")
    assert read.key == "kspace"
    assert read.dtype.isnative
    assert read.mask is not None
    assert read.mask.tolist() == [[True, False] * 4]
    assert files.read_kspace(f"{tmp_path}/a.npz:other").mask is None
    assert files.read_mask(tmp_path / "a.npz").tolist() == [[True, False] * 4]


# --- masks and kernels -----------------------------------------------------------------------------------


def test_masks_of_every_kind(tmp_path, rng):
    plane = rng.random((6, 8)) > 0.5
    for suffix in files.PLANE_SUFFIXES:
        for top in (1, 255):
            read = files.read_mask(save_plain(tmp_path / f"m{suffix}", (plane * top).astype(np.uint8)))
            assert read.dtype == bool
            np.testing.assert_array_equal(read, plane)
    Image.fromarray(plane).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(files.read_mask(tmp_path / "bits.png"), plane)
    rgb = np.repeat((plane * 255).astype(np.uint8)[..., np.newaxis], 3, -1)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(files.read_mask(tmp_path / "rgb.png"), plane)
    np.save(tmp_path / "row.npy", plane[0].astype(float))
    np.testing.assert_array_equal(files.read_mask(tmp_path / "row.npy"), plane[:1])
    rgb[0, 0] = 255, 0, 0
    Image.fromarray(rgb).save(tmp_path / "red.png")
    with pytest.raises(UnfitData, match="colour"):
        files.read_mask(tmp_path / "red.png")


@pytest.mark.parametrize(
    "array",
    [
        np.array([[0, 0.5, 1]]),
        np.array([[0, 1, 255]]),
        np.array([[0, -1]]),
        np.array([[0, np.nan]]),
        np.array([[0, 2]]),
        np.zeros((2, 3, 4)),
        np.array(1),
    ],
)
def test_other_values_are_no_mask(tmp_path, array):
    with pytest.raises(UnfitData, match="mask"):
        files.read_mask(save_plain(tmp_path / "m.npy", array))


def test_kernels(tmp_path):
    kernel = np.array([[0, 4, 0], [4, 16, 4], [0, 4, 0]], np.uint8)
    for suffix in files.PLANE_SUFFIXES:
        read = files.read_kernel(save_plain(tmp_path / f"k{suffix}", kernel))
        assert read.dtype == np.float64
        np.testing.assert_array_equal(read, kernel)
    negative = np.array([[-0.25, 1.0, -0.25]])
    np.testing.assert_array_equal(files.read_kernel(save_plain(tmp_path / "k.npy", negative)), negative)
    for array, words in [
        (np.array([[-0.1, 0.3, -0.2]]), "sum"),
        (np.zeros((3, 3)), "sum"),
        (np.array([[np.nan, 1]]), "1 NaN"),
        (np.ones((2, 3, 3)), "shape"),
        (np.ones((3, 3), complex), "complex"),
    ]:
        with pytest.raises(UnfitData, match=words):
            files.read_kernel(save_plain(tmp_path / "k.npy", array))
    np.savez(tmp_path / "k.npz", image=np.ones((4, 4)), kernel=negative)
    np.testing.assert_array_equal(files.read_kernel(tmp_path / "k.npz"), negative)


def test_coils_that_stand_last_are_not_taken_for_rows(tmp_path):
    np.save(tmp_path / "last.npy", np.ones((230, 180, 8), np.complex64))
    with pytest.raises(UnfitData, match=r"230 coils of 180 x 8 .*moveaxis"):
        files.read_kspace(tmp_path / "last.npy")
