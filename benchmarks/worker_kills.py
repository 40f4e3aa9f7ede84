"""A folder on two workers that are killed at random, twenty times, beside the folder of one process.

    python benchmarks/worker_kills.py [--kills 20] [--quick]

Each time that some more results are written, one of the workers gets SIGKILL, at a random moment of the next half
second. In the end every file must be there once, and equal to the bit to what one process makes of it. Leave the code
alone meanwhile: a worker that comes back with another is refused. Writes
benchmarks/results/worker_kills.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common import RESULTS, commit, table
from iasolve.samples import load_samples

PER_KILL = 2
"""Results between two kills."""


def command(folder: Path, out: str, *more: str) -> list[str]:
    """``iasolve denoise`` of the folder's images."""
    options = ["--sigma", "20", "--recipe", "fast", "--prior", "mri-t1-128", "--json", *more]
    return [sys.executable, "-m", "iasolve", "denoise", str(folder / "in"), str(folder / out), *options]


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Those that Dask's nannies keep: processes that were spawned, but the one that counts resources."""
    return [child for child in process.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]


def kill_at_random(process: subprocess.Popen[bytes], out: Path, kills: int, seed: int) -> int:
    """Kill workers while the process works; how many were."""
    rng, done, main = random.Random(seed), 0, psutil.Process(process.pid)
    while done < kills and process.poll() is None:
        if len(list(out.glob("*.json"))) < PER_KILL * done + 1:
            time.sleep(0.02)
            continue
        time.sleep(rng.uniform(0, 0.5))
        try:
            alive = workers_of(main)
            if alive:
                rng.choice(alive).send_signal(signal.SIGKILL)
                done += 1
        except psutil.NoSuchProcess:
            continue
    return done


def run(kills: int, seed: int) -> dict[str, Any]:
    """Both runs, and what differs."""
    rng = np.random.default_rng(seed)
    # four in one: files that a fast machine has done before the last kill would show nothing
    heads = np.tile(load_samples().images.astype(np.float32), (1, 2, 2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for number in range(PER_KILL * (kills + 1)):
            head = heads[number % len(heads)]
            np.save(folder / "in" / f"{number:03d}.npy", head + rng.normal(0, 20, head.shape).astype(np.float32))
        # as many threads in both: results are then equal to the bit
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command(folder, "one"), env=environment, check=True, capture_output=True)
        begun = time.perf_counter()
        with (
            (folder / "report").open("wb") as out,
            (folder / "errors").open("wb") as errors,
            subprocess.Popen(
                command(folder, "many", "--workers", str(max(2, os.cpu_count() or 1))),
                env=environment,
                stdout=out,
                stderr=errors,
            ) as process,
        ):
            killed = kill_at_random(process, folder / "many", kills, seed)
        if process.returncode != 0:
            said = (folder / "errors").read_text(encoding="utf-8")
            raise SystemExit(f"the command ended with code {process.returncode}: {said[-2000:]}")
        names = [one["input"]["name"] for one in json.loads((folder / "report").read_bytes())["files"]]
        expected = sorted(path.name for path in (folder / "in").iterdir())
        different = [n for n in expected if (folder / "one" / n).read_bytes() != (folder / "many" / n).read_bytes()]
        return {
            "files": len(expected),
            "kills": killed,
            "lost": len(set(expected) - set(names)),
            "doubled": len(names) - len(set(names)),
            "different": len(different),
            "left beside": len(list((folder / "many").iterdir())) - 2 * len(expected),
            "seconds": round(time.perf_counter() - begun),
        }


def main() -> None:
    """Run, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two kills; no table is written")
    asked = parser.parse_args()
    found = run(2 if asked.quick else asked.kills, asked.seed)
    text = f"# Workers killed at random\n\nCommit {commit()}; seed {asked.seed}.\n\n" + table(
        list(found), [list(found.values())]
    )
    print(text)
    if not asked.quick:
        (RESULTS / "worker_kills.md").write_text(text, encoding="utf-8")
    if found["lost"] or found["doubled"] or found["different"] or found["left beside"]:
        raise SystemExit("results were lost, doubled, changed or left behind")


if __name__ == "__main__":
    main()
