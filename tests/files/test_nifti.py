"""NIfTI: volumes written by nibabel, and what is written of them read back by nibabel."""

import gzip
import sys

import numpy as np
import pytest
from file_fixtures import rng

from iasolve import files
from iasolve.files import UnfitData, UnreadableFile, WriteError

nibabel = pytest.importorskip("nibabel")

__all__ = ["rng"]  # a fixture

# A scan as it comes: oblique, voxels of 0.9 x 1.1 x 3 mm, x towards the left.
OBLIQUE = np.array([[-0.9, 0.02, 0.1, 88.0], [0.01, 1.1, -0.3, -120.5], [0.05, 0.3, 3.0, -60.0], [0, 0, 0, 1]])


def save(path, array, affine=OBLIQUE, *, slope=None, kind=nibabel.Nifti1Image, code=1):
    """Write stored values, with a slope and an intercept where wanted."""
    image = kind(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"a scanner's own words"
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_slope_inter(*(slope or (1, 0)))
    nibabel.save(image, path)
    return path


def same_header(a, b, *, but=()):
    a, b = (nibabel.load(path).header for path in (a, b))
    assert type(a) is type(b)
    for name in a:
        if name not in but:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


TYPES = ["uint8", "int16", "uint16", "int32", ">i2", "float32", "float64", "complex64"]


@pytest.mark.parametrize(
    ("suffix", "dtype", "key"),
    [
        *((suffix, dtype, None) for suffix in (".nii", ".nii.gz") for dtype in TYPES),
        *((".nii", dtype, key) for dtype in ("int16", "complex64") for key in "xyz"),
    ],
)
def test_unchanged_voxels_come_back_with_header_and_affine(tmp_path, rng, suffix, dtype, key):
    array = (rng.standard_normal((5, 6, 7)) * 50).astype(dtype)
    source = save(tmp_path / f"a{suffix}", array)
    image = files.read_image(source, key)
    along = "xyz".index(key or "z")
    assert image.kind == suffix
    assert image.pages == array.shape[along]
    assert sorted(image.pixels.shape[2:]) == sorted(np.delete(array.shape, along))
    files.write_image(tmp_path / f"b{suffix}", image.pixels, image)
    back = nibabel.load(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), array)
    np.testing.assert_array_equal(back.affine, nibabel.load(source).affine)
    same_header(source, tmp_path / f"b{suffix}")


def test_slices_are_seen_as_a_radiologist_sees_them(tmp_path):
    """However the voxels are stored, the same body gives the same picture: right on the left, front at the top."""
    x, y, z = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")  # to the right, front and head
    body = (100 * x + 10 * y + z).astype(np.int16)
    image = nibabel.Nifti1Image(body, np.diag([1, 1, 1, 1]))
    wanted = {
        "axial": np.moveaxis(body, 2, 0)[:, ::-1, ::-1].swapaxes(1, 2),
        "sagittal": body[:, ::-1, ::-1].swapaxes(1, 2),
        "coronal": np.moveaxis(body, 1, 0)[:, ::-1, ::-1].swapaxes(1, 2),
    }
    for codes in ("RAS", "LPS", "LAS", "PIR", "SRP", "AIL"):
        turned = image.as_reoriented(
            nibabel.orientations.ornt_transform(
                nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
            )
        )
        nibabel.save(turned, tmp_path / "a.nii")
        for plane, letters in (("axial", "IS"), ("sagittal", "LR"), ("coronal", "PA")):
            axis = next(i for i, code in enumerate(codes) if code in letters)
            read = files.read_image(f"{tmp_path}/a.nii:{'xyz'[axis]}")
            order = 1 if codes[axis] in "RAS" else -1
            np.testing.assert_array_equal(read.pixels[:, 0], wanted[plane][::order], err_msg=f"{codes} {plane}")
            ends = {"IS": "inferior to superior", "LR": "left to right", "PA": "posterior to anterior"}[letters]
            named = ends if order == 1 else " to ".join(reversed(ends.split(" to ")))
            assert read.slice_axis == f"{'xyz'[axis]} ({named})"


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8"])
def test_slopes_are_applied_and_taken_back(tmp_path, rng, dtype):
    stored = rng.integers(0, 200, (5, 6, 7)).astype(dtype)
    source = save(tmp_path / "a.nii", stored, slope=(0.25, -3.0))
    image = files.read_image(source)
    np.testing.assert_allclose(np.sort(image.pixels.ravel()), np.sort(stored.ravel() * 0.25 - 3.0))
    assert image.dtype == np.dtype(dtype)
    files.write_image(tmp_path / "b.nii", image.pixels + 0.1, image)
    same_header(source, tmp_path / "b.nii")
    back = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(back.dataobj.get_unscaled(), stored)
    files.write_image(tmp_path / "b.nii", image.pixels * 1e6, image)
    assert nibabel.load(tmp_path / "b.nii").dataobj.get_unscaled().max() == np.iinfo(dtype).max
    # where there is no place for the slope, the values are written as they are
    files.write_image(tmp_path / "b.npy", image.pixels, image)
    written = np.load(tmp_path / "b.npy")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, image.pixels[:, 0])
    # and a standard deviation is no value of the image: it takes neither its slope nor its type
    files.write_image(tmp_path / "std.nii", image.pixels / 1000, image, dtype=np.float32)
    std = nibabel.load(tmp_path / "std.nii")
    assert std.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.sort(std.get_fdata().ravel()), np.sort(image.pixels.ravel() / 1000), rtol=1e-6)
    np.testing.assert_array_equal(std.affine, nibabel.load(source).affine)


