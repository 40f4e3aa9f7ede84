"""Tables, fitted exponents and figure of the time of refinement; see ``fig2_inference_time.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from refinement_cost import ARMS, JOINT, PER_LATENT, SEQUENTIAL, VANILLA_JOINT

import common

mpl.use("Agg")
from matplotlib import pyplot as plt

NAMES = tuple(arm.name for arm in ARMS)
DEEP = 5
"""Layers per scale from which on exponents are fitted: below, heads and fixed costs hide the layers."""


def marked(entry: dict[str, Any]) -> str:
    """Seconds of 25 steps with the mark of how they were found."""
    if "seconds_25" not in entry:
        return "-"
    mark = "" if entry["steps"] == 25 else "~" if entry["steps"] else "~~"
    return f"{mark}{entry['seconds_25']:.3g}"


def ratio(row: dict[str, Any], over: str, under: str, key: str = "seconds_25") -> float:
    """How many times as much one arm takes as another."""
    arms = row["arms"]
    return arms[over][key] / arms[under][key] if key in arms[over] and key in arms[under] else float("nan")


def exponent(rows: list[dict[str, Any]], arm: str, key: str) -> float:
    """Slope of ``log(key)`` against ``log(depth)``, least squares, over networks at which the arm was timed."""
    timed = [r for r in rows if r["arms"][arm]["steps"]]
    if len(timed) < 2:
        return float("nan")
    depth = np.log([r["depth"] for r in timed])
    return float(np.polyfit(depth, np.log([r["arms"][arm][key] for r in timed]), 1)[0])


def exponents(rows: list[dict[str, Any]], series: str) -> dict[str, dict[str, float]]:
    """Of 25 steps' seconds and FLOPs, and of layer evaluations, for every arm."""
    found = [r for r in rows if r["series"] == series]
    if series == "layers per scale":
        deep = [r for r in found if r["layers_per_scale"] >= DEEP]
        found = deep if len(deep) > 1 else found
    keys = ("seconds_25", "flops_25", "evaluations")
    return {name: {key: exponent(found, name, key) for key in keys} for name in NAMES}


def headline(row: dict[str, Any]) -> str:
    """The speed-up at the paper's size, with what explains it, and the cost of one step."""
    lines = []
    for arm in ARMS:
        entry = row["arms"][arm.name]
        over = ratio(row, PER_LATENT.name, arm.name)
        counted = [ratio(row, PER_LATENT.name, arm.name, key) for key in ("flops_25", "evaluations")]
        lines.append(
            [
                arm.name,
                marked(entry),
                f"{over:.1f}x",
                f"{counted[0]:.1f}x",
                f"{counted[1]:.1f}x",
                entry["evaluations"],
                f"{entry['flops'] / 1e9:.3g}",
                f"{1e12 * entry['seconds_25'] / entry['flops_25']:.2f}",
                f"{entry['steps']} x {len(entry['runs'])}",
                f"{100 * entry['share']:.0f} %",
            ]
        )
    header = [
        "arm",
        "25 steps, s",
        "vanilla per latent takes",
        "by FLOPs",
        "by layer evaluations",
        "layer evaluations a step",
        "GFLOP a step",
        "ms / GFLOP",
        "steps timed x runs",
        "share of cores",
    ]
    return common.table(header, lines)


def steps_table(rows: list[dict[str, Any]]) -> str:
    """The cost of one joint step of all scales, against the decoder and the amortized pass."""
    lines = []
    for row in rows:
        entry = row["arms"][JOINT.name]
        if entry["steps"] != 25 or "step_seconds" not in entry:
            continue
        decoder, amortized = row["separable_decoder"]["seconds"], row["separable_amortized"]["seconds"]
        whole = entry["seconds"] / 25
        lines.append(
            [
                f"{row['size']}x{row['size']}",
                row["depth"],
                f"{1000 * entry['step_seconds']:.0f}",
                f"{entry['step_seconds'] / decoder:.2f}",
                f"{entry['step_seconds'] / amortized:.2f}",
                f"{whole / decoder:.2f}",
                f"{whole / amortized:.2f}",
            ]
        )
    header = ["image", "L", "step, ms", "/ decoder", "/ amortized", "1/25 of all: / decoder", "/ amortized"]
    return common.table(header, lines)


def depth_table(rows: list[dict[str, Any]]) -> str:
    """Seconds of every arm, network by network."""
    lines = [
        [
            f"{r['size']}x{r['size']}",
            f"{r['scales']} x {r['layers_per_scale']}",
            r["depth"],
            r["batch"],
            f"{r['separable_amortized']['seconds']:.3f}",
            *(marked(r["arms"][name]) for name in NAMES),
            f"{ratio(r, PER_LATENT.name, JOINT.name):.1f}x",
            f"{ratio(r, PER_LATENT.name, JOINT.name, 'flops_25'):.1f}x",
            f"{ratio(r, PER_LATENT.name, SEQUENTIAL.name):.1f}x",
            f"{ratio(r, VANILLA_JOINT.name, JOINT.name):.2f}x",
        ]
        for r in rows
    ]
    header = ["image", "scales x layers", "L", "batch", "amortized, s", *(f"{name}, s" for name in NAMES)]
    header += ["per latent / IA joint", "by FLOPs", "per latent / IA sequential", "vanilla joint / IA joint"]
    return common.table(header, lines)


def exponent_table(found: dict[str, dict[str, float]]) -> str:
    """Exponents of one series."""
    lines = [[name, *(f"{values[key]:.2f}" for key in values)] for name, values in found.items()]
    return common.table(["arm", "seconds", "FLOPs", "layer evaluations"], lines)


