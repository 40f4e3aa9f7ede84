"""MATLAB files: MATLAB's own, version 5 as scipy writes it, and version 7.3 as hdf5storage does."""

from pathlib import Path

import hdf5storage
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from file_fixtures import rng

from iasolve import files
from iasolve.files import FileError, UnfitData, UnreadableFile, WriteError

__all__ = ["rng"]  # a fixture

CLASSES = {"float64": "double", "float32": "single", "complex128": "double", "complex64": "single", "bool": "logical"}


def save(path, version, **variables):
    """A file of version 5 by scipy, or of 7.3 by hdf5storage."""
    if version == 5:
        scipy.io.savemat(path, variables, do_compression=True)
    else:
        hdf5storage.savemat(
            str(path), variables, format="7.3", oned_as="row", store_python_metadata=False, truncate_existing=True
        )
    return path


VERSIONS = pytest.mark.parametrize("version", [5, 7.3])


@pytest.mark.parametrize("by", ["6.1_SOL2", "6.5.1_GLNX86", "7.1_GLNX86", "7.4_GLNX86"])
def test_matlabs_own_files(by):
    """Files that MATLAB itself wrote, which scipy's tests read too."""
    samples = Path(scipy.io.matlab.__file__).parent / "tests" / "data"
    if not samples.is_dir():
        pytest.skip("needs a scipy that was installed with its tests")
    angles = np.arange(9) * np.pi / 4
    volume = files.read_image(samples / f"test3dmatrix_{by}.mat")
    assert (volume.key, volume.dtype, volume.lead) == ("test3dmatrix", np.float64, (4,))
    np.testing.assert_array_equal(volume.pixels[:, 0], np.arange(1.0, 25.0).reshape(4, 3, 2).transpose(0, 2, 1))
    row = files.read_measurement(samples / f"testcomplex_{by}.mat").values
    np.testing.assert_allclose(row, np.cos(angles) + 1j * np.sin(angles), atol=1e-15)
    names = ["testdouble"] if by != "7.4_GLNX86" else ["testdouble", "testhdf5"]
    for name in names:  # the latter of version 7.3
        row = files.read_measurement(samples / f"{name}_{by}.mat").values
        assert row.dtype == np.float64
        np.testing.assert_allclose(row, angles, rtol=1e-15)


@VERSIONS
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *((dtype, (9, 7, 4)) for dtype in ("uint8", "int16", "uint16", "int64", "float32", "float64", "bool")),
        *(("float64", shape) for shape in ((9, 7), (9, 7, 4, 2), (9, 7, 3), (9, 7, 3, 2))),
        *(("complex64", shape) for shape in ((9, 7), (9, 7, 3, 2))),
    ],
)
def test_images_come_back_exactly(tmp_path, rng, version, dtype, shape):
    array = (rng.standard_normal(shape) * 50).astype(dtype)
    if dtype == "complex64":
        array += np.complex64(1j) * rng.standard_normal(shape).astype(np.float32)
    image = files.read_image(save(tmp_path / "a.mat", version, picture=array, te=np.float64(0.03), note="hello"))
    colour = shape[2:3] == (3,) and dtype != "complex64"
    lead = shape[3:] if colour else shape[2:]
    assert (image.key, image.dtype, image.lead) == ("picture", np.dtype(dtype), lead)
    assert image.pixels.shape == (np.prod(lead, dtype=int), 3 if colour else 1, 9, 7)
    last = array[(slice(None), slice(None), *(slice(None),) * colour, *(-1,) * len(lead))]
    np.testing.assert_array_equal(image.pixels[-1], np.moveaxis(last, -1, 0) if colour else last[np.newaxis])
    assert (
        image.slice_axis
        == {0: None, 1: "fourth axis" if colour else "third axis", 2: "third axis x fourth axis"}[len(lead)]
    )
    files.write_image(tmp_path / "b.mat", image.pixels, image)
    assert scipy.io.whosmat(tmp_path / "b.mat") == [("picture", shape, CLASSES.get(dtype, dtype))]
    back = scipy.io.loadmat(tmp_path / "b.mat")["picture"]
    assert back.dtype == ("uint8" if dtype == "bool" else array.dtype)
    np.testing.assert_array_equal(back, array)


@VERSIONS
@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 8), (1, 1, 6, 8)), ((6, 8, 4), (1, 4, 6, 8)), ((6, 8, 4, 2), (2, 4, 6, 8))]
)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_kspace_with_its_mask(tmp_path, rng, version, shape, expected, dtype):
    array = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    mask = np.tile([1.0, 0.0], 4)[np.newaxis]
    path = save(tmp_path / "a.mat", version, kspace=array, maps=array, mask=mask)
    read = files.read_kspace(path)
    assert (read.kspace.shape, read.dtype, read.key) == (expected, dtype, "kspace")
    assert (read.sliced, read.coiled) == (len(shape) == 4, len(shape) > 2)
    np.testing.assert_array_equal(read.kspace, array.reshape(*shape, *(1,) * (4 - len(shape))).transpose(3, 2, 0, 1))
    assert read.mask is not None
    assert read.mask.tolist() == [[True, False] * 4]
    assert files.read_kspace(f"{path}:maps").mask is None
    assert files.read_kspace(path, slices=slice(0, 1)).slices == 1


