"""The groups of a recipe's keys: guess, passes, steps and closing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iasolve.recipe.values import RecipeError, is_scale, one_of, per_scale, positive, registered, whole

__all__ = ["Closing", "Guess", "Passes", "Steps"]

OBJECTIVES, OPTIMIZERS = ("expected", "map", "variational"), ("lbfgs", "adam", "gradient")
"""Names that need no look at the tables of :mod:`iasolve.inference`, where others may be registered."""


@dataclass(frozen=True)
class Guess:
    """The first reading of the measurement.

    Attributes
    ----------
    stop : "all", "auto", "none" or int
        Finest scale that the guess covers. ``"auto"``: the finest ring in which the data say more than the
        prior in at least one bin. Finer scales take the prior's mean (or a sample) and are not refined. ``"none"``:
        no encoder at all; every latent starts from the prior and is refined (iterative inference).

    Examples
    --------
    >>> from iasolve import load_recipe
    >>> load_recipe("compressed-sensing").guess
    Guess(stop='all')
    """

    stop: str | int = "all"

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            one_of("guess.stop", self.stop, ("all", "auto", "none"), " or a scale")
        elif not is_scale(self.stop):
            raise RecipeError(f"recipe key 'guess.stop' must be a scale (1, 2, 4, ..), got {self.stop!r}")


@dataclass(frozen=True)
class Passes:
    """Further readings by the encoder, or by the prior's reader (:mod:`iasolve.inference.passes`).

    Attributes
    ----------
    count : int
    end : float
        Level of the white noise that the last pass takes its image to be in, over the root mean square of the prior's
        images. The first pass takes 0.2; the levels between fall in equal ratios. One pass takes ``end``.

    Examples
    --------
    >>> from iasolve import load_recipe
    >>> load_recipe("compressed-sensing").changed(passes={"count": 4}).passes.count
    4
    """

    count: int = 0
    end: float = 0.05

    def __post_init__(self) -> None:
        whole("passes.count", self.count, 0)
        positive(self, "passes", "end")


@dataclass(frozen=True)
class Steps:
    """Gradient steps (:mod:`iasolve.inference.refine`).

    Attributes
    ----------
    count : int or dict of scale to int
        Steps of each scale; a scale that a dict does not name gets none.
    beta : float or dict of scale to float
        Guidance strength: weight of the data term; 1 is the likelihood's exact weight, and that of a scale that a dict
        does not name.
    variables : {"offsets", "latents"}
        What steps move: the latents, or the offset of each latent from its posterior mean. With offsets the finer
        latents are recomputed whenever a coarser one moves. A step of offsets costs 1.4 times as much, and far fewer
        are needed.
    objective : {"expected", "map", "variational"}, or a key of ``iasolve.inference.objective.OBJECTIVES``
        A point by the log prior's expectation over the posterior's width, a point by its log posterior, or the
        posterior's mean under its spread (the ELBO of the measurement).
    optimizer : {"lbfgs", "adam", "gradient"}, or a key of ``iasolve.inference.optimizers.OPTIMIZERS``
        Quasi-Newton steps, each image with its own curvature (not for ``variational``, whose draws change from step to
        step), Adam, or plain gradient steps.
    size : float
        In standard deviations of the posterior; decays to a tenth over the steps. Of ``lbfgs``, the root mean square
        of the first step.
    blocks : {"whole", "scale", "latent"}
        What moves at once: all latents; those of one scale, scale after scale; or one latent after the other (the
        paper's loop).
    views : int
        How many of the recipe's views take steps, the others stopping at the guess; 0, or as many as there are: all.
        Errors of a guess and of a refined solution differ in part: where steps alone gain little, the mean of both is
        better than either.

    Examples
    --------
    >>> from iasolve import Recipe
    >>> Recipe().changed(steps={"count": {32: 5, 16: 10}}).steps.count  # five steps at scale 32, ten at 16
    {16: 10, 32: 5}
    """

    count: int | Mapping[int, int] = 0
    beta: float | Mapping[int, float] = 1.0
    variables: str = "offsets"
    objective: str = "expected"
    optimizer: str = "lbfgs"
    size: float = 0.1
    blocks: str = "whole"
    views: int = 2

    def __post_init__(self) -> None:
        one_of("steps.variables", self.variables, ("offsets", "latents"))
        registered("steps.objective", self.objective, OBJECTIVES, "iasolve.inference.objective:OBJECTIVES")
        registered("steps.optimizer", self.optimizer, OPTIMIZERS, "iasolve.inference.optimizers:OPTIMIZERS")
        one_of("steps.blocks", self.blocks, ("whole", "scale", "latent"))
        object.__setattr__(self, "count", per_scale("steps.count", self.count, int))
        object.__setattr__(self, "beta", per_scale("steps.beta", self.beta, float))
        positive(self, "steps", "size")
        whole("steps.views", self.views, 0)
        if self.optimizer == "lbfgs" and self.objective == "variational":
            raise RecipeError(
                "recipe key 'steps.optimizer' is 'lbfgs', which needs an objective without random draws: set "
                "'steps.objective' to 'map' or 'expected', or 'steps.optimizer' to 'adam'"
            )
        if self.variables == "offsets" and self.blocks != "whole":
            raise RecipeError(
                f"recipe key 'steps.variables' is 'offsets', which needs steps.blocks 'whole', got {self.blocks!r}: "
                "offsets move all later latents; set 'steps.variables' to 'latents' for those"
            )

    def at(self, scale: int) -> int:
        """Steps of a scale."""
        return self.count if isinstance(self.count, int) else int(self.count.get(scale, 0))

    def beta_at(self, scale: int) -> float:
        """Guidance strength of a scale."""
        return float(self.beta.get(scale, 1.0)) if isinstance(self.beta, Mapping) else float(self.beta)

    @property
    def most(self) -> int:
        """Steps of the scale that takes most."""
        return self.count if isinstance(self.count, int) else max(self.count.values(), default=0)


@dataclass(frozen=True)
class Closing:
    """How the solution joins the decoded image and the measurement (:mod:`iasolve.problem.closing`).

    Attributes
    ----------
    error : {"local", "stationary", "none"}
        What the decoder's error is taken for. ``"local"``: larger where the decoded image is brighter, and raised where
        the measurement shows more detail than the decoder makes, as of images unlike the training data (a few dozen
        applications of the operator). ``"stationary"``: the training set's, everywhere in the image. ``"none"``: the
        decoded image is the solution.

    Examples
    --------
    >>> from iasolve import load_recipe
    >>> load_recipe("fast").closing.error
    'local'
    """

    error: str = "local"

    def __post_init__(self) -> None:
        one_of("closing.error", self.error, ("local", "stationary", "none"))
