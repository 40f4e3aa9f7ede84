"""Operators and priors by name: bundled ones, and those of other packages through their entry points."""

import json

import pytest
from apart import program_apart
from cli_fixtures import SIZE, cli, heads, tiny
from plugin_fixtures import install

from iasolve.operators import BlockAverage, LinearOperator, Radon, check_operator
from iasolve.operators.registry import find_operator, list_operators
from iasolve.plugins import PluginError, PluginWarning
from iasolve.priors import PriorError, find_prior, list_priors, load_prior

__all__ = ["heads", "install", "tiny"]  # fixtures

OPERATORS, PRIORS = "iasolve.operators", "iasolve.priors"

ROW_SUMS = """
from iasolve.operators import LinearOperator

def row_sums(in_shape):
    shape = tuple(in_shape)
    return LinearOperator.from_functions(lambda x: x.sum(-1), in_shape=shape)

number = 3
"""


# --- operators ------------------------------------------------------------------------------------------------------


def test_bundled_operators_go_by_their_class_names():
    names = list_operators()
    assert {"Identity", "KSpaceMask", "Radon", "SensitivityEncoding"} <= set(names)
    assert "LinearOperator" not in names
    assert find_operator("Radon") is Radon
    for name in names:
        assert issubclass(find_operator(name), LinearOperator)
    with pytest.raises(LookupError, match=r"'Rodan': there are .*Radon"):
        find_operator("Rodan")


def test_a_package_brings_an_operator(install):
    install("rows", ROW_SUMS, {OPERATORS: {"row-sums": "rows:row_sums"}})
    assert "row-sums" in list_operators()
    operator = find_operator("row-sums")([1, 4, 6])
    assert (operator.in_shape, operator.out_shape) == ((1, 4, 6), (1, 4))
    assert check_operator(operator).ok


def test_iasolves_own_names_win_and_both_sides_are_named(install):
    install("impostor", ROW_SUMS, {OPERATORS: {"BlockAverage": "impostor:row_sums"}})
    with pytest.warns(PluginWarning, match=r"'impostor'.*'BlockAverage'.*iasolve's own"):
        assert list_operators().count("BlockAverage") == 1
    with pytest.warns(PluginWarning, match="impostor"):
        assert find_operator("BlockAverage") is BlockAverage
    assert find_operator("Radon") is Radon  # and nobody is warned about a name that was not asked for


def test_of_two_packages_with_one_name_neither_is_taken(install):
    install("first", ROW_SUMS, {OPERATORS: {"sums": "first:row_sums"}})
    install("second", ROW_SUMS, {OPERATORS: {"sums": "second:row_sums"}})
    with pytest.warns(PluginWarning, match="'first' and 'second' both bring the operator 'sums'"):
        assert "sums" not in list_operators()
    with pytest.warns(PluginWarning, match="uninstall one"), pytest.raises(LookupError, match="no operator 'sums'"):
        find_operator("sums")


def test_a_broken_package_is_listed_and_named_when_it_is_used(install):
    broken = {"raises": "broken:x", "missing": "nowhere:x"}
    install("broken", "raise RuntimeError('no licence found')", {OPERATORS: broken})
    install("wrong", ROW_SUMS, {OPERATORS: {"three": "wrong:number", "four": "wrong:no_such"}})
    assert {"raises", "missing", "three", "four"} <= set(list_operators())
    with pytest.raises(PluginError, match=r"'raises' of package 'broken' \(broken:x\).*no licence found"):
        find_operator("raises")
    with pytest.raises(PluginError, match=r"'missing' of package 'broken'.*nowhere"):
        find_operator("missing")
    with pytest.raises(PluginError, match="'three' of package 'wrong' is of type int"):
        find_operator("three")
    with pytest.raises(PluginError, match=r"'four' of package 'wrong'.*no_such"):
        find_operator("four")


# --- priors ---------------------------------------------------------------------------------------------------------


