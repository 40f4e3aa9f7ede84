"""Long volumes that are read and written a few images at a time: the same as whole, and never of two files."""

import gzip
import os

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from iasolve.files import (
    FileError,
    Stack,
    UnfitData,
    UnreadableFile,
    open_image,
    open_kspace,
    read_image,
    read_kspace,
    read_measurement,
    write_image,
)
from iasolve.files import stack as stack_module
from iasolve.files.contents import Picture


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """Files of every size are large, and runs are of one image or two."""
    monkeypatch.setattr(stack_module, "LARGE", 1)
    monkeypatch.setattr(stack_module, "RUN", 3000)


def values(shape, dtype, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 40 + 100).astype(dtype)


AFFINE = np.array([[0, 2.0, 0, 0], [0, 0, -3, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def nifti(shape, dtype, affine=AFFINE, slope=None):
    def save(path):
        image = nibabel.Nifti1Image(values(shape, dtype), affine)
        if slope is not None:
            image.header.set_slope_inter(slope, 3)
        nibabel.save(image, path)

    return save


def tiff(shape, dtype="u1", **options):
    return lambda path: tifffile.imwrite(path, values(shape, dtype), **options)


def pages_of_pillow(mode, **options):
    def save(path):
        first, *others = [Image.fromarray(values((16, 12), "u1", n)).convert(mode) for n in range(4)]
        first.save(path, save_all=True, append_images=others, **options)

    return save


def hdf5(chunks):
    def save(path):
        with h5py.File(path, "w") as file:
            file.create_dataset("reconstruction", data=values((7, 16, 12), "f4"), chunks=chunks)

    return save


def array(shape, dtype, order="C"):
    return lambda path: np.save(path, np.asarray(values(shape, dtype), order=order))


GREY = {"photometric": "minisblack"}
FILES = {
    "grey.npy": array((7, 16, 12), "f4"),
    "fortran.npy": array((7, 16, 12), "f4", "F"),
    "swapped.npy": array((7, 16, 12), ">i2"),
    "colour.npy": array((7, 16, 12, 3), "u1"),
    "complex.npy": array((5, 9, 6), "c8"),
    "scaled.nii": nifti((9, 7, 11), "i2", slope=2.5),
    "scaled.nii:x": nifti((9, 7, 11), "f4", slope=2.5),
    "times.nii.gz": nifti((9, 7, 5, 3), "f4"),
    "times.nii.gz:y": nifti((9, 7, 5, 3), "u1", np.diag([-1, 1, 1, 1])),
    "more.nii:z": nifti((9, 7, 5, 3, 2), "c8", np.diag([-1, 1, 1, 1])),
    "plain.tif": tiff((7, 16, 12), **GREY),
    "zlib.tif": tiff((7, 16, 12), "u2", compression="zlib", **GREY),
    "colour.tif": tiff((7, 16, 12, 3), photometric="rgb"),
    "planes.tif": tiff((7, 3, 16, 12), photometric="rgb", planarconfig="separate"),
    "alpha.tif": tiff((7, 16, 12, 4), photometric="rgb", extrasamples=["unassalpha"]),
    "imagej.tif": tiff((2, 3, 4, 16, 12), ">u2", imagej=True, metadata={"axes": "TZCYX"}),
    "ome.tif": tiff((2, 4, 16, 12), "u2", ome=True, metadata={"axes": "ZCYX"}),
    "white.tif": tiff((5, 16, 12), photometric="miniswhite"),
    "truth.tif": tiff((5, 16, 12), bool, **GREY),
    "volume.tif": tiff((4, 8, 16, 16), volumetric=True, tile=(4, 16, 16), **GREY),
    "turned.tif": tiff((5, 16, 12), extratags=[(274, 3, 1, 6, True)], **GREY),
    "lzw.tif": pages_of_pillow("L", compression="tiff_lzw"),
    "palette.tif": pages_of_pillow("P"),
    "chunks.h5": hdf5((3, 8, 8)),
    "plain.h5": hdf5(None),
    "several.npz": lambda path: np.savez(path, values((7, 16, 12), "f4")),
}


@pytest.mark.parametrize("name", FILES)
def test_pages_are_those_of_the_whole_file(name, tmp_path):
    file, _, key = name.partition(":")
    FILES[name](tmp_path / file)
    whole, opened = (read(tmp_path / file, key or None) for read in (read_image, open_image))
    assert isinstance(opened.pixels, Stack)
    np.testing.assert_array_equal(np.concatenate([opened.pixels[:1], opened.pixels[1:]]), whole.pixels)
    np.testing.assert_array_equal(opened.pixels[[3, 1]], whole.pixels[[3, 1]])
    for fact in ("dtype", "lead", "slice_axis", "key", "scaling", "icc", "layout", "pages", "channels"):
        assert getattr(opened, fact) == getattr(whole, fact)
    assert opened.pixels.dtype == whole.pixels.dtype
    if whole.alpha is not None:
        np.testing.assert_array_equal(np.asarray(opened.alpha), whole.alpha)


def test_no_more_than_a_run_is_read_at_a_time(tmp_path, monkeypatch):
    np.save(tmp_path / "long.npy", values((40, 16, 12), "f4"))
    read, asked = open_image.__globals__["read_pages"], []
    monkeypatch.setattr(
        "iasolve.files.images.read_pages", lambda *a: (asked.append(a[-1].stop - a[-1].start), read(*a))[1]
    )
    opened = open_image(tmp_path / "long.npy")
    assert opened.pixels[5:8].shape == (3, 1, 16, 12)
    assert max(asked) <= 3000 // (16 * 12 * 4)


@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif", ".h5", ".npz", ".mat"])
@pytest.mark.parametrize("name", ["scaled.nii", "times.nii.gz", "grey.npy", "alpha.tif", "imagej.tif"])
def test_a_stack_is_written_as_an_array_is(name, suffix, tmp_path):
    FILES[name](tmp_path / name)
    whole, opened = read_image(tmp_path / name), open_image(tmp_path / name)
    out = [tmp_path / f"{way}{suffix}" for way in ("whole", "runs")]
    kind = None if suffix not in (".h5", ".mat") else np.float32
    for path, like, pixels in ((out[0], whole, whole.pixels), (out[1], opened, opened.pixels)):
        if suffix == ".nii" and name == "alpha.tif":
            with pytest.raises(FileError, match="cannot hold 3 colours"):
                write_image(path, pixels, like)
            return
        try:
            write_image(path, pixels, like, dtype=kind)
        except FileError as error:
            assert "cannot hold 3 colours" in str(error)  # noqa: PT017 - of some kinds only
            return
    if suffix in (".h5", ".mat", ".npz"):  # which hold the time
        first, second = (read_measurement(path) for path in out)
        np.testing.assert_array_equal(first.values, second.values)
    else:
        assert out[0].read_bytes() == out[1].read_bytes()


@pytest.mark.parametrize("name", ["grey.npy", "scaled.nii", "times.nii.gz", "plain.tif"])
def test_a_file_that_changes_meanwhile_is_refused(name, tmp_path):
    path = tmp_path / name
    FILES[name](path)
    opened = open_image(path)
    opened.pixels[0]
    os.utime(path, ns=(1, 1))
    with pytest.raises(UnreadableFile, match="changed or removed while it was being read"):
        opened.pixels[1]
    path.unlink()
    with pytest.raises(UnreadableFile, match="changed or removed while it was being read"):
        opened.pixels[1]


@pytest.mark.parametrize("suffix", [".npy", ".nii", ".nii.gz", ".tif"])
def test_values_of_every_page_are_looked_at(suffix, tmp_path):
    damaged = values((9, 7, 11), "f4")
    damaged[-1, 3, -1] = np.nan
    path = tmp_path / f"in{suffix}"
    if suffix == ".npy":
        np.save(path, damaged)
    elif suffix == ".tif":
        tifffile.imwrite(path, damaged, **GREY)
    else:
        nibabel.save(nibabel.Nifti1Image(damaged, AFFINE), path)
    with pytest.raises(UnfitData, match="1 NaN and 0 infinite values among 693"):
        open_image(path)


def test_a_cut_or_damaged_file_is_refused_before_anything_is_solved(tmp_path):
    for name in ("grey.npy", "scaled.nii", "times.nii.gz", "plain.tif"):
        path = tmp_path / name
        FILES[name](path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UnreadableFile):
            open_image(path)
    packed = tmp_path / "times.nii.gz"
    FILES["times.nii.gz"](packed)
    content = bytearray(gzip.compress(gzip.decompress(packed.read_bytes())))
    content[-6] ^= 1  # of the checksum
    packed.write_bytes(content)
    with pytest.raises(UnreadableFile, match="CRC"):
        open_image(packed)


def test_slices_of_a_flat_nifti_along_x_are_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(values((9, 7), "i2"), np.eye(4)), tmp_path / "flat.nii")
    for read in (read_image, open_image):
        with pytest.raises(UnfitData, match="slices along 'x', but a single image of shape"):
            read(tmp_path / "flat.nii", "x")


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_slices_of_kspace_are_those_of_the_whole_file(suffix, tmp_path):
    kspace = (values((5, 3, 8, 6), "f4") + 1j * values((5, 3, 8, 6), "f4", 1)).astype("c8")
    path = tmp_path / f"k{suffix}"
    if suffix == ".npy":
        np.save(path, kspace)
    else:
        with h5py.File(path, "w") as file:
            file["kspace"], file["mask"] = kspace, np.ones(6, "f4")
    opened, whole = open_kspace(path), read_kspace(path)
    assert isinstance(opened.kspace, Stack)
    np.testing.assert_array_equal(np.asarray(opened.kspace), whole.kspace)
    assert (opened.slices, opened.coils, opened.sliced, opened.dtype) == (5, 3, True, np.complex64)
    assert (opened.mask is None) == (whole.mask is None)


def test_a_stack_of_colours_is_a_stack_of_greys_and_back():
    whole = values((4, 3, 5, 6), "f4")
    stack = Stack(whole.shape, whole.dtype, lambda rows: whole[rows])
    grey = stack.channels_alone()
    np.testing.assert_array_equal(np.asarray(grey), whole.reshape(12, 1, 5, 6))
    np.testing.assert_array_equal(grey[4:8], whole.reshape(12, 1, 5, 6)[4:8])
    np.testing.assert_array_equal(np.asarray(grey.channels_together(3)), whole)
    np.testing.assert_array_equal(stack[-1], whole[-1])
    assert stack[3:1].shape == (0, 3, 5, 6)
    with pytest.raises(IndexError, match="image 4 of 4"):
        stack[4]
    with pytest.raises(IndexError, match="read in runs"):
        stack[::2]


def test_an_image_without_pixels_is_refused(tmp_path, monkeypatch):
    """As some damaged TIFFs are read."""
    np.save(tmp_path / "a.npy", np.zeros((0, 8), "f4"))
    for read in (read_image, open_image):
        with pytest.raises(UnfitData, match="the array is empty"):
            read(tmp_path / "a.npy")
    blank = Picture(np.zeros((0, 8, 1), "u1"), ())
    monkeypatch.setattr("iasolve.files.images.read_picture", lambda *a: blank)
    with pytest.raises(UnfitData, match="the array is empty"):
        read_image(tmp_path / "a.npy")
