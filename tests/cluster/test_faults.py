"""What may happen to a cluster at work: workers are killed, poisoned, out of memory or disk, the scheduler is lost."""

import os
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from cli_fixtures import cli

from iasolve.cluster import Cluster, ClusterError, pool

distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

OPERATOR = """
import multiprocessing, os, time
from iasolve.operators import LinearOperator

ON_A_WORKER = multiprocessing.parent_process() is not None


def adjoint(y):
    if ON_A_WORKER:
        time.sleep({pause})
        if float(y.abs().amax() / y.abs().mean()) > 100:
            os._exit(9)
    return y.flip(-1)


def factory():
    return LinearOperator.from_functions(lambda x: x.flip(-1), adjoint, in_shape=(1, 32, 32))
"""
"""On workers it takes its time, and ends the process for a measurement with one huge value."""


@pytest.fixture
def folder(heads, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    noisy = heads + np.random.default_rng(0).normal(0, 20, heads.shape)
    for number in range(6):
        np.save(tmp_path / "in" / f"{number}.npy", noisy[number % 4][None] + number)
    return tmp_path


@contextmanager
def meanwhile(work):
    """Run ``work(over)`` in a thread for as long as the body takes; then the event ``over`` is set."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def options(tiny, pause=0.02):
    with open("op.py", "w", encoding="utf-8") as file:
        file.write(OPERATOR.format(pause=pause))
    return ("--operator", "op.py:factory", "--sigma", 20, "--prior", tiny, "--recipe", "fast", "--memory", "2GB")


def assert_equal_folders(one, other, *left_out):
    names = sorted(set(os.listdir(one)) - {f"{name}{end}" for name in left_out for end in ("", ".json")})
    assert names == sorted(os.listdir(other))
    for name in names:
        if name.endswith(".npy"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
def test_a_folder_whose_workers_are_killed_is_whole(address, folder, tiny):
    """Three kills at random moments: nothing is lost, nothing done twice, everything equal to the bit."""
    run = options(tiny, pause=0.1)
    assert cli("solve", "in", "one", *run).code == 0
    killed = []

    def kill(over):
        with distributed.Client(address, set_as_default=False) as client:
            while len(killed) < 3 and not over.wait(random.Random(len(killed)).uniform(0.5, 2)):
                pids = list(client.run(os.getpid, on_error="ignore").values())
                if pids:
                    killed.append(random.choice(pids))
                    os.kill(killed[-1], signal.SIGKILL)

    with meanwhile(kill):
        done = cli("solve", "in", "many", *run, "--scheduler", address, "--json")
    assert done.code == 0, done
    assert killed
    assert [one["input"]["name"] for one in done.report["files"]] == [f"{n}.npy" for n in range(6)]
    assert_equal_folders(folder / "one", folder / "many")


@pytest.mark.slow
def test_a_poisoned_file_is_given_up_and_the_rest_is_done(address, folder, tiny):
    poisoned = np.load("in/2.npy")
    poisoned[0, 5, 5] = 1e6
    np.save("in/2.npy", poisoned)
    run = options(tiny)
    assert cli("solve", "in", "one", *run).code == 0
    done = cli("solve", "in", "many", *run, "--scheduler", address, "--json")
    assert done.code == 7, done
    (failure,) = done.report["failed"]
    assert failure["name"] == "2.npy"
    assert "workers died of it, one after the other, in two attempts" in failure["error"]
    assert_equal_folders(folder / "one", folder / "many", "2.npy")


@pytest.mark.slow
def test_a_worker_with_a_full_disk_loses_nothing(address, folder, tiny):
    run = options(tiny)
    assert cli("solve", "in", "one", *run).code == 0
    with distributed.Client(address, set_as_default=False) as client:
        first = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
        client.run(_no_disk, workers=[first])
        assert client.run(_can_write, workers=[first]) == {first: False}
    done = cli("solve", "in", "many", *run, "--scheduler", address)
    assert done.code == 0, done
    assert_equal_folders(folder / "one", folder / "many")


def _no_disk():
    """Every write to a file fails from here on, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _can_write():
    import tempfile

    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
            file.flush()
    except OSError:
        return False
    return True


def _hungry(megabytes):
    kept = []
    for _ in range(megabytes // 50):
        kept.append(np.ones(50 * 2**17))
        time.sleep(0.1)  # the nanny looks ten times a second
    return len(kept)


@pytest.mark.slow
def test_a_task_that_takes_all_memory_is_given_up(forked):
    """The nanny of Dask ends a worker beyond its limit; the next one is no better off."""
    import dask

    with (
        dask.config.set(pool._SETTINGS | {"distributed.worker.memory.pause": False}),
        distributed.LocalCluster(n_workers=1, memory_limit="1GB", **pool._LOCAL) as small,
        Cluster(scheduler=small.scheduler_address) as cluster,
    ):
        with pytest.raises(ClusterError, match="they were killed, or ran out of memory"):
            cluster.result(cluster.submit(_hungry, 3000))
        assert cluster.result(cluster.submit(_hungry, 50)) == 1


SCHEDULER = """
import sys, time
from distributed import LocalCluster
from iasolve.cluster.pool import _LOCAL
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, **_LOCAL)
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_command_and_resume_does_the_rest(folder, tiny):
    (folder / "scheduler.py").write_text(SCHEDULER)
    run = options(tiny, pause=0.3)
    assert cli("solve", "in", "one", *run).code == 0
    paths = os.pathsep.join(p for p in sys.path if p)
    with subprocess.Popen(
        [sys.executable, "scheduler.py"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        start_new_session=True,
    ) as process:
        lost = process.stdout.readline().strip()

        def end(over):
            while not over.wait(0.05):
                if list((folder / "many").glob("*.json")):
                    break
            os.killpg(process.pid, signal.SIGKILL)

        with meanwhile(end):
            done = cli("solve", "in", "many", *run, "--scheduler", lost, "--json")
    assert done.code == 5, done
    assert f"{lost} does not answer any more" in done.err
    assert "the same command with --resume does the rest" in done.err
    assert done.report["failed"] == [], "no file is to blame"
    written = sorted((folder / "many").glob("*.npy"))
    assert 0 < len(written) < 6
    rest = cli("solve", "in", "many", *run, "--resume", "--json")
    assert rest.code == 0, rest
    assert rest.report["skipped"] == len(written)
    assert_equal_folders(folder / "one", folder / "many")
    with pytest.raises(ClusterError, match="no cluster to work with"):
        Cluster(scheduler=lost).__enter__()


# ------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    return folder


def tls(folder):
    mine = {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    return {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": str(folder / "cert.pem"),
        **{f"distributed.comm.tls.{who}.{k}": v for who in ("client", "scheduler", "worker") for k, v in mine.items()},
    }


def test_a_cluster_with_certificates_answers_those_who_have_one(certificate):
    import dask

    settings = tls(certificate)
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=1,
            protocol="tls://",
            security=distributed.Security(),
            **pool._LOCAL | {"processes": False},
        ) as secured,
    ):
        address = secured.scheduler_address
        assert address.startswith("tls://")
        with Cluster(scheduler=address) as cluster:
            assert cluster.result(cluster.submit(abs, -3)) == 3
        with (
            dask.config.set({f"distributed.comm.tls.client.{k}": None for k in ("cert", "key")}),
            pytest.raises(ClusterError, match=r"no cluster to work with .*name no certificate for clients"),
        ):
            Cluster(scheduler=address).__enter__()
