"""A cluster that is there already: a scheduler and two workers, over TCP."""

import pytest
import torch
from cli_fixtures import heads, tiny

from iasolve import cluster as cluster_module

__all__ = ["heads", "tiny"]  # fixtures


@pytest.fixture(scope="session")
def local():
    """Two workers, with as many threads as the tests have."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    threads = {"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": torch.get_num_threads()}
    with (
        dask.config.set(threads | cluster_module._SETTINGS),
        distributed.LocalCluster(n_workers=2, **cluster_module._LOCAL) as cluster,
    ):
        yield cluster


@pytest.fixture
def address(local):
    """Address of its scheduler."""
    return local.scheduler_address
