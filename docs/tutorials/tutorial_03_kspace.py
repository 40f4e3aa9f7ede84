"""
Reconstruct 4x undersampled k-space of one coil
===============================================

An MRI scanner measures k-space, the Fourier transform of the image, line by line. Measuring a quarter of the lines
takes a quarter of the time. This tutorial makes such a measurement from a bundled image and reconstructs it.
"""

# %%
# Make a measurement
# ------------------
#
# ``line_mask`` chooses lines at random, and all of those near the centre, as the fastMRI challenge does. A mask that
# was asked for 4x may come out a little different.

import matplotlib.pyplot as plt
import numpy as np
import torch

import iasolve
from iasolve.metrics import psnr, ssim
from iasolve.operators import GaussianNoise, KSpaceMask, acceleration, line_mask
from iasolve.samples import load_samples

clean = torch.from_numpy(load_samples().images[2].astype(np.float32))[None]
mask = line_mask((128, 128), 4, 0.08, seed=0)
scanner = KSpaceMask(mask, (1, 128, 128))
noise = GaussianNoise(0.02 * float(clean.std()))
y = noise.sample(scanner(clean), torch.Generator().manual_seed(0)) * scanner.mask
print(f"acceleration {acceleration(mask):.2f}; y is {tuple(y.shape)}, {y.dtype}")

# %%
# Two reconstructions
# -------------------
#
# *Zero-filled* is what a scanner without any prior knowledge shows: missing lines are taken for 0. It folds the image
# over itself. The recipe ``compressed-sensing`` is made for missing data.

prior = iasolve.load_prior("mri-t1-128")
zero_filled = scanner.adjoint(y)
result = iasolve.solve(y, scanner, prior, noise=noise, recipe="compressed-sensing", samples=8)
for name, image in (("zero-filled", zero_filled), ("iasolve", result.image)):
    print(f"{name:12} {psnr(image, clean):.1f} dB, SSIM {ssim(image, clean):.3f}")

# %%
# Look
# ----

lines = torch.log1p(y.abs())
panels = [("k-space", lines), ("clean", clean), ("zero-filled", zero_filled), ("iasolve", result.image)]
figure, axes = plt.subplots(1, 5, figsize=(15, 3.3), layout="constrained")
for axis, (title, values) in zip(axes, [*panels, ("error bar", result.std)], strict=True):
    high = float(clean.max() if title not in ("k-space", "error bar") else values.max())
    axis.imshow(values[0], cmap="magma" if title == "error bar" else "gray", vmin=0, vmax=high)
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# What the result says about itself
# ---------------------------------
#
# ``misfit`` compares what the image leaves unexplained with what noise and decoder should leave. A value of 1 or less
# is right. A value far above 1 means that the operator or the noise level is wrong.

for row in result.scales:
    print(f"scale {row['scale']:4d}: misfit {float(row['misfit']):.2f}")

# %%
# What was measured stays as it was, up to the noise:

left = (scanner(result.image) - y)[..., mask.bool().expand(128, 128)].abs().square().mean().sqrt()
print(f"noise level {noise.sigma:.2f}, left over in the measured lines {float(left):.2f}")

# %%
# What can go wrong
# -----------------
#
# **Numbers look better than a scanner will.** This image has no phase, so its k-space is symmetric: a line also tells
# what its mirror image holds. A real scan has a phase; see the next tutorial. How many lines count in effect:

centred = torch.fft.ifftshift(mask)
mirrored = torch.roll(centred.flip(-1), 1, -1)
print(f"asked for 4x; in effect, for a real image, {acceleration(torch.maximum(centred, mirrored)):.1f}x")

# %%
#
# **Fine structure is invented or lost.** No method knows what was not measured. Look at the error bar, and at several
# samples, before you believe a small structure:

figure, axes = plt.subplots(1, 4, figsize=(12, 2.5), layout="constrained")
for axis, sample in zip(axes, result.samples, strict=False):
    axis.imshow(sample[0, 80:, 30:100], cmap="gray", vmin=0, vmax=float(clean.max()))
    axis.axis("off")
figure.suptitle("Four samples of the skull base: where they differ, the measurement did not decide")
plt.show()

# %%
# **K-space is not centred.** iasolve expects the zero frequency at ``(H // 2, W // 2)`` and an orthonormal transform.
# An image that is shifted by half its size, or a checkerboard over it, is the sign of another convention.
#
# At the command line::
#
#     iasolve reconstruct y.npy image.tif --mask mask.npy --std-out std.tif
