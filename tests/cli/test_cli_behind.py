"""A folder's results reach the disk while the next file is being solved: order, errors and interruptions as ever."""

import errno
import os
import threading

import numpy as np
import pytest
from cli_fixtures import cli, heads, tiny

from iasolve.cli.answer import Work
from iasolve.files import WriteError, atomic, write_together

__all__ = ["heads", "tiny"]  # fixtures


@pytest.fixture
def folder(heads, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        np.save(tmp_path / "in" / f"{number}.npy", heads[number] + 1.0)
    return tmp_path


def denoise(folder, tiny, *more):
    return cli("denoise", folder / "in", folder / "out", "--sigma", 5, "--prior", tiny, "--recipe", "fast", *more)


def names(folder):
    return sorted(os.listdir(folder / "out"))


ALL = [f"{number}.npy{end}" for number in range(4) for end in ("", ".json")]


def watched(monkeypatch, before_commit):
    """Call ``before_commit`` with the name of each result, in the thread that brings it to the disk."""
    commit = atomic._commit

    def call(staged):
        before_commit(staged[0].target.name)
        commit(staged)

    monkeypatch.setattr(atomic, "_commit", call)


def test_the_next_file_is_solved_meanwhile(folder, tiny, monkeypatch):
    finish, solved = Work.finish, {n: threading.Event() for n in ("0.npy", "1.npy", "2.npy", "3.npy")}

    def finished(work, progress=None):
        answer = finish(work, progress)
        solved[work.source.like.path.name].set()
        return answer

    waited = []

    def before_commit(name):
        following = f"{int(name[0]) + 1}.npy"
        waited.append((name, solved[following].wait(60) if following in solved else None))
        assert threading.current_thread() is not threading.main_thread()

    monkeypatch.setattr(Work, "finish", finished)
    watched(monkeypatch, before_commit)
    assert denoise(folder, tiny).code == 0
    assert waited == [("0.npy", True), ("1.npy", True), ("2.npy", True), ("3.npy", None)]
    assert names(folder) == ALL


def test_a_full_disk_is_the_fault_of_its_own_file(folder, tiny, monkeypatch):
    (folder / "in" / "2.npy").write_text("broken")
    fsync, main = os.fsync, threading.main_thread()

    def full(descriptor):
        if threading.current_thread() is not main and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp"):
            calls.append(descriptor)
            if len(calls) == 3:  # the image of the second file; the first one has an image and a report
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    calls = []
    monkeypatch.setattr(atomic.os, "fsync", full)
    done = denoise(folder, tiny, "--json")
    assert done.code == 7, done
    assert [one["input"]["name"] for one in done.report["files"]] == ["0.npy", "3.npy"]
    failures = done.report["failed"]
    assert [(one["name"], one["exit_code"]) for one in failures] == [("1.npy", 5), ("2.npy", 3)]
    assert "no space left to write it" in failures[0]["error"]
    assert names(folder) == ["0.npy", "0.npy.json", "3.npy", "3.npy.json"], "nothing half written is left"
    np.save(folder / "in" / "2.npy", np.load(folder / "in" / "3.npy"))
    monkeypatch.setattr(atomic.os, "fsync", fsync)
    assert denoise(folder, tiny, "--resume", "--json").report["skipped"] == 2
    assert names(folder) == ALL


def test_an_interruption_waits_for_what_is_on_its_way(folder, tiny, monkeypatch):
    finish, interrupted = Work.finish, threading.Event()

    def finished(work, progress=None):
        if work.source.like.path.name == "2.npy":
            interrupted.set()
            raise KeyboardInterrupt
        return finish(work, progress)

    def before_commit(name):
        if name == "1.npy":
            assert interrupted.wait(60)

    monkeypatch.setattr(Work, "finish", finished)
    watched(monkeypatch, before_commit)
    done = denoise(folder, tiny, "--json")
    assert done.code == 130
    assert [one["input"]["name"] for one in done.report["files"]] == ["0.npy", "1.npy"]
    assert "interrupted: 2 of 4 files done, and intact" in done.err
    assert names(folder) == ALL[:4]


def test_files_that_are_written_later_are_not_there_before(tmp_path):
    waiting = []
    with write_together(waiting.append):
        for name in ("a", "b"):
            with atomic.atomic_write(tmp_path / name) as file:
                file.write(name.encode())
        assert atomic.sha256_of(tmp_path / "a") == atomic.sha256_of(tmp_path / "a")
    assert {path.suffix for path in tmp_path.iterdir()} == {".tmp"}
    (commit,) = waiting
    commit()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a", "b": "b"}
    with write_together(waiting.append), atomic.atomic_write(tmp_path / "c") as file:
        file.write(b"c")
    (tmp_path / "c").mkdir()
    with pytest.raises(WriteError):
        waiting[1]()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    with pytest.raises(ZeroDivisionError), write_together(waiting.append), atomic.atomic_write(tmp_path / "d"):
        raise ZeroDivisionError
    assert len(waiting) == 2
