"""The timing benchmark: counts of layer evaluations and FLOPs, and a whole tiny run of the script."""

import importlib
import json
import math
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from iasolve.networks import NetworkConfig

pytestmark = pytest.mark.benchmark
FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = NetworkConfig(8, (8,) * 4, (1,) * 4, (1,) * 4, (1,) * 4, head_blocks=1, grid_cap=8)


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Scripts import each other as files in one folder do."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def cost():
    return importlib.import_module("refinement_cost")


def test_flops_of_a_known_convolution(cost):
    conv = torch.nn.Conv2d(3, 5, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    forward = 2 * (2 * 8 * 8) * 3 * 5 * 3**2
    with cost.StepFlops() as flops, torch.no_grad():
        conv(x)
    assert (flops.with_gradient, flops.without_gradient) == (0, forward)
    with cost.StepFlops() as flops:
        torch.autograd.grad(conv(x).sum(), x)
    # the weights ask for no gradient: going back costs as much as going forward
    assert (flops.with_gradient, flops.without_gradient) == (2 * forward, 0)
    with cost.StepFlops() as flops, torch.no_grad(), torch.enable_grad():
        out = conv(x)
    torch.autograd.grad(out.sum(), x)
    assert (flops.with_gradient, flops.without_gradient) == (forward, 0)


@pytest.mark.parametrize("objective", ["variational", "map"])
def test_layer_evaluations_are_the_formulas(cost, objective):
    layers = (1, 3, 2, 1)
    expected = {"vanilla per latent": 28, "vanilla joint": 7, "IA sequential": 1 + 6 + 3 + 1, "IA joint": 7}
    for arm in cost.ARMS:
        config = NetworkConfig.from_dict(TINY.to_dict() | {"layers": list(layers)})
        found = cost.count(config, arm, objective, 0)
        assert found.evaluations == cost.layer_evaluations(arm, layers) == expected[arm.name]


def test_three_shallow_networks_tell_the_cost_of_a_deep_one(cost):
    counted = cost.Counted(TINY, "variational", 0)
    for arm in cost.ARMS:
        assert counted.cost(arm, 5) == cost.count(cost.uniform(TINY, 5), arm, "variational", 0)


def test_longer_runs_cost_what_was_counted(cost):
    for arm in cost.ARMS:
        predicted = cost.count(TINY, arm, "variational", 0)
        bench = cost.Workbench(cost.untrained(TINY, arm.decoder, 0), 1, "variational", 0)
        with cost.StepFlops() as flops:
            bench.refine(arm.schedule, 6)
        assert flops.with_gradient + flops.without_gradient == predicted.of(6)


def test_an_exponent_is_the_slope():
    report = importlib.import_module("cost_report")
    rows = [{"depth": d, "arms": {"a": {"steps": 1, "seconds_25": 3 * d**1.5}}} for d in (2, 4, 16)]
    assert report.exponent(rows, "a", "seconds_25") == pytest.approx(1.5)
    assert math.isnan(report.exponent(rows[:1], "a", "seconds_25"))


def test_the_script_runs(tmp_path):
    script = importlib.import_module("fig2_inference_time")
    app = typer.Typer()
    app.command()(script.main)
    run = CliRunner().invoke(app, ["--quick", "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    report = json.loads((tmp_path / "fig2_inference_time-quick.json").read_text())
    assert {row["series"] for row in report["rows"]} == {"headline", "layers per scale", "number of scales", "batch"}
    for row in report["rows"]:
        assert all(entry["seconds_25"] > 0 for entry in row["arms"].values())
    deepest = report["rows"][3]["arms"]["vanilla per latent"]
    assert "seconds" not in deepest, "a depth without timing is extrapolated"
    text = (tmp_path / "fig2_inference_time-quick.md").read_text()
    assert f"~~{deepest['seconds_25']:.3g}" in text
    assert (tmp_path / "fig2_inference_time-quick.png").stat().st_size < 200_000
    assert CliRunner().invoke(app, ["--objective", "exact"]).exit_code == 2
