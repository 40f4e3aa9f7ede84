"""A step of many images in parts: read one after the other, by several processes, or all at once, it is the same."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from apart import pair
from safetensors.torch import load_file
from test_reader_training import READER
from test_training import blobs, config, config_data, log

from iasolve.training import (
    Augmentation,
    Degradation,
    DegradationMix,
    Mixture,
    Streams,
    Trainer,
    TrainingConfig,
    open_source,
)
from iasolve.training.config import DataConfig
from iasolve.training.crops import Crops
from iasolve.training.phase import PhaseField

CPU = torch.device("cpu")
STEPS = {"images": 64, "validate_every": 32, "decay": 0.5, "degraded": 0.5, "warmup": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("accumulation")
    np.savez(path / "blobs.npz", images=blobs(), label=np.arange(24) % 3, number=np.arange(100, 124))
    return path


@pytest.fixture(autouse=True)
def _quick_statistics(monkeypatch):
    monkeypatch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=8))


# ------------------------------------------------------------------------------------------- random numbers


def sources(folder):
    everything = Augmentation(tone=0.3, floor=0.1, window=0.3, invert=0.3, sharpen=(-0.5, 0.5), phase=PhaseField())
    data = DataConfig("blobs.npz", validation_every=6, phase=PhaseField())
    whole = open_source(data, everything, folder)
    crops = open_source(replace(data, crops=Crops(16, scale=(1.0, 1.0), darkest=0.2)), everything, folder)
    return [whole, crops, Mixture([whole, crops], [1.0, 2.0])]


@pytest.mark.parametrize("number", range(3), ids=["whole", "crops", "mixture"])
def test_an_image_and_its_degradation_do_not_depend_on_who_draws_them(folder, number):
    source = sources(folder)[number]
    lines = {"kind": "lines", "acceleration": (2, 4), "centre": (0.1, 0.2)}
    mix = DegradationMix([Degradation(1.0, (0.01, 1.0)), Degradation(2.0, (0.1, 0.2), "complex", (lines,))])

    def drawn(count, part, parts):
        rng = Streams.of_part(7, 48, count, part, parts)
        images = source.draw(count, rng)
        return images, *mix(images, rng)

    together = drawn(12, 0, 1)
    for parts in (2, 3, 12):
        apart = [drawn(12 // parts, part, parts) for part in range(parts)]
        for whole, *pieces in zip(together, *apart, strict=True):
            for part, piece in enumerate(pieces):
                torch.testing.assert_close(piece, whole[part::parts], rtol=1e-5, atol=1e-5)
    again = drawn(12, 0, 1)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    other = source.draw(12, Streams.of_part(7, 60, 12))
    assert not any(torch.equal(a, b) for a in together[0] for b in other)


def test_streams_refuse_numbers_for_other_images():
    with pytest.raises(ValueError, match="of 3 images, expected 4"):
        Streams.of_part(0, 0, 4).random(3)


# ------------------------------------------------------------------------------------------- steps


def double(trainer):
    """The whole run in double precision: what is left of a difference is rounding."""
    trainer.network.double()
    trainer.average.double()
    trainer.objective.double()
    draw = trainer._draw
    trainer._draw = lambda rng, count: draw(rng, count).double()
    trainer.source.validation = trainer.source.validation.double()
    return trainer


def finished(settings, out, part="hierarchy"):
    trainer = double(Trainer(settings, out, part=part))
    trainer.measure_statistics()
    trainer.run()
    return load_file(out / "checkpoint.safetensors"), log(out)


CLOCK = {"seconds", "images_per_second"}


def assert_same_run(one, other):
    (tensors, rows), (others, other_rows) = one, other
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    assert len(rows) == len(other_rows)
    for row, other_row in zip(rows, other_rows, strict=True):
        assert row.keys() == other_row.keys()
        for key in row.keys() - CLOCK:
            assert row[key] == pytest.approx(other_row[key], abs=2e-5), key


@pytest.fixture(scope="module")
def whole(folder):
    """Batches of 16; and the tensors and rows that such a run leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "measure_statistics", partialmethod(Trainer.measure_statistics, batches=8))
        return finished(config(folder, batch=16, **STEPS), folder / "whole")


