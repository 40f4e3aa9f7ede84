"""Peak memory of the program: long volumes of several formats, large images, colours.

    python benchmarks/memory.py [--quick] [--recipe fast] [--memory SIZE] [--only TEXT]

Each row is one run of ``iasolve denoise`` in a process of its own; the peak is its resident set at its largest, that
of the process that decodes TIFF and HDF5 not included. Writes benchmarks/results/memory.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common import RESULTS, commit
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
    "768 x 512, three colours": (1, 512, 768, 3),
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
    """Largest resident set in GB, and seconds, of one run of the program."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "iasolve", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"iasolve {' '.join(arguments)}: exit code {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e9, time.perf_counter() - begun


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--memory")
    parser.add_argument("--prior", default="mri-t1-128")
    parser.add_argument("--only", help="cases whose name holds this text")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in (QUICK if asked.quick else CASES).items():
            if asked.only and asked.only not in name:
                continue
            suffix = name.partition(", ")[2]
            source = Path(folder) / f"in.{suffix if suffix in SUFFIXES else 'npy'}"
            values = picture(shape)
            files.write_image(source, values.transpose(0, 3, 1, 2) if values.ndim > 3 else values[:, np.newaxis])
            options = ["--recipe", asked.recipe, "--prior", asked.prior, "--sigma", "20", "--overwrite", "--quiet"]
            options += ["--memory", asked.memory] if asked.memory else []
            gigabytes, seconds = peak(
                ["denoise", str(source), str(source.with_name(f"out{files.suffix_of(source)}")), *options]
            )
            rows.append(f"| {name} | {asked.recipe} | {asked.memory or 'default'} | {gigabytes:.2f} | {seconds:.0f} |")
            print(rows[-1], flush=True)
    if asked.quick or asked.only:
        return
    text = ["# Peak memory", "", f"Commit {commit()}, prior {asked.prior}, processor.", ""]
    text += ["| input | recipe | --memory | peak, GB | seconds |", "| --- | --- | --- | --- | --- |", *rows]
    (RESULTS / "memory.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