def brings(tiny):
    return f"""
from pathlib import Path

path = Path({str(tiny)!r})
text = str(path)
gone = path.with_name("gone.safetensors")
number = 3

def weights():
    return path

def raises():
    raise RuntimeError("no licence found")
"""


@pytest.mark.parametrize("value", ["path", "text", "weights"])
def test_a_package_brings_a_prior_as_a_path_or_a_function(value, install, tiny):
    package = f"heads_{value}"
    install(package, brings(tiny), {PRIORS: {"small-heads": f"{package}:{value}"}})
    assert "small-heads" in list_priors()
    assert find_prior("small-heads") == tiny
    assert load_prior("small-heads").spectrum.size == SIZE


def test_bundled_priors_win_and_both_sides_are_named(install, tiny):
    (bundled, *_) = list_priors()
    install("thief", brings(tiny), {PRIORS: {bundled: "thief:path"}})
    with pytest.warns(PluginWarning, match=f"'thief'.*{bundled!r}.*iasolve's own"):
        assert list_priors().count(bundled) == 1
    with pytest.warns(PluginWarning, match="thief"):
        assert find_prior(bundled) != tiny


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("gone", "gone.safetensors, expected an existing"),
        ("number", "gives int"),
        ("raises", "raised RuntimeError: no licence found"),
        ("nothing", "cannot be imported"),
    ],
)
def test_a_prior_that_cannot_be_used_is_refused_by_name(value, words, install, tiny):
    package = f"odd_{value}"
    install(package, brings(tiny), {PRIORS: {"odd": f"{package}:{value}"}})
    assert "odd" in list_priors()
    with pytest.raises(PriorError, match=f"'odd' of package '{package}'.*{words}"):
        find_prior("odd")


def test_an_unknown_prior_is_told_apart_from_all_that_there_are(install, tiny):
    install("known", brings(tiny), {PRIORS: {"small-heads": "known:path"}})
    with pytest.raises(PriorError, match=r"no prior 'large-heads': bundled are .*; other packages bring small-heads"):
        find_prior("large-heads")


@pytest.mark.slow
def test_the_program_lists_shows_and_uses_what_packages_bring(install, tiny):
    install("clinic", brings(tiny), {PRIORS: {"small-heads": "clinic:weights", "odd": "clinic:gone"}})
    listed = program_apart("prior", "list", "--json").ended()
    assert listed.code == 0, listed
    origins = {prior["name"]: prior["from"] for prior in json.loads(listed.out)["priors"]}
    assert origins.pop("small-heads") == "clinic"
    assert set(origins.values()) == {"iasolve"}
    assert "odd" not in origins
    warned = listed.err.splitlines()
    assert len(warned) == 1
    assert warned[0].startswith("Warning: the prior 'odd' of package 'clinic' is left out: ")
    assert "clinic" in program_apart("prior", "list").ended().out
    assert str(tiny) in cli("prior", "show", "small-heads").out
    assert cli("prior", "verify", "odd").code == 4


def test_a_card_that_says_too_little_does_not_break_the_list(install, tmp_path):
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "empty.json").write_text('{"format": 1}')
    install("bare", f"path = {str(tmp_path / 'empty.safetensors')!r}", {PRIORS: {"empty": "bare:path"}})
    done = cli("prior", "list")
    assert done.code == 0
    assert "'empty' of package 'bare' is left out: its card lacks 'architecture'" in done.err


def test_the_program_warns_of_a_clash_in_a_line(install, tiny):
    (bundled, *_) = list_priors()
    install("squatter", brings(tiny), {PRIORS: {bundled: "squatter:path"}})
    shown = program_apart("prior", "show", bundled, "--quiet").ended()
    assert shown.code == 0
    (line,) = shown.err.splitlines()
    assert line.startswith(f"Warning: package 'squatter' brings the prior {bundled!r}, a name that iasolve has itself")
