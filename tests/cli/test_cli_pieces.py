"""Long inputs in pieces: the same result to the bit, kept on the disk, gone on with, and within a budget."""

import json
import signal
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import torch
from apart import program_apart
from cli_fixtures import SIZE, cli, heads, tiny

import iasolve
from iasolve.cli import pieces as pieces_module
from iasolve.cli import solver as solver_module
from iasolve.cli.facts import joined_facts
from iasolve.files import read_image, write_image
from iasolve.files import stack as stack_module
from iasolve.operators import GaussianNoise, Identity

__all__ = ["heads", "tiny"]  # fixtures


def quick(tiny, *more):
    return ("--sigma", 20, "--prior", tiny, "--recipe", "fast", "--batch-size", 2, *more)


@pytest.fixture
def volume(heads, tmp_path):
    """Five slices: pieces of two, two and one."""
    noisy = np.concatenate([heads, heads])[:5] + np.random.default_rng(0).normal(0, 20, (5, *heads.shape[1:]))
    path = tmp_path / "volume.npy"
    np.save(path, noisy.astype(np.float32))
    return path


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def counted(monkeypatch):
    """The first images of the pieces that are solved; raise at one with ``counted.fails = first``."""
    begin = solver_module.Solver.part

    class Counted(list):
        fails = None
        error = KeyboardInterrupt

    seen = Counted()

    def part(self, source, rows):
        if rows.start == seen.fails:
            raise seen.error
        seen.append(rows.start)
        return begin(self, source, rows)

    monkeypatch.setattr(solver_module.Solver, "part", part)
    return seen


def test_a_volume_in_pieces_is_the_volume_to_the_bit(volume, counted, tiny, tmp_path):
    out, std = tmp_path / "out.npy", tmp_path / "std.npy"
    done = cli("denoise", volume, out, *quick(tiny, "--std-out", std, "--json"))
    assert done.code == 0, done
    assert counted == [0, 2, 4]
    assert hidden(tmp_path) == []
    recipe = iasolve.load_recipe("fast").changed(samples=8)
    y = np.load(volume)[:, None]
    operator, prior = Identity((1, SIZE, SIZE)), iasolve.load_prior(tiny)
    whole = iasolve.solve(y, operator, prior, noise=GaussianNoise(20.0), recipe=recipe, batch_size=2, warn=False)
    np.testing.assert_array_equal(np.load(out)[:, None], whole.image)
    np.testing.assert_array_equal(np.load(std)[:, None], whole.std)
    for key in ("sigma", "gain", "likeness", "improved"):
        np.testing.assert_allclose(done.report[key], getattr(whole, key), rtol=1e-6)
    assert all(len(row["misfit"]) == 5 for row in done.report["scales"])


def test_an_interrupted_volume_is_gone_on_with(volume, counted, tiny, tmp_path):
    plain = tmp_path / "plain.npy"
    assert cli("denoise", volume, plain, *quick(tiny)).code == 0
    counted.clear()
    out = tmp_path / "out.npy"
    counted.fails = 4
    done = cli("denoise", volume, out, *quick(tiny))
    assert done.code == 130
    assert "2 finished parts of it are kept: the same command goes on" in done.err
    assert not out.exists()
    counted.fails = None
    assert cli("denoise", volume, out, *quick(tiny)).code == 0
    assert counted == [0, 2, 4]
    assert hidden(tmp_path) == []
    np.testing.assert_array_equal(np.load(out), np.load(plain))
    reports = [json.loads(path.with_name(path.name + ".json").read_text()) for path in (plain, out)]
    for report in reports:
        del report["seconds"], report["output"]
    assert reports[0] == reports[1]


def test_what_was_finished_of_something_else_or_is_damaged_is_done_again(volume, counted, tiny, tmp_path):
    out = tmp_path / "out.npy"
    counted.fails, counted.error = 4, MemoryError
    assert cli("denoise", volume, out, *quick(tiny)).code == 5
    (first,) = hidden(tmp_path)
    (tmp_path / first / "0-2.npy").write_bytes(b"cut")
    assert cli("denoise", volume, out, *quick(tiny)).code == 5
    assert counted == [0, 2, 0]
    assert cli("denoise", volume, out, *quick(tiny, "--seed", 1)).code == 5
    assert counted == [0, 2, 0, 0, 2]
    (second,) = hidden(tmp_path)
    assert first != second
    np.save(volume, np.load(volume)[::-1])
    counted.fails = None
    assert cli("denoise", volume, out, *quick(tiny, "--seed", 1)).code == 0
    assert counted == [0, 2, 0, 0, 2, 0, 2, 4]
    assert hidden(tmp_path) == []


