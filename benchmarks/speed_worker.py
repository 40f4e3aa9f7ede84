"""One version of iasolve, measured by ``speed.py``: it uses nothing but what version 0.1.0 has.

    python speed_worker.py TREE

It says when it is ready, reads the names of cases from its input, and answers each with seconds and PSNR.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIDE, SIGMA = 128, 0.1


def main() -> None:
    """Answer until the input ends."""
    tree = Path(sys.argv[1]).resolve()
    # an editable installation would find the checkout it was made from
    sys.meta_path = [finder for finder in sys.meta_path if "ditable" not in repr(finder)]
    sys.path.insert(0, str(tree))
    answers, sys.stdout = sys.stdout, sys.stderr
    import torch

    import iasolve

    if not Path(iasolve.__file__).resolve().is_relative_to(tree):
        raise SystemExit(f"{iasolve.__file__} was imported in place of the iasolve in {tree}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    prior, cases = iasolve.load_prior("mri-t1-128"), make()
    for name, (y, operator, noise, recipe, _) in cases.items():
        if name in os.environ["CASES"].split(","):
            solved(iasolve, y, operator, prior, noise, recipe)
    print(json.dumps({"version": iasolve.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        y, operator, noise, recipe, truth = cases[line.strip()]
        begun, wall = time.process_time(), time.perf_counter()
        image = solved(iasolve, y, operator, prior, noise, recipe)
        seconds = {"processor": time.process_time() - begun, "wall": time.perf_counter() - wall}
        error = np.square(np.asarray(image, np.float64).reshape(truth.shape) - truth).mean()
        print(json.dumps(seconds | {"psnr": 10 * np.log10(truth.max() ** 2 / error)}), file=answers, flush=True)


def solved(iasolve: Any, y: Any, operator: Any, prior: Any, noise: Any, recipe: str) -> Any:
    """The image."""
    return iasolve.solve(y, operator, prior, noise=noise, recipe=recipe).image


def make() -> dict[str, tuple[Any, Any, Any, str, np.ndarray]]:
    """Measurement, operator, noise, recipe and truth of each case; a bundled sample, of standard deviation 1."""
    import torch
    from scipy.ndimage import zoom

    from iasolve.operators import CircularBlur, GaussianNoise, Identity, KSpaceMask, gaussian_kernel, line_mask
    from iasolve.samples import load_samples

    head = load_samples().images[0].astype(np.float32)
    head /= head.std()
    large = zoom(head, 4, order=3)
    shape = (1, SIDE, SIDE)
    mask = KSpaceMask(line_mask(shape[1:], 4, 0.08, seed=0), shape)
    blur = CircularBlur(gaussian_kernel(2.0), shape)
    cases = {
        "fast": (Identity(shape), SIGMA, "fast", head),
        "denoise": (Identity(shape), SIGMA, "denoise", head),
        "deblur": (blur, 0.05, "deblur", head),
        "compressed-sensing": (mask, 0.02, "compressed-sensing", head),
        "denoise 512": (Identity((1, 512, 512)), SIGMA, "denoise", large),
    }
    out = {}
    for name, (operator, sigma, recipe, truth) in cases.items():
        noise = GaussianNoise(sigma)
        clean = torch.from_numpy(truth)[None, None]
        y = noise.sample(operator(clean), torch.Generator().manual_seed(0))
        out[name] = (y, operator, noise, recipe, truth)
    return out


if __name__ == "__main__":
    main()
