"""The optimizers of trainings: AdamW, and Muon for the kernels of convolutions.

Muon moves a matrix of weights by its averaged gradient with all singular values brought near 1, so that directions in
which the gradient is small move as fast as those in which it is large (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). Its steps are scaled to the root mean square of AdamW's, and one learning
rate serves both (Liu et al. 2025, arXiv:2502.16982).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iasolve.networks.precision import multiplies_bfloat16

__all__ = ["Muon", "optimizer_for"]

_MOMENTUM = 0.95

_NARROW = 8
"""Kernels from or to fewer channels are left to AdamW, as first and last layers are in Muon's source."""

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the odd polynomial whose repetition drives singular values towards 1 (Jordan et al. 2024)."""

_REPETITIONS = 5

_ADAM_RMS = 0.2
"""Root mean square of an update, in units of the learning rate (Liu et al. 2025, section 2.2)."""


class Muon(torch.optim.AdamW):
    """Muon for the kernels of convolutions between many channels, fused AdamW for all else.

    A step is left out, as the fused AdamW's, where ``found_inf`` is 1. It uses the kernels' gradients up.

    Parameters
    ----------
    network : nn.Module
    learning_rate : Tensor
        0-d, on the network's device.
    weight_decay : float
    """

    def __init__(self, network: nn.Module, learning_rate: Tensor, weight_decay: float) -> None:
        parameters = list(network.parameters())
        kernels = [p for p in parameters if p.ndim == 4 and min(p.shape[:2]) >= _NARROW]
        known = {id(p) for p in kernels}
        rest = [p for p in parameters if id(p) not in known]
        super().__init__([{"params": rest}, {"params": kernels}], **_adamw(learning_rate, weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move all parameters; a ``closure`` is not called."""
        group = self.param_groups[1]
        refused = getattr(self, "found_inf", None)
        for kernel in group["params"]:
            if kernel.grad is None:
                continue
            state = self.state[kernel]
            if not state:
                state["step"] = torch.zeros((), device=kernel.device)
                state["exp_avg"] = torch.zeros_like(kernel)
            mean = torch.lerp(state["exp_avg"], kernel.grad, 1 - _MOMENTUM)
            change = torch.lerp(kernel.grad, mean, _MOMENTUM).flatten(1)
            rms = _ADAM_RMS * math.sqrt(max(change.shape))
            change = (rms * _orthogonal(change)).reshape(kernel.shape) + group["weight_decay"] * kernel
            if refused is not None:
                mean = torch.where(refused > 0, state["exp_avg"], mean)
                change = torch.where(refused > 0, 0.0, change)
            state["exp_avg"].copy_(mean)
            state["step"] += 1 if refused is None else 1 - refused
            kernel.sub_(group["lr"] * change)
            kernel.grad = None  # or AdamW would move it, too
        super().step()


def _orthogonal(matrix: Tensor) -> Tensor:
    """A matrix ``(m, n)`` with singular values between 0.7 and 1.2 in place of its own, zeros aside, in float32.

    By repeating an odd polynomial (Newton and Schulz), in bfloat16 where the device multiplies it.
    """
    kind = torch.bfloat16 if multiplies_bfloat16(matrix.device.type) else torch.float32
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = (wide / (wide.norm() + torch.finfo(torch.float32).tiny)).contiguous().to(kind)
    a, b, c = _QUINTIC
    for _ in range(_REPETITIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    found = x.float()
    return found.T if wide is not matrix else found


def _adamw(learning_rate: Tensor, weight_decay: float) -> dict[str, Any]:
    return {
        "lr": learning_rate,
        "betas": (0.9, 0.99),
        "weight_decay": weight_decay,
        "fused": True,
        "capturable": learning_rate.device.type == "cuda",
    }


def optimizer_for(
    network: nn.Module, name: str, learning_rate: float, weight_decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer ``"adamw"`` or ``"muon"`` of a network's parameters."""
    rate = torch.tensor(learning_rate, device=device)
    if name == "muon":
        return Muon(network, rate, weight_decay)
    return torch.optim.AdamW(network.parameters(), **_adamw(rate, weight_decay))
