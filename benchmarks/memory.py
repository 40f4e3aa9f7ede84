"""Peak memory of the program: long volumes of several formats, large images, colours.

    python benchmarks/memory.py [--quick] [--recipe fast] [--prior auto] [--memory SIZE] [--only TEXT]

Each row is one run of ``iasolve denoise`` in a process of its own; the peak is its resident set at its largest, that
of the process that decodes TIFF and HDF5 not included. Writes ``memory.json`` and ``memory.md`` into
``benchmarks/results``; rows of other cases stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, commit, table
from iasolve import files

CASES = {
    "20 slices of 256 x 256": (20, 256, 256),
    "200 slices of 256 x 256": (200, 256, 256),
    "200 slices of 256 x 256, nii.gz": (200, 256, 256),
    "200 slices of 256 x 256, tif": (200, 256, 256),
    "200 slices of 256 x 256, h5": (200, 256, 256),
    "2000 x 2000": (1, 2000, 2000),
    "10 slices of 512 x 512": (10, 512, 512),
    "30 slices of 512 x 512": (30, 512, 512),
    "200 slices of 512 x 512": (200, 512, 512),
    "768 x 512, three colours": (1, 512, 768, 3),
    "2000 x 1500, three colours": (1, 1500, 2000, 3),
    "3000 x 3000": (1, 3000, 3000),
}
SUFFIXES = ("nii.gz", "tif", "h5")
QUICK = {"2 slices of 160 x 160": (2, 160, 160), "6 slices of 160 x 160": (6, 160, 160)}


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth random values with noise, 0 to 255, float32."""
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(0)
    smooth = np.stack(
        [gaussian_filter(generator.normal(size=shape[1:]), (8, 8, 0)[: len(shape) - 1]) for _ in range(shape[0])]
    )
    values = 128 + 60 * smooth / smooth.std() + generator.normal(0, 20, shape)
    return np.clip(values, 0, 255).astype(np.float32)


def peak(arguments: list[str]) -> tuple[float, float]:
    """Largest resident set in GB, and processor seconds, of one run of the program."""
    process = subprocess.Popen([sys.executable, "-m", "iasolve", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"iasolve {' '.join(arguments)}: exit code {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e9, usage.ru_utime + usage.ru_stime


def note(row: dict[str, Any], out: Path) -> None:
    """Put a row in the place of an earlier one of the same case, and write the table anew."""
    path, keys = out / "memory.json", ("input", "recipe", "prior", "memory")
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = [old for old in rows if any(old[key] != row[key] for key in keys)] + [row]
    order = list(CASES | QUICK)
    rows.sort(key=lambda one: (order.index(one["input"]), one["recipe"], one["prior"], one["memory"]))
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    heads = ["input", "recipe", "--prior", "--memory", "peak, GB", "processor, s", "commit"]
    cells = [
        [*(one[key] for key in keys), f"{one['peak']:.2f}", f"{one['seconds']:.0f}", one["commit"]] for one in rows
    ]
    text = ["# Peak memory", "", "`iasolve denoise` on a processor, one thread.", "", table(heads, cells)]
    (out / "memory.md").write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--memory", default="default")
    parser.add_argument("--prior", default="auto")
    parser.add_argument("--only", help="cases whose name holds this text")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in (QUICK if asked.quick else CASES).items():
            if asked.only and asked.only not in name:
                continue
            suffix = name.partition(", ")[2]
            source = Path(folder) / f"in.{suffix if suffix in SUFFIXES else 'npy'}"
            values = picture(shape)
            arranged = values if values.ndim == 4 else values[..., np.newaxis]
            files.write_image(source, np.moveaxis(arranged, -1, 1))
            options = ["--recipe", asked.recipe, "--prior", asked.prior, "--sigma", "20", "--overwrite", "--quiet"]
            options += [] if asked.memory == "default" else ["--memory", asked.memory]
            gigabytes, seconds = peak(
                ["denoise", str(source), str(source.with_name(f"out{files.suffix_of(source)}")), *options]
            )
            row = {key: getattr(asked, key) for key in ("recipe", "prior", "memory")}
            note({"input": name, **row, "peak": gigabytes, "seconds": seconds, "commit": commit()}, asked.out)
            print(f"{name}: {gigabytes:.2f} GB, {seconds:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