def markdown(report: dict[str, Any]) -> str:
    """The whole report."""
    rows, about = report["rows"], report["about"]
    first = rows[0]
    parts = [
        "# Time of 25 refinement steps\n",
        f"{'Networks of the paper' if about['paper_size'] else 'Tiny networks, a look only'}, untrained; "
        f"objective {about['objective']}; {about['clock']} seconds; torch {about['torch']}, {about['machine']}; "
        f"commit {about['commit']}; seed {about['seed']}. `~`: fewer steps timed, the rest by counted FLOPs; `~~`: not "
        "timed at this depth, by FLOPs "
        "from the deepest network timed.\n",
        f"## {first['size']}x{first['size']}, L = {first['depth']}, {first['scales']} scales, batch 1\n",
        headline(first),
        "\nVanilla joint is the fair opponent: all latents at once cost it about what they cost us. What separability "
        "saves is the way through all later scales, which only refinement latent by latent takes. All arms do the same "
        "kind of work: where ms / GFLOP differ, part of a ratio of seconds is the machine's.\n",
        "\n## One joint step of all scales\n",
        "Against the decoder alone, forward and backward, and one amortized pass. A step: from runs of two lengths. "
        "1/25 of all: with comparisons of iterates and the decoder passes before and after.\n",
        steps_table(rows),
        "\n## Against depth\n",
        depth_table(rows),
        "\n## Fitted exponents against L\n",
    ]
    for series, found in report["exponents"].items():
        which = f", from {DEEP} layers a scale on" if series == "layers per scale" and about["paper_size"] else ""
        parts += [f"{series.capitalize()} varied{which}:\n", exponent_table(found), ""]
    if "linearity" in report:
        line = report["linearity"]
        timed = ", ".join(f"{n}: {s:.3g}" for n, s in line["seconds"].items())
        parts.append(
            f"Seconds of vanilla per latent by number of steps ({line['size']}x{line['size']}, L = {line['depth']}): "
            f"{timed}; extrapolated from one step to 25: {line['extrapolated_from_one']:.3g}.\n"
        )
    return "\n".join(parts)


def _curve(axis: Any, rows: list[dict[str, Any]], values: list[float], arms: tuple[str, ...], **style: Any) -> None:
    """A curve against depth; markers are open where one of ``arms`` was extrapolated."""
    depth = [r["depth"] for r in rows]
    axis.plot(depth, values, lw=1, **style)
    for r, x, y in zip(rows, depth, values, strict=True):
        measured = all(r["arms"][name]["steps"] == 25 for name in arms)
        axis.plot(x, y, "o", color=style["color"], mfc=style["color"] if measured else "white", ms=4)


def _depths(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Logarithmic axes, with the depths themselves as ticks."""
    axis.set(xscale="log", yscale="log", xlabel="depth L")
    axis.set_xticks(sorted({r["depth"] for r in rows}), minor=False)
    axis.set_xticks([], minor=True)
    axis.xaxis.set_major_formatter("{x:.0f}")


def figure(report: dict[str, Any], path: Path) -> None:
    """Seconds against depth in both series, and their ratios."""
    grid, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    colours = dict(zip(NAMES, ("C3", "C1", "C0", "C2"), strict=True))
    series = {s: [r for r in report["rows"] if r["series"] == s] for s in ("layers per scale", "number of scales")}
    for axis, (name, rows) in zip(axes, series.items(), strict=False):
        for arm, colour in colours.items():
            found = [r for r in rows if "seconds_25" in r["arms"][arm]]
            seconds = [r["arms"][arm]["seconds_25"] for r in found]
            _curve(axis, found, seconds, (arm,), color=colour, label=arm)
        amortized = [r["separable_amortized"]["seconds"] for r in rows]
        axis.plot([r["depth"] for r in rows], amortized, "k:", label="amortized pass")
        _depths(axis, rows)
        axis.set_ylabel("seconds, 25 steps")
        fixed = ("scales", "scales") if name == "layers per scale" else ("layers_per_scale", "layers a scale")
        axis.set_title(f"{name} varied ({rows[0][fixed[0]]} {fixed[1]})", fontsize=10)
    axes[0].legend(fontsize=7, title="open: extrapolated", title_fontsize=7)
    rows = series["layers per scale"]
    for arm in (PER_LATENT.name, SEQUENTIAL.name, VANILLA_JOINT.name):
        of_seconds = [ratio(r, arm, JOINT.name) for r in rows]
        _curve(axes[2], rows, of_seconds, (arm, JOINT.name), color=colours[arm], label=arm)
        flops = [ratio(r, arm, JOINT.name, "flops_25") for r in rows]
        axes[2].plot([r["depth"] for r in rows], flops, "--", color=colours[arm], lw=0.8)
    first = report["rows"][0]
    place = (first["depth"], ratio(first, PER_LATENT.name, JOINT.name))
    axes[2].plot(*place, "*", color=colours[PER_LATENT.name], ms=11)
    axes[2].annotate(
        f"{first['size']}x{first['size']}", place, (-6, 6), textcoords="offset points", ha="right", fontsize=8
    )
    _depths(axes[2], rows)
    axes[2].set_ylabel("times IA joint")
    axes[2].set_title("ratio of seconds; dashed: of FLOPs", fontsize=10)
    axes[2].legend(fontsize=7)
    grid.savefig(path, dpi=110)
    plt.close(grid)


def write(name: str, report: dict[str, Any], out: Path) -> str:
    """JSON and Markdown, which is returned."""
    report["exponents"] = {s: exponents(report["rows"], s) for s in ("layers per scale", "number of scales")}
    text = markdown(report)
    common.write(name, report, text, out)
    return text
