"""Every public name of the reference exists, and its example runs."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "api.rst"

WITHOUT = {
    # what a function returns, what it raises or warns of, and what a class must answer: seen in the functions' examples
    *("Result", "Reconstruction", "Options", "Status", "OperatorReport", "Samples", "RawSample"),
    *("TotalVariationResult", "TotalVariationSense", "ImageFile", "KSpaceFile", "MeasurementFile"),
    *("UnlikePriorWarning", "NonFiniteError", "PriorError", "RecipeError", "FileError"),
    *("Prior", "HVAEPrior", "ReaderPrior", "NoiseModel"),
    # need another library: tests/operators/test_adapters.py runs them
    *("from_sigpy", "from_deepinv"),
    # not yet
    *("solve", "Recipe", "load_recipe", "list_recipes", "total_variation_sense", "RidgeFromBins", "write_image"),
}


def public():
    """Modules and names that the reference lists."""
    module = ""
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if said := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = said.group(1)
        elif said := re.fullmatch(r" {3}([A-Za-z]\w*)", line):
            yield module, said.group(1)


@pytest.mark.parametrize(("module", "name"), list(public()))
def test_examples_run(module, name):
    value = getattr(importlib.import_module(module), name)
    home = importlib.import_module(value.__module__)
    tests = doctest.DocTestFinder(recurse=False).find(value, name, globs=vars(home).copy())
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
    assert (runner.tries > 0) != (name in WITHOUT)


def test_the_reference_lists_what_the_package_exports():
    listed = set(public())
    for module in ("iasolve", "iasolve.operators", "iasolve.metrics", "iasolve.samples", "iasolve.report"):
        names = set(importlib.import_module(module).__all__) - {"__version__", "operators"}
        assert {name for name in names if (module, name) not in listed} == set(), module
