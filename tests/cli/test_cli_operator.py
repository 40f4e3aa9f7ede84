"""One's own operator on the command line: ``check-operator`` and ``solve``."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from apart import program_apart
from cli_fixtures import SIZE, cli, heads, program, tiny
from PIL import Image
from plugin_fixtures import install

from iasolve.metrics import psnr
from iasolve.operators import BlockAverage, PixelMask, Radon
from iasolve.recipe import load_recipe

__all__ = ["heads", "install", "tiny"]  # fixtures

LAB = """
import torch
from helper import TWO
from iasolve.operators import BlockAverage, LinearOperator

print("a module that talks")

def binning(in_shape, factor=TWO):
    return BlockAverage(factor, in_shape)

class Projection(LinearOperator):
    def __init__(self, in_shape):
        super().__init__(in_shape, in_shape[:-1])

    def forward(self, x):
        return self.check_in(x).sum(-1)

    def adjoint(self, y):
        return self.check_out(y).unsqueeze(-1).expand(*y.shape, self.in_shape[-1]).clone()

def off(in_shape):
    return LinearOperator.from_functions(lambda x: 2 * x, lambda y: 2.002 * y, in_shape=tuple(in_shape))

def unconjugated(in_shape):
    ramp = torch.exp(1j * torch.arange(in_shape[-1]))
    forward = lambda x: ramp * x
    return LinearOperator.from_functions(forward, forward, in_shape=tuple(in_shape), dtype=torch.complex64)

def affine(in_shape):
    return LinearOperator.from_functions(lambda x: x + 1, lambda y: y, in_shape=tuple(in_shape))

def greedy(in_shape):
    return LinearOperator.from_functions(lambda x: x.mul_(2), lambda y: 2 * y, in_shape=tuple(in_shape))

def masked(mask, dtype=torch.float32):
    kept = torch.as_tensor(mask, dtype=torch.float32)
    forward = lambda x: kept * x
    return LinearOperator.from_functions(forward, forward, in_shape=(1, *mask.shape), dtype=dtype)

def broken(in_shape):
    return torch.zeros(3) @ torch.zeros(4)

def leaves():
    raise SystemExit(0)

def nothing():
    return None

ready = BlockAverage(2, (1, 32, 32))
number = 3
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with a user's module, what it imports, and its arguments; the current one."""
    (tmp_path / "lab.py").write_text(LAB)
    (tmp_path / "helper.py").write_text("TWO = 2\n")
    (tmp_path / "shape.toml").write_text(f"in_shape = [1, {SIZE}, {SIZE}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("lab", "helper"):  # of an earlier test's folder
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def refused(done, code, *words):
    assert done.code == code, done
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err.splitlines()[-1]


# --- check-operator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lab:binning", "lab.py:binning", "./lab.py:binning", "lab:Projection"])
def test_a_right_operator_passes(name, lab):
    done = cli("check-operator", name, "--args", "shape.toml")
    assert done.code == 0, done
    assert done.out.startswith(f"{name}: ")
    assert "(1, 32, 32) torch.float32 -> " in done.out
    assert "ok: norm" in done.out
    assert "adjoint on the pair y = Ax" in done.out


def test_the_report_as_json_is_all_that_stdout_holds(lab):
    done = cli("check-operator", "lab:binning", "--args", "shape.toml", "--seed", 3, "--json")
    assert done.code == 0
    assert "a module that talks" in done.err
    report = done.report
    assert (report["ok"], report["failures"], report["seed"]) == (True, [], 3)
    assert (report["in_shape"], report["out_shape"]) == ([1, 32, 32], [1, 16, 16])
    assert report["arguments"] == {"in_shape": [1, 32, 32]}
    assert report["norm"] == pytest.approx(0.5)
    assert max(report["errors"].values()) < report["tolerance"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("off", "on the pair y = Ax"),
        ("unconjugated", "differs from <x, A^H y>"),
        ("affine", "A(0) is not 0"),
        ("greedy", "changed its input"),
    ],
)
def test_a_wrong_operator_fails(name, words, lab):
    done = cli("check-operator", f"lab:{name}", "--args", "shape.toml")
    refused(done, 3, f"lab:{name}: a wrong operator")
    assert "NOT ok" in done.out
    assert words in done.out
    done = cli("check-operator", f"lab:{name}", "--args", "shape.toml", "--json")
    assert done.code == 3
    assert done.report["ok"] is False
    assert any(words in failure for failure in done.report["failures"])


def test_the_tolerance_is_the_users_to_choose(lab):
    assert cli("check-operator", "lab:off", "--args", "shape.toml", "--tolerance", 0.01).code == 0
    refused(cli("check-operator", "lab:off", "--args", "shape.toml", "--tolerance", 0), 2, "positive")


