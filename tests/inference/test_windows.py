"""Images too large for the memory: in windows, the answer is that of the whole, as near as matters."""

import importlib

import numpy as np
import pytest
import torch
from skimage.data import camera
from tiny import bundled

import iasolve
from iasolve.inference.memory import BudgetError, Cut, cut
from iasolve.metrics import psnr
from iasolve.operators import (
    CircularBlur,
    Convolution,
    GaussianNoise,
    Identity,
    KSpaceMask,
    SpectralNoise,
    gaussian_kernel,
)
from iasolve.priors.portions import Portion
from iasolve.problem import Measurement, Options
from iasolve.recipe import load_recipe

SOLVE = importlib.import_module("iasolve.inference.solve")
WINDOWS = importlib.import_module("iasolve.inference.windows")
FALLBACK = importlib.import_module("iasolve.inference.fallback")
SHAPE = (1, 320, 288)
FAST = load_recipe("fast")


@pytest.fixture(scope="module")
def prior():
    return bundled("photo-grey-128")


@pytest.mark.slow
def test_windows_are_seamless(prior, monkeypatch):
    """To the truth within 0.1 dB of the whole, from it 10 dB less far; and no worse where windows meet.

    In noise that is not white; in white noise below, of blurred pictures.
    """
    noise = SpectralNoise((35.0, 27.0, 18.0, 10.0))
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


def picture(size, kernel, frame, dtype=torch.float32):
    """A camera's picture of ``size``, of a scene that is larger by ``frame``."""
    scene = (1, *(n + f for n, f in zip(size, frame, strict=True)))
    return WINDOWS.Crop(scene, size, dtype) @ CircularBlur(kernel, scene, dtype)


