"""Seconds of this version over those of the last release, so that a slow-down is seen.

    python benchmarks/speed.py [--release REF] [--repeats 7] [--quick] [--limit 2]

Both versions run in one go, each in a process of its own with one thread, and take turns on the same measurements of a
bundled sample; medians of processor seconds, which other work on the machine disturbs less than it does the clock. The
release is exported from the repository's history; both use the libraries of this environment, and their own prior.
Ends with code 1 where the ratio of a case exceeds ``--limit``. Writes benchmarks/results/speed.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import commit, table, write

ROOT = Path(__file__).parents[1]
CASES = ("fast", "denoise", "deblur", "compressed-sensing", "denoise 512")
UNTAGGED = "fa51c63865dd"
"""The code and the prior of the figures of 0.1.0, which has no tag."""


def git(*arguments: str) -> bytes:
    """What git says."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True).stdout


def last_release() -> str | None:
    """The newest tag of a version that this commit comes after; the commit of 0.1.0 where there is none."""
    try:
        tags = git("tag", "--merged", "HEAD", "--sort=-version:refname", "--list", "v*").decode().split()
        named = tags[0] if tags else UNTAGGED
        git("cat-file", "-e", f"{named}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        return None
    return named


def export(release: str, folder: Path) -> None:
    """The package at a commit, as it is installed."""
    archive = git("archive", release, "iasolve", "operators", "recipes")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    for name in ("operators", "recipes"):
        (folder / name).rename(folder / "iasolve" / name)


class Version:
    """A process that solves with one version."""

    def __init__(self, tree: Path, cases: list[str]) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CASES": ",".join(cases)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("speed_worker.py")), str(tree)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | threads,
        )
        self.version = self._answer()["version"]

    def solve(self, case: str) -> dict[str, float]:
        """``processor`` and ``wall`` seconds, and ``psnr`` in dB, of solving a case once."""
        assert self.process.stdin is not None
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a version ended with code {self.process.wait()}; its words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", help="a commit or tag; the newest v* by default")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument(
        "--quick", action="store_true", help="three times, without the large image; no table is written"
    )
    asked = parser.parse_args()
    release = asked.release or last_release()
    if release is None:
        print("speed: no history here to take the last release from; nothing was compared")
        return
    cases, repeats = (list(CASES[:-1]), 3) if asked.quick else (list(CASES), asked.repeats)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        export(release, Path(folder))
        versions = {"release": Version(Path(folder), cases), "now": Version(ROOT, cases)}
        for case in cases:
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
            for turn in range(repeats):
                # who goes second finds a warmer machine: in turns
                for name in sorted(versions, reverse=turn % 2 == 1):
                    runs[name].append(versions[name].solve(case))
            rows[case] = {
                f"{what} {name}": statistics.median(run[what] for run in runs[name])
                for what in ("processor", "wall", "psnr")
                for name in versions
            }
        for version in versions.values():
            version.close()
    for row in rows.values():
        row["ratio"] = row["processor now"] / row["processor release"]
    text = table(
        ["case", "0.1.0, s" if release == UNTAGGED else f"{release}, s", "now, s", "ratio", "PSNR then", "PSNR now"],
        [
            [
                case,
                f"{row['processor release']:.3f}",
                f"{row['processor now']:.3f}",
                f"{row['ratio']:.2f}",
                f"{row['psnr release']:.2f}",
                f"{row['psnr now']:.2f}",
            ]
            for case, row in rows.items()
        ],
    )
    print(text)
    if not asked.quick:
        about = {"commit": commit(), "release": release, "repeats": repeats, "cases": rows}
        said = f"Commit {commit()}, compared with {release}; one sample, one thread; medians of {repeats} turns."
        write("speed", about, f"# Processor seconds against the last release\n\n{said}\n\n{text}")
    slow = [case for case, row in rows.items() if row["ratio"] > asked.limit]
    if slow:
        raise SystemExit(f"slower than {asked.limit} times the release: {', '.join(slow)}")


if __name__ == "__main__":
    main()