def test_a_folder_is_gone_on_with_inside_of_its_volumes(volume, counted, tiny, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    volume.rename(folder / "b.npy")
    np.save(folder / "a.npy", np.load(folder / "b.npy")[0])
    counted.fails = 2
    assert cli("denoise", folder, out, *quick(tiny)).code == 130
    assert counted == [0, 0]
    counted.fails = None
    assert cli("denoise", folder, out, *quick(tiny, "--resume")).code == 0
    assert counted == [0, 0, 2, 4]
    assert hidden(out) == []


def test_colours_are_pieces_too(heads, tiny, tmp_path, counted):
    path, out = tmp_path / "colour.npy", tmp_path / "out.npy"
    np.save(path, np.stack([heads[0], heads[1], heads[2], heads[0]])[..., None] * np.array([1, 0.5, 0.7]))
    assert cli("denoise", path, out, *quick(tiny)).code == 0
    assert counted == [0, 2, 4, 6, 8, 10]
    single = tmp_path / "blue.npy"
    np.save(single, np.load(path)[..., 2])
    assert cli("denoise", single, tmp_path / "one.npy", *quick(tiny)).code == 0
    np.testing.assert_allclose(np.load(out)[..., 2], np.load(tmp_path / "one.npy"), atol=1e-2)


def test_kspace_of_several_coils_with_maps_of_each_slice(heads, tiny, tmp_path, counted):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 2, SIZE, SIZE)) + 1j * rng.normal(size=(3, 2, SIZE, SIZE))
    maps /= np.sqrt((abs(maps) ** 2).sum(1, keepdims=True))
    images = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(maps * heads[:3, None], axes=(-2, -1)), norm="ortho"), (-2, -1)
    )
    path, given = tmp_path / "k.h5", tmp_path / "maps.npy"
    with h5py.File(path, "w") as file:
        file["kspace"] = images.astype(np.complex64)
    np.save(given, maps)
    options = ("--sigma", 1, "--prior", tiny, "--recipe", "fast", "--phase", "none", "--maps", given)
    done = cli("reconstruct", path, tmp_path / "out.npy", *options, "--batch-size", 1, "--json")
    assert done.code == 0, done
    assert counted == [0, 1, 2]
    assert [one["maps"] for one in done.report["operator"]["slices"]] == ["given"] * 3
    whole = iasolve.reconstruct(
        images.astype(np.complex64),
        iasolve.load_prior(tiny),
        maps=maps,
        noise=GaussianNoise(1.0),
        recipe="fast",
        phase="none",
        batch_size=1,
        warn=False,
    )
    np.testing.assert_allclose(np.load(tmp_path / "out.npy")[:, None], whole.image, rtol=0, atol=1e-3)


@pytest.fixture
def in_runs(monkeypatch):
    """Files of every size are read in runs of one image."""
    monkeypatch.setattr(stack_module, "LARGE", 1)
    monkeypatch.setattr(stack_module, "RUN", 1)


@pytest.mark.parametrize("suffix", [".nii.gz", ".tif", ".h5"])
@pytest.mark.slow
def test_a_long_volume_is_read_and_written_as_it_is_solved(suffix, volume, in_runs, tiny, tmp_path):
    plain, path, out, page = (tmp_path / name for name in ("plain.npy", f"in{suffix}", f"out{suffix}", "page.html"))
    write_image(path, np.load(volume)[:, None])
    assert cli("denoise", path, out, *quick(tiny, "--report", page, "--figure", tmp_path / "f.png")).code == 0
    assert cli("denoise", volume, plain, *quick(tiny)).code == 0
    np.testing.assert_array_equal(read_image(out).pixels[:, 0], np.load(plain))
    assert page.read_text().count("in" + suffix + ", ") >= 5
    assert hidden(tmp_path) == []


