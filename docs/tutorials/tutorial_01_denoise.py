"""
Denoise a photograph and read its error bar
===========================================

We take a photograph, add noise, remove the noise, and look at how sure the program is. You need nothing but iasolve.
"""

# %%
# A noisy photograph
# ------------------
#
# scikit-image brings a photograph. We make it grey and half as large, so that its own noise is gone, and add noise of
# 25 grey levels. The photograph has 256.

import matplotlib.pyplot as plt
import numpy as np
from skimage.data import astronaut
from skimage.transform import downscale_local_mean

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import GaussianNoise, Identity

clean = downscale_local_mean(astronaut().mean(-1), (2, 2)).astype(np.float32)
sigma = 25
noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape).astype(np.float32)

# %%
# Solve
# -----
#
# Three things define a problem: the measurement, the operator and the noise. Here the operator is the identity,
# because nothing but noise happened to the photograph. Images have a channel axis, so ``noisy`` becomes
# ``(1, 256, 256)``.
#
# What such images look like is the knowledge of a trained network, the *prior*. We name none, so the measurement
# chooses among those that are installed. ``result.prior_used`` names its choice.

operator = Identity((1, 256, 256))
result = iasolve.solve(noisy[None], operator, noise=GaussianNoise(sigma))
print(f"prior {result.prior_used}, {result.seconds:.1f} s")
print(f"noisy {psnr(noisy, clean):.1f} dB, denoised {psnr(result.image[0], clean):.1f} dB")

# %%
# Look
# ----
#
# ``result.std`` is the error bar: the standard deviation of each pixel, in grey levels.

error = np.abs(result.image[0] - clean)
pictures = {"clean": clean, "noisy": noisy, "denoised": result.image[0]}
bars = {"error bar": result.std[0], "error": error}
figure, axes = plt.subplots(1, 5, figsize=(14, 3.1), layout="constrained")
for axis, (title, values) in zip(axes, pictures.items(), strict=False):
    axis.imshow(values, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title)
for axis, (title, values) in zip(axes[3:], bars.items(), strict=True):
    shown = axis.imshow(values, cmap="magma", vmin=0, vmax=25)
    axis.set_title(title)
for axis in axes:
    axis.axis("off")
figure.colorbar(shown, ax=axes, label="grey levels", shrink=0.8)
plt.show()

# %%
# The error bar is no map of the error. It says how large the error tends to be. An honest error bar is larger than the
# error in 68 % of all pixels, and 1.645 error bars are larger than it in 90 %.


def shares(name, part):
    """Print how often the error is smaller than the bar, in a part of the picture."""
    small, wide = (100 * (error < factor * result.std[0])[part].mean() for factor in (1, 1.645))
    print(f"{name}: asked 68 and 90 %, found {small:.0f} and {wide:.0f} %")


shares("whole picture", np.s_[:, :])
shares("backdrop", np.s_[0:120, 165:180])
shares("collar", np.s_[80:140, 60:150])

# %%
# Where more is found than was asked, the bar is too long; where less, it is too short. The prior says how large its
# error is at each frequency and how it is spread over the picture, and the noise tells how large it is in all. So the
# bar is right for the picture as a whole. It is still too long for the smooth backdrop, and a little too short for the
# collar with its many edges.
# :doc:`tutorial_07_how_sure` goes on from here.
#
# If you do not know the noise
# ----------------------------
#
# Leave ``noise`` out. Its level is then estimated and reported.

guessed = iasolve.solve(noisy[None], operator)
print(f"true noise level {sigma}, estimated {float(guessed.sigma):.1f}")

# %%
# At the command line the same is one line. It also writes a page to look at, with a slider between before and after::
#
#     iasolve denoise noisy.png clean.png --std-out error.tif --report look.html
#
# What can go wrong
# -----------------
#
# **The noise level is wrong.** If you give a level that is too low, noise stays. If it is too high, detail goes:

figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), layout="constrained")
for axis, told in zip(axes, (15, 25, 50), strict=True):
    image = iasolve.solve(noisy[None], operator, noise=GaussianNoise(told), recipe="fast", warn=False).image[0]
    axis.imshow(image[30:130, 70:170], cmap="gray", vmin=0, vmax=255)
    axis.set_title(f"told {told}: {psnr(image, clean):.1f} dB")
    axis.axis("off")
plt.show()

# %%
# **The prior is for other images.** If you name a prior, name one that was trained on images like yours. One for brain
# MRI removes the noise of a photograph, too, and takes more of the detail with it:

wrong = iasolve.solve(
    noisy[None], operator, iasolve.load_prior("mri-t1-128"), noise=GaussianNoise(sigma), warn=False
).image[0]
print(f"prior for brain MRI: {psnr(wrong, clean):.1f} dB")

# %%
# ``iasolve prior list`` names the priors that are installed. A warning often says that a prior does not fit, but not
# always.
#
# **The noise is not white.** JPEG artefacts, stripes and smoothed noise are no white Gaussian noise. See
# :doc:`../how-to/noise`.
