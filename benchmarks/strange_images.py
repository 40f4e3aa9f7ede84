"""Images from outside a prior's world: of libraries, of data sets where they are at hand, and made by hand.

Each is a grey image ``(H, W)`` of float32 in units of its own.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Raster
from scipy import ndimage
from skimage.transform import resize

from iasolve.samples import load_samples

__all__ = ["QUICK", "strange_images"]

Image = NDArray[np.float32]
QUICK = ("text of a page", "z-scored head", "stars", "head of 48 pixels", "phase map")
"""The kinds of a quick run: one of each reason to fall back."""


def strange_images() -> dict[str, Callable[[], Image]]:
    """Name and maker of every kind; of what is not installed or not at hand, none."""
    kinds: dict[str, Callable[[], Image]] = {}
    kinds |= _made()
    kinds |= _heads()
    kinds |= {name: maker for group in (_scikit_image, _libraries, _data_sets) for name, maker in group()}
    return kinds


def _square(image: NDArray[np.generic], size: int = 128) -> Image:
    """The middle of an image, grey, area-averaged to ``size`` pixels."""
    grey = np.asarray(image, np.float64)
    grey = grey[..., :3].mean(-1) if grey.ndim == 3 else grey
    side = min(grey.shape)
    top, left = ((n - side) // 2 for n in grey.shape)
    found = resize(grey[top : top + side, left : left + side], (size, size), anti_aliasing=side > size, order=1)
    return np.asarray(found, np.float32)


def _grid(size: int = 128) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[:size, :size].astype(np.float64)
    return y, x


def _made() -> dict[str, Callable[[], Image]]:
    y, x = _grid()

    def random() -> np.random.Generator:
        return np.random.default_rng(7)

    def stars() -> NDArray[np.float64]:
        bright, place = random().random((2, 128, 128))
        points = np.where(place < 0.006, bright, 0)
        return ndimage.gaussian_filter(points, 0.7) * 4

    def ultrasound() -> NDArray[np.float64]:
        # Rayleigh speckle, lower along the beam, over a scatterer density with cysts
        parts = ndimage.gaussian_filter(random().standard_normal((2, 128, 128)), (0, 0.8, 1.6))
        cysts = 1 - 0.9 * (((y - 50) ** 2 + (x - 40) ** 2 < 200) | ((y - 85) ** 2 + (x - 88) ** 2 < 350))
        return np.log1p(20 * np.hypot(*parts) * cysts * np.exp(-y / 200))

    def smooth(width: float) -> NDArray[np.float64]:
        field = ndimage.gaussian_filter(random().standard_normal((128, 128)), width, mode="wrap")
        return field / field.std()

    def cells() -> NDArray[np.float64]:
        seeds = random().random((60, 2)) * 128
        distance = np.hypot(y[..., None] - seeds[:, 0], x[..., None] - seeds[:, 1])
        return random().random(60)[distance.argmin(-1)]

    def slope() -> NDArray[np.float64]:
        k = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) + 1 / 128
        field = np.fft.ifft2(np.fft.fft2(random().standard_normal((128, 128))) / k**1.2).real
        return field - field.min()

    def pet() -> NDArray[np.float64]:
        activity = 1.0 * ((y - 64) ** 2 / 50**2 + (x - 64) ** 2 / 40**2 < 1)
        activity += 5 * ((y - 50) ** 2 + (x - 52) ** 2 < 30) + 3 * ((y - 80) ** 2 + (x - 75) ** 2 < 60)
        return ndimage.gaussian_filter(activity, 2.5)

    def xray() -> NDArray[np.float64]:
        thickness = np.sqrt(np.clip(50**2 - (x - 64) ** 2, 0, None)) / 30
        bones = sum(1.0 * (np.abs(y - 20 - 12 * n - (x - 64) ** 2 / 150) < 2) for n in range(9))
        return np.exp(-0.8 * thickness - 0.4 * bones * (thickness > 0) - 0.2 * ndimage.gaussian_filter(smooth(3), 1))

    made: dict[str, Callable[[], NDArray[np.float64]]] = {
        "checkerboard, 8 pixels": lambda: (y // 8 + x // 8) % 2,
        "checkerboard, 1 pixel": lambda: (y + x) % 2,
        "stripes": lambda: (np.sin(2 * np.pi * (x + 0.3 * y) / 5) > 0) * 1.0,
        "rings of a zone plate": lambda: 1 + np.cos(((y - 64) ** 2 + (x - 64) ** 2) / 60),
        "disc": lambda: 1.0 * ((y - 64) ** 2 + (x - 64) ** 2 < 40**2),
        "ramp": lambda: (y + x) / 256,
        "constant": lambda: np.ones((128, 128)),
        "one bright pixel": lambda: 1.0 * ((y == 60) & (x == 70)),
        "stars": stars,
        "uniform noise": lambda: random().random((128, 128)),
        "normal noise": lambda: random().standard_normal((128, 128)),
        "smooth signed field": lambda: smooth(6),
        "phase map": lambda: np.angle(np.exp(1j * 3 * smooth(12))),
        "ultrasound": ultrasound,
        "cells of a tissue": cells,
        "power-law texture": slope,
        "PET": pet,
        "X-ray": xray,
        "binary blobs": lambda: 1.0 * (smooth(4) > 0.3),
    }
    return {name: lambda maker=maker: np.asarray(maker(), np.float32) for name, maker in made.items()}


def _heads() -> dict[str, Callable[[], Image]]:
    """The prior's own kind of image, in another convention."""

    def head() -> NDArray[np.float64]:
        image = load_samples().images[0].astype(np.float64).reshape(128, 128)
        return image / image.max()

    def enlarged() -> NDArray[np.float64]:
        spectrum = np.fft.fftshift(np.fft.fft2(head()))
        return np.clip(np.fft.ifft2(np.fft.ifftshift(np.pad(spectrum, 64))).real * 4, 0, None)[64:192, 64:192]

    def small(size: int) -> Callable[[], NDArray[np.float64]]:
        return lambda: resize(head(), (size, size), anti_aliasing=True)

    makers: dict[str, Callable[[], NDArray[np.float64]]] = {
        "z-scored head": lambda: (head() - head().mean()) / head().std(),
        "head in [-1, 1]": lambda: 2 * head() - 1,
        "head in Hounsfield units": lambda: 2000 * head() - 1024,
        "head, 0.2 subtracted": lambda: head() - 0.2,
        "inverted head": lambda: 1 - head(),
        "head in units of 1e-12": lambda: 1e-12 * head(),
        "head upside down, turned": lambda: ndimage.rotate(head(), 37, reshape=False, order=1),
        "head of 24 pixels": small(24),
        "head of 48 pixels": small(48),
        "head of 100 pixels": small(100),
        "head in a constant frame": lambda: np.pad(small(80)(), 24, constant_values=0.6),
        "head, zero-filled x2": enlarged,
        "head, 8 grey levels": lambda: np.round(head() * 7) / 7,
        "head, edges only": lambda: ndimage.gaussian_gradient_magnitude(head(), 1),
        "head with negative contrast": lambda: ndimage.gaussian_laplace(head(), 1.5),
        "strip of a head, 40 x 128": lambda: head()[44:84],
    }
    return {name: lambda maker=maker: np.asarray(maker(), np.float32) for name, maker in makers.items()}


