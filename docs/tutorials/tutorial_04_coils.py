"""
Reconstruct real k-space of eight coils
=======================================

Modern scanners receive with many coils. Each sees the head with its own sensitivity, and together they replace part
of the missing data. The measurement in this tutorial is real: a slice of a head, eight coils, an eighth of k-space
sampled at random.
"""

# %%
# The measurement
# ---------------

import matplotlib.pyplot as plt
import numpy as np
import torch

import iasolve
from iasolve.operators import acceleration, centred_ifft2, root_sum_of_squares
from iasolve.samples import load_kspace

sample = load_kspace()
kspace = sample.kspace
mask = np.abs(kspace).sum(0) > 0
print(f"coils, height, width: {kspace.shape}; acceleration {acceleration(torch.from_numpy(mask)):.1f}")
print(sample.attribution)

# %%
# One line
# --------
#
# ``reconstruct`` estimates what it needs from the measurement: the mask, the coils' sensitivities, the phase of the
# image and the noise level. The recipe ``fast`` takes the first guess of the network; on this slice further passes
# and steps gain nothing (:doc:`../explanation/measurements`).

prior = iasolve.load_prior("mri-t1-128")
result = iasolve.reconstruct(kspace, prior, recipe="fast", samples=4)
print({key: value for key, value in result.facts[0].items() if not hasattr(value, "shape")})
print(f"{result.seconds:.1f} s")

# %%
# Look
# ----
#
# There is no ground truth for this slice: nobody measured the rest. The zero-filled image is for comparison only.

zero_filled = root_sum_of_squares(centred_ifft2(torch.from_numpy(kspace)))[0].numpy()
panels = [
    ("sampled entries", mask.astype(float)),
    ("zero-filled", zero_filled),
    ("iasolve", result.image[0]),
    ("error bar, to half of the image", result.std[0]),
]
bright = np.percentile(result.image, 99.8)
ends = (1, np.percentile(zero_filled, 99.8), bright, bright / 2)
figure, axes = plt.subplots(1, 4, figsize=(13, 4.8), layout="constrained")
for axis, (title, values), end in zip(axes, panels, ends, strict=True):
    axis.imshow(values, cmap="magma" if "error bar" in title else "gray", vmin=0, vmax=end)
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# How to judge a result without a truth
# -------------------------------------
#
# Hide some of the measured entries, reconstruct from the rest, and predict the hidden ones. This is what
# ``benchmarks/multicoil.py`` does for all methods. Here on a twentieth of the entries:

from iasolve.inference import pose_coils
from iasolve.operators import SensitivityEncoding

rng = np.random.default_rng(0)
centre = np.zeros_like(mask)
centre[103:127, 78:102] = True
hidden = mask & ~centre & (rng.random(mask.shape) < 0.05)
posed = pose_coils(kspace * ~hidden, is_complex=False)
rest = iasolve.solve(posed.y[None], posed.operator, prior, noise=posed.noise, recipe="fast", warn=False)
predict = SensitivityEncoding(posed.operator.maps, hidden, posed.operator.in_dtype)
truth = torch.from_numpy(kspace * hidden)
error = torch.linalg.vector_norm(predict(rest.image[0]) - truth) / torch.linalg.vector_norm(truth)
print(f"relative error of {hidden.sum()} hidden positions: {float(error):.2f}; an empty image has 1.00")

# %%
# A good part of this error is the noise of the hidden entries themselves.
#
# What can go wrong
# -----------------
#
# **The head is larger than its field of view.** It then folds over itself, and one set of sensitivities cannot
# describe that. The error is at the fold.
#
# **The centre is too small.** Sensitivities and phase come from the fully sampled centre. With fewer than five lines
# the maps are only smoothed coil images. Bring your own maps then: ``maps=``.
#
# **The scan is unlike the training data.** This slice has another contrast and resolution than the prior's images.
# Total variation does slightly better on it, as the page on measurements says.
#
# At the command line::
#
#     iasolve reconstruct kspace.npy image.tif --figure look.png
