"""DICOM: objects written by pydicom, and what is derived from them read back by pydicom."""

import sys

import numpy as np
import pytest
from file_fixtures import rng

from iasolve import files
from iasolve.files import UnfitData, UnreadableFile, WriteError

pydicom = pytest.importorskip("pydicom")
uid = pytest.importorskip("pydicom.uid")

__all__ = ["rng"]  # a fixture

STUDY, SERIES = uid.generate_uid(), uid.generate_uid()
KEPT = (
    *("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality", "SOPClassUID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "WindowCenter"),
)


def save(path, array, *, bits=12, syntax=uid.ExplicitVRLittleEndian, **more):
    """Write an MR image, or the frames of an enhanced one, as a scanner does."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = uid.MRImageStorage if array.ndim == 2 else uid.EnhancedMRImageStorage
    dataset.SOPInstanceUID = uid.generate_uid()
    dataset.PatientName, dataset.PatientID = "Jönsson^Åsa", "0815"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.FrameOfReferenceUID = uid.generate_uid()
    dataset.Modality, dataset.SeriesDescription = "MR", "t1 sag"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    dataset.ImagePositionPatient = [-88.5, -120.25, 30]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.9, 0.9]
    dataset.WindowCenter, dataset.WindowWidth = 600, 1200
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = int(array.min()), int(array.max())
    dataset.Rows, dataset.Columns = array.shape[-2:]
    if array.ndim == 3:
        dataset.NumberOfFrames = len(array)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = array.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.add_new(0x00291010, "OB", b"a vendor's own")
    dataset.add_new(0x00290010, "LO", "VENDOR")
    for name, value in more.items():
        setattr(dataset, name, value)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset.PixelData = array.astype(array.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW" if array.itemsize > 1 else "OB"
    if syntax == uid.RLELossless:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.compress(uid.RLELossless, array, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless]
)
@pytest.mark.parametrize("shape", [(8, 7), (3, 8, 7)])
@pytest.mark.parametrize(("dtype", "bits"), [("uint16", 12), ("uint16", 16), ("int16", 16), ("uint8", 8)])
def test_a_derived_series(tmp_path, rng, syntax, shape, dtype, bits):
    array = rng.integers(0, 200, shape).astype(dtype)
    source = save(tmp_path / "a.dcm", array, bits=bits, syntax=syntax, RescaleSlope=1, RescaleIntercept=0)
    image = files.read_image(source)
    np.testing.assert_array_equal(image.pixels[:, 0], array.reshape(-1, 8, 7))
    assert (image.lead, image.dtype) == (shape[:-2], np.dtype(dtype))
    assert image.slice_axis == ("frame" if len(shape) == 3 else None)
    files.write_image(tmp_path / "b.dcm", image.pixels, image, note="denoised with iasolve 1.2.3, prior some-prior")
    before, after = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    np.testing.assert_array_equal(after.pixel_array, array)
    assert after.pixel_array.dtype == array.dtype
    for keyword in KEPT:
        assert after.get(keyword) == before.get(keyword), keyword
    assert after[0x00291010].value == b"a vendor's own"
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
    assert list(after.ImageType) == ["DERIVED", "SECONDARY", "M", "NORM"]
    assert after.DerivationDescription == "denoised with iasolve 1.2.3, prior some-prior"
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert "LargestImagePixelValue" not in after
    assert after.SeriesDescription == "t1 sag (iasolve)"
    assert after.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    # the image read is left as it was, for the next result
    files.write_image(tmp_path / "c.dcm", image.pixels + 1, image, note="denoised with iasolve 1.2.3, prior some-prior")
    other = pydicom.dcmread(tmp_path / "c.dcm")
    assert other.SeriesInstanceUID == after.SeriesInstanceUID
    assert other.SOPInstanceUID != after.SOPInstanceUID
    files.write_image(tmp_path / "d.dcm", image.pixels, image, note="another run")
    assert pydicom.dcmread(tmp_path / "d.dcm").SeriesInstanceUID != after.SeriesInstanceUID


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1024)])
def test_values_are_what_a_viewer_shows(tmp_path, rng, interpretation, slope, intercept):
    array = rng.integers(0, 4096, (8, 7)).astype(np.uint16)
    source = save(
        tmp_path / "a.dcm",
        array,
        PhotometricInterpretation=interpretation,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    image = files.read_image(source)
    shown = array if interpretation == "MONOCHROME2" else 4095 - array
    np.testing.assert_allclose(image.pixels[0, 0], shown * slope + intercept)
    files.write_image(tmp_path / "b.dcm", image.pixels + 0.2, image)
    back = pydicom.dcmread(tmp_path / "b.dcm")
    np.testing.assert_array_equal(back.pixel_array, array)
    assert back.PhotometricInterpretation == interpretation
    # what leaves the range ends at the bits that are used, not at those of the type
    files.write_image(tmp_path / "b.dcm", image.pixels * 0 + 1e6, image)
    assert set(pydicom.dcmread(tmp_path / "b.dcm").pixel_array.ravel()) == {
        4095 if interpretation == "MONOCHROME2" else 0
    }
    files.write_image(tmp_path / "b.npy", image.pixels, image)
    plain = (slope, interpretation) == (1, "MONOCHROME2")
    assert np.load(tmp_path / "b.npy").dtype == (np.uint16 if plain else np.float32)


def transformation(slope, intercept=0.0):
    values, item = pydicom.Dataset(), pydicom.Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "US"
    item.PixelValueTransformationSequence = [values]
    return item


def test_slopes_of_enhanced_objects(tmp_path, rng):
    array = rng.integers(0, 4096, (2, 8, 7)).astype(np.uint16)
    shared = {"SharedFunctionalGroupsSequence": [transformation(0.5, 3.0)]}
    image = files.read_image(save(tmp_path / "a.dcm", array, **shared))
    np.testing.assert_allclose(image.pixels[:, 0], array * 0.5 + 3)
    per_frame = {"PerFrameFunctionalGroupsSequence": [transformation(0.5), transformation(0.25)]}
    with pytest.raises(UnfitData, match="different rescale slopes"):
        files.read_image(save(tmp_path / "a.dcm", array, **per_frame))


def test_a_standard_deviation_goes_elsewhere(tmp_path, rng):
    image = files.read_image(save(tmp_path / "a.dcm", rng.integers(0, 99, (8, 7)).astype(np.uint16)))
    files.require_carry(tmp_path / "b.dcm", image)
    with pytest.raises(WriteError, match=r"float32.*one of \.tif"):
        files.require_carry(tmp_path / "b.dcm", image, dtype=np.float32)
    assert not files.can_carry(".dcm", np.float32)
    np.save(tmp_path / "a.npy", np.zeros((8, 7), np.uint16))
    with pytest.raises(WriteError, match="whose patient and study"):
        files.require_carry(tmp_path / "b.dcm", files.read_image(tmp_path / "a.npy"))
    with pytest.raises(WriteError, match="positions"):
        files.write_image(tmp_path / "b.dcm", np.zeros((1, 1, 9, 9)), image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcm", "a.npy"]


def test_what_is_no_grey_image_is_refused_by_name(tmp_path, rng):
    array = rng.integers(0, 99, (8, 7)).astype(np.uint16)
    for value in ("RGB", "PALETTE COLOR", "YBR_FULL"):
        with pytest.raises(UnfitData, match=f"photometric interpretation {value}"):
            files.read_image(save(tmp_path / "a.dcm", array, PhotometricInterpretation=value))
    with pytest.raises(UnfitData, match="rescale slope of 0"):
        files.read_image(save(tmp_path / "a.dcm", array, RescaleSlope=0, RescaleIntercept=0))
    dataset = pydicom.dcmread(save(tmp_path / "a.dcm", array))
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(UnfitData, match=r"no pixels \(MR Image Storage"):
        files.read_image(tmp_path / "a.dcm")
    with pytest.raises(UnfitData, match="Leave the key out"):
        files.read_image(tmp_path / "a.dcm", "x")


def test_metadata_that_cannot_be_written_leave_nothing_behind(tmp_path, rng):
    image = files.read_image(save(tmp_path / "a.dcm", rng.integers(0, 99, (8, 7)).astype(np.uint16)))
    with pytest.warns(UserWarning, match="cannot be assigned"):
        image.header.dataset.add_new(0x00280051, "US", "no number")
    with pytest.raises(WriteError, match=r"cannot be written.*\.npy"):
        files.write_image(tmp_path / "b.dcm", image.pixels, image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.dcm"]


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_truncated_files(tmp_path, rng, syntax):
    array = rng.integers(0, 4096, (20, 17)).astype(np.uint16)
    data = save(tmp_path / "a.dcm", array, syntax=syntax).read_bytes()
    for length in {*np.linspace(1, len(data) - 2, 40).astype(int).tolist(), len(data) - 12}:
        (tmp_path / "cut.dcm").write_bytes(data[:length])
        try:
            image = files.read_image(tmp_path / "cut.dcm")
        except (UnreadableFile, UnfitData):
            continue
        assert length > len(data) - 8  # the mark at the end is missing, but no pixel
        np.testing.assert_array_equal(image.pixels[0, 0], array)
    (tmp_path / "cut.dcm").write_bytes(b"no DICOM at all" * 99)
    with pytest.raises(UnreadableFile, match="DICOM"):
        files.read_image(tmp_path / "cut.dcm")


def test_without_pydicom_the_message_says_how_to_install_it(tmp_path, rng, monkeypatch):
    source = save(tmp_path / "a.dcm", rng.integers(0, 99, (8, 7)).astype(np.uint16))
    image = files.read_image(source)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableFile, match=r"pip install 'iasolve\[dicom\]'"):
        files.read_image(source)
    with pytest.raises(WriteError, match=r"pip install 'iasolve\[dicom\]'"):
        files.require_carry(tmp_path / "b.dcm", image)
