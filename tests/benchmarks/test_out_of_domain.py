"""A sample of the benchmark of images from outside the prior's world."""

import importlib
import json
from pathlib import Path

import pytest

from iasolve.operators import CircularBlur, Identity, KSpaceMask, PixelMask

pytestmark = pytest.mark.benchmark
FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_no_result_is_far_below_the_linear_estimate(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("out_of_domain")
    script.main(quick=True, recipe="fast", prior="mri-t1-128", own=0, seed=0, data=None, out=tmp_path)
    rows = json.loads((tmp_path / "out_of_domain.json").read_text())["rows"]
    assert len(rows) == 10
    for row in rows:
        assert row["result"] > max(row["linear"], row["input"]) - 0.2, row
    offsets = {row["image"]: row["offset"] for row in rows if row["task"] == "noise 0.3"}
    assert offsets["z-scored head"] < -0.5
    assert offsets["head of 48 pixels"] == 0
    assert "text of a page" in (tmp_path / "out_of_domain.md").read_text()


def test_every_task_has_the_operator_that_its_name_says(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("out_of_domain")
    kinds = {task.name: type(task.operator((1, 32, 32))) for task in script.TASKS}
    assert kinds == {
        "noise 0.05": Identity,
        "noise 0.3": Identity,
        "blur 2 px": CircularBlur,
        "lines 4x": KSpaceMask,
        "half the pixels": PixelMask,
    }
    with pytest.raises(ValueError, match="no operator"):
        script.Degradation("half a pixel", 0.1).operator((1, 32, 32))
