"""Measurements of any shape from files of every kind."""

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from iasolve.files import UnfitData, UnreadableFile, read_measurement, write_image

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(2, 3, 4, 5, 6))


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4, 5, 6), (1, 7)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "complex64", ">f4"])
def test_numpy_and_hdf5_keep_shape_and_type(shape, dtype, tmp_path):
    y = RANDOM.integers(-9, 9, shape).astype(dtype)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "y.npz", other=np.ones(2), measurement=y)
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["sinogram"] = y
        file.create_group("header")
    for name in ("y.npy", "y.npz", "y.h5", "y.npz:measurement", "y.h5:sinogram"):
        found = read_measurement(tmp_path / name)
        np.testing.assert_array_equal(found.values, y)
        assert found.values.dtype == y.dtype.newbyteorder("=")
        assert found.path == tmp_path / name.partition(":")[0]


def test_matlab_keeps_its_axes_but_has_no_vectors(tmp_path):
    scipy.io.savemat(tmp_path / "y.mat", {"y": VALUES, "angles": np.arange(4.0)})
    np.testing.assert_array_equal(read_measurement(tmp_path / "y.mat:y").values, VALUES)
    np.testing.assert_array_equal(read_measurement(tmp_path / "y.mat:angles").values, np.arange(4))
    with pytest.raises(UnfitData, match=r"2 arrays that may be meant.*y\.mat:y"):
        read_measurement(tmp_path / "y.mat")
    for oned_as in ("row", "column"):
        scipy.io.savemat(tmp_path / "v.mat", {"y": np.arange(4.0), "te": 0.03}, oned_as=oned_as)
        np.testing.assert_array_equal(read_measurement(tmp_path / "v.mat").values, np.arange(4))


def test_pictures_have_pages_and_colours_in_front(tmp_path):
    pages = RANDOM.integers(0, 255, (4, 6, 7)).astype(np.uint8)
    colours = RANDOM.integers(0, 255, (6, 7, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    Image.fromarray(pages[0]).save(tmp_path / "page.png")
    Image.fromarray(colours).save(tmp_path / "colours.png")
    write_image(tmp_path / "coils.cfl", pages[:, None].astype(np.complex64) * 1j)
    for name, expected in (
        ("pages.tif", pages.astype(np.float32)),
        ("page.png", pages[0].astype(np.float32)),
        ("colours.png", np.moveaxis(colours, -1, 0).astype(np.float32)),
        ("coils.cfl", pages.astype(np.complex64) * 1j),
    ):
        found = read_measurement(tmp_path / name).values
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_what_cannot_be_read_is_refused(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"] = file["b"] = np.ones(3)
    with pytest.raises(UnfitData, match=r"2 arrays that may be meant.*\(a .*, b .*two.h5:a"):
        read_measurement(tmp_path / "two.h5")
    with pytest.raises(UnfitData, match=r"no dataset named 'c'.*\(a .*, b "):
        read_measurement(tmp_path / "two.h5:c")
    (tmp_path / "text.h5").write_text("no such format")
    with pytest.raises(UnreadableFile, match="HDF5"):
        read_measurement(tmp_path / "text.h5")
    np.save(tmp_path / "nan.npy", [1, np.nan])
    with pytest.raises(UnfitData, match="1 NaN"):
        read_measurement(tmp_path / "nan.npy")
    np.save(tmp_path / "text.npy", ["a", "b"])
    with pytest.raises(UnfitData, match="dtype"):
        read_measurement(tmp_path / "text.npy")
    (tmp_path / "y.docx").write_text("x")
    with pytest.raises(UnreadableFile, match="docx"):
        read_measurement(tmp_path / "y.docx")
