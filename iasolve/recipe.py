"""Recipes: how a problem is solved, as frozen data that round-trips through TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["Recipe", "RecipeError", "list_recipes", "load_recipe"]

_CHOICES = {
    "mode": ("hybrid", "amortized", "iterative"),
    "objective": ("variational", "map", "expected"),
    "schedule": ("joint", "sequential", "whole"),
    "optimizer": ("adam", "gradient", "lbfgs"),
    "metric": ("posterior", "raw"),
    "variables": ("latents", "offsets"),
    "loss": ("likelihood", "l1"),
    "residual": ("stationary", "local"),
}


class RecipeError(ValueError):
    """A recipe that is missing, not TOML, has an unknown key or an impossible value."""


@dataclass(frozen=True)
class Recipe:
    """Where the guess ends, how many steps each scale gets, and how strongly the measurement guides.

    Attributes
    ----------
    name : str
        For reports.
    mode : {"hybrid", "amortized", "iterative"}
        Start from the encoder's guess and refine it; the guess alone; start from the prior, without encoder.
    guess_stop : "all", "auto" or int
        Finest scale that the guess covers. ``"auto"``: the finest ring in which the data say more than the
        prior in at least one bin. Finer scales take the prior's mean (or a sample) and are not refined.
    steps : int or dict of scale to int
        Refinement steps of each scale; a scale that a dict does not name gets none.
    beta : float or dict of scale to float
        Guidance strength: weight of the data term; 1 is the likelihood's exact weight.
    objective : {"variational", "map", "expected"}
        Refine the posterior's mean under its spread (the ELBO of the measurement), a point by its log posterior, or a
        point by the log prior's expectation over the posterior's width.
    schedule : {"joint", "sequential", "whole"}
        All latents of a scale at once, or one after the other (the paper's loop), scale after scale, each by its own
        contribution; or all latents of all scales at once, by the whole image. A step of every scale costs as many
        layer evaluations either way, but with ``"whole"`` a latent answers for finer scales too.
    optimizer : {"adam", "gradient", "lbfgs"}
        Adam, plain gradient steps, or quasi-Newton steps, each image with its own curvature
        (:mod:`iasolve.inference.lbfgs`; not for ``variational``, whose draws change from step to step).
    variables : {"latents", "offsets"}
        What steps move: the latents, or what they lie off their posteriors in the context at hand, so that finer
        latents follow where coarser ones go (:mod:`iasolve.inference.whole`). A step then evaluates the posteriors too
        and costs 1.4 times as much, and a few do what takes many of the latents. With ``schedule = "whole"`` and
        ``metric = "posterior"`` only.
    step_size : float
        In units of ``metric``; decays to a tenth over the steps. Of ``lbfgs``, the root mean square of the first step.
    metric : {"posterior", "raw"}
        Step in units of the posterior's standard deviation (a gradient step then in its square), or raw.
    loss : {"likelihood", "l1"}
        Gaussian likelihood, or the paper's sum of absolute real and imaginary parts over the ring.
    temperature : float
        0 takes means of latents, 1 samples them, for the estimate itself.
    trust : float
        Largest distance from the guess, in posterior standard deviations; 0 means no limit.
    closing : bool
        End with the posterior mean of the image given latents and measurement.
    adaptive : bool
        Close with more trust in the measurement where its residual shows more detail than the decoder makes, as in
        images unlike the training data. Diagonal operators only.
    residual : {"stationary", "local"}
        What closing takes the decoder's error for: the same everywhere in the image, or larger where the decoded
        image is brighter (:mod:`iasolve.inference.local`; a few dozen applications of the operator).
    samples : int
        Posterior samples drawn for error bars.
    passes : int
        Further readings of the measurement by the encoder after the first (see :mod:`iasolve.inference.guess`).
    coupling_start, coupling_end : float
        Noise level, in units of the image's root mean square, at which the first and the last pass read; the
        levels between fall in equal ratios.
    momentum : float
        How far a pass's start lies beyond the last outcome, in units of the last change; below 1.
    spin : bool
        Each pass but the last reads the image moved by a pixel or two (:mod:`iasolve.inference.views`), where the
        prior's training images were moved too (its card says so).
    views : int
        Solutions of the problem for moved images, at most 25, whose mean is the estimate; each costs as much again.
        One with a prior whose training images were not moved.
    refined_views : int
        How many of the views take the steps, the others stopping at the guess; 0, or as many as there are: all. A guess
        and a refined solution err in part differently: where steps alone gain little, the mean of both is better than
        either. All with ``mode = "iterative"``, which has no guess to stop at.
    nonnegative : bool
        Use that images hold no negative value, where the prior's do not (its card says so).
    iterations : int
        Conjugate-gradient iterations a step, for operators that are not diagonal in Fourier space. With 8 the gradient
        is off by less than 1 %, and ten steps end 0.02 dB below those with 20, with 6 0.1 dB, with 3 0.4 dB
        (benchmarks/results/general_path.md: 8 coils, 4x, 8 validation slices).
    tolerance : float
        Their other solves end when an iteration lowers the exponent by less than this many nats per pixel; see
        :mod:`iasolve.inference.conjugate`.
    """

    name: str = "custom"
    mode: str = "hybrid"
    guess_stop: str | int = "all"
    steps: int | Mapping[int, int] = 25
    beta: float | Mapping[int, float] = 1.0
    objective: str = "variational"
    schedule: str = "joint"
    optimizer: str = "adam"
    step_size: float = 0.03
    metric: str = "posterior"
    variables: str = "latents"
    loss: str = "likelihood"
    temperature: float = 0.0
    trust: float = 0.0
    closing: bool = True
    adaptive: bool = True
    residual: str = "stationary"
    samples: int = 0
    passes: int = 0
    coupling_start: float = 0.2
    coupling_end: float = 0.05
    momentum: float = 0.5
    spin: bool = False
    views: int = 1
    refined_views: int = 0
    nonnegative: bool = True
    iterations: int = 8
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        for key, allowed in _CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                raise RecipeError(f"recipe key {key!r} must be one of {', '.join(allowed)}; got {value!r}")
        if self.optimizer == "lbfgs" and self.objective == "variational":
            raise RecipeError(
                "recipe key 'optimizer' is 'lbfgs', which needs an objective without random draws: set 'objective' to "
                "'map' or 'expected', or 'optimizer' to 'adam'"
            )
        if self.variables == "offsets" and (self.schedule != "whole" or self.metric != "posterior"):
            raise RecipeError(
                "recipe key 'variables' is 'offsets', which needs schedule 'whole' and metric 'posterior'; got "
                f"{self.schedule!r} and {self.metric!r}; set 'variables' to 'latents' for those"
            )
        object.__setattr__(self, "steps", self._per_scale("steps", int))
        object.__setattr__(self, "beta", self._per_scale("beta", float))
        if isinstance(self.guess_stop, str):
            if self.guess_stop not in ("all", "auto"):
                raise RecipeError(f"recipe key 'guess_stop' must be 'all', 'auto' or a scale, got {self.guess_stop!r}")
        elif not _is_scale(self.guess_stop):
            raise RecipeError(f"recipe key 'guess_stop' must be a scale (1, 2, 4, ..), got {self.guess_stop!r}")
        for key, low in (
            ("step_size", 0.0),
            ("temperature", 0.0),
            ("trust", 0.0),
            ("coupling_start", 0.0),
            ("coupling_end", 0.0),
            ("momentum", 0.0),
            ("tolerance", 0.0),
        ):
            value = getattr(self, key)
            if not _finite(value) or value < low:
                raise RecipeError(f"recipe key {key!r} must be a number of at least {low:g}, got {_shown(value)}")
            object.__setattr__(self, key, float(value))
        for key in ("step_size", "coupling_start", "coupling_end"):
            if getattr(self, key) == 0:
                raise RecipeError(f"recipe key {key!r} must be positive, got 0")
        if self.momentum >= 1:
            raise RecipeError(f"recipe key 'momentum' must be below 1, got {self.momentum:g}")
        for key, floor in (("samples", 0), ("passes", 0), ("iterations", 1), ("views", 1), ("refined_views", 0)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < floor:
                raise RecipeError(f"recipe key {key!r} must be a whole number of at least {floor}, got {value!r}")
        if self.views > 25:
            raise RecipeError(f"recipe key 'views' must be at most 25, the shifts there are, got {self.views}")
        for key in ("closing", "adaptive", "nonnegative", "spin"):
            if not isinstance(getattr(self, key), bool):
                raise RecipeError(f"recipe key {key!r} must be true or false, got {getattr(self, key)!r}")
        if not isinstance(self.name, str) or not self.name:
            raise RecipeError(f"recipe key 'name' must be a non-empty string, got {self.name!r}")

    def _per_scale(self, key: str, kind: type) -> Any:
        value = getattr(self, key)
        if isinstance(value, Mapping):
            out = {}
            for scale, number in value.items():
                try:
                    as_scale = int(scale)
                except (TypeError, ValueError):
                    as_scale = 0
                if not _is_scale(as_scale):
                    raise RecipeError(f"recipe key {key!r} names {scale!r}, which is no scale (1, 2, 4, ..)")
                out[as_scale] = _number(f"{key}.{scale}", number, kind)
            return dict(sorted(out.items()))
        return _number(key, value, kind)

    def steps_at(self, scale: int) -> int:
        """Refinement steps of a scale."""
        if self.mode == "amortized":
            return 0
        return self.steps if isinstance(self.steps, int) else int(self.steps.get(scale, 0))

    @property
    def takes_steps(self) -> bool:
        """Whether any scale is refined."""
        named = self.steps.keys() if isinstance(self.steps, Mapping) else (1,)
        return any(self.steps_at(scale) for scale in named)

    @property
    def averages_prior(self) -> bool:
        """Whether the objective averages the log prior over the posterior's width."""
        return self.objective == "expected"

    def beta_at(self, scale: int) -> float:
        """Guidance strength of a scale; 1 for a scale that a table does not name."""
        return float(self.beta.get(scale, 1.0)) if isinstance(self.beta, Mapping) else float(self.beta)

    def check_scales(self, scales: tuple[int, ...]) -> None:
        """Refuse scales that a prior does not have.

        Raises
        ------
        RecipeError
            Naming the key and the prior's scales.
        """
        named: list[tuple[str, int]] = []
        for key in ("steps", "beta"):
            value = getattr(self, key)
            if isinstance(value, Mapping):
                named += [(key, s) for s in value]
        if isinstance(self.guess_stop, int):
            named.append(("guess_stop", self.guess_stop))
        for key, scale in named:
            if scale not in scales:
                raise RecipeError(f"recipe key {key!r} names scale {scale}; the prior's scales are {scales}")

    def changed(self, **changes: Any) -> Recipe:
        """A copy with some keys changed and checked again."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with string keys, for JSON and TOML."""
        out: dict[str, Any] = {}
        for key, value in asdict(self).items():
            out[key] = {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else value
        return out

    def to_toml(self) -> str:
        """TOML text that :meth:`from_toml` reads back to an equal recipe."""
        lines, tables = [], []
        for key, value in self.to_dict().items():
            if isinstance(value, dict):
                tables.append(f"\n[{key}]")
                tables += [f"{k} = {_toml(v)}" for k, v in value.items()]
            else:
                lines.append(f"{key} = {_toml(value)}")
        return "\n".join(lines + tables) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """From plain data.

        Raises
        ------
        RecipeError
            For an unknown key or an impossible value, by name.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(map(str, data)) - known)
        if unknown:
            raise RecipeError(f"unknown recipe key(s): {', '.join(unknown)}; known keys: {', '.join(sorted(known))}")
        return cls(**data)

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """From TOML text; raises RecipeError as :meth:`from_dict`, and for text that is not TOML."""
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"the recipe is not valid TOML: {error}") from None
        return cls.from_dict(data)


def _is_scale(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and value & (value - 1) == 0


def _finite(value: object) -> bool:
    """Whether a value is a number that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _shown(value: object) -> str:
    """A value for a message; a number of thousands of digits would not print."""
    return repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number beyond all use"


def _number(key: str, value: object, kind: type) -> int | float:
    if not _finite(value) or not isinstance(value, (int, float)) or value < 0:
        raise RecipeError(f"recipe key {key!r} must be a finite number of at least 0, got {_shown(value)}")
    if kind is int and not float(value).is_integer():
        raise RecipeError(f"recipe key {key!r} must be a whole number, got {value!r}")
    return int(value) if kind is int else float(value)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        escaped = "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped)
        return f'"{escaped}"'
    return repr(value)


def list_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with iasolve."""
    folder = resources.files("iasolve.recipes")
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def recipe_text(name: str) -> str:
    """The TOML text, comments included, of a ready recipe.

    Raises
    ------
    RecipeError
        When there is none of that name.
    """
    if name not in list_recipes():
        raise RecipeError(
            f"no recipe {name!r}; the ready ones are {', '.join(list_recipes())}; a file must end in .toml"
        )
    return (resources.files("iasolve.recipes") / f"{name}.toml").read_text(encoding="utf-8")


def load_recipe(source: str | Path | Recipe) -> Recipe:
    """A recipe by name, from a ``.toml`` file, or as it is.

    Raises
    ------
    RecipeError
        When it does not exist or is not a recipe.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, str) and not source.endswith(".toml"):
        return Recipe.from_toml(recipe_text(source))
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe file {source} cannot be read: {error}") from None
    try:
        return Recipe.from_toml(text)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
