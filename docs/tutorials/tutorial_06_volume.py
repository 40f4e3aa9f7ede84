"""
A volume in NIfTI, from the command line
========================================

Many images come as volumes: a stack of slices in one file. This tutorial denoises one without writing Python. You
need the extra ``nifti``: ``pip install '.[nifti]'``.
"""

# %%
# A volume to play with
# ---------------------
#
# We stack the bundled slices into a volume, add noise and write it with nibabel. Skip this if you have a file of your
# own.

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

from iasolve.samples import load_samples

folder = Path(tempfile.mkdtemp())
slices = load_samples().images[:2].astype(np.float32)
noisy = slices + np.random.default_rng(0).normal(0, 12, slices.shape)
# NIfTI's axes are x, y, z: x to the right, y to the front
volume = np.moveaxis(noisy, 0, -1).transpose(1, 0, 2)[::-1, ::-1].astype(np.float32)
nib.save(nib.Nifti1Image(volume, np.diag([-1.8, -1.8, 5, 1])), folder / "scan.nii.gz")

# %%
# Denoise it
# ----------
#
# On a terminal you would type::
#
#     iasolve denoise scan.nii.gz clean.nii.gz --std-out error.nii.gz
#
# In this script a small function types it for us and prints the answer.


def run(command):
    """Run a line as a terminal would, in the folder of this tutorial."""
    line = command.split()
    line[0:1] = [sys.executable, "-m", line[0]]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder)
    print(f"{done.stdout}{done.stderr}exit code {done.returncode}")


run("iasolve denoise scan.nii.gz clean.nii.gz --std-out error.nii.gz")

# %%
# The result has the affine and the header of the input. Other programs show it at the same place.

print("affine kept:", np.allclose(nib.load(folder / "clean.nii.gz").affine, nib.load(folder / "scan.nii.gz").affine))

# %%
# The report
# ----------
#
# Beside the result stands a JSON file that says what was done: prior and hash, recipe, noise level, seed.

report = json.loads((folder / "clean.nii.gz.json").read_text())
print("prior:", report["prior"])
print("recipe:", report["recipe"]["name"])
print("noise level:", report["sigma"])

# %%
# ``iasolve report clean.nii.gz --inputs scan.nii.gz --std error.nii.gz`` makes a page of it that you can look at in a
# browser, slice by slice:

run("iasolve report clean.nii.gz --inputs scan.nii.gz --std error.nii.gz")

# %%
# Look
# ----

figure, axes = plt.subplots(2, 3, figsize=(9, 6.3), layout="constrained")
for row, index in zip(axes, range(2), strict=True):
    for axis, name in zip(row, ("scan", "clean", "error"), strict=True):
        values = np.rot90(nib.load(folder / f"{name}.nii.gz").get_fdata()[:, :, index])
        axis.imshow(values, cmap="magma" if name == "error" else "gray", vmin=0, vmax=20 if name == "error" else 230)
        axis.set_title(f"{name}, slice {index}")
        axis.axis("off")
plt.show()

# %%
# Slices along another axis
# -------------------------
#
# Slices run along z unless you say otherwise: ``scan.nii.gz:x`` takes sagittal slices. Every slice is solved for
# itself; neighbouring slices know nothing of each other.
#
# What can go wrong
# -----------------
#
# **The output exists.** Nothing is overwritten unless you say ``--overwrite``. The exit code is 2, and a script can
# see it:

run("iasolve denoise scan.nii.gz clean.nii.gz")

# %%
# **The file is damaged.** The message says what is wrong, and the exit code is 3.

(folder / "broken.nii.gz").write_bytes((folder / "scan.nii.gz").read_bytes()[:1000])
run("iasolve denoise broken.nii.gz clean2.nii.gz")

# %%
# **The slices look rotated.** iasolve turns slices by the affine, as a radiologist would see them. If the affine is
# wrong, the slices reach the prior upside down, and the result is worse than it could be.
