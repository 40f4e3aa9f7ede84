"""The reader network: preconditioning by the Wiener posterior, any size, batches, and the error that it expects."""

import pytest
import torch
from tiny import SIZE, decaying_power, images, relative, tiny_reader

from iasolve.evidence import fold, profile, wiener_posterior
from iasolve.networks import Reader, ReaderConfig
from iasolve.spectrum import RingGrid, Spectrum, fft2, power_at, radius, ring_index, rings_at


def posterior(reader, x, transfer=None, sigma=0.3):
    shape = x.shape[-2:]
    transfer = torch.ones(shape) if transfer is None else transfer
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    y = transfer * fft2(x) + sigma * fft2(noise)
    folded = fold(y, transfer, sigma, real_image=not x.is_complex(), complex_noise=x.is_complex())
    return folded, wiener_posterior(folded, reader.power.to(x.real.dtype), is_complex=x.is_complex())


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("shape", [(32, 32), (37, 61), (50, 24), (3, 3), (1, 20), (1, 1)])
def test_an_image_of_any_size_is_read(shape, is_complex):
    reader = tiny_reader(is_complex)
    x = torch.randn(2, 1, *shape, dtype=torch.complex64 if is_complex else torch.float32)
    reading = reader(*posterior(reader, x)[1])
    assert reading.estimate.shape == x.shape
    assert reading.estimate.dtype == x.dtype
    assert reading.variance.shape == x.shape
    assert bool((reading.variance >= 0).all())
    assert torch.isfinite(reading.estimate.abs()).all()


@pytest.mark.parametrize("is_complex", [False, True])
def test_exactly_measured_frequencies_stay_and_others_move(is_complex):
    reader = tiny_reader(is_complex, torch.float64)
    x = images(2, dtype=torch.complex128 if is_complex else torch.float64)
    mask = (radius(SIZE, SIZE) <= 6).double()
    folded, evidence = posterior(reader, x, mask, sigma=0.0)
    reading = reader(*evidence)
    spectrum, inside = fft2(reading.estimate), mask.bool()
    assert relative(spectrum[..., inside], folded.value[..., inside]) < 1e-12
    assert float(spectrum[..., ~inside].abs().min()) > 0
    assert float(reading.variance[..., inside].max()) == 0
    assert float(reading.variance[..., ~inside].min()) > 0


def test_a_batch_gives_what_single_images_give():
    reader = tiny_reader(dtype=torch.float64)
    x = images(3, dtype=torch.float64)
    _, evidence = posterior(reader, x)
    together = reader(*evidence)
    for i in range(3):
        alone = reader(*(t[i : i + 1] for t in evidence))
        assert relative(together.estimate[i : i + 1], alone.estimate) < 1e-12
        assert relative(together.variance[i : i + 1], alone.variance) < 1e-12
        assert relative(together.spread[i : i + 1], alone.spread) < 1e-12


def test_a_change_in_the_middle_stays_in_the_middle_of_the_correction():
    """Fully convolutional: beyond the receptive field, only the Fourier preconditioning carries a change on."""
    reader = tiny_reader(dtype=torch.float64)
    x = torch.randn(1, 1, 96, 96, dtype=torch.float64)
    moved = x.clone()
    moved[..., 48, 48] += 1
    embedding = reader.embed(torch.zeros(1, 24, dtype=torch.float64))
    change = reader._network(x, embedding)[0] - reader._network(moved, embedding)[0]
    assert float(change[..., 48, 48].abs()) > 0
    assert float(change[..., :16, :].abs().max()) == float(change[..., :, 80:].abs().max()) == 0


def test_the_rings_of_the_own_size_are_the_spectrums():
    ring, count = rings_at((SIZE, SIZE), SIZE)
    assert torch.equal(ring, ring_index(SIZE))
    assert torch.equal(count, Spectrum(SIZE, is_complex=True).bins_per_ring)


@pytest.mark.parametrize("shape", [(64, 64), (31, 45), (16, 16), (5, 90)])
def test_rings_follow_cycles_per_pixel(shape):
    ring, count = rings_at(shape, SIZE)
    assert int(count.sum()) == shape[0] * shape[1]
    assert int(ring[0, 0]) == 0
    fy, fx = (torch.fft.fftfreq(n).abs() for n in shape)
    r = torch.maximum(fy[:, None].expand(shape), fx[None].expand(shape)) * SIZE
    assert torch.equal(ring == 5, r > 8)
    assert torch.equal(ring == 2, (r > 1) & (r <= 2))


