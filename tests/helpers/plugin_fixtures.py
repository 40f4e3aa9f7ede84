"""Packages installed for a test: real files and metadata on the path, as pip would leave them."""

import os
import subprocess

import pytest
from cli_fixtures import program


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of one module: ``install("package", code, {group: {name: value}})``."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def installed(package, code, entry_points):
        (site / f"{package}.py").write_text(code)
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = []
        for group, names in entry_points.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        return site

    return installed


def run_with(site, *arguments, cwd=None):
    """The installed program, in a process of its own that finds the packages in ``site``."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    given = [*program(), *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, env=environment, cwd=cwd, timeout=300)
