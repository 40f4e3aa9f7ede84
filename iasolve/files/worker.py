"""Decoding in a process of its own, where a damaged file can end, block or fill no more than that process.

Readers written in C answer some damage with a segmentation fault, an endless loop that Ctrl-C cannot end, or gigabytes.
One standard pool of one process serves all files; only after such a file is there a new one.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from .errors import UnreadableFile
from .links import links_are_trusted, trust_links
from .memory import free_memory
from .source import MAX_COMPRESSION

__all__ = ["read_apart", "start_worker"]

Result = TypeVar("Result")

SECONDS, BYTES_PER_SECOND = 5, 5e6
"""Processor time that decoding a file may take: so long, and its size at this speed. Not time on the clock: where many
programs share a machine, good files may take minutes."""

SILENT_SECONDS = 120
"""Time on the clock that it may take besides, where the disk does not answer."""

SPARE_MEMORY = 3 * 2**28
"""What decoding may take besides the data, bytes."""


def read_apart(function: Callable[..., Result], path: Path, *arguments: Any) -> Result:
    """``function(path, *arguments)``, in the worker; here, where no other process can be started.

    Parameters
    ----------
    function : callable
        Of a module: it is sent by name.
    path : Path
        What it reads.
    *arguments
        Plain values.

    Raises
    ------
    UnreadableFile
        If reading ends the process, or takes too long. Whatever ``function`` raises is passed on.
    """
    for attempt in (1, 2):
        worker = _current()
        if worker is None:
            return function(path, *arguments)
        try:
            return worker.run(function, path, *arguments)
        except BrokenProcessPool as error:
            how = worker.end()
            if how == "SIGXCPU":
                raise _given_up(path, "too much processor time") from error
            # once may be chance: a worker that was idle may have been killed for its memory
            if attempt == 2:
                raise UnreadableFile(
                    path,
                    f"the library that decodes it crashed ({how})",
                    "an intact file",
                    "It is damaged, or needs more memory than there is; copy or export it again",
                ) from error
    raise AssertionError("the second attempt returns or raises")


def _given_up(path: Path, taken: str) -> UnreadableFile:
    return UnreadableFile(
        path,
        f"decoding it was given up after {taken}",
        "an intact file",
        "It is damaged; copy or export it again",
    )


def start_worker() -> None:
    """Start the worker while something else is being done, so that the first file need not wait for it."""
    _current()


class _Setting(NamedTuple):
    """What a call needs of the process that makes it."""

    folder: str | None
    seconds: int
    memory: int
    trusted: bool


def _folder() -> str | None:
    """The current folder; None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


class _Worker:
    """A pool of one process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_prepare)
        before = set(multiprocessing.active_children())
        with _without_main():
            self._ready = self._pool.submit(os.getpid)
        self._processes = set(multiprocessing.active_children()) - before
        self._one_at_a_time = threading.Lock()

    def run(self, function: Callable[..., Result], path: Path, *arguments: Any) -> Result:
        """See :func:`read_apart`; BrokenProcessPool where the process ends."""
        size = path.stat().st_size
        seconds = SECONDS + int(size / BYTES_PER_SECOND)
        data = 2 * MAX_COMPRESSION * size
        free = free_memory()
        memory = SPARE_MEMORY + (data if free is None else min(data, free))
        setting = _Setting(_folder(), seconds, memory, links_are_trusted())
        with self._one_at_a_time:  # or the time of others would count
            try:
                self._ready.result()  # which takes as long as it takes
                answer = self._pool.submit(_limited, setting, function, path, *arguments)
                return answer.result(SILENT_SECONDS + seconds)
            except TimeoutError as error:
                if answer.done():  # the reader's own, passed on
                    raise
                self.end()
                raise _given_up(path, f"{SILENT_SECONDS + seconds} s") from error
            except KeyboardInterrupt:
                self.end()  # or the program would wait for it at its end
                raise

    def end(self) -> str:
        """Kill the process, give up the pool, and say how the process ended."""
        _forget(self)
        for process in self._processes:
            process.kill()
            process.join()
        self._pool.shutdown(wait=False, cancel_futures=True)
        code = next(iter(self._processes)).exitcode if self._processes else None
        if code is None or code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


_lock = threading.Lock()
_workers: dict[int, _Worker] = {}  # by process: what a fork inherits serves the parent


def _current() -> _Worker | None:
    if multiprocessing.parent_process() is not None:  # a worker itself, or one of the caller's
        return None
    with _lock:
        found = _workers.get(os.getpid())
        if found is None:
            try:
                found = _Worker()
            except (OSError, ImportError, RuntimeError):  # no processes or semaphores on this system
                return None
            _workers[os.getpid()] = found
        return found


def _forget(worker: _Worker) -> None:
    with _lock:
        if _workers.get(os.getpid()) is worker:
            del _workers[os.getpid()]


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the user's script from a process that starts: multiprocessing would run it again there."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# ------------------------------------------------------------------------------------------------- in the worker


def _prepare() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # which go to whole groups of processes: the parent decides
        signal.signal(number, signal.SIG_IGN)
    # libraries in C print there what they think of a damaged file, line after line; the error says it once
    with contextlib.suppress(OSError):
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 2)
        os.close(silent)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    """Do not outlive a parent that was killed."""
    parent.join()
    os._exit(1)


def _limited(setting: _Setting, function: Callable[..., Result], *arguments: Any) -> Result:
    if setting.folder is not None:
        os.chdir(setting.folder)  # paths, and what errors say of them, stay as the user wrote them
    trust_links(setting.trusted)
    _limit(setting)
    return function(*arguments)


def _limit(setting: _Setting) -> None:
    """Let the process work so long and grow so much, from now on, as far as the system knows such limits."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        def limit(what: int, value: int) -> None:
            _, hard = resource.getrlimit(what)
            resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))

        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + setting.seconds)
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit(resource.RLIMIT_AS, pages * resource.getpagesize() + setting.memory)
