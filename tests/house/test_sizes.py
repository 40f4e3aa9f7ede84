"""Files that can be read in one sitting, and functions that can be called without looking them up."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "iasolve").rglob("*.py"), *(ROOT / "operators").rglob("*.py")])


def parameters(function):
    """How many parameters a call sees."""
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return len(names) - (bool(names) and names[0].arg in ("self", "cls"))


def too_large(path):
    """What is wrong with a module."""
    text = path.read_text(encoding="utf-8")
    if text.count("\n") > 350:
        yield f"{path}: {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and parameters(node) > 8:
            yield f"{path}: {node.name} has {parameters(node)} parameters"


def test_files_and_functions_are_small():
    assert [problem for path in MODULES for problem in too_large(path)] == []


def test_rooms_hold_few_files():
    """Of one idea each: of what solves, at most 17."""
    assert len(list((ROOT / "iasolve" / "inference").glob("*.py"))) <= 17
    assert len(list((ROOT / "iasolve" / "problem").glob("*.py"))) <= 12
