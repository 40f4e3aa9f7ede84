"""What the command line does when something is wrong: inputs, priors, devices, disks, results."""

import errno
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_fixtures import SIZE, cli, heads, program, quick_statistics, tiny
from PIL import Image
from safetensors.torch import load_file, save_file

import iasolve

__all__ = ["heads", "quick_statistics", "tiny"]  # fixtures


@pytest.fixture
def image(tmp_path, heads):
    path = tmp_path / "x.npy"
    np.save(path, heads[0])
    return path


def quick(tiny):
    return ("--sigma", 20, "--prior", tiny, "--recipe", "fast")


def clean_failure(done, code, *words):
    """An error of this code, in one or two lines that hold these words."""
    assert done.code == code, done
    assert not done.out or done.out.startswith("training small")
    assert done.err.startswith("Error: ")
    assert len(done.err.splitlines()) <= 2
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


# --- 3: unreadable or unfit input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.png", None, ["no such file"]),
        ("empty.png", b"", ["empty"]),
        ("text.png", b"this is no picture", ["cannot be decoded"]),
        ("broken.npy", b"\x93NUMPY\x01\x00garbage", ["cannot be decoded"]),
        ("letter.docx", b"PK", ["docx"]),
    ],
)
def test_unreadable_files(name, content, words, tiny, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.npy"
    clean_failure(cli("denoise", tmp_path / name, out, *quick(tiny)), 3, name, *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), ["1 NaN", "1 infinite"]),
        (np.zeros((0, 4)), ["empty"]),
        (np.zeros((2, 3, 4, 5, 6)), ["shape"]),
        (np.full((SIZE, SIZE), 1j), ["complex", "reconstruct"]),
        (np.ones((4, 4)), ["noise level"]),
    ],
)
def test_unfit_arrays(array, words, tiny, tmp_path):
    np.save(tmp_path / "x.npy", array)
    done = cli("denoise", tmp_path / "x.npy", tmp_path / "o.npy", "--prior", tiny, "--recipe", "fast")
    clean_failure(done, 3, "x.npy", *words)


