"""The scripts of scaling, faults, speed and GPUs run, at a look's size, and what they count is right."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.benchmark
FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Scripts import each other as files in one folder do."""
    monkeypatch.syspath_prepend(str(FOLDER))


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bytes_and_flops_of_known_operators():
    script = importlib.import_module("gpu.one_solve")
    a = torch.randn(8, 4)
    with script.Counted() as counted:
        (a @ a.T).flip(0).unsqueeze(0)
    product = 2 * 8 * 8 * 4
    assert counted.flops == product
    # the product reads two and writes one, the flip reads and writes; transposing and unsqueezing move nothing
    assert counted.bytes == 4 * (2 * 32 + 64 + 2 * 64)


def test_one_solve_runs_on_a_processor():
    text = run("-m", "gpu.one_solve", "--quick")
    assert "processor, one look" in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith(("| fast", "| denoise"))]


def test_trainings_stop_and_go_on(tmp_path, monkeypatch):
    script = importlib.import_module("gpu.trainings")
    monkeypatch.setattr(script, "LARGEST", 20_000)
    configs = script.tiny(tmp_path / "quick")
    assert script.work(configs, tmp_path, tmp_path / "out", time.monotonic() + 0.01, "cpu") == [
        "smooth (16 of its images seen)",
        "smooth-reader",
    ]
    assert script.work(configs, tmp_path, tmp_path / "out", time.monotonic() + 600, "cpu") == []
    out = tmp_path / "out" / "smooth"
    parts = sorted(out.glob("smooth.safetensors.part*"), key=lambda path: int(path.suffix.removeprefix(".part")))
    whole = b"".join(path.read_bytes() for path in parts)
    assert whole == (tmp_path / "smooth" / "smooth.safetensors").read_bytes()
    assert len((out / "log.jsonl").read_text().splitlines()) == 6
    assert json.loads((tmp_path / "out" / "smooth-reader" / "smooth.reader.json").read_text())["kind"] == "reader"
    assert script.work(configs, tmp_path, tmp_path / "out", time.monotonic() + 600, "cpu") == []


def test_every_configuration_of_the_order_is_there():
    script = importlib.import_module("gpu.trainings")
    assert all((script.ROOT / path).is_file() for path in script.ORDER)


def test_a_version_is_compared_with_itself():
    speed = importlib.import_module("speed")
    if speed.last_release() is None:
        pytest.skip("no history here")
    versions = [speed.Version(speed.ROOT, ["fast"]) for _ in range(2)]
    one, other = (version.solve("fast") for version in versions)
    for version in versions:
        version.close()
    assert one["psnr"] == other["psnr"] > 35
    assert all(seconds > 0 for run in (one, other) for seconds in (run["processor"], run["wall"]))


def test_workers_are_killed_and_nothing_is_lost():
    text = run("worker_kills.py", "--quick")
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| 6")]
    assert [cell.strip("| ") for cell in cells[0][:6]] == ["6", "2", "0", "0", "0", "0"]


def test_scaling_runs():
    text = run("scaling.py", "--quick")
    assert "2 workers over 1:" in text


def test_small_files_run():
    text = run("small_files.py", "--quick")
    assert "| `fast`, .npy |" in text
    assert "| `fast`, .png |" in text
