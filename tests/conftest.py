"""Tests run in two processes; each computes on one core, and so do the programs that it starts."""

import gc
import os
import sys

# what is compiled is kept: of tests with their asserts written anew, and for the programs that tests start
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "PYTEST_XDIST_WORKER" in os.environ:
    # before torch and numpy are imported
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"


def pytest_collection_finish():
    """What was imported stays: the collector of garbage need not look through it again and again."""
    gc.freeze()