def test_a_truncated_png(image, heads, tiny, tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(heads[0].astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    clean_failure(cli("denoise", path, tmp_path / "o.png", *quick(tiny)), 3, "x.png")


def test_an_image_is_no_kspace_and_a_derivative_no_kernel(image, tiny, tmp_path):
    clean_failure(cli("reconstruct", image, tmp_path / "o.npy", *quick(tiny)), 3, "complex k-space")
    np.save(tmp_path / "kernel.npy", np.array([[1.0, -1.0]]))
    done = cli("deblur", image, tmp_path / "o.npy", "--kernel", tmp_path / "kernel.npy", *quick(tiny))
    clean_failure(done, 3, "sum to zero")
    np.save(tmp_path / "kernel.npy", np.ones((SIZE + 1, 3)))
    done = cli("deblur", image, tmp_path / "o.npy", "--kernel", tmp_path / "kernel.npy", *quick(tiny))
    clean_failure(done, 3, "larger than the image", "33x3")
    clean_failure(cli("deblur", image, tmp_path / "o.npy", "--gaussian", 1e6, *quick(tiny)), 3, "wider than the image")


def test_kspace_of_nothing(tiny, tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((SIZE, SIZE), np.complex64))
    clean_failure(cli("reconstruct", tmp_path / "y.npy", tmp_path / "o.npy", *quick(tiny)), 3, "nothing was measured")


def test_colours_have_no_kspace(heads, tmp_path):
    Image.fromarray(np.stack([heads[0]] * 3, -1).astype(np.uint8)).save(tmp_path / "x.png")
    done = cli("simulate", tmp_path / "x.png", tmp_path / "y.npy", "--task", "mask")
    clean_failure(done, 3, "colour")


# --- 2: outputs that are in the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize("existing", ["o.npy", "o.npy.json", "std.npy", "figure.png"])
@pytest.mark.slow
def test_nothing_is_replaced_unless_it_is_asked_for(existing, image, tiny, tmp_path):
    (tmp_path / existing).write_text("precious")
    given = ("denoise", image, tmp_path / "o.npy", *quick(tiny), "--std-out", tmp_path / "std.npy")
    given += ("--figure", tmp_path / "figure.png")
    clean_failure(cli(*given), 2, existing, "--overwrite")
    assert (tmp_path / existing).read_text() == "precious"
    assert cli(*given, "--overwrite").code == 0
    assert (tmp_path / existing).read_bytes() != b"precious"


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_outputs_that_name_no_file(name, image, tiny, tmp_path):
    for arguments in ((name,), (name, "--report", tmp_path / "r.html"), (tmp_path / "o.npy", "--std-out", name)):
        clean_failure(cli("denoise", image, *arguments, *quick(tiny)), 2, "this is a folder")


def test_the_input_is_never_the_output(image, tiny, tmp_path):
    before = image.read_bytes()
    clean_failure(cli("denoise", image, image, *quick(tiny), "--overwrite"), 2, "the input")
    (tmp_path / "link.npy").symlink_to(image)
    clean_failure(cli("denoise", image, tmp_path / "link.npy", *quick(tiny), "--overwrite"), 2, "the input")
    assert image.read_bytes() == before


# --- 4: priors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tiny, tmp_path):
    """A copy of the tiny prior that may be damaged."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(tiny.with_suffix(suffix), tmp_path / f"prior{suffix}")
    return tmp_path / "prior.safetensors"


def flip_a_byte(prior):
    content = bytearray(prior.read_bytes())
    content[len(content) // 2] ^= 1
    prior.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, ["damaged", "SHA-256"]),
        (lambda prior: prior.write_bytes(prior.read_bytes()[:-9]), ["damaged"]),
        (lambda prior: prior.unlink(), ["no file"]),
        (lambda prior: prior.with_suffix(".json").unlink(), ["no card"]),
        (lambda prior: prior.with_suffix(".json").write_text("{"), ["cannot be read"]),
        (lambda prior: prior.with_suffix(".json").write_text('{"format": 99}'), ["format 99"]),
    ],
)
def test_missing_and_damaged_priors(damage, words, copied, image, tmp_path):
    assert cli("prior", "verify", copied).code == 0
    damage(copied)
    clean_failure(cli("prior", "verify", copied), 4, *words)
    clean_failure(cli("denoise", image, tmp_path / "o.npy", "--prior", copied), 4, *words)
    assert not (tmp_path / "o.npy").exists()


def test_a_prior_nobody_knows(image, tmp_path):
    clean_failure(cli("denoise", image, tmp_path / "o.npy", "--prior", "no-such"), 4, "no-such", "bundled")
    clean_failure(cli("prior", "show", "no-such"), 4, "no-such")


def test_the_card_is_shown(tiny):
    shown = cli("prior", "show", tiny)
    for text in ("CC BY 4.0", "widths", "sigma_x", "unexplained", "images"):
        assert text in shown.out
    assert cli("prior", "show", tiny, "--json").report == json.loads(tiny.with_suffix(".json").read_text())
    assert "intact" in cli("prior", "verify", tiny).out


def test_an_image_unlike_the_priors_data_is_warned_about_with_the_number(copied, image, tmp_path):
    card = json.loads(copied.with_suffix(".json").read_text())
    card["validation"] = {"elbo": 90.0, "elbo_lowest": 80.0}
    copied.with_suffix(".json").write_text(json.dumps(card))
    done = cli("denoise", image, tmp_path / "o.npy", *quick(copied))
    assert done.code == 0
    assert done.err.startswith("Warning: ")
    assert "unlike" in done.err
    assert "80.00" in done.err
    report = json.loads((tmp_path / "o.npy.json").read_text())
    assert len(report["warnings"]) == 1
    assert f"{report['likeness'][0]:.2f}" in report["warnings"][0]


# --- 5, 6, 1: devices, memory, disks, non-finite results, the unforeseen --------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(image, tiny, tmp_path):
    done = cli("denoise", image, tmp_path / "o.npy", *quick(tiny), "--device", "cuda")
    clean_failure(done, 5, "no CUDA device", "--device cpu")


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (MemoryError(), 5, "--memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 5, "--memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory: you tried 9 TB"), 5, "--memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 5, "--device cpu"),
        (ZeroDivisionError("surprise"), 1, "--debug"),
    ],
)
def test_trouble_on_the_way(error, code, word, image, tiny, tmp_path, monkeypatch):
    def solve(*_, **__):
        raise error

    monkeypatch.setattr(iasolve, "solve", solve, raising=False)
    clean_failure(cli("denoise", image, tmp_path / "o.npy", *quick(tiny)), code, word)
    assert not (tmp_path / "o.npy").exists()


def test_ctrl_c_between_a_result_and_its_report_waits_for_both(image, tiny, tmp_path, monkeypatch):
    from iasolve.cli import answer

    write = answer.write_json

    def press(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return write(*arguments, **options)

    monkeypatch.setattr(answer, "write_json", press)
    # a program that was started in the background ignores it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = cli("denoise", image, tmp_path / "o.npy", *quick(tiny))
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert "interrupted; the result is written" in done.err
    assert (tmp_path / "o.npy").is_file()
    assert (tmp_path / "o.npy.json").is_file()


def test_debug_shows_where_an_error_comes_from(image, tmp_path):
    done = cli("denoise", image, tmp_path / "o.npy", "--prior", "no-such", "--debug")
    assert done.code == 4
    assert "Traceback" in done.err
    assert "PriorError" in done.err


def test_a_full_disk_leaves_nothing_behind(image, tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    clean_failure(cli("denoise", image, tmp_path / "o.npy", *quick(tiny)), 5, "no space left")
    assert sorted(tmp_path.iterdir()) == before


def test_a_result_that_is_not_finite(copied, image, tmp_path):
    tensors = load_file(copied)
    name = next(name for name in sorted(tensors) if name.startswith("stages.3.head") and name.endswith("weight"))
    tensors[name][:] = float("nan")
    save_file(tensors, copied)
    card = json.loads(copied.with_suffix(".json").read_text())
    card["sha256"] = hashlib.sha256(copied.read_bytes()).hexdigest()
    copied.with_suffix(".json").write_text(json.dumps(card))
    clean_failure(cli("denoise", image, tmp_path / "o.npy", *quick(copied)), 6, "NaN")
    assert not (tmp_path / "o.npy").exists()


def test_the_program_hands_exit_codes_to_the_shell(image, tmp_path):
    def code(*arguments):
        return subprocess.run([*program(), *map(str, arguments)], capture_output=True).returncode

    assert code("recipe", "show", "no-such") == 2
    assert code("evaluate", image, tmp_path / "missing.npy") == 3


def test_a_reader_of_the_output_that_has_gone_is_no_unknown_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*program(), "recipe", "show", "fast"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
def test_streams_that_were_closed_before_the_program_began():
    command = " ".join(map(shlex.quote, [*program(), "recipe", "show"]))
    for closed, name, code in ((">&-", "fast", 0), ("2>&-", "no-such", 2), ("<&- >&- 2>&-", "no-such", 2)):
        done = subprocess.run(f"{command} {name} {closed}", shell=True, capture_output=True, check=False)
        assert done.returncode == code, (closed, name, done)


# --- train ----------------------------------------------------------------------------------------------------------

CONFIG = """
name = "small"

[network]
size = 32
grid_cap = 16
head_blocks = 1
widths = [8, 8, 8, 8, 8, 8]
layers = [1, 1, 1, 1, 1, 1]
latents = [2, 2, 2, 2, 2, 2]
encoder_blocks = [1, 1, 1, 1, 1, 1]

[data]
path = "heads.npz"
validation_every = 4

[[degradations]]
weight = 1.0
sigma = [0.1, 0.5]

[optimisation]
images = 8
batch = 4
degraded = 0.5
validate_every = 4
"""


@pytest.fixture
def config(tmp_path, heads, quick_statistics):
    np.savez(tmp_path / "heads.npz", images=heads.astype(np.float32))
    path = tmp_path / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.mark.slow
def test_training_makes_a_prior_that_solves(config, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("train", config)
    assert done.code == 0, done
    prior = Path("runs/small/small.safetensors")
    assert "val ELBO" in done.out
    assert cli("prior", "verify", prior).code == 0
    assert cli("denoise", image, tmp_path / "o.npy", *quick(prior)).code == 0
    assert cli("train", config).code == 2  # a run is there already
    config.write_text(CONFIG.replace("images = 8", "images = 12"))
    done = cli("train", config, "--resume", "--json")
    assert done.code == 0, done
    assert done.report["log"][-1]["images"] == 12
    done = cli("train", config, "--init", prior, "--out", "second", "--minutes", "0.0001", "--json")
    assert done.code == 0, done
    assert Path(done.report["prior"]) == Path("second/small.safetensors")


def test_training_refuses_what_it_cannot_do(config, tmp_path):
    out = ("--out", tmp_path / "run")
    clean_failure(cli("train", tmp_path / "missing.toml", *out), 3, "no such file")
    clean_failure(cli("train", config, "--resume", *out), 2, "nothing to resume")
    clean_failure(cli("train", config, "--init", "no-such", *out), 4, "no-such")
    config.write_text(CONFIG.replace("widths", "widhts"))
    clean_failure(cli("train", config, *out), 3, "widhts")
    config.write_text("= 3")
    clean_failure(cli("train", config, *out), 3, "TOML")
    config.write_text(CONFIG.replace("heads.npz", "tails.npz"))
    clean_failure(cli("train", config, *out), 3, "tails.npz")
    config.write_text(CONFIG.replace("validation_every = 4", 'validation_every = 4\nimages = "pictures"'))
    clean_failure(cli("train", config, *out), 3, "pictures")


def test_an_address_space_too_small_for_the_libraries(tmp_path):
    """They end the program with abort(), or try for ever: it is refused before they are loaded."""
    np.save(tmp_path / "a.npy", np.ones((16, 16)))
    limit = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (500_000_000,) * 2); import iasolve.cli as c; "
    )
    for arguments, code, words in (
        (["info", str(tmp_path / "a.npy")], 5, "the limit of the address space is 0.50 GB"),
        (["--version"], 0, ""),
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"{limit}c.main({arguments!r})"], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done
        assert words in done.stderr
        assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize("name", [b"\xff.npy", rb"a$\frac{$.npy", b"two\nlines.npy"])
def test_names_of_files_that_are_no_text_or_no_mathematics(name, image, tiny, tmp_path):
    """They stand in figures, pages and reports."""
    source, out = (tmp_path / os.fsdecode(start + name) for start in (b"", b"out-"))
    image.rename(source)
    asked = ("--figure", tmp_path / "f.png", "--report", tmp_path / "page.html", "--json")
    done = cli("denoise", source, out, "--prior", tiny, "--sigma", 5, *asked)
    assert done.code == 0, done.err
    assert done.report["input"]["name"] == source.name
    assert all(path.is_file() for path in (out, tmp_path / "f.png", tmp_path / "page.html"))
