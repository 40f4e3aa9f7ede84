"""Photographs: denoising of BSD68 and of colour tiles, deblurring of camera shake whose scene goes on beyond the frame.

    python benchmarks/photographs.py                    # everything
    python benchmarks/photographs.py --quick            # two minutes, a few crops, for a look
    python benchmarks/photographs.py --only "colour"    # parts of the cases' names

Noise is white and Gaussian, sigma in grey levels of 255, neither clipped nor rounded. Colour images are tiles of
photographs that training does not see. In deblurring, a scene is blurred by a Gaussian or by one of Levin's measured
camera shakes; the picture is what the kernel saw whole, and the scene beyond it is unknown. Wiener, Richardson-Lucy and
BM3D get the picture extended by reflection; total variation and iasolve estimate the larger scene. Weights and
iterations of the classical methods are tuned on validation photographs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from block_matching import bm3d_deblur, bm3d_denoise
from comparison import Scores
from reconstruction import tune
from torch import Tensor

import common
import iasolve
from iasolve.classical import total_variation, total_variation_sense
from iasolve.operators import Convolution, GaussianNoise, Identity, gaussian_kernel
from iasolve.spectrum import fft2
from iasolve.training.config import load_config
from iasolve.training.data import find
from iasolve.training.folder import read_images
from iasolve.training.partition import load_partition

CONFIG = Path(__file__).parents[1] / "iasolve" / "priors" / "weights" / "photo-128.toml"
RECIPES = ("fast", "denoise")
NOISE = 1.5
"""Grey levels of noise in a blurred picture."""


@dataclass(frozen=True)
class Settings:
    """Of one run of the script."""

    seed: int
    quick: bool

    def noise(self, shape: torch.Size, sigma: float, number: int) -> Tensor:
        """White noise, of its own for each image."""
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        return sigma * torch.randn(shape, generator=generator)


def images_of(pictures: list[np.ndarray], count: int, settings: Settings, *, grey: bool = False) -> list[Tensor]:
    """``count`` of the pictures ``(C, H, W)``, evenly spread, ``(1, C, H, W)`` float32; of ``quick``, their middles."""
    chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int)]
    out = []
    for picture in chosen:
        x = torch.from_numpy(picture.astype(np.float32))[None]
        if grey and x.shape[1] == 3:
            x = (torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1) * x).sum(1, keepdim=True)
        if settings.quick:
            top, left = ((n - 128) // 2 for n in x.shape[-2:])
            x = x[..., top : top + 128, left : left + 128]
        out.append(x)
    return out


def solved(y: Tensor, operator_of: Callable[[int], Any], prior: Any, sigma: float, recipe: str, seed: int) -> Tensor:
    """Iasolve's image; a prior over grey images takes colour ones channel by channel."""
    if prior.channels == y.shape[1]:
        operator = operator_of(y.shape[1])
    else:
        operator, y = operator_of(1), y.reshape(-1, 1, *y.shape[-2:])
    image = iasolve.solve(y, operator, prior, noise=GaussianNoise(sigma), recipe=recipe, seed=seed).image
    return image.reshape(-1, *image.shape[-2:])[None] if prior.channels == 1 else image


# ------------------------------------------------------------------------------------------- denoising


def denoising(
    images: list[Tensor], validation: list[Tensor], sigma: float, prior: Any, settings: Settings
) -> tuple[Scores, dict[str, Any]]:
    """Every denoiser on every image."""

    def tv(y: Tensor, weight: float) -> Tensor:
        precision = torch.full(y.shape, 1 / sigma**2)
        return total_variation(precision, fft2(y), weight, max_iterations=200 if settings.quick else 2000).image

    noisy = [x + settings.noise(x.shape, sigma, 10_000 + n) for n, x in enumerate(validation)]
    weight, grid = tune(
        lambda w: -float(np.mean([_mse(tv(y, w), x) for y, x in zip(noisy, validation, strict=True)])),
        1.0 / sigma,
        1.25,
    )
    scores = Scores(peak=255.0)
    for number, x in enumerate(images):
        y = x + settings.noise(x.shape, sigma, number)
        size = tuple(x.shape[-2:])
        methods: dict[str, Callable[[], Tensor]] = {
            "input": lambda y=y: y,
            "total variation": lambda y=y: tv(y, weight),
            "BM3D": lambda y=y: bm3d_denoise(y, sigma),
        }
        for recipe in RECIPES[:1] if settings.quick else RECIPES:
            identity = partial(_identity, size)
            methods[f"iasolve {recipe}"] = partial(solved, y, identity, prior, sigma, recipe, settings.seed)
        scores.run(methods, x)
    return scores, {"total variation": weight, "grid": grid}


def _identity(size: tuple[int, int], channels: int) -> Identity:
    return Identity((channels, *size))


