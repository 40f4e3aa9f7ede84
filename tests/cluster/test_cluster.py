"""Solving on Dask's workers: two processes over TCP, as a cluster that is there already; and what goes wrong there."""

import filecmp
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_fixtures import cli

import iasolve
from iasolve.cluster import Cluster, ClusterError, pool
from iasolve.operators import GaussianNoise, Identity

distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def without_time(report):
    return {key: value for key, value in report.items() if key != "seconds"}


def test_a_folder_on_workers_is_the_folder_of_one_process(address, heads, tiny, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    noisy = heads + np.random.default_rng(0).normal(0, 20, heads.shape)
    np.save(folder / "a.npy", noisy[0])
    np.save(folder / "b.npy", np.concatenate([noisy, noisy])[:5])  # pieces of two, two and one
    (folder / "c.png").write_text("broken")
    np.save(folder / "d.npy", noisy[1] * 1e20)
    run = ("--sigma", 20, "--prior", tiny, "--recipe", "fast", "--batch-size", 2, "--memory", "2GB", "--json")
    serial = cli("denoise", folder, tmp_path / "one", *run)
    spread = cli("denoise", folder, tmp_path / "many", *run, "--scheduler", address)
    assert (serial.code, spread.code) == (7, 7), (serial, spread)
    assert serial.err == spread.err
    for name in ("a.npy", "b.npy", "d.npy"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    reports = [[without_time(one) for one in done.report["files"]] for done in (serial, spread)]
    assert reports[0] == reports[1]
    assert sorted(os.listdir(tmp_path / "one")) == sorted(os.listdir(tmp_path / "many"))
    again = cli("denoise", folder, tmp_path / "many", *run, "--scheduler", address, "--resume")
    assert again.report["skipped"] == 3


def test_a_measurement_of_a_user_operator_on_workers(address, heads, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "op.py").write_text(
        "from iasolve.operators import LinearOperator\n"
        "def factory():\n"
        "    return LinearOperator.from_functions(lambda x: x.flip(-1), lambda y: y.flip(-1), in_shape=(1, 32, 32))\n"
    )
    np.save("y.npy", heads[:3, None])
    run = ("--operator", "op.py:factory", "--sigma", 5, "--prior", tiny, "--recipe", "fast", "--batch-size", 2)
    run = (*run, "--memory", "2GB")
    assert cli("solve", "y.npy", "one.npy", *run).code == 0
    done = cli("solve", "y.npy", "many.npy", *run, "--scheduler", address)
    assert done.code == 0, done
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "many.npy").read_bytes()


OPERATOR = """
import multiprocessing
from iasolve.operators import Identity
from shape_of_mine import SHAPE

assert multiprocessing.parent_process() is None or "iasolve-" in __file__, "not the file that was sent"


def factory():
    return Identity(SHAPE)
"""


@pytest.fixture
def apart(address, tmp_path, monkeypatch):
    """The client's folder, of which workers know nothing: they are in another, and its path leads nowhere there."""
    (tmp_path / "client").mkdir()
    (tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path / "client")
    monkeypatch.setattr("iasolve.cli.remote.os", SimpleNamespace(getcwd=lambda: "/not/on/this/machine", chdir=os.chdir))
    with distributed.Client(address, set_as_default=False) as client:
        client.run(os.chdir, str(tmp_path / "theirs"))
        yield client


def test_workers_need_no_access_to_the_clients_files(apart, address, heads, tiny):
    """A folder with a broken file and a volume of three pieces: image, report and exit code of one process; resumed."""
    os.mkdir("in")
    np.save("in/a.npy", heads[0])
    np.save("in/b.npy", np.concatenate([heads, heads])[:5])
    open("in/c.npy", "w").close()
    assert set(apart.run(os.path.exists, "in/a.npy").values()) == {False}
    run = ("--sigma", 20, "--prior", tiny, "--recipe", "fast", "--batch-size", 2, "--memory", "2GB", "--json")
    one = cli("denoise", "in", "one", *run)
    many = cli("denoise", "in", "many", *run, "--scheduler", address)
    assert (one.code, many.code) == (7, 7), (one, many)
    assert one.err == many.err
    for name in ("a.npy", "b.npy"):
        assert filecmp.cmp(f"one/{name}", f"many/{name}", shallow=False)
    os.remove("many/b.npy")
    again = cli("denoise", "in", "many", *run, "--scheduler", address, "--resume")
    assert again.report["skipped"] == 1
    assert filecmp.cmp("one/b.npy", "many/b.npy", shallow=False)
    assert not any(apart.run(os.listdir).values()), "workers write nothing"


def test_files_that_options_name_are_sent_to_workers_without_them(apart, address, heads, tiny, monkeypatch):
    """A user's operator with the module that it imports, and a prior; a later run knows nothing of them."""
    np.save("y.npy", heads[:1, None])
    with open("mine.py", "w", encoding="utf-8") as file:
        file.write(OPERATOR)
    with open("shape_of_mine.py", "w", encoding="utf-8") as file:
        file.write("SHAPE = (1, 32, 32)\n")
    for end in (".safetensors", ".json"):
        shutil.copy(tiny.with_suffix(end), f"own{end}")
    run = ("--operator", "mine.py:factory", "--sigma", 20, "--prior", "own.safetensors", "--recipe", "fast")
    run = (*run, "--memory", "2GB")
    monkeypatch.setattr("iasolve.cli.remote.os.getcwd", os.getcwd)
    monkeypatch.setattr("iasolve.cli.sent_files._lacks", _yes)
    assert cli("solve", "y.npy", "one.npy", *run).code == 0
    done = cli("solve", "y.npy", "many.npy", *run, "--scheduler", address)
    assert done.code == 0, done
    assert filecmp.cmp("one.npy", "many.npy", shallow=False)
    assert not any(name.startswith("iasolve-") for names in apart.run(_plugins).values() for name in names)
    monkeypatch.setattr("iasolve.cli.sent_files.MOST_SENT", 1000)
    large = cli("solve", "y.npy", "out.npy", *run, "--scheduler", address)
    assert large.code == 2
    assert "Expected at most 0 MB, which are sent. Copy them to" in large.err


@pytest.mark.slow
def test_workers_that_come_later_are_sent_the_files_too(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from iasolve.cli.sent_files import send

    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "kernel.npy").write_bytes(b"values")
    with Cluster(scheduler=address) as cluster:
        name = send(cluster, Path("/not/on/this/machine"), [])
        assert name == "", "nothing to send"
        monkeypatch.setattr("iasolve.cli.sent_files._lacks", _yes)
        name = send(cluster, tmp_path, [Path("k/kernel.npy"), Path("/etc/hostname")])
        for process in cluster.ask(os.getpid):
            os.kill(process, signal.SIGKILL)  # nannies start others
        assert cluster.result(cluster.submit(_sent, name)) == ["k/kernel.npy"]


def _sent(name):
    """Files that the worker of this task was sent."""
    folder = Path(distributed.get_worker().plugins[name].folder)
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def _yes(*_):
    return True


def _plugins(dask_worker):
    return list(dask_worker.plugins)


def test_a_task_that_is_too_large_is_refused(address, heads, tiny, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", heads[0])
    monkeypatch.setattr(pool, "MOST_SENT", 4000)  # bytes; the image has 4096
    run = ("--sigma", 20, "--prior", tiny, "--recipe", "fast", "--memory", "2GB", "--scheduler", address)
    done = cli("denoise", tmp_path / "a.npy", tmp_path / "out.npy", *run)
    assert done.code == 5
    assert "Let it hold fewer images (a smaller batch size)" in done.err


def test_map_is_solve_to_the_bit_in_order(address, heads, tiny):
    prior, operator = iasolve.load_prior(tiny), Identity((1, 32, 32))
    options = {"noise": GaussianNoise(20.0), "recipe": "fast", "warn": False, "memory": "2GB"}
    stacks = [heads[n % 4][None].astype(np.float32) + n for n in range(7)]
    found = list(iasolve.map(iter(stacks), operator, prior, scheduler=address, **options))
    for y, result in zip(stacks, found, strict=True):
        np.testing.assert_array_equal(result.image, iasolve.solve(y, operator, prior, **options).image)
    with pytest.raises(ValueError, match="the measurement has shape"):
        list(iasolve.map([np.zeros((3, 3), np.float32)], operator, prior, scheduler=address, **options))


def test_workers_of_another_version_are_refused(address, heads, tiny, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", heads[0])
    monkeypatch.setattr(pool, "fingerprint", lambda: {"iasolve": "0.0.1", "torch": "1", "code": "0"})
    options = ("--prior", tiny, "--recipe", "fast", "--scheduler", address)
    done = cli("denoise", tmp_path / "a.npy", tmp_path / "out.npy", *options)
    assert done.code == 5
    assert "a worker of another version was refused: it runs iasolve " in done.err
    assert "Expected iasolve 0.0.1" in done.err


def test_a_scheduler_of_another_version_is_refused_before_the_work(address, monkeypatch):
    other = pool.fingerprint() | {"iasolve": "0.0.1"}
    ours = iter([other])  # here as the client, then in this process as the scheduler
    monkeypatch.setattr(pool, "fingerprint", lambda now=pool.fingerprint: next(ours, None) or now())
    with pytest.raises(ClusterError, match=r"the scheduler of another version was refused.* Expected iasolve 0\.0\.1"):
        Cluster(scheduler=address).__enter__()


@pytest.mark.parametrize("error", [ImportError("No module named 'iasolve.old'"), AttributeError("module 'iasolve.a'")])
def test_a_worker_whose_modules_have_other_names_is_of_another_version(address, error):
    def fail():
        raise error

    with (
        Cluster(scheduler=address) as cluster,
        pytest.raises(ClusterError, match=r"a worker runs other code .*Install"),
    ):
        cluster.result(cluster.submit(fail))


def test_another_prior_under_the_same_name_is_refused(address, tiny):
    prior = iasolve.load_prior(tiny)
    prior.card = {**prior.card, "sha256": "0" * 64}
    with pytest.raises(ClusterError, match="is another on a worker"):
        list(iasolve.map([np.zeros((1, 32, 32), np.float32)], Identity((1, 32, 32)), prior, scheduler=address))


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_a_deadly_task_is_given_up(address):
    with Cluster(scheduler=address) as cluster:
        assert cluster.size == 2
        process = cluster.result(cluster.submit(os.getpid))
        sleeping = [cluster.submit(time.sleep, 1) for _ in range(4)]
        os.kill(process, signal.SIGKILL)
        assert [cluster.result(future) for future in sleeping] == [None] * 4
        deadly, innocent = cluster.submit(os._exit, 1), cluster.submit(abs, -3)
        with pytest.raises(ClusterError, match="workers died of it"):
            cluster.result(deadly)
        assert cluster.result(innocent) == 3


def test_workers_that_come_later_get_tasks_too(address, monkeypatch):
    with Cluster(scheduler=address) as cluster:
        monkeypatch.setattr(pool, "_COUNT_AGAIN", -1)
        monkeypatch.setattr(cluster._client, "scheduler_info", lambda n_workers: {"workers": dict.fromkeys(range(5))})
        future = cluster.submit(abs, -3)
        assert cluster.room == 9
        assert cluster.result(future) == 3


@pytest.mark.parametrize(("name", "taken"), [(0, [0]), (3, [1]), ("tcp://10.0.0.7:4711", [])])
def test_a_local_worker_takes_the_gpu_of_its_number(monkeypatch, name, taken):
    found = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name=name))
    assert pool._checked(pool.fingerprint(), abs, -3) == 3
    assert found == taken


@pytest.mark.slow
def test_workers_and_schedulers_that_cannot_be(heads, tiny, tmp_path):
    np.save(tmp_path / "a.npy", heads[0])
    run = ("denoise", tmp_path / "a.npy", tmp_path / "out.npy", "--prior", tiny, "--recipe", "fast")
    both = cli(*run, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1")
    assert both.code == 2
    assert "give one of both" in both.err
    nowhere = cli(*run, "--scheduler", "tcp://127.0.0.1:1")
    assert nowhere.code == 5
    assert "tcp://127.0.0.1:1: no cluster to work with" in nowhere.err
    for wrong in ({}, {"workers": 1, "scheduler": "x"}, {"workers": 0}):
        with pytest.raises(ValueError, match="expected"):
            Cluster(**wrong)
