"""What the tests of files share: files written and read by other libraries than the code under test."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, settings
from PIL import Image

FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
