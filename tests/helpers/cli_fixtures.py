"""What the command-line tests share: a tiny prior, real samples, and the program in this process."""

import contextlib
import io
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest

from iasolve.cli import main
from iasolve.priors.registry import find_prior, load_prior
from iasolve.samples import load_samples

SIZE = 32


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def report(self):
        return json.loads(self.out)


def cli(*arguments):
    """Run the program as its entry point does; warnings are errors here, as for every test."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch("iasolve.cli.priors.load_prior", _prior),
        patch("iasolve.load_prior", _prior),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as caught,
    ):
        main([str(a) for a in arguments])
    return Outcome(caught.value.code, out.getvalue(), err.getvalue())


def _prior(source):
    """A prior is read once by a process of tests, and again when one of its files has changed."""
    path = find_prior(source)
    files = sorted(path.parent.glob(f"{path.name.partition('.')[0]}.*"))
    return _read(path, tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@lru_cache(maxsize=8)
def _read(path, files):
    return load_prior(path)


def small(images):
    """Block averages of 128 x 128 samples, ``(n, 32, 32)`` float64."""
    step = images.shape[-1] // SIZE
    return images.reshape(len(images), SIZE, step, SIZE, step).astype(np.float64).mean((2, 4))


@pytest.fixture(scope="session")
def heads():
    """Real samples at the tiny prior's size, 0 to 255."""
    return small(load_samples().images)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A 32 x 32 prior that was never trained, but knows the power spectrum of heads: a Wiener filter at heart."""
    return _tiny(tmp_path_factory.getbasetemp() / "prior")


@lru_cache
def _tiny(folder):
    """Made once a process, not once for each module that imports the fixture."""
    import torch

    from iasolve.networks import HVAE, NetworkConfig
    from iasolve.priors import save_checkpoint

    torch.manual_seed(0)
    heads = small(load_samples().images)
    config = NetworkConfig(SIZE, (16,) * 6, (1,) * 6, (4,) * 6, (1,) * 6, grid_cap=16, head_blocks=1)
    network = HVAE(config)
    images = torch.from_numpy(heads / np.sqrt((heads**2).mean((1, 2), keepdims=True))).float()[:, None]
    power = torch.fft.fft2(images, norm="ortho").abs().square().mean(0)
    spectrum = network.spectrum
    rings = spectrum.ring_means(spectrum.half(power))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # a fresh network all but ignores its latents; samples ought to differ
            if ".project." in name:
                parameter.mul_(30)
        network.power.copy_(_per_bin(rings, spectrum))
        network.ring_std.copy_(0.1 * rings.sqrt())
        network.sigma_x.copy_(rings.sqrt())
    folder.mkdir()
    path = folder / "tiny.safetensors"
    card = {
        "name": "tiny",
        "kind": "ia-hvae",
        "data": {"name": "four heads", "licence": "CC BY 4.0"},
        "training": {"images": 0},
        "validation": {},
        "sigma_x": network.sigma_x.tolist(),
        "ring_power": rings.tolist(),
    }
    save_checkpoint(network, card, path)
    return path


@pytest.fixture
def quick_statistics(monkeypatch):
    """Trainings measure their images' power on 64 of them, not on 2048."""
    from iasolve.training import Trainer

    monkeypatch.setattr(Trainer.measure_statistics, "__defaults__", (2,))


def _per_bin(rings, spectrum):
    from iasolve.spectrum import ring_index

    return rings[:, ring_index(spectrum.size)]


def program():
    """The installed program, beside the interpreter that runs the tests."""
    return [str(Path(sys.executable).with_name("iasolve"))]
