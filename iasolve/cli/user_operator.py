"""An operator that the command line names: ``module:factory``, ``FILE.py:factory``, or the name of a known one."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import reduce
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from iasolve.cli.errors import UNEXPECTED, UnfitInput, UsageError, describe, reason_of
from iasolve.cli.operator_args import arrays_in, fill, read_arguments

if TYPE_CHECKING:
    from iasolve.operators import LinearOperator, OperatorReport

__all__ = ["UserOperator", "aside"]


class UserOperator:
    """Where an operator comes from; nothing is imported before :meth:`build`.

    Parameters
    ----------
    name : str
        ``module:factory``, ``FILE.py:factory``, or one of :func:`iasolve.operators.registry.list_operators`.
    file : Path or None
        TOML file with the factory's keyword arguments.

    Attributes
    ----------
    arguments : dict
        As they are written in the file.

    Raises
    ------
    UsageError, UnfitInput
        For a name that cannot be one, or a file that cannot be read.
    """

    def __init__(self, name: str, file: Path | None) -> None:
        module, colon, factory = name.rpartition(":")
        if not name.strip() or (colon and not (module and factory)):
            raise UsageError(f"operator {name!r}: expected module:factory, FILE.py:factory or an operator's name")
        self.name = name
        self.arguments = read_arguments(file)
        self._file, self._module, self._factory = file, module, factory

    def build(self) -> LinearOperator:
        """Import the factory and call it.

        Raises
        ------
        UsageError, UnfitInput, FileError
            Saying what failed, and where in the user's code.
        """
        from iasolve.operators import LinearOperator

        factory = self._find()
        if isinstance(factory, LinearOperator):
            if self.arguments:
                raise UsageError(
                    f"{self.name} is an operator, not a factory: it takes no arguments; leave the file out"
                )
            return factory
        if not callable(factory):
            raise UnfitInput(
                f"{self.name}: of type {type(factory).__name__}. Expected a function or class that returns a "
                "LinearOperator"
            )
        given = fill(self.arguments, Path() if self._file is None else self._file.parent)
        self._require_fit(factory, given)
        with self._blamed("calling it"):
            made = factory(**given)
        if not isinstance(made, LinearOperator):
            raise UnfitInput(
                f"{self.name}: calling it gave {type(made).__name__}. Expected a LinearOperator. Return one: "
                "LinearOperator.from_functions makes it of functions, from_scipy of a matrix"
            )
        return made

    def files(self) -> dict[str, Path]:
        """The files that the operator is made of, by what names them; complete once it is built.

        The factory's own source, what it imported from the same folder, the arguments, and the arrays they name.
        Libraries are not among them.
        """
        found = {} if self._file is None else {"--operator-args": self._file}
        folder = Path() if self._file is None else self._file.parent
        found |= {f"--operator-args, array {name!r}": folder / name for name in arrays_in(self.arguments)}
        root = (Path(self._module).parent if self._module.endswith(".py") else Path()).resolve()
        for name, module in list(sys.modules.items()):
            source = Path(getattr(module, "__file__", None) or "")
            # the script that runs, which workers load too, is not what the operator imported
            if source.suffix != ".py" or name in ("__main__", "__mp_main__"):
                continue
            installed = "site-packages" in source.parts or any(
                source.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix)
            )
            # a checkout of this package is no user's code: its version stands in the report
            own = source.is_relative_to(root) and not installed and name.partition(".")[0] != "iasolve"
            if name == self._module or own:
                place = source.relative_to(root) if own else source.name
                found[f"--operator, {place}"] = source
        return found

    def check(self, operator: LinearOperator, seed: int, tolerance: float | None = None) -> OperatorReport:
        """:func:`iasolve.operators.check_operator`, with what the operator prints kept off stdout."""
        from iasolve.operators import check_operator

        with self._blamed("checking it"):
            return check_operator(operator, seed, tolerance=tolerance)

    @contextmanager
    def solving(self, checked: bool) -> Iterator[None]:
        """What the operator raises, or what comes of results that nobody checked, as an error that says where.

        Raises
        ------
        UnfitInput
        """
        try:
            with aside():
                yield
        except (UnfitInput, MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit among them: it would end the program as if all were well
            own = {str(path) for path in self.files().values()}
            its = any(frame.f_code.co_filename in own for frame, _ in traceback.walk_tb(error.__traceback__))
            if its or not (checked or describe(error)[0] != UNEXPECTED):
                hint = "" if checked else "; 'iasolve check-operator' tells what is wrong with it"
                raise UnfitInput(self._raised("solving with it", error) + hint) from error
            raise

    def require_right(self, operator: LinearOperator) -> None:
        """Refuse an operator that fails the check.

        Raises
        ------
        UnfitInput
        """
        report = self.check(operator, seed=0)
        if not report.ok:
            raise UnfitInput(
                f"{self.wrong(report)}. Correct it ('iasolve check-operator' prints the whole check); --no-check "
                "solves with it all the same"
            )

    def wrong(self, report: OperatorReport) -> str:
        """What is wrong with an operator: the first failure, and how many more there are."""
        first, more = " ".join(report.failures[0].split())[:300], len(report.failures) - 1
        return f"{self.name}: a wrong operator: {first}" + (f", and {more} more" if more else "")

    def _find(self) -> Any:
        if not self._module:
            return self._known()
        in_file = self._module.endswith(".py")
        with self._blamed("importing it"):
            module = _from_file(Path(self._module)) if in_file else _from_path(self._module)
        try:
            return reduce(getattr, self._factory.split("."), module)
        except AttributeError:
            defined = [name for name, value in vars(module).items() if _is_candidate(name, value, module)]
            raise UnfitInput(
                f"{self.name}: {self._module} has no {self._factory!r}. Expected one of what it defines "
                f"({', '.join(defined) or 'nothing that can be called'}). Check the spelling"
            ) from None

    def _known(self) -> Callable[..., Any]:
        from iasolve.operators.registry import find_operator
        from iasolve.plugins import PluginError

        try:
            with aside():
                return find_operator(self.name)
        except LookupError as error:
            raise UsageError(f"{error.args[0]}; one of your own is module:factory or FILE.py:factory") from None
        except PluginError as error:
            raise UnfitInput(f"the operator {error}. Repair or uninstall the package") from error

    def _require_fit(self, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
        """Tell arguments that do not fit from what fails inside the factory."""
        try:
            signature = inspect.signature(factory)
        except (TypeError, ValueError):  # not every callable has one
            return
        try:
            signature.bind(**given)
        except TypeError as error:
            # without annotations, which may be long
            wanted = ", ".join(str(p.replace(annotation=p.empty)) for p in signature.parameters.values())
            where = "give a TOML file with them" if self._file is None else f"correct {self._file}"
            raise UnfitInput(f"{self.name}: {error}. Expected the arguments ({wanted}): {where}") from None

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        """Whatever the user's code raises, as an error that says where."""
        try:
            with aside():
                yield
        except (UnfitInput, MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise UnfitInput(self._raised(what, error)) from error

    def _raised(self, what: str, error: BaseException) -> str:
        reason = reason_of(error)[:300]
        return (
            f"{self.name}: {what} raised {type(error).__name__}: {reason}{_place(error)}. Correct it; --debug shows "
            "where it comes from"
        )


def _place(error: BaseException) -> str:
    """The last line of the user's own code that an error passed."""
    libraries = {"iasolve", "importlib", "torch", "numpy", "scipy"}
    lines = [
        f" ({frame.f_code.co_filename}, line {line})"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in libraries
    ]
    return lines[-1] if lines else ""


@contextmanager
def aside() -> Iterator[None]:
    """Send what others print to stderr: stdout is for the report."""
    with redirect_stdout(sys.stderr):
        yield


def _from_path(name: str) -> ModuleType:
    _look_in(Path.cwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # one that the module itself imports
        raise UnfitInput(
            f"no module {error.name!r}. Expected one that is installed, or in the current folder ({Path.cwd()}). Check "
            "the spelling, or name the file, as in my_operator.py:factory"
        ) from None


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnfitInput(f"{path}: no such file. Expected a Python file. Check the path")
    _look_in(path.resolve().parent)
    # a name that no library has: math.py may well be the name of a user's file
    name = f"_iasolve_file_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None, "the suffix is .py"
    assert spec.loader is not None
    module = module_from_spec(spec)
    module.__file__ = str(path.resolve())
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in(folder: Path) -> None:
    """Let modules in this folder be imported, now and later; last, so that none hides a library."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _is_candidate(name: str, value: object, module: ModuleType) -> bool:
    return not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
