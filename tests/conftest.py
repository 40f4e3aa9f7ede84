"""Tests run in two processes; each computes on one core, and so do the programs that it starts."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # before torch and numpy are imported
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
