"""Images in a folder or in a zip of one: PNG, JPEG and WebP, flat or in a folder per class."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["ENDINGS", "decode", "read_column", "read_folder", "read_images", "require_channels"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
"""Of image files that training reads."""

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
    images: list[np.ndarray] = []
    for name, pixels in read_images(path, part, channels=channels, size=size):
        if images and pixels.shape != images[0].shape:
            raise ValueError(
                f"{path}: the image {name} is {pixels.shape} (C, H, W), the first one {images[0].shape}: "
                "give size and channels to make them alike"
            )
        images.append(pixels)
    return np.stack(images)


def read_images(path: Path, part: str = "", *, channels: int = 0, size: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Names, relative to ``path``, and pixels ``(C, H, W)`` uint8 of the images below ``path/part``, of any sizes.

    Parameters and errors are those of :func:`read_folder`.
    """
    require_channels(channels)
    empty = True
    for name, content in _files(path, part):
        try:
            pixels = decode(content, channels=channels, size=size)
        except ValueError as error:
            raise ValueError(f"{path}: the image {name} cannot be used: {error}") from None
        empty = False
        yield name, pixels
    if empty:
        raise ValueError(f"{path} holds no {', '.join(ENDINGS)} below {part or 'it'!r}")


def require_channels(channels: int) -> None:
    """Refuse what images of a folder cannot be converted to."""
    if channels not in (0, *_MODES):
        raise ValueError(f"images have 1 or 3 channels (0: as they are), got {channels}")


def decode(content: bytes, *, channels: int = 0, size: int = 0) -> np.ndarray:
    """Pixels ``(C, H, W)`` uint8 of an image file's content; see :func:`read_folder`.

    Raises
    ------
    ValueError
        When it is damaged, no image, or of another kind than 8 bits of grey or colour.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _pixels(image, channels, size)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(str(error)) from None


def read_column(path: Path, column: str) -> dict[str, str]:
    """What the table ``index.csv`` in a folder or zip says about each file, by the name in its column ``file``.

    Raises
    ------
    ValueError
        When there is no such table, or it lacks a column.
    """
    try:
        if path.is_dir():
            text = (path / "index.csv").read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(path) as archive:
                text = archive.read("index.csv").decode("utf-8")
    except (OSError, KeyError, zipfile.BadZipFile):
        raise ValueError(f"{path} holds no index.csv, which data.group = {column!r} needs") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    missing = {"file", column} - set(table.fieldnames or ())
    if missing:
        raise ValueError(f"{path}: index.csv has no column {', '.join(sorted(missing))}; it has {table.fieldnames}")
    return {row["file"]: row[column] for row in table}


def _files(path: Path, part: str) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(p for p in (path / part).rglob("*") if p.suffix.lower() in ENDINGS and p.is_file()):
            yield str(file.relative_to(path)), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                inside = PurePosixPath(name)
                if inside.suffix.lower() in ENDINGS and inside.is_relative_to(part or "."):
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
