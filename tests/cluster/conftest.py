"""A cluster that is there already: a scheduler and two workers, over TCP."""

import pytest
import torch
from apart import preload
from cli_fixtures import heads, tiny

from iasolve.cluster import pool

__all__ = ["heads", "tiny"]  # fixtures


@pytest.fixture(scope="session")
def forked():
    """Workers that are forked with torch imported: a killed one is replaced in less than seconds."""
    dask = pytest.importorskip("dask")
    utils = pytest.importorskip("distributed.utils", reason="needs the extra 'cluster'")
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        utils.get_mp_context()  # which names what it wants imported, once
        preload("distributed")
        yield


@pytest.fixture(scope="session")
def local(forked):
    """Two workers, with as many threads as the tests have."""
    import dask
    import distributed

    threads = {"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": torch.get_num_threads()}
    with (
        dask.config.set(threads | pool._SETTINGS),
        distributed.LocalCluster(n_workers=2, **pool._LOCAL) as cluster,
    ):
        yield cluster


@pytest.fixture
def address(local):
    """Address of its scheduler."""
    return local.scheduler_address
