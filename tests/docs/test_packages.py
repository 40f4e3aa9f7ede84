"""What the packages say of the project agrees: conda recipe, Dockerfile and citation with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import iasolve

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RECIPE = (ROOT / "conda" / "meta.yaml").read_text("utf-8")
CONTAINER = (ROOT / "Dockerfile").read_text("utf-8")
CITATION = (ROOT / "CITATION.cff").read_text("utf-8")

CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge calls otherwise."""


def test_one_version_everywhere():
    assert PROJECT["version"] == iasolve.__version__
    assert re.search(r"^version: (.*)$", CITATION, re.MULTILINE).group(1) == PROJECT["version"]
    assert re.search(r'"IASOLVE_VERSION", "(.*?)"', RECIPE).group(1) == PROJECT["version"]


def test_the_conda_recipe_asks_for_what_the_wheel_asks_for():
    section = RECIPE.partition("  run:\n")[2].partition("\n\n")[0]
    asked = dict(re.fullmatch(r"    - (\S+) (\S+)", line).groups() for line in section.splitlines())
    assert asked.pop("python") == PROJECT["requires-python"]
    needed = dict(re.fullmatch(r"([\w-]+)(>=.*)", text).groups() for text in PROJECT["dependencies"])
    del needed["fastmri"]  # there is none for conda: the recipe's first lines say what to do
    assert "pip install --no-deps fastmri" in RECIPE
    assert asked == {CONDA.get(name, name): least for name, least in needed.items()}


def test_the_container_copies_what_there_is_and_installs_extras_that_exist():
    copied = [word for line in re.findall(r"^COPY (.*)$", CONTAINER, re.MULTILINE) for word in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # all of what the build reads, or pip would fail in the container only
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "iasolve", "operators", "recipes"} <= {
        *copied
    }
    (extras,) = re.findall(r"'\.\[(.*?)\]'", CONTAINER)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    version = re.search(r"^FROM python:([\d.]+)-slim$", CONTAINER, re.MULTILINE).group(1)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
