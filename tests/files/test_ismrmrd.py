"""ISMRMRD: scans written by the ismrmrd package, acquisition by acquisition, as converters write them."""

import h5py
import numpy as np
import pytest
from file_fixtures import rng

from iasolve import files
from iasolve.files import FileError, UnfitData, UnreadableFile

ismrmrd = pytest.importorskip("ismrmrd")
xsd = pytest.importorskip("ismrmrd.xsd")

__all__ = ["rng"]  # a fixture

COLUMNS = 10
CENTRE = COLUMNS // 2


def header(readout, kept, *, lines=COLUMNS, centre=None, trajectory="CARTESIAN", partitions=1, calibration=None):
    """A header as converters write it, by the classes that the package makes from the schema."""

    def space(size):
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=size, y=lines, z=partitions),
            fieldOfView_mm=xsd.fieldOfViewMm(x=2.0 * size, y=20.0, z=5.0),
        )

    centre = lines // 2 if centre is None else centre
    limits = xsd.limitType(minimum=0, maximum=lines - 1, center=centre)
    parallel = None
    if calibration:
        factor = xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1)
        parallel = xsd.parallelImagingType(
            accelerationFactor=factor, calibrationMode=xsd.calibrationModeType[calibration]
        )
    encoding = xsd.encodingType(
        trajectory=xsd.trajectoryType[trajectory],
        encodedSpace=space(readout),
        reconSpace=space(kept),
        encodingLimits=xsd.encodingLimitsType(kspace_encoding_step_1=limits),
        parallelImaging=parallel,
    )
    experiment = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=128_000_000)
    return xsd.ismrmrdHeader(experimentalConditions=experiment, encoding=[encoding]).toXML("utf-8")


def line(data, number, *flags, centre=None, trim=(0, 0), **counters):
    """One readout ``(coils, samples)``."""
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(data, np.complex64))
    acquisition.center_sample = data.shape[1] // 2 if centre is None else centre
    acquisition.discard_pre, acquisition.discard_post = trim
    acquisition.idx.kspace_encode_step_1 = number
    for name, value in counters.items():
        setattr(acquisition.idx, name, value)
    for flag in flags:
        acquisition.setFlag(flag)
    return acquisition


def save(path, xml, acquisitions, group="dataset"):
    with ismrmrd.Dataset(str(path), group, mode="w") as dataset:
        dataset.write_xml_header(xml)
        for acquisition in acquisitions:
            dataset.append_acquisition(acquisition)
    return path


def centred(transform, array):
    axes = (-2, -1)
    return np.fft.fftshift(transform(np.fft.ifftshift(array, axes=axes), axes=axes, norm="ortho"), axes=axes)


def scan(rng, *, slices=2, coils=3, size=12, readout=24):
    """Images with air at the ends of the oversampled readout, and both k-spaces."""
    images = rng.standard_normal((slices, coils, size, COLUMNS)) + 1j * rng.standard_normal(
        (slices, coils, size, COLUMNS)
    )
    first = readout // 2 - size // 2
    padded = np.pad(images, ((0, 0), (0, 0), (first, readout - size - first), (0, 0)))
    return centred(np.fft.fft2, images), centred(np.fft.fft2, padded)


def lines_of(kspace, numbers=range(COLUMNS), **counters):
    return [line(kspace[s][..., n], n, slice=s, **counters) for n in numbers for s in range(len(kspace))]


@pytest.mark.parametrize("suffix", [".h5", ".mrd"])
@pytest.mark.parametrize(("size", "readout"), [(12, 24), (12, 12), (11, 22), (12, 15), (11, 24)])
@pytest.mark.parametrize("coils", [1, 3])
@pytest.mark.slow
def test_the_oversampling_of_the_readout_is_removed(tmp_path, rng, suffix, size, readout, coils):
    kspace, raw = scan(rng, size=size, readout=readout, coils=coils)
    path = save(tmp_path / f"a{suffix}", header(readout, size), lines_of(raw))
    read = files.read_kspace(path)
    assert (read.kspace.shape, read.dtype) == ((2, coils, size, COLUMNS), np.complex64)
    np.testing.assert_allclose(read.kspace, kspace, atol=1e-5)
    assert (read.sliced, read.coiled, read.slice_axis) == (True, coils > 1, "slice")
    assert read.mask is not None
    assert read.mask.shape == (1, COLUMNS)
    assert read.mask.all()
    assert read.attributes["readout_oversampling"] == readout / size
    assert "<ismrmrdHeader" in str(read.header)
    assert files.read_kspace(path, slices=slice(1, 2)).slices == 1


