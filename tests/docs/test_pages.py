"""What the pages show, the program has: commands, options, imports, attributes of results, keys of reports."""

import ast
import importlib
import json
import re
import shlex
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cli_fixtures import SIZE, cli, heads, program, tiny
from PIL import Image
from typer.main import get_command

from iasolve import Reconstruction, Result
from iasolve.cli.app import app
from iasolve.operators import KSpaceMask, Radon, line_mask
from iasolve.samples import load_samples

__all__ = ["heads", "tiny"]  # fixtures

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "how-to").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("[!_]*/*.md")),
    ROOT / "docs/index.md",
]
PAGES = [page for page in PAGES if page.parent.name != "results"]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
PROGRAM = get_command(app)

OTHERS = {
    *("--build-arg", "--gpus", "--user", "--rm"),  # docker
    *("--nproc-per-node", "--nnodes", "--no-python", "--rdzv-backend", "--rdzv-id", "--rdzv-endpoint"),  # torchrun
    *("--nthreads", "--no-nanny", "--memory-limit", "--protocol", "--port"),  # dask
    *("--nworkers", "--death-timeout", "--no-dashboard", "--dashboard-address"),
    *("--nodes", "--ntasks-per-node", "--gpus-per-node", "--gpus-per-task"),  # SLURM
    *("--ntasks", "--cpus-per-task", "--mem-per-cpu", "--time", "--requeue", "--overlap"),
    *("--replicas",),  # kubectl
    *("--no-deps", "--config-settings", "--validate", "--all"),  # pip, cffconvert, look_at_site.py
}
"""Options of other programs that pages name."""


def commands(command, path=()):
    """Every command of the program, those of groups too."""
    yield " ".join(path), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(PROGRAM))


