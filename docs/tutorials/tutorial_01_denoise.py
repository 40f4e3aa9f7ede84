"""
Denoise an image and read its error bar
=======================================

We take a clean image, add noise, remove the noise, and look at how sure the program is. You need nothing but iasolve.
"""

# %%
# A noisy image
# -------------
#
# iasolve brings four slices of brain MRI. We take one and add noise: about a third of the image's own contrast.

import matplotlib.pyplot as plt
import numpy as np

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import GaussianNoise, Identity
from iasolve.samples import load_samples

clean = load_samples().images[0].astype(np.float32)
sigma = 0.3 * clean.std()
noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape).astype(np.float32)

# %%
# Solve
# -----
#
# Three things define a problem: the measurement, the operator and the noise. Here the operator is the identity,
# because nothing but noise happened to the image. Images have a channel axis, so ``noisy`` becomes ``(1, 128, 128)``.
#
# ``prior`` is the trained network. It knows what such images look like.

prior = iasolve.load_prior("mri-t1-128")
result = iasolve.solve(
    noisy[None], Identity((1, 128, 128)), prior, noise=GaussianNoise(sigma), recipe="denoise", samples=16
)
print(f"noisy {psnr(noisy, clean):.1f} dB, denoised {psnr(result.image[0], clean):.1f} dB, in {result.seconds:.1f} s")

# %%
# Look
# ----
#
# ``result.std`` is the error bar: the standard deviation of each pixel, in the units of the image.

error = np.abs(result.image[0] - clean)
panels = [
    ("clean", clean),
    ("noisy", noisy),
    ("denoised", result.image[0]),
    ("error bar", result.std[0]),
    ("error", error),
]
figure, axes = plt.subplots(1, 5, figsize=(14, 3.3), layout="constrained")
for axis, (title, values) in zip(axes, panels, strict=True):
    small = title in ("error bar", "error")
    axis.imshow(values, cmap="magma" if small else "gray", vmin=0, vmax=3 * sigma if small else clean.max())
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# The error bar is large where the image has detail that the noise hid, and small in the air around the head. It is no
# map of the error. It says how large the error tends to be. For an honest error bar, the error is smaller than the
# bar in at least two of three pixels (68 %).

inside = clean > 0.1 * clean.max()
share = (error < result.std[0])[inside].mean()
print(f"{100 * share:.0f} % of the head's pixels have an error below one error bar")

# %%
# If you do not know the noise
# ----------------------------
#
# Leave ``noise`` out. Its level is then estimated and reported.

guessed = iasolve.solve(noisy[None], Identity((1, 128, 128)), prior, recipe="denoise")
print(f"true noise level {sigma:.1f}, estimated {float(guessed.sigma):.1f}")

# %%
# At the command line the same is one line. It also writes a page to look at, with a slider between before and after::
#
#     iasolve denoise noisy.tif clean.tif --std-out error.tif --report look.html
#
# What can go wrong
# -----------------
#
# **The image is unlike the training data.** This prior has seen brain MRI only. A photograph is something else, and
# the program says so:

import warnings

from skimage.data import camera
from skimage.transform import downscale_local_mean

photograph = downscale_local_mean(camera(), (4, 4)).astype(np.float32)
level = 0.3 * photograph.std()
noisy_photograph = photograph + np.random.default_rng(1).normal(0, level, photograph.shape).astype(np.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    wrong = iasolve.solve(noisy_photograph[None], Identity((1, 128, 128)), prior, noise=GaussianNoise(level))
print(f"noisy {psnr(noisy_photograph, photograph):.1f} dB, denoised {psnr(wrong.image[0], photograph):.1f} dB")
print("\n".join(str(warning.message) for warning in caught))

# %%
# The noise is gone, and so is some detail that a photograph has and a brain has not. Choose a prior that was trained
# on images like yours; ``iasolve prior list`` names them.
#
# **The noise level is wrong.** If you give a level that is too low, noise stays. If it is too high, detail goes. When
# you are not sure, let it be estimated and compare.
#
# **The noise is not white.** JPEG artefacts, stripes and smoothed noise are no white Gaussian noise. The estimate of
# the noise level then fails first.
