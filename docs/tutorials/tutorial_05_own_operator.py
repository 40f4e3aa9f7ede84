"""
Your own operator, checked
==========================

iasolve solves any linear problem that you can write down as a function. We build a small CT scanner, let it be
checked, and reconstruct with it. No network is trained for it.
"""

# %%
# Write a function
# ----------------
#
# A CT scanner measures sums along lines. Here is one that looks from the left and from above only, and along both
# diagonals: four views of all lines.

import matplotlib.pyplot as plt
import torch

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import GaussianNoise, LinearOperator, Radon, check_operator
from iasolve.samples import load_samples


def four_views(x):
    """Sums of images ``(..., 1, 128, 128)`` along rows, columns and both diagonals: ``(..., 4, 128)``."""
    image = x[..., 0, :, :]
    rows = torch.arange(128)
    shear = (rows[:, None] + rows[None, :]) % 128  # wraps around at the border
    diagonal = image.gather(-1, shear.expand(image.shape)).sum(-2)
    other = image.flip(-2).gather(-1, shear.expand(image.shape)).sum(-2)
    return torch.stack([image.sum(-1), image.sum(-2), diagonal, other], -2)


operator = LinearOperator.from_functions(four_views, in_shape=(1, 128, 128))
print(operator.in_shape, "->", operator.out_shape)

# %%
# The adjoint was left out. It is found by automatic differentiation.
#
# Let it be checked
# -----------------

print(check_operator(operator))

# %%
# What a check finds
# ------------------
#
# An adjoint that is wrong by a factor is the most common mistake. Solvers then converge to a wrong image, or do not
# converge at all. The check says it in a sentence:

wrong = LinearOperator.from_functions(four_views, adjoint=lambda y: 2 * operator.adjoint(y), in_shape=(1, 128, 128))
report = check_operator(wrong)
print(report.ok)
print("\n".join(report.failures))

# %%
# Solve
# -----
#
# Four views are far too few for a head. With the bundled ``Radon`` we take eighteen.

clean = torch.from_numpy(load_samples().images[0].astype("float32"))[None]
prior = iasolve.load_prior("mri-t1-128")
results = {}
for name, scanner in {"4 views": operator, "18 views": Radon(torch.arange(0, 180, 10.0), (1, 128, 128))}.items():
    exact = scanner(clean)
    noise = GaussianNoise(0.01 * float(exact.std()))
    y = noise.sample(exact, torch.Generator().manual_seed(0))
    results[name] = iasolve.solve(y, scanner, prior, noise=noise, recipe="compressed-sensing", samples=8, warn=False)
    print(f"{name}: {psnr(results[name].image, clean):.1f} dB in {results[name].seconds:.1f} s")
    covered = (results[name].image - clean).abs() < 1.645 * results[name].std
    print(f"  its 90 % interval contains {100 * covered[clean > 0.1 * clean.max()].float().mean():.0f} % of the head")

# %%
# Look
# ----

figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained")
panels = [("clean", clean)]
for name, result in results.items():
    panels += [(name, result.image), (f"{name}, error bar", result.std)]
for axis, (title, values) in zip(axes, panels, strict=True):
    bar = "error bar" in title
    axis.imshow(
        values[0], cmap="magma" if bar else "gray", vmin=0, vmax=0.3 * float(clean.max()) if bar else float(clean.max())
    )
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# Four views decide little of this head: too many images have the same four sets of sums. The result is hardly a head,
# the error bar is large, and the interval printed above is still too narrow. Eighteen views decide far more.
#
# What can go wrong
# -----------------
#
# **The operator passes the check and is still wrong.** The check proves that your function is linear and that the
# adjoint belongs to it. It cannot know what your scanner does. Test the function on a simple object: a single bright
# pixel, a disc.
#
# **The operator is slow.** Every solve applies it a few hundred times. Write ``A^H A`` as one function if that is
# cheaper, see :doc:`../how-to/own-operator`.
#
# **The noise level is unknown.** It is estimated, which works well if the operator measures more than the image
# needs. Four views measure less. Give the level there.
#
# At the command line::
#
#     iasolve check-operator lab.py:scanner
#     iasolve solve sinogram.npy image.npy --operator lab.py:scanner --sigma 20
