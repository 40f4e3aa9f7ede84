"""Files in and out. Inputs are written by other libraries or by hand, results read back likewise."""

import errno
import io
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from iasolve import files
from iasolve.files import FileError, UnfitData, UnreadableFile, WriteError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LOSSLESS = (".png", ".tif", ".npy", ".npz")


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def png_bytes(samples, depth, colour, width=None):
    """Encode a PNG by hand, so that no library's idea of modes is in the way."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height = samples.shape[0]
    width = width or samples.shape[1]
    raw = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def save_plain(path, array):
    """Write ``array`` (H, W) or (H, W, 3) with a library other than the one under test where there is one."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, data=array)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def load_plain(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return archive[archive.files[0]]
    if path.suffix in (".tif", ".tiff"):
        return tifffile.imread(path)
    return load_pillow(path)


def load_pillow(path):
    with Image.open(path) as image:
        array = np.asarray(image)
    # Pillows before 11 hand out 16-bit PNGs as 32-bit.
    return array.astype(np.uint16) if array.dtype == np.int32 and path.suffix == ".png" else array


# --- reading and writing back ----------------------------------------------------------------------------


ROUND_TRIPS = [
    *[(suffix, dtype) for suffix in LOSSLESS for dtype in ("uint8", "uint16")],
    *[(".tif", dtype) for dtype in ("int8", "int16", "int32", "uint32", "int64", "float16", "float32")],
    *[(".tif", dtype) for dtype in ("float64", "complex64", "complex128")],
    *[(s, dtype) for s in (".npy", ".npz") for dtype in ("bool", "int64", ">i2", "float16", ">f4", "float64")],
    *[(s, dtype) for s in (".npy", ".npz") for dtype in ("complex64", "complex128")],
]


@pytest.mark.parametrize(("suffix", "dtype"), ROUND_TRIPS)
def test_unchanged_pixels_come_back_exactly(tmp_path, rng, suffix, dtype):
    kind = np.dtype(dtype).kind
    if kind in "fc":
        array = (rng.standard_normal((9, 7)) * 1e3).astype(dtype)
        if kind == "c":
            array = array + np.array(1j, dtype) * rng.standard_normal((9, 7)).astype(dtype)
    elif kind == "b":
        array = rng.random((9, 7)) > 0.5
    else:
        info = np.iinfo(dtype)
        low, high = max(info.min, -(2**53)), min(info.max, 2**53)
        array = rng.integers(low, high, (9, 7), endpoint=True, dtype=np.int64).astype(dtype)
        array[0, :2] = low, high
    source = save_plain(tmp_path / f"in{suffix}", array)
    image = files.read_image(source)
    assert image.pixels.shape == (1, 1, 9, 7)
    assert image.pixels.dtype == (np.complex128 if kind == "c" else np.float64)
    np.testing.assert_array_equal(image.pixels[0, 0], array.astype(image.pixels.dtype))
    assert (image.kind, image.lead, image.paged, image.layout) == (suffix, (), False, "grey")
    files.write_image(tmp_path / f"out{suffix}", image.pixels, image)
    back = load_plain(tmp_path / f"out{suffix}")
    # TIFF has a byte order of its own, so there the array comes back in the native one.
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("lead", [(1,), (5,), (2, 3)])
@pytest.mark.parametrize("colour", [False, True])
def test_tiff_stacks_keep_their_page_axes(tmp_path, rng, lead, colour):
    array = rng.integers(0, 65536, (*lead, 6, 8, *([3] if colour else [])), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb" if colour else "minisblack")
    image = files.read_image(tmp_path / "a.tif")
    assert image.pixels.shape == (int(np.prod(lead)), 3 if colour else 1, 6, 8)
    page = image.pixels[-1]
    last = array[tuple(n - 1 for n in lead)]
    np.testing.assert_array_equal(page, np.moveaxis(last, -1, 0) if colour else last[np.newaxis])
    files.write_image(tmp_path / "b.tif", image.pixels, image)
    back = tifffile.imread(tmp_path / "b.tif")
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    with Image.open(tmp_path / "b.tif") as other:
        assert other.n_frames == int(np.prod(lead))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_array_stacks_and_colours(tmp_path, rng, suffix):
    for shape, pixels, lead in [
        ((4, 9, 7), (4, 1, 9, 7), (4,)),
        ((3, 9, 7), (3, 1, 9, 7), (3,)),
        ((1, 9, 7), (1, 1, 9, 7), (1,)),
        ((9, 7, 3), (1, 3, 9, 7), ()),
        ((2, 9, 7, 3), (2, 3, 9, 7), (2,)),
    ]:
        array = rng.standard_normal(shape).astype(np.float32)
        image = files.read_image(save_plain(tmp_path / f"a{suffix}", array))
        assert (image.pixels.shape, image.lead) == (pixels, lead)
        files.write_image(tmp_path / f"b{suffix}", image.pixels, image)
        np.testing.assert_array_equal(load_plain(tmp_path / f"b{suffix}"), array)
    complex_stack = np.ones((6, 8, 3), np.complex64)
    assert files.read_image(save_plain(tmp_path / f"c{suffix}", complex_stack)).pixels.shape == (6, 1, 8, 3)


@pytest.mark.parametrize("shape", [(64, 64, 2), (64, 64, 4), (2, 3, 64, 64), (64,), ()])
def test_array_shapes_that_are_no_image_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.float32))
    with pytest.raises(UnfitData, match=r"\(H, W\)") as caught:
        files.read_image(tmp_path / "a.npy")
    assert str(shape) in str(caught.value)