def test_what_toml_cannot_say_comes_from_files_and_by_name(lab):
    np.save("mask.npy", np.arange(20).reshape(4, 5) % 3 == 0)
    (lab / "deep").mkdir()
    (lab / "deep" / "args.toml").write_text('mask = { array = "../mask.npy" }\ndtype = { dtype = "complex64" }\n')
    report = cli("check-operator", "lab:masked", "--args", "deep/args.toml", "--json").report
    assert report["in_shape"] == [1, 4, 5]
    assert report["in_dtype"] == report["out_dtype"] == "torch.complex64"
    assert report["ok"] is True
    (lab / "args.toml").write_text('mask = { array = "gone.npy" }')
    refused(cli("check-operator", "lab:masked", "--args", "args.toml"), 3, "gone.npy", "no such file")
    (lab / "args.toml").write_text('mask = { array = "mask.npy" }\ndtype = { dtype = "float99" }')
    refused(cli("check-operator", "lab:masked", "--args", "args.toml"), 3, "float99", "complex64")


def test_bundled_operators_go_by_name(lab):
    np.save("angles.npy", np.arange(0, 180, 12.0))
    (lab / "ct.toml").write_text('angles = { array = "angles.npy" }\nin_shape = [1, 24, 24]\n')
    report = cli("check-operator", "Radon", "--args", "ct.toml", "--json").report
    assert report["out_shape"] == list(Radon(np.arange(0, 180, 12.0), (1, 24, 24)).out_shape)
    (lab / "blur.toml").write_text("kernel = [[1, 2, 1]]\nin_shape = [1, 24, 24]\n")
    assert cli("check-operator", "CircularBlur", "--args", "blur.toml", "--json").report["diagonal"] is True


