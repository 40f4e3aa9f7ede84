"""What --resume compares, and what an interruption at any moment leaves behind."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from apart import program_apart
from cli_fixtures import SIZE, cli, heads, program, tiny

from iasolve import files
from iasolve.files import atomic

__all__ = ["heads", "tiny"]  # fixtures

OPERATOR = """
from iasolve.operators import LinearOperator
from parts import turned

def factory(gain):
    return LinearOperator.from_functions(lambda x: turned(x), lambda y: turned(y), in_shape=(1, 32, 32))
"""


@pytest.fixture
def folder(tmp_path, heads):
    path = tmp_path / "in"
    path.mkdir()
    for number in range(2):
        np.save(path / f"{number}.npy", heads[number])
    return path


def quick(tiny):
    return ("--sigma", 20, "--prior", tiny, "--recipe", "fast")


def done_again(done):
    assert done.code == 0, done
    return [report["output"] for report in done.report["files"]]


def test_a_changed_input_and_a_cut_output_are_done_again(folder, heads, tiny, tmp_path):
    out = tmp_path / "out"
    run = ("denoise", folder, out, *quick(tiny), "--resume", "--json")
    assert done_again(cli(*run)) == ["0.npy", "1.npy"]
    assert done_again(cli(*run)) == []
    np.save(folder / "0.npy", heads[2])
    done = cli(*run)
    assert done_again(done) == ["0.npy"]
    assert "0.npy is done again: 0.npy has changed" in done.err
    whole = (out / "1.npy").read_bytes()
    (out / "1.npy").write_bytes(whole[:-8])
    done = cli(*run)
    assert done_again(done) == ["1.npy"]
    assert "not as it was written" in done.err
    assert (out / "1.npy").read_bytes() == whole


def test_every_file_that_an_option_names_counts(folder, tiny, tmp_path):
    kernel = tmp_path / "kernel.npy"
    np.save(kernel, np.ones((3, 3)))
    run = ("deblur", folder, tmp_path / "out", "--kernel", kernel, *quick(tiny), "--resume", "--json")
    assert len(done_again(cli(*run))) == 2
    np.save(kernel, np.eye(3))
    done = cli(*run)
    assert len(done_again(done)) == 2
    assert "the file of --kernel has changed" in done.err
    card = json.loads(tiny.with_suffix(".json").read_text())
    copy = tmp_path / "tiny.safetensors"
    copy.write_bytes(tiny.read_bytes())
    copy.with_suffix(".json").write_text(json.dumps(card | {"sigma_x": [[2 * v for v in card["sigma_x"][0]]]}))
    run = tuple(copy if a is tiny else a for a in run)
    done = cli(*run)
    assert len(done_again(done)) == 2
    assert "the file of --prior (card) has changed" in done.err


@pytest.mark.slow
def test_a_corrected_operator_and_what_it_imports_count(folder, tiny, tmp_path):
    """In processes of their own, as a user runs them: a module is imported once in each."""
    (tmp_path / "parts.py").write_text("def turned(x):\n    return x\n")
    (tmp_path / "op.py").write_text(OPERATOR)
    (tmp_path / "args.toml").write_text("gain = 1\n")
    options = ("--operator", "op.py:factory", "--operator-args", "args.toml")
    run = ("solve", folder, "out", *options, *quick(tiny), "--resume", "--json")

    def files_done():
        done = program_apart(*run, cwd=tmp_path).ended()
        assert done.code == 0, done
        return len(json.loads(done.out)["files"]), done.err

    assert files_done()[0] == 2
    before = np.load(tmp_path / "out" / "0.npy")
    (tmp_path / "parts.py").write_text("def turned(x):\n    return x.flip(-1)\n")
    count, err = files_done()
    assert (count, "parts.py has changed" in err) == (2, True)
    assert not np.array_equal(np.load(tmp_path / "out" / "0.npy"), before)
    (tmp_path / "args.toml").write_text("gain = 2\n")
    assert files_done()[0] == 2
    assert files_done()[0] == 0


# --- interrupted anywhere -------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Nobody catches it, as nobody catches a power cut."""


