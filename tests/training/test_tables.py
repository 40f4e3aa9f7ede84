"""Values of configurations are checked by type and range, and what is wrong is named."""

import math
from pathlib import Path

import pytest
from test_training import config_data

import iasolve
from iasolve.training import TrainingConfig, load_config

ROOT = Path(__file__).parents[2]
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("optimisation.learning_rate", INF, r"optimisation\.learning_rate .*got inf"),
        ("optimisation.learning_rate", "1e-3", r"optimisation\.learning_rate .*got '1e-3'"),
        ("optimisation.ema", 2, r"optimisation\.ema .*got 2"),
        ("optimisation.batch", "16", r"optimisation\.batch .*got '16'"),
        ("optimisation.images", True, r"optimisation\.images .*got True"),
        ("optimisation.precision", "float8", r"optimisation\.precision .*'bfloat16', got 'float8'"),
        ("optimisation.validate_every", 0, r"optimisation\.validate_every .*got 0"),
        ("optimisation.decay", -0.1, r"optimisation\.decay .*got -0\.1"),
        ("name", "../x", r"configuration\.name .*got '\.\./x'"),
        ("name", "/tmp/x", r"configuration\.name .*got '/tmp/x'"),
        ("name", "a\\b", r"configuration\.name "),
        ("name", 3, r"configuration\.name .*got 3"),
        ("network", 3, "network must be a table .*got 3"),
        ("network.widths", [INF] * 5, r"network\.widths\.0 .*got inf"),
        ("network.widths", "8", r"network\.widths .*got '8'"),
        ("data.path", ["a"], r"data\.path .*got \['a'\]"),
        ("data.sources", 3, r"data\.sources .*got 3"),
        ("data.crops", {"size": "8"}, r"data\.crops\.size .*got '8'"),
        ("augmentation.shift", NAN, r"augmentation\.shift .*got nan"),
        ("augmentation.rotate", INF, r"augmentation\.rotate .*got inf"),
        ("augmentation.flip", [1, 0], r"augmentation\.flip\.0 .*got 1"),
        ("degradations", 3, r"degradations must be a list of tables, got 3"),
        ("degradations", [], r"degradations .*at least 1"),
        ("degradations.0", 3, "degradation must be a table"),
        ("degradations.0.transfer", 3, r"degradation\.transfer .*got 3"),
        ("degradations.1.transfer.0.acceleration", [4, 2], r"transfer\.0 \(lines\)\.acceleration .*low <= high"),
        ("degradations.1.transfer.0.centre", [0.1, 1.5], r"transfer\.0 \(lines\)\.centre\.1 .*got 1\.5"),
        ("reader", {"crop": 64}, r"reader\.crop be one of"),
        ("reader", {"widths": []}, r"reader\.widths "),
        ("reader", {"optimisation": {"batch": 0}}, r"optimisation\.batch .*got 0"),
        ("reader", {"optimisation": {"lr": 0}}, r"unknown key\(s\) in \[optimisation\]: lr; known: accumulate, amort"),
    ],
)
def test_values_of_the_wrong_type_or_range_are_named(place, value, words):
    data = config_data()
    target = data
    *path, last = (int(p) if p.isdigit() else p for p in place.split("."))
    for step in path:
        target = target[step]
    target[last] = value
    with pytest.raises(ValueError, match=words) as caught:
        TrainingConfig.from_dict(data)
    assert "pydantic" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_configuration_of_the_project_is_read_and_plain_data():
    bundled = Path(iasolve.__file__).parent / "priors" / "weights"
    paths = [*bundled.glob("*.toml"), *(ROOT / "benchmarks" / "configs").glob("*.toml")]
    assert len(paths) > 15
    for path in paths:
        settings = load_config(path)
        plain = settings.to_dict("hierarchy")
        assert plain["name"] == settings.name
        assert "images" not in plain["optimisation"]