def test_an_operator_that_is_ready_needs_no_factory(lab):
    assert cli("check-operator", "lab:ready").code == 0
    refused(cli("check-operator", "lab:ready", "--args", "shape.toml"), 2, "takes no arguments")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("", 2, ["module:factory"]),
        (":binning", 2, ["module:factory"]),
        ("lab:", 2, ["module:factory"]),
        ("Rodan", 2, ["'Rodan'", "Radon", "module:factory"]),
        ("lba:binning", 3, ["no module 'lba'", "current folder"]),
        ("lba.py:binning", 3, ["lba.py", "no such file"]),
        ("lab:bining", 3, ["no 'bining'", "binning", "Projection"]),
        ("lab:number", 3, ["int", "LinearOperator"]),
        ("lab:nothing", 3, ["arguments ()", "in_shape"]),
        ("lab:masked", 3, ["'mask'", "(mask, dtype=torch.float32)", "shape.toml"]),
        ("lab:broken", 3, ["RuntimeError", "lab.py, line"]),
        ("syntax:x", 3, ["SyntaxError", "syntax.py, line 1"]),
        ("raises:x", 3, ["KeyError", "raises.py, line 2"]),
        ("imports:x", 3, ["ModuleNotFoundError", "no_such_library"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_place(name, code, words, lab):
    (lab / "syntax.py").write_text("def x(:\n")
    (lab / "raises.py").write_text("table = {}\ntable['x']\n")
    (lab / "imports.py").write_text("import no_such_library\n")
    refused(cli("check-operator", name, "--args", "shape.toml"), code, *words)


def test_a_factory_without_arguments_that_gives_no_operator(lab):
    refused(cli("check-operator", "lab:nothing"), 3, "NoneType", "from_functions")
    refused(cli("check-operator", "lab:leaves"), 3, "SystemExit")
    refused(cli("check-operator", "lab:binning"), 3, "'in_shape'", "TOML")


def test_arguments_that_cannot_be_read(lab):
    refused(cli("check-operator", "lab:binning", "--args", "gone.toml"), 3, "gone.toml", "cannot be read")
    (lab / "bad.toml").write_text("in_shape = (1, 2)")
    refused(cli("check-operator", "lab:binning", "--args", "bad.toml"), 3, "bad.toml", "TOML")


@pytest.mark.slow
def test_the_installed_program_finds_modules_in_the_current_folder(lab):
    command = [*program(), "check-operator", "lab:binning", "--args", "shape.toml"]
    assert subprocess.run(command, capture_output=True, cwd=lab).returncode == 0


def test_the_example_in_the_documentation_runs(lab):
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "operator-from-the-command-line.md").read_text()
    for name in ("lab.py", "ct.toml"):
        (block,) = re.findall(rf"```\w+\n(# {name}\n.*?)```", text, flags=re.DOTALL)
        (lab / name).write_text(block)
    report = cli("check-operator", "lab.py:sparse_view", "--args", "ct.toml", "--json").report
    assert (report["ok"], report["out_shape"]) == (True, [1, 128, 40])


def test_a_users_file_may_be_called_like_a_library(lab):
    (lab / "random.py").write_text("import random as library\nassert library.random\n" + LAB)
    assert cli("check-operator", "random.py:binning", "--args", "shape.toml").code == 0


def test_an_operator_that_a_package_brings(install, lab):
    operators = {"their-bins": "theirs:binning", "no-licence": "unlicensed:x"}
    install("theirs", LAB.replace("from helper import TWO", "TWO = 2"), {"iasolve.operators": operators})
    install("unlicensed", "raise RuntimeError('no licence')", {})
    assert program_apart("check-operator", "their-bins", "--args", "shape.toml", cwd=lab).ended().code == 0
    refused(cli("check-operator", "no-licence"), 3, "'no-licence' of package 'theirs'", "no licence")


# --- solve ----------------------------------------------------------------------------------------------------------

QUICK = ("--recipe", "fast", "--sigma", 2)
BINNING = ("--operator", "lab:binning", "--operator-args", "shape.toml")


@pytest.fixture
def binned(lab, heads):
    """Block averages of all four heads, ``(4, 1, 16, 16)``."""
    y = BlockAverage(2, (1, SIZE, SIZE))(torch.from_numpy(heads)[:, None]).numpy()
    return (y + np.random.default_rng(0).normal(0, 2, y.shape)).astype(np.float32)


def test_a_batch_of_measurements_becomes_a_batch_of_images(binned, heads, tiny, lab):
    np.save("y.npy", binned)
    # the prior is not trained: the further a point goes by it, the less it is worth
    gentle = load_recipe("compressed-sensing").changed(name="gentle", steps={"optimizer": "adam"})
    Path("gentle.toml").write_text(gentle.to_toml(), encoding="utf-8")
    asked = ("--recipe", "gentle.toml", "--steps", 2, "--sigma", 2, "--samples", 2)
    more = (*asked, "--std-out", "std.npy", "--figure", "figure.png", "--json")
    done = cli("solve", "y.npy", "x.tif", *BINNING, "--prior", tiny, *more)
    assert done.code == 0, done
    images = tifffile.imread("x.tif")
    assert images.shape == heads.shape
    assert images.dtype == np.float32
    assert np.load("std.npy").shape == heads.shape
    for number, (image, y, head) in enumerate(zip(images, binned, heads, strict=True)):
        np.testing.assert_allclose(image.reshape(16, 2, 16, 2).mean((1, 3)), y[0], atol=8)
        assert psnr(image, head) > psnr(np.kron(y[0], np.ones((2, 2))), head)
        assert number == np.argmax([psnr(image, other) for other in heads])
    report = done.report
    assert report["command"] == "solve"
    assert report["asked"]["operator"] == "lab:binning"
    assert report["asked"]["arguments"] == {"in_shape": [1, SIZE, SIZE]}
    assert report["operator"]["out_shape"] == [1, 16, 16]
    assert report["shape"] == [4, 1, SIZE, SIZE]
    digest = hashlib.sha256((lab / "y.npy").read_bytes()).hexdigest()
    assert report["input"] == {"name": "y.npy", "sha256": digest, "type": "float32", "slice_axis": "first axis"}
    with Image.open("figure.png") as figure:
        assert figure.width > 2 * figure.height


@pytest.mark.slow
def test_every_layout_of_the_same_measurement_gives_the_same_image(binned, tiny, lab):
    one = binned[0]
    np.save("a.npy", one)
    np.save("b.npy", one[0])  # an image file has no channel axis
    np.savez("c.npz", measurement=one, notes=np.arange(3))
    scipy.io.savemat("d.mat", {"sinogram": one[0]})
    with h5py.File("e.h5", "w") as file:
        file["counts"] = one
        file["angles"] = np.arange(3)
    tifffile.imwrite("f.tif", one[0])
    np.save("g.npy", one[None])
    results = []
    for name in ("a.npy", "b.npy", "c.npz", "d.mat", "e.h5:counts", "f.tif", "g.npy"):
        out = f"out-{name[0]}.npy"
        done = cli("solve", name, out, *BINNING, *QUICK, "--prior", tiny)
        assert done.code == 0, done
        results.append(np.load(out))
    assert results.pop().shape == (1, SIZE, SIZE)  # its batch of one is kept
    for result in results:
        assert result.shape == (SIZE, SIZE)
        np.testing.assert_allclose(result, results[0], atol=1e-4)


def test_an_8_bit_picture_with_missing_pixels(heads, tiny, lab):
    mask = np.random.default_rng(0).random((SIZE, SIZE)) < 0.7
    np.save("mask.npy", mask)
    y = PixelMask(mask, (1, SIZE, SIZE))(torch.from_numpy(heads[0])[None])[0].numpy()
    Image.fromarray(y.round().astype(np.uint8)).save("y.png")
    (lab / "mask.toml").write_text(f'mask = {{ array = "mask.npy" }}\nin_shape = [1, {SIZE}, {SIZE}]\n')
    given = ("--operator", "PixelMask", "--operator-args", "mask.toml", "--prior", tiny, *QUICK)
    assert cli("solve", "y.png", "x.npy", *given).code == 0
    assert psnr(np.load("x.npy"), heads[0]) > psnr(y, heads[0]) + 3


def test_a_measurement_of_one_axis(heads, tiny, lab):
    (lab / "sums.py").write_text(
        "from iasolve.operators import LinearOperator\n"
        "def both(in_shape):\n"
        "    import torch\n"
        "    forward = lambda x: torch.cat([x.sum(-1)[..., 0, :], x.sum(-2)[..., 0, :]], -1)\n"
        "    return LinearOperator.from_functions(forward, in_shape=tuple(in_shape))\n"
    )
    np.save("y.npy", np.concatenate([heads[0].sum(1), heads[0].sum(0)]))
    given = ("solve", "y.npy", "x.npy", "--operator", "sums.py:both", "--operator-args", "shape.toml", "--prior", tiny)
    auto = cli(*given, "--recipe", "fast", "--overwrite")
    assert auto.code == 0
    report = json.loads(Path("x.npy.json").read_text())
    assert report["sigma_estimated"]
    assert report["sigma"][0] > 0
    assert cli(*given, *QUICK, "--overwrite").code == 0
    x = np.load("x.npy")
    assert x.shape == (SIZE, SIZE)
    assert x.dtype == np.float64
    np.testing.assert_allclose(x.sum(0), heads[0].sum(0), rtol=0.1, atol=60)


def test_a_wrong_operator_is_refused_before_the_work_unless_asked_for(heads, tiny, lab):
    np.save("y.npy", 2 * heads[0])
    given = ("solve", "y.npy", "x.npy", "--operator", "lab:off", "--operator-args", "shape.toml", "--prior", tiny)
    refused(cli(*given, *QUICK), 3, "lab:off: a wrong operator", "check-operator", "--no-check")
    assert not (lab / "x.npy").exists()
    assert cli(*given, *QUICK, "--no-check").code == 0


def test_what_does_not_go_together_is_refused_with_both_sides(binned, tiny, lab):
    np.save("y.npy", binned[..., :15])
    given = ("--prior", tiny, *QUICK)
    refused(cli("solve", "y.npy", "x.npy", *BINNING, *given), 3, "(4, 1, 16, 15)", "(..., 1, 16, 16)", "lab:binning")
    np.save("y.npy", binned * 1j)
    refused(cli("solve", "y.npy", "x.npy", *BINNING, *given), 3, "complex", "torch.float32")
    np.save("y.npy", binned[0])
    np.save("mask.npy", np.ones((16, 16)))
    (lab / "complex.toml").write_text('mask = { array = "mask.npy" }\ndtype = { dtype = "complex64" }')
    complex_images = ("--operator", "lab:masked", "--operator-args", "complex.toml")
    refused(cli("solve", "y.npy", "x.npy", *complex_images, *given), 3, "complex images", "'tiny'", "real images")
    refused(cli("solve", "gone.npy", "x.npy", *BINNING, *given), 3, "gone.npy", "no such file")
    assert cli("solve", "y.npy", "x.npy", *given).code == 2  # no --operator
    refused(cli("solve", "y.npy", "x.png", *BINNING, *given), 2, "x.png")


def test_a_folder_is_solved_file_by_file_and_resumed(binned, tiny, lab):
    (lab / "in").mkdir()
    for name, y in zip("abc", binned, strict=False):
        np.save(lab / "in" / f"{name}.npy", y)
    np.save(lab / "in" / "d.npy", binned[0, 0, :3])
    given = ("solve", "in", "out", *BINNING, *QUICK, "--prior", tiny)
    done = cli(*given, "--json")
    assert done.code == 7
    assert [failure["name"] for failure in done.report["failed"]] == ["d.npy"]
    (lab / "in" / "d.npy").unlink()
    assert cli(*given, "--resume", "--json").report["skipped"] == 3
    (lab / "shape.toml").write_text(f"in_shape = [1, {SIZE}, {SIZE}]\nfactor = 2\n")
    done = cli(*given, "--resume", "--json")
    assert len(done.report["files"]) == 3
    assert "a.npy is done again: factor None then, 2 now, the file of --operator-args has changed" in done.err
    refused(cli("solve", "in", "new", "--operator", "lab:off", *BINNING[2:], *QUICK, "--prior", tiny), 3, "lab:off")
    assert not (lab / "new").exists()
