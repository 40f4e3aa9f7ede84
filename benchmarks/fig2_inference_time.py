"""Seconds of refinement against the depth of the hierarchy: the paper's Figure 2, and what explains it.

    OMP_NUM_THREADS=2 python benchmarks/fig2_inference_time.py
    python benchmarks/fig2_inference_time.py --one-core     # processor seconds of one thread
    python benchmarks/fig2_inference_time.py --device cuda  # all arms timed in full, none extrapolated
    python benchmarks/fig2_inference_time.py --quick

Four ways to refine, the same code in both decoders' arms. *Vanilla per latent*: each latent through all later layers,
the layers before it evaluated once and kept, only the refined latent asking for gradients. *Vanilla joint*: all latents
at once, what a fair opponent would do. *IA sequential*: each latent through the rest of its scale, the paper's loop.
*IA joint*: all latents of a scale at once. Networks of the paper's size, untrained: time does not depend on weights.

Seconds of 25 steps are measured, or fewer steps are and the rest follows by the counted FLOPs; a time so found is
marked ``~``, and one without any measurement at its depth ``~~``. Everything a call does is in its time: comparing
iterates, recomputing the guess in the refined context, for IA also the decoder pass that it refines.

A machine's speed drifts from minute to minute, so the arms take turns. Threads wait for each other: with several, run
it on a machine with nothing else to do; the share of its cores that the process got stands beside the figures.
``--one-core`` counts processor seconds, which others' work changes little. Counting comes first, in one thread;
``timing`` is printed when quiet is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import cost_report
import torch
import typer
from refinement_cost import (
    ARMS,
    JOINT,
    PER_LATENT,
    Counted,
    Workbench,
    layer_evaluations,
    uniform,
    untrained,
)
from rich.console import Console
from rich.progress import track

import common
from iasolve.networks import NetworkConfig
from iasolve.training.config import load_config

STEPS = 25
COMPARED = 4
"""Steps from which on a joint schedule compares the same number of iterates: longer runs differ by steps alone."""
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Case:
    """A network to time.

    Attributes
    ----------
    steps : tuple of int
        How many steps each arm takes, 0 for none.
    turns : int
        Most runs of anything.
    patience : float
        Seconds beyond which a thing is not run again.
    """

    series: str
    config: NetworkConfig
    steps: tuple[int, int, int, int]
    batch: int = 1
    turns: int = 5
    patience: float = 2.0

    @property
    def layers(self) -> int:
        """Layers per scale."""
        return self.config.layers[0]

    @property
    def shape(self) -> NetworkConfig:
        """The network with one layer per scale: what cases of a family have in common."""
        return uniform(self.config, 1)


def cases(quick: bool, batch: int, gpu: bool = False) -> list[Case]:
    """The grid; numbers of steps keep the whole of it within eight minutes on two cores, or on a GPU."""
    if quick:
        tiny = NetworkConfig(8, (16,) * 4, (1,) * 4, (1,) * 4, (1,) * 4, head_blocks=1, grid_cap=8)
        return [
            Case("headline", uniform(tiny, 2), (1, 25, 2, 25)),
            *(Case("layers per scale", uniform(tiny, m), (1, 4, 1, 4)) for m in (1, 2)),
            Case("layers per scale", uniform(tiny, 3), (0, 4, 1, 4)),
            *(Case("number of scales", uniform(tiny, 1, size=n, grid_cap=4), (1, 4, 1, 4)) for n in (4, 8)),
            Case("batch", uniform(tiny, 2), (1, 4, 1, 4), batch),
        ]
    large = load_config(CONFIGS / "mri-complex-128-paper.toml").network
    small = load_config(CONFIGS / "cifar10-paper.toml").network
    if gpu:
        every = (STEPS,) * len(ARMS)
        return [
            Case("headline", large, every, turns=2, patience=60.0),
            *(Case("layers per scale", uniform(small, m), every, turns=3) for m in (1, 2, 5, 10)),
            *(
                Case("number of scales", uniform(large, 5, size=n, grid_cap=4, is_complex=False), every, turns=3)
                for n in (4, 8, 32, 128)
            ),
            Case("batch", small, every, batch, turns=3),
        ]
    depths = {
        1: (25, 25, 25, 25),
        2: (25, 25, 25, 25),
        5: (1, 25, 3, 25),
        10: (1, 25, 2, 25),
        16: (1, 8, 1, 25),
        33: (0, 8, 1, 8),
    }
    return [
        Case("headline", large, (1, 8, 2, 25), turns=2, patience=60.0),
        *(Case("layers per scale", uniform(small, m), steps) for m, steps in depths.items()),
        # on one grid, so that every scale costs the same: uncapped, a scale costs four times the one before
        *(
            Case("number of scales", uniform(large, 5, size=n, grid_cap=4, is_complex=False), (2, 25, 3, 25))
            for n in (4, 8, 32, 128)
        ),
        Case("batch", small, (1, 8, 2, 8), batch),
    ]


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def take_turns(calls: dict[str, Callable[[], Any]], case: Case, one_core: bool) -> dict[str, dict[str, Any]]:
    """Seconds of every call, one run each in turn, and the share of the threads' time that was had."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(case.turns):
        for name, call in calls.items():
            taken = [clock for clock, _ in runs[name]]
            if turn and sum(taken) + taken[-1] > case.patience:
                continue
            wait()
            clock, processor = time.perf_counter(), time.process_time()
            call()
            wait()
            runs[name].append((time.perf_counter() - clock, time.process_time() - processor))
    found = {}
    for name, pairs in runs.items():
        seconds = [processor if one_core else clock for clock, processor in pairs]
        clock, processor = (sum(values) for values in zip(*pairs, strict=True))
        share = processor / clock / torch.get_num_threads()
        found[name] = {"seconds": median(seconds), "runs": seconds, "share": share}
    return found


