"""Trainings that survive: kills at any moment, bursts, damaged states, other configurations, slow machines."""

import json
import math
import os
import signal
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from apart import Apart, pair
from safetensors.torch import load_file, save_file
from test_training import blobs, config, log
from watching import at_validation

from iasolve.training import Status, Trainer, loop, train
from iasolve.training.burst import HALVINGS, DivergedError, judge, rate_factor
from iasolve.training.log import append_row, cut_log
from iasolve.training.parts import HierarchyPart
from iasolve.training.progress import Progress
from iasolve.training.speed import Speed

CLOCK = {"seconds", "images_per_second"}
SHORT = {"images": 96, "validate_every": 16, "decay": 0.5}


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("survival")
    np.savez(path / "blobs.npz", images=blobs(), label=np.arange(24) % 3, number=np.arange(100, 124))
    return path


@pytest.fixture(scope="module", autouse=True)
def _quick_statistics():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=8))
        yield


@pytest.fixture(scope="module")
def whole(folder):
    """A run in one go, its rate falling over the second half, and its log."""
    path = train(config(folder, **SHORT), folder / "whole")
    return path, without_clock(log(folder / "whole"))


@pytest.mark.slow
def test_where_bfloat16_would_be_emulated_a_run_is_that_of_float32_and_says_so(folder, monkeypatch):
    """A processor without instructions for it takes a hundred times as long to multiply."""
    short = {"images": 16, "validate_every": 16}
    plain = train(config(folder, **short), folder / "plain")
    monkeypatch.setattr("iasolve.training.config.multiplies_bfloat16", lambda kind: False)
    emulated = train(config(folder, **short, precision="bfloat16"), folder / "emulated")
    ours, theirs = load_file(emulated), load_file(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "no instructions for bfloat16" in log(folder / "emulated")[0]["note"]
    assert all("note" not in row for row in log(folder / "plain"))
    monkeypatch.setattr("iasolve.training.config.multiplies_bfloat16", lambda kind: True)
    half = load_file(train(config(folder, **short, precision="bfloat16"), folder / "half"))
    assert any(not torch.equal(half[name], theirs[name]) for name in theirs)


def without_clock(rows):
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows]


def stop(when):
    def callback(status):
        if when(status):
            raise StopHereError

    return callback


# ------------------------------------------------------------------------------------------- the same run


@pytest.mark.slow
def test_a_run_stopped_again_and_again_is_the_same_run(whole, folder):
    """In the middle of a window, after a validation, and within the decay."""
    settings, out = config(folder, **SHORT), folder / "parts"
    for number, step in enumerate([3, 8, 11]):
        with pytest.raises(StopHereError):
            train(settings, out, resume=number > 0, callback=stop(lambda s, step=step: s.step == step))
    again = train(config(folder, **SHORT), out, resume=True)
    assert again.read_bytes() == whole[0].read_bytes()
    assert without_clock(log(out)) == whole[1]


def killed_run(folder, out, point, at):
    """Go on with a run, and die at the ``at``-th time that it reaches a point."""
    torch.set_num_threads(1)
    Trainer.measure_statistics = partialmethod(Trainer.measure_statistics, batches=8)
    calls = 0

    def killed(function, before=False):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if before and calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            value = function(*args, **kwargs)
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        return wrapped

    if point == "step":
        Trainer._step = killed(Trainer._step)
    elif point == "row":
        loop.append_row = killed(loop.append_row)
    elif point == "replace":
        os.replace = killed(os.replace, before=True)
    elif point == "save":
        loop.save_snapshot = killed(loop.save_snapshot)
    train(config(folder, **SHORT), out, resume=(out / "checkpoint.safetensors").is_file())


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_the_same_run(whole, folder):
    """One run, killed seven times: within a window, between row and checkpoint, while writing it, after it."""
    out = folder / "killed"
    kills = [("step", 1), ("row", 1), ("replace", 2), ("row", 2), ("save", 1), ("step", 3), ("save", 2)]
    for point, at in kills:
        done = Apart(killed_run, folder, out, point, at).ended()
        assert done.code == -signal.SIGKILL, done.err
    again = train(config(folder, **SHORT), out, resume=True)
    expected, weights = load_file(whole[0]), load_file(again)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[k], expected[k]) for k in expected)
    assert without_clock(log(out)) == whole[1]
    assert not list(out.glob(".iasolve.*")), "what the killed processes were writing"


def run_of_two(folder, out, ends):
    """One of two processes, which end before their time with code 7 after so many images; never, if that is 0."""
    torch.set_num_threads(1)
    Trainer.measure_statistics = partialmethod(Trainer.measure_statistics, batches=8)

    def stop(status):
        if ends and status.stage == "step" and status.images >= ends:
            raise SystemExit(7)

    settings = config(folder, images=64, validate_every=32, decay=0.5)
    train(settings, out, resume=(out / "checkpoint.safetensors").is_file(), callback=stop)


