"""The benchmark scripts of the paper's quality figures: the Frechet distance, and whole tiny runs."""

import importlib
import io
import json
import zipfile
from operator import itemgetter
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import typer
from PIL import Image
from tiny import images, tiny_network
from typer.testing import CliRunner

from iasolve.priors import save_checkpoint

pytestmark = pytest.mark.benchmark
FOLDER = Path(__file__).parents[2] / "benchmarks"
SETS = ("cifar10", "mri-complex")


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Scripts import each other as files in one folder do."""
    monkeypatch.syspath_prepend(str(FOLDER))


def script(name):
    return importlib.import_module(name)


def test_parts_of_an_image_are_shown_by_the_brightness_of_the_whole():
    on_screen = script("quality").on_screen
    whole = torch.tensor([[0.0, 4.0], [2.0, 1.0]], dtype=torch.complex64).mul(1j)[None, None]
    np.testing.assert_allclose(on_screen(whole, whole), [[[0, 1], [0.5, 0.25]]])
    mean = whole.mean((-2, -1), keepdim=True).expand_as(whole)
    np.testing.assert_allclose(on_screen(mean, whole), np.full((1, 2, 2), 7 / 16))
    assert on_screen(torch.rand(2, 3, 4, 5), torch.ones(2, 3, 4, 5)).shape == (2, 4, 5, 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Small data under the names of the real ones, and the options that name a prior of every kind."""
    folder = tmp_path_factory.mktemp("quality")
    fields = images(220, 1).numpy()[:, 0]
    fields = (255 * (fields - fields.min()) / np.ptp(fields)).astype(np.uint8)
    np.savez(folder / "mri-t1ce-128.npz", images=fields[:60], label=np.arange(60) % 3, index=np.arange(1000, 1060))
    with zipfile.ZipFile(folder / "cifar10-jpeg.zip", "w") as archive:
        for number, field in enumerate(fields):
            content = io.BytesIO()
            Image.fromarray(np.stack([field, np.roll(field, 3, 0), field.T], axis=-1)).save(content, "JPEG")
            archive.writestr(f"{'test' if number < 10 else 'train'}/frog/{number:04d}.jpg", content.getvalue())
    options = {}
    for name, kind in (("cifar10", {"channels": 3}), ("mri", {"is_complex": True})):
        for decoder, ending in (("separable", ""), ("vanilla", "-vanilla")):
            path = folder / f"{name}{ending}.safetensors"
            save_checkpoint(tiny_network(decoder=decoder, **kind), {"name": path.stem}, path)
            options[f"--{name}{ending}"] = path
    return folder, options


