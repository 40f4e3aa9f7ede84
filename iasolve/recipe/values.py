"""Values of recipe keys: checked by name, and written as TOML."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

__all__ = ["RecipeError", "is_scale", "one_of", "per_scale", "positive", "registered", "shown", "to_toml", "whole"]


class RecipeError(ValueError):
    """A recipe that is missing, not TOML, has an unknown key or an impossible value.

    Examples
    --------
    >>> from iasolve.recipe import Recipe
    >>> Recipe(views=0)
    Traceback (most recent call last):
    iasolve.recipe.values.RecipeError: recipe key 'views' must be a whole number of at least 1, got 0
    """


def one_of(key: str, value: object, allowed: tuple[str, ...], more: str = "") -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise RecipeError(f"recipe key {key!r} must be one of {', '.join(allowed)}{more}; got {shown(value)}")


def registered(key: str, value: object, ready: tuple[str, ...], table: str) -> None:
    """Refuse a name that is neither among the ``ready`` ones nor in a ``table``, ``module:NAME``, that may have more.

    The table is looked up by name, and only for a name that is not ready: its module imports torch.
    """
    if value not in ready:
        module, name = table.split(":")
        one_of(key, value, tuple(getattr(import_module(module), name)))


MOST = 1_000_000
"""Of views, passes, steps or samples: more is a slip, which would fill the memory or never end."""


def whole(key: str, value: object, least: int) -> None:
    """Refuse what is not a whole number of at least ``least`` and at most ``MOST``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RecipeError(f"recipe key {key!r} must be a whole number of at least {least}, got {shown(value)}")
    if value > MOST:
        raise RecipeError(f"recipe key {key!r} must be at most {MOST}, got {shown(value)}")


def positive(group: object, name: str, key: str) -> None:
    """Refuse a group's value that is not a positive number; store it as a float."""
    value = getattr(group, key)
    if not finite(value) or value <= 0:
        raise RecipeError(f"recipe key '{name}.{key}' must be a positive number, got {shown(value)}")
    object.__setattr__(group, key, float(value))


def per_scale(key: str, value: object, kind: type) -> Any:
    """A number, or a table of scale to number, of a kind; at least 0."""
    if not isinstance(value, Mapping):
        return number(key, value, kind)
    out = {}
    for scale, entry in value.items():
        try:
            as_scale = int(scale)
        except (TypeError, ValueError):
            as_scale = 0
        if not is_scale(as_scale):
            raise RecipeError(f"recipe key {key!r} names {scale!r}, which is no scale (1, 2, 4, ..)")
        out[as_scale] = number(f"{key}.{scale}", entry, kind)
    return dict(sorted(out.items()))


def is_scale(value: object) -> bool:
    """Whether a value is a power of two."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and value & (value - 1) == 0


def finite(value: object) -> bool:
    """Whether a value is a number that a float can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def shown(value: object) -> str:
    """A value for a message; a number of thousands of digits would not print."""
    return repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number beyond all use"


def number(key: str, value: object, kind: type) -> int | float:
    """A finite number of at least 0, of a kind."""
    if not finite(value) or not isinstance(value, (int, float)) or value < 0:
        raise RecipeError(f"recipe key {key!r} must be a finite number of at least 0, got {shown(value)}")
    if kind is int and not float(value).is_integer():
        raise RecipeError(f"recipe key {key!r} must be a whole number, got {value!r}")
    if kind is int:
        whole(key, int(value), 0)
    return kind(value)


def to_toml(data: Mapping[str, Any], table: str = "") -> str:
    """TOML text of nested tables of numbers, strings and truth values."""
    lines = [f"{key} = {toml_value(value)}" for key, value in data.items() if not isinstance(value, Mapping)]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in data.items():
        if isinstance(value, Mapping):
            name = f"{table}{key}"
            text += f"\n[{name}]\n" + to_toml(value, f"{name}.")
    return text


def toml_value(value: object) -> str:
    """A number, string or truth value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        escaped = "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped)
        return f'"{escaped}"'
    return repr(value)
