"""Work spread over processes and machines by Dask: the extra ``cluster``."""

from iasolve.cluster.mapping import map  # noqa: A004 - iasolve.map
from iasolve.cluster.pool import MOST_SENT, Cluster, ClusterError, LostScheduler

__all__ = ["MOST_SENT", "Cluster", "ClusterError", "LostScheduler", "map"]
