"""Operators by name: the ones that come with iasolve, and those that other packages bring.

A package brings one by an entry point of the group ``iasolve.operators``: a callable, such as a class or a function,
that returns a :class:`LinearOperator`. In its ``pyproject.toml``::

    [project.entry-points."iasolve.operators"]
    cone-beam = "their_package.tomography:ConeBeam"
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from iasolve.operators.base import LinearOperator
from iasolve.plugins import PluginError, load, offered, package_of

__all__ = ["find_operator", "list_operators"]

Factory = Callable[..., LinearOperator]


def list_operators() -> tuple[str, ...]:
    """Names of the bundled operator classes, and of those that other packages bring; the latter are not loaded.

    Examples
    --------
    >>> "Radon" in list_operators()
    True
    """
    own = _bundled()
    return (*sorted(own), *offered("operator", own))


def find_operator(name: str) -> Factory:
    """The class or function that makes the operator of this name.

    Parameters
    ----------
    name : str
        One of :func:`list_operators`.

    Returns
    -------
    callable
        Returns a :class:`LinearOperator`.

    Raises
    ------
    LookupError
        When there is none of this name.
    PluginError
        When another package brings it, and it cannot be imported or called.

    Examples
    --------
    >>> find_operator("BlockAverage")(2, (1, 8, 8)).out_shape
    (1, 4, 4)
    """
    own = _bundled()
    others = offered("operator", own, name)
    if name in own:
        return own[name]
    if name in others:
        factory: Factory = load(others[name])
        if not callable(factory):
            raise PluginError(
                f"{name!r} of package {package_of(others[name])!r} is of type "
                f"{type(factory).__name__}, expected a callable that returns a LinearOperator"
            )
        return factory
    raise LookupError(f"no operator {name!r}: there are {', '.join(list_operators())}")


def _bundled() -> dict[str, Factory]:
    # imported here, since the package imports this module
    room = import_module("iasolve.operators")
    values = {name: getattr(room, name) for name in room.__all__}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, type) and issubclass(value, LinearOperator) and value is not LinearOperator
    }