@settings(FUZZ, max_examples=40)
@given(
    data=hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    suffix=st.sampled_from(LOSSLESS),
)
def test_random_integers_round_trip(tmp_path, data, suffix):
    image = files.read_image(save_plain(tmp_path / f"a{suffix}", data))
    files.write_image(tmp_path / f"b{suffix}", image.pixels, image)
    back = load_plain(tmp_path / f"b{suffix}")
    assert back.dtype == data.dtype
    np.testing.assert_array_equal(back, data)


@settings(FUZZ, max_examples=40)
@given(
    data=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.float32]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.integers(0, 100),
    )
)
def test_random_tiff_stacks_round_trip(tmp_path, data):
    """Small axes are where a TIFF library mistakes pages for colours."""
    like = files.ImageFile(tmp_path / "x.tif", ".tif", data[:, np.newaxis], data.dtype, data.shape[:1])
    files.write_image(tmp_path / "a.tif", like.pixels, like)
    image = files.read_image(tmp_path / "a.tif")
    assert (image.pixels.shape, image.dtype) == (like.pixels.shape, data.dtype)
    np.testing.assert_array_equal(image.pixels[:, 0], data)


def test_results_are_rounded_and_clipped_to_the_type(tmp_path):
    image = files.read_image(save_plain(tmp_path / "a.png", np.zeros((1, 6), np.uint8)))
    result = np.array([-3.0, 0.4, 0.6, 127.5, 254.7, 900.0]).reshape(1, 1, 1, 6)
    files.write_image(tmp_path / "b.png", result, image)
    assert load_plain(tmp_path / "b.png").tolist() == [[0, 0, 1, 128, 255, 255]]
    for dtype in (np.int64, np.uint64, np.uint32, np.int8):
        for real in (np.float16, np.float32, np.float64):
            extreme = np.array([-6e4, 6e4] if real is np.float16 else [-1e30, 1e30], real).reshape(1, 1, 1, 2)
            files.write_image(tmp_path / "b.npy", extreme, dtype=dtype)
            low, high = (int(value) for value in np.load(tmp_path / "b.npy")[0])
            info = np.iinfo(dtype)
            assert low == max(info.min, int(extreme.min()))
            # The largest float below 2**63 is 1024 short of it; what matters is that nothing wraps round.
            assert 0 <= min(info.max, int(extreme.max())) - high <= 2048