def time_case(
    case: Case, counted: Counted, objective: str, seed: int, one_core: bool, device: str = "cpu"
) -> dict[str, Any]:
    """All times of one network, and the counts beside them."""
    calls: dict[str, Callable[[], Any]] = {}
    arms: dict[str, dict[str, Any]] = {}
    for decoder in ("separable", "vanilla"):
        bench = Workbench(untrained(case.config, decoder, seed).to(device), case.batch, objective, seed, device)
        # warm up: every shape of convolution, forward and backward
        bench.amortized()
        bench.decoder()
        calls |= {f"{decoder}_amortized": bench.amortized, f"{decoder}_decoder": bench.decoder}
        for arm, steps in zip(ARMS, case.steps, strict=True):
            if arm.decoder != decoder:
                continue
            cost = counted.cost(arm, case.layers)
            arms[arm.name] = {
                "steps": steps,
                "evaluations": layer_evaluations(arm, case.config.layers),
                "flops": case.batch * cost.flops,
                "flops_once": case.batch * cost.once,
                "flops_25": case.batch * cost.of(STEPS),
            }
            if steps:
                calls[arm.name] = partial(bench.refine, arm.schedule, steps)
            if arm is JOINT and steps > COMPARED:
                calls["fewer"] = partial(bench.refine, arm.schedule, COMPARED)
    found = take_turns(calls, case, one_core)
    for arm in ARMS:
        entry = arms[arm.name]
        if arm.name in found:
            cost = counted.cost(arm, case.layers)
            entry |= found[arm.name]
            entry["seconds_25"] = entry["seconds"] * cost.of(STEPS) / cost.of(entry["steps"])
    if "fewer" in found:
        joint = arms[JOINT.name]
        joint["step_seconds"] = (joint["seconds"] - found["fewer"]["seconds"]) / (joint["steps"] - COMPARED)
    return {
        "series": case.series,
        "size": case.config.size,
        "scales": len(case.config.scales),
        "layers_per_scale": case.layers,
        "depth": sum(case.config.layers),
        "batch": case.batch,
        **{name: entry for name, entry in found.items() if name not in arms and name != "fewer"},
        "arms": {arm.name: arms[arm.name] for arm in ARMS},
    }


