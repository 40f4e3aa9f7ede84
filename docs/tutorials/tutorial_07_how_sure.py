"""
How sure is it? Samples, intervals, coverage
============================================

A single image hides what the measurement did not say. This tutorial draws several images that all fit the
measurement, makes an interval of them, and tests whether the interval tells the truth.
"""

# %%
# Samples
# -------

import matplotlib.pyplot as plt
import numpy as np
import torch

import iasolve
from iasolve.operators import GaussianNoise, Identity, KSpaceMask, line_mask
from iasolve.samples import load_samples

clean = torch.from_numpy(load_samples().images[[0, 2]].astype(np.float32))[:, None]
clean = clean / clean.std((-3, -2, -1), keepdim=True)
mask = line_mask((128, 128), 4, 0.08, seed=0)
scanner = KSpaceMask(mask, (1, 128, 128))
noise = GaussianNoise(0.02)
y = noise.sample(scanner(clean), torch.Generator().manual_seed(0)) * scanner.mask
prior = iasolve.load_prior("mri-t1-128")
result = iasolve.solve(y, scanner, prior, noise=noise, recipe="compressed-sensing", samples=16)
print("samples, images, channels, height, width:", tuple(result.samples.shape))

# %%
# Each sample is an image that fits the measurement and that the prior finds plausible. Their mean is close to the
# estimate; a single sample has more detail, and more error.

figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained")
panels = [
    ("estimate", result.image[1]),
    *((f"sample {k}", result.samples[k, 1]) for k in range(3)),
    ("error bar", result.std[1]),
]
for axis, (title, values) in zip(axes, panels, strict=True):
    bar = title == "error bar"
    axis.imshow(values[0], cmap="magma" if bar else "gray", vmin=0, vmax=0.7 if bar else float(clean[1].max()))
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# An interval for every pixel
# ---------------------------
#
# An interval of the estimate plus and minus 1.64 standard deviations should contain the truth in 90 % of all pixels,
# if errors are roughly Gaussian.

low, high = result.image - 1.645 * result.std, result.image + 1.645 * result.std
row = 64
figure, axis = plt.subplots(figsize=(10, 3.4), layout="constrained")
axis.fill_between(range(128), low[1, 0, row], high[1, 0, row], alpha=0.3, label="90 % interval")
axis.plot(result.image[1, 0, row], label="estimate")
axis.plot(clean[1, 0, row], "k", linewidth=0.8, label="truth")
axis.set(xlabel="pixel of row 64", ylabel="brightness")
axis.legend()
plt.show()

# %%
# Is the interval honest?
# -----------------------
#
# *Coverage* is the share of pixels whose true value lies in the interval. It can only be measured where the truth is
# known, as here. We count pixels of the head, for several intervals.

head = clean > 0.1 * clean.amax((-2, -1), keepdim=True)
levels = np.array([0.5, 0.68, 0.8, 0.9, 0.95])
factors = np.array([0.674, 0.994, 1.282, 1.645, 1.960])
error = (result.image - clean).abs()
coverage = [float((error <= factor * result.std)[head].float().mean()) for factor in factors]
for level, share in zip(levels, coverage, strict=True):
    print(f"{100 * level:.0f} % interval: contains the truth in {100 * share:.0f} % of the head's pixels")

# %%
# Coverage by task
# ----------------

tasks = {
    "noise 0.1": (Identity((1, 128, 128)), 0.1, "denoise"),
    "noise 0.3": (Identity((1, 128, 128)), 0.3, "denoise"),
    "noise 1.0": (Identity((1, 128, 128)), 1.0, "denoise"),
}
figure, axis = plt.subplots(figsize=(5, 4.6), layout="constrained")
axis.plot([0.4, 1], [0.4, 1], "k--", linewidth=0.8, label="honest")
axis.plot(levels, coverage, "o-", label="lines 4x")
for name, (operator, sigma, recipe) in tasks.items():
    level = GaussianNoise(sigma)
    seen = level.sample(operator(clean), torch.Generator().manual_seed(1))
    solved = iasolve.solve(seen, operator, prior, noise=level, recipe=recipe, samples=8)
    off = (solved.image - clean).abs()
    axis.plot(levels, [float((off <= f * solved.std)[head].float().mean()) for f in factors], "o-", label=name)
axis.set(xlabel="interval asked for", ylabel="share of pixels that it contains")
axis.legend()
plt.show()

# %%
# Below the dashed line the program is too sure; above it, it is too careful. The figures of all priors and tasks are on
# the page :doc:`../explanation/measurements`.
#
# What can go wrong
# -----------------
#
# **Too few samples.** With 8 samples the standard deviation itself is uncertain by a quarter. This page takes 16 to be
# quick; take 32 or more for intervals.
#
# **The operator or the noise level is wrong.** The error bar knows nothing of it. It answers "what if everything I
# was told is true?".
#
# **The image is unlike the training data.** Then the prior's opinion is worth less, and so is the error bar. Heed the
# warning.
#
# **Pixels are not independent.** The 90 % holds for single pixels. The chance that a whole structure lies inside its
# interval is smaller. Compare samples instead: is the structure in all of them?
