"""
Train a prior on your own images
================================

A prior is a network that has seen images like yours. This tutorial trains a very small one, for a minute, on pieces
of a photograph of gravel. A real one takes hours; the steps are the same.
"""

# %%
# Collect images
# --------------
#
# Training reads an array of images, a folder, or one of two known data sets. We cut one photograph that comes with
# scikit-image into pieces of 32 x 32 pixels. The left three quarters are for training, the rest is for the test.

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import gravel

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import GaussianNoise, Identity

folder = Path(tempfile.mkdtemp())
photograph = gravel()
pieces = [photograph[y : y + 32, x : x + 32] for y in range(0, 480, 8) for x in range(0, 352, 8)]
np.savez(folder / "gravel.npz", images=np.stack(pieces))
print(f"{len(pieces)} pieces for training")

# %%
# Write a configuration
# ---------------------
#
# The configuration says which network, which images, and what the encoder should learn to read: here images in noise
# of 0.05 to 1 times their root mean square.

configuration = """
name = "gravel"

[network]
size = 32
widths = [24, 24, 24, 24, 24, 24]
layers = [1, 1, 1, 1, 2, 1]
latents = [4, 4, 4, 4, 8, 8]
encoder_blocks = [1, 1, 1, 1, 1, 1]
grid_cap = 16
head_blocks = 1

[data]
name = "pieces of one photograph of gravel (scikit-image)"
licence = "CC0"
path = "gravel.npz"
validation_every = 20

[augmentation]
shift = 4.0
rotate = 0.0

[[degradations]]
weight = 1.0
sigma = [0.05, 1.0]

[optimisation]
images = 1000000
batch = 16
kl_warmup = 2000
validate_every = 2000
"""
written = (folder / "gravel.toml").write_text(configuration)

# %%
# Train
# -----
#
# On a terminal you would type ``iasolve train gravel.toml --minutes 1``. The learning rate falls at the end, so the
# minute is used well.

done = subprocess.run(
    [sys.executable, "-m", "iasolve", "train", "gravel.toml", "--minutes", "0.8", "--device", "cpu"],
    capture_output=True,
    text=True,
    cwd=folder,
)
print("\n".join((done.stdout + done.stderr).splitlines()[-6:]))

# %%
# Use it
# ------
#
# The test pieces come from the part of the photograph that training did not see.

prior = iasolve.load_prior(folder / "runs" / "gravel" / "gravel.safetensors")
test = np.stack([photograph[y : y + 32, x : x + 32] for y in (0, 120, 240) for x in (400, 440)]).astype(np.float32)[
    :, None
]
sigma = 0.3 * float(np.sqrt((test**2).mean()))
noisy = test + np.random.default_rng(0).normal(0, sigma, test.shape).astype(np.float32)
result = iasolve.solve(noisy, Identity((1, 32, 32)), prior, noise=GaussianNoise(sigma), recipe="fast", warn=False)


def mean_psnr(images):
    """PSNR in dB, averaged over the test pieces."""
    return np.mean([psnr(a, b, data_range=255) for a, b in zip(images, test, strict=True)])


print(f"noisy {mean_psnr(noisy):.1f} dB, denoised {mean_psnr(result.image):.1f} dB")
figure, axes = plt.subplots(3, 6, figsize=(9, 4.8), layout="constrained")
for row, images in zip(axes, (test, noisy, result.image), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image[0], cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
for axis, name in zip(axes[:, 0], ("clean", "noisy", "denoised"), strict=True):
    axis.set_title(name, loc="left", fontsize=9)
plt.show()

# %%
# A minute of training makes a prior that is better than nothing, and no more. ``iasolve prior show FILE`` prints its
# card; the validation bound (ELBO) in ``log.jsonl`` says whether more training would still help.
#
# What can go wrong
# -----------------
#
# **Test images were in the training set.** Then the figures are too good. Keep whole photographs, or whole patients,
# apart.
#
# **Too few steps.** Count steps, not images: a batch that is eight times larger needs nearly as many steps.
#
# **The images are alike in a way you did not want.** If all stand in the same place, the network learns the place.
# Use shifts and flips in ``[augmentation]``.
#
# **The training was interrupted.** Go on with ``iasolve train gravel.toml --resume``.
