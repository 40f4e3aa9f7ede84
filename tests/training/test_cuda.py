"""What a GPU must do as the processor does it: solving, and a training step replayed as a CUDA graph."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import relative

import iasolve
from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, SensitivityEncoding, birdcage_maps
from iasolve.operators.masks import line_mask
from iasolve.samples import load_samples
from iasolve.training import Trainer, load_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SHAPE = (1, 128, 128)


def problems():
    mask = line_mask(SHAPE[1:], 4, 0.08, seed=0)
    maps = birdcage_maps(SHAPE[1:], 4).to(torch.complex64)
    blur = torch.ones(5, 5) / 25
    return [
        (Identity(SHAPE), "denoise", {}),
        (CircularBlur(blur, SHAPE), "deblur", {}),
        (KSpaceMask(mask, SHAPE), "compressed-sensing", {}),
        (KSpaceMask(mask, SHAPE), "fast", {"samples": 2}),
        (SensitivityEncoding(maps, mask, torch.float32), "fast", {}),
    ]


@pytest.mark.parametrize("index", range(5))
def test_a_problem_is_solved_as_on_the_processor(index):
    operator, recipe, options = problems()[index]
    x = torch.from_numpy(load_samples().images[:2].astype(np.float32))[:, None]
    x = x / x.square().mean().sqrt()
    noise = GaussianNoise(0.05)
    y = noise.sample(operator(x), torch.Generator().manual_seed(0))
    cpu = iasolve.solve(y, operator, iasolve.load_prior("mri-t1-128"), noise=noise, recipe=recipe, **options)
    gpu = iasolve.solve(
        y.cuda(), operator, iasolve.load_prior("mri-t1-128").to("cuda"), noise=noise, recipe=recipe, **options
    )
    assert gpu.image.device.type == "cuda"
    assert relative(gpu.image.cpu(), cpu.image) < 5e-3
    if options:
        assert relative(gpu.std.cpu(), cpu.std) < 5e-2


@pytest.mark.parametrize("degraded", [0.0, 1.0])
def test_a_step_replayed_as_a_graph_trains(tmp_path, degraded):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(64, 16, 16)), 1), 2)
    np.savez(tmp_path / "smooth.npz", images=smooth - smooth.min((1, 2), keepdims=True) + 1)
    (tmp_path / "run.toml").write_text(
        f"""
name = "smooth"
[network]
size = 16
grid_cap = 8
widths = [16, 16, 16, 16, 16]
layers = [1, 1, 1, 1, 1]
latents = [2, 2, 2, 2, 2]
encoder_blocks = [1, 1, 1, 1, 1]
[data]
path = "smooth.npz"
[[degradations]]
sigma = [0.01, 1.0]
[optimisation]
images = 4000
batch = 16
degraded = {degraded}
precision = "bfloat16"
validate_every = 100000
""",
        encoding="utf-8",
    )
    finals = {}
    for graph in (True, False):
        config = load_config(tmp_path / "run.toml")
        config = replace(config, optimisation=replace(config.optimisation, graph=graph))
        trainer = Trainer(config, tmp_path / str(graph), "cuda")
        trainer.measure_statistics()
        for _ in range(trainer.update.EAGER + 100):
            trainer._step(0.0)
        assert int(trainer.update.steps) == trainer.update.EAGER + 100
        assert (trainer.update._graph is not None) == graph
        trainer.update.means()
        for _ in range(50):
            trainer._step(0.0)
        means = trainer.update.means()
        assert all(math.isfinite(means[k]) for k in trainer.part.logged)
        finals[graph] = means["total"]
        state = [float(s["step"]) for s in trainer.update.optimizer.state.values()]
        assert set(state) == {trainer.update.EAGER + 150}
        trainer.save()
        again = Trainer(config, tmp_path / str(graph), "cuda")
        again.resume()
        again._step(0.0)
        assert math.isfinite(again.update.means()["total"])
    assert finals[True] == pytest.approx(finals[False], abs=0.15)
