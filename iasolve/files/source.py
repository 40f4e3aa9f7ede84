"""What every reader does: decode under guard, and check the numbers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, PathInput, UnfitData, UnreadableFile
from .memory import free_memory
from .stack import Stack, runs

__all__ = [
    "Unchanged",
    "choose",
    "decoding",
    "require_finite",
    "require_kspace",
    "require_numeric",
    "require_plausible",
    "require_room",
]

Array = NDArray[Any]

# Deflate, the densest codec in common use here, cannot pack tighter than about 1032:1.
MAX_COMPRESSION = 1100


@contextmanager
def decoding(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a decoding library raises in the body into :class:`UnreadableFile`.

    Parameters
    ----------
    path : Path
        The file being decoded.
    expected : str
        What the file should be, for the message.

    Raises
    ------
    UnreadableFile
        In place of any exception but :class:`FileError`, which passes.
    """
    try:
        with warnings.catch_warnings():
            # Decoders warn about metadata nobody asked for; damage to the data itself raises.
            warnings.simplefilter("ignore")
            yield
    except FileError:
        raise
    except PermissionError as error:
        raise UnreadableFile(path, "permission denied", "a readable file", "Check its permissions") from error
    except MemoryError as error:
        raise UnreadableFile(
            path, "it does not fit in memory", expected, "Use a smaller file, or check that it is not corrupt"
        ) from error
    except Exception as error:  # on damaged input the libraries raise nearly every type there is
        # an address in memory tells a user nothing
        reason = " ".join(re.sub(r"<_io\.BytesIO[^>]*>", path.name, str(error)).split())[:200]
        raise UnreadableFile(
            path,
            f"cannot be decoded: truncated, corrupt or of another kind ({type(error).__name__}: {reason})",
            expected,
            "Check that it opens elsewhere, and copy or export it again",
        ) from error


def choose(
    path: Path,
    key: str | None,
    shapes: Mapping[str, tuple[int, ...]],
    prefer: Sequence[str] = (),
    fits: Callable[[tuple[int, ...]], bool] = lambda shape: True,
) -> str:
    """Name of the array that is meant among those of a file.

    Parameters
    ----------
    path : Path
        The file.
    key : str or None
        The name that was given.
    shapes : mapping of str to tuple of int
        The arrays of numbers in it; for what is said of them, ``()`` where that is not known.
    prefer : sequence of str
        Names to look for, in this order, without a key.
    fits : callable
        Whether an array of this shape may be meant without a key.

    Raises
    ------
    UnfitData
        Without an array of that name, or without a key for several.
    """
    listing = ", ".join(f"{name} {'x'.join(map(str, shape))}".rstrip() for name, shape in shapes.items()) or "none"
    if key is not None:
        if key in shapes:
            return key
        raise UnfitData(
            path, f"no array of numbers named {key!r}", f"one of those it holds ({listing})", "Name one of these"
        )
    fitting = [name for name, shape in shapes.items() if fits(shape)]
    named = [name for name in prefer if name in fitting]
    if named or len(fitting) == 1:
        return (named or fitting)[0]
    raise UnfitData(
        path,
        f"{len(fitting)} arrays that may be meant, of those it holds ({listing})",
        "exactly one, or its name",
        f"Name the array, as in {path.name}:{next(iter(fitting or shapes), 'image')}",
    )


def require_plausible(nbytes: int, path: Path) -> None:
    """Refuse a file that declares far more data than it can hold, before memory is allocated for it.

    Parameters
    ----------
    nbytes : int
        Size of the decoded data that the file declares.
    path : Path
        The file.

    Raises
    ------
    UnreadableFile
        If no compression in use could account for the difference.
    """
    size = path.stat().st_size
    if nbytes > MAX_COMPRESSION * size:
        raise UnreadableFile(
            path,
            f"it declares {nbytes} bytes of data but is only {size} bytes long",
            "a complete file",
            "It is truncated, corrupt or was never filled; copy or export it again",
        )