def test_a_volume_that_changes_while_it_is_solved_is_refused(volume, in_runs, counted, tiny, tmp_path, monkeypatch):
    solve = solver_module.Solver.solve

    def then_change(self, part, progress=None):
        piece = solve(self, part, progress)
        np.save(volume, np.load(volume)[::-1])
        return piece

    monkeypatch.setattr(solver_module.Solver, "solve", then_change)
    done = cli("denoise", volume, tmp_path / "out.npy", *quick(tiny))
    assert done.code == 3, done
    assert "changed or removed while it was being read" in done.err
    assert not (tmp_path / "out.npy").exists()


def test_long_kspace_is_read_as_it_is_solved(heads, in_runs, tiny, tmp_path):
    images = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(heads[:3, None], axes=(-2, -1)), norm="ortho"), (-2, -1))
    images[..., ::3] = 0
    found = []
    for name in ("k.npy", "k.npz"):  # in runs, and whole
        save = np.save if name == "k.npy" else np.savez
        save(tmp_path / name, images.astype(np.complex64))
        out = tmp_path / f"{name}.out.npy"
        done = cli("reconstruct", tmp_path / name, out, *quick(tiny)[2:], "--sigma", 1, "--json")
        assert done.code == 0, done
        found.append((np.load(out), done.report["operator"]["mask"], done.report["operator"]["acceleration"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:] == ("the non-zero columns", pytest.approx(32 / 21))


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ("much", 2, "expected bytes or a size such as '1.5GB'"),
        ("100MB", 5, "the memory budget is 0.10 GB, and an image of 32 x 32 pixels takes about 0.50 GB"),
        ("2GB", 0, ""),
    ],
)
def test_a_budget_is_kept_or_refused_with_words(given, code, says, volume, tiny, tmp_path):
    done = cli("denoise", volume, tmp_path / "out.npy", *quick(tiny)[:-2], "--memory", given)
    assert done.code == code, done
    assert says in done.err


def test_progress_counts_tiles(volume, tiny, monkeypatch):
    seen = []

    @contextmanager
    def progress(self, what, total, *, share):
        assert total == 9
        assert share
        yield lambda done, words: seen.append(done)

    monkeypatch.setattr("iasolve.cli.reporter.Reporter.progress", progress)
    wide = volume.with_name("wide.npy")
    np.save(wide, np.tile(np.load(volume)[:3], (1, 2, 1)))  # tiles of 32 in 64 pixels that overlap by 8: three
    assert cli("denoise", wide, volume.with_name("out.npy"), *quick(tiny, "--overlap", 8)).code == 0
    assert seen == sorted(seen)
    assert {0, 3, 6, 9} <= set(seen)


def test_what_is_said_of_several_pieces_is_said_once():
    said = ["its bound is 1.25 nats", "its bound is -3e-05 nats", "another"]
    parts = [
        {"seconds": 1.0, "said": [text], "sigma": [1.0], "scales": [], "solver": None, "slices": []} for text in said
    ]
    found = joined_facts(parts)
    assert found["said"] == ["its bound is 1.25 nats (so of 2 of 3 parts)", "another"]
    assert found["seconds"] == 3.0
    assert found["sigma"] == [1.0] * 3
    assert torch.tensor(found["sigma"]).shape == (3,)


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(volume, counted, tiny, tmp_path):
    """By SIGKILL, in a process of its own: nothing can be put in order at the end."""
    out, plain = tmp_path / "out.npy", tmp_path / "plain.npy"
    run = ("denoise", volume, out, "--sigma", 20, "--prior", tiny, "--steps", 20, "--batch-size", 2)
    process = program_apart(*run)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".iasolve-pieces.*/*.json")):
        assert process.running
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send(signal.SIGKILL)
    process.ended()
    assert not out.exists()
    left = len(list(tmp_path.glob(".iasolve-pieces.*/*.json")))
    assert cli(*run).code == 0
    assert counted == [0, 2, 4][left:]
    assert left in (1, 2)
    assert hidden(tmp_path) == []
    assert cli(*run[:2], plain, *run[3:]).code == 0
    np.testing.assert_array_equal(np.load(out), np.load(plain))


