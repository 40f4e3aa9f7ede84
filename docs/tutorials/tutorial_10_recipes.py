"""
Recipes: what each knob does
============================

A recipe says how a problem is solved. Three ready recipes cover most problems, and you never need to write one. This
tutorial turns the knobs one by one, so that you know what they are for.
"""

# %%
# What a recipe looks like
# ------------------------
#
# A recipe has four groups: the guess, the passes, the steps and the closing. Everything can be changed in a copy. The
# prior of this tutorial has two networks: a *reader*, which makes the guess and the passes, and a *hierarchy*, which
# takes steps and draws samples.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import iasolve
from iasolve.metrics import psnr
from iasolve.operators import GaussianNoise, Identity, KSpaceMask, line_mask
from iasolve.samples import load_samples

recipe = iasolve.load_recipe("compressed-sensing")
print(recipe.to_toml())

# %%
# Two problems
# ------------
#
# Knobs act differently on different problems. We take two: noise, where every frequency is measured, and k-space with
# a quarter of the lines.

clean = torch.from_numpy(load_samples().images[[0, 2]].astype(np.float32))[:, None]
clean = clean / clean.std((-3, -2, -1), keepdim=True)
prior = iasolve.load_prior("mri-t1-128")
shape = (1, 128, 128)
PROBLEMS = {
    "noise 0.3": (Identity(shape), 0.3, "denoise"),
    "lines 4x": (KSpaceMask(line_mask((128, 128), 4, 0.08, seed=0), shape), 0.02, "compressed-sensing"),
}


def gain(problem, **changes):
    """PSNR in dB and processor seconds an image with a changed recipe, averaged over the two slices.

    ``fallback=False`` asks for the prior's own answer, also where a linear estimate would do better.
    """
    operator, sigma, name = PROBLEMS[problem]
    noise = GaussianNoise(sigma)
    y = noise.sample(operator(clean), torch.Generator().manual_seed(0))
    y = y * operator.mask if isinstance(operator, KSpaceMask) else y
    changed = iasolve.load_recipe(name).changed(**changes)
    begun = time.process_time()
    images = iasolve.solve(y, operator, prior, noise=noise, recipe=changed, warn=False, fallback=False).image
    seconds = (time.process_time() - begun) / len(clean)
    return np.mean([psnr(a, b) for a, b in zip(images, clean, strict=True)]), seconds


def curve(axes, label, values, changes):
    """Draw what a knob does to PSNR and to time."""
    for problem in PROBLEMS:
        found = np.array([gain(problem, **changes(value)) for value in values])
        axes[0].plot(values, found[:, 0] - found[0, 0], "o-", label=problem)
        axes[1].plot(values, found[:, 1], "o-", label=problem)
    axes[0].set(xlabel=label, ylabel="gain in dB over the first point")
    axes[1].set(xlabel=label, ylabel="processor seconds an image", ylim=(0, None))
    axes[0].legend()


# %%
# Passes
# ------
#
# A *pass* joins the guess with the measurement and lets the network read the outcome again. Passes help where data
# are missing. Where everything is measured they take detail away, so the recipe ``denoise`` has none. (Views and steps
# are off, to see passes alone.)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "passes.count", [0, 2, 8], lambda n: {"views": 1, "steps": {"count": 0}, "passes": {"count": n}})
plt.show()

# %%
# Steps
# -----
#
# *Steps* are gradient steps on the latents of the hierarchy. They adapt its guess to this measurement, and each costs a
# forward and a backward pass of the decoder. Without steps, and with one view, the reader answers alone. With steps its
# answer is joined with that of the hierarchy, and a part of the gain comes from that. The gain is small, because
# this reader is good at both problems. With a prior that has no reader, steps gain more.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "steps.count", [0, 3, 10], lambda n: {"views": 1, "steps": {"count": n}})
plt.show()

# %%
# Views
# -----
#
# The reader does not treat a mirrored image exactly like the original. So a recipe can ask for several *views*, which
# are mirrored readings, and take their mean. From two views on, a guess of the hierarchy is joined as well. (Steps are
# off.)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "views", [1, 2, 4], lambda n: {"views": n, "steps": {"count": 0}})
plt.show()

# %%
# For noise, the mean is better than a single reading. For missing lines it is worse. After 24 passes the reader is
# ahead of a guess of the hierarchy, and the mean of the two falls behind. So ``denoise`` has four views, and
# ``compressed-sensing`` has one.
#
# Weight of the measurement
# -------------------------
#
# ``steps.beta`` weighs the measurement in the steps. 1 is the likelihood. A smaller value trusts the prior more, a
# larger one the data. Where the data are mostly noise, a large value brings the noise back.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "steps.beta", [0.25, 1.0, 4.0], lambda b: {"views": 1, "steps": {"count": 3, "beta": b}})
plt.show()

# %%
# Closing
# -------
#
# *Closing* joins the image that the hierarchy decodes with the measurement. Without it (``"none"``) the result is what
# the decoder can draw, and no more. The reader needs no closing for these two problems, so we leave it out here: a
# scale in place of ``"all"`` asks for the hierarchy alone.

for problem in PROBLEMS:
    for error in ("none", "stationary", "local"):
        alone = {"views": 1, "guess": {"stop": 128}, "passes": {"count": 0}, "steps": {"count": 0}}
        print(f"{problem}, closing.error {error:>10}: {gain(problem, **alone, closing={'error': error})[0]:.2f} dB")

# %%
# Where the guess ends
# --------------------
#
# ``guess.stop`` is the finest scale that the guess covers. Finer scales come from the prior alone. ``"all"`` also
# brings the reader.

for stop in (8, 32, 128, "all"):
    print(f"lines 4x, guess.stop {stop}: {gain('lines 4x', guess={'stop': stop})[0]:.2f} dB")

# %%
# Save a recipe
# -------------
#
# ``to_toml`` writes what ``--recipe FILE`` reads. At the command line ``iasolve recipe show denoise`` prints a ready
# recipe with its comments; copy it and change it.
#
# What can go wrong
# -----------------
#
# **You tuned on the test images.** Two slices are enough to see what a knob does, not to choose its value. Choose on
# other images than those you report.
#
# **A combination is impossible.** It is refused by name:

try:
    recipe.changed(steps={"variables": "offsets", "blocks": "scale"})
except iasolve.RecipeError as error:
    print(error)

# %%
# **More is not better.** The curve of the passes falls for noise. Steps are kept only if they improve the objective,
# but the objective is not your image quality.
