"""The state of a training run on disk: one safetensors file, from which it goes on as if it had not stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from iasolve.files.atomic import atomic_write
from iasolve.files.text import parse_json
from iasolve.training.progress import Progress

__all__ = ["RunState", "load_snapshot", "save_snapshot"]


@dataclass
class RunState:
    """What goes on when a run is resumed.

    Attributes
    ----------
    networks : mapping of str to nn.Module
        ``network``, whose parameters the optimizer moves, and any others.
    optimizer : torch.optim.Optimizer
    progress : Progress
    settings : dict
        The configuration as plain data: a run goes on with the one that it began with.
    """

    networks: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    progress: Progress
    settings: dict[str, Any]


def save_snapshot(path: Path, state: RunState) -> None:
    """Write weights, optimizer, progress and settings, whole or not at all, with their SHA-256."""
    tensors: dict[str, Tensor] = {}
    for prefix, net in state.networks.items():
        tensors |= {f"{prefix}.{k}": v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    names = _names(state)
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{names[index]}.{k}": v.detach().cpu().contiguous() for k, v in moments.items()}
    run = {"progress": json.dumps(vars(state.progress)), "settings": json.dumps(state.settings)}
    content = save(tensors, metadata={**run, "sha256": _digest(tensors, run)})
    with atomic_write(path) as stream:
        stream.write(content)


def load_snapshot(path: Path, state: RunState) -> None:
    """Restore what :func:`save_snapshot` wrote, in place.

    A state of version 0.1.0 has neither settings nor hash: it is taken as it is. Older states hold random states, too;
    a run takes the random numbers of its images from its seed and their numbers now.

    Raises
    ------
    FileNotFoundError
        When there is none.
    ValueError
        When it is damaged, or of another network or configuration.
    """
    if not path.is_file():
        raise FileNotFoundError(f"nothing to resume: no {path}; leave out --resume to start")
    try:
        with safe_open(path, framework="pt") as file:
            meta = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if {"settings", "sha256"} & set(meta) and meta.pop("sha256", "") != _digest(tensors, meta):
            raise ValueError("its SHA-256 is not the one that was written")
        progress = Progress(**parse_json(meta["progress"]))
        settings = parse_json(meta["settings"]) if "settings" in meta else None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or no state of a training run ({error}): start over with --overwrite"
        ) from None
    if settings is not None:
        _require_same(path, settings, json.loads(json.dumps(state.settings)))
    for prefix, net in state.networks.items():
        saved = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
        _require_fit(path, saved, net)
        net.load_state_dict(saved)
    moments: dict[int, dict[str, Tensor]] = {}
    parameters = dict(state.networks["network"].named_parameters())
    for index, name in enumerate(_names(state)):
        prefix = f"optimizer.{name}."
        # the fused optimizer walks through memory: what it keeps must lie there as the parameter does
        kept = {
            k.removeprefix(prefix): v if v.ndim == 0 else torch.empty_like(parameters[name], device="cpu").copy_(v)
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
        if kept:
            moments[index] = kept
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    vars(state.progress).update(vars(progress))


def _names(state: RunState) -> list[str]:
    """Names of the network's parameters in the optimizer's order."""
    names = {id(p): name for name, p in state.networks["network"].named_parameters()}
    return [names[id(p)] for group in state.optimizer.param_groups for p in group["params"]]


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes, in an order of its own: the file's is not defined."""
    digest = hashlib.sha256(json.dumps(dict(sorted(texts.items()))).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_same(path: Path, saved: Any, own: Any) -> None:
    theirs, ours = (_flat(_by_step(one)) for one in (saved, own))
    different = [
        f"{key} is {json.dumps(theirs.get(key))}, in the configuration's {json.dumps(ours.get(key))}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if different:
        raise ValueError(
            f"{path} is the state of another run: {'; '.join(different)}. Resume with the configuration it began with, "
            "or train in another --out"
        )


def _by_step(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the images of a step in place of how they are divided, which changes results by rounding alone."""
    out: dict[str, Any] = json.loads(json.dumps(settings))
    of_part = (out.get("reader") or {}).get("optimisation") or out["optimisation"]
    of_part.setdefault("optimizer", "adamw")  # states of before there was a choice do not name it
    images = of_part.pop("batch") * of_part.pop("accumulate", 1) * out.pop("processes", 1)
    of_part["batch x accumulate x processes"] = images
    return out


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    """Values by their path, such as ``optimisation.batch`` or ``degradations.0.sigma``."""
    entries: list[tuple[str, Any]] = []
    if isinstance(table, dict):
        entries = list(table.items())
    elif isinstance(table, list) and any(isinstance(item, dict) for item in table):
        entries = [(str(n), item) for n, item in enumerate(table)]
    if not entries:
        return {prefix: table}
    return {k: v for key, value in entries for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}


def _require_fit(path: Path, saved: Mapping[str, Tensor], network: nn.Module) -> None:
    expected = network.state_dict()
    for name in sorted(expected.keys() | saved.keys()):
        theirs, ours = (str(tuple(t[name].shape)) if name in t else "missing" for t in (saved, expected))
        if theirs != ours:
            raise ValueError(
                f"{path} is the state of another network: {name} is {theirs}, in the configuration's {ours}. Resume "
                "with the configuration it began with, or train in another --out"
            )
