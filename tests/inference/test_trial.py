"""What a trial keeps back of pixels, of noise drawn anew, and of operators that are not diagonal in frequency."""

import warnings

import numpy as np
import pytest
import torch
from tiny import bundled, tiny_prior

from iasolve import UnlikePriorWarning, solve
from iasolve.classical import total_variation
from iasolve.evidence import fold
from iasolve.inference import Gaussian, Options, trials
from iasolve.operators import (
    BlockAverage,
    Downsample,
    GaussianNoise,
    Identity,
    KSpaceMask,
    LinearOperator,
    LowPass,
    PixelMask,
    Radon,
    gaussian_kernel,
    line_mask,
)
from iasolve.operators.blur import Convolution
from iasolve.problem import Measurement
from iasolve.samples import load_samples
from iasolve.spectrum import radius

SHAPE = (2, 24, 36)
HALF = torch.rand(24, 36, generator=torch.Generator().manual_seed(0)) < 0.5


def measured(operator: LinearOperator, sigma: float = 0.1) -> tuple[torch.Tensor, Measurement]:
    x = torch.rand(3, *operator.in_shape, generator=torch.Generator().manual_seed(1)).to(operator.in_dtype)
    return x, Measurement(operator(x), torch.full((3,), sigma), operator)


@pytest.mark.parametrize(
    "operator",
    [PixelMask(HALF, SHAPE), PixelMask(HALF, SHAPE, torch.complex64), BlockAverage(2, SHAPE), Downsample(2, SHAPE)],
)
def test_what_is_kept_back_of_pixels_is_not_seen(operator):
    x, batch = measured(operator)
    known = int((batch.y != 0).any(0)[0].sum())
    parts = list(trials(batch))
    assert len(parts) == 6
    for trial in parts:
        assert int(trial.back.sum()) == pytest.approx(known / 6, abs=6)
        assert not bool((trial.seen.y[..., trial.back] != 0).any())
        torch.testing.assert_close(trial.seen.y, trial.seen.operator(x))
        assert trial.of_pixels
        # still solved in closed form
        assert trial.seen.operator.row_gains() is not None
        power = torch.ones(3, *SHAPE)
        assert float(trial.error(x, power).max()) < 1e-9
        # one in each value kept back, of both channels; of those that were seen, what noise of 0.1 does not explain
        ones = trial.operator(torch.ones(operator.in_shape, dtype=operator.in_dtype)[None])
        back = int(trial.back.sum())
        missing = 24 * 36 - int((ones != 0).any(1).sum())
        beyond = 2 * (1 - 0.1**2) * (24 * 36 - missing) * back / missing
        assert torch.allclose(trial.error(x + 1, power), torch.full((3,), 2.0 * back + beyond), rtol=1e-3)
    assert int(sum(trial.back.int() for trial in parts).max()) == 1


@pytest.mark.parametrize(
    "operator", [Identity(SHAPE), PixelMask(torch.ones(24, 36), SHAPE), Convolution(gaussian_kernel(1.0), SHAPE)]
)
def test_of_images_seen_whole_no_pixels_are_kept_back(operator):
    """The second part's noise is the first's with the other sign."""
    _, batch = measured(operator)
    first, second = trials(batch)
    assert first.back is None
    assert not torch.allclose(first.seen.y, batch.y)
    torch.testing.assert_close(first.seen.y + second.seen.y, 2 * batch.y)
    torch.testing.assert_close(first.hidden + second.hidden, 2 * batch.y)


def test_a_single_known_pixel_is_not_kept_back():
    one = torch.zeros(24, 36, dtype=torch.bool)
    one[3, 5] = True
    assert [trial.back for trial in trials(measured(PixelMask(one, SHAPE))[1])] == [None, None]


def test_pixels_below_zero_are_warned_of():
    y = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * HALF[:, :32].repeat(2, 1)[:32]
    operator = PixelMask(HALF[:, :32].repeat(2, 1)[:32], (1, 32, 32))
    with pytest.warns(UnlikePriorWarning, match="below zero"):
        solve(y, operator, bundled("mri-any-128"), noise=GaussianNoise(0.05), recipe="fast", fallback=False)


def test_both_signs_of_noise_tell_two_images_apart_better_than_two_draws():
    operator, sigma = Identity((1, 32, 32)), 0.5
    x = torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    y = GaussianNoise(sigma).sample(x, torch.Generator().manual_seed(2))
    batch = Measurement(y, torch.full((50,), sigma), operator)
    power = torch.ones_like(x)

    def off(trial) -> torch.Tensor:
        """How far a trial's difference of two errors lies from the true one."""
        ours, theirs = 0.8 * trial.seen.y, 0.6 * trial.seen.y
        told = trial.error(theirs, power) - trial.error(ours, power)
        true = (theirs - x).square() - (ours - x).square()
        # frequencies are weighted by 1 / (1 + 0.003)
        return 1.003 * told - true.flatten(1).sum(1)

    found = torch.stack([torch.stack([off(trial) for trial in trials(batch, seed)]) for seed in range(7)])
    both, drawn = found[:-1].sum(1), found[:-1, 0] + found[1:, 0]
    assert float(both.square().mean()) < 0.75 * float(drawn.square().mean())


