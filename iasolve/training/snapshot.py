"""The state of a training run on disk: one safetensors file, from which it goes on as if it had not stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from iasolve.files.atomic import atomic_write
from iasolve.training.progress import Progress

__all__ = ["load_snapshot", "save_snapshot"]


def save_snapshot(
    path: Path,
    networks: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    rng: np.random.Generator,
    device: torch.device,
) -> None:
    """Write weights, optimizer, progress and random states, whole or not at all.

    Parameters
    ----------
    path : Path
    networks : mapping of str to nn.Module
        ``network``, whose parameters the optimizer moves, and any others.
    optimizer, progress, rng
        What goes on.
    device : torch.device
        Where the networks are.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, net in networks.items():
        tensors |= {f"{prefix}.{k}": v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    names = [n for n, _ in networks["network"].named_parameters()]
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{names[index]}.{k}": v.detach().cpu().contiguous() for k, v in state.items()}
    tensors["torch_rng"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["cuda_rng"] = torch.cuda.get_rng_state(device)
    content = save(
        tensors,
        metadata={"progress": json.dumps(vars(progress)), "rng": json.dumps(rng.bit_generator.state)},
    )
    with atomic_write(path) as stream:
        stream.write(content)


def load_snapshot(
    path: Path,
    networks: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    device: torch.device,
) -> Progress:
    """Restore what :func:`save_snapshot` wrote, in place.

    Raises
    ------
    FileNotFoundError
        When there is none.
    ValueError
        When it is damaged, or of another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"nothing to resume: no {path}; leave out --resume to start")
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        progress, state_of_rng = Progress(**json.loads(meta["progress"])), json.loads(meta["rng"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or no state of a training run ({error}): start over with --overwrite"
        ) from None
    for prefix, net in networks.items():
        found = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
        _require_fit(path, found, net)
        net.load_state_dict(found)
    state: dict[int, dict[str, Tensor]] = {}
    for index, (name, parameter) in enumerate(networks["network"].named_parameters()):
        prefix = f"optimizer.{name}."
        # the fused optimizer walks through memory: what it keeps must lie there as the parameter does
        kept = {
            k.removeprefix(prefix): v if v.ndim == 0 else torch.empty_like(parameter, device="cpu").copy_(v)
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
        if kept:
            state[index] = kept
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    rng.bit_generator.state = state_of_rng
    torch.set_rng_state(tensors["torch_rng"])
    if device.type == "cuda" and "cuda_rng" in tensors:
        torch.cuda.set_rng_state(tensors["cuda_rng"], device)
    return progress


def _require_fit(path: Path, found: Mapping[str, Tensor], network: nn.Module) -> None:
    expected = network.state_dict()
    for name in sorted(expected.keys() | found.keys()):
        theirs, ours = (str(tuple(t[name].shape)) if name in t else "missing" for t in (found, expected))
        if theirs != ours:
            raise ValueError(
                f"{path} is the state of another network: {name} is {theirs}, in the configuration's {ours}. Resume "
                "with the configuration it began with, or train in another --out"
            )
