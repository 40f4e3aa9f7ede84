"""CIFAR-10 as its authors publish it: pickled Python batches, read without running what a pickle may hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_batch", "read_cifar"]

_FILES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    # the module's name in the pickle depends on the numpy that wrote it
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """Knows dicts, lists, numbers, bytes and numpy arrays; refuses everything else by name."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs") from None


def read_batch(path: Path) -> np.ndarray:
    """Images of one batch file, ``(n, 3, 32, 32)`` uint8.

    Raises
    ------
    ValueError
        When the file is damaged, holds anything but plain data and arrays, or no such images.
    """
    try:
        with path.open("rb") as stream:
            batch = _Unpickler(stream, encoding="bytes").load()
    # a damaged pickle can raise nearly anything
    except Exception as error:
        raise ValueError(f"{path} is refused as a CIFAR-10 batch: {error}") from None
    data = batch.get(b"data") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
        raise ValueError(f"{path} is no CIFAR-10 batch: expected b'data' of shape (n, 3072), uint8")
    return data.reshape(-1, 3, 32, 32)


def read_cifar(folder: Path, part: str = "train") -> np.ndarray:
    """Images of ``"train"`` (50,000) or ``"test"`` (10,000) from the folder ``cifar-10-batches-py``.

    Raises
    ------
    FileNotFoundError, ValueError
        When a file is missing or refused, or the part unknown.
    """
    if part not in _FILES:
        raise ValueError(f"CIFAR-10 has the parts 'train' and 'test', not {part!r}")
    missing = [name for name in _FILES[part] if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: expected the folder cifar-10-batches-py")
    return np.concatenate([read_batch(folder / name) for name in _FILES[part]])
