"""Folders on the command line: names, failures, resuming, interrupting."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest
from apart import program_apart
from cli_fixtures import SIZE, cli, heads, program, tiny
from PIL import Image
from tiny import tiny_network

from iasolve.priors import save_checkpoint

__all__ = ["heads", "tiny"]  # fixtures


@pytest.fixture
def folder(tmp_path, heads):
    """Three noisy heads in as many formats, and something that is no input."""
    path = tmp_path / "in"
    path.mkdir()
    noisy = heads + np.random.default_rng(0).normal(0, 20, heads.shape)
    np.save(path / "a.npy", noisy[0])
    Image.fromarray(noisy[1].clip(0, 255).astype(np.uint8)).save(path / "b.png")
    np.save(path / "c.npy", noisy[:2].astype(np.float32))
    (path / "notes.txt").write_text("not an image")
    return path


def kspace_of(images):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


def quick(tiny):
    return ("--sigma", 20, "--prior", tiny, "--recipe", "fast")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_fastmri_files_makes_what_its_evaluation_reads(heads, tiny, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    mask = np.zeros(SIZE, np.float32)
    mask[::2] = mask[12:20] = 1
    for name in ("file1.h5", "file2.h5"):
        with h5py.File(folder / name, "w") as file:
            file["kspace"] = (kspace_of(heads) * mask).astype(np.complex64)
            file["mask"] = mask
    (folder / "broken.h5").write_bytes(b"no HDF5")
    done = cli("reconstruct", folder, tmp_path / "out", *quick(tiny), "--std-out", tmp_path / "std")
    assert done.code == 7
    assert "broken.h5" in done.err
    assert names(tmp_path / "out") == ["file1.h5", "file1.h5.json", "file2.h5", "file2.h5.json"]
    assert names(tmp_path / "std") == ["file1.h5", "file2.h5"]
    with h5py.File(tmp_path / "out" / "file2.h5") as file:
        assert file["reconstruction"].shape == heads.shape


def test_complex_results_of_fastmri_files_are_arrays(heads, tiny, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with h5py.File(folder / "file.h5", "w") as file:
        file["kspace"] = kspace_of(heads[:1]).astype(np.complex64)
    prior = tmp_path / "complex.safetensors"
    card = json.loads(tiny.with_suffix(".json").read_text())
    own = ("format", "architecture", "parameters", "sha256")
    save_checkpoint(tiny_network(is_complex=True), {k: v for k, v in card.items() if k not in own}, prior)
    done = cli("reconstruct", folder, tmp_path / "out", *quick(prior))
    assert done.code == 0, done
    assert np.iscomplexobj(np.load(tmp_path / "out" / "file.npy"))


@pytest.mark.slow
def test_results_lie_beside_one_another_under_the_same_names(folder, tiny, tmp_path):
    out = tmp_path / "new" / "out"
    more = ("--std-out", tmp_path / "std", "--figure", tmp_path / "figures")
    done = cli("denoise", folder, out, *quick(tiny), *more)
    assert done.code == 0, done
    assert names(out) == ["a.npy", "a.npy.json", "b.png", "b.png.json", "c.npy", "c.npy.json"]
    assert names(tmp_path / "std") == ["a.npy", "b.npy", "c.npy"]
    assert names(tmp_path / "figures") == ["a.png", "b.png", "c.png"]
    assert np.load(out / "c.npy").shape == (2, SIZE, SIZE)
    assert "3 of 3 files done" in done.out
    alone = tmp_path / "alone.npy"
    assert cli("denoise", folder / "a.npy", alone, *quick(tiny), "--std-out", tmp_path / "one.npy").code == 0
    np.testing.assert_array_equal(np.load(alone), np.load(out / "a.npy"))


def test_a_file_that_fails_is_reported_at_the_end_and_does_not_stop_the_rest(folder, tiny, tmp_path):
    (folder / "aa.png").write_text("broken")
    np.save(folder / "bb.npy", np.full((SIZE, SIZE), np.nan))
    done = cli("denoise", folder, tmp_path / "out", *quick(tiny))
    assert done.code == 7
    assert "3 of 5 files done, 2 failed" in done.out
    lines = done.err.splitlines()
    assert lines[0] == "Error: 2 of 5 files failed:"
    assert "aa.png" in lines[1]
    assert "NaN" in lines[2]
    assert "Traceback" not in done.err
    assert names(tmp_path / "out") == ["a.npy", "a.npy.json", "b.png", "b.png.json", "c.npy", "c.npy.json"]
    done = cli("denoise", folder, tmp_path / "out", *quick(tiny), "--resume", "--json")
    assert done.code == 7
    assert done.report["skipped"] == 3
    assert [(f["name"], f["exit_code"]) for f in done.report["failed"]] == [("aa.png", 3), ("bb.npy", 3)]


def test_a_disk_that_is_full_for_one_file_is_that_files_fault(folder, tiny, tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if sum(name.endswith(".tmp") for name in calls) == 3:  # the image of b.png: a.npy had an image and a report
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    done = cli("denoise", folder, tmp_path / "out", *quick(tiny), "--json")
    assert done.code == 7, done
    ((failed, code),) = [(one["name"], one["exit_code"]) for one in done.report["failed"]]
    assert (failed, code) == ("b.png", 5)
    assert names(tmp_path / "out") == ["a.npy", "a.npy.json", "c.npy", "c.npy.json"], "nothing half written is left"


def test_resume_does_what_is_missing_or_incomplete_and_nothing_else(folder, tiny, tmp_path):
    out = tmp_path / "out"
    assert cli("denoise", folder, out, *quick(tiny)).code == 0
    kept = (out / "a.npy").stat().st_mtime_ns
    (out / "b.png").unlink()
    (out / "c.npy.json").write_text('{"iasolve"')
    done = cli("denoise", folder, out, *quick(tiny), "--resume", "--json")
    assert done.code == 0, done
    assert [report["output"] for report in done.report["files"]] == ["b.png", "c.npy"]
    assert done.report["skipped"] == 1
    assert (out / "a.npy").stat().st_mtime_ns == kept
    assert json.loads((out / "c.npy.json").read_text())["output"] == "c.npy"


def test_resume_does_again_what_was_made_with_other_settings(folder, tiny, tmp_path):
    out = tmp_path / "out"
    assert cli("denoise", folder, out, *quick(tiny)).code == 0
    done = cli("denoise", folder, out, "--sigma", 25, "--prior", tiny, "--recipe", "fast", "--resume", "--json")
    assert done.code == 0, done
    assert len(done.report["files"]) == 3
    assert "a.npy is done again: sigma 20.0 then, 25.0 now" in done.err
    assert json.loads((out / "a.npy.json").read_text())["sigma"] == [25]


def test_existing_results_are_kept_unless_it_is_said(folder, tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_text("precious")
    done = cli("denoise", folder, out, *quick(tiny))
    assert done.code == 2
    assert "--resume" in done.err
    assert names(out) == ["b.png"]
    assert cli("denoise", folder, out, *quick(tiny), "--overwrite").code == 0


@pytest.mark.parametrize("out", ["in", "in/a.npy", "out.png"])
def test_a_folder_goes_to_another_folder(out, folder, tiny, tmp_path):
    before = names(folder)
    done = cli("denoise", folder, tmp_path / out, *quick(tiny), "--overwrite")
    assert done.code == 2
    assert "folder" in done.err
    assert names(folder) == before


def test_an_empty_folder(tiny, tmp_path):
    (tmp_path / "in").mkdir()
    done = cli("denoise", tmp_path / "in", tmp_path / "out", *quick(tiny))
    assert done.code == 3
    assert ".png" in done.err
    assert not (tmp_path / "out").exists()


def test_names_that_differ_in_the_suffix_alone_stay_apart(folder, heads, tiny, tmp_path):
    Image.fromarray(heads[0].astype(np.uint8)).save(folder / "a.png")
    done = cli("denoise", folder, tmp_path / "out", *quick(tiny), "--std-out", tmp_path / "std")
    assert done.code == 0, done
    assert names(tmp_path / "std") == ["a.npy", "a.png.npy", "b.npy", "c.npy"]


def test_a_folder_through_simulation_reconstruction_and_evaluation(folder, tiny, tmp_path):
    y, out = tmp_path / "y", tmp_path / "out"
    done = cli("simulate", folder, y, "--task", "mask", "--acceleration", 2, "--sigma", 1)
    assert done.code == 0, done
    assert names(y)[::2] == ["a.npz", "b.npz", "c.npz"]
    with h5py.File(y / "d.h5", "w") as file, np.load(y / "a.npz") as data:
        file["kspace"] = data["kspace"][None]
        file["mask"] = data["mask"][0].astype(np.float32)
    done = cli("reconstruct", y, out, "--sigma", 1, "--prior", tiny, "--recipe", "fast")
    assert done.code == 0, done
    assert [name for name in names(out) if not name.endswith("json")] == ["a.npz", "b.npz", "c.npz", "d.h5"]
    with h5py.File(out / "d.h5") as file:
        np.testing.assert_array_equal(np.load(out / "a.npz")["image"], file["reconstruction"][0])
    (out / "d.h5").unlink()
    done = cli("evaluate", out, folder, "--json")
    assert done.code == 0, done
    assert all(scores["mean"]["psnr"] > 15 for scores in done.report["files"])


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar_and_stdout_stays_pure(folder, tiny, tmp_path):
    terminal, end = os.openpty()
    arguments = ["denoise", folder, tmp_path / "out", *quick(tiny), "--json"]
    shown = b""
    with (
        (tmp_path / "stdout").open("wb") as out,
        subprocess.Popen([*program(), *map(str, arguments)], stdout=out, stderr=end) as process,
    ):
        os.close(end)
        # read to its end while the program runs: a terminal holds little, and one that nobody reads stops the program
        with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
            while chunk := os.read(terminal, 65536):
                shown += chunk
    os.close(terminal)
    assert process.returncode == 0
    assert len(json.loads((tmp_path / "stdout").read_text())["files"]) == 3
    assert b"3/3" in shown or b"2/3" in shown


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(heads, tiny, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(6):
        np.save(source / f"{number}.npy", heads[0] + number)
    arguments = ["denoise", source, out, "--sigma", 5, "--prior", tiny, "--steps", 8]
    process = program_apart(*arguments)
    deadline = time.monotonic() + 120
    while not (out / "0.npy.json").exists():
        assert process.running
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send(signal.SIGINT)
    code, _, err = process.ended(60)
    assert code == 130
    assert "--resume" in err
    assert "Traceback" not in err
    finished = [name for name in names(out) if name.endswith(".json")]
    assert 1 <= len(finished) < 6
    assert f"interrupted: {len(finished)} of 6 files done" in err
    assert not [name for name in names(out) if name.startswith(".")]  # no temporary files
    for name in finished:
        assert np.isfinite(np.load(out / name.removesuffix(".json"))).all()
    kept = (out / "0.npy").stat().st_mtime_ns
    done = cli(*arguments, "--resume", "--json")
    assert done.code == 0, done
    assert done.report["skipped"] == len(finished)
    assert (out / "0.npy").stat().st_mtime_ns == kept
    assert len(names(out)) == 12
