"""
Sharpen a blurred image
=======================

The camera moved, or the lens was out of focus. If we know the blur, we can undo much of it.
"""

# %%
# A blurred image
# ---------------
#
# A blur is described by its *kernel*: the picture that a single bright point would make. We take a motion of nine
# pixels at an angle of 30 degrees, and a little noise.

import math

import matplotlib.pyplot as plt
import torch

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import Convolution, GaussianNoise, gaussian_kernel, motion_kernel
from iasolve.samples import load_samples

clean = torch.from_numpy(load_samples().images[3].astype("float32"))[None]
kernel = motion_kernel(9, math.radians(30))
blur = Convolution(kernel, (1, 128, 128), boundary="reflect")
noise = GaussianNoise(0.02 * float(clean.std()))
blurred = noise.sample(blur(clean), torch.Generator().manual_seed(0))

# %%
# ``boundary="reflect"`` says what lies beyond the edge of the picture: its mirror image. A real scene simply goes on,
# and nobody knows what is there. ``boundary="valid"`` is for that case: it describes a scene that is larger than the
# picture.
#
# Solve
# -----

prior = iasolve.load_prior("mri-t1-128")
result = iasolve.solve(blurred, blur, prior, noise=noise, recipe="deblur", samples=4)
print(f"blurred {psnr(blurred, clean):.1f} dB, sharpened {psnr(result.image, clean):.1f} dB, in {result.seconds:.1f} s")

# %%
# Look
# ----

panels = [("clean", clean), ("blurred", blurred), ("sharpened", result.image), ("error bar", result.std)]
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for axis, (title, values) in zip(axes, panels, strict=True):
    bar = title == "error bar"
    axis.imshow(values[0], cmap="magma" if bar else "gray", vmin=0, vmax=float(values.max() if bar else clean.max()))
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# What can go wrong
# -----------------
#
# **The kernel is wrong.** This is the most common failure. Do not wait for a warning. Look at the *residual*: what is
# left when the result is blurred again and compared with the measurement. It should be about as large as the noise.
# Let us sharpen the same image with a kernel that is too long and one that has the wrong shape. The recipe ``fast``
# is enough to see it.

trials = {"right kernel": kernel, "too long": motion_kernel(13, math.radians(30)), "wrong shape": gaussian_kernel(2.5)}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
for axis, (title, trial) in zip(axes, trials.items(), strict=True):
    operator = Convolution(trial, (1, 128, 128), boundary="reflect")
    image = iasolve.solve(blurred, operator, prior, noise=noise, recipe="fast", warn=False).image
    residual = float((blurred - operator(image)).square().mean().sqrt()) / noise.sigma
    axis.imshow(image[0], cmap="gray", vmin=0, vmax=float(clean.max()))
    axis.set_title(f"{title}: residual / noise {residual:.1f}")
    axis.axis("off")
plt.show()

# %%
# Rings and double edges are the sign of a wrong kernel, and so is a residual far above the noise. Then measure the
# kernel (photograph a bright point) or try a shorter one.
#
# **The boundary is wrong.** ``CircularBlur`` assumes that the picture wraps around. This is quick, and right for a head
# in air. If something bright touches an edge, a ghost of it appears at the opposite edge. ``iasolve deblur --help``
# says what the command line assumes.
#
# **The noise level is too low.** Noise is then sharpened as if it were detail. ``result.sigma`` says which level was
# used.
