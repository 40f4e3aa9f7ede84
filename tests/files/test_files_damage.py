"""Files that are unfit, truncated, damaged, or no files at all: refused with a message, never with a traceback."""

import io
import os
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
import tifffile
from file_fixtures import FUZZ, png_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from iasolve import files
from iasolve.files import FileError, UnfitData, UnreadableFile

# --- unfit and unreadable --------------------------------------------------------------------------------


def test_unfit_arrays(tmp_path):
    bad = np.zeros((5, 5))
    bad[0, :3] = np.nan, np.nan, np.inf
    for array, words in [
        (bad, "2 NaN and 1 infinite values among 25"),
        (np.zeros((0, 4)), "empty"),
        (np.array([["a", "b"]]), "dtype <U1"),
        (np.zeros((3, 3), "M8[s]"), "datetime64"),
        (np.zeros((3, 3), [("r", "f4"), ("i", "f4")]), "dtype"),
        (np.full((3, 3), 2**53 + 2), r"2\*\*53"),
        (np.full((3, 3), -(2**53) - 2), r"2\*\*53"),
        (np.zeros((3, 3), np.longdouble), "64 bits"),
    ]:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UnfitData, match=words):
            files.read_image(tmp_path / "a.npy")
    with pytest.raises(UnfitData, match="1 NaN and 1 infinite values among 2"):
        files.require_finite(np.array([complex(0, np.nan), complex(np.inf, 0)]), "x.npy")
    tifffile.imwrite(tmp_path / "a.tif", bad.astype(np.float32))
    with pytest.raises(UnfitData, match="2 NaN and 1 infinite"):
        files.read_image(tmp_path / "a.tif")


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = np.empty((2, 2), object)
    bomb[:] = _Bomb()
    np.save("a.npy", bomb, allow_pickle=True)
    np.savez("a.npz", bomb)
    with open("b.npy", "wb") as handle:
        pickle.dump(_Bomb(), handle)
    for name, error in (("a.npy", UnfitData), ("a.npz", UnfitData), ("b.npy", UnreadableFile)):
        for reader in (files.read_image, files.read_kspace, files.read_mask, files.read_kernel):
            with pytest.raises(error):
                reader(name)
    with pytest.raises(UnfitData, match="dtype object"):
        files.read_image("a.npy")
    assert not os.path.exists("exploded")


