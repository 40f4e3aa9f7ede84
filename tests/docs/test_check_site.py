"""The check of a built site finds what it should, and nothing else."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("check_site", ROOT / "docs" / "check_site.py")
check_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_site)


def site(tmp_path, **pages):
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text)
    return check_site.problems(tmp_path)


def test_a_sound_site_passes(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"")
    first = '<a href="second.html#there">x</a><img src="picture.png" alt=""><a href="https://example.org/far">y</a>'
    assert site(tmp_path, first=first, second='<h2 id="there">z</h2><a href="#there">up</a>') == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ('<a href="gone.html">x</a>', "gone.html leads nowhere"),
        ('<a href="page.html#gone">x</a>', "names an anchor that is not there"),
        ('<a href="#gone">x</a>', "names an anchor that is not there"),
        ('<img src="gone.png" alt="x">', "gone.png leads nowhere"),
        ('<img src="data:image/png;base64,AA==">', "has no alt text"),
        ('<script src="https://cdn.example.org/x.js"></script>', "from the network"),
        ('<link rel="stylesheet" href="//cdn.example.org/x.css">', "from the network"),
    ],
)
def test_faults_are_found(tmp_path, fault, words):
    (found,) = site(tmp_path, page=fault)
    assert words in found


def test_an_empty_folder_is_no_site(tmp_path):
    assert "build the site first" in site(tmp_path)[0]


def test_set_up_commands_are_in_the_readme_word_for_word():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt "
    blocks = re.findall(r"```bash\n(.*?)\n```", text, flags=re.DOTALL)
    assert blocks[:2] == [f"{begin}. && iasolve demo", f"{begin}-e '.[dev]' && pytest"]
    assert text.index("<!-- test -->") < text.index("-e '.[dev]'")


def test_files_that_the_readme_links_to_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"(?:\]\(|src=\")([^)\"]+)", text)]
    assert "docs/_static/demo.png" in links
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_figures_of_the_readme_are_the_benchmarks():
    """Of every row: input, the better total variation, BM3D where there is one, and iasolve."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| --- | --- |", 1)[1]
    rows = [line for line in table.splitlines() if re.match(r"\| (noise|k-space|blur),", line)]
    result = (ROOT / "benchmarks" / "results" / "reconstruction.md").read_text(encoding="utf-8")
    names = ("denoise 0.1", "denoise 0.3", "denoise 1.0", "lines 4x", "lines 8x", "blur 2 px")
    for row, name in zip(rows, names, strict=True):
        section = re.search(rf"^## {re.escape(name)}$(.*?)(?=^## |\Z)", result, flags=re.DOTALL | re.MULTILINE).group(1)
        psnr = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \|", section, flags=re.MULTILINE))
        tv = max(float(psnr["total variation"]), float(psnr["total variation, x >= 0"]))
        bm3d = psnr.get("BM3D", "")
        expected = [psnr["input"], f"{tv:.2f}", bm3d, f"**{psnr['iasolve refined']}**"]
        assert [cell.strip() for cell in row.strip("|").split("|")][1:] == expected


def test_coverage_in_the_readme_is_the_benchmarks():
    """Of every bundled prior with the recipe for the task: the range on noise, and on all else."""
    priors = json.loads((ROOT / "benchmarks" / "results" / "error_bars.json").read_text(encoding="utf-8"))["priors"]
    own = {"denoise": "denoise", "lines": "compressed-sensing", "blur": "deblur", "low-pass": "denoise"}

    def lowest_and_highest(noise):
        shares = [
            round(100 * found["whole"])
            for cases in priors.values()
            for name, found in cases.items()
            if name.endswith(f", {own[name.split()[0]]}") and name.startswith("denoise") == noise
        ]
        return f"{min(shares)} to {max(shares)} %"

    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"holds the truth in {lowest_and_highest(True)} of the pixels" in readme
    assert f"[{lowest_and_highest(False)}]" in readme


def test_the_conda_recipe_and_the_container_hold_what_the_package_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[><=]", line)[0].lower(): line for line in project["dependencies"]}
    recipe = (ROOT / "conda" / "meta.yaml").read_text()
    run = dict(re.findall(r"- ([\w.-]+) (>=[\d.]+)", recipe.split("  run:\n")[1].split("\ntest:")[0]))
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    for name, line in needed.items():
        if name != "fastmri":  # conda does not have it: the recipe's comment says how it comes
            assert run.get(names.get(name, name)) == line[len(name) :], name
    assert run["python"] == project["requires-python"]
    container = (ROOT / "Dockerfile").read_text()
    copied = [file for line in re.findall(r"^COPY (.+)$", container, flags=re.MULTILINE) for file in line.split()[:-1]]
    assert [file for file in copied if not (ROOT / file).exists()] == []
    # all that the build reads, or pip would fail in the container only
    assert {"pyproject.toml", project["readme"], *project["license-files"], "iasolve", "operators", "recipes"} <= {
        *copied
    }
    (extras,) = re.findall(r"'\.\[(.*?)\]'", container)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    python = re.search(r"^FROM python:([\d.]+)-slim$", container, flags=re.MULTILINE).group(1)
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "iasolve" / "__init__.py").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'"IASOLVE_VERSION", "{version}"' in (ROOT / "conda" / "meta.yaml").read_text()