@pytest.mark.parametrize("frame", [(9, 10), (12, 9), (15, 20)])
def test_a_window_measures_what_the_picture_shows_of_it(frame):
    """With kernels of odd and even sides, and frames as wide as these and wider."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.rand((10, 9), generator=generator, dtype=torch.float64) + 0.1
    operator = picture((70, 80), kernel / kernel.sum(), frame, torch.float64)
    scene = torch.randn(operator.in_shape, generator=generator, dtype=torch.float64)[None]
    whole = WINDOWS.Measurement(operator(scene), torch.ones(1), operator)
    part, trim = WINDOWS.cutter(whole, (48, 56))
    assert trim == frame
    for top, left in ((0, 0), (3, 20), (operator.in_shape[1] - 48, operator.in_shape[2] - 56)):
        found = part(top, left)
        again = found.operator(scene[..., top : top + 48, left : left + 56])
        torch.testing.assert_close(found.y, again, rtol=0, atol=1e-10)


def test_what_hangs_together_has_no_windows():
    """A blur that goes round, one that reaches beyond the frame, and k-space."""
    kernel = torch.ones(9, 9) / 81
    assert WINDOWS.least_window(picture((40, 40), kernel, (8, 8))) == 32
    assert WINDOWS.least_window(picture((40, 40), kernel, (4, 8))) is None
    assert WINDOWS.least_window(CircularBlur(kernel, (1, 40, 40))) is None
    assert WINDOWS.least_window(KSpaceMask(torch.ones(40, 40), (1, 40, 40))) is None
    assert WINDOWS.least_window(Convolution(kernel, (1, 40, 40), boundary="valid")) == 32
    assert WINDOWS.least_window(Convolution(kernel, (1, 40, 40), boundary="reflect")) is None
    assert WINDOWS.least_window(Identity((1, 40, 40))) == 1


@pytest.mark.slow
def test_windows_of_blurred_pictures_are_seamless(prior, monkeypatch):
    """To the truth within 0.1 dB of the whole, from it 10 dB less far; and no worse where windows meet."""
    x = torch.from_numpy(camera()[100:420, 100:388].copy()).float()[None]
    frame = (12, 12)
    operator = picture((SHAPE[1] - 12, SHAPE[2] - 12), gaussian_kernel(1.5)[1:-1, 1:-1], frame)
    y = GaussianNoise(4.0).sample(operator(x), torch.Generator().manual_seed(0))
    options = {"noise": GaussianNoise(4.0), "recipe": FAST}
    whole = iasolve.solve(y, operator, prior, **options)
    monkeypatch.setattr(SOLVE, "cut", lambda *_, **__: Cut(1, Portion(8), (192, 192)))
    pieces = iasolve.solve(y, operator, prior, **options)
    seen = (..., slice(6, -6), slice(6, -6))
    near, far = psnr(pieces.image[seen], x[seen]), psnr(whole.image[seen], x[seen])
    assert abs(near - far) < 0.1
    assert psnr(pieces.image[seen], whole.image[seen]) > far + 10
    error, other = ((found.image - x).square()[seen][0] for found in (pieces, whole))
    # windows begin at rows 0 and 128 and at columns 0 and 96 of the scene
    assert float(error[122:186].mean() / other[122:186].mean()) < 1.05
    assert float(error[:, 90:186].mean() / other[:, 90:186].mean()) < 1.05
    assert float(pieces.residual["whole"]) == pytest.approx(float(whole.residual["whole"]), rel=0.03)


@pytest.mark.parametrize("filtered", [False, True])
def test_the_windows_that_show_most_have_the_noise_of_their_image(filtered, monkeypatch):
    """Of two images of 4 x 3 windows, those with the strongest patterns, wherever these are."""
    monkeypatch.setattr(WINDOWS, "GLIMPSE", 16)
    strong = ((0, 2), (3, 1)), ((2, 0), (1, 1))
    x = torch.zeros(2, 1, 70, 50)
    pattern = 40 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    for image, places in zip(x, strong, strict=True):
        for row, column in places:
            image[0, 16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)] = pattern
    sigma = torch.tensor([2.0, 2.0]) if filtered else torch.tensor([2.0, 3.0])
    plain = Identity((1, 70, 50))
    if filtered:
        noise = SpectralNoise((3.0, 2.0, 1.0, 0.5))
        white = noise.whitened(x, plain)
        levels = torch.tensor([noise.levels, noise.levels])
        batch = Measurement(white.y, torch.full((2,), white.noise.sigma), white.operator, levels=levels, filtered=True)
    else:
        batch = Measurement(x, sigma, plain)
    found, count = WINDOWS.glimpse(batch, 2)
    assert count == 2
    assert found.operator.in_shape == (1, 16, 16)
    torch.testing.assert_close(found.sigma, batch.sigma.repeat_interleave(2))
    torch.testing.assert_close(found.images, pattern.expand(4, 1, 16, 16), atol=2e-4, rtol=1e-4)
    # half of an image at most
    assert WINDOWS.glimpse(batch, 9)[1] == 70 * 50 // (2 * 16 * 16)
    monkeypatch.setattr(WINDOWS, "GLIMPSE", 32)
    assert WINDOWS.glimpse(batch, 9)[0] is batch


@pytest.mark.parametrize("name", ["photo-grey-128", "mri-t1-128"])
@pytest.mark.slow
def test_a_large_image_is_judged_by_its_windows_as_it_is_as_a_whole(name, monkeypatch):
    prior, noise = bundled(name), GaussianNoise(25.0)
    picture = torch.from_numpy(camera()[:384].astype(np.float32))[None]
    # a texture that neither prior knows, and a hidden picture in much of nothing
    checks = (
        128 + 40 * torch.sign(torch.sin(torch.arange(384.0)[:, None] * 3) * torch.sin(torch.arange(512.0) * 3))[None]
    )
    y = torch.stack([noise.sample(x, torch.Generator().manual_seed(0)) for x in (picture, checks)])
    batch = Measurement(y, torch.full((2,), 25.0), Identity((1, 384, 512)))
    options, recipe = Options(), FAST
    tiled = FALLBACK.verdict(batch, prior, recipe, options)
    monkeypatch.setattr(FALLBACK, "glimpse", lambda one: (one, 1))
    whole = FALLBACK.verdict(batch, prior, recipe, options)
    assert tiled.fits.tolist() == whole.fits.tolist() == [True, False]


@pytest.mark.slow
def test_windows_of_a_blurred_picture_tell_whether_a_prior_fits(prior, monkeypatch):
    """Of each that is looked at, the measurement is that of the scene there."""
    kernel = gaussian_kernel(1.6)
    shape = (420, 400)
    scene = torch.from_numpy(camera()[: shape[0], : shape[1]].copy()).float()[None, None]
    operator = picture(
        tuple(n - m + 1 for n, m in zip(shape, kernel.shape, strict=True)), kernel, [m - 1 for m in kernel.shape]
    )
    y = GaussianNoise(2.0).sample(operator(scene), torch.Generator().manual_seed(0))
    batch = Measurement(y, torch.tensor([2.0]), operator)
    found, count = WINDOWS.glimpse(batch, 4)
    assert 2 <= count <= 4
    assert count * found.operator.in_shape[1] ** 2 <= shape[0] * shape[1] / 2
    side = found.operator.in_shape[1]
    corners = [(r, c) for r in range(0, shape[0] - side + 1, side) for c in range(0, shape[1] - side + 1, side)]
    parts = [found.operator(scene[..., r : r + side, c : c + side]) for r, c in corners]
    # each window's measurement is one of these, but for the noise
    for one in found.y:
        assert min(float((one - part[0]).std()) for part in parts) == pytest.approx(2.0, rel=0.1)
    tiled = FALLBACK.verdict(batch, prior, load_recipe("deblur"), Options())
    monkeypatch.setattr(FALLBACK, "glimpse", lambda one: (one, 1))
    whole = FALLBACK.verdict(batch, prior, load_recipe("deblur"), Options())
    assert tiled.fits.tolist() == whole.fits.tolist() == [True]


@pytest.mark.parametrize("shape", [(3000, 3000), (2500, 4000)])
def test_large_images_are_cut_into_windows_within_the_default_budget(shape, prior):
    options = Options(memory="1.5GB")
    with pytest.raises(BudgetError):  # of other operators, whose images hang together
        cut(prior, FAST, shape, options)
    found = cut(prior, FAST, shape, options, least=lambda: 1)
    assert found.images == 1
    assert found.window is not None
    assert max(found.window) <= 1024
    assert cut(prior, FAST, (500, 500), options, least=lambda: 1).window is None


def test_what_does_not_fit_in_windows_either_is_refused_in_words(prior):
    with pytest.raises(BudgetError, match=r"the memory budget is 1\.50 GB, and an image of 9000 x 9000 pixels"):
        cut(prior, FAST, (9000, 9000), Options(memory="1.5GB"), least=lambda: 1)


def test_the_windows_of_a_blurred_picture_that_show_most_are_looked_at(monkeypatch):
    """A small picture is looked at as a whole, and one whose blur goes round, too."""
    kernel = torch.ones(9, 9) / 81
    operator = picture((192, 248), kernel, (8, 8))
    scene = torch.zeros(operator.in_shape)
    scene[:, 70:] = torch.randn(1, 130, 256, generator=torch.Generator().manual_seed(0))
    whole = Measurement(operator(scene)[None], torch.ones(1), operator, offset=torch.zeros(1))
    assert WINDOWS.glimpse(whole, 4) == (whole, 1)
    monkeypatch.setattr(WINDOWS, "GLIMPSE", 56)
    found, count = WINDOWS.glimpse(whole, 4)
    assert count == 4
    assert found.operator.in_shape == (1, 64, 64)
    assert found.y.shape == (4, 1, 56, 56)
    assert found.sigma.shape == found.offset.shape == (4,)
    assert float(found.y.std()) > 0.8 * float(whole.y[..., 70:, :].std())
    circular = CircularBlur(kernel, (1, 200, 256))
    round_ = Measurement(circular(scene)[None], torch.ones(1), circular)
    assert WINDOWS.glimpse(round_, 4) == (round_, 1)
