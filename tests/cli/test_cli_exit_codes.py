"""What used to end with 1, "unexpected": cards, numbers, operators and configurations that are beyond reason."""

import json
import math
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_fixtures import SIZE, cli, heads, quick_statistics, tiny
from test_cli_failures import CONFIG, clean_failure

import iasolve
from iasolve.training.log import cut_log

__all__ = ["heads", "quick_statistics", "tiny"]  # fixtures


@pytest.fixture
def image(tmp_path, heads):
    np.save(tmp_path / "x.npy", heads[0])
    return tmp_path / "x.npy"


@pytest.fixture
def copied(tiny, tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(tiny.with_suffix(suffix), tmp_path / f"prior{suffix}")
    return tmp_path / "prior.safetensors"


def quick(prior):
    return ("--sigma", 20, "--prior", prior, "--recipe", "fast")


@pytest.mark.parametrize(
    "change",
    [
        {"validation": [1, 2]},
        {"validation": "good"},
        {"validation": {"elbo_lowest": "low"}},
        {"validation": {"elbo_lowest": 10**400}},
        {"validation": {"coarse_rings": {"mean": [1]}}},
        {"validation": {"coarse_rings": {"mean": [1, 2], "std": [1, 2]}}},
        {"validation": {"coarse_rings": {"mean": [], "std": []}}},
        {"validation": {"coarse_rings": {"mean": "123", "std": "123"}}},
        {"validation": {"coarse_rings": {"mean": [math.nan] * 3, "std": [1] * 3}}},
        {"validation": {"coarse_rings": {"mean": [1] * 3, "std": [0] * 3}}},
        {"mirrors": 5},
        {"mirrors": [0]},
        {"shift": [1]},
        {"shift": "x"},
        {"shift": math.inf},
        {"architecture": {"widths": [math.inf] * 6}},
        {"architecture": [1]},
    ],
)
def test_cards_that_say_nonsense(change, copied, image, tmp_path):
    card = json.loads(copied.with_suffix(".json").read_text())
    if isinstance(change.get("architecture"), dict):
        change = {"architecture": card["architecture"] | change["architecture"]}
    copied.with_suffix(".json").write_text(json.dumps(card | change))
    clean_failure(cli("denoise", image, tmp_path / "o.npy", *quick(copied)), 4, "prior")
    assert not (tmp_path / "o.npy").exists()


def test_a_card_nested_deeper_than_python_reads(copied, image, tmp_path):
    copied.with_suffix(".json").write_text("[" * 100_000)
    for arguments in (("denoise", image, tmp_path / "o.npy", *quick(copied)), ("prior", "show", copied)):
        clean_failure(cli(*arguments), 4, "prior")


def test_more_noise_than_anything_can_be_told_through(image, tiny, tmp_path):
    options = ("--prior", tiny, "--recipe", "fast", "--sigma", "1e308")
    clean_failure(cli("denoise", image, tmp_path / "o.npy", *options), 2, "--sigma 1e+308", "units")


def test_an_objective_that_is_not_finite_is_told(image, tiny, tmp_path):
    done = cli("denoise", image, tmp_path / "o.npy", *quick(tiny)[:4], "--steps", 1, "--beta", "1e299")
    assert done.code in (0, 2, 6), done
    assert done.code == 0 or not (tmp_path / "o.npy").exists()


def test_links_that_go_round_in_a_circle(image, tiny, tmp_path):
    loop = tmp_path / "loop.npy"
    loop.symlink_to(loop)
    clean_failure(cli("denoise", image, loop, *quick(tiny), "--overwrite"), 2, "loop.npy")


LATE = """
from iasolve.operators import LinearOperator
calls = 0

def forward(x):
    global calls
    calls += 1
    if calls > {after}:
        raise KeyError("late")
    return {result}

def factory():
    return LinearOperator.from_functions(forward, lambda y: y, in_shape=(1, 32, 32))
"""


def test_an_operator_that_fails_late_is_blamed_by_file_and_line(image, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late.py").write_text(LATE.format(after=40, result="x"))
    done = cli("solve", image, tmp_path / "o.npy", "--operator", "late.py:factory", *quick(tiny))
    clean_failure(done, 3, "late.py:factory: solving with it raised KeyError", "late.py, line 9")


class Mute(Exception):  # noqa: N818 - its name is in a message
    def __str__(self):
        return str(1 / 0)


@pytest.mark.parametrize("raised", ["SystemExit(0)", "SystemExit(5)", "BaseException('b')", "Mute()"])
@pytest.mark.parametrize("command", ["solve", "check-operator"])
def test_an_operator_that_ends_the_program_or_cannot_say_why_is_blamed(
    raised, command, image, tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    text = "from test_cli_exit_codes import Mute" + LATE.format(after=6, result="x").replace('KeyError("late")', raised)
    (tmp_path / "late.py").write_text(text)
    arguments = (image, tmp_path / "o.npy", "--operator") if command == "solve" else ()
    done = cli(command, *arguments, "late.py:factory", *(("--no-check", *quick(tiny)) if command == "solve" else ()))
    assert done.code == 3, done
    assert "late.py:factory" in done.err
    assert not (tmp_path / "o.npy").exists()


def test_operations_that_a_backend_lacks_are_no_failure_of_the_gpu(image, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sparse.py").write_text(LATE.format(after=10**9, result="x.to_sparse()"))
    done = cli("solve", image, tmp_path / "o.npy", "--operator", "sparse.py:factory", "--no-check", *quick(tiny))
    clean_failure(done, 3, "sparse.py:factory")


def test_an_interruption_is_told_and_the_old_result_not_taken_for_a_new_one(image, tiny, tmp_path, monkeypatch):
    out = tmp_path / "o.npy"
    assert cli("denoise", image, out, *quick(tiny)).code == 0
    before = out.read_bytes()

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("iasolve.cli.answer.Work.finish", interrupt)
    clean_failure(cli("denoise", image, out, *quick(tiny), "--overwrite"), 130, "before the result was complete")
    assert out.read_bytes() == before
    monkeypatch.setattr("iasolve.cli.scores.compare_files", interrupt)
    clean_failure(cli("evaluate", out, out), 130, "interrupted")


def test_results_of_another_type_from_an_operator_that_was_not_checked(image, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.py").write_text(LATE.format(after=10**9, result="x.to(int)"))
    done = cli("solve", image, tmp_path / "o.npy", "--operator", "odd.py:factory", "--no-check", *quick(tiny))
    clean_failure(done, 3, "odd.py:factory")


@pytest.mark.parametrize(
    "change",
    [
        'learning_rate = "fast"',
        'batch = "many"',
        'images = "all"',
        "validate_every = 0",
        "warmup = 0",
    ],
)
def test_configurations_that_say_nonsense(change, heads, quick_statistics, tmp_path):
    np.savez(tmp_path / "heads.npz", images=heads.astype(np.float32))
    key = change.split()[0]
    text = "\n".join(line for line in CONFIG.splitlines() if not line.startswith(f"{key} ="))
    (tmp_path / "small.toml").write_text(f"{text}\n{change}\n")
    done = cli("train", tmp_path / "small.toml", "--out", tmp_path / "run")
    if change == "warmup = 0":  # which is no nonsense: no warm-up
        assert done.code in (0, 3)
        return
    clean_failure(done, 3, "small.toml")


def test_a_training_that_diverges(heads, quick_statistics, tmp_path):
    np.savez(tmp_path / "heads.npz", images=heads.astype(np.float32))
    text = "\n".join(line for line in CONFIG.splitlines() if not line.startswith("learning_rate"))
    (tmp_path / "small.toml").write_text(f"{text}\nlearning_rate = 1e30\n")
    done = cli("train", tmp_path / "small.toml", "--out", tmp_path / "run")
    clean_failure(done, 6, "training diverges", "there was no good one", "learning_rate")
    assert not list((tmp_path / "run").glob("*.safetensors"))


# --- evaluate, and what the headers of fastMRI's files say ------------------------------------------------------------

HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>32</x><y>32</y><z>1</z></matrixSize>
<fieldOfView_mm><x>160</x><y>160</y><z>5</z></fieldOfView_mm></reconSpace>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


@pytest.fixture
def oversampled(heads, tmp_path):
    """A slice of 32 x 32 in a field of view of 64 x 40, with the target as fastMRI has it."""
    wide = np.zeros((64, 40))
    wide[16:48, 4:36] = heads[0]
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wide), norm="ortho"))
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["kspace"] = kspace[None].astype(np.complex64)
        file["reconstruction_rss"] = heads[:1].astype(np.float32)
        file["ismrmrd_header"] = HEADER.format(x=64, y=40, fx=320, fy=200)
    return tmp_path / "file.h5"


def test_oversampling_is_cropped_as_the_header_says(oversampled, tiny, tmp_path):
    options = ("--prior", tiny, "--recipe", "fast", "--sigma", 1)
    out, whole = tmp_path / "o.h5", tmp_path / "whole.h5"
    done = cli("reconstruct", oversampled, out, *options, "--std-out", tmp_path / "std.npy", "--samples", 2, "--json")
    assert done.code == 0, done
    assert done.report["shape"] == [1, 1, SIZE, SIZE]
    assert done.report["operator"]["cropped"] == [SIZE, SIZE]
    assert "--keep-oversampling" in done.err
    assert np.load(tmp_path / "std.npy").shape == (1, SIZE, SIZE)
    assert cli("reconstruct", oversampled, whole, *options, "--keep-oversampling").code == 0
    with h5py.File(out) as a, h5py.File(whole) as b:
        assert b["reconstruction"].shape == (1, 64, 40)
        np.testing.assert_array_equal(a["reconstruction"], b["reconstruction"][:, 16:48, 4:36])
    scores = [cli("evaluate", path, f"{oversampled}:reconstruction_rss", "--json") for path in (out, whole)]
    assert all(done.code == 0 for done in scores), scores
    assert scores[0].report["files"][0]["mean"] == scores[1].report["files"][0]["mean"]
    assert "cropped from 64 x 40" in scores[1].err


def test_ranges_that_differ_are_warned_about(heads, tmp_path):
    from PIL import Image

    eight = heads[0].astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "8.png")
    Image.fromarray(eight.astype(np.uint16) * 257).save(tmp_path / "16.png")
    np.save(tmp_path / "unit.npy", eight / 255)
    for a, b, words in (("8", "16", "0.00389 times"), ("16", "8", "257 times")):
        done = cli("evaluate", tmp_path / f"{a}.png", tmp_path / f"{b}.png")
        assert done.code == 0
        assert words in done.err
    assert "times" in cli("evaluate", tmp_path / "unit.npy", tmp_path / "8.png").err
    assert cli("evaluate", tmp_path / "8.png", tmp_path / "8.png").err == ""


DEEP = "[" * 100_000


def test_brackets_within_brackets_in_reports(image, tiny, tmp_path):
    """Where a report is looked at: of a result, of a measurement, of pieces, of a training."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(image, source / "a.npy")
    assert cli("denoise", source, out, *quick(tiny)).code == 0
    (out / "a.npy.json").write_text(DEEP)
    done = cli("denoise", source, out, "--resume", *quick(tiny))
    assert done.code == 0, done
    assert "1 of 1 files done" in done.out
    (source / "a.npy.json").write_text(DEEP)
    assert cli("deblur", source / "a.npy", tmp_path / "b.npy", "--gaussian", 1, *quick(tiny)).code == 0
    pieces = out / ".iasolve-pieces.a.npy.0"
    pieces.mkdir()
    (pieces / "result").write_text(DEEP)
    assert cli("denoise", source / "a.npy", out / "a.npy", "--overwrite", *quick(tiny)).code == 0
    log = tmp_path / "log.jsonl"
    log.write_text('{"images": 1}\n' + DEEP + "\n")
    cut_log(log, 5)
    assert log.read_text() == '{"images": 1}\n'


def test_names_that_are_too_long_and_pipes_are_refused_before_the_work(image, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(iasolve, "solve", lambda *_, **__: pytest.fail("the work began"), raising=False)
    os.mkfifo(tmp_path / "pipe.npy")
    for given, words in (
        ((tmp_path / f"{'x' * 300}.npy",), "the name is too long. Expected at most 255 bytes"),
        ((tmp_path / f"{'x' * 249}.npy",), ".npy.json: the name is too long"),  # of the report beside it
        ((tmp_path / "o.npy", "--figure", tmp_path / f"{'x' * 300}.png"), "the name is too long"),
        ((tmp_path / "o.npy", "--report", tmp_path / f"{'x' * 300}.html"), "the name is too long"),
        ((tmp_path / "pipe.npy", "--overwrite"), "pipe.npy: this is a device or a pipe"),
    ):
        done = cli("denoise", image, *given, *quick(tiny))
        assert done.code == 2, done
        assert words in done.err


def test_a_volume_may_have_as_long_a_name_as_a_report_allows(image, tiny, tmp_path):
    out = tmp_path / f"{'x' * 240}.npy"
    np.save(tmp_path / "v.npy", np.stack([np.load(image)] * 3))
    done = cli("denoise", tmp_path / "v.npy", out, "--batch-size", 2, *quick(tiny))
    assert done.code == 0, done
    assert out.is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
