"""What networks take at a time: so many tiles, whatever the size of an image.

Tiles do not know of each other in a network. So its activations, most of what a solution takes of the memory, are those
of one *portion* of tiles. A gradient would keep those of all portions until it has come back through them; where memory
does not suffice for that, each portion is evaluated again on the way back (checkpointing: Chen et al. 2016,
arXiv:1604.06174). That gives the same numbers to the bit and takes one more evaluation a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from iasolve.evidence import WienerPosterior
from iasolve.files.memory import give_back
from iasolve.networks import Reading
from iasolve.priors.prior import Prior

__all__ = ["Portion", "each_portion", "in_portions", "joined", "portions"]

T = TypeVar("T")


class Portion(NamedTuple):
    """Tiles that networks take at a time, whether a gradient evaluates them again, and rows of an image for a reader.

    ``rows`` None: all.
    """

    tiles: int
    again: bool = False
    rows: int | None = None


class _InPortions:
    """A prior, and the portions in which it is to be given tiles."""

    def __init__(self, prior: Prior, portion: Portion) -> None:
        self._prior, self.portion = prior, portion

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def read(self, posterior: WienerPosterior, rows: int | None = None) -> Reading:
        rows = rows or self.portion.rows
        if rows is None:
            return self._prior.read(posterior)
        # memory is short: neither the strips shall come on top of earlier gaps, nor what follows on top of theirs
        give_back()
        reading = self._prior.read(posterior, rows)
        give_back()
        return reading


def in_portions(prior: Prior, portion: Portion) -> Prior:
    """The same prior, whose networks are given so many tiles at a time."""
    return cast(Prior, _InPortions(prior, portion))


def portions(prior: Prior, count: int) -> list[slice]:
    """The portions of ``count`` tiles: one, without :func:`in_portions`."""
    size = prior.portion.tiles if isinstance(prior, _InPortions) else count
    if count <= size:
        return [slice(None)]
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def joined(parts: list[T]) -> T:
    """Nests of tensors with tiles in front, one for each portion, as one."""
    if len(parts) == 1:
        return parts[0]
    joint: T = tree_map(lambda *tensors: torch.cat(tensors), *parts)
    return joint


def each_portion(prior: Prior, count: int, evaluate: Callable[[slice], T]) -> T:
    """What ``evaluate`` makes of every portion, joined; evaluated again by a gradient where the portions say so."""
    rows = portions(prior, count)
    again = isinstance(prior, _InPortions) and prior.portion.again
    if len(rows) == 1 or not again or not torch.is_grad_enabled():
        return joined([evaluate(some) for some in rows])
    return joined([checkpoint(evaluate, some, use_reentrant=False, preserve_rng_state=False) for some in rows])
