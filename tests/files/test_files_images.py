"""Images read and written back. Inputs are written by other libraries or by hand, results read back likewise."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from file_fixtures import FUZZ, LOSSLESS, load_plain, png_bytes, rng, save_plain
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from iasolve import files
from iasolve.files import UnfitData, WriteError

__all__ = ["rng"]  # a fixture


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


@settings(FUZZ, max_examples=20)
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


@settings(FUZZ, max_examples=20)
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
    with pytest.raises(UnfitData, match="no array of numbers named 'two'"):
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
