"""The training loop: steps, validations between them, and the export of the average."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from iasolve.files.atomic import sweep_leftovers, write_together
from iasolve.training.augmentation import normalise
from iasolve.training.burst import DivergedError, judge, rate_factor
from iasolve.training.commit import commit_of
from iasolve.training.config import EMULATED, TrainingConfig
from iasolve.training.degradations import DegradationMix
from iasolve.training.log import Row, append_row, begin_log, cut_log
from iasolve.training.parts import Part, part_of
from iasolve.training.processes import Processes
from iasolve.training.progress import Progress
from iasolve.training.snapshot import RunState, load_snapshot, save_snapshot
from iasolve.training.source import open_source, require_fit
from iasolve.training.speed import Speed
from iasolve.training.status import Callback, Status
from iasolve.training.streams import Rng, Streams, normal, subset
from iasolve.training.update import Batch, Update

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
        self.processes = Processes(torch.device(device))
        self.rank, self.world = self.processes.rank, self.processes.world
        self.config, self.folder, self.device = config, folder, self.processes.device
        folder.mkdir(parents=True, exist_ok=True)
        self.source = open_source(config.data, config.augmentation, config.folder, self.device)
        require_fit(self.source, config.network)
        self.part: Part = part_of(config, part)
        self.part_name = part
        self.settings = o = self.part.optimisation
        torch.manual_seed(o.seed)
        self.network = self.part.build().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mix = DegradationMix(config.degradations, o.seed)
        self.progress = Progress()
        # of the code that runs, not of what the folder holds when the run ends
        self.commit = commit_of(Path(__file__).parent)
        self.objective = self.part.objective(self.network)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.update = Update(self.objective, self.network, o, self.processes, logged=self.part.logged)
        self._kept: list[Tensor] = []
        self._first = True  # what is written next takes the place of another run in the folder
        self._speed = Speed()
        self._notes = [EMULATED] if config.emulated(part, self.device.type) else []

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

    def save(self) -> None:
        """Write the resumable state (weights, average, optimizer, progress), atomically."""
        self._count()
        save_snapshot(self.checkpoint, self._run_state())

    def resume(self) -> None:
        """Continue from :meth:`save`; rows that the log has beyond it are removed.

        Raises
        ------
        FileNotFoundError
            When there is no checkpoint in the folder.
        ValueError
            When it is damaged, or of another network, configuration or number of images.
        """
        load_snapshot(self.checkpoint, self._run_state())
        self._first, p = False, self.progress
        self.update.steps.fill_(p.steps)
        self.update.skipped.fill_(p.skipped)
        self.update.usual.fill_(p.norm)
        # a checkpoint follows every verdict on a window, so its state is the last good window's
        self._kept = [] if p.best_training is None else [t.clone() for t in self._state()]
        if self.rank == 0:
            sweep_leftovers([self.folder])
            cut_log(self.log, p.images)

    def run(self, minutes: float | None = None, callback: Callback = lambda _: None) -> Path:
        """Train until the configured number of images or ``minutes`` have passed; export and return the prior's path.

        The learning rate is constant and falls over the last part of the run, so a run whose length is set by
        the clock ends as well trained as one whose length is set by the count. Both lengths are the whole run's, its
        resumed parts included; ``minutes`` None leaves what the run began with.
        """
        o, p = self.settings, self.progress
        self._distribute()
        if p.first_image is None:
            p.first_image, p.first_second = p.images, p.seconds
        if minutes is not None:
            p.budget = 60 * minutes
        start_seconds, begun = p.seconds, time.monotonic()
        next_validation = (p.images // o.validate_every + 1) * o.validate_every
        window, window_images = begun, p.images
        while True:
            done = self.processes.agree(p.part(o.images, start_seconds + time.monotonic() - begun))
            over = done >= 1
            if p.images > window_images and (over or p.images >= next_validation):
                self._record(time.monotonic() - window, p.images - window_images, callback)
                next_validation += o.validate_every
                window, window_images = time.monotonic(), p.images
                # validation took time, too
                continue
            if over:
                break
            self._step(done)
            p.seconds = start_seconds + time.monotonic() - begun
            callback(Status("step", p.images, p.steps, {}, p.seconds))
        if self.rank == 0:
            if self._first:  # nothing was trained: another run's state and log would be taken for this one's
                for path in (self.checkpoint, self.log):
                    path.unlink(missing_ok=True)
            return self.export()
        return self.folder

    def export(self) -> Path:
        """Write the averaged weights with their card.

        Raises
        ------
        DivergedError
            When they are not finite.
        """
        bad = [name for name, values in self.average.state_dict().items() if not bool(torch.isfinite(values).all())]
        if bad:
            raise DivergedError(
                f"the weights hold NaN or infinite values ({len(bad)} tensors, such as {bad[0]}): nothing is exported. "
                "Start over with a lower optimisation.learning_rate"
            )
        return self.part.export(self.average, self.source, self.progress, self.commit, self.folder)

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on the validation images."""
        return self.part.validate(self.average, normalise(self.source.validation).to(self.device))

    def _run_state(self) -> RunState:
        networks: dict[str, nn.Module] = {"network": self.network, "average": self.average}
        settings = self.config.to_dict(self.part_name) | {
            "processes": self.world,
            "images": {"training": self.source.count, "validation": len(self.source.validation)},
        }
        return RunState(networks, self.update.optimizer, self.progress, settings)

    def _draw(self, rng: Rng, count: int) -> Tensor:
        return self.source.draw(count, rng)

    def _batches(self) -> Iterator[Batch]:
        """Own batches of the next step, one after the other: memory holds one of them."""
        o, latents = self.settings, self.objective.latents
        for number in range(o.accumulate):
            part, parts = self.rank * o.accumulate + number, self.world * o.accumulate
            own = Streams.of_part(o.seed, self.progress.images, o.batch, part, parts)
            images, rng = self.part.prepare(self._draw(own, o.batch), own)
            count = round(len(images) * o.degraded)
            folded = self.mix(images[:count], subset(rng, range(count))) if count else None
            yield Batch(images, folded, normal(rng, (len(images), latents), self.device))

    def _step(self, done: float) -> None:
        o = self.settings
        rate = o.learning_rate * min(1.0, (self.progress.steps + 1) / max(1, o.warmup)) * rate_factor(self.progress)
        if done > 1 - o.decay:
            rate *= max(0.05, (1 - done) / o.decay)
        kl_weight = min(1.0, 0.01 + 0.99 * self.progress.images / max(1, o.kl_warmup))
        self.update(self._batches(), kl_weight=kl_weight, rate=rate)
        self.progress.steps += 1
        self.progress.images += o.batch * o.accumulate * self.world
        self._average()

    def _count(self) -> None:
        """Bring what the update counts on its device into the progress."""
        self.progress.skipped, self.progress.norm = int(self.update.skipped), float(self.update.usual)

    def _state(self) -> list[Tensor]:
        moments = [t for state in self.update.optimizer.state.values() for t in state.values()]
        return [*self.network.state_dict().values(), *self.average.state_dict().values(), *moments]

    @torch.no_grad()
    def _undo_burst(self, training: float, validation: float) -> str:
        """Go back to the last good window when this one ended in a burst; what to say of it.

        All processes do so: they have the same state, and are given the same scores.
        """
        keep, note = judge(self.progress, training, validation)
        if keep:
            self._kept = [t.clone() for t in self._state()]
        else:
            for current, good in zip(self._state(), self._kept, strict=True):
                current.copy_(good)
        return note

    @torch.no_grad()
    def _average(self) -> None:
        step = self.progress.steps
        rate = min(self.settings.ema, (1 + step) / (10 + step))
        ours, theirs = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - rate)
        for ours_, theirs_ in zip(self.average.buffers(), self.network.buffers(), strict=True):
            ours_.copy_(theirs_)

    def _record(self, seconds: float, images: int, callback: Callback) -> None:
        """End a window of so many images: validate, write row and checkpoint."""
        means = self.update.means()
        validation = self.validate() if self.rank == 0 else {}
        score = self.part.score(validation) if self.rank == 0 else 0.0
        burst = self._undo_burst(self.processes.agree(self.part.score(means)), self.processes.agree(score))
        if self.rank != 0:
            return
        rate, slow = self._speed.window(images, seconds)
        notes = [burst, slow, *self._notes]
        self._notes.clear()
        row: Row = {
            "images": self.progress.images,
            "seconds": round(self.progress.seconds, 1),
            "images_per_second": round(rate, 2),
        }
        row |= {k: round(v, 5) for k, v in means.items()}
        row |= {f"val_{k}": round(v, 5) for k, v in validation.items()}
        row |= self.part.described(self.network)
        self._count()
        row |= {"skipped": self.progress.skipped, "taken_back": self.progress.taken_back}
        if any(notes):
            row["note"] = "; ".join(filter(None, notes))
        with write_together():
            (begin_log if self._first else append_row)(self.log, row)
            self.save()
        self._first = False
        p = self.progress
        callback(Status("validation", p.images, p.steps, row, p.seconds))

    def _distribute(self) -> None:
        """Wrap the objective for ``torchrun``."""
        if self.world > 1 and self.update.module is self.objective:
            self.update.module = self.processes.join(self.objective)


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    init: Path | None = None,
    minutes: float | None = None,
    device: str = "cpu",
    part: str = "hierarchy",
    callback: Callback = lambda _: None,
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
        Length of the whole run, resumed parts and learning-rate decay included; 0 exports what there is. Without it a
        resumed run keeps the length that it began with.
    device : str
        ``"cpu"`` or ``"cuda"``.
    part : {"hierarchy", "reader"}
        Which part of the prior; its files carry the part's name where that is not the hierarchy.
    callback : callable
        Called with a :class:`~iasolve.training.status.Status` after every step and validation.
    """
    trainer = Trainer(config, folder, device, part)
    if resume:
        trainer.resume()
    elif init is not None:
        trainer.initialise(init)
    else:
        trainer.measure_statistics()
    # Subnormal numbers take a processor a hundred times as long. The setting is the process's: others, who count on
    # gradual underflow, get it back.
    torch.set_flush_denormal(True)
    try:
        return trainer.run(minutes, callback)
    finally:
        torch.set_flush_denormal(False)
