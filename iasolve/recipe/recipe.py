"""A recipe as a whole: groups of keys, the ready ones, and recipes in files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from iasolve.files import read_text
from iasolve.recipe.groups import Closing, Guess, Passes, Steps
from iasolve.recipe.values import RecipeError, shown, to_toml, whole

if TYPE_CHECKING:
    from iasolve.operators import LinearOperator

__all__ = ["Recipe", "list_recipes", "load_recipe", "recipe_text"]

MOST_VIEWS = 25
"""The shifts there are (:mod:`iasolve.inference.passes`)."""


@dataclass(frozen=True)
class Recipe:
    """Where the guess ends, how many steps each scale gets, and how strongly the measurement guides.

    ``Recipe()`` is the ready recipe ``denoise``. Groups may be given as dicts: ``Recipe(steps={"count": 5})``.

    Attributes
    ----------
    name : str
        For reports; ``"custom"`` where none is given.
    views : int
        Solutions of the problem for moved images, at most 25, whose mean is the estimate; each costs as much again.
        One with a prior whose training images were not moved.
    samples : int
        Posterior samples drawn for error bars.
    guess : Guess
    passes : Passes
    steps : Steps
    closing : Closing

    Examples
    --------
    >>> Recipe().name
    'denoise'
    >>> recipe = Recipe(views=1, passes={"count": 8}, steps={"count": 10, "beta": 0.5})
    >>> recipe.name, recipe.passes.count, recipe.takes_steps
    ('custom', 8, True)
    >>> Recipe.from_toml(recipe.to_toml()) == recipe
    True
    """

    name: str | None = None
    views: int = 4
    samples: int = 0
    guess: Guess = field(default_factory=Guess)
    passes: Passes = field(default_factory=Passes)
    steps: Steps = field(default_factory=Steps)
    closing: Closing = field(default_factory=Closing)

    def __post_init__(self) -> None:
        for key, kind in _GROUPS.items():
            object.__setattr__(self, key, _group(key, kind, getattr(self, key)))
        whole("views", self.views, 1)
        whole("samples", self.samples, 0)
        if self.views > MOST_VIEWS:
            raise RecipeError(f"recipe key 'views' must be at most {MOST_VIEWS} (shifts), got {self.views}")
        if self.passes.count and not self.reads:
            raise RecipeError(
                f"recipe key 'passes.count' is {self.passes.count}, and 'guess.stop' is 'none': passes need the "
                "encoder. Set 'passes.count' to 0, or 'guess.stop' to 'all'"
            )
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise RecipeError(f"recipe key 'name' must be a non-empty string, got {self.name!r}")
        if self.name is None:
            plain = all(getattr(self, f.name) == _default(f) for f in fields(self) if f.name != "name")
            object.__setattr__(self, "name", "denoise" if plain else "custom")

    @property
    def reads(self) -> bool:
        """Whether the encoder is used."""
        return self.guess.stop != "none"

    @property
    def takes_steps(self) -> bool:
        """Whether any scale is refined."""
        return self.steps.most > 0

    @property
    def adapts(self) -> bool:
        """Whether what the decoder leaves unexplained is estimated anew, image by image."""
        return self.closing.error != "stationary"

    def check_scales(self, scales: tuple[int, ...]) -> None:
        """Refuse scales that a prior does not have.

        Raises
        ------
        RecipeError
            Naming the key and the prior's scales.
        """
        tables = (("steps.count", self.steps.count), ("steps.beta", self.steps.beta))
        named = [(key, scale) for key, value in tables if isinstance(value, Mapping) for scale in value]
        if isinstance(self.guess.stop, int):
            named.append(("guess.stop", self.guess.stop))
        for key, scale in named:
            if scale not in scales:
                raise RecipeError(f"recipe key {key!r} names scale {scale}; the prior's scales are {scales}")

    def changed(self, **changes: Any) -> Recipe:
        """A copy with some keys changed and checked again; of a group, a dict of its keys that change.

        >>> Recipe().changed(views=1, steps={"count": 10, "beta": 0.5}).steps.count
        10
        """
        _refuse_unknown(changes, "")
        merged: dict[str, Any] = {}
        for key, value in changes.items():
            group = key in _GROUPS and isinstance(value, Mapping)
            merged[key] = _group(key, _GROUPS[key], value, getattr(self, key)) if group else value
        return replace(self, **merged)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with string keys, for JSON and TOML."""

        def plain(value: Any) -> Any:
            return {str(k): plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value

        return {key: plain(value) for key, value in asdict(self).items()}

    def to_toml(self) -> str:
        """TOML text that :meth:`from_toml` reads back to an equal recipe."""
        return to_toml(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """From plain data.

        Raises
        ------
        RecipeError
            For an unknown key or an impossible value, by name; for a recipe of an older form with its new form.
        """
        from iasolve.recipe.old import refuse_old

        refuse_old(data)
        _refuse_unknown(data, "")
        return cls(**data)

    @classmethod
    def from_toml(cls, text: str) -> Recipe:
        """From TOML text; raises RecipeError as :meth:`from_dict`, and for text that is not TOML."""
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"the recipe is not valid TOML: {error}") from None
        return cls.from_dict(data)

    @classmethod
    def for_operator(cls, operator: LinearOperator) -> Recipe:
        """The ready recipe made for an operator: ``denoise``, ``deblur`` or ``compressed-sensing``.

        By what the operator leaves of an image: see :func:`iasolve.operators.kinds.kind_of`.
        """
        from iasolve.operators.kinds import kind_of

        ready = {"complete": "denoise", "blurred": "deblur", "incomplete": "compressed-sensing"}
        return load_recipe(ready[kind_of(operator)])


_GROUPS: dict[str, Any] = {"guess": Guess, "passes": Passes, "steps": Steps, "closing": Closing}

G = TypeVar("G")


def _default(entry: Any) -> Any:
    return _GROUPS[entry.name]() if entry.name in _GROUPS else entry.default


def _group(key: str, kind: type[G], value: Any, base: G | None = None) -> G:
    """A group from a dict of its keys, on top of ``base``."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        names = ", ".join(f.name for f in fields(kind))  # type: ignore[arg-type]
        raise RecipeError(f"recipe key {key!r} must be a table with some of {names}, got {shown(value)}")
    _refuse_unknown(value, f"{key}.")
    return kind(**value) if base is None else replace(base, **value)  # type: ignore[type-var]


def _refuse_unknown(data: Mapping[str, Any], prefix: str) -> None:
    kind = _GROUPS[prefix[:-1]] if prefix else Recipe
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(map(str, data)) - known)
    if unknown:
        names = ", ".join(prefix + name for name in unknown)
        raise RecipeError(f"unknown recipe key(s): {names}; known keys: {', '.join(prefix + k for k in sorted(known))}")


def list_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with iasolve.

    Examples
    --------
    >>> list_recipes()
    ('compressed-sensing', 'deblur', 'denoise', 'fast')
    """
    folder = resources.files("iasolve.recipes")
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def recipe_text(name: str) -> str:
    """The TOML text, comments included, of a ready recipe.

    Parameters
    ----------
    name : str
        One of :func:`iasolve.list_recipes`.

    Returns
    -------
    str

    Raises
    ------
    RecipeError
        When there is none of that name.

    Examples
    --------
    >>> from iasolve.recipe import recipe_text
    >>> print(recipe_text("fast").splitlines()[2])
    name = "fast"
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

    Examples
    --------
    >>> load_recipe("denoise") == Recipe()
    True
    >>> load_recipe("compressed-sensing").changed(views=1).views
    1
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, str) and not source.endswith(".toml"):
        return Recipe.from_toml(recipe_text(source))
    try:
        text = read_text(source)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe file {source} cannot be read: {error}") from None
    try:
        return Recipe.from_toml(text)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
