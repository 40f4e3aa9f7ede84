"""What a file can hold, files written whole or not at all, and folders."""

import errno
import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from apart import Apart
from file_fixtures import save_plain

from iasolve import files
from iasolve.files import UnreadableFile, WriteError

# --- what cannot be carried ------------------------------------------------------------------------------


def test_can_carry():
    assert files.can_carry(".PNG", np.uint16)
    assert not files.can_carry(".png", np.uint16, channels=3)
    assert not files.can_carry(".png", "uint8", pages=2)
    assert not files.can_carry(".jpg", np.uint16)
    assert not files.can_carry(".gif", np.uint8)
    assert not files.can_carry(".tif", bool)
    assert not files.can_carry(".dcm", np.uint16)  # only with the object that it derives from
    medical = (".nii", ".nii.gz", ".mat", ".cfl")
    assert files.suffixes_for(np.complex64) == (".tif", ".tiff", ".npy", ".npz", *medical)
    assert files.suffixes_for(np.float32, pages=4) == (".tif", ".tiff", ".npy", ".npz", *medical, ".h5", ".hdf5")
    suffixes = (".png", ".webp", ".tif", ".tiff", ".npy", ".npz", ".mat")
    assert files.suffixes_for("uint8", channels=3, alpha=True) == suffixes


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ""])
def test_outputs_that_cannot_carry_the_data_name_those_that_can(tmp_path, dtype, suffix):
    image = files.read_image(save_plain(tmp_path / "a.npy", np.ones((6, 8), dtype)))
    target = tmp_path / f"out{suffix}"
    with pytest.raises(WriteError, match=r"one of \.tif, \.tiff, \.npy, \.npz") as before:
        files.require_carry(target, image)
    with pytest.raises(WriteError) as after:
        files.write_image(target, image.pixels, image)
    assert str(before.value) == str(after.value)
    assert os.listdir(tmp_path) == ["a.npy"]
    if suffix == ".png" and dtype is np.float32:
        assert "uint8" in str(after.value)


def test_results_that_make_no_sense_are_refused(tmp_path):
    image = files.read_image(save_plain(tmp_path / "a.png", np.zeros((6, 8), np.uint8)))
    good = np.zeros((1, 1, 6, 8))
    with pytest.raises(WriteError, match="magnitude"):
        files.write_image(tmp_path / "b.png", good * 1j, image)
    bad = good.copy()
    bad[0, 0, 2, :3] = np.nan, np.inf, -np.inf
    for suffix, dtype in ((".png", None), (".npy", "float32")):
        with pytest.raises(WriteError, match="3 of 48"):
            files.write_image(tmp_path / f"b{suffix}", bad, image, dtype=dtype)
    with pytest.raises(WriteError, match=r"1 of 48 .* as float32"):
        files.write_image(tmp_path / "b.npy", np.where(bad > 9, 1e300, 0), image, dtype="float32")
    for shape in ((6, 8), (1, 2, 6, 8), (1, 1, 0, 8)):
        with pytest.raises(WriteError, match="pages, channels, H, W"):
            files.write_image(tmp_path / "b.png", np.zeros(shape), image)
    assert os.listdir(tmp_path) == ["a.png"]


# --- whole or not at all ---------------------------------------------------------------------------------


def fill(path, content=b"new"):
    with files.atomic_write(path) as handle:
        handle.write(content)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failure", ["body", "interrupt", "replace", "fsync", "write"])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, failure, existing):
    target = tmp_path / "out.bin"
    if existing:
        target.write_bytes(b"old")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*args, **kwargs):
        raise full

    expected = {"body": ZeroDivisionError, "interrupt": KeyboardInterrupt}.get(failure, WriteError)
    if failure in ("replace", "fsync"):
        monkeypatch.setattr(os, failure, fail)

    def attempt():
        with files.atomic_write(target) as handle:
            handle.write(b"half of it")
            if failure == "body":
                raise ZeroDivisionError
            if failure == "interrupt":
                raise KeyboardInterrupt
            if failure == "write":
                fail()

    with pytest.raises(expected) as caught:
        attempt()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == (["out.bin"] if existing else [])
    assert not existing or target.read_bytes() == b"old"
    if expected is WriteError:
        assert "no space left" in str(caught.value)
        assert caught.value.__cause__ is full