def test_the_filter_of_a_trial_is_linear():
    """Ended early, conjugate gradients are not; what is left was as large as the differences to be told."""
    operator = Radon(np.linspace(0, 180, 24, endpoint=False), (1, 32, 32))
    prior, generator = tiny_prior(), torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 32, 32, generator=generator)
    y = GaussianNoise(0.2).sample(operator(x), generator)
    rival = Gaussian(Measurement(y, torch.full((1,), 0.2), operator), prior, Options())
    noise, signal = torch.randn(y.shape, generator=generator), operator(x)
    heard = rival.linear(noise)
    left = rival.linear(signal + noise) - rival.linear(signal) - heard
    assert float(left.norm()) < 0.06 * float(heard.norm())  # 0.2 with ten times a solution's tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_of_a_low_pass_the_finest_frequencies_are_kept_back(dtype):
    operator = LowPass(8, (1, 24, 36), dtype)
    x, batch = measured(operator)
    reach, power = radius(24, 36), torch.ones(3, 1, 24, 36)
    for trial, left in zip(trials(batch), (2, 2), strict=True):  # 8 / sqrt(2) and 8 / 2 end between 2 and 3
        assert torch.equal(trial.back, (reach > left) & (reach <= 4))
        assert not trial.of_pixels
        torch.testing.assert_close(trial.seen.y, trial.seen.operator(x))
        assert torch.equal(trial.seen.operator.transfer()[0] != 0, reach <= left)
        assert float(trial.error(x, power).max()) < 1e-9
        expected = 0.01 * torch.ones_like(power)
        for factor in (0.25, 4.0):
            noise = torch.randn(3, 1, 24, 36, dtype=dtype, generator=torch.Generator().manual_seed(0))
            found = trial.surplus(x + 0.1 * factor**0.5 * noise, expected)
            assert (found > 1).all() if factor > 1 else (found < 1).all()
    wider = LowPass(34, (1, 24, 36), dtype)
    assert next(trials(measured(wider)[1])).back is None  # nearly all of the frequencies


@pytest.mark.slow
def test_projections_of_a_head_are_solved_by_the_prior():
    """Three of four such heads fell back to the linear estimate, 3 to 6 dB below."""
    head = torch.from_numpy(load_samples().images[:1, None]).float()
    head = head / head.std()
    operator, noise = Radon(np.linspace(0, 180, 60, endpoint=False), (1, 128, 128)), GaussianNoise(0.5)
    y = noise.sample(operator(head), torch.Generator().manual_seed(0))
    assert solve(y, operator, bundled("mri-t1-128"), noise=noise, recipe="fast").prior_used == ["mri-t1-128"]


@pytest.mark.slow
def test_pixels_kept_back_tell_images_that_passes_spoil():
    """By noise drawn anew the prior seemed better than the Gaussian: 3 dB, below the zeros of the measurement."""
    rows, columns = np.mgrid[:128, :128]
    board = torch.from_numpy((rows + columns) % 2).float()[None, None]
    operator = PixelMask(torch.rand(128, 128, generator=torch.Generator().manual_seed(1)) < 0.5, (1, 128, 128))
    noise = GaussianNoise(0.01)
    y = noise.sample(operator(board), torch.Generator().manual_seed(0)) * operator.mask

    def decibels(image: torch.Tensor) -> float:
        return -10 * float((image - board).square().mean().log10())

    result = solve(y, operator, bundled("mri-t1-128"), noise=noise, warn=False)
    alone = solve(y, operator, bundled("mri-t1-128"), noise=noise, warn=False, fallback=False)
    assert result.prior_used == ["gaussian"]
    assert decibels(result.image) > max(decibels(alone.image) + 2, decibels(y))


@pytest.mark.slow
def test_a_board_of_larger_squares_is_not_spoiled():
    """Passes ended at 5 dB."""
    rows, columns = np.mgrid[:128, :128] // 8
    board = torch.from_numpy((rows + columns) % 2).float()[None, None]
    operator = PixelMask(torch.rand(128, 128, generator=torch.Generator().manual_seed(1)) < 0.5, (1, 128, 128))
    noise = GaussianNoise(0.01)
    y = noise.sample(operator(board), torch.Generator().manual_seed(0)) * operator.mask
    result = solve(y, operator, bundled("photo-grey-128"), noise=noise, warn=False)
    assert float((y - board).square().mean() / (result.image - board).square().mean()) > 10**0.5


