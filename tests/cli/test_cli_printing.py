"""Tables: ruled on a terminal, plain lines in a pipe, nothing where nothing is asked for."""

import io
import sys

import pytest

from iasolve.cli.options import Printing
from iasolve.cli.reporter import Reporter, columns

ROWS = [["image", "PSNR dB"], ["[bold]a.png", "31.25"], ["b.png", "9.5"]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(monkeypatch, stream, **printing):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "60")
    Reporter(Printing(**printing)).table(ROWS)
    return stream.getvalue()


def test_a_pipe_gets_plain_lines(monkeypatch):
    text = printed(monkeypatch, io.StringIO())
    assert text == "image        PSNR dB\n--------------------\n[bold]a.png    31.25\nb.png            9.5\n"
    assert text.isascii()


def test_a_terminal_gets_rules_and_names_are_no_markup(monkeypatch):
    text = printed(monkeypatch, Terminal())
    assert "[bold]a.png" in text
    assert "31.25" in text
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" in text


@pytest.mark.parametrize("printing", [{"quiet": True}, {"as_json": True}])
def test_quiet_is_quiet(monkeypatch, printing):
    assert printed(monkeypatch, Terminal(), **printing) == ""


def test_columns_of_words_go_left():
    assert columns([["a", "b"], ["xx", "yyy"]], text=(0, 1)) == "a   b\n-------\nxx  yyy"
