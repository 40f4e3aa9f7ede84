"""Exactness of the transform, of its rings and of their bookkeeping."""

from itertools import pairwise

import pytest
import torch
from tiny import tiny_network

from iasolve.networks import HVAE, NetworkConfig
from iasolve.spectrum import Spectrum, fft2, frequencies, ifft2, radius, reflect, ring_index, scales_of

SIZES = [8, 32, 128]
KINDS = [False, True]


def field(size, is_complex, seed=0, count=2):
    dtype = torch.complex128 if is_complex else torch.float64
    return torch.randn(count, 1, size, size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def signed(size, position):
    return position if position < (size + 1) // 2 else position - size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_complex", KINDS)
class TestSpectrum:
    def test_parseval_holds_in_all_and_ring_by_ring(self, size, is_complex):
        spectrum, x = Spectrum(size, is_complex), field(size, is_complex)
        h = spectrum.transform(x)
        energy = x.abs().square().sum((-2, -1))
        torch.testing.assert_close(spectrum.ring_sums(h.abs().square()).sum(-1), energy, rtol=1e-12, atol=0)
        for i, s in enumerate(spectrum.scales):
            part = torch.where(spectrum.ring == i, h, torch.zeros_like(h))
            pixels = spectrum.inverse(part).abs().square().sum((-2, -1))
            torch.testing.assert_close(spectrum.ring_sums(h.abs().square())[..., i], pixels, rtol=1e-11, atol=0)
            assert s == 2**i

    def test_transform_and_inverse_are_exact(self, size, is_complex):
        spectrum, x = Spectrum(size, is_complex), field(size, is_complex)
        h = spectrum.transform(x)
        assert h.shape[-2:] == (size, spectrum.columns)
        torch.testing.assert_close(spectrum.inverse(h), x, rtol=0, atol=1e-13)
        assert spectrum.inverse(h).dtype == x.dtype
        torch.testing.assert_close(h, spectrum.half(fft2(x)), rtol=0, atol=1e-12)
        torch.testing.assert_close(ifft2(fft2(x)), x.to(torch.complex128), rtol=0, atol=1e-13)

    def test_an_image_is_the_sum_of_its_rings(self, size, is_complex):
        spectrum, x = Spectrum(size, is_complex), field(size, is_complex)
        h = spectrum.transform(x)
        parts = [spectrum.inverse(h * (spectrum.ring == i)) for i in range(len(spectrum.scales))]
        torch.testing.assert_close(sum(parts), x, rtol=0, atol=1e-12)
        # orthogonal to one another
        for a, b in pairwise(parts):
            assert (a.conj() * b).sum().abs() < 1e-9

    def test_bins_are_counted_once(self, size, is_complex):
        spectrum = Spectrum(size, is_complex)
        full = torch.bincount(ring_index(size).flatten()).float()
        torch.testing.assert_close(spectrum.bins_per_ring, full)
        assert float(spectrum.weight.sum()) == size**2
        torch.testing.assert_close(spectrum.ring_means(torch.ones(size, spectrum.columns)), torch.ones(len(full)))
        per_ring = torch.arange(1.0, len(full) + 1)
        spread = spectrum.per_bin(per_ring)
        torch.testing.assert_close(spectrum.ring_means(spread), per_ring)
        torch.testing.assert_close(spread, per_ring[spectrum.ring])

    def test_crops_hold_each_bin_exactly_once_and_the_same_frequency(self, size, is_complex):
        spectrum = Spectrum(size, is_complex)
        seen = []
        for i, s in enumerate(spectrum.scales):
            grid = min(2 * s, size)
            source, target = spectrum.crop_indices(s, grid)
            columns = grid if is_complex else grid // 2 + 1
            assert (spectrum.ring.flatten()[target] == i).all()
            assert len(torch.unique(source)) == len(source)
            seen.append(target)
            for a, b in zip(source[:: max(1, len(source) // 50)], target[:: max(1, len(target) // 50)], strict=True):
                ky, kx = signed(grid, int(a) // columns), int(a) % columns
                KY, KX = signed(size, int(b) // spectrum.columns), int(b) % spectrum.columns
                if is_complex:
                    kx, KX = signed(grid, kx), signed(size, KX)
                assert (ky % grid, kx % grid) == (KY % grid, KX % grid)
                assert max(abs(KY), abs(KX)) <= grid / 2
        assert torch.equal(torch.cat(seen).sort().values, torch.arange(size * spectrum.columns))

    def test_a_band_limited_map_becomes_the_same_image_on_the_fine_grid(self, size, is_complex):
        """What a head does: transform a map of 2s pixels, crop the ring, put it into the spectrum."""
        spectrum = Spectrum(size, is_complex)
        s = size // 4
        source, target = spectrum.crop_indices(s, 2 * s)
        small = Spectrum(2 * s, is_complex)
        x = field(2 * s, is_complex)
        h = torch.zeros(2, 1, size, spectrum.columns, dtype=torch.complex128).flatten(-2)
        h[..., target] = small.transform(x).flatten(-2)[..., source]
        fine = spectrum.inverse(h.unflatten(-1, (size, spectrum.columns)))
        keep = small.ring == small.scales.index(s)
        coarse = small.inverse(small.transform(x) * keep)
        torch.testing.assert_close(fine[..., ::2, ::2], coarse / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_every_bin_has_one_owner_by_the_rule_and_k_shares_it_with_minus_k(size):
    index, scales = ring_index(size), scales_of(size)
    assert len(scales) == {8: 4, 32: 6, 128: 8}[size]
    r = radius(size, size)
    for i, s in enumerate(scales):
        owned = r == 0 if s == 1 else (r > s / 4) & (r <= s / 2)
        assert torch.equal(index == i, owned)
    claims = sum(((r > s / 4) & (r <= s / 2)).int() if s > 1 else (r == 0).int() for s in scales)
    assert (claims == 1).all()
    assert torch.equal(reflect(index), index)
    assert int((index == 1).sum()) == 8


@pytest.mark.parametrize("size", [(5, 6), (8, 8), (7, 3), (1, 4)])
def test_reflect_is_minus_k(size):
    h = torch.randn(3, *size, dtype=torch.complex128)
    flipped = reflect(h)
    for y in range(size[0]):
        for x in range(size[1]):
            assert torch.equal(flipped[:, -y % size[0], -x % size[1]], h[:, y, x])
    assert torch.equal(reflect(flipped), h)
    real = fft2(torch.randn(*size, dtype=torch.float64))
    torch.testing.assert_close(reflect(real), real.conj())


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_frequencies_are_fftfreqs(n):
    expected = torch.fft.fftfreq(n, 1 / n).abs()
    assert torch.equal(frequencies(n).abs().float(), expected)
    if n % 2:
        assert torch.equal(frequencies(n).float(), torch.fft.fftfreq(n, 1 / n))


@pytest.mark.parametrize("size", [0, 1, 3, 24, 100])
def test_sizes_that_are_no_powers_of_two_are_refused(size):
    with pytest.raises(ValueError, match=str(size)):
        scales_of(size)


def test_a_map_too_small_for_its_ring_is_refused():
    with pytest.raises(ValueError, match="at least 16 pixels, got 8"):
        Spectrum(32).crop_indices(8, 8)


@pytest.mark.parametrize("is_complex", KINDS)
@pytest.mark.parametrize("domain", ["spatial", "spectral"])
def test_a_network_assembles_what_its_rings_take_apart(is_complex, domain):
    network = tiny_network(is_complex=is_complex, head_domain=domain)
    spectrum = network.spectrum
    h = spectrum.transform(field(32, is_complex))
    rings = network.rings(h)
    assert [r.shape[-1] for r in rings] == torch.bincount(spectrum.ring.flatten()).tolist()
    assert torch.equal(network.assemble(rings), h)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("domain", ["spatial", "spectral"])
@pytest.mark.parametrize("is_complex", KINDS)
def test_contributions_stay_in_their_ring_and_are_spectra_of_images(size, domain, is_complex):
    """Parseval on a decoded spectrum would fail if a real image's edge columns were not Hermitian."""
    count = len(scales_of(size))
    torch.manual_seed(0)
    network = HVAE(
        NetworkConfig(
            size,
            (8,) * count,
            (1,) * count,
            (2,) * count,
            (0,) * count,
            grid_cap=min(16, size),
            head_blocks=1,
            head_domain=domain,
            is_complex=is_complex,
        )
    ).double()
    spectrum = network.spectrum
    with torch.no_grad():
        parts = [
            network.contribution(i, torch.randn(1, 8, g, g, dtype=torch.float64))
            for i, g in enumerate(network.config.grids)
        ]
        h = network.assemble(parts)
        x = spectrum.inverse(h)
        torch.testing.assert_close(spectrum.transform(x), h, rtol=0, atol=1e-10)
        for i, part in enumerate(parts):
            assert float(part.abs().max()) > 0
            alone = [p if j == i else torch.zeros_like(p) for j, p in enumerate(parts)]
            image = spectrum.inverse(network.assemble(alone))
            inside = spectrum.transform(image).abs().square()
            sums = spectrum.ring_sums(inside)[0, 0]
            assert float(sums[i]) == pytest.approx(float(image.abs().square().sum()), rel=1e-9)