def test_lines_that_were_not_measured(tmp_path, rng):
    """Half the lines, and none beyond 6 of 10: partial Fourier, its middle where the header says."""
    kspace, raw = scan(rng)
    numbers = [0, 2, 3, 4, 5, 6]
    read = files.read_kspace(save(tmp_path / "a.h5", header(24, 12), lines_of(raw, numbers)))
    mask = np.isin(np.arange(COLUMNS), numbers)
    assert read.mask is not None
    np.testing.assert_array_equal(read.mask[0], mask)
    np.testing.assert_allclose(read.kspace, kspace * mask, atol=1e-5)
    # a scan that leaves out its first lines counts from 0 all the same, with its middle earlier
    late = [line(raw[0][..., n], n - 3, slice=0) for n in range(3, COLUMNS)]
    read = files.read_kspace(save(tmp_path / "a.h5", header(24, 12, centre=CENTRE - 3), late))
    np.testing.assert_allclose(read.kspace, kspace[:1] * (np.arange(COLUMNS) >= 3), atol=1e-5)


def test_averages_and_repeated_lines(tmp_path, rng):
    kspace, raw = scan(rng)
    noise = rng.standard_normal(raw.shape)
    twice = lines_of(raw + noise, average=0) + lines_of(raw - noise, average=1)
    read = files.read_kspace(save(tmp_path / "a.h5", header(24, 12), twice))
    np.testing.assert_allclose(read.kspace, kspace, atol=1e-5)


def test_series_are_slices_one_after_another(tmp_path, rng):
    kspace, raw = scan(rng)
    acquisitions = lines_of(raw, contrast=0) + lines_of(2 * raw, contrast=1)
    read = files.read_kspace(save(tmp_path / "a.h5", header(24, 12), acquisitions))
    assert read.slice_axis == "contrast x slice"
    np.testing.assert_allclose(read.kspace, np.concatenate([kspace, 2 * kspace]), atol=1e-5)
    # sampled differently, so that no mask is right for all
    acquisitions = lines_of(raw, contrast=0) + lines_of(raw, range(5), contrast=1)
    assert files.read_kspace(save(tmp_path / "a.h5", header(24, 12), acquisitions)).mask is None


def test_other_scans_are_left_out(tmp_path, rng):
    kspace, raw = scan(rng)
    others = [
        *[line(raw[0][..., n], n, ismrmrd.ACQ_IS_NOISE_MEASUREMENT) for n in range(3)],
        line(rng.standard_normal((3, 7)), 0, ismrmrd.ACQ_IS_NAVIGATION_DATA),
        line(rng.standard_normal((2, 24)), 0, ismrmrd.ACQ_IS_PHASECORR_DATA),
    ]
    read = files.read_kspace(save(tmp_path / "a.h5", header(24, 12), [*others, *lines_of(raw)]))
    np.testing.assert_allclose(read.kspace, kspace, atol=1e-5)
    assert read.attributes["skipped"] == {"noise": 3, "navigation": 1, "phase correction": 1}
    with pytest.raises(UnfitData, match=r"no acquisitions of an image \(3 of noise"):
        files.read_kspace(save(tmp_path / "a.h5", header(24, 12), others))


@pytest.mark.parametrize("mode", ["EMBEDDED", "SEPARATE"])
def test_calibration_lines_belong_to_the_image_where_they_are_embedded(tmp_path, rng, mode):
    kspace, raw = scan(rng)
    acquisitions = lines_of(raw, range(0, COLUMNS, 2))
    acquisitions += [line(raw[s][..., 5], 5, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, slice=s) for s in range(2)]
    read = files.read_kspace(save(tmp_path / "a.h5", header(24, 12, calibration=mode), acquisitions))
    assert read.mask is not None
    wanted = (np.arange(COLUMNS) % 2 == 0) | ((np.arange(COLUMNS) == 5) & (mode == "EMBEDDED"))
    np.testing.assert_array_equal(read.mask[0], wanted)
    np.testing.assert_allclose(read.kspace, kspace * wanted, atol=1e-5)