def require_room(values: int, path: Path) -> None:
    """Refuse data that the machine has no memory for, before any is taken.

    Parameters
    ----------
    values : int
        How many numbers the file declares. Each takes 8 bytes here, and as many again on the way.
    path : Path
        The file.

    Raises
    ------
    UnreadableFile
        If that is more than is free.
    """
    needed, free = 16 * values, free_memory()
    if free is not None and needed > free:
        raise UnreadableFile(
            path,
            f"it declares {values} values, which take {needed / 2**30:.1f} GB here, and {free / 2**30:.1f} GB of "
            "memory are free",
            "data that fit in memory",
            "If it is not corrupt, save its slices as several files",
        )


def require_numeric(array: Array | Stack, path: PathInput) -> None:
    """Refuse arrays that are empty or not numbers.

    Parameters
    ----------
    array : ndarray or Stack
        Any shape and dtype.
    path : str or os.PathLike[str]
        Its file, for the message.

    Raises
    ------
    UnfitData
        Not boolean, integer, floating or complex; wider than 64 bits a component; or of zero size.
    """
    wide = array.dtype.itemsize > {"f": 8, "c": 16}.get(array.dtype.kind, 8)
    if array.dtype.kind not in "buifc" or wide:
        raise UnfitData(
            path,
            f"the array has dtype {array.dtype}",
            "booleans, integers, or real or complex floats of up to 64 bits a component",
            "Save it as, for example, float32: numpy.save(path, array.astype(numpy.float32))",
        )
    if array.size == 0:
        raise UnfitData(
            path,
            f"the array is empty, shape {array.shape}",
            "at least one value",
            "Check the step that wrote it",
        )


def require_finite(array: Array | Stack, path: PathInput) -> None:
    """Refuse arrays with NaN or infinite values, saying how many there are.

    Parameters
    ----------
    array : ndarray or Stack
        Any shape; boolean, integer, floating or complex.
    path : str or os.PathLike[str]
        Its file, for the message.

    Raises
    ------
    UnfitData
        If any value (for complex: either part) is NaN or infinite.
    """
    if array.dtype.kind not in "fc":
        return
    nans = infinite = 0
    for part in runs(array) if isinstance(array, Stack) else [array]:
        if not bool(np.isfinite(part).all()):
            nans += int(np.isnan(part).sum())
            infinite += int(np.isinf(part).sum())
    if nans + infinite == 0:
        return
    raise UnfitData(
        path,
        f"{nans} NaN and {infinite} infinite values among {array.size}",
        "finite values only",
        "Replace them (numpy.nan_to_num), or leave the pixels out of the measurement with a mask",
    )


def require_kspace(shape: tuple[int, ...], dtype: np.dtype[Any], path: PathInput, *layouts: str) -> None:
    """Refuse what is no k-space: real values, or another number of axes.

    Parameters
    ----------
    shape, dtype
        Of the array.
    path : str or os.PathLike[str]
        Its file, for the message.
    *layouts : str
        The axes it may have, as in ``"coils, H, W"``.

    Raises
    ------
    UnfitData
        With what should be done about it.
    """
    wanted = " or ".join(f"({layout})" for layout in layouts)
    if dtype.kind != "c":
        advice = "If this is an image, give it as an image: k-space is made from it by the measurement"
        if shape and shape[-1] == 2:
            advice = (
                "Its last axis of 2 looks like real and imaginary parts: join them with "
                "a[..., 0] + 1j * a[..., 1] and save that"
            )
        raise UnfitData(path, f"values of type {dtype}, shape {shape}", f"complex k-space, {wanted}", advice)
    if len(shape) not in [layout.count(",") + 1 for layout in layouts]:
        raise UnfitData(path, f"k-space of shape {shape}", wanted, "Reshape it to one of these and save it again")


class Unchanged:
    """A file that is read in several steps, which all have to find the same."""

    def __init__(self, path: Path) -> None:
        self._path, self._then = path, self._now(path)

    @staticmethod
    def _now(path: Path) -> tuple[int, ...]:
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def require(self) -> None:
        """Refuse to join parts of two files of one name.

        Raises
        ------
        UnreadableFile
            If the file is not the one that it was at first.
        """
        try:
            same = self._now(self._path) == self._then
        except OSError:
            same = False
        if not same:
            raise UnreadableFile(
                self._path,
                "it was changed or removed while it was being read",
                "the same file to the end",
                "Start again",
            )
