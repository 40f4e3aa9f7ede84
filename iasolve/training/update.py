"""One training step: losses, gradients, clipping, the guard against spikes, AdamW; on a GPU, as one CUDA graph."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from iasolve.evidence import Folded
from iasolve.training.config import OptimisationConfig

__all__ = ["Update"]

_SPIKE = 20.0
"""A gradient norm that many times the usual one is not followed."""

_YOUNG = 50
"""Steps until a usual norm is known."""


class Update:
    """Takes optimisation steps. What it keeps lives on the device: no step waits for the processor.

    A step is some thousand small kernels. On a GPU, starting them one by one takes longer than they run, so the step
    is recorded once as a CUDA graph (all shapes stay the same) and replayed.

    Parameters
    ----------
    module : nn.Module
        ``(images, degraded, kl_weight)`` to a record of losses, of which ``total`` is minimised.
    logged : tuple of str
        Names of the losses that :meth:`means` gives.
    network : nn.Module
        Whose parameters are moved.
    settings : OptimisationConfig
        Rates, clipping and precision.
    device : torch.device
        Where the network lives.
    graph : bool
        Record a CUDA graph; must be off where the module talks to other processes.
    """

    EAGER = 3
    """Steps before a graph is captured: libraries set themselves up, and the optimizer makes its state."""

    def __init__(
        self,
        module: nn.Module,
        network: nn.Module,
        settings: OptimisationConfig,
        device: torch.device,
        *,
        logged: tuple[str, ...],
        graph: bool,
    ) -> None:
        self.module, self.settings, self.device, self.logged = module, settings, device, logged
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=torch.tensor(settings.learning_rate, device=device),
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=True,
            capturable=device.type == "cuda",
        )
        self.steps, self.skipped, self.usual, self.kl_weight = (torch.zeros((), device=device) for _ in range(4))
        self.sums = torch.zeros(len(logged) + 1, device=device)
        self._count = self._eager = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graphed = graph and device.type == "cuda"
        self._images: Tensor | None = None
        self._degraded: Folded | None = None

    def __call__(self, images: Tensor, degraded: Folded | None, *, kl_weight: float, rate: float) -> None:
        """One step on a batch; its values are kept for :meth:`means`."""
        self.kl_weight.fill_(kl_weight)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(rate)
        self._count += 1
        if not self._graphed:
            self._step(images, degraded)
            return
        if self._graph is None and self._eager < self.EAGER:
            self._eager += 1
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                self._step(images, degraded)
            torch.cuda.current_stream(self.device).wait_stream(stream)
            return
        if self._graph is None:
            self._images = images.clone()
            self._degraded = None if degraded is None else Folded(*(t.clone() for t in degraded))
            self.optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step(self._images, self._degraded)
            self._graph = graph
        assert self._images is not None
        self._images.copy_(images)
        if degraded is not None and self._degraded is not None:
            for fixed, new in zip(self._degraded, degraded, strict=True):
                fixed.copy_(new)
        self._graph.replay()

    def _step(self, images: Tensor, degraded: Folded | None) -> None:
        amp = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if amp else nullcontext():
            losses = self.module(images, degraded, self.kl_weight)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        # A spike's direction is noise, and clipping keeps it in Adam's memory for a hundred steps. The yardstick
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
            self.sums += torch.stack([*(getattr(losses, k).detach().float() for k in self.logged), norm])

    def means(self) -> dict[str, float]:
        """Mean losses and gradient norm of the steps since the last call."""
        values = (self.sums / max(1, self._count)).tolist()
        self.sums.zero_()
        self._count = 0
        return dict(zip((*self.logged, "norm"), values, strict=True))
