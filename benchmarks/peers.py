"""Learned peers, trained on the same images as a prior: U-Nets for each task, plug-and-play with the one for noise.

    python benchmarks/peers.py train "noise,lines 4x" --seconds 2400 --out runs/peers   # on with --resume
    python benchmarks/peers.py evaluate --out runs/peers       # a table; --quick: 4 images
    python benchmarks/reconstruction.py --peers runs/peers     # the same peers in the main table

Tasks are those of the main table, ``common.TASKS``, but for denoising: one network, ``noise``, gets the level and
serves all three. The others see the Wiener estimate of their task and nothing else. All learn the squared error, in
units of the image's standard deviation, which the peers know and iasolve has to estimate. Plug-and-play is DPIR's
half-quadratic splitting (Zhang et al., IEEE TPAMI 44(10), 2022); its levels are chosen on validation images.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from unet import UNet

import common
from common import TASKS, Group, Task
from iasolve import classical
from iasolve.evidence import Folded
from iasolve.training.config import TrainingConfig, load_config
from iasolve.training.source import ImageSource, open_source

CONFIG = Path(__file__).parents[1] / "iasolve" / "priors" / "weights" / "mri-t1-128.toml"
NOISE = Task("noise", 0.0, "denoise")
LEVELS = (0.005, 1.5)
"""Range of the noise levels that the denoiser learns, log-uniform."""

EMA, RATE, FALL = 0.997, 1.2e-3, 0.7
"""Rate of the average of the weights; learning rate, and the part of the run over which it falls to 0."""

LEARNED = ("U-Net", "plug-and-play")
"""How the names of these methods begin."""

app = typer.Typer(add_completion=False)


def standardised(images: Tensor) -> Tensor:
    """Images divided by their standard deviation, as those of the main table."""
    return images / images.flatten(1).std(1, correction=0).clamp_min(1e-6)[:, None, None, None]


class Peer:
    """A network for one task, from Wiener estimates (or noisy images) to images of unit standard deviation.

    Parameters
    ----------
    task : Task
    power : Tensor
        Power spectrum of the training images, ``(C, N, N)``.
    """

    def __init__(self, task: Task, power: Tensor) -> None:
        self.task, self.power = task, power
        self.network = UNet(len(power)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def estimate(self, folded: Folded) -> Tensor:
        """One pass through the network, on folded measurements ``(B, C, N, N)``."""
        start = classical.wiener(1 / folded.variance, folded.value, self.power)
        left = (self.power * folded.variance / (self.power + folded.variance)).nan_to_num(0.0)
        # unmeasured frequencies have an infinite variance: all of their power is left
        left = torch.where(torch.isinf(folded.variance), self.power.expand_as(left), left)
        return self.network(start, left.mean((-3, -2, -1)).sqrt())  # type: ignore[no-any-return]

    def denoise(self, images: Tensor, level: float | Tensor) -> Tensor:
        """Clean images, from ones with white noise of ``level``."""
        return self.network(images, torch.as_tensor(level).expand(len(images)))  # type: ignore[no-any-return]

    def output(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Estimates of clean ``images`` from new measurements of them."""
        if self.task.kind == "denoise":
            level = torch.from_numpy(np.exp(rng.uniform(*np.log(LEVELS), len(images)))).float()
            noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
            return self.denoise(images + level[:, None, None, None] * noise, level)
        groups = common.measure(self.task, images, int(rng.integers(2**31)))
        return self.estimate(common.folded_measurement(self.task, groups))


