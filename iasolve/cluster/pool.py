"""Worker processes of this machine or of others, and the tasks that they are given.

A :class:`Cluster` is this machine's worker processes, or a cluster that is there already, by its scheduler's address.
One task is one call of a function; what it needs is sent with it, up to :data:`MOST_SENT`, weights of a prior aside,
which every worker loads once, by name or path, and compares with the hash of those that are meant. Workers run the same
code as the client or are refused: results are those of one process, to the bit on equal hardware with as many threads.

A scheduler runs code for whoever reaches it. Dask's own settings (``distributed.comm.tls``, in its configuration files
or environment) make it ask for certificates; they hold here as everywhere in Dask.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

import iasolve
from iasolve.allocator import keep_free_memory

__all__ = ["MOST_SENT", "Cluster", "ClusterError", "LostScheduler", "fingerprint"]

T = TypeVar("T")

MOST_SENT = 256_000_000
"""Bytes of a task: the client, the scheduler and the worker hold them in memory, two tasks for each worker."""

_INSTALL = "as here. Install the same for the scheduler and on all machines, and start both again"

_COUNT_AGAIN = 2.0
"""Seconds."""

_SETTINGS = {
    # a task is given up at the second worker that it ends
    "distributed.scheduler.allowed-failures": 1,
    # a task that waits behind a deadly one would count as its accomplice
    "distributed.scheduler.worker-saturation": 1.0,
    # a worker that was killed comes back, though it may take long to load torch on a busy machine
    "distributed.deploy.lost-worker-timeout": "1 hour",
}
"""Of Dask, for workers of this machine."""

_LOCAL = {
    "threads_per_worker": 1,
    "processes": True,
    "dashboard_address": None,
    # or its web server, dashboard or not, would listen at port 8787 of every interface
    "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
    "silence_logs": logging.CRITICAL,
}
"""The cluster of this machine."""


class ClusterError(RuntimeError):
    """A task that the cluster could not do: its workers died, or run other code."""


class LostScheduler(ClusterError):  # noqa: N818 - says what happened
    """The scheduler does not answer any more."""


@cache
def fingerprint() -> dict[str, str]:
    """What has to be equal on both sides: versions, and SHA-256 of the project's code."""
    package, *beside = [Path(one) for one in iasolve.__path__]
    # in a checkout, operators lie beside the package
    folders = [package, *(one / "operators" for one in beside)]
    roots = [package, *beside]
    files = {
        path.relative_to(root).as_posix(): path
        for folder, root in zip(folders, roots, strict=True)
        for path in folder.rglob("*.py")
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name].read_bytes())
    return {"iasolve": iasolve.__version__, "torch": torch.__version__, "code": digest.hexdigest()[:12]}


def _checked(theirs: dict[str, str], function: Callable[..., T], *arguments: Any) -> T:
    """On a worker: ``function``, if it is the code that the client means."""
    _require_same(theirs)
    keep_free_memory()
    _take_gpu()
    return function(*arguments)


def _require_same(theirs: dict[str, str], who: str = "a worker") -> None:
    """On the other side: refuse to work for another version."""
    ours = fingerprint()
    if ours != theirs:
        wanted, found = (", ".join(f"{name} {value}" for name, value in one.items()) for one in (theirs, ours))
        raise ClusterError(f"{who} of another version was refused: it runs {found}. Expected {wanted}, {_INSTALL}")


def _foreign(who: str, error: Exception) -> str:
    return f"{who} runs other code ({error}). Expected iasolve {iasolve.__version__}, {_INSTALL}"


def _beside_tasks(theirs: dict[str, str], function: Callable[..., T], *arguments: Any) -> T:
    """On a worker: ``function``, whatever task is at work there."""
    _require_same(theirs)
    return function(*arguments)


