"""The training loop: steps, validations between them, and the export of the average."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iasolve.evidence import Folded
from iasolve.training.augmentation import normalise
from iasolve.training.commit import commit_of
from iasolve.training.config import TrainingConfig
from iasolve.training.degradations import DegradationMix
from iasolve.training.parts import Part, part_of
from iasolve.training.progress import Progress
from iasolve.training.snapshot import load_snapshot, save_snapshot
from iasolve.training.source import ImageSource, open_source
from iasolve.training.update import Update

__all__ = ["Trainer", "train"]


class Trainer:
    """State of one training run.

    Parameters
    ----------
    config : TrainingConfig
        What to train.
    folder : Path
        Checkpoint, log and exported prior go here.
    device : str
        ``"cpu"`` or ``"cuda"``.
    part : {"hierarchy", "reader"}
        Which part of the prior.
    """

    def __init__(self, config: TrainingConfig, folder: Path, device: str = "cpu", part: str = "hierarchy") -> None:
        self.config, self.folder, self.device = config, folder, torch.device(device)
        folder.mkdir(parents=True, exist_ok=True)
        self.source = open_source(config.data, config.augmentation, config.folder, self.device)
        _check_images(self.source, config)
        self.part: Part = part_of(config, part)
        self.settings = o = self.part.optimisation
        torch.manual_seed(o.seed)
        self.network = self.part.build().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mix = DegradationMix(config.degradations)
        self.rng = np.random.default_rng(o.seed)
        self.progress = Progress()
        # of the code that runs, not of what the folder holds when the run ends
        self.commit = commit_of(Path(__file__).parent)
        self.objective = self.part.objective(self.network)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.update = Update(
            self.objective,
            self.network,
            o,
            self.device,
            logged=self.part.logged,
            graph=o.graph and self.world <= 1,
        )
        self._kept: list[Tensor] = []
        self._best = (-math.inf, -math.inf)

    @property
    def checkpoint(self) -> Path:
        """The resumable state."""
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        """A row of figures, in JSON, for each validation."""
        return self.folder / "log.jsonl"

    def measure_statistics(self, batches: int = 64) -> None:
        """Set the images' power, and what follows from it, from augmented training images."""
        n = self.config.network
        total = torch.zeros(n.channels, n.size, n.size, dtype=torch.float64, device=self.device)
        rng = np.random.default_rng(self.settings.seed + 1)
        count = 0
        for _ in range(batches):
            images = self._draw(rng, 32)
            total += torch.fft.fft2(images, norm="ortho").abs().square().double().sum(0).to(total.device)
            count += len(images)
        power = total / count
        # flips and k -> -k leave the ensemble unchanged: average over them
        for axis in (-2, -1):
            power = (power + torch.roll(power.flip(axis), 1, dims=axis)) / 2
        for net in (self.network, self.average):
            self.part.measure(net, power.float())

    def initialise(self, path: Path) -> None:
        """Start from exported weights; of another architecture, from those that have a place in this one.

        Raises
        ------
        ValueError
            When the other one is for images of another kind.
        """
        self.measure_statistics()
        own = self.network.state_dict()
        taken, card = self.part.start(path, own)
        self.progress.fresh = len(set(own) - set(taken) - {"power"})
        for net in (self.network, self.average):
            net.load_state_dict(self.network.state_dict() | taken)
        seen = card.get("training", {})
        self.progress.images, self.progress.seconds = (
            int(seen.get("images", 0)),
            float(seen.get("seconds", 0.0)),
        )
        self.progress.started_from = str(card["sha256"])
        self.rng = np.random.default_rng([self.settings.seed, self.progress.images])
        torch.manual_seed(self.settings.seed + self.progress.images)

    def start_over(self) -> None:
        """Remove another run's state and log: they would be taken for this one's."""
        for path in (self.checkpoint, self.log):
            path.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the resumable state (weights, average, optimizer, random states), atomically."""
        self._count()
        save_snapshot(self.checkpoint, self._networks(), self.update.optimizer, self.progress, self.rng, self.device)

    def resume(self) -> None:
        """Continue from :meth:`save`.

        Raises
        ------
        FileNotFoundError
            When there is no checkpoint in the folder.
        ValueError
            When it is damaged, or of another network.
        """
        self.progress = load_snapshot(self.checkpoint, self._networks(), self.update.optimizer, self.rng, self.device)
        self.update.steps.fill_(self.progress.steps)
        self.update.skipped.fill_(self.progress.skipped)
        self.update.usual.fill_(self.progress.norm)

    def run(self, minutes: float | None = None, report: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
        """Train until the configured number of images or ``minutes`` have passed; export and return the prior's path.

        The learning rate is constant and falls over the last part of the run, so a run whose length is set by
        the clock ends as well trained as one whose length is set by the count.
        """
        o = self.settings
        # subnormal numbers take a processor a hundred times as long
        torch.set_flush_denormal(True)
        self._distribute()
        first, begun = self.progress, time.monotonic()
        start_images, start_seconds = first.images, first.seconds
        budget = None if minutes is None else 60 * minutes
        next_validation = (self.progress.images // o.validate_every + 1) * o.validate_every
        stepped = False
        while True:
            elapsed = time.monotonic() - begun
            done = (self.progress.images - start_images) / max(1, o.images - start_images)
            if budget is not None:
                done = max(done, elapsed / budget if budget > 0 else 1.0)
            done = self._agree(done)
            if done >= 1:
                break
            self._step(done)
            stepped = True
            self.progress.seconds = start_seconds + time.monotonic() - begun
            if self.progress.images >= next_validation:
                next_validation += o.validate_every
                self._record(report)
                stepped = False
        if stepped:
            self._record(report)
        if self.rank == 0:
            return self.export()
        return self.folder

    def export(self) -> Path:
        """Write the averaged weights with their card."""
        return self.part.export(self.average, self.source, self.progress, self.commit, self.folder)

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on the validation images."""
        return self.part.validate(self.average, normalise(self.source.validation).to(self.device))

    def _networks(self) -> dict[str, nn.Module]:
        return {"network": self.network, "average": self.average}

    def _draw(self, rng: np.random.Generator, count: int) -> Tensor:
        return self.source.draw(count, rng)

    def _step(self, done: float) -> None:
        o = self.settings
        images = self.part.prepare(self._draw(self.rng, o.batch), self.rng)
        count = round(len(images) * o.degraded)
        folded: Folded | None = self.mix(images[:count], self.rng) if count else None
        rate = o.learning_rate * min(1.0, (self.progress.steps + 1) / o.warmup) * 0.5**self.progress.taken_back
        if done > 1 - o.decay:
            rate *= max(0.05, (1 - done) / o.decay)
        kl_weight = min(1.0, 0.01 + 0.99 * self.progress.images / max(1, o.kl_warmup))
        self.update(images, folded, kl_weight=kl_weight, rate=rate)
        self.progress.steps += 1
        self.progress.images += o.batch * self.world
        self._average()

    def _count(self) -> None:
        """Bring what the update counts on its device into the progress."""
        self.progress.skipped, self.progress.norm = int(self.update.skipped), float(self.update.usual)

    def _state(self) -> list[Tensor]:
        moments = [t for state in self.update.optimizer.state.values() for t in state.values()]
        return [*self.network.state_dict().values(), *self.average.state_dict().values(), *moments]

    @torch.no_grad()
    def _undo_burst(self, training: float, validation: float) -> None:
        """Go back to the last good window when this one ended in a burst, and on at half the rate.

        A burst is an ELBO far below the best so far: the mean of the training images, or, when it has only begun, that
        of the validation images. Clipping and refused steps do not prevent it: a vanilla network trained at a constant
        rate was lost that way.
        """
        now = (training, validation)
        if all(value > best - _BURST for value, best in zip(now, self._best, strict=True)):
            self._best = (max(self._best[0], training), max(self._best[1], validation))
            self._kept = [t.clone() for t in self._state()]
        elif self._kept and self.world <= 1:
            for current, good in zip(self._state(), self._kept, strict=True):
                current.copy_(good)
            self.progress.taken_back += 1

    @torch.no_grad()
    def _average(self) -> None:
        step = self.progress.steps
        rate = min(self.settings.ema, (1 + step) / (10 + step))
        ours, theirs = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - rate)
        for ours_, theirs_ in zip(self.average.buffers(), self.network.buffers(), strict=True):
            ours_.copy_(theirs_)

    def _record(self, report: Callable[[dict[str, Any]], None]) -> None:
        means = self.update.means()
        if self.rank != 0:
            return
        validation = self.validate()
        self._undo_burst(self.part.score(means), self.part.score(validation))
        row: dict[str, Any] = {"images": self.progress.images, "seconds": round(self.progress.seconds, 1)}
        row |= {k: round(v, 5) for k, v in means.items()}
        row |= {f"val_{k}": round(v, 5) for k, v in validation.items()}
        row |= self.part.described(self.network)
        self._count()
        row |= {"skipped": self.progress.skipped, "taken_back": self.progress.taken_back}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        self.save()
        report(row)

    def _agree(self, done: float) -> float:
        """The first process's clock counts: processes that stop at different steps would wait for ever."""
        if self.world <= 1:
            return done
        shared = torch.tensor([done], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    def _distribute(self) -> None:
        """Wrap the objective for ``torchrun``; each process draws its own images."""
        if self.world <= 1 or self.update.module is not self.objective:
            return
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend)
        if self.device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        self.rng = np.random.default_rng([self.settings.seed, self.rank, self.progress.images])
        torch.manual_seed(self.settings.seed + 1000 * self.rank + self.progress.images)
        self.update.module = nn.parallel.DistributedDataParallel(self.objective)


