"""Free memory is kept, where Dask asks the C library to give it back."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource
from iasolve.allocator import keep_free_memory
kept = {} and keep_free_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    bytearray(16 * 2**20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
@pytest.mark.parametrize("kept", [True, False])
def test_maps_of_a_worker_are_not_taken_anew_page_by_page(kept):
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(kept)], env=environment, capture_output=True, text=True, check=True
    )
    said, faults = done.stdout.split()
    assert said == str(kept)
    assert (int(faults) < 10_000) == kept