def test_power_is_interpolated_at_equal_cycles_per_pixel():
    power = decaying_power(SIZE)[None]
    assert power_at(power, (SIZE, SIZE)) is power
    twice = power_at(power, (2 * SIZE, 2 * SIZE))
    assert torch.allclose(twice[:, ::2, ::2], power)
    assert torch.allclose(twice[0, 1, 0], (power[0, 0, 0] + power[0, 1, 0]) / 2)


def test_the_profile_of_the_own_size_is_by_the_spectrums_rings():
    rho = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    spectrum = Spectrum(SIZE, is_complex=True)
    wanted = torch.stack([spectrum.ring_means(r).mean(1) for r in (rho, rho.square())], dim=1)
    assert torch.allclose(profile(rho, rings_at((SIZE, SIZE), SIZE)), wanted)


def test_a_grid_without_some_frequencies_counts_them_as_unknown():
    owner, counts = rings_at((SIZE, SIZE), SIZE)
    some = RingGrid(owner.where(torch.arange(SIZE) < SIZE // 2, -1), counts)
    rho = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(profile(rho, some), profile(rho * some.inside, rings_at((SIZE, SIZE), SIZE)))


def test_rings_without_bins_take_the_next_finer_one():
    rho = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = profile(rho, rings_at((8, 8), SIZE))
    # 8 pixels: multiples of 4 cycles per 32 pixels; scales 2 and 4 have no bins
    assert torch.equal(seen[..., 1], seen[..., 3])
    assert torch.equal(seen[..., 2], seen[..., 3])
    assert torch.allclose(seen[0, 0, 0], rho[0, 0, 0, 0])
    assert torch.equal(profile(rho[..., :1, :1], rings_at((1, 1), SIZE))[0, 0], rho[0, 0, 0, :1].expand(6))


def test_the_wiener_posterior_is_the_exact_gaussian_one():
    """Against the dense normal equations of a small image."""
    from tiny import circulant

    reader = tiny_reader(dtype=torch.float64)
    x = images(1, size=12, dtype=torch.float64)
    power = power_at(reader.power, (12, 12))
    mask = (radius(12, 12) <= 3).double()
    folded, evidence = posterior(reader, x, mask, sigma=0.5)
    covariance = circulant(power[0])
    # the measured spectrum is white noise of variance 0.25 on the real image in the measured band
    band = circulant(mask)
    gain = covariance @ band @ torch.linalg.pinv(band @ (covariance + 0.25 * torch.eye(144)) @ band)
    y = torch.fft.ifft2(folded.value, norm="ortho").real.flatten()
    assert relative(evidence.mean.flatten(), gain @ y) < 1e-10
    left = covariance - gain @ band @ covariance
    variances = torch.fft.fft2(left.reshape(144, 12, 12)[0], norm="backward").real
    assert relative(power[0] * (1 - evidence.rho[0, 0]), variances) < 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 48}, "power of two"),
        ({"widths": (8,), "blocks": (1, 1)}, "one entry a level, got 1 and 2"),
        ({"widths": (0, 4), "blocks": (1, 1)}, "greater than or equal to 1"),
    ],
)
def test_impossible_readers_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        ReaderConfig.from_dict({"size": 32} | change)


def test_unknown_keys_are_refused_by_name():
    with pytest.raises(ValueError, match=r"unknown key\(s\) in \[reader\]: depth"):
        ReaderConfig.from_dict({"size": 32, "depth": 3})
    with pytest.raises(ValueError, match=r"reader\.size is missing"):
        ReaderConfig.from_dict({"widths": [8, 8]})
    config = ReaderConfig(32, widths=(4, 6), blocks=(0, 1))
    assert ReaderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("shape", [(410, 24), (397, 51)])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.slow
def test_strips_are_the_whole_to_rounding(shape, is_complex):
    """Each with the rows around it that the network sees: no seam."""
    torch.manual_seed(0)
    config = ReaderConfig(size=32, widths=(4, 6, 8), blocks=(1, 2, 1), embedding=8, is_complex=is_complex)
    reader = Reader(config).double().eval()
    for parameter in reader.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    kind = torch.complex128 if is_complex else torch.float64
    mean, rho = torch.randn(2, 1, *shape, dtype=kind), torch.rand(2, 1, *shape, dtype=torch.float64)
    profile = torch.rand(2, 2, 6, dtype=torch.float64)
    with torch.no_grad():
        whole = reader(mean, rho, profile)
        for rows in (4, 50, 64, 1000):
            strips = reader(mean, rho, profile, rows)
            torch.testing.assert_close(strips.estimate, whole.estimate, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(strips.variance, whole.variance, rtol=1e-10, atol=0)