_BURST = 0.2
"""Nats per dimension that a score may lie below the best one; an ELBO wanders by a quarter of that."""


def _check_images(source: ImageSource, config: TrainingConfig) -> None:
    n = config.network
    if source.shape != (n.channels, n.size, n.size):
        raise ValueError(
            f"the training images are {source.shape} (C, H, W), the network is for "
            f"{(n.channels, n.size, n.size)}: change [network] size and channels, or the data"
        )
    if source.is_complex != n.is_complex:
        raise ValueError(
            f"the training images are {'complex' if source.is_complex else 'real'}, the network is for "
            f"{'complex' if n.is_complex else 'real'} ones: change [network] is_complex, or [data] phase"
        )


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    minutes: float | None = None,
    device: str = "cpu",
    part: str = "hierarchy",
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Train a prior and return the path of its weights.

    Parameters
    ----------
    config : TrainingConfig
        What to train.
    folder : Path
        Where checkpoint, log and prior go.
    resume : bool
        Continue from the folder's checkpoint.
    init : Path, optional
        Start from the exported weights of a prior (a fresh optimizer, images counted on).
    minutes : float, optional
        Stop after so long, learning-rate decay included; 0 exports what there is.
    device : str
        ``"cpu"`` or ``"cuda"``.
    part : {"hierarchy", "reader"}
        Which part of the prior; its files carry the part's name where that is not the hierarchy.
    report : callable
        Called with each row of the log.
    """
    trainer = Trainer(config, folder, device, part)
    if resume:
        trainer.resume()
    else:
        if init is not None:
            trainer.initialise(init)
        else:
            trainer.measure_statistics()
        trainer.start_over()
    return trainer.run(minutes, report)