def test_floats_with_a_slope(tmp_path, rng):
    stored = rng.standard_normal((5, 6, 7)).astype(np.float32)
    image = files.read_image(save(tmp_path / "a.nii", stored, slope=(2.0, 1.0)))
    np.testing.assert_allclose(np.sort(image.pixels.ravel()), np.sort(2 * stored.ravel() + 1), rtol=1e-6)
    files.write_image(tmp_path / "b.nii", image.pixels, image)
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii").get_fdata(), 2 * stored + 1, rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (5, 6, 7, 3), (5, 6, 1, 3), (5, 6, 7, 1, 2)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_planes_and_series(tmp_path, rng, shape, kind):
    array = rng.integers(0, 99, shape, np.int16)
    source = save(tmp_path / "a.nii.gz", array, kind=kind)
    image = files.read_image(source)
    assert image.pages == np.prod(shape[2:], dtype=int)
    assert image.paged == (len(shape) > 2)
    assert (image.slice_axis is None) == (len(shape) == 2)
    if len(shape) > 3 and shape[3] > 1:
        assert str(image.slice_axis).startswith("axis 4 x z (")
    files.write_image(tmp_path / "b.nii.gz", image.pixels, image)
    back = nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), array)
    same_header(source, tmp_path / "b.nii.gz")


def test_extensions_and_a_volume_without_a_place(tmp_path, rng):
    array = rng.integers(0, 99, (5, 6, 7), np.int16)
    image = nibabel.Nifti1Image(array, None)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept as it is"))
    nibabel.save(image, tmp_path / "a.nii")
    read = files.read_image(tmp_path / "a.nii")
    files.write_image(tmp_path / "b.nii", read.pixels, read)
    back = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), array)
    assert back.header.extensions[0].get_content() == b"kept as it is"
    assert (back.header["qform_code"], back.header["sform_code"]) == (0, 0)


def test_other_inputs_become_volumes_that_read_back_alike(tmp_path, rng):
    stack = rng.integers(0, 99, (4, 9, 7)).astype(np.uint8)
    np.save(tmp_path / "a.npy", stack)
    image = files.read_image(tmp_path / "a.npy")
    files.write_image(tmp_path / "b.nii.gz", image.pixels, image)
    assert nibabel.load(tmp_path / "b.nii.gz").shape == (7, 9, 4)
    again = files.read_image(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(again.pixels, image.pixels)
    assert again.dtype == np.uint8


def test_equal_results_are_equal_files(tmp_path, rng):
    image = files.read_image(save(tmp_path / "a.nii.gz", rng.integers(0, 99, (5, 6, 7), np.int16)))
    for name in ("b.nii.gz", "c.nii.gz"):
        files.write_image(tmp_path / name, image.pixels, image)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_what_does_not_fit_is_refused(tmp_path, rng):
    source = save(tmp_path / "a.nii", rng.integers(0, 99, (5, 6, 7), np.int16))
    with pytest.raises(UnfitData, match=r"slices along 'w'.*a\.nii:x"):
        files.read_image(f"{source}:w")
    image = files.read_image(source)
    with pytest.raises(WriteError, match=r"affine.*\.npy"):
        files.write_image(tmp_path / "b.nii", image.pixels[:, :, :-1], image)
    with pytest.raises(WriteError, match="3 colours"):
        files.write_image(tmp_path / "b.nii", np.zeros((1, 3, 5, 6)), None)
    with pytest.raises(WriteError, match="float16"):
        files.write_image(tmp_path / "b.nii", np.zeros((1, 1, 5, 6), np.float16), None)
    rgb = np.zeros((5, 6, 7), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(UnfitData, match="grey"):
        files.read_image(tmp_path / "rgb.nii")
    nan = np.zeros((5, 6, 7), np.float32)
    nan[0, 0, 0] = np.nan
    with pytest.raises(UnfitData, match="1 NaN"):
        files.read_image(save(tmp_path / "nan.nii", nan))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii", "nan.nii", "rgb.nii"]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_and_damaged_files(tmp_path, rng, suffix):
    source = save(tmp_path / f"a{suffix}", rng.integers(0, 30000, (9, 8, 7), np.int16))
    data = source.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in {*np.linspace(1, len(data) - 1, 30).astype(int).tolist(), len(data) - 9}:
        cut.write_bytes(data[:length])
        with pytest.raises(UnreadableFile):
            files.read_image(cut)
    if suffix == ".nii.gz":
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0xFF
        cut.write_bytes(damaged)
        with pytest.raises(UnreadableFile):
            files.read_image(cut)
    cut.write_bytes(gzip.compress(b"hello") if suffix == ".nii.gz" else b"hello, this is text" * 40)
    with pytest.raises(UnreadableFile, match="NIfTI"):
        files.read_image(cut)
    header = bytearray(data if suffix == ".nii" else gzip.decompress(data))
    header[42:48] = b"\xff\x7f" * 3  # 32767 voxels along each axis
    cut.write_bytes(header if suffix == ".nii" else gzip.compress(header))
    with pytest.raises(UnreadableFile):
        files.read_image(cut)


def test_without_nibabel_the_message_says_how_to_install_it(tmp_path, rng, monkeypatch):
    source = save(tmp_path / "a.nii.gz", rng.integers(0, 99, (5, 6, 7), np.int16))
    image = files.read_image(source)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(UnreadableFile, match=r"pip install 'iasolve\[nifti\]'"):
        files.read_image(source)
    with pytest.raises(WriteError, match=r"pip install 'iasolve\[nifti\]'"):
        files.require_carry(tmp_path / "b.nii", image)