def test_what_contradicts_known_pixels_counts():
    """A bound at zero may be better in between and cut off what is known: by hand, in units of the pixels kept back."""
    x, operator = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)), PixelMask(HALF, SHAPE)
    batch = Measurement(operator(x), torch.full((3,), 0.1), operator)
    trial = next(trials(batch))
    y, back, sigma = trial.hidden, trial.back, float(batch.sigma[0])
    image = y.clamp_min(0)
    seen = HALF.bool() & ~back
    residual = (image - y).square()
    beyond = (residual * seen).flatten(1).sum(1) - sigma**2 * 2 * int(seen.sum())
    ratio = int(HALF.sum()) / int(seen.sum()) * int(back.sum()) / (HALF.numel() - int(HALF.sum()))
    assert bool((beyond > 0).all())
    expected = (residual * back).flatten(1).sum(1) + ratio * beyond
    assert torch.allclose(trial.error(image, torch.ones(3, *SHAPE)), expected, rtol=1e-5)
    assert bool((trial.error(y, torch.ones(3, *SHAPE)) == 0).all())


@pytest.mark.parametrize("kind", ["pixels", "k-space"])
def test_the_weight_of_an_answer_is_that_of_least_squares(kind):
    """By numpy's least squares of the part kept back; and its error that of White (1980), sample by sample."""
    operator = PixelMask(HALF, SHAPE) if kind == "pixels" else KSpaceMask(line_mask((24, 36), 2, 0.2), SHAPE)
    _, batch = measured(operator)
    trial = next(trials(batch))
    draw = torch.Generator().manual_seed(7)
    image, other = (torch.rand(3, *SHAPE, generator=draw) for _ in range(2))
    p, q, pp, pq, qq = trial.products(image, other, torch.ones(3, *SHAPE))
    assert trial.back is not None
    for number in range(3):
        seen, against, hidden = (
            v[number][..., trial.back].flatten().numpy() for v in (operator(image), operator(other), trial.hidden)
        )
        wanted, gained = (np.concatenate([(v - against).real, (v - against).imag]) for v in (hidden, seen))
        best = np.linalg.lstsq(gained[:, None], wanted, rcond=None)[0][0]
        assert float(p[number] / q[number]) == pytest.approx(best, rel=1e-4)
        pairs = (wanted - best * gained) * gained
        scores = pairs[: len(pairs) // 2] + pairs[len(pairs) // 2 :]
        spread = pp[number] - 2 * best * pq[number] + best**2 * qq[number]
        assert float(spread / q[number] ** 2) == pytest.approx((scores**2).sum() / (gained**2).sum() ** 2, rel=1e-3)


def test_noise_drawn_anew_tells_no_weight():
    _, batch = measured(Identity(SHAPE))
    trial = next(trials(batch))
    assert bool((trial.products(batch.y, 2 * batch.y, torch.ones(3, *SHAPE)) == 0).all())


@pytest.mark.slow
def test_few_pixels_do_not_speak_against_the_priors_own_images():
    heads = torch.from_numpy(load_samples().images[:2, None]).float()
    heads = heads / heads.std((1, 2, 3), keepdim=True)
    operator = PixelMask(torch.rand(128, 128, generator=torch.Generator().manual_seed(0)) < 0.3, (1, 128, 128))
    noise = GaussianNoise(0.02)
    y = noise.sample(operator(heads), torch.Generator().manual_seed(0)) * operator.mask
    result = solve(y, operator, bundled("mri-t1-128"), noise=noise, warn=False)
    assert result.fits.all()


def test_total_variation_of_a_trial_is_that_of_the_measurement():
    operator = KSpaceMask(line_mask((32, 48), 2, 0.2), (1, 32, 48))
    _, batch = measured(operator)
    rival = Gaussian(batch, tiny_prior(), Options())
    like = torch.rand(3, 1, 32, 48, generator=torch.Generator().manual_seed(5))
    found = rival.flat(like)
    assert found is not None
    transfer, sigma = operator.transfer(), torch.tensor(0.1)
    seen = fold(operator.to_grid(batch.y), transfer, sigma, real_image=True, complex_noise=True)
    for number in range(3):
        weight = 30 / float(like[number].std())
        precision = 1 / seen.variance.expand(seen.value.shape)[number]
        alone = total_variation(precision, seen.value[number], weight, tolerance=1e-5, max_iterations=2000).image
        assert float((found[number] - alone).norm() / alone.norm()) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "flat"), [("phase", True), ("head", False)])
def test_lines_of_flat_images_are_said_to_be_so(kind, flat):
    """Four decibels behind total variation, without a word."""
    rows, columns = np.mgrid[:128, :128] / 128
    phase = np.angle(np.exp(1j * (12 * np.sin(3 * rows) * np.cos(2 * columns) + 9 * columns)))
    image = {"phase": phase - phase.min(), "head": load_samples().images[0]}[kind].astype(np.float32)
    truth = torch.from_numpy(image / image.std())[None, None]
    operator, noise = KSpaceMask(line_mask((128, 128), 4, 0.08, seed=1), (1, 128, 128)), GaussianNoise(0.02)
    y = noise.sample(operator(truth), torch.Generator().manual_seed(0)) * operator.mask
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UnlikePriorWarning)
        result = solve(y, operator, bundled("mri-any-128"), noise=noise)
    assert (float(result.variation) < 0.7) == flat
    assert bool(caught) == flat
    quick = solve(y, operator, bundled("mri-any-128"), noise=noise, recipe="fast", warn=False)
    assert bool(quick.variation.isnan().all())
