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
from iasolve.networks import HVAE
from iasolve.priors.checkpoint import load_checkpoint, save_checkpoint
from iasolve.training.augmentation import normalise
from iasolve.training.card import card_of
from iasolve.training.commit import commit_of
from iasolve.training.config import TrainingConfig
from iasolve.training.degradations import DegradationMix
from iasolve.training.objective import Objective
from iasolve.training.progress import Progress
from iasolve.training.snapshot import load_snapshot, save_snapshot
from iasolve.training.source import ImageSource, open_source
from iasolve.training.update import Update
from iasolve.training.validation import validate

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
    """

    def __init__(self, config: TrainingConfig, folder: Path, device: str = "cpu") -> None:
        self.config, self.folder, self.device = config, folder, torch.device(device)
        folder.mkdir(parents=True, exist_ok=True)
        self.source = open_source(config.data, config.augmentation, config.folder, self.device)
        _check_images(self.source, config)
        o = config.optimisation
        torch.manual_seed(o.seed)
        self.network = HVAE(config.network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mix = DegradationMix(config.degradations)
        self.rng = np.random.default_rng(o.seed)
        self.progress = Progress()
        # of the code that runs, not of what the folder holds when the run ends
        self.commit = commit_of(Path(__file__).parent)
        self.objective = Objective(
            self.network,
            amortization_weight=o.amortization_weight,
            guess_weight=o.guess_weight,
            guess_fraction=o.guess_fraction,
        )
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.update = Update(self.objective, self.network, o, self.device, graph=o.graph and self.world <= 1)
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
        """Set power, ring standard deviations and the starting ``sigma_x`` from augmented training images."""
        total = torch.zeros_like(self.network.power, dtype=torch.float64)
        rng = np.random.default_rng(self.config.optimisation.seed + 1)
        size = self.config.network.size
        count = 0
        for _ in range(batches):
            images = self._draw(rng, 32)
            total += torch.fft.fft2(images, norm="ortho").abs().square().double().sum(0).to(total.device)
            count += len(images)
        power = total / count
        # flips and k -> -k leave the ensemble unchanged: average over them
        for axis in (-2, -1):
            power = (power + torch.roll(power.flip(axis), 1, dims=axis)) / 2
        spectrum = self.network.spectrum
        ring = spectrum.ring_means(spectrum.half(power))
        for net in (self.network, self.average):
            net.power.copy_(power)
            net.ring_std.copy_(ring.sqrt())
            net.sigma_x.copy_(ring.sqrt())
        assert power.shape[-1] == size

    def initialise(self, path: Path) -> None:
        """Start from an exported prior; of another architecture, from the weights that have a place in this one.

        Power and starting noise levels are those of this configuration's images; the whitening of the heads stays what
        their weights were trained with.

        Raises
        ------
        ValueError
            When the other one is for images of another kind.
        """
        network, card = load_checkpoint(path)
        for key in ("size", "channels", "is_complex", "decoder", "head_domain"):
            theirs, ours = getattr(network.config, key), getattr(self.config.network, key)
            if theirs != ours:
                raise ValueError(f"{path} cannot start this network: its {key} is {theirs}, the configuration's {ours}")
        self.measure_statistics()
        own = self.network.state_dict()
        taken = {
            name: value
            for name, value in network.state_dict().items()
            if name != "power" and name in own and own[name].shape == value.shape
        }
        self.progress.fresh = len(own) - len(taken) - 1
        for net in (self.network, self.average):
            net.load_state_dict(self.network.state_dict() | taken)
        seen = card.get("training", {})
        self.progress.images, self.progress.seconds = (
            int(seen.get("images", 0)),
            float(seen.get("seconds", 0.0)),
        )
        self.progress.started_from = str(card["sha256"])
        self.rng = np.random.default_rng([self.config.optimisation.seed, self.progress.images])
        torch.manual_seed(self.config.optimisation.seed + self.progress.images)

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
        o = self.config.optimisation
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
        return self.folder / f"{self.config.name}.safetensors"

    def export(self) -> Path:
        """Write the averaged weights as a prior with its card."""
        path = self.folder / f"{self.config.name}.safetensors"
        card = card_of(self.average, self.config, self.source, self.progress, self.validate(), self.commit)
        save_checkpoint(self.average, card, path)
        return path

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on the validation images."""
        return validate(self.average, normalise(self.source.validation).to(self.device))

    def _networks(self) -> dict[str, nn.Module]:
        return {"network": self.network, "average": self.average}

    def _draw(self, rng: np.random.Generator, count: int) -> Tensor:
        return self.source.draw(count, rng)

    def _step(self, done: float) -> None:
        o = self.config.optimisation
        images = self._draw(self.rng, o.batch)
        count = round(o.batch * o.degraded)
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
        rate = min(self.config.optimisation.ema, (1 + step) / (10 + step))
        ours, theirs = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - rate)
        self.average.sigma_x.copy_(self.network.sigma_x)

    def _record(self, report: Callable[[dict[str, Any]], None]) -> None:
        means = self.update.means()
        if self.rank != 0:
            return
        validation = self.validate()
        self._undo_burst(means["elbo"], validation["elbo"])
        row: dict[str, Any] = {"images": self.progress.images, "seconds": round(self.progress.seconds, 1)}
        row |= {k: round(v, 5) for k, v in means.items()}
        row |= {f"val_{k}": round(v, 5) for k, v in validation.items()}
        row["sigma_x"] = [round(float(v), 5) for v in self.network.sigma_x.flatten()]
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
        self.rng = np.random.default_rng([self.config.optimisation.seed, self.rank, self.progress.images])
        torch.manual_seed(self.config.optimisation.seed + 1000 * self.rank + self.progress.images)
        self.update.module = nn.parallel.DistributedDataParallel(self.objective)


_BURST = 0.2
"""Nats per dimension that an ELBO may lie below the best one; between validations it wanders by a quarter of that."""


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
    report : callable
        Called with each row of the log.
    """
    trainer = Trainer(config, folder, device)
    if resume:
        trainer.resume()
    else:
        if init is not None:
            trainer.initialise(init)
        else:
            trainer.measure_statistics()
        trainer.start_over()
    return trainer.run(minutes, report)
