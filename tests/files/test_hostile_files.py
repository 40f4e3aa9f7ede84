"""Files that crash, block or flood what reads them, or read other files: each is an error of that file."""

import gzip
import os
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import damage
import h5py
import numpy as np
import pytest
from file_fixtures import png_bytes

from iasolve import files
from iasolve.files import UnfitData, UnreadableFile, worker
from iasolve.files.worker import read_apart

# --- a process of its own -----------------------------------------------------------------------------------------


@pytest.fixture
def some(tmp_path):
    path = tmp_path / "some.bin"
    path.write_bytes(b"content")
    return path


def test_one_process_serves_all_files_until_one_ends_it(some):
    first = read_apart(damage.process_number, some)
    assert first != os.getpid()
    assert read_apart(damage.process_number, some) == first
    with pytest.raises(UnreadableFile, match=r"some\.bin: the library that decodes it crashed \(SIG"):
        read_apart(damage.crash, some)
    assert read_apart(damage.own_file, some) == b"content"
    assert read_apart(damage.process_number, some) != first


def test_a_worker_that_was_killed_while_idle_is_no_fault_of_the_file(some):
    os.kill(read_apart(damage.process_number, some), signal.SIGKILL)
    assert read_apart(damage.own_file, some) == b"content"


@pytest.mark.slow
def test_a_reader_that_does_not_end_is_ended(some, monkeypatch):
    monkeypatch.setattr(worker, "SECONDS", 1)
    with pytest.raises(UnreadableFile, match="given up after too much processor time"):
        read_apart(damage.block, some)
    monkeypatch.setattr(worker, "SECONDS", 0)
    monkeypatch.setattr(worker, "SILENT_SECONDS", 1)
    with pytest.raises(UnreadableFile, match="given up after 1 s"):
        read_apart(damage.wait, some)
    monkeypatch.undo()
    assert read_apart(damage.own_file, some) == b"content"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's size")
def test_a_reader_that_takes_all_memory_is_stopped(some):
    with pytest.raises(MemoryError):
        read_apart(damage.fill, some)


def test_paths_are_those_of_the_current_folder(some, tmp_path, monkeypatch):
    read_apart(damage.process_number, some)
    monkeypatch.chdir(tmp_path)
    assert read_apart(damage.own_file, Path("some.bin")) == b"content"


def test_errors_of_readers_are_passed_on(some):
    with pytest.raises(ZeroDivisionError, match=r"some\.bin"):
        read_apart(damage.fail, some)


@pytest.mark.skipif(not Path("/proc/self/fd/2").exists(), reason="this system does not tell where a stream goes")
def test_what_libraries_think_of_a_file_is_not_printed(some):
    assert read_apart(damage.error_stream, some) == os.devnull


def test_one_flipped_bit_that_crashes_scipy_is_an_error_of_the_file():
    with pytest.raises(UnreadableFile, match=r"one_flipped_bit\.mat"):
        files.read_image(Path(__file__).with_name("one_flipped_bit.mat"))


def test_a_script_without_a_guard_is_not_run_again(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bytes(np.full((4, 4), 9, np.uint8), 8, 0))
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib\nfrom iasolve import files\nprint('once')\n"
        f"print(files.read_image({str(tmp_path / 'a.png')!r}).pixels.shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["once", "(1, 1, 4, 4)"], done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_the_worker_ends_with_a_parent_that_is_killed(some, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, signal, sys\nimport damage\nfrom iasolve.files.worker import read_apart\n"
        f"print(read_apart(damage.process_number, pathlib.Path({str(some)!r})), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env=environment)
    number = int(done.stdout)
    for _ in range(200):
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        __import__("time").sleep(0.05)
    else:
        pytest.fail("the worker is still there")


# --- bombs ----------------------------------------------------------------------------------------------------------


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def npz_header(shape):
    import io

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return header.getvalue()


def test_packed_zeros_are_measured_before_they_are_unpacked(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    huge = 2**41  # more than any machine that runs this has
    with zipfile.ZipFile(tmp_path / "lie.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npz_header((huge // 8,)) + bytes(2**20))
    small = nibabel.Nifti1Image(np.zeros((8, 8, 2), np.uint8), np.eye(4)).to_bytes()
    (tmp_path / "more.nii.gz").write_bytes(gzip.compress(small + bytes(2**28), compresslevel=1))
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 300))
    content = header.binaryblock + bytes(4)
    (tmp_path / "lie.nii.gz").write_bytes(gzip.compress(content + bytes(2**20)))
    before = peak()
    for name, words in (
        ("lie.npz", "declared"),
        ("more.nii.gz", "more than the 480 bytes declared"),
        ("lie.nii.gz", "declares"),
    ):
        with pytest.raises(UnreadableFile, match=words):
            files.read_image(tmp_path / name)
    assert peak() - before < 2**27


def test_what_the_machine_has_no_memory_for_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((512, 512)))
    files.read_image(tmp_path / "a.npz")
    monkeypatch.setattr("iasolve.files.source.free_memory", lambda: 3 * 2**20)  # 16 bytes a value take 4 MB
    with pytest.raises(UnreadableFile, match="of memory are free"):
        files.read_image(tmp_path / "a.npz")


@pytest.mark.slow
def test_a_small_picture_of_many_pixels_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bytes(np.zeros((13000, 13000), np.uint8), 8, 0))
    assert (tmp_path / "a.png").stat().st_size < 2**20
    with pytest.raises(UnfitData, match=r"too many pixels .*169000000 pixels.* Expected at most 89 million"):
        files.read_image(tmp_path / "a.png")


# --- data of other files --------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path):
    """HDF5 files that take their data from a file of the user's, in every way there is."""
    secret = tmp_path / "secret.h5"
    values = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    with h5py.File(secret, "w") as file:
        file["reconstruction"] = values
        file["group/reconstruction"] = values
    (tmp_path / "secret.raw").write_bytes(values.tobytes())
    made = {}
    for kind in ("external", "group", "virtual", "storage"):
        made[kind] = tmp_path / f"{kind}.h5"
        with h5py.File(made[kind], "w") as file:
            if kind == "external":
                file["reconstruction"] = h5py.ExternalLink(str(secret), "/reconstruction")
            elif kind == "group":
                file["elsewhere"] = h5py.ExternalLink(str(secret), "/group")
                file["reconstruction"] = h5py.SoftLink("/elsewhere/reconstruction")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((1, 8, 8), np.float32)
                layout[:] = h5py.VirtualSource(str(secret), "reconstruction", (1, 8, 8))
                file.create_virtual_dataset("reconstruction", layout)
            else:
                file.create_dataset(
                    "reconstruction", (1, 8, 8), np.float32, external=[(str(tmp_path / "secret.raw"), 0, 256)]
                )
    return made, values


@pytest.mark.parametrize("kind", ["external", "group", "virtual", "storage"])
def test_data_of_other_files_are_refused_unless_trusted(kind, linked):
    made, values = linked
    with pytest.raises(UnfitData, match=r"another file.*--trust-links"):
        files.read_image(made[kind])
    with pytest.raises(UnfitData, match="another file"):
        files.read_measurement(f"{made[kind]}:reconstruction")
    files.trust_links(True)
    try:
        np.testing.assert_array_equal(files.read_image(made[kind]).pixels[:, 0], values)
    finally:
        files.trust_links(False)


def test_links_within_the_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/data"] = np.ones((1, 4, 4), np.float32)
        file["reconstruction"] = h5py.SoftLink("/deep/data")
    assert files.read_image(tmp_path / "a.h5").pixels.shape == (1, 1, 4, 4)
