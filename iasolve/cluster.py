"""Work spread over processes and machines by Dask: the extra ``cluster``.

A :class:`Cluster` is this machine's worker processes, or a cluster that is there already, by its scheduler's address.
One task is one call of a function; what it needs is sent with it, weights of a prior aside, which every worker loads
once, by name or path, and compares with the hash of those that are meant. Workers run the same code as the client or
are refused: results are those of one process, to the bit on equal hardware with as many threads.

A scheduler runs code for whoever reaches it. Dask's own settings (``distributed.comm.tls``, in its configuration files
or environment) make it ask for certificates; they hold here as everywhere in Dask.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import torch

import iasolve
from iasolve.allocator import keep_free_memory
from iasolve.inference import solve
from iasolve.priors import load_prior

__all__ = ["Cluster", "ClusterError", "LostScheduler", "fingerprint", "map"]

T = TypeVar("T")

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
    ours = fingerprint()
    if ours != theirs:
        wanted, found = (", ".join(f"{name} {value}" for name, value in one.items()) for one in (theirs, ours))
        raise ClusterError(
            f"a worker of another version was refused: it runs {found}. Expected {wanted}. Install the same on all "
            "machines and start the workers again"
        )
    keep_free_memory()
    _take_gpu()
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
        self.size = 0

    def __enter__(self) -> Cluster:
        import dask

        for name in ("distributed", "distributed.client"):  # what they log of a dead worker, errors say
            logging.getLogger(name).setLevel(logging.CRITICAL)
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
        self.size = len(self._client.scheduler_info(n_workers=-1)["workers"])
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

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is not done, and end this machine's workers."""
        for thing in (self._client, self._local):
            if thing is not None:
                try:
                    thing.close(timeout=10)
                except Exception:
                    logging.getLogger(__name__).debug("closing failed", exc_info=True)
        self._client = self._local = None
        self._settings.close()

    @property
    def room(self) -> int:
        """How many tasks more keep all workers busy: each has one at work, and one that waits for it."""
        return max(0, 2 * self.size - len(self._flying))

    def submit(self, function: Callable[..., T], *arguments: Any) -> Any:
        """Begin ``function(*arguments)`` on a worker; the answer is for :meth:`result`."""
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
        except (self._dask.client.FutureCancelledError, self._dask.comm.CommClosedError) as error:
            raise LostScheduler(
                f"{self._scheduler or 'the scheduler'} does not answer any more ({type(error).__name__}): what is "
                "written is complete"
            ) from error

    def cancel(self, futures: Iterable[Any]) -> None:
        """Give tasks up."""
        some = list(futures)
        for future in some:
            self._flying.pop(future, None)
        if self._client is not None and some:
            self._client.cancel(some, force=True)


# ---------------------------------------------------------------------------------------------- solving in Python


class _Pin(NamedTuple):
    """A prior by its name or path, and SHA-256 of its weights."""

    name: str
    sha256: str | None


@cache
def _loaded(pin: _Pin, device: str) -> Any:
    prior = load_prior(pin.name)
    if prior.card.get("sha256") != pin.sha256:
        raise ClusterError(
            f"the prior {pin.name} is another on a worker: its weights have SHA-256 {prior.card.get('sha256')}. "
            f"Expected {pin.sha256}. Copy the same file to all machines"
        )
    return prior.to(device)


def _solve(pin: _Pin, device: str, y: Any, operator: Any, options: dict[str, Any]) -> Any:
    return solve(y, operator, _loaded(pin, device), **options)


def map(  # noqa: A001 - iasolve.map
    measurements: Iterable[Any],
    operator: Any,
    prior: Any,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    **options: Any,
) -> Iterator[Any]:
    """:func:`iasolve.solve` of many measurements, on worker processes.

    Parameters
    ----------
    measurements : iterable of array
        Each as :func:`iasolve.solve` takes it; they are taken as workers become free, so a generator that reads files
        holds few of them at a time.
    operator : LinearOperator
        Of all measurements.
    prior : HVAEPrior or str
        Loaded by :func:`iasolve.load_prior`, or its name: workers load it themselves, once, by name or path, and
        compare the hash of its weights.
    workers : int, optional
        Processes on this machine.
    scheduler : str, optional
        Address of an existing Dask cluster, in place of ``workers``.
    **options
        Of :func:`iasolve.solve`, but ``callback``.

    Yields
    ------
    Result
        In the order of the measurements.

    Raises
    ------
    ClusterError
        See :class:`Cluster`; and what :func:`iasolve.solve` raises.

    Examples
    --------
    >>> import iasolve
    >>> noisy = iter([])  # images (1, H, W), one after the other
    >>> operator = iasolve.operators.Identity((1, 128, 128))
    >>> for result in iasolve.map(noisy, operator, "mri-t1-128", workers=2):  # doctest: +SKIP
    ...     print(result.image.shape)
    """
    if "callback" in options:
        raise TypeError("map takes no callback: count the results as they come")
    known = load_prior(prior) if isinstance(prior, str) else prior
    if known.path is None:
        raise ValueError(f"the prior {known.name!r} has no file that workers could load: save it first")
    pin, device = _Pin(str(known.path), known.card.get("sha256")), str(known.device)
    with Cluster(workers, scheduler) as cluster:
        waiting: deque[Any] = deque()
        for y in measurements:
            waiting.append(cluster.submit(_solve, pin, device, y, operator, options))
            while not cluster.room:
                yield cluster.result(waiting.popleft())
        while waiting:
            yield cluster.result(waiting.popleft())