def run(name, folder, options, *more):
    """A script's main, as its command line calls it; warnings are errors here, as for every test."""
    main = script(name).main
    application = typer.Typer(add_completion=False)
    application.command()(main)
    words = [str(w) for pair in options.items() for w in pair]
    words += ["--out", str(folder / "out"), *map(str, more)]
    found = CliRunner().invoke(application, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return folder / "out"


# ------------------------------------------------------------------------------------------- Frechet distance


def test_distance_of_gaussians_that_share_their_axes():
    """Closed form: |m1 - m2|^2 + sum (s1 - s2)^2."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    means, stds = rng.standard_normal((2, 5)), rng.uniform(0.1, 3, (2, 5))
    covariances = [(axes * s**2) @ axes.T for s in stds]
    expected = np.square(means[0] - means[1]).sum() + np.square(stds[0] - stds[1]).sum()
    found = script("frechet").distance_of_gaussians(means[0], covariances[0], means[1], covariances[1])
    assert found == pytest.approx(expected, rel=1e-12)


def test_distance_of_gaussians_that_do_not_commute():
    """Against a general matrix square root, and where one covariance is singular."""
    rng = np.random.default_rng(1)
    distance = script("frechet").distance_of_gaussians
    first, second = (a @ a.T for a in rng.standard_normal((2, 4, 4)))
    expected = np.trace(first) + np.trace(second) - 2 * np.trace(scipy.linalg.sqrtm(first @ second)).real
    zero = np.zeros(4)
    assert distance(zero, first, zero, second) == pytest.approx(expected, rel=1e-9)
    assert distance(zero, second, zero, first) == pytest.approx(expected, rel=1e-9)
    u = rng.standard_normal(4)
    # of N(0, u u^T): sqrt(C1^1/2 u u^T C1^1/2) has the trace |C1^1/2 u|
    expected = np.trace(first) + u @ u - 2 * np.sqrt(u @ first @ u)
    assert distance(zero, first, zero, np.outer(u, u)) == pytest.approx(expected, rel=1e-9)


def test_distance_of_samples_and_its_jackknife():
    frechet = script("frechet")
    rng = np.random.default_rng(2)
    first, other = rng.standard_normal((2, 2000, 3))
    assert frechet.frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    second = 2 * other + np.array([1.0, 0, 0])
    assert frechet.frechet_distance(first, second) == pytest.approx(1 + 3, rel=0.1)
    few = [(rng.standard_normal((60, 3)), 2 * rng.standard_normal((60, 3)) + np.array([1.0, 0, 0])) for _ in range(200)]
    plain = np.mean([frechet.frechet_distance(*pair) for pair in few]) - 4
    found = np.array([frechet.jackknife(*pair) for pair in few])
    assert abs(found[:, 0].mean() - 4) < plain / 2
    assert np.mean((found[:, 1] < 4) & (found[:, 2] > 4)) == pytest.approx(0.95, abs=0.05)
    with pytest.raises(ValueError, match=r"\(60, 3\).*\(5, 2\)"):
        frechet.frechet_distance(few[0][0], rng.standard_normal((5, 2)))


def test_magnitudes_for_an_extractor_are_relative_to_the_reference():
    as_rgb = script("frechet").as_rgb
    x = torch.tensor([[[[3 + 4j, 0], [1, 2j]]]])
    assert as_rgb(x, x)[0, 0].tolist() == pytest.approx(np.array([[1, 0], [0.2, 0.4]]))
    assert as_rgb(2 * x, x)[0, 2].tolist() == pytest.approx(np.array([[1, 0], [0.4, 0.8]]))
    assert as_rgb(x, x).shape == (1, 3, 2, 2)


def test_inception_has_the_usual_files_layers_and_refuses_others(tmp_path):
    inception = script("inception")
    network = inception.Inception()
    # torchvision's, less its auxiliary classifier, with 1008 classes in place of 1000
    assert sum(p.numel() for p in network.parameters()) == 27_161_264 - 3_326_696 + 8 * 2049
    state = network.state_dict()
    assert state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    loaded = inception.load_inception(path)
    assert loaded(torch.rand(1, 3, 32, 32)).shape == (1, 2048)
    torch.save({"fc.bias": torch.zeros(3)}, path)
    with pytest.raises(SystemExit, match="does not hold the weights"):
        inception.load_inception(path)


# ------------------------------------------------------------------------------------------- comparisons


def test_relative_change_of_a_mean_and_its_interval():
    change = script("quality").change_of_mean
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        reference = rng.gamma(2.0, size=100)
        covered += (found := change(0.9 * reference + 0.05 * rng.standard_normal(100), reference))[1] < -0.1 < found[2]
    assert covered / 300 == pytest.approx(0.95, abs=0.04)
    reference = rng.gamma(2.0, size=10)
    assert change(0.5 * reference, reference) == pytest.approx((-0.5, -0.5, -0.5))


# ------------------------------------------------------------------------------------------- scripts


def test_table_of_inference_quality(world):
    folder, options = world
    out = run("table1_inference_quality", folder, options, "--quick", "--data", folder)
    report = json.loads((out / "table1_inference_quality-quick.json").read_text())
    assert set(report["sets"]) == set(SETS)
    for entry in report["sets"].values():
        rows = {(r["method"], r["steps"]): r for r in entry["rows"]}
        starts = {("amortized", 0), ("iterative", 0), ("vanilla", 0)}
        assert set(rows) == starts | {(m, 5) for m in ("iterative", "hybrid", "whole", "vanilla")}
        assert rows["hybrid", 5]["negative_elbo_change"][0] < 0
        assert [long["method"] for long in entry["long"]] == ["hybrid", "whole"]
    text = (out / "table1_inference_quality-quick.md").read_text()
    assert "not comparable with figures on the lossless set" in text
    assert "theirs" in text
    assert "no FID" in text
    assert (out / "table1_inference_quality-quick.png").stat().st_size > 1000


def test_steps_are_chosen_on_validation_images_and_used(world):
    folder, options = world
    only = ("--quick", "--data", folder, "--only", "cifar10")
    out = run("tune_clean", folder, options, *only, "--methods", "whole,iterative")
    report = json.loads((out / "tune_clean-quick.json").read_text())
    for method, entries in report["tried"]["cifar10"].items():
        chosen = next(e for e in entries if e["changes"] == report["chosen"]["cifar10"][method])
        rivals = [e for e in entries if method == "iterative" or e["negative_elbo_change"][0] <= 0]
        assert all(chosen["mse_change"][0] <= e["mse_change"][0] for e in rivals)
    chosen = {"cifar10": {"whole": {"step_size": 1e-9}}}
    (folder / "chosen.json").write_text(json.dumps({"chosen": chosen}))
    run("table1_inference_quality", folder, options, *only, "--tuned", folder / "chosen.json", "--methods", "whole")
    rows = json.loads((out / "table1_inference_quality-quick-cifar10.json").read_text())["sets"]["cifar10"]["rows"]
    change = next(r["mse_change"][0] for r in rows if r["method"] == "whole")
    assert abs(change) < 1e-5


def test_output_as_scales_are_added(world):
    folder, options = world
    options = {k: v for k, v in options.items() if "vanilla" not in k}
    out = run("fig3_scales", folder, options, "--quick", "--data", folder)
    report = json.loads((out / "fig3_scales-quick.json").read_text())
    for name in SETS:
        cells = report["sets"][name]
        assert [c["scale"] for c in cells] == [1, 2, 4, 8, 16, 32]
        # rings are orthogonal: an output's error is at least that of the rings it lacks
        assert all(c["mse"][0] >= c["least"][0] for c in cells)
        assert cells[-1]["least"][0] == pytest.approx(0, abs=1e-9)
    assert (out / "fig3_scales-quick.png").is_file()


def test_inverse_problems(world):
    folder, options = world
    clean = {f"{k.replace('-vanilla', '')}-clean{'-vanilla' if 'vanilla' in k else ''}": v for k, v in options.items()}
    out = run("fig4_inverse_problems", folder, options | clean, "--quick", "--data", folder)
    report = json.loads((out / "fig4_inverse_problems-quick.json").read_text())
    for name in SETS:
        for task in ("deblur", "denoise"):
            entry = report["sets"][name][task]
            assert len(entry["methods"]) == 12
            compared = {(d["first"]["decoder"], d["second"]["decoder"]) for d in entry["differences"]}
            assert compared == {("separable", "vanilla"), ("separable", "separable"), ("vanilla", "vanilla")}
            key = itemgetter("encoder", "decoder", "steps", "chosen")
            means = {key(m): m["psnr"][0] for m in entry["methods"]}
            for difference in entry["differences"]:
                expected = means[key(difference["first"])] - means[key(difference["second"])]
                assert difference["psnr"][0] == pytest.approx(expected)
            # of each refined method, the best on validation images comes first
            assert {(t["encoder"], t["decoder"]) for t in entry["tried"]} == {
                (e, d) for e in ("clean", "evidence") for d in ("separable", "vanilla")
            }
            for tried in entry["tried"]:
                levels = [kind["psnr"] for kind in tried["kinds"]]
                assert levels == sorted(levels, reverse=True)
                # of a vanilla decoder, the two schedules are one
                assert len(levels) == (9 if tried["decoder"] == "separable" else 8)
        assert (out / f"fig4_inverse_problems-quick-{name}.png").is_file()


def test_head_domains_compares_logs_at_the_same_number_of_images(tmp_path):
    options = {}
    for domain, values in (("spatial", [1.0, 1.5, 1.7]), ("spectral", [0.9, 1.4])):
        run_folder = tmp_path / domain
        run_folder.mkdir()
        card = {"name": domain, "data": {"validation_images": 5}}
        save_checkpoint(tiny_network(head_domain=domain), card, run_folder / f"{domain}.safetensors")
        rows = [
            {"images": 100 * (n + 1), "val_elbo": v, "val_mse": 0.1 / v, "seconds": 60 * n}
            for n, v in enumerate(values)
        ]
        (run_folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        options[f"--cifar10{'' if domain == 'spatial' else '-spectral'}"] = run_folder
    out = run("head_domains", tmp_path, options, "--only", "cifar10")
    found = json.loads((out / "head_domains-cifar10.json").read_text())["sets"]["cifar10"]
    assert found["images"] == 200
    assert {d: v["elbo"] for d, v in found["domains"].items()} == {"spatial": 1.5, "spectral": 1.4}
    with pytest.raises(SystemExit, match="its heads are spectral"):
        script("head_domains").read_run(options["--cifar10-spectral"], "spatial")


def test_other_operators(world, tmp_path, monkeypatch):
    pytest.importorskip("finufft")
    folder, _ = world
    prior = tmp_path / "grey.safetensors"
    save_checkpoint(tiny_network(), {"name": "grey"}, prior)
    monkeypatch.setattr(script("any_operator"), "SIZE", 32)
    monkeypatch.setattr(script("any_operator"), "SHAPE", (1, 32, 32))
    options = {"--prior": prior, "--data": folder / "mri-t1ce-128.npz"}
    out = run("any_operator", tmp_path, options, "--quick", "--only", "radial,30 %,motion")
    report = json.loads((out / "any_operator-quick.json").read_text())
    assert [len(case["methods"]["iasolve fast"]["psnr"]) for case in report["cases"].values()] == [2, 2, 2]
    assert (out / "any_operator-quick.md").read_text().count("| radial k-space") == 1
    with Image.open(out / "any_operator-quick.png") as picture:
        assert picture.width > 300
