"""Writing a file, or files that belong together, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import PathInput, WriteError

__all__ = ["atomic_write", "sha256_of", "sweep_leftovers", "write_json", "write_together"]


@dataclass(frozen=True)
class _Staged:
    """A file that is complete on the disk under a hidden name."""

    temporary: Path
    target: Path
    named: PathInput


_together: ContextVar[list[_Staged] | None] = ContextVar("_together", default=None)


@contextmanager
def write_together() -> Iterator[None]:
    """Let the files that are written in the body appear together, once all of them are complete.

    No name can be given to several files in one step, so the last one written is the seal: where it stands, all stand
    as they were written. An older seal goes first, and the older files but the first after it; then the new ones take
    their names in the order in which they were written. So a crash leaves the old files, or the new ones, or some of
    one kind without their seal, but never files of both kinds. Within another such body, the files are part of it.

    Raises
    ------
    WriteError
        As :func:`atomic_write`, from the body or at its end.
    """
    if _together.get() is not None:
        yield
        return
    staged: list[_Staged] = []
    token = _together.set(staged)
    try:
        yield
        _together.reset(token)
        _commit(staged)
    except BaseException:
        if _together.get() is staged:
            _together.reset(token)
        for file in staged:
            with contextlib.suppress(OSError):
                file.temporary.unlink()
        raise


def _commit(staged: Sequence[_Staged]) -> None:
    file = None
    try:
        for file in reversed(staged[1:]):
            if file.target.exists():
                file.target.unlink()
                _sync_folder(file.target.parent)
        for file in staged:
            os.replace(file.temporary, file.target)
            _sync_folder(file.target.parent)
    except OSError as error:
        assert file is not None, "what failed is a file's"
        raise _write_error(file.named, file.target.parent, error) from error


@contextmanager
def atomic_write(path: PathInput) -> Iterator[BinaryIO]:
    """Open a file that appears under ``path`` only once it is complete.

    The data go to a hidden temporary file in the same folder, are flushed to the disk, and take the name of
    the target in one step. If anything fails, the temporary file is removed and an older file of that name
    stays as it was. A new file gets the permissions the umask grants, a replaced one keeps its own; a
    symbolic link is followed. Within :func:`write_together`, the name is given at the end of that.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Target.

    Yields
    ------
    BinaryIO
        Open for reading and writing in binary, seekable.

    Raises
    ------
    WriteError
        For any :class:`OSError` on the way, those in the body included; other exceptions pass unchanged.
    """
    target = Path(os.path.realpath(path))
    try:
        # Replacing a device or a pipe (/dev/null, /dev/stdout) by a file would damage the system.
        if target.exists() and not target.is_file():
            raise WriteError(path, "this is a folder or a device", "the name of a file", "Choose another output path")
        temporary = target.parent / f"{_PREFIX}{_host()}.{os.getpid()}.{secrets.token_hex(8)}{_SUFFIX}"
        # A plain exclusive open follows the umask; the tempfile module leaves 0600, unreadable to a group.
        handle = temporary.open("x+b")
    except (OSError, ValueError) as error:
        raise _write_error(path, target.parent, error) from error
    try:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
        handle.close()
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        staged = _together.get()
        if staged is None:
            os.replace(temporary, target)
        else:
            staged.append(_Staged(temporary, target, path))
            return
    except BaseException as error:
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            handle.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _write_error(path, target.parent, error) from error
        raise
    _sync_folder(target.parent)


_PREFIX, _SUFFIX = ".iasolve.", ".tmp"


def _host() -> str:
    """Name of the machine, in letters and digits: process numbers mean nothing on another one that shares the disk."""
    return "".join(c for c in platform.node() if c.isalnum()) or "unknown"


def sweep_leftovers(folders: Iterable[Path]) -> None:
    """Remove the hidden files that killed processes of this machine left in these folders; best effort."""
    for folder in set(folders):
        for file in folder.glob(f"{_PREFIX}{_host()}.*{_SUFFIX}"):
            number = file.name.split(".")[-3]
            if number.isdecimal() and not _is_running(int(number)):
                with contextlib.suppress(OSError):
                    file.unlink()


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where a file that is open cannot be removed, and os.kill would end the process
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sha256_of(path: PathInput) -> str:
    """SHA-256 of a file, in hexadecimal; of one that :func:`write_together` holds back, of what it will be.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    real = Path(os.path.realpath(path))
    staged = {file.target: file.temporary for file in _together.get() or ()}
    with staged.get(real, real).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entry for the new name; best effort, since not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_error(path: PathInput, folder: Path, error: OSError | ValueError) -> WriteError:
    code = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
    if not folder.is_dir():
        return WriteError(path, f"the folder {folder} does not exist", "an existing folder", "Create it first")
    if code in (errno.ENOSPC, errno.EDQUOT):
        return WriteError(
            path,
            f"no space left to write it ({reason}; {_free(folder)})",
            "room for the whole file",
            "Free some space or choose an output on another disk; nothing of it was written",
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return WriteError(
            path,
            f"no permission to write there ({reason})",
            "a writable folder",
            "Choose another output path",
        )
    return WriteError(
        path,
        # numpy's and tifffile's own writers report a full disk without its error number
        f"writing failed ({reason}; {_free(folder)})",
        "a disk that takes the whole file",
        "Check free space and permissions, or choose another output path; nothing of it was written",
    )


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.0f} MB free on the disk"
    except OSError:
        return "free space unknown"


def write_json(path: PathInput, obj: object) -> None:
    """Write ``obj`` as indented JSON, whole or not at all.

    Parameters
    ----------
    path : str or os.PathLike[str]
        Target.
    obj : object
        Mappings, sequences, sets, text, numbers, booleans, None, paths, and numpy scalars and arrays of
        these. NaN and infinities, which JSON does not have, are written as null. Keys become text.

    Raises
    ------
    WriteError
        If a value has no form in JSON (complex numbers, arbitrary objects), or if writing fails.
    """
    text = json.dumps(_plain(obj, path), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as handle:
        # File names may hold bytes that are not text; as backslash escapes they are valid JSON.
        handle.write(text.encode("utf-8", "backslashreplace"))


def _plain(value: object, path: PathInput) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, path) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path) for item in value]
    if isinstance(value, set | frozenset):
        return [_plain(item, path) for item in sorted(value, key=str)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise WriteError(
        path,
        f"a value of type {type(value).__name__} ({str(value)[:60]}) has no form in JSON",
        "text, numbers, booleans, None, lists and mappings of these",
        "Convert it first, e.g. a complex number to [real, imag]",
    )
