"""Valid files of every format, and mutations of their bytes, for ``robustness.py``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import tifffile
from PIL import Image
from scipy.io import savemat

from iasolve import files
from iasolve.files import stack

__all__ = ["FORMATS", "mutated", "save_valid"]


class Kind(NamedTuple):
    """How a valid file of a format is made by another library, and how iasolve reads it."""

    suffix: str
    save: Callable[[Path, np.ndarray], None]
    read: Callable[[Path], object]


def _picture(suffix: str) -> Kind:
    return Kind(suffix, lambda path, grey: Image.fromarray(grey).save(path), files.read_image)


def _by_pages(path: Path) -> None:
    """Read as a long volume is: a page at a time."""
    stack.LARGE, stack.RUN = 1, 1
    np.asarray(files.open_image(path).pixels)


def _images(path: Path, grey: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        data = np.stack([grey, grey, grey]).astype(np.float32)
        file.create_dataset("reconstruction", data=data, chunks=(1, 16, 16), compression="gzip")


def _hdf5(path: Path, grey: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        data = (grey + 1j * grey.T[: len(grey), : grey.shape[1]]).astype(np.complex64)[np.newaxis]
        file.create_dataset("kspace", data=data, chunks=(1, 16, 16), compression="gzip")
        file["mask"] = np.ones(grey.shape[1], np.float32)
        file.attrs["max"] = 1.0


def _ismrmrd(path: Path, grey: np.ndarray) -> None:
    import ismrmrd

    side = len(grey)
    space = (
        f"<matrixSize><x>{side}</x><y>{side}</y><z>1</z></matrixSize>"
        f"<fieldOfView_mm><x>{side}</x><y>{side}</y><z>5</z></fieldOfView_mm>"
    )
    with ismrmrd.Dataset(str(path), "dataset", True) as dataset:
        dataset.write_xml_header(
            '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
            f"<encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace>"
            "<trajectory>cartesian</trajectory><encodingLimits/></encoding></ismrmrdHeader>"
        )
        for number, row in enumerate(grey):
            line = ismrmrd.Acquisition.from_array(row[np.newaxis].astype(np.complex64))
            line.idx.kspace_encode_step_1 = number
            line.center_sample = side // 2
            dataset.append_acquisition(line)


def _nifti(path: Path, grey: np.ndarray) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.stack([grey, grey], -1), np.eye(4)), path)


def _dicom(path: Path, grey: np.ndarray) -> None:
    import pydicom

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = pydicom.uid.MRImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = grey.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = grey.astype(np.uint16).tobytes()
    dataset.save_as(path, enforce_file_format=True)


def _compressed(syntax: str) -> Callable[[Path, np.ndarray], None]:
    """DICOM whose pixels GDCM has compressed; the name of a ``gdcm.TransferSyntax``."""

    def save(path: Path, grey: np.ndarray) -> None:
        import gdcm

        _dicom(path, grey)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()

    return save


def _bart(path: Path, grey: np.ndarray) -> None:
    grey.astype(np.complex64).T.tofile(path)
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, grey.shape)) + "\n")
    # mutations are read under another name
    path.with_name("damaged.hdr").write_text(path.with_suffix(".hdr").read_text())


def _header(path: Path, grey: np.ndarray) -> None:
    """The header is what is damaged; the values beside it are whole."""
    path.write_text("# Dimensions\n" + " ".join(map(str, grey.shape)) + " 1 1 1\n# Command\nfft 3\n")
    for name in ("valid", "damaged"):
        grey.astype(np.complex64).T.tofile(path.with_name(f"{name}.cfl"))


def _mat73(path: Path, grey: np.ndarray) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["image"] = grey.T.astype(np.float64)
        file["image"].attrs["MATLAB_class"] = np.bytes_("double")
    head = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM"
    with path.open("r+b") as handle:
        handle.write(head)


FORMATS: dict[str, Kind] = {
    "png": _picture(".png"),
    "jpg": _picture(".jpg"),
    "bmp": _picture(".bmp"),
    "webp": _picture(".webp"),
    "tif": Kind(".tif", lambda p, a: tifffile.imwrite(p, np.stack([a, a]), photometric="minisblack"), files.read_image),
    "tif, lzw": Kind(".tif", lambda p, a: Image.fromarray(a).save(p, compression="tiff_lzw"), files.read_image),
    "npy": Kind(".npy", lambda path, grey: np.save(path, grey), files.read_image),
    "npz": Kind(".npz", lambda path, grey: np.savez_compressed(path, a=grey), files.read_image),
    "nii": Kind(".nii", _nifti, files.read_image),
    "nii.gz": Kind(".nii.gz", _nifti, files.read_image),
    "dcm": Kind(".dcm", _dicom, files.read_image),
    "dcm, jpeg lossless": Kind(".dcm", _compressed("JPEGLosslessProcess14_1"), files.read_image),
    "dcm, jpeg-ls": Kind(".dcm", _compressed("JPEGLSLossless"), files.read_image),
    "dcm, jpeg 2000": Kind(".dcm", _compressed("JPEG2000Lossless"), files.read_image),
    "dcm, rle": Kind(".dcm", _compressed("RLELossless"), files.read_image),
    "mat 5": Kind(".mat", lambda path, grey: savemat(path, {"image": grey}, do_compression=False), files.read_image),
    "mat 5, packed": Kind(
        ".mat", lambda path, grey: savemat(path, {"image": grey}, do_compression=True), files.read_image
    ),
    "mat 7.3": Kind(".mat", _mat73, files.read_image),
    "cfl": Kind(".cfl", _bart, files.read_image),
    "hdr of a cfl": Kind(".hdr", _header, lambda path: files.read_image(path.with_suffix(".cfl"))),
    "fastMRI h5": Kind(".h5", _hdf5, files.read_kspace),
    "ISMRMRD": Kind(".mrd", _ismrmrd, files.read_kspace),
    "npy, by pages": Kind(".npy", lambda path, grey: np.save(path, np.stack([grey, grey])), _by_pages),
    "tif, by pages": Kind(
        ".tif",
        lambda p, a: tifffile.imwrite(p, np.stack([a, a]), compression="zlib", photometric="minisblack"),
        _by_pages,
    ),
    "nii, by pages": Kind(".nii", _nifti, _by_pages),
    "nii.gz, by pages": Kind(".nii.gz", _nifti, _by_pages),
    "h5, by pages": Kind(".h5", _images, _by_pages),
}


def save_valid(folder: Path, kind: str) -> Path:
    """A valid file of a format, in a folder of its own."""
    own = folder / kind.replace(", ", "-").replace(" ", "-")
    own.mkdir(parents=True, exist_ok=True)
    path = own / f"valid{FORMATS[kind].suffix}"
    rng = np.random.default_rng(3)
    grey = (rng.integers(1, 200, (32, 32)) + np.arange(32)).astype(np.uint8)
    FORMATS[kind].save(path, grey)
    return path


def mutated(whole: bytes, rng: np.random.Generator) -> bytes:
    """One mutation: bits flipped, bytes replaced, a block zeroed, doubled, moved or cut out, the end cut off."""
    data = bytearray(whole)
    size = len(data)
    # headers and directories, where damage is interesting, stand at both ends
    reach = size if rng.random() < 0.5 else min(size, 512)
    at = int(rng.integers(reach)) if rng.random() < 0.7 else size - 1 - int(rng.integers(reach))
    length = int(min(size - at, 2 ** rng.integers(0, 10)))
    what = int(rng.integers(7))
    if what == 0:
        for _ in range(int(rng.integers(1, 9))):
            data[int(rng.integers(reach))] ^= 1 << int(rng.integers(8))
    elif what == 1:
        data[at] ^= 1 << int(rng.integers(8))
    elif what == 2:
        data[at : at + length] = bytes(length)
    elif what == 3:
        data[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    elif what == 4:
        data[at:at] = data[at : at + length]
    elif what == 5:
        del data[at : at + length]
    else:
        del data[max(1, at) :]
    return bytes(data) or b"\0"
