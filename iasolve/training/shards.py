"""Images in tar files ("shards"), as ``webdataset`` writes them: each read from where it lies, never all at once.

A shard is a plain, uncompressed tar of images (PNG, JPEG, WebP, or arrays ``.npy``); members of other kinds, such as
labels, are passed over. The headers are read once; after that any image is one read at a known place, so that images
can be drawn in any order, and the operating system keeps in memory what there is room for.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from iasolve.training.folder import ENDINGS, decode, require_channels

__all__ = ["Shards"]


class Shards:
    """Images of the shards in a folder, by number, in order of the shards' names and of their members.

    Parameters
    ----------
    path : Path
        The folder.
    part : str
        A folder in it, or a pattern of shards' names such as ``train-*.tar``; empty: all ``.tar`` files in ``path``.
    channels, size : int
        What images are converted to, but arrays; see :func:`iasolve.training.folder.read_folder`.

    Raises
    ------
    ValueError
        When there is no shard or no image in them, or a shard is damaged; its name and the member's are in the message.
    """

    def __init__(self, path: Path, part: str = "", *, channels: int = 0, size: int = 0) -> None:
        require_channels(channels)
        self.path, self.channels, self.size = path, channels, size
        inside = path / part
        self.shards = sorted(inside.glob("*.tar") if inside.is_dir() else path.glob(part))
        if not self.shards:
            raise ValueError(f"{path} holds no shards {part or '*.tar'}: expected tar files of images")
        found = [(number, *member) for number, shard in enumerate(self.shards) for member in _members(shard)]
        if not found:
            raise ValueError(f"{path}: no shard holds an image: expected members {', '.join((*ENDINGS, '.npy'))}")
        self._places = np.array([(shard, begin, length) for shard, _, begin, length in found], dtype=np.int64)
        # as bytes: a million names as Python's strings would take a hundred megabytes
        self._names = np.array([name.encode() for _, name, _, _ in found], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._places)

    def name(self, number: int) -> str:
        """The shard and member of an image."""
        return f"{self.shards[self._places[number, 0]]}: {self._names[number].decode()}"

    def __getitem__(self, number: int) -> np.ndarray:
        """An image ``(C, H, W)``: uint8, or an array's type.

        Raises
        ------
        ValueError
            When it cannot be read or holds values that are not finite; shard and member are in the message.
        """
        shard, begin, length = self._places[number].tolist()
        try:
            with self.shards[shard].open("rb") as file:
                file.seek(begin)
                content = file.read(length)
            if len(content) < length:
                raise ValueError(f"the shard ends after {len(content)} of its {length} bytes")
            if self._names[number].endswith(b".npy"):
                return _array(content)
            return decode(content, channels=self.channels, size=self.size)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.name(number)} cannot be used: {error}") from None


def _members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Name, begin and length of every image."""
    last = "its beginning"
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                last = member.name
                ending = PurePosixPath(member.name).suffix.lower()
                if member.isfile() and ending in (*ENDINGS, ".npy"):
                    yield member.name, member.offset_data, member.size
            end = archive.offset
        with shard.open("rb") as file:
            file.seek(end)
            # a damaged header ends the list without a word; a whole one ends with zeros
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{shard} is damaged or no plain tar file after {last} ({error}): write it again, without compression"
        ) from None


def _array(content: bytes) -> np.ndarray:
    image = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(image, np.ndarray) or image.ndim not in (2, 3) or image.dtype.kind not in "uifc":
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else "an archive"
        raise ValueError(f"it is {what}: expected an array of numbers (H, W) or (C, H, W)")
    if not np.isfinite(image).all():
        raise ValueError("it holds NaN or infinite values: remove it from the shard")
    return image[None] if image.ndim == 2 else image
