"""Every public name of the reference exists, and its example runs."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from libraries import library
from tiny import bundled

import iasolve

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "api.rst"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("[!_a]*/*.md")),
    *sorted((ROOT / "docs/tutorials").glob("*.py")),
]

LIBRARIES = {
    "from_sigpy": ("sigpy", "sigpy (pip install sigpy)"),
    "NonUniformFourier": ("finufft", "finufft (the extra nufft)"),
    "from_deepinv": ("deepinv", "deepinv and the torchvision that fits its torch"),
}
"""What an example needs beside iasolve."""

NOT_RUN = {"map"}
"""It starts worker processes: tests/cluster runs it."""


def public():
    """Modules and names that the reference lists."""
    module = ""
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if said := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = said.group(1)
        elif said := re.fullmatch(r" {3}([A-Za-z]\w*)", line):
            yield module, said.group(1)


@pytest.mark.parametrize(("module", "name"), list(public()))
@pytest.mark.slow
def test_examples_run(module, name, monkeypatch):
    if name in LIBRARIES:
        library(*LIBRARIES[name])
    value = getattr(importlib.import_module(module), name)
    home = importlib.import_module(value.__module__)
    if name != "load_prior":  # examples load what the ones before them have loaded
        monkeypatch.setattr(iasolve, "load_prior", bundled)
    tests = doctest.DocTestFinder().find(value, name, globs=vars(home).copy())
    examples = [example for test in tests for example in test.examples]
    skipped = [example for example in examples if doctest.SKIP in example.options]
    assert bool(skipped) == (name in NOT_RUN)
    # an example that shows nothing proves nothing
    assert name in NOT_RUN or any(example.want for example in examples)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0


WHOLE = (
    *("iasolve", "iasolve.operators", "iasolve.noise_level", "iasolve.recipe"),
    *("iasolve.metrics", "iasolve.classical", "iasolve.samples", "iasolve.report"),
)
"""Modules whose every export is public; of others, the reference says which names are."""


@pytest.mark.parametrize("module", WHOLE)
def test_the_reference_lists_what_a_module_exports(module):
    listed = {name for _, name in public()}  # one that two modules export is listed once
    assert set(importlib.import_module(module).__all__) - listed == {"__version__", "operators"} & set(
        importlib.import_module(module).__all__
    )


def test_the_reference_lists_only_what_modules_export():
    assert [(m, n) for m, n in public() if n not in importlib.import_module(m).__all__] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_reference_lists_what_pages_import(page):
    listed = set(public())
    for module, names in re.findall(r"^from (iasolve\S*) import ([\w, ]+)", page.read_text("utf-8"), re.MULTILINE):
        assert {(module, name) for name in names.split(", ")} - listed == set()