@VERSIONS
def test_which_variable(tmp_path, version):
    plane = np.ones((4, 5))
    path = save(tmp_path / "a.mat", version, one=plane, two=plane[:, :3], te=np.float64(1), name="text")
    with pytest.raises(UnfitData, match=r"2 arrays.*one 4x5, .*te.*a\.mat:one"):
        files.read_image(path)
    assert files.read_image(f"{path}:two").pixels.shape == (1, 1, 4, 3)
    with pytest.raises(UnfitData, match=r"no array of numbers named 'three'.*one 4x5"):
        files.read_image(path, "three")
    with pytest.raises(UnfitData, match="no array of numbers named 'name'"):
        files.read_image(path, "name")
    with pytest.raises(UnfitData, match="0 arrays"):
        files.read_image(save(tmp_path / "a.mat", version, te=np.float64(1), name="text"))
    with pytest.raises(UnfitData, match="If this is an image"):
        files.read_kspace(save(tmp_path / "a.mat", version, kspace=plane))
    with pytest.raises(UnfitData, match="H, W, coils, slices"):
        files.read_kspace(save(tmp_path / "a.mat", version, kspace=np.ones((2, 2, 2, 2, 2)) * 1j))


def test_whole_numbers_keep_the_type_they_have_in_matlab(tmp_path):
    """MATLAB stores doubles that are whole numbers in the fewest bytes; scipy reads those, and here writes them."""
    matrix = np.arange(20.0).reshape(4, 5)
    scipy.io.savemat(tmp_path / "a.mat", {"image": matrix}, do_compression=False)
    data = (tmp_path / "a.mat").read_bytes()
    flags, dims, name = data[136:152], data[152:168], data[168:184]
    numbers = b"\x02\0\0\0" + (20).to_bytes(4, "little") + matrix.T.astype(np.uint8).tobytes() + bytes(4)
    body = flags + dims + name + numbers
    (tmp_path / "b.mat").write_bytes(data[:128] + b"\x0e\0\0\0" + len(body).to_bytes(4, "little") + body)
    assert scipy.io.loadmat(tmp_path / "b.mat")["image"].dtype == np.uint8
    image = files.read_image(tmp_path / "b.mat")
    assert image.dtype == np.float64
    np.testing.assert_array_equal(image.pixels[0, 0], matrix)


def test_structures_cells_and_sparse_matrices_are_not_taken(tmp_path):
    cell = np.empty((2, 2), object)
    cell[:] = [["a", "b"], ["c", "d"]]
    variables = {"s": {"x": np.ones((3, 3))}, "c": cell, "m": scipy.sparse.csc_array(np.eye(4)), "image": np.eye(5)}
    scipy.io.savemat(tmp_path / "a.mat", variables)
    image = files.read_image(tmp_path / "a.mat")
    assert (image.key, image.pixels.shape) == ("image", (1, 1, 5, 5))


def test_other_versions_are_refused_by_name(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.eye(5)}, format="4")
    with pytest.raises(UnreadableFile, match=r"version 5 or 7\.3 \(perhaps 4"):
        files.read_image(tmp_path / "a.mat")


@VERSIONS
@pytest.mark.slow
def test_truncated_and_damaged_files(tmp_path, rng, version):
    path = save(tmp_path / "a.mat", version, picture=rng.standard_normal((30, 40)))
    whole, data = files.read_image(path).pixels, path.read_bytes()
    for length in {*np.linspace(1, len(data) - 1, 40).astype(int).tolist(), len(data) - 9}:
        path.write_bytes(data[:length])
        with pytest.raises(FileError):
            files.read_image(path)
    for place in np.linspace(0, len(data) - 1, 60).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            pixels = files.read_image(path).pixels
        except FileError:
            continue
        assert pixels.shape == whole.shape


def test_what_matlab_cannot_hold(tmp_path):
    with pytest.raises(WriteError, match="float16"):
        files.require_carry(tmp_path / "b.mat", dtype=np.float16)
    np.savez(tmp_path / "a.npz", **{"my data": np.eye(5)})
    image = files.read_image(tmp_path / "a.npz")
    files.write_image(tmp_path / "b.mat", image.pixels, image)
    assert "image" in scipy.io.loadmat(tmp_path / "b.mat")