def blocks(page, language):
    """Blocks of code of a page in Markdown."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{{code-block}} )?{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def lines_typed(page):
    """Command lines of a page: of its blocks, or of a tutorial's texts."""
    if page.suffix == ".py":
        found = re.findall(r"^# {5}(iasolve .*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    else:
        found = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [
        line for line in found if re.search(r"(^|\s)iasolve\s", line) and not line.startswith(("pip", "docker build"))
    ]


def parsed(line):
    """The command that a line calls, as the program parses it."""
    words = shlex.split(line, comments=True)
    words = words[words.index("iasolve") + 1 :]
    name = next(n for n in (" ".join(words[:2]), words[0], "") if n in COMMANDS)
    arguments = words[len(name.split()) :]
    if not name:
        assert {option.partition("=")[0] for option in arguments} <= options(PROGRAM), line
    else:
        COMMANDS[name].make_context(name, arguments)  # raises for what there is not
    return name


def options(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.stem)
def test_command_lines_parse(page):
    for line in lines_typed(page):
        # what a user writes for a file or a number is none
        parsed(re.sub(r"\b[MN]\b", "3", line.replace("$resume", "--resume")))


def test_command_lines_are_found():
    assert len([line for page in PAGES for line in lines_typed(page)]) > 30
    assert any(lines_typed(page) for page in TUTORIALS)
    with pytest.raises(Exception, match="--sgima"):
        parsed("iasolve denoise a.png b.png --sgima 3")


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.stem)
def test_options_that_a_page_names_exist(page):
    known = set().union(*(options(command) for command in COMMANDS.values())) | {"--help", "-h"} | OTHERS
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", page.read_text(encoding="utf-8")))
    scripts = set(re.findall(r"--[a-z][a-z-]*", "".join(p.read_text() for p in (ROOT / "benchmarks").glob("*.py"))))
    assert named - known - scripts == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_compiles_and_what_it_imports_exists(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "iasolve":
                module = importlib.import_module(node.module)
                assert [n.name for n in node.names if not hasattr(module, n.name)] == [], node.module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_attributes_of_results_exist(page):
    known = {*dir(Result), *Result.__dataclass_fields__, *dir(Reconstruction), *Reconstruction.__dataclass_fields__}
    named = set(re.findall(r"\bresult\.([a-z_]+)", page.read_text(encoding="utf-8")))
    assert named - known == set()


def test_the_reference_names_every_key_of_a_report(tmp_path, heads, tiny):
    noisy, out = tmp_path / "noisy.npy", tmp_path / "out.npy"
    np.save(noisy, heads[0] + np.random.default_rng(0).normal(0, 20, (SIZE, SIZE)))
    assert cli("denoise", noisy, out, "--prior", tiny, "--steps", 1).code == 0
    table = (
        (ROOT / "docs/reference/reports-and-exit-codes.md").read_text(encoding="utf-8").partition("## Exit codes")[0]
    )
    named = {
        key for row in re.findall(r"^\| (`[^|]*) \|", table, flags=re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert named == set(json.loads((tmp_path / "out.npy.json").read_text()))


# --- run, once a week -----------------------------------------------------------------------------------------------

HAVE_DATA = ("choose-a-recipe", "deblur", "error-bars", "folders", "mri-single-coil", "noise", "report")
"""Guides whose commands run on the files that are made here."""


@pytest.fixture
def desk(tmp_path):
    """A folder with the files that the guides name, made of bundled samples."""
    rng = np.random.default_rng(0)
    clean = load_samples().images[:2].astype(np.float32)
    noisy = np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    for folder in ("scans", "noisy", "truth"):
        (tmp_path / folder).mkdir()
        for k, pixels in enumerate(clean.astype(np.uint8) if folder == "truth" else noisy):
            Image.fromarray(pixels).save(tmp_path / folder / f"{k}.png")
    for name in ("noisy.png", "noisy.tif", "blurred.tif", "shaken.png"):
        Image.fromarray(noisy[0]).save(tmp_path / name)
    for name, pixels in (("scan.nii.gz", noisy[0]), ("ct.nii.gz", noisy[0].astype(np.int16) - 1024)):
        nib.save(nib.Nifti1Image(pixels[..., None], np.eye(4)), tmp_path / name)
    np.save(tmp_path / "kernel.npy", np.full((3, 3), 1 / 9))
    mask = line_mask((128, 128), 4, 0.08, seed=0)
    np.save(tmp_path / "mask.npy", np.broadcast_to(mask.numpy(), (128, 128)))
    np.save(tmp_path / "kspace.npy", KSpaceMask(mask, (1, 128, 128))(torch.from_numpy(clean[:1])).numpy())
    angles = np.linspace(0, 180, 40, endpoint=False)
    np.save(tmp_path / "sinogram.npy", Radon(angles, (1, 128, 128))(torch.from_numpy(clean[:1])).numpy())
    return tmp_path


@pytest.mark.weekly
@pytest.mark.parametrize("name", HAVE_DATA)
def test_commands_of_a_guide_run(name, desk):
    done = [run(line, desk) for line in lines_typed(ROOT / "docs" / "how-to" / f"{name}.md")]
    assert any(done)


@pytest.mark.weekly
def test_the_operator_of_a_guide_runs(desk):
    page = ROOT / "docs" / "how-to" / "operator-from-the-command-line.md"
    for language in ("python", "toml"):
        for block in blocks(page, language):
            name = re.match(r"# ([\w.]+)", block).group(1)
            (desk / name).write_text(block)
    assert [run(line, desk) for line in lines_typed(page)] == [True, True]


def run(line, folder):
    """Run a command as it is typed; False if a file that it reads is not among those that were made."""
    words = shlex.split(line, comments=True)
    files = [word for word in words[1:] if re.search(r"\.(nii\.gz|h5|npy|png|tif)$|/$", word)]
    if files and not (folder / files[0]).exists():
        return False
    done = subprocess.run([*program(), *words[1:]], cwd=folder, capture_output=True, text=True)
    # a guide's second command on the same folder says what an existing result means
    assert done.returncode == 0 or "exist" in done.stderr, (line, done.stderr)
    return True