def test_result_of_other_size_and_number_of_pages(tmp_path, rng):
    image = files.read_image(save_plain(tmp_path / "a.tif", rng.integers(0, 9, (6, 8), np.uint8)))
    files.write_image(tmp_path / "b.tif", np.ones((4, 1, 12, 16)), image)
    assert tifffile.imread(tmp_path / "b.tif").shape == (4, 12, 16)
    files.write_image(tmp_path / "c.npy", np.full((1, 1, 3, 4), 2.5), image, dtype="float32")
    assert np.load(tmp_path / "c.npy").tolist() == [[2.5] * 4] * 3
    files.write_image(tmp_path / "d.npz", np.ones((1, 3, 5, 6), np.complex64))
    with np.load(tmp_path / "d.npz") as archive:
        assert archive.files == ["image"]
        assert (archive["image"].shape, archive["image"].dtype) == ((5, 6, 3), np.complex64)


# --- PNG and JPEG ----------------------------------------------------------------------------------------


def test_png_written_by_hand_in_16_bits(tmp_path, rng):
    array = rng.integers(0, 65536, (5, 6), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_bytes(array.astype(">u2"), 16, 0))
    image = files.read_image(tmp_path / "a.png")
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.pixels[0, 0], array)
    files.write_image(tmp_path / "b.png", image.pixels, image)
    assert (tmp_path / "b.png").read_bytes()[24:26] == bytes([16, 0])  # depth, colour type
    colour = np.zeros((5, 6, 3), ">u2")
    (tmp_path / "c.png").write_bytes(png_bytes(colour, 16, 2))
    with pytest.raises(UnfitData, match=r"16-bit \.tif"):
        files.read_image(tmp_path / "c.png")


@pytest.mark.parametrize(("mode", "layout"), [("RGB", "rgb"), ("RGBA", "rgb+alpha"), ("LA", "grey+alpha")])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colour_and_alpha(tmp_path, rng, mode, layout, suffix):
    samples = rng.integers(0, 256, (6, 8, len(mode)), dtype=np.uint8)
    Image.fromarray(samples, mode=None).save(tmp_path / f"a{suffix}")
    image = files.read_image(tmp_path / f"a{suffix}")
    assert image.layout == layout
    np.testing.assert_array_equal(np.moveaxis(image.pixels[0], 0, -1), samples[..., : image.channels])
    with_alpha = mode.endswith("A")
    assert (image.alpha is not None) == with_alpha
    for out in (".png", ".tif"):
        files.write_image(tmp_path / f"b{out}", image.pixels, image)
        with Image.open(tmp_path / f"b{out}") as back:
            assert back.mode == mode
            np.testing.assert_array_equal(np.asarray(back), samples)
    files.write_image(tmp_path / "b.npy", image.pixels, image)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), samples[..., : image.channels].squeeze())
    if with_alpha:
        with pytest.raises(WriteError, match=r"transparency.*\.png"):
            files.write_image(tmp_path / "b.jpg", image.pixels, image)
        files.write_image(tmp_path / "big.png", image.pixels.repeat(2, -1).repeat(2, -2), image)
        files.write_image(tmp_path / "real.tif", image.pixels / 2, image, dtype="float32")
        real = tifffile.imread(tmp_path / "real.tif")  # opacity in 0..255 means nothing among floats
        np.testing.assert_array_equal(real, samples[..., : image.channels].squeeze() / 2)
        expected = samples[..., -1].repeat(2, -1).repeat(2, -2)
        np.testing.assert_array_equal(load_plain(tmp_path / "big.png")[..., -1], expected)


