"""Tables of configurations and cards: the types and ranges of their values, and errors that say where and what.

A table is a frozen dataclass of pydantic below :func:`table`: text is no number, a number no flag, NaN and infinities
are refused, and unknown keys are refused by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

__all__ = [
    "FORBID",
    "Amount",
    "Count",
    "FileName",
    "Flag",
    "Number",
    "Positive",
    "Range",
    "Share",
    "Text",
    "Whole",
    "as_table",
    "described",
    "ordered",
    "table",
]

FORBID = ConfigDict(extra="forbid")

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Whole = Annotated[int, Field(strict=True, ge=0)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True)]


def ordered(value: tuple[float, float]) -> tuple[float, float]:
    """``(low, high)`` with ``low <= high``, or a :class:`ValueError`."""
    if value[0] > value[1]:
        raise ValueError("should be [low, high] with low <= high")
    return value


def _file_name(value: str) -> str:
    if not re.fullmatch(r"\w[\w.+ -]{0,199}", value):
        raise ValueError("should begin a file's name: letters, digits, _ . + - and spaces, no / or \\")
    return value


FileName = Annotated[Text, AfterValidator(_file_name)]
"""It holds no separators, so that it cannot leave the output folder."""

Range = Annotated[tuple[Positive, Positive], AfterValidator(ordered)]
"""``[low, high]``, both above 0."""

T = TypeVar("T")


def table(where: str) -> Callable[[type[T]], type[T]]:
    """Class decorator above pydantic's ``dataclass``: what is wrong is said with ``where`` before the key.

    The class then raises a plain :class:`ValueError`, whether it is made from keywords or by ``replace``.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = cls
        init = made.__init__

        @functools.wraps(init)
        def checked(self: T, *args: Any, **values: Any) -> None:
            try:
                init(self, *args, **values)
            except ValidationError as error:
                raise ValueError(described(error, where, [f.name for f in fields(made)])) from None

        made.__init__ = checked
        return cls

    return decorate


def as_table(value: object, where: str, leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """``value`` as keyword arguments.

    Raises
    ------
    ValueError
        When it is no table, or has a key of ``leave``, which is no user's.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} must be a table of keys and values, got {_short(value)}")
    own = sorted(set(leave) & set(value))
    if own:
        raise ValueError(f"unknown key(s) in [{where}]: {', '.join(own)}")
    return {str(key): item for key, item in value.items()}


def described(error: ValidationError, where: str, known: list[str]) -> str:
    """What pydantic found wrong, in one line."""
    unknown, texts = [], []
    for entry in error.errors(include_url=False):
        places, kind, message = [str(p) for p in entry["loc"]], entry["type"], entry["msg"]
        if kind in ("unexpected_keyword_argument", "extra_forbidden"):
            unknown.append(places[-1])
        elif kind.startswith("missing"):
            texts.append(f"{'.'.join((where, *places))} is missing")
        elif kind == "value_error" and not places:
            texts.append(message.removeprefix("Value error, "))
        else:
            # positional arguments are numbered
            if places and places[0].isdigit() and int(places[0]) < len(known):
                places[0] = known[int(places[0])]
            text = message.removeprefix("Value error, ").removeprefix("Input ")
            texts.append(f"{'.'.join((where, *places))} {text}, got {_short(entry['input'])}")
    if unknown:
        texts.insert(0, f"unknown key(s) in [{where}]: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return "; ".join(texts)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
