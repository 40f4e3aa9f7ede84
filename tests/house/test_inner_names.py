"""Tests speak to rooms through what these show: only so many names that nothing but their own room uses."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 55


def imports(folder):
    """``(file, module, name)`` of what the files of a folder import from iasolve."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("iasolve"):
                yield from ((path.relative_to(ROOT), node.module, alias.name) for alias in node.names)


def room_of(module):
    return ".".join(module.split(".")[:2])


def public(room):
    """``__all__`` of a room."""
    place = ROOT / "operators" if room == "iasolve.operators" else ROOT.joinpath(*room.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_tests_import_few_names_that_only_their_room_uses():
    shared = set()
    for folder in ("iasolve", "operators", "benchmarks", "docs"):
        for path, module, name in imports(folder):
            own = "iasolve.operators" if folder == "operators" else room_of(".".join(path.with_suffix("").parts))
            if own != room_of(module):
                shared.add((module, name))
    inner = {
        (module, name)
        for _, module, name in imports("tests")
        if (name.startswith("_") and not name.endswith("__"))
        or ((module, name) not in shared and name not in public(room_of(module)) and name not in public("iasolve"))
    }
    assert len(inner) <= MOST, "\n".join(f"{module}: {name}" for module, name in sorted(inner))