def _take_gpu() -> None:
    """On a worker of this machine: ``cuda`` is the GPU of its number, where there are several."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > 1:
        from distributed import get_worker

        name = get_worker().name  # a number here; of workers that were started by hand, an address
        if isinstance(name, int):
            torch.cuda.set_device(name % count)


def _quiet() -> None:
    """On a worker of this machine: Ctrl-C goes to all processes of a terminal; the client decides."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _bytes_of(arguments: tuple[Any, ...]) -> int:
    """What is sent of a task; arrays are counted, not copied."""
    from distributed.protocol import pickle

    arrays: list[Any] = []
    plain = pickle.dumps(arguments, buffer_callback=arrays.append)  # type: ignore[no-untyped-call]
    return len(plain) + sum(one.raw().nbytes for one in arrays)


class Cluster:
    """Worker processes of this machine, or a Dask cluster that is there already; to be used in ``with``.

    Parameters
    ----------
    workers : int, optional
        Processes to start on this machine, each with its share of the cores.
    scheduler : str, optional
        Address of an existing cluster's scheduler, as ``tcp://host:8786``; ``tls://`` with Dask's TLS settings.

    Raises
    ------
    ValueError
        Unless exactly one of them is given.
    ClusterError
        When Dask is not installed, or the scheduler cannot be reached or has no workers.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if (workers is None) == (scheduler is None):
            raise ValueError(f"expected workers or a scheduler, got workers={workers!r}, scheduler={scheduler!r}")
        if workers is not None and (isinstance(workers, bool) or workers < 1):
            raise ValueError(f"workers is {workers!r}, expected a whole number from 1")
        try:
            import distributed
        except ImportError:
            raise ClusterError(
                "Dask is not installed. Expected iasolve with the extra 'cluster': pip install 'iasolve[cluster]'"
            ) from None
        self._dask: Any = distributed
        self._workers, self._scheduler = workers, scheduler
        self._local: Any = None
        self._settings = ExitStack()
        self._client: Any = None
        self._flying: dict[Any, tuple[Any, ...]] = {}
        self._plugins: list[str] = []
        self._size, self._counted = 0, -math.inf

    def __enter__(self) -> Cluster:
        import dask

        for name in ("distributed", "distributed.client"):  # what they log of a dead worker, errors say
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Dask would warn of tasks of more than 10 MB
        self._settings.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": MOST_SENT}))
        try:
            if self._workers is not None:
                settings = _SETTINGS | {
                    "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": max(
                        1, (os.cpu_count() or 1) // self._workers
                    )
                }
                self._settings.enter_context(dask.config.set(settings))
                self._local = self._dask.LocalCluster(n_workers=self._workers, **_LOCAL)
            self._require_certificate()
            self._client = self._dask.Client(self._local or self._scheduler, timeout="20s", set_as_default=False)
            self._client.wait_for_workers(self._workers or 1, timeout=120)
            if self._local is not None:
                self._client.run(_quiet)
            else:
                self._require_version()
        except (OSError, TimeoutError, ValueError) as error:
            self.close()
            where = self._scheduler or "this machine's workers"
            raise ClusterError(
                f"{where}: no cluster to work with ({' '.join(str(error).split())[:300]}). Expected a Dask scheduler "
                "with workers: start dask scheduler and dask worker first"
            ) from error
        except BaseException:
            self.close()
            raise
        return self

    def _require_certificate(self) -> None:
        """Say what is missing before Dask waits for it."""
        if self._scheduler is None or not self._scheduler.startswith("tls://"):
            return
        if self._dask.Security().get_connection_args("client").get("ssl_context") is None:
            raise ValueError(
                "Dask's settings name no certificate for clients: give distributed.comm.tls.ca-file, .client.cert and "
                ".client.key in ~/.config/dask/distributed.yaml, or as DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on"
            )

    def _require_version(self) -> None:
        """Refuse a scheduler of another version; it takes tasks apart, and so needs the code.

        It loads it now: a task that came before would wait unread, for longer than connections last on slow disks.

        Raises
        ------
        ClusterError
        """
        try:
            self._client.run_on_scheduler(_require_same, fingerprint(), "the scheduler")
        except (ImportError, AttributeError) as error:
            raise ClusterError(_foreign("the scheduler", error)) from error

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is not done, and end this machine's workers."""
        while self._plugins and self._client is not None:
            with suppress(Exception):  # a scheduler that is lost has nothing to take back
                self._client.unregister_worker_plugin(self._plugins.pop())
        for thing in (self._client, self._local):
            if thing is not None:
                try:
                    thing.close(timeout=10)
                except Exception:
                    logging.getLogger(__name__).debug("closing failed", exc_info=True)
        self._client = self._local = None
        self._settings.close()

    @property
    def size(self) -> int:
        """Workers, at least one. Those of a queue come one by one, so they are counted again every few seconds."""
        now = time.monotonic()
        if self._client is not None and now > self._counted + _COUNT_AGAIN:
            # of a lost scheduler, as many as there were: results that are waited for tell that it is
            self._size = max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))
            self._counted = now
        return self._size

    @property
    def room(self) -> int:
        """How many tasks more keep all workers busy: each has one at work, and one that waits for it."""
        return max(0, 2 * self.size - len(self._flying))

    def submit(self, function: Callable[..., T], *arguments: Any) -> Any:
        """Begin ``function(*arguments)`` on a worker; the answer is for :meth:`result`.

        Raises
        ------
        ClusterError
            When the arguments are more than :data:`MOST_SENT` bytes.
        """
        size = _bytes_of(arguments)
        if size > MOST_SENT:
            raise ClusterError(
                f"a task of {size / 1e6:.0f} MB. Expected at most {MOST_SENT / 1e6:.0f} MB, which pass through the "
                "scheduler's memory. Let it hold fewer images (a smaller batch size), or solve it without workers"
            )
        future = self._client.submit(_checked, fingerprint(), function, *arguments, pure=False)
        self._flying[future] = (function, *arguments)
        return future

    def result(self, future: Any, last: bool = False) -> Any:
        """What a task returned; what it raised is raised. Where workers died of it, it is begun once more.

        Raises
        ------
        ClusterError
            When the workers that had the task died, as one without memory does.
        LostScheduler
            When the scheduler is gone.
        """
        call = self._flying.pop(future)
        try:
            return future.result()
        except self._dask.KilledWorker as error:
            if not last:
                # it may have waited behind one that kills: once more
                return self.result(self.submit(*call), last=True)
            raise ClusterError(
                "workers died of it, one after the other, in two attempts: they were killed, or ran out of memory"
            ) from error
        except (ImportError, AttributeError) as error:
            if "'iasolve." not in str(error):
                raise
            raise ClusterError(_foreign("a worker", error)) from error
        except (self._dask.client.FutureCancelledError, self._dask.comm.CommClosedError) as error:
            raise LostScheduler(
                f"{self._scheduler or 'the scheduler'} does not answer any more ({type(error).__name__}): what is "
                "written is complete"
            ) from error

    def ask(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        """What ``function(*arguments)`` returns on each worker that answers.

        Raises
        ------
        ClusterError
            When a worker runs other code.
        """
        found = self._client.run(_beside_tasks, fingerprint(), function, *arguments, on_error="return").values()
        for one in found:
            if isinstance(one, ClusterError):
                raise one
        return [one for one in found if not isinstance(one, BaseException)]

    def equip(self, plugin: Any) -> None:
        """Let a plugin of Dask set up every worker, and those that come later, until the cluster is closed."""
        self._client.register_plugin(plugin)
        self._plugins.append(plugin.name)

    def cancel(self, futures: Iterable[Any]) -> None:
        """Give tasks up."""
        some = list(futures)
        for future in some:
            self._flying.pop(future, None)
        if self._client is not None and some:
            self._client.cancel(some, force=True)
