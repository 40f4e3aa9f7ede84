"""Tables: ruled on a terminal, plain lines in a pipe, nothing where nothing is asked for."""

import contextlib
import io

import numpy as np
import pytest
from cli_fixtures import cli

from iasolve.cli import main


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(*arguments):
    with contextlib.redirect_stdout(Terminal()) as out, pytest.raises(SystemExit):
        main([str(a) for a in arguments])
    return out.getvalue()


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Arguments that compare a folder of one image, whose name holds what looks like markup, with itself."""
    monkeypatch.setenv("COLUMNS", "120")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "[bold]x.npy", np.random.default_rng(0).random((16, 16)) + (folder == "a") * 0.5)
    return "evaluate", tmp_path / "a", tmp_path / "b"


def test_a_pipe_gets_plain_lines(compared):
    text = cli(*compared).out
    assert text.isascii()
    head, rule, row = text.splitlines()
    assert set(rule) == {"-"}
    assert row.startswith("[bold]x.npy  ")
    # numbers end where their heads end
    first = len(row) - len(row[len("[bold]x.npy") :].lstrip())
    assert head.index(" dB") + len(" dB") == row.index(" ", first)


def test_a_terminal_gets_rules_and_names_are_no_markup(compared):
    text = on_a_terminal(*compared)
    assert "[bold]x.npy" in text
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" in text


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_quiet_is_quiet(compared, option):
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" not in on_a_terminal(*compared, option)
