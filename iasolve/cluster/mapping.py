"""Many measurements, solved by workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from iasolve.cluster.pool import Cluster, ClusterError
from iasolve.inference import solve
from iasolve.priors import PriorError, find_prior, load_prior

__all__ = ["Pin", "map", "pinned", "solve_pinned"]


class Pin(NamedTuple):
    """A prior by its name or path, and SHA-256 of its weights."""

    name: str
    sha256: str | None


@cache
def _loaded(pin: Pin, device: str) -> Any:
    prior = load_prior(pin.name)
    if prior.card.get("sha256") != pin.sha256:
        raise ClusterError(
            f"the prior {pin.name} is another on a worker: its weights have SHA-256 {prior.card.get('sha256')}. "
            f"Expected {pin.sha256}. Copy the same file to all machines"
        )
    return prior.to(device)


def pinned(prior: Any) -> Pin:
    """A prior as workers find it: by its name where it is installed under that, for their paths may be others."""
    try:
        installed = find_prior(prior.name) == prior.path
    except PriorError:
        installed = False
    return Pin(prior.name if installed else str(prior.path), prior.card.get("sha256"))


def solve_pinned(pin: Pin, device: str, y: Any, operator: Any, options: dict[str, Any]) -> Any:
    """On a worker: :func:`iasolve.solve` with a prior that is loaded once."""
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
        Of all measurements; it is sent with each.
    prior : HVAEPrior or str
        Loaded by :func:`iasolve.load_prior`, or its name: workers load it themselves, once, by name or, where it is
        none of the installed ones, by path, and compare the hash of its weights.
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
        See :class:`Cluster`; where a measurement and the operator take more than 256 MB; and what
        :func:`iasolve.solve` raises.

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
    pin, device = pinned(known), str(known.device)
    with Cluster(workers, scheduler) as cluster:
        waiting: deque[Any] = deque()
        for y in measurements:
            waiting.append(cluster.submit(solve_pinned, pin, device, y, operator, options))
            while not cluster.room:
                yield cluster.result(waiting.popleft())
        while waiting:
            yield cluster.result(waiting.popleft())
