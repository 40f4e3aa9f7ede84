"""Calibration region, sensitivity maps and phase, on simulated coils whose maps are known."""

import numpy as np
import pytest
import torch
from tiny import relative

from iasolve.operators import centred_fft2, line_mask, point_mask
from iasolve.operators.calibration import calibration_region
from iasolve.operators.coils import SensitivityEncoding, birdcage_maps
from iasolve.operators.espirit import _kernel_correlation, espirit_maps, estimate_maps, low_resolution_maps
from iasolve.operators.phase import estimate_phase

SIZE = (48, 40)


def axes(size):
    return (2 * (torch.arange(n, dtype=torch.float64) - n // 2) / n for n in size)


def head(size=SIZE, smooth_phase=True):
    """A textured ellipse with a smooth phase, ``(H, W)``, and where it is."""
    y, x = axes(size)
    y, x = y[:, None], x[None, :]
    inside = (y / 0.8) ** 2 + (x / 0.7) ** 2 < 1
    texture = 1 + 0.2 * torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    core = ((y - 0.2) / 0.3) ** 2 + (x / 0.4) ** 2 < 1
    magnitude = (0.6 + 0.4 * core) * texture * inside
    phase = torch.exp(1j * (x + 0.8 * y**2 - 0.5 * x * y)) if smooth_phase else torch.ones_like(magnitude)
    return magnitude * phase, inside


def block(size, height, width):
    mask = torch.zeros(size)
    top, left = size[0] // 2 - height // 2, size[1] // 2 - width // 2
    mask[top : top + height, left : left + width] = 1
    return mask


def simulated(coils=6, size=SIZE, centre=(24, 24), sigma=0.0):
    image, inside = head(size)
    maps = birdcage_maps(size, coils)
    y = centred_fft2(maps * image)
    noise = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    return (y + sigma * noise) * block(size, *centre), maps, inside


def error(found, true, inside):
    """Relative error inside the object after removing each pixel's phase, which no data can tell."""
    aligned = found * torch.sgn((found.conj() * true).sum(0))
    return relative(aligned[:, inside], true[:, inside])


# ------------------------------------------------------------------------------------------- calibration region


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (16, 11)])
@pytest.mark.parametrize("centre", [(1, 1), (4, 4), (5, 3), (2, 9), (11, 11)])
def test_a_block_is_found(size, centre):
    mask = block(size, *centre)
    region = calibration_region(mask)
    assert region.size == centre
    assert region.cut(mask).all()
    coils = mask * torch.randn(3, *size, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert calibration_region(coils.numpy()) == region


def brute_force(mask):
    height, width = mask.shape
    row, column = height // 2, width // 2
    return max(
        (bottom - top) * (right - left)
        for top in range(row + 1)
        for bottom in range(row + 1, height + 1)
        for left in range(column + 1)
        for right in range(column + 1, width + 1)
        if mask[top:bottom, left:right].all()
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_region_is_the_largest_rectangle_around_the_zero_frequency(seed):
    mask = np.random.default_rng(seed).random((9, 10)) < 0.85
    mask[4, 5] = True
    region = calibration_region(mask)
    assert region.cut(torch.from_numpy(mask)).all()
    assert region.top <= 4 < region.bottom
    assert region.left <= 5 < region.right
    assert region.size[0] * region.size[1] == brute_force(mask)


def test_regions_of_sampling_masks():
    lines = line_mask((64, 50), 4, 0.16, seed=1)
    region = calibration_region(lines)
    assert region.size[0] == 64
    assert region.size[1] >= 8
    assert region.trimmed(24, (64, 50)).size == (24, region.size[1])
    points = point_mask((64, 64), 8, 0.2, seed=0)
    assert min(calibration_region(points).size) >= 11
    assert calibration_region(torch.ones(8, 9)).trimmed(4, (8, 9)) == (2, 6, 2, 6)


def test_k_space_without_a_centre_is_refused():
    corner = torch.zeros(8, 8)
    corner[0, 0] = 1
    with pytest.raises(ValueError, match=r"index \(4, 4\); 1\.6% .*H // 2"):
        calibration_region(corner)
    with pytest.raises(ValueError, match="nothing is sampled"):
        calibration_region(torch.zeros(8, 8))
    with pytest.raises(ValueError, match=r"\(8,\)"):
        calibration_region(torch.ones(8))


# ------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("size", [SIZE, (41, 37)])
@pytest.mark.parametrize(("sigma", "allowed"), [(0.0, 0.01), (0.02, 0.03), (0.05, 0.06)])
def test_espirit_finds_the_maps(size, sigma, allowed):
    y, maps, inside = simulated(size=size, sigma=sigma)
    found = espirit_maps(y)
    assert found.method == "espirit"
    assert found.region.size == (24, 24)
    assert (found.maps[:, inside] != 0).any(0).all()
    assert error(found.maps, maps, inside) < allowed
    assert error(found.maps, maps, inside) < error(low_resolution_maps(y).maps, maps, inside)
    # unit vectors inside, nothing outside; eigenvalues of an average of projections
    norm = torch.linalg.vector_norm(found.maps, dim=0)
    kept = found.confidence > 0.95
    torch.testing.assert_close(norm[kept], torch.ones_like(norm[kept]))
    assert (norm[~kept] == 0).all()
    assert not kept.all()
    assert float(found.confidence.max()) <= 1 + 1e-9


@pytest.mark.parametrize(("centre", "allowed"), [((48, 10), 0.03), ((10, 10), 0.05), ((7, 40), 0.04)])
def test_a_small_centre_gets_a_small_kernel(centre, allowed):
    y, maps, inside = simulated(centre=centre)
    found = estimate_maps(y)
    assert found.method == "espirit"
    assert error(found.maps, maps, inside) < allowed


def test_espirit_explains_k_space_it_has_not_seen():
    """Maps from the centre, then the coils' full k-space from the combined image."""
    image, inside = head()
    full = centred_fft2(birdcage_maps(SIZE, 6) * image)
    found = espirit_maps(full * block(SIZE, 24, 24))
    operator = SensitivityEncoding(found.maps)
    assert relative(operator(operator.adjoint(full)), full) < 0.01
    assert relative(operator.adjoint(full)[0].abs()[inside], image.abs()[inside]) < 0.01


def test_the_phase_of_maps_is_smooth_and_repeats():
    """Relative to a virtual coil, neighbouring pixels' maps differ little: the phase is no eigensolver's whim."""
    y, maps, inside = simulated()
    found = espirit_maps(y).maps
    both = inside[1:] & inside[:-1]
    step = (found[:, 1:] - found[:, :-1]).abs()[:, both]
    true = (maps[:, 1:] - maps[:, :-1]).abs()[:, both]
    assert float(step.max()) < 3 * float(true.max())
    assert torch.equal(found, espirit_maps(y).maps)
    turned = espirit_maps(y * np.exp(0.7j)).maps
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-6)
    scaled = espirit_maps(1e-6 * y.numpy()).maps
    torch.testing.assert_close(scaled, found, rtol=0, atol=1e-6)


def test_eigenvectors_are_those_of_each_pixels_own_matrix():
    """Found from a neighbour's, within a tenth of what the noise of the centre makes of the maps."""
    y, maps, inside = simulated(size=(41, 37), sigma=0.02)
    found = espirit_maps(y)
    correlation = _kernel_correlation(found.region.cut(y), 6, 0.02)
    axes = [
        torch.exp(-2j * torch.pi * torch.outer(torch.arange(n) - n // 2, torch.arange(-5, 6)) / n) for n in (41, 37)
    ]
    matrices = torch.einsum("abpq,yp,xq->yxab", correlation, *(wave.to(correlation) for wave in axes))
    values, vectors = torch.linalg.eigh(matrices)
    own = error(found.maps, vectors[..., -1].permute(2, 0, 1), inside)
    assert own < 0.1 * error(found.maps, maps, inside)
    torch.testing.assert_close(found.confidence[inside], values[..., -1][inside], rtol=0, atol=1e-4)


def test_maps_keep_the_precision_of_the_data():
    y, _, inside = simulated()
    double, single = espirit_maps(y), espirit_maps(y.to(torch.complex64))
    assert double.maps.dtype == torch.complex128
    assert single.maps.dtype == torch.complex64
    assert single.confidence.dtype == torch.float32
    assert relative(single.maps[:, inside], double.maps[:, inside]) < 1e-3
    assert low_resolution_maps(y.to(torch.complex64)).maps.dtype == torch.complex64


@pytest.mark.parametrize("centre", [(48, 3), (4, 4), (5, 5)])
def test_too_small_a_centre_takes_the_low_resolution_method(centre):
    y, maps, inside = simulated(centre=centre)
    found = estimate_maps(y)
    assert found.method == "low-resolution"
    assert error(found.maps, maps, inside) < 0.25
    assert (found.maps[:, inside] != 0).any(0).all()


def test_low_resolution_maps_are_exact_for_constant_sensitivities():
    image, inside = head()
    weights = torch.tensor([1.0, 0.5 - 0.5j, -0.2j], dtype=torch.complex128)
    found = low_resolution_maps(weights[:, None, None] * centred_fft2(image))
    expected = (weights / torch.linalg.vector_norm(weights))[:, None, None].expand(3, *SIZE)
    assert error(found.maps, expected, inside) < 1e-10


def test_impossible_calibrations_are_refused():
    y, _, _ = simulated(centre=(4, 4))
    with pytest.raises(ValueError, match=r"4x4, smaller than ESPIRiT's 6x6.*low_resolution_maps"):
        espirit_maps(y, kernel=6)
    for wrong, words in ((y[None], "slices"), (y.real, "float64"), (torch.full_like(y, torch.nan), "NaN")):
        with pytest.raises(ValueError, match=words):
            estimate_maps(wrong)


# ------------------------------------------------------------------------------------------- phase


def test_a_smooth_phase_is_found_through_the_coils():
    image, inside = head()
    y, maps, _ = simulated(sigma=0.01)
    phase = estimate_phase(y, maps)
    assert phase.shape == SIZE
    torch.testing.assert_close(phase.abs(), torch.ones(SIZE, dtype=torch.float64))
    left = image * phase.conj()
    assert float(left.imag.square().sum() / image.abs().square().sum()) < 0.005
    assert float(left.real[inside].min()) > 0
    # in the gauge of estimated maps too: encoding a real image explains the coils' k-space
    found = estimate_maps(y).maps
    operator = SensitivityEncoding(found, None, torch.float64, phase=estimate_phase(y, found))
    full = centred_fft2(birdcage_maps(SIZE, 6) * image)
    assert relative(operator(operator.adjoint(full)), full) < 0.1


@pytest.mark.parametrize("size", [(16, 16), (15, 17)])
def test_an_image_s_own_phase(size):
    image, inside = head(size)
    phase = estimate_phase(centred_fft2(image)[None])
    assert float((image * phase.conj()).imag.square().sum() / image.abs().square().sum()) < 0.01
    real, _ = head(size, smooth_phase=False)
    flat = estimate_phase(centred_fft2(real.to(torch.complex128))[None])
    torch.testing.assert_close(flat[inside], torch.ones_like(flat[inside]), rtol=0, atol=1e-9)
    zero = torch.zeros(1, *size, dtype=torch.complex64)
    zero[:, size[0] // 2, size[1] // 2] = 1
    assert estimate_phase(zero).dtype == torch.complex64


def test_impossible_phases_are_refused():
    y, maps, _ = simulated()
    with pytest.raises(ValueError, match="6 coils: give their maps"):
        estimate_phase(y)
    with pytest.raises(ValueError, match=r"\(3, 48, 40\).*\(6, 48, 40\)"):
        estimate_phase(y, maps[:3])
    with pytest.raises(ValueError, match="float64"):
        estimate_phase(y.real, maps)
