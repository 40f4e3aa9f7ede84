"""The solver of each measurement: with the prior that was named, or with the one that the measurement speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from iasolve.cli.errors import UnfitInput
from iasolve.cli.outputs import Outputs
from iasolve.cli.priors import blamed_on_prior
from iasolve.cli.settings import AUTO, Settings
from iasolve.cli.solver import Solver
from iasolve.cli.sources import Source
from iasolve.cli.task import Task
from iasolve.files import parse_json, read_text
from iasolve.priors import Prior, PriorError, load_fitting

__all__ = ["Solvers"]


class Solvers:
    """Solvers of one task, by prior.

    Parameters
    ----------
    task : Task
    settings : Settings

    Raises
    ------
    PriorError, DeviceError, UsageError, RecipeError
        When these do not go together.
    """

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task, self.settings = task, settings
        self._chosen = settings.prior == AUTO
        self._known: dict[str, Solver] = {}
        # what cannot work with any measurement is said before one is read
        self._of(self._names[0] if self._chosen else settings.prior)

    @cached_property
    def _names(self) -> list[str]:
        """Of the priors to choose from, those over grey images first."""
        kinds = ((1, False), (3, False), (1, True))
        with blamed_on_prior(AUTO):
            groups = [self.task.candidates()] if self.task.candidates else [load_fitting(*kind) for kind in kinds]
        names = [prior.name for group in groups for prior in group]
        if not names:
            raise PriorError("no priors are installed; train one: iasolve train --help")
        return names

    @property
    def grey(self) -> bool:
        """Whether results are real, with one channel, or with the colours solved one by one."""
        if self._chosen:
            return self.task.candidates is not None or not load_fitting(3, False)
        prior = self._of(self.settings.prior).prior
        return prior.channels == 1 and not prior.spectrum.is_complex

    def _of(self, name: str) -> Solver:
        if name not in self._known:
            among = tuple(self._names) if self._chosen else ()
            self._known[name] = Solver(self.task, replace(self.settings, prior=name, among=among))
        return self._known[name]

    def of(self, source: Source) -> Solver:
        """The solver for a measurement; what led to the choice of its prior is in ``source.choice`` then.

        Raises
        ------
        UnfitInput
            When there is no prior for it.
        """
        if not self._chosen:
            return self._of(self.settings.prior)
        priors: Sequence[Prior]
        channels, is_complex = self.task.kind(source)
        if self.task.candidates:
            priors = self.task.candidates()
        else:
            # colours without a prior of their own are solved one by one
            priors = load_fitting(channels, is_complex) or load_fitting(1, is_complex)
        if self.settings.own_recipe and self.settings.recipe.takes_steps:
            # who asks for steps does not want a reader alone, which takes none
            priors = [prior for prior in priors if prior.descends] or priors
        if not priors:
            raise UnfitInput(
                f"{source.like.path}: {channels} channel(s){', complex' if is_complex else ''}. Expected a prior over "
                "such images, and none is installed: name one with --prior"
            )
        name = priors[0].name
        if len(priors) > 1:
            choice = self._of(name).choose(source, priors)
            source.choice.update(choice.errors)
            name = choice.prior.name
        return self._of(name)

    def of_result(self, outputs: Outputs) -> Solver | None:
        """The solver that an earlier result has; None where its report names none that there is."""
        if not self._chosen:
            return self._of(self.settings.prior)
        try:
            name = parse_json(read_text(outputs.sidecar))["prior"]["name"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return self._of(name) if name in self._names else None
