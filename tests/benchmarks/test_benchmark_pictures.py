"""The benchmark scripts of photographs, other contrasts, learned peers and measured coils: whole tiny runs."""

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import images

import iasolve
from iasolve.operators import CircularBlur, gaussian_kernel
from iasolve.samples import load_samples

pytestmark = pytest.mark.benchmark
FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    """Scripts import each other as files in one folder do."""
    monkeypatch.syspath_prepend(str(FOLDER))


def script(name):
    return importlib.import_module(name)


# ------------------------------------------------------------------------------------------- scores


def test_scores_are_of_each_image_and_differences_are_paired():
    scores = script("comparison").Scores(peak=2.0)
    x = torch.rand(5, 1, 16, 16)
    offset = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])[:, None, None, None]
    scores.run({"far": lambda: x + offset, "near": lambda: x + offset / 10}, x)
    assert scores.psnr["far"] == pytest.approx([20 * math.log10(2 / o) for o in (0.1, 0.2, 0.3, 0.4, 0.5)], abs=1e-3)
    mean, low, high = scores.over("near", "far")
    assert (mean, low, high) == pytest.approx((20, 20, 20), abs=1e-2)
    assert "+20.00" in scores.table("far")
    other = script("comparison").Scores()
    other.run({"far": lambda: x + offset}, x)
    assert other.psnr["far"][0] != pytest.approx(scores.psnr["far"][0]), "each reference's own range"


# ------------------------------------------------------------------------------------------- BM3D


def test_bm3d_denoises_in_the_images_own_units_grey_and_colour():
    denoise = script("block_matching").bm3d_denoise
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 6, 6, generator=generator).repeat_interleave(8, -1).repeat_interleave(8, -2)
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    for clean in (x[:, :1], x):
        out = denoise(clean + noise[:, : clean.shape[1]], 0.1)
        assert out.shape == clean.shape
        assert float((out - clean).square().mean()) < 0.3 * 0.01
    scaled = denoise(200 * (x + noise), 20.0)
    torch.testing.assert_close(scaled / 200, out, atol=2e-2, rtol=0)


def test_bm3d_deblurs_in_place_whatever_the_unit():
    deblur = script("block_matching").bm3d_deblur
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 8, 7, generator=generator).repeat_interleave(6, -1).repeat_interleave(6, -2)
    kernel = gaussian_kernel(1.5)
    y = CircularBlur(kernel, (1, 48, 42))(x) + 0.01 * torch.randn(x.shape, generator=generator)
    out = deblur(y, 0.01, kernel)
    assert float((out - x).square().mean()) < 0.5 * float((y - x).square().mean())
    for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert float((out - x).square().mean()) < 0.5 * float((out - x.roll(step, (-2, -1))).square().mean())
    torch.testing.assert_close(deblur(200 * y, 2.0, kernel) / 200, out, atol=1e-3, rtol=0)


# ------------------------------------------------------------------------------------------- peers


def world(tmp_path, monkeypatch):
    fields = images(60, 1, size=32).numpy()[:, 0]
    fields = (255 * (fields - fields.min()) / np.ptp(fields)).astype(np.uint8)
    np.savez(tmp_path / "mri-t1ce-128.npz", images=fields, label=np.arange(60) % 3, index=np.arange(1000, 1060))
    monkeypatch.setenv("IASOLVE_DATA", str(tmp_path))
    config = (FOLDER.parent / "iasolve" / "priors" / "weights" / "mri-t1-128.toml").read_text()
    path = tmp_path / "small.toml"
    path.write_text(config.replace('precision = "bfloat16"', 'precision = "float32"'))
    return path


