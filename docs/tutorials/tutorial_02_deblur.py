"""
Deblur a shaken picture
=======================

The camera moved while the picture was taken. If we know how, we can undo much of it.
"""

# %%
# A shaken picture
# ----------------
#
# A blur is described by its *kernel*: the picture that a single bright point would make. We take a motion of fifteen
# pixels at an angle of 30 degrees, and a little noise.
#
# The scene goes on beyond the frame of the picture, and the motion carries some of it in. So we start from a scene
# that is larger than the picture. ``boundary="valid"`` says this.

import math

import matplotlib.pyplot as plt
import torch
from skimage.data import chelsea

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import Convolution, GaussianNoise, gaussian_kernel, motion_kernel

SIZE = 252  # of the picture


def shake(kernel):
    """The operator from a scene, larger by the kernel's width, to the picture."""
    side = SIZE + kernel.shape[-1] - 1
    return Convolution(kernel, (1, side, side), boundary="valid")


def frame(scene):
    """What of a scene lies inside of the frame."""
    rim = (scene.shape[-1] - SIZE) // 2
    return scene[..., rim : rim + SIZE, rim : rim + SIZE]


kernel = motion_kernel(15, math.radians(30))
blur = shake(kernel)
scene = torch.from_numpy(chelsea().mean(-1)).float()[None, :270, 90:360]
noise = GaussianNoise(2)
shaken = noise.sample(blur(scene), torch.Generator().manual_seed(0))
print("scene", tuple(scene.shape), "picture", tuple(shaken.shape))

# %%
# Solve
# -----
#
# The result is the whole scene. What lies beyond the frame is little more than a guess, so we cut it off.

prior = iasolve.load_prior("photo-grey-128")
result = iasolve.solve(shaken, blur, prior, noise=noise, recipe="deblur")
sharp, clean = frame(result.image), frame(scene)
print(f"shaken {psnr(shaken, clean):.1f} dB, sharpened {psnr(sharp, clean):.1f} dB, in {result.seconds:.1f} s")

# %%
# Look
# ----

panels = {"clean": clean, "shaken": shaken, "sharpened": sharp, "error bar": frame(result.std)}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.5), layout="constrained")
for axis, (title, values) in zip(axes, panels.items(), strict=True):
    bar = title == "error bar"
    axis.imshow(values[0], cmap="magma" if bar else "gray", vmin=0, vmax=20 if bar else 220)
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# At the command line this is one line. It takes colours, too::
#
#     iasolve deblur shaken.png sharp.png --kernel kernel.npy --report look.html
#
# What can go wrong
# -----------------
#
# **The kernel is wrong.** This is the most common failure. We sharpen the same picture with a kernel that is too long,
# and with one that has the wrong shape. The recipe ``fast`` is enough to see it.

import warnings

trials = {"right kernel": kernel, "too long": motion_kernel(21, math.radians(30)), "wrong shape": gaussian_kernel(3.0)}
figure, axes = plt.subplots(1, 3, figsize=(11, 4.1), layout="constrained")
for axis, (title, trial) in zip(axes, trials.items(), strict=True):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tried = iasolve.solve(shaken, shake(trial), prior, noise=noise, recipe="fast")
    residual = float(tried.residual["whole"])
    print(f"{title}: residual / noise {residual:.1f}, answered by {tried.prior_used}, {len(caught)} warnings")
    axis.imshow(frame(tried.image)[0], cmap="gray", vmin=0, vmax=220)
    axis.set_title(title)
    axis.axis("off")
plt.show()
print(caught[0].message)

# %%
# Waves and double edges are the sign of a wrong kernel. With a wrong kernel the picture is unlike any photograph, and
# the test of the prior sees that: a linear estimate answers, and a warning says so.
#
# The *residual* is what is left when the result is blurred again and compared with the picture. It should be about as
# large as the noise. Far above 1 it proves that something is wrong. At 1 it proves nothing: a kernel that is too long
# explains this picture, too.
#
# Measure the kernel (photograph a bright point), or try another length and direction.
#
# **The boundary is wrong.** ``CircularBlur`` assumes that the picture wraps around. That is quick, and right for a head
# in air. On a shaken photograph it leaves waves all over the picture.
#
# **The noise level is too low.** Noise is then sharpened as if it were detail. ``result.sigma`` says which level was
# used.
