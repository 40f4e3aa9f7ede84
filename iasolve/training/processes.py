"""The processes that ``torchrun`` starts: what they agree on, and what each has of its own."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from iasolve.training.snapshot import Random

__all__ = ["Processes"]


class Processes:
    """Those that train together; one, without ``torchrun``.

    Parameters
    ----------
    device : torch.device
        Of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

    def join(self, objective: nn.Module) -> nn.Module:
        """The objective, with the mean of all processes' gradients."""
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend)
        if self.device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        return nn.parallel.DistributedDataParallel(objective)

    def agree(self, done: float) -> float:
        """The first process's clock counts: processes that stop at different steps would wait for ever."""
        if self.world <= 1:
            return done
        shared: Tensor = torch.tensor([done], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    def random_of_others(self, own: Random) -> list[Random]:
        """Random states of all processes but the first, for its checkpoint."""
        if self.world <= 1:
            return []
        states: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(states, own)
        return states[1:]
