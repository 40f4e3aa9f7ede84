"""One optimiser step: losses, gradients, clipping, the guard against spikes, optimizer; on a GPU, as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iasolve.evidence import Folded
from iasolve.training.config import OptimisationConfig
from iasolve.training.objective import Objective
from iasolve.training.optimizer import optimizer_for
from iasolve.training.processes import Processes
from iasolve.training.reading import ReaderObjective

__all__ = ["Batch", "Update"]

_SPIKE = 20.0
"""A gradient norm that many times the usual one is not followed."""

_YOUNG = 50
"""Steps until a usual norm is known."""


class Batch(NamedTuple):
    """What one process reads at once: images, degraded versions of the first ones, and noise to draw latents with."""

    images: Tensor
    degraded: Folded | None
    noise: Tensor


class Update:
    """Takes optimiser steps. What it keeps lives on the device: no step waits for the processor.

    A step is some thousand small kernels. On a GPU, starting them one by one takes longer than they run, so the step
    is recorded once as a CUDA graph (all shapes stay the same) and replayed.

    A step reads the batches of all processes, one or several of each. It is that of one batch with all their images,
    to rounding: gradients and losses are means, and clipping, refusals, the optimizer and the objective's own
    statistics see nothing but those means.

    Parameters
    ----------
    objective : nn.Module
        ``(images, degraded, kl_weight, noise)`` to a record of losses, of which ``total`` is minimised.
    logged : tuple of str
        Names of the losses that :meth:`means` gives.
    network : nn.Module
        Whose parameters are moved.
    settings : OptimisationConfig
        Rates, clipping and precision.
    device : torch.device
        Where the network lives.
    processes : Processes
        Those that take the step together.
    """

    EAGER = 3
    """Steps before a graph is captured: libraries set themselves up, and the optimizer makes its state."""

    def __init__(
        self,
        objective: Objective | ReaderObjective,
        network: nn.Module,
        settings: OptimisationConfig,
        processes: Processes,
        *,
        logged: tuple[str, ...],
    ) -> None:
        device = processes.device
        self.objective, self.settings, self.device, self.logged = objective, settings, device, logged
        self.processes = processes
        self.module: nn.Module = objective
        """The objective, or what shares its gradients among the processes."""
        self.parameters = list(network.parameters())
        self.optimizer = optimizer_for(
            network, settings.optimizer, settings.learning_rate, settings.weight_decay, device
        )
        self.steps, self.skipped, self.usual, self.kl_weight = (torch.zeros((), device=device) for _ in range(4))
        self.sums = torch.zeros(len(logged) + 1, device=device)
        self._count = self._eager = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        # a graph holds one batch, and talks to nobody
        alone = processes.world <= 1 and settings.accumulate == 1
        self._graphed = settings.graph and alone and device.type == "cuda"
        self._fixed: Batch | None = None

    def __call__(self, batches: Iterable[Batch], *, kl_weight: float, rate: float) -> None:
        """One step on ``accumulate`` batches, which are made as they are needed; its values are for :meth:`means`."""
        self.kl_weight.fill_(kl_weight)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(rate)
        self._count += 1
        if not self._graphed:
            self._step(batches)
            return
        (batch,) = batches
        if self._graph is None and self._eager < self.EAGER:
            self._eager += 1
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                self._step([batch])
            torch.cuda.current_stream(self.device).wait_stream(stream)
            return
        if self._graph is None:
            folded = None if batch.degraded is None else Folded(*(t.clone() for t in batch.degraded))
            self._fixed = Batch(batch.images.clone(), folded, batch.noise.clone())
            self.optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step([self._fixed])
            self._graph = graph
        assert self._fixed is not None
        for fixed, new in zip(_tensors(self._fixed), _tensors(batch), strict=True):
            fixed.copy_(new)
        self._graph.replay()

    def _gradients(self, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Leave the mean gradient of all batches of all processes in the parameters; their mean losses."""
        count, amp = self.settings.accumulate, self.settings.halves(self.device.type)
        self.optimizer.zero_grad(set_to_none=True)
        names: tuple[str, ...] = ()
        seen: list[Tensor] = []
        shapes: list[torch.Size] = []
        for number, batch in enumerate(batches, start=1):
            # gradients are shared once, with the last batch's
            with nullcontext() if number == count else self._by_itself():
                with torch.autocast(self.device.type, torch.bfloat16) if amp else nullcontext():
                    losses = self.module(batch.images, batch.degraded, self.kl_weight, batch.noise)
                (losses.total / count).backward()
            names, shapes = losses._fields, [value.shape for value in losses]
            seen.append(torch.cat([value.detach().reshape(-1) for value in losses]))
        if len(seen) != count:
            raise ValueError(f"a step of {count} batches was given {len(seen)}")
        mean = self.processes.mean(torch.stack(seen).mean(0))
        parts = mean.split([shape.numel() for shape in shapes])
        return {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

    def _by_itself(self) -> AbstractContextManager[None]:
        share: Callable[[], AbstractContextManager[None]] = getattr(self.module, "no_sync", nullcontext)
        return share()

    def _step(self, batches: Iterable[Batch]) -> None:
        losses = self._gradients(batches)
        self.objective.follow(losses)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip).float()
        # A spike's direction is noise, and clipping keeps it in the mean gradient for a hundred steps. The yardstick
        # follows the norms seen, so that a lasting change of size cannot lock training up.
        with torch.no_grad():
            limit = _SPIKE * self.usual
            finite = torch.isfinite(norm)
            refused = ~(finite & ((self.steps < _YOUNG) | (norm < limit)))
            # how a gradient scaler tells the fused AdamW to leave a step out, without a word from the processor
            self.optimizer.grad_scale, self.optimizer.found_inf = None, refused.float()  # type: ignore[attr-defined]
            self.optimizer.step()
            self.skipped += refused
            self.steps += 1
            followed = torch.where(self.usual == 0, norm, torch.lerp(self.usual, torch.minimum(norm, limit), 0.02))
            self.usual.copy_(torch.where(finite, followed, self.usual))
            self.sums += torch.stack([*(losses[k].float() for k in self.logged), norm])

    def means(self) -> dict[str, float]:
        """Mean losses and gradient norm of the steps since the last call, over the images of all processes."""
        values = (self.sums / max(1, self._count)).tolist()
        self.sums.zero_()
        self._count = 0
        return dict(zip((*self.logged, "norm"), values, strict=True))


def _tensors(batch: Batch) -> list[Tensor]:
    return [batch.images, *(batch.degraded or ()), batch.noise]
