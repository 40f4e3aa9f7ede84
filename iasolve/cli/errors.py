"""Exit codes, and how an exception becomes one with a message that says what to do."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "BROKEN_PIPE",
    "DAMAGED_PRIOR",
    "DEVICE",
    "DONE",
    "INTERRUPTED",
    "NON_FINITE",
    "SOME_FAILED",
    "UNEXPECTED",
    "UNFIT",
    "USAGE",
    "CommandError",
    "DamagedPrior",
    "DeviceError",
    "Interrupted",
    "LostWorkers",
    "UnfitInput",
    "UsageError",
    "blamed_on",
    "describe",
    "reason_of",
]

DONE, UNEXPECTED, USAGE, UNFIT, DAMAGED_PRIOR, DEVICE, NON_FINITE, SOME_FAILED = range(8)
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells have them


class CommandError(Exception):
    """An error to show to the user as it is: one or two lines, no traceback."""

    code = UNEXPECTED


class UsageError(CommandError):
    """The command line makes no sense, or names an output that cannot be."""

    code = USAGE


class UnfitInput(CommandError):  # noqa: N818 - says what the input is
    """The input can be read, but not be used here."""

    code = UNFIT


class DeviceError(CommandError):
    """The device asked for is not there."""

    code = DEVICE


class LostWorkers(CommandError):  # noqa: N818 - says what happened
    """Those who do the work are gone, and with them the rest of it."""

    code = DEVICE


class Interrupted(CommandError):  # noqa: N818 - says what happened
    """Ctrl-C, where nothing else is to be said of it."""

    code = INTERRUPTED


class DamagedPrior(CommandError):  # noqa: N818 - says what the prior is
    """The prior cannot be used, in a way that its own checks did not see."""

    code = DAMAGED_PRIOR


@contextmanager
def blamed_on(kind: type[CommandError], subject: str, advice: str) -> Iterator[None]:
    """Give what nobody foresaw in the body a code and words: it came of this subject.

    Parameters
    ----------
    kind : type
        Of the error, in place of one that :func:`describe` does not know.
    subject : str
        What is to blame, and what is wrong with it.
    advice : str
        What to do.

    Raises
    ------
    CommandError
        Of that kind. Errors with a code of their own pass.
    """
    try:
        yield
    except Exception as error:
        if describe(error)[0] != UNEXPECTED:
            raise
        reason = reason_of(error)[:200]
        raise kind(f"{subject} ({type(error).__name__}: {reason}). {advice}; --debug shows where") from error


def reason_of(error: BaseException) -> str:
    """What an exception says, in one line; that of a user's code may fail at saying it."""
    try:
        return " ".join(str(error).split())
    except Exception as second:
        return f"and its message cannot be shown: {type(second).__name__}"


def describe(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an exception.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    tuple of (int, str)
        Code 1 and the name of the exception for one that nobody foresaw.
    """
    if isinstance(error, CommandError):
        return error.code, str(error)
    if getattr(error, "exit_code", None) == USAGE and hasattr(error, "format_message"):
        # by its shape: typer brings its own copy of click, or uses click, depending on its version
        return USAGE, str(error.format_message())
    if type(error).__name__ == "Abort":  # what click makes of KeyboardInterrupt
        return INTERRUPTED, "interrupted"
    return _known(error) or (UNEXPECTED, f"unexpected {type(error).__name__}: {reason_of(error)} (--debug shows where)")


def _known(error: BaseException) -> tuple[int, str] | None:
    # the cheap modules first: at this point torch may well not be loaded, and need not be
    from iasolve.files import FileError, WriteError
    from iasolve.recipe import RecipeError

    if isinstance(error, WriteError):
        return DEVICE, str(error)
    if isinstance(error, FileError):
        return UNFIT, str(error)
    if isinstance(error, RecipeError):
        return USAGE, str(error)
    if "torch" in sys.modules:
        from iasolve.inference import NonFiniteError
        from iasolve.priors import PriorError
        from iasolve.training.burst import DivergedError

        if isinstance(error, PriorError):
            return DAMAGED_PRIOR, str(error)
        if isinstance(error, NonFiniteError | DivergedError):
            return NON_FINITE, str(error)
    if type(error).__name__ in ("BudgetError", "ClusterError"):  # by name: neither torch nor Dask need be loaded
        return DEVICE, str(error)
    if _is_memory(error):
        return DEVICE, "out of memory: use less --memory, fewer --samples, or --device cpu"
    if isinstance(error, OSError):
        return DEVICE, _of_system(error)
    text = reason_of(error)
    # torch lists CUDA among the backends that lack an operation, too
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError) and "CUDA" in text:
        return DEVICE, f"the GPU failed ({text[:200]}): try --device cpu"
    return None


def _of_system(error: OSError) -> str:
    """What the operating system refused, of which file, and what to do about it."""
    named = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    what = error.strerror or reason_of(error) or type(error).__name__
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{named}no permission ({what}). Expected a place that is open to you. Check its permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{named}no space left ({what}). Expected room for what is written. Free some, or choose another disk"
    return f"{named}the system refused ({what}). Expected a disk that works. Check the disk and its permissions"


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, ImportError):  # a library that there is no room for, as under ulimit -v
        return "failed to map" in str(error) or "allocate memory" in str(error)
    # torch.OutOfMemoryError by name (it moved between versions); on the CPU, torch raises a bare RuntimeError
    text = reason_of(error)
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "alloc" in text and "memory" in text
    )
