"""Files that can be read in one sitting, and functions that can be called without looking them up."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "iasolve").rglob("*.py"), *(ROOT / "operators").rglob("*.py")])


def parameters(function):
    """How many parameters a call sees."""
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len(names) - (bool(names) and names[0].arg in ("self", "cls"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert parameters(node) <= 8, node.name