def steps_of_a_commit(monkeypatch, fails_after):
    """Raise :class:`Crash` after so many replacements, removals and flushes to the disk; return how many there were."""
    count = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal count
            result = function(*arguments, **options)
            count += 1
            if count == fails_after:
                raise Crash
            return result

        return call

    monkeypatch.setattr(atomic.os, "replace", counted(os.replace))
    monkeypatch.setattr(atomic.os, "fsync", counted(os.fsync))
    monkeypatch.setattr(atomic.Path, "unlink", counted(atomic.Path.unlink))
    return lambda: count


@pytest.mark.parametrize("suffix", [".npy", ".cfl"])
@pytest.mark.slow
def test_a_crash_at_any_moment_never_mixes_old_and_new(suffix, tmp_path, monkeypatch):
    shapes = {"old": (1, 1, 6, 5), "new": (1, 1, 4, 7)}

    def write(age):
        with files.write_together():
            files.write_image(tmp_path / f"a{suffix}", np.full(shapes[age], len(age), np.float32))
            files.write_image(tmp_path / f"std{suffix}", np.full(shapes[age], len(age), np.float32))
            files.write_json(tmp_path / "a.json", {"age": age})

    def ages():
        found = set()
        for name in ("a", "std"):
            path = tmp_path / f"{name}{suffix}"
            if path.exists():
                shape = files.read_image(path).pixels.shape  # a pair is never half there
                found.add(next(age for age, known in shapes.items() if known == shape))
        report = tmp_path / "a.json"
        sealed = json.loads(report.read_text())["age"] if report.exists() else None
        return found, sealed

    moments = 0
    while True:
        moments += 1
        write("old")
        with monkeypatch.context() as patch:
            steps_of_a_commit(patch, moments)
            try:
                write("new")
            except Crash:
                pass
            else:
                break
        found, sealed = ages()
        assert len(found) <= 1, (moments, found)
        assert sealed is None or found == {sealed}, (moments, found, sealed)
        if sealed:
            assert (tmp_path / f"std{suffix}").exists()
    assert moments > 10
    assert ages() == ({"new"}, "new")


def test_leftovers_of_dead_processes_are_swept_and_those_of_the_living_kept(folder, tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    living = out / f".iasolve.{atomic._host()}.{os.getppid()}.0123.tmp"
    for path in (living, out / f".iasolve.{atomic._host()}.{dead.pid}.0123.tmp", out / ".mine.tmp"):
        path.write_bytes(b"half")
    assert cli("denoise", folder, out, *quick(tiny)).code == 0
    hidden = [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert sorted(hidden) == sorted([living.name, ".mine.tmp"])


@pytest.mark.slow
def test_sigterm_is_an_interruption_too(folder, heads, tiny, tmp_path):
    """The other one, Ctrl-C, is in test_cli_folders."""
    out = tmp_path / "out"
    for item in range(2, 8):
        np.save(folder / f"{item}.npy", heads[0] + item)
    arguments = ["denoise", folder, out, "--sigma", 5, "--prior", tiny, "--steps", 25]
    process = subprocess.Popen([*program(), *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "0.npy.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert {path.name for path in out.glob("*.npy")} == {path.stem for path in out.glob("*.json")}
    assert np.load(out / "0.npy").shape == (SIZE, SIZE)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("many", [True, False])
def test_a_lost_interruption_is_heard(many, name, folder, tiny, tmp_path, monkeypatch, request):
    """NumPy's reader loses what a signal raises in it, and raises a TypeError in its place."""
    usual, kind = np.lib.format.read_array, getattr(signal, name)

    def read(stream, **options):
        if many and Path(stream.name).name == "0.npy":
            return usual(stream, **options)
        try:
            os.kill(os.getpid(), kind)
            time.sleep(5)
        except KeyboardInterrupt:
            raise TypeError("expected str, bytes or os.PathLike object, not BufferedReader") from None

    monkeypatch.setattr(np.lib.format, "read_array", read)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    out = tmp_path / "out"
    out.mkdir()
    done = cli("denoise", folder if many else folder / "0.npy", out if many else out / "0.npy", *quick(tiny))
    assert done.code == 130, done
    assert "interrupted" in done.err
    assert "cannot be decoded" not in done.err
    assert [path.name for path in out.glob("*.npy")] == ["0.npy"] * many