def valid_files(folder):
    """One valid file of each kind, with a value in every pixel that truncation would lose."""
    rng = np.random.default_rng(3)
    grey = rng.integers(1, 255, (40, 30), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "a.png")
    Image.fromarray(grey).save(folder / "a.jpg")
    tifffile.imwrite(folder / "a.tif", np.stack([grey, grey + 1]), photometric="minisblack")
    pages = [Image.fromarray(grey + k) for k in range(3)]
    pages[0].save(folder / "pil.tif", save_all=True, append_images=pages[1:])
    pages[0].save(folder / "lzw.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    np.save(folder / "a.npy", grey)
    np.savez_compressed(folder / "a.npz", a=grey)
    np.savez(folder / "plain.npz", a=grey)
    with h5py.File(folder / "a.h5", "w") as file:
        file["kspace"] = (grey + 1j * grey).astype(np.complex64)[np.newaxis]
    return sorted(folder.iterdir())


def read_any(path):
    return files.read_kspace(path).kspace if path.suffix == ".h5" else files.read_image(path).pixels


def test_truncated_files_are_unreadable(tmp_path):
    """At every cut the file is refused, or (padding at its end) still gives every pixel."""
    for path in valid_files(tmp_path):
        whole, data = read_any(path), path.read_bytes()
        cut_file = path.with_name("cut" + path.suffix)
        cuts = {*np.linspace(1, len(data) - 1, 30).astype(int).tolist(), len(data) - 1, len(data) - 9}
        if path.suffix == ".tif":  # between pages, where what is left is a whole file with fewer of them
            with tifffile.TiffFile(path) as tif:
                cuts |= {page.offset for page in tif.pages}
        refused = 0
        for cut in sorted(cuts):
            cut_file.write_bytes(data[:cut])
            try:
                pixels = read_any(cut_file)
            except UnreadableFile:
                refused += 1
            else:
                np.testing.assert_array_equal(pixels, whole, err_msg=f"{path.name} cut at {cut}")
                assert cut > len(data) * 0.97, f"{path.name} cut at {cut}"
        assert refused >= len(cuts) - 2, path.name
        cut_file.unlink()


def test_damaged_pixels_are_noticed_where_the_format_has_checksums(tmp_path):
    for path in valid_files(tmp_path):
        if path.name in ("a.png", "a.npz", "plain.npz"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(data)
            with pytest.raises(UnreadableFile):
                read_any(path)


def test_png_checksums_are_checked(tmp_path):
    """A wrong checksum on pixels that can be decoded: which of the two is damaged cannot be known."""
    data = bytearray(png_bytes(np.full((4, 4), 9, np.uint8), 8, 0))
    data[-13] ^= 1  # before the 12 bytes of the end chunk
    (tmp_path / "a.png").write_bytes(data)
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image).tolist() == [[9] * 4] * 4
    with pytest.raises(UnreadableFile):
        files.read_image(tmp_path / "a.png")


ALL_SUFFIXES = sorted({*files.IMAGE_SUFFIXES, *files.KSPACE_SUFFIXES})
MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]
MAGIC += [b"\x93NUMPY\x01\0\x10\0", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80\x04"]
READERS = (files.read_image, files.read_kspace, files.read_mask, files.read_kernel)


@FUZZ
@given(magic=st.sampled_from(MAGIC), body=st.binary(max_size=300), suffix=st.sampled_from(ALL_SUFFIXES))
def test_random_bytes_raise_only_file_errors(tmp_path, magic, body, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(magic + body)
    for reader in READERS:
        with pytest.raises(FileError):
            reader(path)


@FUZZ
@given(data=st.data())
def test_damaged_files_raise_only_file_errors(tmp_path, data):
    paths = [path for path in valid_files(tmp_path) if path.suffix != ".h5"]
    path = data.draw(st.sampled_from(paths))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers and directories are where the damage is interesting: at both ends of the file.
        at = data.draw(st.integers(-400, 400)) % len(damaged)
        damaged[at] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        pixels = files.read_image(path).pixels
    except FileError:
        return
    assert pixels.ndim == 4


def test_files_that_declare_far_too_much(tmp_path):
    (tmp_path / "a.png").write_bytes(
        png_bytes(np.zeros((1, 1), np.uint8), 8, 0)[:16] + struct.pack(">II", 60000, 60000) + b"\x08\0\0\0\0"
    )
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for name in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[name].overwrite(60000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", (2, 4096, 4096), np.complex64, chunks=(1, 256, 256))
    layout = {"shape": (8192, 8192), "dtype": "u1", "tile": (1024, 1024), "compression": "zlib"}
    tifffile.imwrite(tmp_path / "b.tif", iter([b""] * 64), **layout)  # every tile left out
    assert (tmp_path / "b.tif").stat().st_size < 2000
    for name in ("a.png", "a.npy", "a.tif", "b.tif", "a.h5"):
        with pytest.raises(UnreadableFile):
            read_any(tmp_path / name)


def test_missing_and_misnamed_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "x.gif").write_bytes(b"GIF89a")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "b.jpg", "PNG")
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    np.savez(tmp_path / "z.npz", np.zeros((4, 4)))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    (tmp_path / "z.npy").write_bytes((tmp_path / "z.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name, error, words in [
        ("no.png", UnreadableFile, "no such file"),
        ("no/where.png", UnreadableFile, "folder .* does not exist"),
        ("", UnreadableFile, "folder"),
        ("empty.png", UnreadableFile, "0 bytes"),
        ("x.gif", UnreadableFile, r"'\.gif'.*\.png"),
        ("a.npz", UnreadableFile, "npz"),
        ("z.npy", UnreadableFile, "Rename"),
        ("text.npz", UnreadableFile, "NumPy"),
        ("n\0ull.png", UnreadableFile, "Check"),
        ("l" * 300 + ".png", UnreadableFile, "Check"),
    ]:
        with pytest.raises(error, match=words) as caught:
            files.read_image(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path))
        assert "Expected" in str(caught.value)
    assert files.read_image(tmp_path / "b.jpg").pixels.shape == (1, 1, 4, 4)  # a PNG by its content


def test_errors_survive_pickling():
    error = UnfitData("a.npy", "one thing", "another", "Do this")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UnfitData
    assert str(again) == str(error) == "a.npy: one thing. Expected another. Do this."
    assert again.advice == "Do this"
