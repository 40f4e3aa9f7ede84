"""Estimated against true noise levels, ring by ring, of images whose noise is not white.

    IASOLVE_DATA=folder python benchmarks/noise_levels.py              # half an hour
    IASOLVE_DATA=folder python benchmarks/noise_levels.py --quick      # two images of each set

Validation images of three sets, noise of three levels that was then blurred, interpolated, demosaiced or compressed
(``noise_cases.py``). Told are the ratio of estimated to true level in each ring, how often the noise counts as not
white, and what the error of the levels costs: the rise of the mean square error of a Wiener filter that knows the clean
image's power in each ring, over the filter with the true levels. The same for one level for all rings, as
``estimate_sigma`` has it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from noise_cases import CASES, validation_images
from numpy.typing import NDArray

import common
import iasolve
from iasolve.noise_level import estimate_noise, estimate_sigma, filled_fraction
from iasolve.operators import GaussianNoise, Identity
from iasolve.spectrum import fft2, frequencies

RINGS = 16
SIGMAS = (0.02, 0.05, 0.1)
Array = NDArray[np.float64]


def ring_power(image: Array) -> tuple[Array, Array]:
    """Mean power of each ring of an image ``(H, W)``, and the number of frequencies in it."""
    fy, fx = (frequencies(n).abs().double() / n for n in image.shape)
    ring = (2 * RINGS * torch.maximum(fy[:, None], fx[None, :])).long().clamp_max(RINGS - 1).flatten()
    power = fft2(torch.from_numpy(image)).abs().square().flatten()
    count = torch.bincount(ring, minlength=RINGS).double()
    return (torch.bincount(ring, power, minlength=RINGS) / count).numpy(), count.numpy()


def wiener_loss(clean: Array, true: Array, levels: Array) -> float:
    """Mean square error of a Wiener filter that takes ``levels`` for the ``true`` ones, over the best, in dB."""
    power, count = ring_power(clean - clean.mean())

    def error(assumed: Array) -> float:
        kept = power / (power + assumed**2 + 1e-30)
        return float((count * ((1 - kept) ** 2 * power + kept**2 * true**2)).sum())

    return float(10 * np.log10(error(levels) / error(true)))


def one(case: str, image: Array, sigma: float, seed: int) -> dict[str, Any]:
    """A noisy image's levels, true and estimated."""
    noisy, clean = (CASES[case](image, s, np.random.default_rng(seed)) for s in (sigma, 0.0))
    if noisy.ndim == 3:
        noisy, clean = noisy[..., 1], clean[..., 1]
    y, operator = torch.from_numpy(noisy).float()[None], Identity((1, *noisy.shape))
    true = np.sqrt(ring_power(noisy - clean)[0])
    begun = time.perf_counter()
    noise = estimate_noise(y, operator)
    seconds = time.perf_counter() - begun
    white = float(estimate_sigma(y[None], operator)[0])
    levels = np.full(RINGS, noise.sigma) if isinstance(noise, GaussianNoise) else np.array(noise.levels)
    return {
        "true": true.tolist(),
        "estimated": levels.tolist(),
        "white": white,
        "spectral": not isinstance(noise, GaussianNoise),
        "filled": filled_fraction(y),
        "loss": wiener_loss(clean, true, levels),
        "white_loss": wiener_loss(clean, true, np.full(RINGS, white)),
        "seconds": seconds,
    }


def row(key: tuple[str, str], found: list[dict[str, Any]]) -> list[str]:
    """A line of the table: pairs of rings, medians over images and levels."""
    true, levels = (np.array([f[name] for f in found]) for name in ("true", "estimated"))
    # a ring next to empty has no ratio that matters
    ratio = levels / np.maximum(true, 0.03 * true.max(axis=1, keepdims=True))
    pairs = np.median(ratio.reshape(len(ratio), RINGS // 2, 2).mean(axis=2), axis=0)
    losses, white = (np.array([f[name] for f in found]) for name in ("loss", "white_loss"))
    spectral = sum(f["spectral"] for f in found)
    filled = sum(max(f["filled"]) < 0.6 for f in found)
    counts = [f"{spectral}/{len(found)}", f"{filled}/{len(found)}"]
    dB = [f"{losses.mean():.2f} ({losses.max():.2f})", f"{white.mean():.2f} ({white.max():.2f})"]
    return [*key, *(f"{value:.2f}" for value in pairs), *counts, *dB]


def main(
    quick: Annotated[bool, typer.Option(help="Two images of each set")] = False,
    count: Annotated[int, typer.Option(help="Images of each set")] = 10,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Write ``noise_levels.json`` and ``noise_levels.md``."""
    torch.set_num_threads(1)
    folder = Path(os.environ.get("IASOLVE_DATA", "."))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for number, scene in enumerate(validation_images(folder, 2 if quick else count)):
        for case in CASES:
            if case == "demosaiced" and scene.image.ndim == 2:
                continue
            for sigma in SIGMAS:
                found = one(case, scene.image, sigma, seed=number)
                groups[case, scene.name].append({"sigma": sigma, "image": number, **found})
    rings = [f"{i / (2 * RINGS):.2f} to {(i + 2) / (2 * RINGS):.2f}" for i in range(0, RINGS, 2)]
    about = {
        "commit": common.commit(),
        "iasolve": iasolve.__version__,
        "torch": torch.__version__,
        "images": 2 if quick else count,
        "sigmas": SIGMAS,
    }
    header = ["noise", "images", *rings, "not white", "empty k-space", "loss, dB", "one level, dB"]
    text = (
        "# Noise levels of rings of frequencies\n\n"
        f"{about['images']} validation images of each set, in [0, 1], noise {', '.join(map(str, SIGMAS))}; "
        f"commit {about['commit']}.\n\n"
        "Columns of rings (cycles per pixel): estimated over true level, median of images and noise levels. Loss: rise "
        "of a Wiener filter's mean square error over the filter with the true levels, mean (largest); one level: the "
        "same for `estimate_sigma`.\n\n"
        + common.table(header, [row(key, found) for key, found in sorted(groups.items())])
    )
    seconds = [f["seconds"] for found in groups.values() for f in found]
    text += f"\nSeconds an image, 128 to 512 pixels: median {np.median(seconds):.2f}, largest {max(seconds):.2f}.\n"
    groups_out = [{"case": case, "images": name, "found": found} for (case, name), found in sorted(groups.items())]
    common.write("noise_levels", {"about": about, "groups": groups_out}, text, out)
    print(text)


if __name__ == "__main__":
    typer.run(main)
