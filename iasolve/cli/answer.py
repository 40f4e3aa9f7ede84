"""From a measurement to its files: its parts are solved here or by workers, joined, and written with their report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import iasolve
from iasolve.cli.facts import joined_facts
from iasolve.cli.outputs import Outputs, std_type
from iasolve.cli.pieces import Piece, Pieces, key_of
from iasolve.cli.provenance import hashes_of_outputs, input_hash
from iasolve.cli.reporter import plain, spread
from iasolve.cli.solver import Solver
from iasolve.cli.sources import Source
from iasolve.files import suffix_of, write_image, write_json, write_together
from iasolve.files.stack import as_array

if TYPE_CHECKING:
    from iasolve.cli.remote import Workers

__all__ = ["Answer", "Work", "write"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """A solution in the shape of its source, ``(pages, channels, H, W)``, and its report.

    ``pieces``: what is kept on the disk of it, superfluous once it is written; ``image`` and ``std`` are then stacks.
    """

    image: Array
    std: Array | None
    report: dict[str, Any]
    pieces: Pieces | None = None


class Work:
    """A measurement that is being solved, piece by piece.

    Parameters
    ----------
    solver : Solver
    source : Source
    outputs : Outputs, optional
        Beside which finished pieces are kept, where there are several; :func:`write` removes them.
    workers : Workers, optional
        Who solves the pieces; some of them begin at once.

    Raises
    ------
    UnfitInput, UsageError, BudgetError
        Before anything is solved.
    """

    def __init__(
        self, solver: Solver, source: Source, outputs: Outputs | None = None, workers: Workers | None = None
    ) -> None:
        self.solver, self.source, self.workers = solver, source, workers
        self.rows, self.tiles = solver.cut(source)
        solver.require_plausible_sigma(source)
        self.kept: Pieces | None = None
        if outputs is not None and len(self.rows) > 1:
            self.kept = Pieces(outputs, key_of(input_hash(source.like.path), solver.identity), self.rows)
        done = set() if self.kept is None else self.kept.done
        self._left = [some for some in self.rows if some.start not in done]
        self._todo = deque(self._left)
        self._begun: deque[tuple[slice, Any]] = deque()
        if workers is not None:
            self._begin(workers)

    @property
    def total(self) -> int:
        """Tiles in all."""
        return int(self.tiles * self.rows[-1].stop)

    @property
    def before(self) -> int:
        """Tiles that an earlier run finished."""
        return self.total - int(self.tiles * sum(some.stop - some.start for some in self._left))

    def _begin(self, workers: Workers) -> None:
        while self._todo and (workers.room or not self._begun):
            rows = self._todo.popleft()
            self._begun.append((rows, workers.begin(self.solver, self.solver.part(self.source, rows))))

    def finish(self, progress: Callable[[float, str], None] | None = None) -> Answer:
        """The answer, once all pieces are solved.

        Parameters
        ----------
        progress : callable, optional
            Called with the tiles that are done, parts of one included, and what was done last, in words.

        Raises
        ------
        UnfitInput, NonFiniteError, MemoryError, WriteError
        """
        tell = progress or (lambda done, words: None)
        solved: dict[int, Piece] = {}
        kept = self.kept
        for rows, piece in self._pieces(tell):
            if kept is None:
                solved[rows.start] = piece
            else:
                kept.put(rows, piece)
        if kept is not None:
            facts = joined_facts([kept.facts(some) for some in self.rows])
            channels = self.source.like.channels
            image, std = kept.images(self.rows)
            pages = as_array(image.channels_together(channels))
            error = None if std is None else as_array(std.channels_together(channels))
            return Answer(pages, error, self._report(facts), kept)
        return self._answer([solved[some.start] for some in self.rows])

    def _pieces(self, tell: Callable[[float, str], None]) -> Iterator[tuple[slice, Piece]]:
        left = [*self._todo, *(rows for rows, _ in self._begun)]
        images = self.rows[-1].stop - sum(some.stop - some.start for some in left)
        workers = self.workers

        def tell_images(done: float, words: str, images: int) -> None:
            tell(self.tiles * (images + done), words)

        tell_images(0, "", images)
        if workers is None:
            for rows in self._todo:
                part = self.solver.part(self.source, rows)
                yield rows, self.solver.solve(part, partial(tell_images, images=images))
                images += rows.stop - rows.start
            return
        try:
            while self._begun:
                rows, future = self._begun[0]
                piece = workers.result(future)
                self._begun.popleft()
                self._begin(workers)
                yield rows, piece
                images += rows.stop - rows.start
                tell_images(0, "", images)
        finally:
            workers.cancel(future for _, future in self._begun)

    def _answer(self, pieces: list[Piece]) -> Answer:
        pages, channels = self.source.like.pixels.shape[:2]

        def joined(parts: list[Array]) -> Array:
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return values.reshape(pages, channels, *values.shape[-2:])

        stds = [piece.std for piece in pieces if piece.std is not None]
        facts = joined_facts([piece.facts for piece in pieces])
        image = joined([piece.image for piece in pieces])
        return Answer(image, joined(stds) if stds else None, self._report(facts))

    def _notes(self) -> list[str]:
        colours, prior = self.source.y.shape[1], self.solver.prior.name
        if len(self.solver.images(self.source)) == len(self.source.y):
            return []
        return [f"prior {prior!r} is over grey images: the {colours} colours are solved one by one"]

    def _report(self, facts: dict[str, Any]) -> dict[str, Any]:
        source, solver = self.source, self.solver
        like, slices, said = source.like, facts.pop("slices"), facts.pop("said")
        report = {
            "iasolve": iasolve.__version__,
            **solver.identity,
            "choice": source.choice,
            "input": {
                "name": like.path.name,
                "sha256": input_hash(like.path),
                "type": str(like.dtype if solver.task.solve is None else source.y.dtype),
                "slice_axis": like.slice_axis,
            },
            "operator": source.facts | ({"slices": slices} if slices else {}),
            "device": solver.device,
            "shape": list(like.pixels.shape),
            "sigma_estimated": solver.settings.sigma is None,
            # per image: pages, then colours
            **facts,
            "warnings": source.notes + self._notes() + said,
        }
        found: dict[str, Any] = plain(report, 7)
        return found


def write(work: Work, answer: Answer, outputs: Outputs) -> dict[str, Any]:
    """Write everything that belongs to a result; the sidecar last, as the sign that the rest is complete.

    Returns
    -------
    dict
        The report as written.

    Raises
    ------
    WriteError
    """
    solver, like = work.solver, work.source.like
    complex_result = np.iscomplexobj(answer.image) and not like.is_complex
    note = (
        f"iasolve {iasolve.__version__} {solver.task.command}, prior {solver.prior.name}, recipe "
        f"{answer.report['recipe']['name']}, seed {solver.settings.seed}; not for clinical use"
    )
    with write_together():
        write_image(outputs.image, answer.image, like, dtype=np.complex64 if complex_result else None, note=note)
        if outputs.std is not None:
            assert answer.std is not None
            write_image(outputs.std, answer.std, like, dtype=std_type(like))
        if outputs.figure is not None:
            from iasolve.cli.figures import draw_result

            estimated = " (estimated)" if answer.report["sigma_estimated"] else ""
            title = f"{solver.task.command} {like.path.name}: sigma {spread(answer.report['sigma'])}{estimated}"
            draw_result(outputs.figure, like.pixels, answer.image, answer.std, title)
        report = {
            **answer.report,
            "output": outputs.image.name,
            "std": None if outputs.std is None else outputs.std.name,
            "figure": None if outputs.figure is None else outputs.figure.name,
            "not_kept": like.lost_in(suffix_of(outputs.image)),
            "sha256": hashes_of_outputs(outputs),
        }
        if answer.pieces is not None:
            answer.pieces.close(report["sha256"])
        write_json(outputs.sidecar, report)
    if answer.pieces is not None:
        answer.pieces.remove()
    return report
