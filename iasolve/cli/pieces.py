"""Finished pieces of a long input, kept on the disk until all are: an interruption loses only the one at work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iasolve.cli.outputs import Outputs
from iasolve.cli.reporter import plain
from iasolve.files import FileError, Stack, atomic_write, parse_json, read_text, sha256_of, write_json, write_together

__all__ = ["Piece", "Pieces", "kept_beside", "key_of", "sweep_pieces"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Piece:
    """A run of solved images.

    Attributes
    ----------
    image : ndarray, shape ``(n, C, H, W)``
    std : ndarray or None
        Of the same shape.
    facts : dict
        What the report says of them: plain lists of one entry an image.
    """

    image: Array
    std: Array | None
    facts: dict[str, Any]


def key_of(input_hash: str, identity: Mapping[str, Any]) -> str:
    """Names what a piece is made from: of two runs with the same key, one may go on with what the other finished."""
    text = json.dumps(plain([input_hash, identity]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Pieces:
    """A hidden folder beside a result: ``.iasolve-pieces.OUT.KEY``, with arrays and a report for each finished piece.

    Parameters
    ----------
    outputs : Outputs
        Whose image it lies beside.
    key : str
        See :func:`key_of`; what lies there under another key, of other settings or another input, is removed.
    rows : list of slice
        The images of each piece.
    """

    def __init__(self, outputs: Outputs, key: str, rows: list[slice]) -> None:
        self.folder = outputs.image.with_name(f"{_stem(outputs)}{key}")
        for other in _folders(outputs):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        self.done = {some.start for some in rows if self._intact(some)}

    def _paths(self, rows: slice) -> tuple[Path, Path, Path]:
        stem = f"{rows.start}-{rows.stop}"
        return tuple(self.folder / f"{stem}{end}" for end in (".npy", ".std.npy", ".json"))  # type: ignore[return-value]

    def _intact(self, rows: slice) -> bool:
        image, std, report = self._paths(rows)
        named = {"image": image, "std": std}
        try:
            hashes = parse_json(read_text(report))["sha256"]
            return all(sha256_of(named[name]) == value for name, value in hashes.items())
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def put(self, rows: slice, piece: Piece) -> None:
        """Keep a piece; it is complete on the disk, or not there.

        Raises
        ------
        WriteError
        """
        image, std, report = self._paths(rows)
        hashes = {}
        try:
            self.folder.mkdir(exist_ok=True)
            with write_together():
                for name, path, values in (("image", image, piece.image), ("std", std, piece.std)):
                    if values is not None:
                        with atomic_write(path) as handle:
                            np.save(handle, values)
                        hashes[name] = sha256_of(path)
                write_json(report, {**piece.facts, "sha256": hashes})
        except FileError:
            with contextlib.suppress(OSError):  # it holds other pieces
                self.folder.rmdir()
            raise
        self.done.add(rows.start)

    def facts(self, rows: slice) -> dict[str, Any]:
        """What the report says of a finished piece."""
        found: dict[str, Any] = parse_json(read_text(self._paths(rows)[2]))
        del found["sha256"]
        return found

    def images(self, rows: list[slice]) -> tuple[Stack, Stack | None]:
        """The images of all pieces, one after another, and their error bars, if there are any; all are finished."""
        std = self._paths(rows[0])[1].is_file()
        return self._stack(rows, 0), self._stack(rows, 1) if std else None

    def _stack(self, rows: list[slice], which: int) -> Stack:
        first = np.load(self._paths(rows[0])[which], mmap_mode="r")

        def make(wanted: slice) -> Array:
            parts = []
            for some in rows:
                start, stop = max(some.start, wanted.start), min(some.stop, wanted.stop)
                if start < stop:
                    parts.append(np.load(self._paths(some)[which])[start - some.start : stop - some.start])
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return Stack((rows[-1].stop, *first.shape[1:]), first.dtype, make)

    def close(self, hashes: Mapping[str, str]) -> None:
        """Note the hashes of the result that is about to be written: where it stands, the pieces are superfluous.

        Raises
        ------
        WriteError
        """
        write_json(self.folder / _CLOSED, hashes)

    def remove(self) -> None:
        """Remove what the result has made superfluous."""
        _remove(self.folder)


_PREFIX = ".iasolve-pieces."
_CLOSED = "result"
_LONG = 200


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name != _CLOSED:  # what makes the rest superfluous goes last
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def sweep_pieces(outputs: Outputs) -> None:
    """Remove the pieces of a result that is complete: a process that was killed after writing it left them."""
    with contextlib.suppress(OSError):
        for folder in _folders(outputs):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                closed = parse_json(read_text(folder / _CLOSED))
                if parse_json(read_text(outputs.sidecar))["sha256"] == closed:
                    _remove(folder)


def _stem(outputs: Outputs) -> str:
    """What the names of a result's folders begin with; of a long name, which would be too long with more, its hash."""
    name = outputs.image.name
    if len(os.fsencode(name)) > _LONG:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
    return f"{_PREFIX}{name}."


def _folders(outputs: Outputs) -> list[Path]:
    stem = _stem(outputs)
    # OUT may be a.npy, and another's a.npy.npy
    return [
        path
        for path in outputs.image.parent.iterdir()
        if path.name.startswith(stem) and "." not in path.name[len(stem) :]
    ]


def kept_beside(outputs: Outputs) -> int:
    """How many finished pieces an unfinished result has."""
    with contextlib.suppress(OSError):
        return sum(len(list(folder.glob("*.json"))) for folder in _folders(outputs))
    return 0
