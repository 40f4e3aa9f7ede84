"""Packages installed for a test: real files and metadata on the path, as pip would leave them."""

import pytest


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

    return installed