@pytest.mark.slow
def test_two_processes_that_are_stopped_go_on_as_the_same_run(folder, tmp_path):
    """Each process goes on with its own images, not only the first."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for out, ends, code in ((whole, 0, 0), (stopped, 48, 7), (stopped, 0, 0)):  # 48 is in the middle of a window
        done = pair(run_of_two, folder, out, ends)
        assert [one.code for one in done] == [code, code], done
    (first,), (second,) = (
        [path for path in out.glob("*.safetensors") if path.stem != "checkpoint"] for out in (whole, stopped)
    )
    expected, weights = load_file(first), load_file(second)
    assert all(torch.equal(weights[k], expected[k]) for k in expected)
    assert without_clock(log(stopped)) == without_clock(log(whole))


@pytest.mark.slow
def test_a_run_by_the_clock_knows_its_beginning_and_its_end(folder, monkeypatch):
    """The clock of these runs ticks a second a step; the rate that each step gets is what it would have been."""
    seconds = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: seconds[0])
    step, rates = Trainer._step, []

    def ticking(trainer, done):
        step(trainer, done)
        seconds[0] += 1
        rates.append(float(trainer.update.optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(Trainer, "_step", ticking)
    settings = config(folder, images=10**6, validate_every=16, decay=0.5, warmup=1)
    train(settings, folder / "clock", minutes=8 / 60)
    expected, rates[:] = list(rates), []
    assert len(expected) == 8
    assert expected[0] > expected[-1]
    with pytest.raises(StopHereError):
        train(settings, folder / "clock-parts", minutes=8 / 60, callback=stop(lambda s: s.losses and s.images == 32))
    # its end is part of the run: nobody has to say it again
    path = train(settings, folder / "clock-parts", resume=True)
    assert rates == expected
    assert path.read_bytes() == (folder / "clock" / "blobs.safetensors").read_bytes()
    train(settings, folder / "clock-parts", resume=True, minutes=8 / 60)
    assert len(rates) == 8


@pytest.mark.slow
def test_a_run_that_started_from_a_prior_decays_as_if_it_had_not_been_resumed(whole, folder):
    settings = config(folder, images=144, validate_every=24, decay=0.5)
    once = train(settings, folder / "init", init=whole[0])
    with pytest.raises(StopHereError):
        train(settings, folder / "init-parts", init=whole[0], callback=stop(lambda s: s.losses and s.images > 110))
    again = train(settings, folder / "init-parts", resume=True)
    assert again.read_bytes() == once.read_bytes()


def test_the_log_loses_rows_beyond_the_checkpoint_and_rows_cut_off(tmp_path):
    path = tmp_path / "log.jsonl"
    cut_log(path, 10)
    assert not path.exists()
    for images in (8, 16, 24):
        append_row(path, {"images": images, "elbo": 1.5})
    with path.open("a") as file:
        file.write('{"images": 2')
    cut_log(path, 16)
    assert [json.loads(line)["images"] for line in path.read_text().splitlines()] == [8, 16]


# ------------------------------------------------------------------------------------------- bursts


def scores(monkeypatch, values):
    """Scores of a run that bursts: those of validation are ``values`` by images, those of training 1."""
    monkeypatch.setattr(HierarchyPart, "score", lambda _, figures: figures.get("scripted", 1.0))
    monkeypatch.setattr(
        Trainer,
        "validate",
        lambda trainer: {"scripted": values(trainer.progress.images)},
    )


@pytest.mark.slow
def test_the_reference_of_bursts_outlives_a_kill(folder, monkeypatch):
    """Images 48 to 64 are a burst; the run is stopped right before it."""
    scores(monkeypatch, lambda images: -5.0 if images == 64 else 1.0)
    finals = {}
    for name in ("once", "resumed"):
        settings = config(folder, images=96, validate_every=16, warmup=1)
        trainer = Trainer(settings, folder / f"burst-{name}")
        trainer.measure_statistics()
        monkeypatch.setattr(trainer.part, "export", lambda *_: folder)
        if name == "resumed":
            with pytest.raises(StopHereError):
                trainer.run(callback=stop(lambda s: s.losses and s.images == 48))
            trainer = Trainer(settings, folder / f"burst-{name}")
            trainer.resume()
            monkeypatch.setattr(trainer.part, "export", lambda *_: folder)
        trainer.run()
        moments = trainer.update.optimizer.state_dict()["state"]
        finals[name] = {f"{i}.{key}": t.clone() for i, state in moments.items() for key, t in state.items()}
        finals[name] |= {key: t.clone() for key, t in trainer.network.state_dict().items()}
        finals[name] |= {f"average.{key}": t.clone() for key, t in trainer.average.state_dict().items()}
        rows = log(folder / f"burst-{name}")
        assert [row["taken_back"] for row in rows] == [0, 0, 0, 1, 1, 1]
        assert ["note" in row for row in rows] == [False, False, False, True, False, False]
        assert "burst: scores fell from" in rows[3]["note"]
        assert "1/2 of the learning rate" in rows[3]["note"]
    once, resumed = finals.values()
    assert once.keys() == resumed.keys()
    assert all(torch.equal(once[key], resumed[key]) for key in once)


def test_the_rate_has_a_floor_and_a_run_goes_on_from_there():
    p = Progress()
    assert judge(p, 1.0, 1.0) == (True, "")
    notes = [judge(p, 1.0, -1.0) for _ in range(HALVINGS)]
    assert [keep for keep, _ in notes] == [False] * HALVINGS
    assert rate_factor(p) == 2.0**-HALVINGS
    keep, note = judge(p, 1.0, -1.0)
    assert keep
    assert "the rate is the lowest, 1/32: going on from here" in note
    assert (p.best_training, p.best_validation, p.taken_back) == (1.0, -1.0, HALVINGS)
    assert judge(p, 0.95, -1.1) == (True, "")
    assert rate_factor(p) == 2.0**-HALVINGS


def test_scores_that_are_never_finite_end_a_run():
    p = Progress()
    assert judge(p, math.nan, 1.0)[0]
    assert p.best_training is None
    assert judge(p, 1.0, 1.0) == (True, "")
    for _ in range(2 * HALVINGS):
        assert not judge(p, math.nan, 1.0)[0]
    with pytest.raises(DivergedError, match=r"training diverges.*lower optimisation\.learning_rate"):
        judge(p, math.nan, 1.0)
    assert rate_factor(p) == 2.0**-HALVINGS


@pytest.mark.slow
def test_what_has_diverged_is_neither_kept_nor_exported(folder, tmp_path):
    """A rate that ends in NaN within the first window; weights that are not finite where no window tells."""
    with pytest.raises(DivergedError, match="the first window's scores are"):
        train(config(folder, learning_rate=1e30, warmup=1, images=32, validate_every=16), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    trainer = Trainer(config(folder), tmp_path)
    next(trainer.average.parameters()).data.view(-1)[0] = math.nan
    with pytest.raises(DivergedError, match="hold NaN or infinite values"):
        trainer.export()
    assert not list(tmp_path.glob("*.safetensors"))


def burst_of_two(folder, out):
    """One of two processes whose run bursts; it writes down what it is at once the burst is over."""
    torch.set_num_threads(1)
    Trainer.measure_statistics = partialmethod(Trainer.measure_statistics, batches=8)
    HierarchyPart.score = lambda _, figures: figures.get("scripted", 1.0)
    HierarchyPart.export = lambda *_: folder
    Trainer.validate = lambda trainer: {"scripted": -5.0 if trainer.progress.images == 64 else 1.0}
    trainer = Trainer(config(folder, images=96, validate_every=32, warmup=1), out)
    trainer.measure_statistics()

    def seen(status):
        if status.images == 80:
            rate = trainer.update.optimizer.param_groups[0]["lr"].reshape(1)
            state = trainer.network.state_dict() | {"rate": rate}
            save_file({k: v.clone().contiguous() for k, v in state.items()}, out / f"{trainer.rank}.seen")

    trainer.run(callback=seen)


@pytest.mark.slow
def test_a_burst_is_undone_by_all_processes(folder, tmp_path):
    """Images 32 to 64 are one, by the validation of the first process: the others go back with it."""
    done = pair(burst_of_two, folder, tmp_path)
    assert [one.code for one in done] == [0, 0], done
    assert [row["taken_back"] for row in log(tmp_path)] == [0, 1, 1]
    first, second = (load_file(tmp_path / f"{rank}.seen") for rank in range(2))
    assert float(first["rate"]) == float(second["rate"]) == pytest.approx(1.5e-3)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_a_run_of_bursts_alone_still_moves(folder, monkeypatch):
    scores(monkeypatch, lambda images: 1.0 - images)
    trainer = Trainer(config(folder, images=8 * 12, validate_every=8, warmup=1), folder / "bursts")
    trainer.measure_statistics()
    monkeypatch.setattr(trainer.part, "export", lambda *_: folder)
    trainer.run()
    rows = log(folder / "bursts")
    assert [row["taken_back"] for row in rows] == [0, 1, 2, 3, 4, 5] + [5] * 6
    assert float(trainer.update.optimizer.param_groups[0]["lr"]) == pytest.approx(3e-3 / 32)
    # the last windows were kept, not undone
    assert all(torch.equal(a, b) for a, b in zip(trainer._state(), trainer._kept, strict=True))
    assert all("going on from here" in row["note"] for row in rows[6:])


# ------------------------------------------------------------------------------------------- the state on disk


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_refused(whole, folder, tmp_path):
    state = (folder / "whole" / "checkpoint.safetensors").read_bytes()
    target = tmp_path / "checkpoint.safetensors"
    trainer = Trainer(config(folder, **SHORT), tmp_path)
    rng = np.random.default_rng(0)
    header = int.from_bytes(state[:8], "little")
    places = [*rng.integers(8, 8 + header, 12), *rng.integers(8 + header, len(state), 12), len(state) - 1]
    for place in places:
        damaged = bytearray(state)
        damaged[place] ^= 1 << int(rng.integers(8))
        target.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged or no state of a training run .*--overwrite"):
            trainer.resume()
    target.write_bytes(state)
    trainer.resume()
    assert trainer.progress.images == 96


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 1e-2}, "optimisation.learning_rate is 0.003, in the configuration's 0.01"),
        ({"batch": 4, "seed": 3}, "batch x accumulate x processes is 8, .* 4; optimisation.seed is 0, .* 3"),
        ({"validate_every": 32}, "optimisation.validate_every is 16"),
    ],
)
@pytest.mark.slow
def test_another_configuration_is_refused_with_the_differences(whole, folder, change, words):
    state = folder / "whole" / "checkpoint.safetensors"
    before = state.read_bytes()
    with pytest.raises(
        ValueError, match=f"the state of another run: (optimisation.)?{words}.*or train in another --out"
    ):
        train(config(folder, **SHORT | change), folder / "whole", resume=True)
    assert state.read_bytes() == before


def test_other_degradations_and_data_are_other_runs_too(whole, folder):
    settings = config(folder, **SHORT)
    changed = (replace(settings.degradations[0], sigma=(0.02, 1.0)), *settings.degradations[1:])
    with pytest.raises(ValueError, match=r"degradations\.0\.sigma is \[0\.01, 1\.0\], .* \[0\.02, 1\.0\]"):
        train(replace(settings, degradations=changed), folder / "whole", resume=True)
    data = replace(settings.data, validation_every=4)
    with pytest.raises(ValueError, match=r"data\.validation_every is 6, .* 4; images\.training is 20, .* 18"):
        train(replace(settings, data=data), folder / "whole", resume=True)


# ------------------------------------------------------------------------------------------- what is told


def test_a_callback_sees_every_step_and_validation(folder):
    told = []
    train(config(folder, images=32, validate_every=16), folder / "told", callback=told.append)
    assert all(isinstance(status, Status) for status in told)
    stages = [(s.stage, s.images, s.step) for s in told]
    assert stages == [
        ("step", 8, 1),
        ("step", 16, 2),
        ("validation", 16, 2),
        ("step", 24, 3),
        ("step", 32, 4),
        ("validation", 32, 4),
    ]
    assert [s.losses for s in told if s.stage == "validation"] == log(folder / "told")
    assert all(row["images_per_second"] > 0 for row in log(folder / "told"))
    assert [s.seconds for s in told] == sorted(s.seconds for s in told)


@pytest.mark.slow
def test_a_slow_machine_is_spoken_of(folder, monkeypatch):
    speed = Speed()
    assert [speed.window(3000, 100.0) for _ in range(2)] == [(30.0, "")] * 2
    assert speed.window(2200, 100.0) == (22.0, "")
    rate, note = speed.window(400, 100.0)
    assert rate == 4.0
    assert note.startswith("slow: 4 images/s, 13% of the 30 of")
    # in the log and to the callback
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    step = Trainer._step

    def slower(trainer, done):
        step(trainer, done)
        now[0] += 100.0 if trainer.progress.images <= 32 else 200.0

    monkeypatch.setattr(Trainer, "_step", slower)
    rows = []
    train(config(folder, images=64, validate_every=16), folder / "slow", callback=at_validation(rows.append))
    assert [row["images_per_second"] for row in rows] == [0.08, 0.08, 0.04, 0.04]
    assert ["note" in row for row in rows] == [False, False, True, True]
    assert rows == log(folder / "slow")


def test_a_finished_run_that_is_resumed_adds_nothing(whole, folder):
    rows = log(folder / "whole")
    assert train(config(folder, **SHORT), folder / "whole", resume=True).read_bytes() == whole[0].read_bytes()
    assert log(folder / "whole") == rows