def _scikit_image() -> Iterator[tuple[str, Callable[[], Image]]]:
    """What comes with scikit-image itself, without a download."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    names = {
        "camera.png": "photograph, camera man",
        "astronaut.png": "photograph, astronaut",
        "coffee.png": "photograph, coffee",
        "chelsea.png": "photograph, cat",
        "rocket.jpg": "photograph, rocket",
        "coins.png": "photograph, coins",
        "page.png": "text of a page",
        "text.png": "text, rendered",
        "moon.png": "moon",
        "hubble_deep_field.jpg": "deep field of galaxies",
        "cell.png": "microscopy, phase contrast",
        "ihc.png": "microscopy, stained tissue",
        "retina.jpg": "fundus of an eye",
        "brick.png": "texture, brick",
        "grass.png": "texture, grass",
        "gravel.png": "texture, gravel",
        "horse.png": "silhouette of a horse",
        "clock_motion.png": "photograph, moved clock",
        "phantom.png": "Shepp-Logan phantom",
        "logo.png": "logo",
    }
    for file, name in names.items():
        path = folder / file
        if path.is_file():
            yield name, lambda path=path: _square(np.asarray(Raster.open(path).convert("RGB")))


def _libraries() -> Iterator[tuple[str, Callable[[], Image]]]:
    """Test files that come with pydicom and nibabel."""
    try:
        import pydicom
        from pydicom.data import get_testdata_file
    except ImportError:
        pass
    else:

        def dicom(file: str) -> Image:
            data = pydicom.dcmread(get_testdata_file(file, download=False))
            slope, start = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
            return _square(data.pixel_array * slope + start)

        yield "CT in Hounsfield units", lambda: dicom("CT_small.dcm")
        yield "MR, small field", lambda: dicom("MR_small.dcm")
    try:
        import nibabel
    except ImportError:
        return
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    for file, name in (("functional.nii", "EPI"), ("anatomical.nii", "MR, anatomical of nibabel")):
        if (folder / file).is_file():

            def volume(path: Path = folder / file) -> Image:
                values = np.asarray(nibabel.load(path).get_fdata())
                values = values[..., 0] if values.ndim == 4 else values
                return np.asarray(values[:, :, values.shape[2] // 2].T, np.float32)

            yield name, volume


def _data_sets() -> Iterator[tuple[str, Callable[[], Image]]]:
    """One image of each contrast and organ, of photographs and of a phantom, where ``IASOLVE_DATA`` has them."""
    folder = Path(os.environ.get("IASOLVE_DATA", "."))
    path = folder / "mri-any-256.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as data:
            test = np.flatnonzero(data["split"] == "test")
            kinds = {f"{data['contrast'][n]}, {data['anatomy'][n]}": n for n in test[::-1]}
        for kind, number in kinds.items():

            def slice_of(number: int = number) -> Image:
                with np.load(path, allow_pickle=False) as data:
                    return _square(data["images"][number])

            yield f"MR {kind}", slice_of
    archive = folder / "photos-256.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as photos:
            names = [name for name in sorted(photos.namelist()) if name.endswith(".webp")][::97][:4]
        for count, name in enumerate(names):

            def photo(name: str = name) -> Image:
                with zipfile.ZipFile(archive) as photos:
                    tile = np.asarray(Raster.open(io.BytesIO(photos.read(name))).convert("RGB"))
                return np.asarray(tile[:128, :128].mean(-1), np.float32)

            yield f"photograph, crop {count + 1}", photo
    phantom = folder / "phantom-1coil-gre-b-256x256.npy"
    if phantom.is_file():

        def measured() -> Image:
            kspace = np.load(phantom)[64:192, 64:192]
            return np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace)))).astype(np.float32) * 1e3

        yield "MR resolution phantom", measured
