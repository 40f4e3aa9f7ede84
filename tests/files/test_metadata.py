"""What a file says besides its pixels is in the result too, where the format has a place for it."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from file_fixtures import rng
from PIL import Image

from iasolve import files
from iasolve.files import UnfitData, UnreadableFile

__all__ = ["rng"]  # a fixture


def described(path):
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages[0].tags
        said = tif.imagej_metadata or {}
        return {
            "axes": tif.series[0].axes,
            "imagej": tif.is_imagej,
            "ome": tif.is_ome,
            "resolution": tags["XResolution"].value,
            "spacing": said.get("spacing"),
            "unit": said.get("unit"),
        }


def test_imagej_stacks_stay_imagej_stacks(tmp_path, rng):
    values = rng.integers(0, 60000, (3, 2, 4, 16, 18)).astype(np.uint16)
    options = {"imagej": True, "resolution": (1 / 0.13, 1 / 0.14)}
    tifffile.imwrite(tmp_path / "a.tif", values, **options, metadata={"axes": "TZCYX", "spacing": 0.2, "unit": "um"})
    image = files.read_image(tmp_path / "a.tif")
    files.write_image(tmp_path / "b.tif", image.pixels, image)
    assert described(tmp_path / "b.tif") == described(tmp_path / "a.tif")
    assert described(tmp_path / "b.tif")["axes"] == "TZCYX"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), values)
    # standard deviations are float32, which ImageJ has too
    files.write_image(tmp_path / "std.tif", image.pixels, image, dtype=np.float32)
    assert described(tmp_path / "std.tif") == described(tmp_path / "a.tif")
    assert image.lost_in(".npy") == ["the names of the axes, TZCYX", "the size of the pixels"]
    assert image.lost_in(".tiff") == []


def test_ome_files_stay_ome_files(tmp_path, rng):
    values = rng.integers(0, 60000, (2, 3, 8, 9)).astype(np.uint16)
    said = {"axes": "CZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25}
    said |= {"PhysicalSizeZ": 2.0, "Channel": {"Name": ["red & blue", "green"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, ome=True, metadata=said)
    image = files.read_image(tmp_path / "a.ome.tif")
    files.write_image(tmp_path / "b.ome.tif", image.pixels, image)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "CZYX"
        for text in ('PhysicalSizeX="0.5"', 'PhysicalSizeY="0.25"', 'PhysicalSizeZ="2.0"', "red &amp; blue"):
            assert text in tif.ome_metadata
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.ome.tif"), values)


def test_plain_tiffs_keep_their_resolution(tmp_path, rng):
    values = rng.integers(0, 255, (9, 7), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, resolution=(300, 150), resolutionunit="inch")
    image = files.read_image(tmp_path / "a.tif")
    files.write_image(tmp_path / "b.tif", image.pixels, image)
    with tifffile.TiffFile(tmp_path / "b.tif") as tif:
        page = tif.pages[0]
        assert (page.tags["XResolution"].value, page.tags["YResolution"].value) == ((300, 1), (150, 1))
        assert page.tags["ResolutionUnit"].value == 2


@pytest.mark.parametrize("suffix", [".bmp", ".webp"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_more_pictures_round_trip(suffix, shape, tmp_path, rng):
    values = rng.integers(0, 255, shape, dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    image = files.read_image(tmp_path / f"a{suffix}")
    assert image.channels == (1 if len(shape) == 2 else 3)
    files.write_image(tmp_path / f"b{suffix}", image.pixels, image)
    with Image.open(tmp_path / f"b{suffix}") as again:
        assert again.format == suffix[1:].upper()
        np.testing.assert_array_equal(np.asarray(again.convert("RGB" if len(shape) == 3 else "L")), values)


def test_a_picture_of_webp_keeps_its_opacity(tmp_path, rng):
    values = rng.integers(0, 255, (9, 7, 4), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.webp", lossless=True, exact=True)
    image = files.read_image(tmp_path / "a.webp")
    assert image.layout == "rgb+alpha"
    files.write_image(tmp_path / "b.webp", image.pixels, image)
    with Image.open(tmp_path / "b.webp") as again:
        np.testing.assert_array_equal(np.asarray(again), values)
    assert not files.can_carry(".bmp", np.uint8, channels=3, alpha=True)


def test_grey_arrays_with_colours_last(tmp_path, rng):
    values = rng.random((16, 12, 1))
    np.save(tmp_path / "a.npy", values)
    image = files.read_image(tmp_path / "a.npy")
    np.testing.assert_array_equal(image.pixels, values[None, None, :, :, 0])
    assert image.lead == ()


# --- DICOM ----------------------------------------------------------------------------------------------------------


def sample(name):
    data = pytest.importorskip("pydicom.data")
    path = data.get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom comes without {name}")
    return path


def test_dicom_of_one_bit_a_pixel_is_refused():
    with pytest.raises(UnfitData, match=r"1 bit\(s\) a pixel"):
        files.read_image(sample("liver_1frame.dcm"))


def test_lossless_jpeg_is_read_where_there_is_a_decoder_and_refused_by_name_where_not(tmp_path, monkeypatch):
    path, pydicom = Path(sample("MR_small_jpeg_ls_lossless.dcm")), pytest.importorskip("pydicom")
    from pydicom.pixels import get_decoder

    from iasolve.files.kinds.dicom import decode_dicom

    if get_decoder(pydicom.uid.JPEGLSLossless).is_available:
        stored = pydicom.dcmread(sample("MR_small.dcm")).pixel_array
        np.testing.assert_array_equal(decode_dicom(path).samples[..., 0], stored)

    class Missing:
        is_available = False

    monkeypatch.setattr("pydicom.pixels.get_decoder", lambda syntax: Missing)
    with pytest.raises(UnreadableFile, match=r"JPEG-LS Lossless.*iasolve\[dicom\]"):
        decode_dicom(path)


def test_padding_keeps_the_value_that_says_so(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(sample("MR_small.dcm"))
    stored = dataset.pixel_array.copy()
    stored[:5] = -2000
    dataset.PixelData = stored.tobytes()
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.save_as(tmp_path / "a.dcm")
    image = files.read_image(tmp_path / "a.dcm")
    files.write_image(tmp_path / "b.dcm", image.pixels + 7, image)
    again = pydicom.dcmread(tmp_path / "b.dcm")
    assert again.PixelPaddingValue == -2000
    assert (again.pixel_array[:5] == -2000).all()
    np.testing.assert_array_equal(again.pixel_array[5:], stored[5:] + 7)