@pytest.mark.slow
def test_two_batches_of_eight_are_one_of_sixteen(folder, whole):
    parts = finished(config(folder, batch=8, accumulate=2, **STEPS), folder / "parts")
    assert_same_run(parts, whole)
    state = json.loads((folder / "parts" / "log.jsonl").read_text().splitlines()[-1])
    assert state["images"] == 64
    assert {float(t) for name, t in parts[0].items() if name.endswith(".step")} == {4.0}, "steps, not batches"
    eight = finished(config(folder, batch=8, **STEPS), folder / "eight")
    assert not torch.allclose(eight[0]["network.sigma_x"], whole[0]["network.sigma_x"], rtol=1e-3), "no other batch"


@pytest.mark.slow
def test_a_reader_too_whose_batches_may_be_windows(folder):
    def run(batch, accumulate):
        changes = {"images": 64, "validate_every": 32, "batch": batch, "accumulate": accumulate}
        settings = READER | {"crops": 0.5, "optimisation": READER["optimisation"] | changes}
        made = TrainingConfig.from_dict(config_data() | {"reader": settings}, folder)
        return finished(made, folder / f"reader-{batch}", part="reader")

    assert_same_run(run(4, 4), run(16, 1))


def run_of_two(folder, out, accumulate):
    """One of the processes that a run is divided among."""
    torch.set_num_threads(1)
    Trainer.measure_statistics = partialmethod(Trainer.measure_statistics, batches=8)
    batch = 16 // accumulate // int(os.environ["WORLD_SIZE"])
    trainer = double(Trainer(config(folder, batch=batch, accumulate=accumulate, **STEPS), out))
    trainer.measure_statistics()
    trainer.run()


@pytest.mark.slow
def test_two_processes_are_one(folder, whole, tmp_path):
    done = pair(run_of_two, folder, tmp_path, 1)
    assert [one.code for one in done] == [0, 0], done
    assert_same_run((load_file(tmp_path / "checkpoint.safetensors"), log(tmp_path)), whole)


@pytest.mark.slow
def test_two_machines_are_one(folder, whole, tmp_path):
    """Each ``torchrun`` starts one process, and they meet at an address; each reads its part in two batches."""
    script, out = tmp_path / "together.py", tmp_path / "run"
    script.write_text(
        "import pathlib, sys\nfrom test_accumulation import run_of_two\n"
        "run_of_two(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    port = 29500 + os.getpid() % 1000
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    command = [sys.executable, "-m", "torch.distributed.run", *nodes, "--rdzv-endpoint", f"localhost:{port}"]
    given = [*command, str(script), str(folder), str(out)]
    machines = [subprocess.Popen(given, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [machine.communicate(timeout=600)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    assert_same_run((load_file(out / "checkpoint.safetensors"), log(out)), whole)


class StopHereError(Exception):
    pass


@pytest.mark.slow
def test_a_run_goes_on_with_its_batches_cut_otherwise(folder, whole):
    """Fewer processes, or less memory, are no other run as long as a step has as many images."""

    def stop(status):
        if status.stage == "validation":
            raise StopHereError

    first = double(Trainer(config(folder, batch=16, **STEPS), folder / "cut"))
    first.measure_statistics()
    with pytest.raises(StopHereError):
        first.run(callback=stop)
    second = double(Trainer(config(folder, batch=4, accumulate=4, **STEPS), folder / "cut"))
    second.resume()
    second.run()
    assert_same_run((load_file(folder / "cut" / "checkpoint.safetensors"), log(folder / "cut")), whole)


def test_clipping_and_refusals_see_the_whole_step(folder):
    """One part whose gradient is not finite spoils its step, once; the norm is that of the mean gradient."""
    trainer = double(Trainer(config(folder, batch=8, accumulate=2, **STEPS), folder / "refused"))
    trainer.measure_statistics()
    good = list(trainer._batches())
    before = [p.clone() for p in trainer.network.parameters()]
    trainer.update([good[0], good[1]._replace(images=good[1].images * float("nan"))], kl_weight=1.0, rate=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    assert (int(trainer.update.skipped), int(trainer.update.steps)) == (1, 1)
    trainer.update.means()
    trainer.update(good, kl_weight=1.0, rate=1e-3)
    assert int(trainer.update.skipped) == 1
    assert not all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    norm = sum(float(p.grad.square().sum()) for p in trainer.network.parameters()) ** 0.5
    assert norm == pytest.approx(min(trainer.settings.clip, trainer.update.means()["norm"]), rel=1e-3)
    with pytest.raises(ValueError, match="a step of 2 batches was given 1"):
        trainer.update(good[:1], kl_weight=1.0, rate=1e-3)