def test_palettes_and_low_depths_look_as_in_a_viewer(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 20, 30, 200, 0, 0, 1, 2, 3])
    image.save(tmp_path / "p.png")
    pixels = files.read_image(tmp_path / "p.png").pixels
    assert pixels[0, :, 0, 1].tolist() == [200, 0, 0]
    assert pixels[0, :, 1, 0].tolist() == [1, 2, 3]
    image.putpalette([9, 9, 9, 50, 50, 50, 77, 77, 77])
    image.save(tmp_path / "g.png")
    assert files.read_image(tmp_path / "g.png").pixels.tolist() == [[[[9, 50], [77, 50]]]]
    image.save(tmp_path / "t.png", transparency=1)
    transparent = files.read_image(tmp_path / "t.png")
    assert transparent.alpha is not None
    assert transparent.alpha[0, 0].tolist() == [[255, 0], [255, 0]]
    (tmp_path / "1.png").write_bytes(png_bytes(np.array([[0b10110000]], np.uint8), 1, 0, width=4))
    bits = files.read_image(tmp_path / "1.png")
    assert bits.dtype == np.uint8
    assert bits.pixels.tolist() == [[[[255, 0, 255, 255]]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation):
    """The picture as seen has a dark left half and a darker top; each orientation stores it otherwise."""
    seen = np.full((32, 48), 200, np.uint8)
    seen[:, :24] -= 100
    seen[:16] -= 60
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),  # shown after a clockwise quarter turn, so stored anticlockwise
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = np.ascontiguousarray(turn(seen))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = files.read_image(tmp_path / "a.jpg")
    assert image.pixels.shape == (1, 1, 32, 48)
    assert np.abs(image.pixels[0, 0] - seen).max() < 12
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(274, 3, 1, orientation, True)])
    np.testing.assert_array_equal(files.read_image(tmp_path / "a.tif").pixels[0, 0], seen)
    files.write_image(tmp_path / "b.jpg", image.pixels, image)
    with Image.open(tmp_path / "b.jpg") as back:  # written upright, so no orientation is left to apply
        assert 274 not in back.getexif()
        assert np.abs(np.asarray(back).astype(float) - seen).max() < 12


def test_damaged_camera_notes_do_not_matter(tmp_path):
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert files.read_image(tmp_path / "a.jpg").pixels.mean() == pytest.approx(90, abs=2)


def test_colour_profile_is_carried(tmp_path, rng):
    profile = b"not a real profile, but nobody looks inside"
    for source, target in [("a.png", "b.tif"), ("a.tif", "b.png"), ("a.jpg", "b.jpg")]:
        picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture.save(tmp_path / source, icc_profile=profile)
        image = files.read_image(tmp_path / source)
        files.write_image(tmp_path / target, image.pixels, image)
        with Image.open(tmp_path / target) as back:
            assert back.info["icc_profile"] == profile


