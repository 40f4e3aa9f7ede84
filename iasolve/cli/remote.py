"""Parts of measurements solved by Dask's workers, as they would be here."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from iasolve.cli.errors import LostWorkers, UsageError
from iasolve.cli.pieces import Piece
from iasolve.cli.provenance import differences
from iasolve.cli.reporter import plain
from iasolve.cli.settings import Settings
from iasolve.cli.solver import Part, Solver
from iasolve.cli.task import Task
from iasolve.cluster import Cluster, LostScheduler
from iasolve.files import trust_links
from iasolve.files.links import links_are_trusted

__all__ = ["Workers", "solve_part"]


class Order(NamedTuple):
    """What a worker needs to know once: how its task is made, and what its results depend on (``identity``).

    ``sent``: under which name it has the files that options name, where they were sent; else they are in ``folder``.
    """

    make: Callable[[], Task]
    settings: Settings
    identity: dict[str, Any]
    folder: str
    trusted: bool
    sent: str


_solvers: dict[bytes, Solver] = {}

_MOST = 4
"""Solvers that a worker keeps: a folder may need several priors."""


def solve_part(order: bytes, part: Part) -> Piece:
    """On a worker: solve a part, with a prior that is loaded once.

    Raises
    ------
    UsageError
        When the files that options name are not the same here; and as :meth:`Solver.solve`.
    """
    if order not in _solvers:
        if len(_solvers) >= _MOST:
            _solvers.clear()
        _solvers[order] = _solver(pickle.loads(order))
    return _solvers[order].solve(part)


def _solver(order: Order) -> Solver:
    with suppress(OSError):  # measurements come with the task: the folder is there for files that options name
        os.chdir(_folder(order))  # whose paths stay as the user wrote them
    trust_links(order.trusted)
    solver = Solver(order.make(), order.settings)
    other = differences(order.identity, plain(solver.identity))
    if other:
        raise UsageError(
            f"a worker would solve something else: {', '.join(other)} there. Expected the same prior and files on all "
            "machines"
        )
    return solver


def _folder(order: Order) -> str:
    if not order.sent:
        return order.folder
    from distributed import get_worker

    plugin: Any = get_worker().plugins[order.sent]
    return str(plugin.folder)


class Workers:
    """A cluster that solves parts of one task.

    Parameters
    ----------
    cluster : Cluster
        That is open.
    make : callable
        Makes the task, on any machine: a function of a module with its arguments.
    """

    def __init__(self, cluster: Cluster, make: Callable[[], Task]) -> None:
        self._cluster, self._make = cluster, make
        self._orders: dict[Settings, bytes] = {}
        self.cancel: Callable[[Iterable[Any]], None] = cluster.cancel

    @property
    def room(self) -> int:
        """How many parts more keep all workers busy."""
        return self._cluster.room

    def result(self, future: Any) -> Piece:
        """A part's answer; what its worker raised is raised.

        Raises
        ------
        LostWorkers
            When the scheduler is gone.
        """
        try:
            piece: Piece = self._cluster.result(future)
        except LostScheduler as error:
            raise LostWorkers(str(error)) from error
        return piece

    def begin(self, solver: Solver, part: Part) -> Any:
        """Let a worker solve a part; the answer is for ``result``.

        Raises
        ------
        UsageError, ClusterError
            When the files that options name, or the part, are too large to be sent.
        """
        settings = solver.settings
        if settings not in self._orders:
            from iasolve.cli.sent_files import send, with_neighbours

            identity, folder = plain(solver.identity), os.getcwd()
            sent = send(self._cluster, Path(folder), with_neighbours(solver.task.files().values(), settings.prior))
            order = Order(self._make, settings, identity, folder, links_are_trusted(), sent)
            self._orders[settings] = pickle.dumps(order)
        return self._cluster.submit(solve_part, self._orders[settings], part)
