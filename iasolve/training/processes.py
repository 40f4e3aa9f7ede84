"""The processes that ``torchrun`` starts, and what they agree on."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

__all__ = ["Processes"]


class Processes:
    """Those that train together; one, without ``torchrun``.

    Parameters
    ----------
    device : torch.device
        Where they work; of several GPUs of a machine, each process has its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device.type == "cuda" and self.world > 1:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)
        self.device = device

    def join(self, objective: nn.Module) -> nn.Module:
        """The objective, with the mean of all processes' gradients."""
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(backend)
        # what is measured of the data may differ by rounding between machines; from here on, all buffers move alike
        for buffer in objective.buffers():
            torch.distributed.broadcast(buffer, src=0)
        return nn.parallel.DistributedDataParallel(objective, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.world <= 1:
            return values
        torch.distributed.all_reduce(values)
        return values / self.world

    def agree(self, value: float) -> float:
        """The first process's value, its clock's or a score: others that went another way would wait for ever."""
        if self.world <= 1:
            return value
        shared: Tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)