def test_unusable_pictures(tmp_path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(UnfitData, match="CMYK"):
        files.read_image(tmp_path / "a.jpg")
    frames = [Image.new("L", (8, 8), value) for value in (0, 9)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UnfitData, match="2 frames"):
        files.read_image(tmp_path / "a.png")


# --- TIFF ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions_of_other_programs(tmp_path, rng, compression):
    for mode, dtype in (("L", np.uint8), ("I;16", np.uint16), ("F", np.float32), ("RGB", np.uint8)):
        shape = (12, 10, 3) if mode == "RGB" else (12, 10)
        pages = [rng.integers(0, 200, shape).astype(dtype) for _ in range(3)]
        pictures = [Image.fromarray(page) for page in pages]
        assert pictures[0].mode == mode
        pictures[0].save(tmp_path / "a.tif", compression=compression, save_all=True, append_images=pictures[1:])
        image = files.read_image(tmp_path / "a.tif")
        assert (image.dtype, image.lead) == (dtype, (3,))
        expected = np.stack(pages).reshape(3, 12, 10, -1)
        np.testing.assert_array_equal(np.moveaxis(image.pixels, 1, -1), expected)


def test_tiff_variants(tmp_path, rng):
    grey = rng.integers(0, 256, (6, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    np.testing.assert_array_equal(files.read_image(tmp_path / "white.tif").pixels[0, 0], 255 - grey.astype(int))
    tifffile.imwrite(tmp_path / "bits.tif", grey > 99)
    np.testing.assert_array_equal(files.read_image(tmp_path / "bits.tif").pixels[0, 0], 255 * (grey > 99))
    planar = rng.integers(0, 256, (3, 6, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(files.read_image(tmp_path / "planar.tif").pixels[0], planar)
    colours = rng.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "palette.tif", grey, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(
        files.read_image(tmp_path / "palette.tif").pixels[0], (colours // 257)[:, grey.astype(int)]
    )
    tifffile.imwrite(tmp_path / "big.tif", grey, bigtiff=True, byteorder=">")
    np.testing.assert_array_equal(files.read_image(tmp_path / "big.tif").pixels[0, 0], grey)
    stack = rng.integers(0, 99, (2, 3, 6, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "ij.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    assert files.read_image(tmp_path / "ij.tif").lead == (2, 3)
    Image.fromarray(grey[:1]).save(tmp_path / "line.tif")
    np.testing.assert_array_equal(files.read_image(tmp_path / "line.tif").pixels[0, 0], grey[:1])


def test_tiffs_that_hold_no_single_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.tif") as tif:
        tif.write(np.zeros((6, 8), np.uint8))
        tif.write(np.zeros((5, 9), np.uint16))
    with pytest.raises(UnfitData, match="2 images"):
        files.read_image(tmp_path / "two.tif")
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as tif:
        tif.write(np.full((16, 16), 5, np.uint8))
        tif.write(np.zeros((4, 4), np.uint8), subfiletype=1)
    assert files.read_image(tmp_path / "thumb.tif").pixels.shape == (1, 1, 16, 16)
    rgba = np.zeros((6, 8, 4), np.uint8)
    tifffile.imwrite(tmp_path / "pre.tif", rgba, photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(UnfitData, match="premultiplied"):
        files.read_image(tmp_path / "pre.tif")
    tifffile.imwrite(tmp_path / "cmyk.tif", rgba, photometric="separated")
    with pytest.raises(UnfitData, match="RGB"):
        files.read_image(tmp_path / "cmyk.tif")


# --- npz keys --------------------------------------------------------------------------------------------


def test_npz_keys(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:  # numpy.savez cannot write the name "file"
        for key, shape in (("one", (4, 5)), ("file", (6, 7))):
            member = io.BytesIO()
            np.save(member, np.ones(shape))
            archive.writestr(f"{key}.npy", member.getvalue())
    with pytest.raises(UnfitData, match=r"one, file.*a\.npz:one"):
        files.read_image(tmp_path / "a.npz")
    with pytest.raises(UnfitData, match="no array named 'two'"):
        files.read_image(tmp_path / "a.npz", key="two")
    image = files.read_image(f"{tmp_path}/a.npz:file")
    assert (image.key, image.pixels.shape, image.path) == ("file", (1, 1, 6, 7), tmp_path / "a.npz")
    files.write_image(tmp_path / "b.npz", image.pixels, image)
    with np.load(tmp_path / "b.npz") as archive:
        assert archive.files == ["file"]
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    with pytest.raises(UnfitData, match="Leave the key out"):
        files.read_image(tmp_path / "a.npy", key="one")
    assert files.split_key("dir:x/b.npz") == (Path("dir:x/b.npz"), None)
    assert files.split_key("x/B.NPZ:a:b") == (Path("x/B.NPZ:a:b"), None)
    assert files.split_key("x/B.NPZ:a") == (Path("x/B.NPZ"), "a")
    (tmp_path / "odd.npz:key.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    assert files.read_image(tmp_path / "odd.npz:key.npy").key is None
    np.savez(tmp_path / "none.npz")
    with pytest.raises(UnfitData, match="0 arrays"):
        files.read_image(tmp_path / "none.npz")


# --- what cannot be carried ------------------------------------------------------------------------------


def test_can_carry():
    assert files.can_carry(".PNG", np.uint16)
    assert not files.can_carry(".png", np.uint16, channels=3)
    assert not files.can_carry(".png", "uint8", pages=2)
    assert not files.can_carry(".jpg", np.uint16)
    assert not files.can_carry(".gif", np.uint8)
    assert not files.can_carry(".tif", bool)
    assert files.suffixes_for(np.complex64) == (".tif", ".tiff", ".npy", ".npz")
    assert files.suffixes_for(np.float32, pages=4) == (".tif", ".tiff", ".npy", ".npz")
    assert files.suffixes_for("uint8", channels=3, alpha=True) == (".png", ".tif", ".tiff", ".npy", ".npz")


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ""])
def test_outputs_that_cannot_carry_the_data_name_those_that_can(tmp_path, dtype, suffix):
    image = files.read_image(save_plain(tmp_path / "a.npy", np.ones((6, 8), dtype)))
    target = tmp_path / f"out{suffix}"
    with pytest.raises(WriteError, match=r"one of \.tif, \.tiff, \.npy, \.npz") as before:
        files.require_carry(target, image)
    with pytest.raises(WriteError) as after:
        files.write_image(target, image.pixels, image)
    assert str(before.value) == str(after.value)
    assert os.listdir(tmp_path) == ["a.npy"]
    if suffix == ".png" and dtype is np.float32:
        assert "uint8" in str(after.value)


def test_results_that_make_no_sense_are_refused(tmp_path):
    image = files.read_image(save_plain(tmp_path / "a.png", np.zeros((6, 8), np.uint8)))
    good = np.zeros((1, 1, 6, 8))
    with pytest.raises(WriteError, match="magnitude"):
        files.write_image(tmp_path / "b.png", good * 1j, image)
    bad = good.copy()
    bad[0, 0, 2, :3] = np.nan, np.inf, -np.inf
    for suffix, dtype in ((".png", None), (".npy", "float32")):
        with pytest.raises(WriteError, match="3 of 48"):
            files.write_image(tmp_path / f"b{suffix}", bad, image, dtype=dtype)
    with pytest.raises(WriteError, match=r"1 of 48 .* as float32"):
        files.write_image(tmp_path / "b.npy", np.where(bad > 9, 1e300, 0), image, dtype="float32")
    for shape in ((6, 8), (1, 2, 6, 8), (1, 1, 0, 8)):
        with pytest.raises(WriteError, match="pages, channels, H, W"):
            files.write_image(tmp_path / "b.png", np.zeros(shape), image)
    assert os.listdir(tmp_path) == ["a.png"]


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


# --- whole or not at all ---------------------------------------------------------------------------------


def fill(path, content=b"new"):
    with files.atomic_write(path) as handle:
        handle.write(content)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failure", ["body", "interrupt", "replace", "fsync", "write"])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, failure, existing):
    target = tmp_path / "out.bin"
    if existing:
        target.write_bytes(b"old")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*args, **kwargs):
        raise full

    expected = {"body": ZeroDivisionError, "interrupt": KeyboardInterrupt}.get(failure, WriteError)
    if failure in ("replace", "fsync"):
        monkeypatch.setattr(os, failure, fail)

    def attempt():
        with files.atomic_write(target) as handle:
            handle.write(b"half of it")
            if failure == "body":
                raise ZeroDivisionError
            if failure == "interrupt":
                raise KeyboardInterrupt
            if failure == "write":
                fail()

    with pytest.raises(expected) as caught:
        attempt()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == (["out.bin"] if existing else [])
    assert not existing or target.read_bytes() == b"old"
    if expected is WriteError:
        assert "no space left" in str(caught.value)
        assert caught.value.__cause__ is full


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".png", ".json"])
def test_a_disk_that_really_takes_no_more(tmp_path, suffix):
    """The system itself refuses to let files grow, in a process of its own since the limit stays."""
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"old")
    code = f"""
import resource, numpy as np
from iasolve import files
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 256, (1, 1, 300, 300), dtype=np.uint8)
try:
    if {suffix!r} == ".json":
        files.write_json({str(target)!r}, noise)
    else:
        files.write_image({str(target)!r}, noise)
except files.WriteError as error:
    print("refused:", error)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.startswith(f"refused: {target}"), done.stdout + done.stderr
    assert "writing failed" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_permissions_and_links(tmp_path):
    target = tmp_path / "out.bin"
    mask = os.umask(0o027)
    try:
        fill(target)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    fill(target, b"newer")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    fill(link, b"through the link")
    assert link.is_symlink()
    assert target.read_bytes() == b"through the link"


def test_targets_that_cannot_be_written(tmp_path):
    with pytest.raises(WriteError, match="folder"):
        fill(tmp_path)
    with pytest.raises(WriteError, match="does not exist"):
        fill(tmp_path / "no" / "out.bin")
    if hasattr(os, "mkfifo"):  # a stand-in for /dev/null and /dev/stdout, which must not become files
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WriteError, match="device"):
            fill(tmp_path / "pipe")
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
        with pytest.raises(UnreadableFile):
            files.read_image(tmp_path / "pipe")


def test_json(tmp_path):
    target = tmp_path / "a.json"
    record = {
        "psnr": np.float32(0.5),
        "n": np.int64(3),
        "ok": np.bool_(True),
        "curve": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "lost": float("nan"),
        "path": tmp_path,
        "tags": {"b", "a"},
        "shape": (1, 2),
        "none": None,
        3: "ü \udcff",
    }
    files.write_json(target, record)
    assert json.loads(target.read_text("utf-8"), parse_constant=pytest.fail) == {
        "psnr": 0.5,
        "n": 3,
        "ok": True,
        "curve": [[1.0, None], [None, 2.0]],
        "lost": None,
        "path": str(tmp_path),
        "tags": ["a", "b"],
        "shape": [1, 2],
        "none": None,
        "3": "ü \udcff",
    }
    before = target.read_bytes()
    for value in (1j, np.complex64(1), object(), np.array([1j])):
        with pytest.raises(WriteError, match="JSON"):
            files.write_json(target, {"x": [value]})
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.json"]


# --- folders ---------------------------------------------------------------------------------------------


def test_list_inputs(tmp_path):
    for name in ("b.PNG", "a.tif", "c.npy", ".hidden.png", "a.json", "notes.txt", "d.h5"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inner.png").touch()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in files.list_inputs(tmp_path)] == ["a.tif", "b.PNG", "c.npy"]
    assert [path.name for path in files.list_inputs(str(tmp_path), ["png", ".JSON"])] == ["b.PNG"]
    assert [path.name for path in files.list_inputs(tmp_path, files.KSPACE_SUFFIXES)] == ["c.npy", "d.h5"]
    with pytest.raises(UnreadableFile, match="no such folder"):
        files.list_inputs(tmp_path / "none")
    with pytest.raises(UnreadableFile, match="this is a file"):
        files.list_inputs(tmp_path / "c.npy")


def test_guard_output(tmp_path):
    target = tmp_path / "a.png"
    assert files.guard_output(str(target), overwrite=False) == target
    target.touch()
    with pytest.raises(WriteError, match="exists already"):
        files.guard_output(target, overwrite=False)
    assert files.guard_output(target, overwrite=True) == target
    with pytest.raises(WriteError, match="mkdir -p"):
        files.guard_output(tmp_path / "no" / "a.png", overwrite=True)
    with pytest.raises(WriteError, match="is a folder"):
        files.guard_output(tmp_path, overwrite=True)


def test_importing_is_light():
    code = "import sys, iasolve.files; print(sorted({'torch', 'h5py', 'tifffile', 'PIL'} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"
