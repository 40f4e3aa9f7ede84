"""Disks that take no more and folders that are closed: a code, words, and nothing half written."""

import contextlib
import errno
import json
import os

import numpy as np
import pytest
from cli_fixtures import cli, heads, quick_statistics, tiny
from test_cli_failures import CONFIG

import iasolve
from iasolve.priors import PriorError, save_checkpoint
from iasolve.training.log import append_row

resource = pytest.importorskip("resource")
__all__ = ["heads", "quick_statistics", "tiny"]  # fixtures


@contextlib.contextmanager
def no_file_beyond(size):
    """What writes more than so many bytes into a file fails, as on a full disk: every library meets it for itself."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def closed(monkeypatch, folder):
    """A folder in which nothing may be written, to root either."""
    allowed = os.access

    def access(path, mode, **options):
        return not (mode & os.W_OK and os.path.samefile(path, folder)) and allowed(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", access)
        yield


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def failed(done, code, *words):
    assert done.code == code, done
    assert "Traceback" not in done.err
    assert done.err.startswith("Error: ")
    for word in words:
        assert word in done.err


@pytest.fixture
def image(tmp_path, heads):
    np.save(tmp_path / "x.npy", heads[0].astype(np.float32))
    return tmp_path / "x.npy"


@pytest.fixture
def volume(tmp_path, heads):
    np.save(tmp_path / "v.npy", np.concatenate([heads, heads])[:5].astype(np.float32))
    return tmp_path / "v.npy"


def quick(tiny, sigma=20):
    return ("--sigma", sigma, "--prior", tiny, "--recipe", "fast")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".nii", ".nii.gz", ".mat", ".h5", ".cfl"])
def test_every_format_on_a_full_disk(suffix, image, tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    given = ("denoise", image, out / f"o{suffix}", "--overwrite")
    with no_file_beyond(0):
        failed(cli(*given, *quick(tiny)), 5, f"{out}{os.sep}o.", "writing failed", "nothing of it was written")
    assert not list(out.iterdir())
    assert cli(*given, *quick(tiny)).code == 0
    before = contents(out)
    with no_file_beyond(3000):  # of 4,096 in the image
        failed(cli(*given, *quick(tiny, 30)), 5)
    assert contents(out) == before


@pytest.mark.parametrize("size", [100, 4500, 9000])
@pytest.mark.slow
def test_every_file_of_a_result_on_a_full_disk(size, image, tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    given = ("denoise", image, out / "o.npy", "--std-out", out / "s.npy", "--figure", out / "f.png", "--overwrite")
    assert cli(*given, *quick(tiny)).code == 0
    before = contents(out)
    with no_file_beyond(size):
        failed(cli(*given, *quick(tiny, 30)), 5, {100: "o.npy", 4500: "f.png", 9000: "f.png"}[size])
    assert contents(out) == before


def test_a_page_that_cannot_be_written_leaves_no_page_of_an_older_result(image, tiny, tmp_path):
    given = ("denoise", image, tmp_path / "o.npy", "--report", tmp_path / "page.html", "--overwrite")
    assert cli(*given, *quick(tiny)).code == 0
    size = (tmp_path / "page.html").stat().st_size
    with no_file_beyond(size // 2):
        failed(cli(*given, *quick(tiny, 30)), 5, "page.html")
    assert not (tmp_path / "page.html").exists()
    assert cli("report", tmp_path / "o.npy", tmp_path / "page.html").code == 0


def test_pieces_of_a_volume_on_a_full_disk(volume, tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    given = ("denoise", volume, out / "o.npy", *quick(tiny), "--batch-size", 2)
    with no_file_beyond(5000):  # less than a piece
        failed(cli(*given), 5)
    assert not list(out.iterdir())
    with no_file_beyond(12_000):  # the pieces, not the result
        done = cli(*given)
    assert done.code == 5
    said, error = done.err.splitlines()
    assert "3 finished parts of it are kept: the same command goes on from there" in said
    assert "o.npy" in error
    assert not (out / "o.npy").exists()
    assert cli(*given).code == 0
    assert sorted(path.name for path in out.iterdir()) == ["o.npy", "o.npy.json"]


def test_measurements_on_a_full_disk(image, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    given = ("simulate", image, out / "y.npz", "--task", "mask", "--mask-out", out / "m.png", "--overwrite")
    for size in (0, 60, 1000):
        with no_file_beyond(size):
            failed(cli(*given), 5)
        assert not contents(out)
    assert cli(*given).code == 0
    before = contents(out)
    with no_file_beyond(1000):
        failed(cli(*given, "--seed", 1), 5)
    assert contents(out) == before


def test_a_row_of_the_log_is_whole_or_not_there(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    append_row(log, {"images": 1})
    before = log.read_bytes()
    with no_file_beyond(len(before) + 4), pytest.raises(OSError, match="large") as caught:
        append_row(log, {"images": 2})
    assert log.read_bytes() == before
    assert caught.value.filename == str(log)


def test_weights_never_stand_beside_the_card_of_others(tmp_path, monkeypatch):
    from tiny import tiny_network

    path = tmp_path / "p.safetensors"
    save_checkpoint(tiny_network(0), {}, path)
    replace, calls = os.replace, []

    def crash(*names):
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tiny_network(1), {}, path)
    monkeypatch.undo()
    assert not path.with_suffix(".json").exists()
    with pytest.raises(PriorError, match="no card"):
        iasolve.load_prior(path)


def test_closed_folders_are_refused_before_the_work(volume, tiny, tmp_path, monkeypatch):
    shut, source = tmp_path / "shut", tmp_path / "in"
    for folder in (shut, source):
        folder.mkdir()
    np.save(source / "a.npy", np.load(volume)[0])
    monkeypatch.setattr(iasolve, "solve", lambda *_, **__: pytest.fail("the work began"), raising=False)
    with closed(monkeypatch, shut):
        for option in ("--std-out", "--figure"):
            done = cli("denoise", source, tmp_path / "out", option, shut, *quick(tiny))
            failed(done, 2, "shut is not writable", "Choose another one")
        failed(cli("denoise", source, shut, *quick(tiny)), 2, "shut is not writable")
        failed(cli("simulate", source, shut, "--task", "denoise", "--sigma", 1), 2, "shut is not writable")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.ENOSPC, "no space left"),
        (errno.EIO, "the system refused"),
    ],
)
def test_what_the_system_refuses_is_told_in_words(number, words, image, tiny, tmp_path, monkeypatch):
    def solve(*_, **__):
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr(iasolve, "solve", solve, raising=False)
    done = cli("denoise", image, tmp_path / "o.npy", *quick(tiny))
    failed(done, 5, f"some/file: {words} ({os.strerror(number)}). Expected")
    assert "Errno" not in done.err


@pytest.mark.slow
def test_a_training_on_a_full_disk(tmp_path, heads, quick_statistics):
    """No log, no checkpoint, no prior: each is whole or not there, and what was there goes on."""
    np.savez(tmp_path / "heads.npz", images=heads.astype(np.float32))
    config, run = tmp_path / "small.toml", tmp_path / "run"
    config.write_text(CONFIG)
    given = ("train", config, "--out", run)
    for size, name in ((20, "log.jsonl"), (4000, "checkpoint.safetensors")):
        with no_file_beyond(size):
            failed(cli(*given), 5, name, "nothing of it was written")
        assert not list(run.iterdir())
    assert cli(*given).code == 0
    before = contents(run)
    with no_file_beyond(4000):
        failed(cli(*given, "--overwrite"), 5, "checkpoint.safetensors")
    assert contents(run) == before
    config.write_text(CONFIG.replace("images = 8", "images = 12"))
    with no_file_beyond(4000):
        failed(cli(*given, "--resume"), 5, "checkpoint.safetensors")
    after = contents(run)
    assert {path for path in before if before[path] != after.get(path)} == {run / "log.jsonl"}
    done = cli(*given, "--resume", "--json")
    assert done.code == 0, done
    assert [json.loads(line)["images"] for line in (run / "log.jsonl").read_text().splitlines()] == [4, 8, 12]


def test_a_training_in_a_closed_folder_is_refused_before_the_work(tmp_path, heads, monkeypatch):
    np.savez(tmp_path / "heads.npz", images=heads.astype(np.float32))
    (tmp_path / "small.toml").write_text(CONFIG)
    (tmp_path / "shut").mkdir()
    with closed(monkeypatch, tmp_path / "shut"):
        done = cli("train", tmp_path / "small.toml", "--out", tmp_path / "shut")
    failed(done, 2, "shut is not writable", "Choose another one")
    assert not list((tmp_path / "shut").iterdir())