def write_noise_where_files_stay_small(target):
    import resource

    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 300, 300), dtype=np.uint8)
    # what is printed goes to a file, too, but is not as long
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    try:
        files.write_json(target, noise) if target.suffix == ".json" else files.write_image(target, noise)
    except WriteError as error:
        print("refused:", error)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".png", ".json"])
@pytest.mark.slow
def test_a_disk_that_really_takes_no_more(tmp_path, suffix):
    """The system itself refuses to let files grow, in a process of its own since the limit stays."""
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"old")
    done = Apart(write_noise_where_files_stay_small, target).ended()
    assert done.code == 0, done
    assert done.out.startswith(f"refused: {target}"), done
    assert "writing failed" in done.out
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_permissions_and_links(tmp_path):
    target = tmp_path / "out.bin"
    mask = os.umask(0o027)
    try:
        fill(target)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    fill(target, b"newer")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    fill(link, b"through the link")
    assert link.is_symlink()
    assert target.read_bytes() == b"through the link"


def test_targets_that_cannot_be_written(tmp_path):
    with pytest.raises(WriteError, match="folder"):
        fill(tmp_path)
    with pytest.raises(WriteError, match="does not exist"):
        fill(tmp_path / "no" / "out.bin")
    if hasattr(os, "mkfifo"):  # a stand-in for /dev/null and /dev/stdout, which must not become files
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(WriteError, match="device"):
            fill(tmp_path / "pipe")
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
        with pytest.raises(UnreadableFile):
            files.read_image(tmp_path / "pipe")


def test_json(tmp_path):
    target = tmp_path / "a.json"
    record = {
        "psnr": np.float32(0.5),
        "n": np.int64(3),
        "ok": np.bool_(True),
        "curve": np.array([[1.0, np.nan], [np.inf, 2.0]]),
        "lost": float("nan"),
        "path": tmp_path,
        "tags": {"b", "a"},
        "shape": (1, 2),
        "none": None,
        3: "ü \udcff",
    }
    files.write_json(target, record)
    assert json.loads(target.read_text("utf-8"), parse_constant=pytest.fail) == {
        "psnr": 0.5,
        "n": 3,
        "ok": True,
        "curve": [[1.0, None], [None, 2.0]],
        "lost": None,
        "path": str(tmp_path),
        "tags": ["a", "b"],
        "shape": [1, 2],
        "none": None,
        "3": "ü \udcff",
    }
    before = target.read_bytes()
    for value in (1j, np.complex64(1), object(), np.array([1j])):
        with pytest.raises(WriteError, match="JSON"):
            files.write_json(target, {"x": [value]})
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.json"]


# --- folders ---------------------------------------------------------------------------------------------


def test_list_inputs(tmp_path):
    for name in ("b.PNG", "a.tif", "c.npy", ".hidden.png", "a.json", "notes.txt", "d.h5", "e.nii.gz", "f.gz"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inner.png").touch()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in files.list_inputs(tmp_path)] == ["a.tif", "b.PNG", "c.npy", "d.h5", "e.nii.gz"]
    assert [path.name for path in files.list_inputs(tmp_path, [".nii.gz"])] == ["e.nii.gz"]
    assert [path.name for path in files.list_inputs(str(tmp_path), ["png", ".JSON"])] == ["b.PNG"]
    assert [path.name for path in files.list_inputs(tmp_path, files.KSPACE_SUFFIXES)] == ["c.npy", "d.h5"]
    with pytest.raises(UnreadableFile, match="no such folder"):
        files.list_inputs(tmp_path / "none")
    with pytest.raises(UnreadableFile, match="this is a file"):
        files.list_inputs(tmp_path / "c.npy")


def test_guard_output(tmp_path):
    target = tmp_path / "a.png"
    assert files.guard_output(str(target), overwrite=False) == target
    target.touch()
    with pytest.raises(WriteError, match="exists already"):
        files.guard_output(target, overwrite=False)
    assert files.guard_output(target, overwrite=True) == target
    with pytest.raises(WriteError, match="mkdir -p"):
        files.guard_output(tmp_path / "no" / "a.png", overwrite=True)
    with pytest.raises(WriteError, match="is a folder"):
        files.guard_output(tmp_path, overwrite=True)


def test_importing_is_light():
    heavy = "{'torch', 'scipy', 'h5py', 'tifffile', 'PIL', 'nibabel', 'pydicom'}"
    code = f"import sys, iasolve.files; print(sorted({heavy} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "[]"