def test_an_interrupted_peer_goes_on_to_the_bit(tmp_path, monkeypatch):
    peers = script("peers")
    config = world(tmp_path, monkeypatch)
    monkeypatch.setattr("unet.WIDTHS", (4, 4, 4, 4))

    def trained(folder, counts):
        for number, count in enumerate(counts):
            peers.train("lines 4x,noise", config, images=count, resume=number > 0, out=tmp_path / folder)
        return {n: torch.load(tmp_path / folder / f"{n}.pt", weights_only=True) for n in ("lines-4x", "noise")}

    # the rate follows the length of the run: that must be the same
    monkeypatch.setattr(peers, "FALL", 1e-9)
    whole, parts = trained("whole", [48]), trained("parts", [16, 48])
    for name, state in whole.items():
        assert state["images"] == parts[name]["images"] == 48
        assert all(torch.equal(state["weights"][k], parts[name]["weights"][k]) for k in state["weights"])
    with pytest.raises(SystemExit, match="exists"):
        trained("whole", [48])
    with pytest.raises(SystemExit, match="lines 99x"):
        peers.train("lines 99x", config, images=1, out=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {r["task"] for r in rows} == {"lines 4x", "noise"}
    peers.evaluate(count=4, out=tmp_path / "whole", data=None, quick=True)
    report = json.loads((tmp_path / "whole" / "peers-quick.json").read_text())
    assert set(report["tasks"]["lines 4x"]) == {
        "U-Net of this task",
        "plug-and-play, 8 steps",
        "plug-and-play, 24 steps",
    }
    assert set(report["tasks"]["denoise 0.3"]) == {"U-Net", "U-Net, 4 views"}


def test_plug_and_play_with_a_gaussian_denoiser_finds_the_gaussian_posterior():
    """With the Wiener filter as its denoiser, a fixed level ends where data term and prior balance."""
    peers, common = script("peers"), script("common")
    x = images(2, size=32)
    power = torch.fft.fft2(x, norm="ortho").abs().square().mean(0) + 1e-3
    task = common.Task("lines", 0.1, "lines", 3, 0.2)
    folded = common.folded_measurement(task, common.measure(task, x, 0))
    level = 0.5

    class Wiener:
        def __init__(self):
            self.power = power

        def denoise(self, image, sigma):
            gain = power / (power + sigma**2)
            return torch.fft.ifft2(gain * torch.fft.fft2(image, norm="ortho"), norm="ortho").real

    found = peers.plug_and_play(folded, Wiener(), np.full(2000, level), 1.0)
    # x = (L y + z / s^2) / (L + 1 / s^2) and z = g x with g = P / (P + s^2)
    precision, gain = 1 / folded.variance, power / (power + level**2)
    known = torch.where(precision > 0, precision * folded.value, torch.zeros_like(folded.value))
    expected = torch.fft.ifft2(gain * known / (precision + (1 - gain) / level**2), norm="ortho").real
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


# ------------------------------------------------------------------------------------------- deblurring


def test_methods_for_a_picture_inside_a_scene_are_aligned_with_it():
    photographs = script("photographs")
    settings = photographs.Settings(seed=0, quick=True)
    x = 120 + 30 * images(1, size=64)
    kernel = torch.zeros(7, 9, dtype=torch.float64)
    kernel[1, 2] = kernel[3, 4] = kernel[4, 6] = 1 / 3
    picture = photographs.seen(x, kernel, 0, settings)
    assert picture.y.shape[-2:] == (58, 56)
    inside = picture.inside(x)

    def error(estimate, truth):
        return float((estimate - truth)[..., 6:-6, 6:-6].square().mean())

    for method in (
        lambda: photographs.wiener_deblurred(picture, 0.01),
        lambda: photographs.richardson_lucy(picture, 10),
        lambda: photographs.tv_deblurred(picture, 0.02, 100),
    ):
        estimate = method()
        assert estimate.shape == picture.y.shape
        assert error(estimate, inside) < 0.5 * error(picture.y, inside)
        for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            assert error(estimate, inside) < 0.4 * error(estimate, inside.roll(step, (-2, -1)))


def test_error_bars_are_judged_where_there_is_much_to_see_and_where_there_is_little():
    bars = script("error_bars")
    image = torch.zeros(1, 1, 50, 50)
    image[..., 25:, :] = torch.randn(25, 50, generator=torch.Generator().manual_seed(0))
    part = bars.parts_of(image)
    assert part.shape == image.shape
    assert int(part[..., :20, :].max()) < int(part[..., 30:, :].min())
    assert int(part.max()) == bars.PARTS - 1
    x = torch.from_numpy(load_samples().images[:2]).float()[:, None]
    x = x / x.std((1, 2, 3), keepdim=True)
    task = script("common").TASKS[1]
    found = bars.covered(iasolve.load_prior("mri-t1-128"), task, "fast", x, samples=2, seed=0)
    assert 0.85 < found["whole"] < 0.95
    assert all(0.8 < share < 0.98 for share in found["parts"])
    assert 0.7 < found["squared"] < 1.3


def test_a_choice_is_judged_by_what_came_out_best():
    choice = script("prior_choice")
    x = torch.from_numpy(load_samples().images[:1]).float()[:, None]
    task = script("common").TASKS[1]
    (group,) = script("common").measure(task, x / x.std(), 0)
    priors = [iasolve.load_prior(name) for name in choice.PRIORS]
    found = choice.compare(group, task, priors, seed=0)
    assert set(found["psnr"]) == set(choice.PRIORS)
    # a head: the photographs' prior is the worst, and far from being chosen
    assert found["chosen"] != "photo-grey-128"
    assert min(found["psnr"], key=found["psnr"].get) == "photo-grey-128"
    assert 0 <= found["lost"] < choice.WRONG
    assert all(seconds > 0 for seconds in found["seconds"])
