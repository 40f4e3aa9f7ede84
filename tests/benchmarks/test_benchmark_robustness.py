"""A sample of the robustness benchmark: 50 mutations of each format, kills, crashes and hostile files."""

import importlib
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmark
FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_nothing_escapes_hangs_or_is_left_half(tmp_path, monkeypatch):
    for library in ("nibabel", "pydicom", "ismrmrd"):
        pytest.importorskip(library)
    monkeypatch.syspath_prepend(str(FOLDER))
    script = importlib.import_module("robustness")
    script.main(mutations=50, kills=1, count=0, seed=1, out=tmp_path)
    results = json.loads((tmp_path / "robustness.json").read_text())
    assert len(results["mutations"]) >= 17
    for kind, found in results["mutations"].items():
        outcomes = found["read"] + found["refused"] + found["crashes_held"] + found["endless_held"]
        assert (outcomes, found["escaped"]) == (50, 0), kind
        assert (found["slower_than_20_s"], found["more_than_1_gb"]) == (0, 0), kind
    assert {kind.split(", ")[0] for kind in results["kills"]} == {"folder", "volume"}
    for kind, found in results["kills"].items():
        assert [found[key] for key in ("partial", "unsealed", "not resumed", "leftovers")] == [0, 0, 0, 0], kind
    assert results["crashes"]["count"] > 50
    assert (results["crashes"]["mixed"], results["crashes"]["partial"]) == (0, 0)
    assert all(found["refused"] for found in results["hostile"].values())
