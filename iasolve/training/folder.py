"""Images in a folder or in a zip of one: PNG and JPEG, flat or in a folder per class."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["read_folder"]

_ENDINGS = (".png", ".jpg", ".jpeg")
_MODES = {1: "L", 3: "RGB"}


def read_folder(path: Path, part: str = "", *, channels: int = 0, size: int = 0) -> np.ndarray:
    """All images below ``path/part``, in order of their names, ``(n, C, H, W)`` uint8.

    Parameters
    ----------
    path : Path
        A folder, or a ``.zip`` of one; the zip is not unpacked.
    part : str
        A folder in it, such as ``train``; empty: all.
    channels : {0, 1, 3}
        Convert to grey or colour; 0 takes images as they are, which must then be alike.
    size : int
        Crop the middle square and resample it to this many pixels (mean over the pixels' area); 0 takes images as
        they are, which must then be alike.

    Raises
    ------
    ValueError
        Naming the image that cannot be read or is unlike the first, or when there is none.
    """
    if channels not in (0, *_MODES):
        raise ValueError(f"images have 1 or 3 channels (0: as they are), got {channels}")
    found: list[np.ndarray] = []
    for name, content in _files(path, part):
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = _pixels(image, channels, size)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise ValueError(f"{path}: the image {name} cannot be used: {error}") from None
        if found and pixels.shape != found[0].shape:
            raise ValueError(
                f"{path}: the image {name} is {pixels.shape} (C, H, W), the first one {found[0].shape}: "
                "give size and channels to make them alike"
            )
        found.append(pixels)
    if not found:
        raise ValueError(f"{path} holds no {', '.join(_ENDINGS)} below {part or 'it'!r}")
    return np.stack(found)


def _files(path: Path, part: str) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(p for p in (path / part).rglob("*") if p.suffix.lower() in _ENDINGS and p.is_file()):
            yield str(file.relative_to(path)), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                inside = PurePosixPath(name)
                if inside.suffix.lower() in _ENDINGS and inside.is_relative_to(part or "."):
                    yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is neither a folder nor a zip: {error}") from None


def _pixels(image: Image.Image, channels: int, size: int) -> np.ndarray:
    if channels:
        image = image.convert(_MODES[channels])
    elif image.mode not in _MODES.values():
        raise ValueError(f"its mode is {image.mode}: give channels = 1 or 3 to convert it")
    if size:
        side = min(image.size)
        left, top = ((n - side) // 2 for n in image.size)
        image = image.crop((left, top, left + side, top + side))
        if side != size:
            image = image.resize((size, size), Image.Resampling.BOX)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
