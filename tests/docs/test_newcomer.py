"""The tutorials by copy and paste: blocks as the site shows them, run in an empty folder."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("newcomer", DOCS / "newcomer.py")
newcomer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(newcomer)
TUTORIALS = sorted((DOCS / "tutorials").glob("tutorial_*.py"))


def test_blocks_are_those_between_the_texts(tmp_path):
    path = tmp_path / "tutorial.py"
    shown, other = "x = 1  # a comment\n# stays", "# %%\n# More::\n#\n#     iasolve\n\ny = x\n"
    path.write_text(f'"""\nTitle\n=====\n"""\n\n# %%\n# Text.\n\n{shown}\n\n{other}')
    assert newcomer.code_blocks(path) == [shown, "y = x"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_code_that_compiles_and_ends_with_what_can_go_wrong(path):
    compile("\n".join(newcomer.code_blocks(path)), path.name, "exec")
    assert "\n# What can go wrong\n# -----------------\n" in path.read_text(encoding="utf-8")


def test_a_failure_is_seen(tmp_path):
    path = tmp_path / "tutorial_00.py"
    path.write_text('"""\nTitle\n"""\n\n# %%\n# Text.\n\nraise SystemExit(3)\n')
    assert newcomer.run(path).returncode == 3
    assert newcomer.main(tmp_path, []) == 1
    path.write_text('"""\nTitle\n"""\n\nimport os, pathlib\n\nassert os.listdir() == ["pasted.py"]\n')
    assert newcomer.main(tmp_path, []) == 0


@pytest.mark.weekly
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_by_copy_and_paste(path):
    done = newcomer.run(path)
    assert done.returncode == 0, done.stderr
