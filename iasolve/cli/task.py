"""What sets one solving command apart from another; imported before torch is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iasolve.cli.sources import Source

if TYPE_CHECKING:
    import torch

    from iasolve.inference import Choice, Result
    from iasolve.operators import LinearOperator
    from iasolve.priors import Prior

__all__ = ["Shape", "Task"]

Shape = tuple[int, int, int]


def _kind_of_image(source: Source) -> tuple[int, bool]:
    return source.y.shape[1], source.y.dtype.kind == "c"


@dataclass(frozen=True)
class Task:
    """A solving command.

    Attributes
    ----------
    command : str
    recipe : str
        The ready recipe for it.
    suffixes : tuple of str
        Of the files it reads from a folder.
    read : callable
        From a path to a :class:`Source`.
    operator : callable or None
        From a source, the image's shape ``(C, H, W)`` and dtype to the operator. None where ``solve`` finds it.
    asked : mapping
        The command's own options, for the report and for ``--resume``.
    files : callable
        Files that those options name, by option; asked for once the measurement's operator is there.
    solve : callable or None
        Where the measurement itself tells part of its operator, slice by slice: from a source, its values, the prior
        and the keyword arguments of :func:`iasolve.solve` to a result. None: ``operator`` and :func:`iasolve.solve`.
    choose : callable or None
        As ``solve``, from a source, its values, priors and keyword arguments to the choice of one. None: with
        ``operator``.
    kind : callable
        From a source to the channels of its images, and whether they are complex.
    candidates : callable or None
        The priors to choose from; None: those over images of that kind.
    prepare : callable
        Called before a folder's first file: what is wrong for all of them is not to be reported of each.
    """

    command: str
    recipe: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Source]
    operator: Callable[[Source, Shape, torch.dtype], LinearOperator] | None
    asked: Mapping[str, Any] = field(default_factory=dict)
    solve: Callable[..., Result[Any]] | None = None
    choose: Callable[..., Choice] | None = None
    kind: Callable[[Source], tuple[int, bool]] = _kind_of_image
    candidates: Callable[[], Sequence[Prior]] | None = None
    files: Callable[[], Mapping[str, Path]] = dict
    prepare: Callable[[], object] = lambda: None
