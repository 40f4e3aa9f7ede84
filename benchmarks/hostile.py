"""Files made to harm who reads them, for ``robustness.py``: bombs, and HDF5 files that read others."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from iasolve import files

__all__ = ["hostile_files"]

HUGE = 2**42  # bytes: more than any machine that runs this has


def hostile_files(folder: Path) -> Iterator[tuple[str, Path, Callable[[Path], object]]]:
    """Make them: what each is, where, and what reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, suffix, make in (
        ("npz that declares terabytes", ".npz", _npz),
        ("nii.gz that declares terabytes", ".nii.gz", _nifti),
        ("nii.gz that goes on for gigabytes", ".nii.gz", _long_nifti),
        ("png of 13,000 x 13,000 pixels in 0.2 MB", ".png", _png),
        ("tif of 60,000 x 60,000 pixels", ".tif", _tiff),
        ("tif whose pages go round in a circle", ".tif", _circle),
        ("npy of Python objects", ".npy", _objects),
    ):
        path = folder / f"{name.replace(' ', '-').replace(',', '')}{suffix}"
        make(path)
        yield name, path, files.read_image
    values = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    secret = folder / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["reconstruction"] = values
    (folder / "secret.raw").write_bytes(values.tobytes())
    for kind in ("external link", "virtual data set", "external storage"):
        path = folder / f"{kind.replace(' ', '-')}.h5"
        with h5py.File(path, "w") as file:
            if kind == "external link":
                file["reconstruction"] = h5py.ExternalLink(str(secret), "/reconstruction")
            elif kind == "virtual data set":
                layout = h5py.VirtualLayout((1, 8, 8), np.float32)
                layout[:] = h5py.VirtualSource(str(secret), "reconstruction", (1, 8, 8))
                file.create_virtual_dataset("reconstruction", layout)
            else:
                where = [(str(folder / "secret.raw"), 0, 256)]
                file.create_dataset("reconstruction", (1, 8, 8), np.float32, external=where)
        yield f"h5 with {kind}", path, files.read_image


def _npz(path: Path) -> None:
    header = io.BytesIO()
    shape = (HUGE // 8,)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(2**20))


def _nifti(path: Path) -> None:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 600))
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + bytes(2**20)))


def _long_nifti(path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((8, 8, 2), np.uint8), np.eye(4))
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(image.to_bytes()))
        for _ in range(64):
            file.write(packer.compress(bytes(2**26)))
        file.write(packer.flush())


def _png(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    side = 13000
    packer, packed = zlib.compressobj(9), b""
    for _ in range(side):
        packed += packer.compress(bytes(side + 1))
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + chunk(b"IDAT", packed + packer.flush())
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))


def _tiff(path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, np.zeros((4, 4), np.uint8))
    with tifffile.TiffFile(path, mode="r+") as tif:
        for name in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[name].overwrite(60000)


def _circle(path: Path) -> None:
    entries = struct.pack("<H", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + entries + struct.pack("<I", 8))


def _objects(path: Path) -> None:
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
