"""Images too large for the memory: in windows, the answer is that of the whole, as near as matters."""

import importlib

import pytest
import torch
from skimage.data import camera

import iasolve
from iasolve.inference.memory import BudgetError, Cut, cut
from iasolve.metrics import psnr
from iasolve.operators import GaussianNoise, Identity, SpectralNoise
from iasolve.priors.portions import Portion
from iasolve.problem.options import Options
from iasolve.recipe import load_recipe

SOLVE = importlib.import_module("iasolve.inference.solve")
SHAPE = (1, 320, 288)
FAST = load_recipe("fast")


@pytest.fixture(scope="module")
def prior():
    return iasolve.load_prior("photo-grey-128")


@pytest.mark.parametrize("noise", [GaussianNoise(25.0), SpectralNoise((35.0, 27.0, 18.0, 10.0))])
def test_windows_are_seamless(noise, prior, monkeypatch):
    """To the truth within 0.1 dB of the whole, from it 10 dB less far; and no worse where windows meet."""
    x = torch.from_numpy(camera()[100:420, 100:388].copy()).float()[None]
    y = noise.sample(x, torch.Generator().manual_seed(0))
    options = {"noise": noise, "recipe": FAST, "samples": 1}
    whole = iasolve.solve(y, Identity(SHAPE), prior, **options)
    monkeypatch.setattr(SOLVE, "cut", lambda *_, **__: Cut(1, Portion(8), (192, 192)))
    stages = []
    pieces = iasolve.solve(y, Identity(SHAPE), prior, callback=stages.append, **options)
    assert [status.stage for status in stages] == ["closing"] * 4 + ["done"]
    near, far = psnr(pieces.image, x), psnr(whole.image, x)
    assert abs(near - far) < 0.1
    assert psnr(pieces.image, whole.image) > far + 10
    error = (pieces.image - x).square()[0]
    inner = torch.ones(SHAPE[1:], dtype=torch.bool)
    # windows begin at rows 0 and 128 and at columns 0 and 96: here both have a weight
    inner[128:192], inner[:, 96:192] = False, False
    other = (whole.image - x).square()[0]
    assert float(error[~inner].mean() / other[~inner].mean()) < 1.05
    assert float((pieces.std.square().mean() / whole.std.square().mean()).sqrt()) == pytest.approx(1, abs=0.2)
    assert pieces.fits.shape == whole.fits.shape == ()
    assert pieces.residual["bands"].shape == whole.residual["bands"].shape
    assert float(pieces.residual["whole"]) == pytest.approx(float(whole.residual["whole"]), rel=0.03)
    assert float(pieces.scales[0]["misfit"]) == pytest.approx(float(whole.scales[0]["misfit"]), rel=0.1)
    # of the sample, no two windows have the same error
    drawn = (pieces.samples - pieces.image)[0, 0]
    first, last = drawn[:96, :96].flatten(), drawn[-192:-96, -192:-96].flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, last]))[0, 1])) < 0.2


@pytest.mark.parametrize("shape", [(3000, 3000), (2500, 4000)])
def test_large_images_are_cut_into_windows_within_the_default_budget(shape, prior):
    options = Options(memory="1.5GB")
    with pytest.raises(BudgetError):  # of other operators, whose images hang together
        cut(prior, FAST, shape, options)
    found = cut(prior, FAST, shape, options, windows=True)
    assert found.images == 1
    assert found.window is not None
    assert max(found.window) <= 1024
    assert cut(prior, FAST, (500, 500), options, windows=True).window is None


def test_what_does_not_fit_in_windows_either_is_refused_in_words(prior):
    with pytest.raises(BudgetError, match=r"the memory budget is 1\.50 GB, and an image of 9000 x 9000 pixels"):
        cut(prior, FAST, (9000, 9000), Options(memory="1.5GB"), windows=True)