def test_partial_echoes(tmp_path, rng):
    """Handled where nothing has to be cropped, refused by name where something has."""
    kspace, raw = scan(rng, size=12, readout=12)
    short = [line(raw[0][:, 3:, n], n, centre=3, slice=0) for n in range(COLUMNS)]
    read = files.read_kspace(save(tmp_path / "a.h5", header(12, 12), short))
    measured = np.broadcast_to(np.arange(12)[:, np.newaxis] >= 3, (12, COLUMNS))
    assert read.mask is not None
    np.testing.assert_array_equal(read.mask, measured)
    np.testing.assert_allclose(read.kspace, kspace[:1] * measured, atol=1e-5)
    trimmed = [line(raw[0][..., n], n, trim=(3, 0), slice=0) for n in range(COLUMNS)]
    again = files.read_kspace(save(tmp_path / "a.h5", header(12, 12), trimmed))
    np.testing.assert_array_equal(again.kspace, read.kspace)
    _, raw = scan(rng)
    short = [line(raw[0][:, 6:, n], n, centre=6, slice=0) for n in range(COLUMNS)]
    with pytest.raises(UnfitData, match=r"partial echoes.*Expected whole echoes"):
        files.read_kspace(save(tmp_path / "a.h5", header(24, 12), short))


@pytest.mark.parametrize("trajectory", ["RADIAL", "SPIRAL", "EPI", "GOLDENANGLE", "OTHER"])
def test_other_trajectories_are_refused_by_name(tmp_path, rng, trajectory):
    _, raw = scan(rng)
    path = save(tmp_path / "a.h5", header(24, 12, trajectory=trajectory), lines_of(raw))
    with pytest.raises(UnfitData, match=f"with {trajectory.lower()} readouts.*Cartesian"):
        files.read_kspace(path)


def test_what_else_is_refused(tmp_path, rng):
    _, raw = scan(rng)
    lines = lines_of(raw)
    odd = line(raw[0][:2, :, 0], 0)
    far = line(raw[0][..., 0], COLUMNS + 3)
    backwards = line(raw[0][..., 0], 0, ismrmrd.ACQ_IS_REVERSE)
    long = line(rng.standard_normal((3, 40)), 0)
    second = line(raw[0][..., 0], 0)
    second.encoding_space_ref = 1
    for acquisitions, words in [
        ([*lines, odd], "of 2 and of 3 coils"),
        ([*lines, far], r"lines from 0 to 13 .* 0 to 9"),
        ([*lines, backwards], "backwards"),
        ([*lines, long], "40 samples"),
        ([*lines, second], "several encoding spaces"),
    ]:
        with pytest.raises(UnfitData, match=words):
            files.read_kspace(save(tmp_path / "a.h5", header(24, 12), acquisitions))
    with pytest.raises(UnfitData, match="8 partitions"):
        files.read_kspace(save(tmp_path / "a.h5", header(24, 12, partitions=8), lines))
    with pytest.raises(UnreadableFile):
        files.read_kspace(save(tmp_path / "a.h5", header(24, 12).replace("<encodedSpace>", "<encoded>"), lines))
    with pytest.raises(UnreadableFile):
        files.read_kspace(save(tmp_path / "a.h5", header(24, 12, lines=60000).replace(">24<", ">60000<"), lines))


def test_groups_of_other_names(tmp_path, rng):
    kspace, raw = scan(rng)
    path = save(tmp_path / "a.mrd", header(24, 12), lines_of(raw), "scan_2")
    with pytest.raises(UnfitData, match=r"no group 'dataset'.*a\.mrd:scan_2"):
        files.read_kspace(path)
    np.testing.assert_allclose(files.read_kspace(f"{path}:scan_2").kspace, kspace, atol=1e-5)


def test_damaged_files(tmp_path, rng):
    _, raw = scan(rng)
    path = save(tmp_path / "a.mrd", header(24, 12), lines_of(raw))
    data = path.read_bytes()
    for length in np.linspace(1, len(data) - 1, 30).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(FileError):
            files.read_kspace(path)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["dataset/xml"], file["dataset/data"] = np.ones(3), np.ones((4, 5))
    with pytest.raises(FileError):
        files.read_kspace(path)
