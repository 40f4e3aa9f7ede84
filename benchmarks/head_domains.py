"""Spatial against spectral heads: validation ELBO and MSE of two trainings after the same number of images.

    python benchmarks/head_domains.py --only cifar10 --cifar10 runs/cifar10 --cifar10-spectral runs/cifar10-spectral

Reads what ``iasolve train`` leaves in a run's folder: ``log.jsonl`` and the card. The two are compared at the largest
number of images that both logs hold; the runs must differ in nothing but the head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib as mpl
import quality
import typer

import common

mpl.use("Agg")
from matplotlib import pyplot as plt

DOMAINS = ("spatial", "spectral")


class Run(NamedTuple):
    """A training: the card, and the rows of the log by images seen."""

    card: dict[str, Any]
    rows: dict[int, dict[str, Any]]


def read_run(folder: Path, domain: str) -> Run:
    """A run's card and log; ends the program where they are missing or of another head."""
    cards = [p for p in sorted(folder.glob("*.json")) if p.with_suffix(".safetensors").is_file()]
    log = folder / "log.jsonl"
    if len(cards) != 1 or not log.is_file():
        raise SystemExit(f"{folder} is no finished run: expected log.jsonl and one NAME.json beside NAME.safetensors")
    card = json.loads(cards[0].read_text(encoding="utf-8"))
    found = card["architecture"].get("head_domain", "spatial")
    if found != domain:
        raise SystemExit(f"{folder}: its heads are {found}, expected {domain}")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return Run(card, {row["images"]: row for row in lines})


def compare(runs: dict[str, Run]) -> dict[str, Any]:
    """Both runs where both logs have a row for the last time; ends the program where the runs differ in more."""
    first, second = (runs[d].card["architecture"] | {"head_domain": None} for d in DOMAINS)
    differing = sorted(k for k in first if first[k] != second.get(k))
    if differing:
        raise SystemExit(f"the runs differ in more than the head: {', '.join(differing)}")
    shared = set(runs["spatial"].rows) & set(runs["spectral"].rows)
    if not shared:
        raise SystemExit("the logs share no number of images: train both with the same validate_every and batch")
    images = max(shared)
    out: dict[str, Any] = {"images": images, "domains": {}}
    for domain, run in runs.items():
        row = run.rows[images]
        out["domains"][domain] = {
            "elbo": row["val_elbo"],
            "mse": row["val_mse"],
            "parameters": run.card["parameters"],
            "seconds": row["seconds"],
            "validation_images": run.card["data"]["validation_images"],
            "sha256": run.card["sha256"],
        }
    return out


def figure(sets: dict[str, dict[str, Run]], path: Path) -> None:
    """Validation ELBO and MSE against images seen."""
    grid, axes = plt.subplots(len(sets), 2, figsize=(7, 2.7 * len(sets)), squeeze=False)
    for row, (name, runs) in zip(axes, sets.items(), strict=True):
        for axis, key, title in ((row[0], "val_elbo", "ELBO, nats per dimension"), (row[1], "val_mse", "MSE")):
            for domain, run in runs.items():
                axis.plot(list(run.rows), [r[key] for r in run.rows.values()], "o-", ms=2, label=domain)
            axis.set_title(f"{quality.TITLES[name]}: validation {title}", fontsize=8)
            axis.set_xlabel("images seen", fontsize=7)
            axis.tick_params(labelsize=7)
            axis.legend(fontsize=7)
        row[1].set_yscale("log")
    grid.tight_layout()
    grid.savefig(path, dpi=90)
    plt.close(grid)


def main(
    cifar10: Annotated[Path, typer.Option(help="Folder of the run with spatial heads")] = Path("runs/cifar10"),
    cifar10_spectral: Annotated[Path, typer.Option(help="Spectral heads")] = Path("runs/cifar10-spectral"),
    mri: Annotated[Path, typer.Option(help="Complex MR, spatial heads")] = Path("runs/mri-complex-128"),
    mri_spectral: Annotated[Path, typer.Option(help="Spectral heads")] = Path("runs/mri-complex-128-spectral"),
    only: quality.Only = "",
    out: quality.Out = common.RESULTS,
) -> None:
    """Make the table; reading logs takes no time, so there is no quick form."""
    folders = {"cifar10": (cifar10, cifar10_spectral), "mri-complex": (mri, mri_spectral)}
    sets: dict[str, dict[str, Run]] = {}
    report: dict[str, Any] = {"about": {"commit": common.commit()}, "sets": {}}
    lines = []
    for data_set, pair in quality.chosen_sets(folders, only).items():
        sets[data_set] = {d: read_run(folder, d) for d, folder in zip(DOMAINS, pair, strict=True)}
        found = report["sets"][data_set] = compare(sets[data_set])
        for domain, values in found["domains"].items():
            cells = [f"{values['elbo']:.4f}", f"{values['mse']:.5f}", f"{values['parameters'] / 1e6:.2f}"]
            lines.append([quality.TITLES[data_set], domain, f"{found['images']:,}", *cells, f"{values['seconds']:.0f}"])
    header = ["data", "heads", "images seen", "ELBO / dim", "MSE", "parameters, million", "training s"]
    text = (
        "# Heads: spatial against spectral\n\nMeans over validation images, from the training logs; one run each.\n\n"
    )
    text += common.table(header, lines) + "\n" + "\n".join(quality.NOTES[name] for name in sets) + "\n"
    name = f"head_domains{'-' + only if only else ''}"
    common.write(name, report, text, out)
    figure(sets, out / f"{name}.png")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
