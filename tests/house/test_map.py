"""The project as CONTRIBUTING describes it: its rooms and what they import; and a checkout that runs as it is."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows():
    """Rooms of each row of the map, and the text of its last column."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| room | holds |") :].split("\n\n")[0].splitlines()[2:]
    for line in table:
        place, _, imports = (cell.strip() for cell in line.strip("|").split(" | "))
        paths = re.findall(r"`((?:iasolve/[a-z_]+|operators|benchmarks)(?:/|\.py))`", place)
        yield {Path(p).stem for p in paths}, imports


def imports_of(path):
    """Rooms of iasolve that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"iasolve.{a.name}" for a in node.names] if node.module == "iasolve" else [node.module]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("iasolve."))


def modules(room):
    folder = ROOT / ("operators" if room == "operators" else f"iasolve/{room}")
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_the_map_names_every_room():
    named = set().union(*(rooms for rooms, _ in rows()))
    there = {p.stem for p in (ROOT / "iasolve").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert there - {"__init__", "__main__"} == named - {"operators", "benchmarks"}


def test_rooms_import_what_the_map_says():
    for rooms, listed in rows():
        if listed == "everything":
            continue
        expected = set() if listed == "nothing" else set(listed.split(", "))
        found = {name for room in rooms for path in modules(room) for name in imports_of(path)} - rooms
        assert found == expected, rooms


def test_a_checkout_runs_without_being_installed():
    """From the root, without the finder that an editable installation brings."""
    code = (
        "import runpy, sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]\n"
        "sys.argv = ['iasolve', '--version']\n"
        "import iasolve.operators\n"
        "assert 'site-packages' not in iasolve.operators.__file__\n"
        "runpy.run_module('iasolve', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0." in done.stdout
