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
# A recipe has four groups: the guess, the passes, the steps and the closing. Everything can be changed in a copy.

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
    """PSNR in dB and seconds an image with a changed recipe, averaged over the two slices.

    ``fallback=False``: always the prior's own answer.
    """
    operator, sigma, name = PROBLEMS[problem]
    noise = GaussianNoise(sigma)
    y = noise.sample(operator(clean), torch.Generator().manual_seed(0))
    y = y * operator.mask if isinstance(operator, KSpaceMask) else y
    changed = iasolve.load_recipe(name).changed(**changes)
    result = iasolve.solve(y, operator, prior, noise=noise, recipe=changed, warn=False, fallback=False)
    return np.mean([psnr(a, b) for a, b in zip(result.image, clean, strict=True)]), result.seconds / len(clean)


def curve(axes, label, values, changes):
    """Draw what a knob does to PSNR and to time."""
    for problem in PROBLEMS:
        found = np.array([gain(problem, **changes(value)) for value in values])
        axes[0].plot(values, found[:, 0] - found[0, 0], "o-", label=problem)
        axes[1].plot(values, found[:, 1], "o-", label=problem)
    axes[0].set(xlabel=label, ylabel="gain in dB over the first point")
    axes[1].set(xlabel=label, ylabel="seconds an image", ylim=(0, None))
    axes[0].legend()


# %%
# Passes
# ------
#
# A *pass* joins the guess with the measurement and lets the network read the outcome again. Passes help where data
# are missing. They do nothing where everything is measured. (Views and steps are off, to see passes alone.)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "passes.count", [0, 2, 8], lambda n: {"views": 1, "steps": {"count": 0}, "passes": {"count": n}})
plt.show()

# %%
# Steps
# -----
#
# *Steps* are gradient steps on the latents. They adapt the guess to this measurement, and each costs a forward and a
# backward pass of the decoder.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "steps.count", [0, 3, 10], lambda n: {"views": 1, "steps": {"count": n}})
plt.show()

# %%
# Views
# -----
#
# The network does not treat a shifted image exactly like the original. The mean over a few shifted *views* is better
# than any of them; each costs as much as the first.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "views", [1, 2, 4], lambda n: {"views": n, "steps": {"count": 0}})
plt.show()

# %%
# Weight of the measurement
# -------------------------
#
# ``steps.beta`` weighs the measurement in the steps. 1 is the likelihood. A smaller value trusts the prior more, a
# larger one the data.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
curve(axes, "steps.beta", [0.25, 1.0, 4.0], lambda b: {"views": 1, "steps": {"count": 3, "beta": b}})
plt.show()

# %%
# Closing
# -------
#
# *Closing* joins the decoded image with the measurement at the end. Without it (``"none"``) the result is what the
# decoder can draw, and no more.

for problem in PROBLEMS:
    for error in ("none", "stationary", "local"):
        print(f"{problem}, closing.error {error:>10}: {gain(problem, views=1, closing={'error': error})[0]:.2f} dB")

# %%
# Where the guess ends
# --------------------
#
# ``guess.stop`` is the finest scale that the network's guess covers. Finer scales come from the prior alone.

for stop in (8, 32, "all"):
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
# **More is not better.** Many steps where everything is measured fit the noise. A result is never returned whose
# objective is worse than the guess's, but the objective is not your image quality.
