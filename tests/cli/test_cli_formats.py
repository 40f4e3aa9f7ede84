"""The commands on the files of scanners and other toolboxes: what comes out is of the kind that went in."""

import hashlib
import json

import h5py
import numpy as np
import pytest
import scipy.io
from cli_fixtures import SIZE, cli, heads, tiny

from iasolve import files

__all__ = ["heads", "tiny"]  # fixtures


def quick(prior):
    return ["--sigma", 5, "--prior", prior, "--recipe", "fast"]


def sidecar(path):
    return json.loads(path.with_name(path.name + ".json").read_text())


def kspace_of(images):
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes)


def test_a_volume_and_its_error_bars(heads, tiny, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(heads.astype(np.int16).transpose(2, 1, 0), affine), tmp_path / "a.nii.gz")
    out, std = tmp_path / "out.nii.gz", tmp_path / "std.nii.gz"
    done = cli("denoise", tmp_path / "a.nii.gz", out, *quick(tiny), "--std-out", std, "--samples", 2)
    assert done.code == 0, done
    result, bars = nibabel.load(out), nibabel.load(std)
    assert (result.shape, result.get_data_dtype()) == ((SIZE, SIZE, len(heads)), np.int16)
    assert bars.get_data_dtype() == np.float32
    np.testing.assert_array_equal(result.affine, affine)
    np.testing.assert_array_equal(bars.affine, affine)
    assert np.sqrt(((result.get_fdata().transpose(2, 1, 0) - heads) ** 2).mean()) < 20
    assert sidecar(out)["input"] == {
        "name": "a.nii.gz",
        "sha256": hashlib.sha256((tmp_path / "a.nii.gz").read_bytes()).hexdigest(),
        "type": "int16",
        "slice_axis": "z (inferior to superior)",
    }
    # along x, every slice is another plane of the same body
    done = cli("denoise", f"{tmp_path}/a.nii.gz:x", tmp_path / "x.nii", *quick(tiny), "--json")
    assert done.code == 0, done
    assert done.report["shape"] == [SIZE, 1, len(heads), SIZE]
    assert done.report["input"]["slice_axis"] == "x (right to left)"


def test_a_folder_of_dicom_files_becomes_one_derived_series(heads, tiny, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from test_dicom import save

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number, head in enumerate(heads[:3]):
        save(source / f"{number}.dcm", head.astype(np.uint16), RescaleSlope=2, RescaleIntercept=0)
    done = cli("denoise", source, out, *quick(tiny), "--std-out", tmp_path / "std", "--samples", 2)
    assert done.code == 0, done
    results = [pydicom.dcmread(path) for path in sorted(out.glob("*.dcm"))]
    assert len(results) == 3
    assert len({str(result.SeriesInstanceUID) for result in results}) == 1
    assert len({str(result.SOPInstanceUID) for result in results}) == 3
    assert all("denoise, prior tiny" in result.DerivationDescription for result in results)
    assert np.sqrt(((results[0].pixel_array - heads[0]) ** 2).mean()) < 20
    assert sorted(path.name for path in (tmp_path / "std").iterdir()) == ["0.npy", "1.npy", "2.npy"]


def test_kspace_of_every_toolbox_gives_the_same_image(heads, tiny, tmp_path):
    mask = np.zeros(SIZE, bool)
    mask[::2] = mask[12:20] = True
    kspace = (kspace_of(heads[:2]) * mask).astype(np.complex64)
    np.save(tmp_path / "a.npy", kspace[:, np.newaxis])
    scipy.io.savemat(tmp_path / "a.mat", {"kspace": kspace[:, np.newaxis].transpose(2, 3, 1, 0)})
    (tmp_path / "a.hdr").write_text(f"# Dimensions\n{SIZE} {SIZE} {'1 ' * 11}2 1 1\n")
    kspace.transpose(0, 2, 1).tofile(tmp_path / "a.cfl")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = kspace
    axes = {"npy": "first axis", "mat": "fourth axis", "cfl": "slice", "h5": "first axis"}
    reference = None
    for suffix, axis in axes.items():
        out = tmp_path / f"out.{suffix}"
        done = cli("reconstruct", tmp_path / f"a.{suffix}", out, *quick(tiny))
        assert done.code == 0, done
        image = files.read_image(out)
        assert (image.pixels.shape, image.dtype) == ((2, 1, SIZE, SIZE), np.float32)
        assert sidecar(out)["input"]["slice_axis"] == axis
        reference = image.pixels if reference is None else reference
        np.testing.assert_allclose(image.pixels, reference, rtol=1e-5, atol=1e-3)
        scores = cli("evaluate", out, tmp_path / "out.npy", "--json")
        assert scores.code == 0, scores
    done = cli("reconstruct", tmp_path / "a.npy", tmp_path / "out.cfl", *quick(tiny))
    assert done.code == 2
    assert "exists already" in done.err


def test_a_scan_without_its_oversampling(heads, tiny, tmp_path):
    pytest.importorskip("ismrmrd")
    from test_ismrmrd import header, line, save

    raw = kspace_of(np.pad(heads[0], ((SIZE // 2, SIZE // 2), (0, 0))))
    lines = [line(raw[np.newaxis, :, n], n) for n in range(SIZE)]
    save(tmp_path / "a.h5", header(2 * SIZE, SIZE, lines=SIZE), lines)
    done = cli("reconstruct", tmp_path / "a.h5", tmp_path / "out.h5", *quick(tiny))
    assert done.code == 0, done
    with h5py.File(tmp_path / "out.h5") as file:
        result = file["reconstruction"][()]
    assert result.shape == (1, SIZE, SIZE)
    assert np.sqrt(((result[0] - heads[0]) ** 2).mean()) < 20


def test_simulated_measurements_of_scaled_volumes(heads, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(heads.astype(np.int16).transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_slope_inter(1 / 4096, 0)
    nibabel.save(image, tmp_path / "a.nii")
    for name in ("y.nii", "y.npy"):
        done = cli("simulate", tmp_path / "a.nii", tmp_path / name, "--task", "denoise", "--sigma", 1e-3)
        assert done.code == 0, done
        y = files.read_image(tmp_path / name)
        assert y.dtype == np.float32
        assert np.std(y.pixels[:, 0] - heads.astype(np.int16) / 4096) == pytest.approx(1e-3, rel=0.05)
    done = cli("simulate", tmp_path / "a.nii", tmp_path / "y.png", "--task", "denoise", "--sigma", 1e-3)
    assert done.code == 2  # whole grey levels hold no values below 1
    assert "float32" in done.err
