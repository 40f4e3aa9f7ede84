"""Help that ends with examples, words for typing errors, and completion in shells."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_fixtures import cli, program
from typer.main import get_command

from iasolve.cli.app import app
from iasolve.priors import list_priors
from iasolve.recipe import list_recipes


def commands(command=None, path=()):
    """Every command of the program, those of groups too."""
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name, one in inner.items():
        yield from commands(one, (*path, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples_that_parse(name):
    text = cli(*name.split(), "--help").out
    examples = [line.strip() for line in text.partition("\nExamples:\n")[2].splitlines()]
    assert examples
    for line in examples:
        words = shlex.split(line.partition(" > ")[0], comments=True)
        assert words[: 1 + len(name.split())] == ["iasolve", *name.split()], line
        # raises for an option that there is not
        COMMANDS[name].make_context(name, words[1 + len(name.split()) :])


@pytest.mark.parametrize("name", ["", "prior", "recipe"])
def test_help_of_a_group_ends_with_examples_that_parse(name):
    examples = [line.strip() for line in cli(*name.split(), "--help").out.partition("\nExamples:\n")[2].splitlines()]
    assert examples
    for line in examples:
        words = shlex.split(line)[1:]
        inner = next(known for known in (" ".join(words[:2]), words[0]) if known in COMMANDS)
        assert inner.startswith(name), line
        arguments = words[len(inner.split()) :]
        if arguments != ["--help"]:
            COMMANDS[inner].make_context(inner, arguments)


def test_expert_options_stand_behind_the_common_ones():
    text = cli("denoise", "--help").out
    order = [text.index(word) for word in ("Arguments:", "Options:", "--sigma", "Expert options:", "--guess-stop")]
    assert order == sorted(order)
    assert text.index("Expert options:") < text.index("Examples:")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["denois", "a", "b"], "Did you mean 'denoise'"), (["denoise", "a", "b", "--sgima", "3"], "--sigma")],
)
def test_a_typing_error_is_answered_by_the_nearest_word(arguments, words):
    done = cli(*arguments)
    assert done.code == 2
    assert words in done.err


def completed(line, shell):
    """What the program says to complete a line with."""
    words = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
    }
    asked = {**os.environ, **words[shell], "_IASOLVE_COMPLETE": f"complete_{shell}"}
    return subprocess.run(program(), env=asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_commands_options_recipes_and_priors_are_completed():
    assert "denoise" in completed("iasolve den", "zsh")
    assert "denoise" in completed("iasolve den", "bash")
    assert "--sigma" in completed("iasolve denoise --si", "bash")
    recipes = completed("iasolve denoise a b --recipe ", "bash")
    assert all(name in recipes for name in list_recipes())
    assert set(completed("iasolve denoise a b --prior ", "bash").split()) == {"auto", *list_priors()}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_takes_the_script(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    folder = Path(program()[0]).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    load = f'eval "$(iasolve --show-completion {shell})"'
    script = {
        "bash": f"{load}; COMP_WORDS=(iasolve deb); COMP_CWORD=1; _iasolve_completion iasolve; echo $COMPREPLY",
        # the shell knows who completes the program
        "zsh": f'autoload -Uz compinit; compinit -D; {load}; echo "${{_comps[iasolve]}}"',
    }
    options = {"bash": ["--norc"], "zsh": ["-f"]}
    done = subprocess.run(
        [shell, *options[shell], "-c", script[shell]], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == {"bash": "deblur", "zsh": "_iasolve_completion"}[shell]
    assert done.stderr == ""