def _mse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())


# ------------------------------------------------------------------------------------------- deblurring


@dataclass(frozen=True)
class Picture:
    """A blurred, noisy picture ``y`` of a part of a scene ``x``, both ``(1, C, H, W)``; the kernel is ``(h, w)``."""

    x: Tensor
    y: Tensor
    kernel: Tensor

    def inside(self, scene: Tensor) -> Tensor:
        """The part of an estimate of the scene that the picture shows."""
        height, width = self.y.shape[-2:]
        top, left = (k - 1 - k // 2 for k in self.kernel.shape)
        return scene[..., top : top + height, left : left + width]

    def extended(self) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The picture with twice the kernel's size reflected on each side, and how to cut an image back."""
        by = 2 * max(self.kernel.shape)
        wide = np.pad(self.y.numpy(), ((0, 0), (0, 0), (by, by), (by, by)), mode="reflect")
        return torch.from_numpy(wide), lambda image: image[..., by:-by, by:-by]


def seen(x: Tensor, kernel: Tensor, number: int, settings: Settings) -> Picture:
    """Blur and noise."""
    operator = Convolution(kernel, tuple(x.shape[1:]), boundary="valid")
    y = operator(x)
    return Picture(x, y + settings.noise(y.shape, NOISE, number), kernel)


def wiener_deblurred(picture: Picture, balance: float) -> Tensor:
    """scikit-image's Wiener filter with a Laplacian for the scene's power."""
    from skimage.restoration import wiener

    wide, cut = picture.extended()
    psf = picture.kernel.double().numpy()
    planes = [wiener(p / 255, psf, balance, clip=False) for p in wide[0].double().numpy()]
    return 255 * cut(torch.from_numpy(np.stack(planes))[None]).float()


def richardson_lucy(picture: Picture, iterations: float) -> Tensor:
    """scikit-image's, from the picture itself."""
    from skimage.restoration import richardson_lucy as iterate

    wide, cut = picture.extended()
    psf = picture.kernel.double().numpy()
    planes = [
        iterate(np.clip(p / 255, 1e-4, None), psf, round(iterations), clip=False) for p in wide[0].double().numpy()
    ]
    return 255 * cut(torch.from_numpy(np.stack(planes))[None]).float()


def tv_deblurred(picture: Picture, weight: float, iterations: int) -> Tensor:
    """Total variation of the whole scene, channel by channel."""
    operator = Convolution(picture.kernel, (1, *picture.x.shape[-2:]), boundary="valid")
    y = picture.y.reshape(-1, 1, *picture.y.shape[-2:])
    scene = total_variation_sense(operator, y, NOISE, weight, max_iterations=iterations, start=_start(picture)).image
    return picture.inside(scene.reshape(1, -1, *scene.shape[-2:]))


def _start(picture: Picture) -> Tensor:
    """The picture, beyond its frame its nearest pixels."""
    rows, columns = (n - m for n, m in zip(picture.x.shape[-2:], picture.y.shape[-2:], strict=True))
    top, left = (k - 1 - k // 2 for k in picture.kernel.shape)
    padding = ((0, 0), (0, 0), (top, rows - top), (left, columns - left))
    wide = np.pad(picture.y.numpy(), padding, mode="edge")
    return torch.from_numpy(wide.reshape(-1, 1, *wide.shape[-2:]))


def bm3d_deblurred(picture: Picture) -> Tensor:
    """BM3D's deblurring of the extended picture."""
    wide, cut = picture.extended()
    return cut(torch.cat([bm3d_deblur(wide[:, c : c + 1], NOISE, picture.kernel) for c in range(wide.shape[1])], dim=1))


def deblurring(
    images: list[Tensor], validation: list[Tensor], kernel: Tensor, prior: Any, settings: Settings
) -> tuple[Scores, dict[str, Any]]:
    """Every method on every picture."""
    iterations = 40 if settings.quick else 300
    trials = [seen(x, kernel, 20_000 + n, settings) for n, x in enumerate(validation)]

    def tuned(method: Callable[[Picture, float], Tensor], start: float, factor: float) -> float:
        def score(value: float) -> float:
            return -float(np.mean([_mse(method(p, value), p.inside(p.x)) for p in trials]))

        return tune(score, start, factor)[0]

    tv = partial(tv_deblurred, iterations=iterations)
    settled = {
        "Wiener": tuned(wiener_deblurred, 0.01, 2.0),
        "Richardson-Lucy": tuned(richardson_lucy, 12.0, 1.5),
        "total variation": tuned(tv, 0.3, 2.0 if settings.quick else 1.5),
    }
    scores = Scores(peak=255.0)
    for number, x in enumerate(images):
        picture = seen(x, kernel, number, settings)
        methods: dict[str, Callable[[], Tensor]] = {
            "input": lambda p=picture: p.y,
            "Wiener": partial(wiener_deblurred, picture, settled["Wiener"]),
            "Richardson-Lucy": partial(richardson_lucy, picture, settled["Richardson-Lucy"]),
            "TV, unknown boundary": partial(tv, picture, settled["total variation"]),
        }
        methods["BM3D"] = partial(bm3d_deblurred, picture)
        for recipe in ("fast",) if settings.quick else ("fast", "deblur"):
            methods[f"iasolve {recipe}"] = partial(_iasolve_deblurred, picture, prior, recipe, settings.seed)
        scores.run(methods, picture.inside(x))
    return scores, settled


def _iasolve_deblurred(picture: Picture, prior: Any, recipe: str, seed: int) -> Tensor:
    def operator_of(channels: int) -> Convolution:
        return Convolution(picture.kernel, (channels, *picture.x.shape[-2:]), boundary="valid")

    return picture.inside(solved(picture.y, operator_of, prior, NOISE, recipe, seed))


# ------------------------------------------------------------------------------------------- the script


def kernels(quick: bool) -> dict[str, Tensor]:
    """A Gaussian, and Levin's camera shakes."""
    out = {"Gaussian 1.6": gaussian_kernel(1.6)}
    with np.load(find("levin09-kernels.npz")) as data:
        names = sorted(data)[:1] if quick else sorted(data)
        out |= {f"camera shake {n.removeprefix('kernel')}": torch.from_numpy(data[n].astype(np.float64)) for n in names}
    return out


def main(
    grey_prior: Annotated[str, typer.Option(help="Prior over grey photographs, by name or path")] = "photo-grey-128",
    colour_prior: Annotated[
        str, typer.Option(help="Prior over colour photographs; one over grey ones takes the channels singly")
    ] = "photo-128",
    count: Annotated[int, typer.Option(help="Images of each case; 0: all 68 for denoising, 16 for deblurring")] = 0,
    tuning: Annotated[int, typer.Option(help="Validation images that the classical methods are tuned on")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the noise")] = 0,
    only: Annotated[str, typer.Option(help="Comma-separated parts of the cases' names")] = "",
    quick: Annotated[bool, typer.Option(help="2 crops of 128 x 128 a case, fewer cases: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Run the tables. Data are looked for in the folder that IASOLVE_DATA names."""
    warnings.simplefilter("ignore", iasolve.UnlikePriorWarning)
    settings = Settings(seed, quick)
    grey, colour = iasolve.load_prior(grey_prior), iasolve.load_prior(colour_prior)
    config = load_config(CONFIG)
    bsds, tiles = (load_partition(source, CONFIG.parent) for source in config.data.sources)
    bsd68 = [pixels for _, pixels in read_images(find("bsd68-gray.zip"), channels=1)]
    many = count or (2 if quick else 68)
    tested = {
        "grey": images_of(bsd68, many, settings),
        "colour": images_of(tiles.test, many, settings),
        "blurred": images_of(bsd68, count or (2 if quick else 16), settings),
    }
    validation = {
        "grey": images_of(bsds.validation, 2 if quick else tuning, settings, grey=True),
        "colour": images_of(tiles.validation, 2 if quick else tuning, settings),
    }
    cases: dict[str, Callable[[], tuple[Scores, dict[str, Any]]]] = {}
    for kind, prior in (("grey", grey), ("colour", colour)):
        for sigma in (25,) if quick else (15, 25, 50):
            cases[f"{kind}, noise {sigma}"] = partial(
                denoising, tested[kind], validation[kind], float(sigma), prior, settings
            )
    for name, kernel in kernels(quick).items():
        cases[name] = partial(deblurring, tested["blurred"], validation["grey"], kernel, grey, settings)
    chosen = {n: c for n, c in cases.items() if not only or any(part in n for part in only.split(","))}
    if not chosen:
        raise SystemExit(f"--only {only}: no such case; there are {', '.join(cases)}")
    report: dict[str, Any] = {
        "about": common.provenance(seed, grey, quick=quick, tuned_on=tuning),
        "colour_prior": [colour.name, colour.card.get("sha256")],
        "cases": {},
    }
    text = ["# Photographs\n", common.stamp(report["about"]) + f" Colour: {colour.name}.\n"]
    for name, case in chosen.items():
        scores, settled = case()
        scores.say(name)
        report["cases"][name] = {"settings": settled, "methods": scores.to_dict()}
        reference = "BM3D" if "noise" in name else "TV, unknown boundary"
        text += [f"\n## {name}\n", f"{len(scores.psnr['input'])} images.\n", scores.table(reference)]
        common.write(f"photographs{'-quick' if quick else ''}", report, "\n".join(text), out)
    typer.echo("\n".join(text))


if __name__ == "__main__":
    typer.run(main)