@pytest.mark.parametrize("folder", [False, True])
def test_pieces_left_beside_a_complete_result_go_with_the_next_command(
    folder, volume, counted, tiny, tmp_path, monkeypatch
):
    """A kill between the last name that is given and the removal, made exact: nothing is removed."""
    results = tmp_path / "results"
    places = (tmp_path / "in", results) if folder else (volume, results / "volume.npy")
    places[0].mkdir() if folder else results.mkdir()
    if folder:
        volume.rename(places[0] / "volume.npy")
    with monkeypatch.context() as patch:
        patch.setattr(pieces_module.Pieces, "remove", lambda self: None)
        assert cli("denoise", *places, *quick(tiny)).code == 0
    (left,) = results.glob(".iasolve-pieces.*")
    assert (left / "result").is_file()
    before = (results / "volume.npy").read_bytes()
    counted.clear()
    again = cli("denoise", *places, *quick(tiny, *(["--resume"] if folder else [])))
    assert again.code == (0 if folder else 2)
    assert folder or "exists already" in again.err
    assert counted == []
    assert hidden(results) == []
    assert (results / "volume.npy").read_bytes() == before


def test_pieces_of_another_result_stay_beside_a_complete_one(volume, counted, tiny, tmp_path):
    """Of an interrupted --overwrite: the old result stands, and what is finished of the new one is not lost."""
    out = tmp_path / "out.npy"
    assert cli("denoise", volume, out, *quick(tiny)).code == 0
    counted.fails = 4
    assert cli("denoise", volume, out, *quick(tiny, "--seed", 3, "--overwrite")).code == 130
    counted.fails = None
    assert cli("denoise", volume, out, *quick(tiny)).code == 2  # exists already
    assert len(hidden(tmp_path)) == 1
    counted.clear()
    assert cli("denoise", volume, out, *quick(tiny, "--seed", 3, "--overwrite")).code == 0
    assert counted == [4]
    assert hidden(tmp_path) == []


def test_volumes_are_compared_a_few_pages_at_a_time(volume, heads, tmp_path, monkeypatch):
    """The scores are those of whole arrays, also where pages of the one are colours of the other."""
    noisy = np.load(volume)[:3]
    np.save(tmp_path / "noisy.npy", noisy)
    np.save(tmp_path / "truth.npy", heads[:3].astype(np.float32))
    write_image(tmp_path / "colours.tif", noisy[np.newaxis])
    whole = cli("evaluate", tmp_path / "noisy.npy", tmp_path / "truth.npy", "--json").report
    for name, value in (("LARGE", 1), ("RUN", 1)):
        monkeypatch.setattr(stack_module, name, value)
    monkeypatch.setattr(stack_module.Stack, "__array__", lambda *_, **__: pytest.fail("all pages at once"))
    for name in ("noisy.npy", "colours.tif"):
        done = cli("evaluate", tmp_path / name, tmp_path / "truth.npy", "--json")
        assert done.code == 0, done
        assert str(done.report).replace(name, "") == str(whole).replace("noisy.npy", ""), name


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("task", ["denoise", "mask"])
def test_measurements_of_volumes_are_made_a_few_pages_at_a_time(task, suffix, volume, tmp_path, monkeypatch):
    """Without noise the same values as of whole arrays; with it each page has noise of its own."""

    def made(name, sigma):
        out = tmp_path / f"{name}{suffix}"
        done = cli("simulate", volume, out, "--task", task, "--sigma", sigma)
        assert done.code == 0, done
        if suffix == ".npy":
            return np.load(out)
        with np.load(out) as found:
            return found["kspace" if task == "mask" else "image"]

    whole = made("whole", 1e-30)  # lost in single precision
    for name, value in (("LARGE", 1), ("RUN", 1)):
        monkeypatch.setattr(stack_module, name, value)
    if suffix == ".npy" or task == "mask":  # archives of images are packed whole
        monkeypatch.setattr(stack_module.Stack, "__array__", lambda *_, **__: pytest.fail("all pages at once"))
    np.testing.assert_allclose(made("pieces", 1e-30), whole, rtol=0, atol=1e-20)
    noise = made("noisy", 5) - whole
    assert noise.shape == whole.shape
    seen = noise.reshape(len(noise), -1)[:, np.abs(noise).reshape(len(noise), -1).min(0) > 0]
    assert np.sqrt((np.abs(seen) ** 2).mean(1)) == pytest.approx(np.full(5, 5.0), rel=0.1)
    assert np.abs(np.corrcoef(np.abs(seen)) - np.eye(5)).max() < 0.15