def fill(rows: list[dict[str, Any]]) -> None:
    """Where an arm was not timed, the seconds of its FLOPs at the rate of the deepest network of the series."""
    for row in rows:
        for name, entry in row["arms"].items():
            if entry["steps"]:
                continue
            timed = [r for r in rows if r["series"] == row["series"] and r["arms"][name]["steps"]]
            if timed:
                nearest = max(timed, key=lambda r: r["depth"])["arms"][name]
                entry["seconds_25"] = entry["flops_25"] * nearest["seconds_25"] / nearest["flops_25"]


def linearity(
    case: Case, counted: Counted, objective: str, seed: int, one_core: bool, device: str = "cpu"
) -> dict[str, Any]:
    """Time of the costliest arm against the number of sweeps, and what is extrapolated from one."""
    bench = Workbench(untrained(case.config, PER_LATENT.decoder, seed).to(device), case.batch, objective, seed, device)
    cost = counted.cost(PER_LATENT, case.layers)
    bench.refine(PER_LATENT.schedule, 1)
    calls = {str(n): partial(bench.refine, PER_LATENT.schedule, n) for n in (1, 2, 3, STEPS)}
    seconds = {name: entry["seconds"] for name, entry in take_turns(calls, case, one_core).items()}
    return {
        "depth": sum(case.config.layers),
        "size": case.config.size,
        "seconds": seconds,
        "extrapolated_from_one": seconds["1"] * cost.of(STEPS) / cost.of(1),
    }


def main(
    batch: Annotated[int, typer.Option(help="Images of the larger batch")] = 8,
    objective: Annotated[str, typer.Option(help="variational (the default of recipes) or map (the paper's)")] = (
        "variational"
    ),
    threads: Annotated[int, typer.Option(help="Threads of the timing; 0: as torch has it")] = 0,
    one_core: Annotated[bool, typer.Option("--one-core", help="Processor seconds of one thread")] = False,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where the arms are timed")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of weights, image and draws")] = 0,
    quick: Annotated[bool, typer.Option(help="Tiny networks: a look, not a result")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results")] = common.RESULTS,
) -> None:
    """Count, time, and write the table and the figure."""
    if objective not in ("variational", "map"):
        raise typer.BadParameter(f"expected variational or map, got {objective!r}", param_hint="--objective")
    if batch < 2:
        raise typer.BadParameter(f"the larger batch needs at least 2 images, got {batch}", param_hint="--batch")
    if one_core and threads > 1:
        raise typer.BadParameter(f"--one-core times one thread, got {threads}", param_hint="--threads")
    if device != "cpu" and (one_core or not torch.cuda.is_available()):
        raise typer.BadParameter(f"{device}: expected cpu, or cuda where there is one", param_hint="--device")
    grid = cases(quick, batch, device != "cpu")
    console = Console(stderr=True)
    wanted = 1 if one_core else threads or torch.get_num_threads()
    torch.set_num_threads(1)
    families = list(dict.fromkeys(case.shape for case in grid))
    counted = {f: Counted(f, objective, seed) for f in track(families, "counting", console=console)}
    torch.set_num_threads(wanted)
    kind = "-one-core" if one_core else "" if device == "cpu" else "-gpu"
    name = f"fig2_inference_time{kind}" + ("-quick" if quick else "")
    report: dict[str, Any] = {
        "about": common.provenance(
            seed,
            untrained(grid[0].config, "separable", seed),
            objective=objective,
            steps=STEPS,
            paper_size=not quick,
            clock="processor" if one_core else "wall",
            **({} if device == "cpu" else {"device": torch.cuda.get_device_name()}),
        ),
        "rows": [],
    }
    console.print("timing")
    for case in track(grid, "timing", console=console):
        report["rows"].append(time_case(case, counted[case.shape], objective, seed, one_core, device))
        fill(report["rows"])
        # what has been timed so far
        cost_report.write(name, report, out)
    shallow = next(case for case in grid if case.series == "layers per scale" and case.layers > 1)
    report["linearity"] = linearity(shallow, counted[shallow.shape], objective, seed, one_core, device)
    text = cost_report.write(name, report, out)
    cost_report.figure(report, out / f"{name}.png")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