class Training:
    """A peer's training: seeded, resumable, ended by a number of seconds or images."""

    def __init__(self, task: Task, config: TrainingConfig, source: ImageSource, folder: Path, seed: int) -> None:
        self.config, self.source, self.folder, self.seed = config, source, folder, seed
        torch.manual_seed(seed)
        draws = np.random.default_rng(seed + 1)
        power = sum(
            torch.fft.fft2(standardised(source.draw(32, draws)), norm="ortho").abs().square().mean(0) for _ in range(16)
        )
        assert isinstance(power, Tensor)
        self.peer = Peer(task, power / 16)
        self.average = copy.deepcopy(self.peer.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.peer.network.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=1e-4, fused=True
        )
        self.rng = np.random.default_rng(seed)
        self.images = self.steps = 0
        self.seconds = 0.0

    @property
    def path(self) -> Path:
        """Weights, and what it takes to go on."""
        return path_of(self.folder, self.peer.task)

    def step(self, done: float, batch: int) -> float:
        """One step; ``done`` is the part of the run behind it."""
        fall = 1.0 if done < 1 - FALL else 0.5 * (1 + math.cos(math.pi * (done - 1 + FALL) / FALL))
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (self.steps + 1) / 200) * fall
        images = standardised(self.source.draw(batch, self.rng))
        half = self.config.optimisation.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = self.peer.output(images, self.rng)
        loss = 0.5 * torch.log((output - images).square().mean((1, 2, 3)) + 1e-6).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.peer.network.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        self.images += batch
        rate = min(EMA, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.peer.network.parameters()), 1 - rate)
        return float(loss.detach())

    def save(self) -> None:
        """Write the state; an interruption leaves the old one."""
        state = {
            "weights": self.average.state_dict(),
            "power": self.peer.power,
            "network": self.peer.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "images": self.images,
            "steps": self.steps,
            "seconds": self.seconds,
            "about": {"config": self.config.name, "seed": self.seed, "commit": common.commit()},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def resume(self) -> None:
        """Go on from :meth:`save`."""
        state = torch.load(self.path, weights_only=True)
        self.average.load_state_dict(state["weights"])
        self.peer.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.images, self.steps, self.seconds = state["images"], state["steps"], state["seconds"]

    def run(self, seconds: float, images: int, batch: int = 16) -> None:
        """Train until so many seconds, or images, have gone by, whichever comes first; 0: no limit."""
        saved, losses = self.seconds, []
        while True:
            done = max(self.seconds / seconds if seconds else 0.0, self.images / images if images else 0.0)
            if done >= 1:
                break
            begun = time.perf_counter()
            losses.append(self.step(done, batch))
            self.seconds += time.perf_counter() - begun
            if self.seconds - saved >= 120:
                saved = self.seconds
                self.note(losses)
        if losses:
            self.note(losses)

    def note(self, losses: list[float]) -> None:
        """A row of the log, and the state."""
        self.save()
        row = {
            "task": self.peer.task.name,
            "images": self.images,
            "seconds": round(self.seconds, 1),
            "rms": round(math.exp(float(np.mean(losses))), 4),
        }
        losses.clear()
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        typer.echo(json.dumps(row))


def path_of(folder: Path, task: Task) -> Path:
    """The weights of one task."""
    return folder / f"{'noise' if task.kind == 'denoise' else task.name.replace(' ', '-')}.pt"


def load_peer(folder: Path, task: Task) -> Peer | None:
    """The peer for a task, if it was trained."""
    if not path_of(folder, task).is_file():
        return None
    state = torch.load(path_of(folder, task), weights_only=True)
    peer = Peer(task, state["power"])
    peer.network.load_state_dict(state["weights"])
    peer.network.requires_grad_(False)
    return peer


# ------------------------------------------------------------------------------------------- what they estimate


def views(method: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean of a method's results over four flips of the image."""
    axes: list[list[int]] = [[], [-1], [-2], [-2, -1]]
    return torch.stack([method(images.flip(a)).flip(a) for a in axes]).mean(0)


def plug_and_play(folded: Folded, denoiser: Peer, levels: np.ndarray, weight: float) -> Tensor:
    """Half-quadratic splitting: data consistency and denoising by turns, at falling noise levels.

    The image that meets the data, ``(Lambda y^ + w / s^2 z) / (Lambda + w / s^2)`` in each frequency, is denoised at
    level ``s``; the result is the last denoised one.
    """
    precision = 1 / folded.variance
    measured = torch.where(precision > 0, precision * folded.value, torch.zeros_like(folded.value))
    z = classical.wiener(precision, folded.value, denoiser.power)
    for level in levels:
        pull = weight / float(level) ** 2
        x = torch.fft.ifft2((measured + pull * torch.fft.fft2(z, norm="ortho")) / (precision + pull), norm="ortho").real
        z = denoiser.denoise(x, float(level))
    return z


def chosen_levels(task: Task, denoiser: Peer, validation: Tensor, steps: int, seed: int) -> tuple[np.ndarray, float]:
    """Noise levels and weight that are best on validation images."""
    folded = common.folded_measurement(task, common.measure(task, validation, seed + 1000))

    def score(setting: tuple[float, float, float]) -> float:
        found = plug_and_play(folded, denoiser, np.geomspace(*setting[:2], steps), setting[2])
        return float(common.psnr(found, validation).mean())

    grid = itertools.product((0.5, 1.0), (task.sigma, 2 * task.sigma, 4 * task.sigma), (0.25, 1.0))
    best = max(grid, key=score)
    return np.geomspace(*best[:2], steps), best[2]


@torch.no_grad()
def learned_estimates(
    folder: Path, task: Task, groups: list[Group], validation: Tensor, seed: int
) -> dict[str, tuple[Tensor, float]]:
    """Images of every peer that was trained, and processor seconds per image."""
    methods: dict[str, Callable[[], Tensor]] = {}
    peer, denoiser = load_peer(folder, task), load_peer(folder, NOISE)
    folded = common.folded_measurement(task, groups)
    if task.kind == "denoise" and denoiser is not None:
        y, known = torch.cat([g.y for g in groups]), denoiser
        methods["U-Net"] = lambda: known.denoise(y, task.sigma)
        methods["U-Net, 4 views"] = lambda: views(lambda v: known.denoise(v, task.sigma), y)
    elif peer is not None:
        methods["U-Net of this task"] = lambda: peer.estimate(folded)
    if task.kind != "denoise" and denoiser is not None:
        for steps in (8, 24):
            levels, weight = chosen_levels(task, denoiser, validation, steps, seed)
            methods[f"plug-and-play, {steps} steps"] = lambda d=denoiser, s=levels, w=weight: plug_and_play(
                folded, d, s, w
            )
    return {name: common.timed(method, len(folded.value)) for name, method in methods.items()}


# ------------------------------------------------------------------------------------------- commands


@app.command()
def train(
    tasks: Annotated[str, typer.Argument(help="Comma-separated: noise, or names of tasks as in the main table")],
    config: Annotated[Path, typer.Option(help="The prior's configuration: images and augmentation")] = CONFIG,
    seconds: Annotated[float, typer.Option(help="Of training, over resumed runs; 0: no limit")] = 0.0,
    images: Annotated[int, typer.Option(help="To see, over resumed runs; 0: no limit")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, images and measurements")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from what the folder holds")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the weights and the log")] = Path("runs/peers"),
) -> None:
    """Train one network after the other."""
    known = {"noise": NOISE} | {t.name: t for t in TASKS if t.kind != "denoise"}
    unknown = sorted(set(tasks.split(",")) - set(known))
    if unknown or (seconds <= 0 and images <= 0):
        raise SystemExit(f"unknown tasks {unknown}; there are {', '.join(known)}. --seconds or --images is needed")
    # numbers too small for their type make convolutions many times slower
    torch.set_flush_denormal(True)
    settings = load_config(config)
    source = open_source(settings.data, settings.augmentation, settings.folder)
    for name in tasks.split(","):
        training = Training(known[name], settings, source, out, seed)
        if resume and training.path.is_file():
            training.resume()
        elif training.path.exists():
            raise SystemExit(f"{training.path} exists: --resume, or another --out")
        training.run(seconds, images)


@app.command()
def evaluate(
    data: Annotated[Path | None, typer.Option(help="mri-t1ce-128.npz; default: in the folder IASOLVE_DATA")] = None,
    count: Annotated[int, typer.Option(help="Test slices")] = 64,
    seed: Annotated[int, typer.Option(help="Of slices, masks and noise")] = 0,
    part: Annotated[str, typer.Option(help="test, or validation while tuning")] = "test",
    quick: Annotated[bool, typer.Option(help="4 slices: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the weights, and of the table")] = Path("runs/peers"),
) -> None:
    """Every peer on the tasks of the main table."""
    images = common.pick(common.slices(data, part), 4 if quick else count, seed)
    validation = common.pick(common.slices(data, "validation"), 4 if quick else 16, seed)
    report: dict[str, Any] = {"commit": common.commit(), "seed": seed, "images": len(images), "part": part, "tasks": {}}
    report["threads"] = torch.get_num_threads()
    report["trained"] = {
        p.stem: {k: s[k] for k in ("images", "seconds", "about")}
        for p in sorted(out.glob("*.pt"))
        for s in (torch.load(p, weights_only=True),)
    }
    rows = []
    for task in TASKS:
        found = learned_estimates(out, task, common.measure(task, images, seed), validation, seed)
        for name, (image, took) in found.items():
            psnr, ssim = common.psnr(image, images), common.ssim(image, images)
            report["tasks"].setdefault(task.name, {})[name] = {"psnr": psnr.tolist(), "seconds": took}
            rows.append([task.name, name, f"{psnr.mean():.2f}", f"{ssim.mean():.3f}", f"{took:.3f}"])
    trained = ", ".join(f"{n}: {t['images']} images, {t['seconds']:.0f} s" for n, t in report["trained"].items())
    text = f"# Learned peers on {len(images)} {part} slices\n\nSeed {seed}; commit {report['commit']}; {trained}.\n\n"
    text += common.table(["task", "method", "PSNR dB", "SSIM", "CPU s / image"], rows)
    common.write(f"peers{'-quick' if quick else ''}", report, text, out)
    typer.echo(text)


if __name__ == "__main__":
    app()
