"""What damaged files, kills, crashes and hostile files do to iasolve: counts, with commit.

    python benchmarks/robustness.py                       # 2,000 mutations a format, 20 kills: about an hour
    python benchmarks/robustness.py --mutations 50 --kills 2 --files 0
    python benchmarks/robustness.py --part mutations      # that part alone, of all

Writes ``robustness.md`` and ``robustness.json`` into ``benchmarks/results``.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from crashes import count_crashes
from hostile import hostile_files
from mutations import FORMATS, mutated, save_valid

import iasolve
from common import RESULTS, commit, table, write
from iasolve import files
from iasolve.files import FileError, formats
from iasolve.samples import load_samples

SLOW_SECONDS = 20.0
SPARE_MEMORY = 2**30


def main(
    mutations: Annotated[int, typer.Option(help="Mutated files of each format.")] = 2000,
    kills: Annotated[int, typer.Option(help="Folder runs that are killed and resumed.")] = 20,
    count: Annotated[
        int, typer.Option("--files", help="Good files for the cost of the worker; 0: not measured.")
    ] = 300,
    seed: Annotated[int, typer.Option(help="Seed of mutations and moments.")] = 0,
    part: Annotated[list[str] | None, typer.Option(help="Measure these parts alone: mutations, kills, ...")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure all, print and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured: dict[str, Callable[[], Any]] = {
            "mutations": lambda: {kind: mutate(kind, mutations, seed, folder) for kind in FORMATS},
            "kills": lambda: kill(kills, seed, folder / "kills"),
            "crashes": lambda: count_crashes(folder / "crashes"),
            "hostile": lambda: {kind: reaction(path, read) for kind, path, read in hostile_files(folder / "hostile")},
            "worker": lambda: cost_of_worker(count, folder / "good"),
        }
        results: dict[str, Any] = {
            "commit": commit(),
            "iasolve": iasolve.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
            "seed": seed,
        }
        wanted = part or [name for name in measured if count or name != "worker"]
        results |= {name: measured[name]() for name in wanted}
    text = markdown(results)
    write("robustness", results, text, out)
    print(text)


# ------------------------------------------------------------------------------------------------------- mutations


def mutate(kind: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Read so many mutations of a valid file of a format; what came of them."""
    rng = np.random.default_rng([seed, *kind.encode()])
    folder.mkdir(exist_ok=True)
    valid = save_valid(folder, kind)
    whole, read = valid.read_bytes(), FORMATS[kind].read
    read(valid)  # or the library's own size would count
    damaged = valid.with_name(f"damaged{files.suffix_of(valid)}")
    outcomes: Counter[str] = Counter()
    slowest, start, largest = 0.0, peak_memory(), 0
    for _ in range(count):
        damaged.write_bytes(mutated(whole, rng))
        begun = time.perf_counter()
        try:
            read(damaged)
            outcome = "read"
        except FileError as error:
            outcome = (
                "crash held" if "crashed" in str(error) else "time held" if "given up" in str(error) else "refused"
            )
        except Exception as error:  # what must not happen
            outcome = f"escaped: {type(error).__name__}"
        seconds = time.perf_counter() - begun
        outcomes[outcome] += 1
        slowest, largest = max(slowest, seconds), max(largest, peak_memory() - start)
        if outcome in ("crash held", "time held"):
            start = peak_memory()  # of the next worker
    escaped = sum(n for outcome, n in outcomes.items() if outcome.startswith("escaped"))
    return {
        "count": count,
        "read": outcomes["read"],
        "refused": outcomes["refused"],
        "crashes_held": outcomes["crash held"],
        "endless_held": outcomes["time held"],
        "escaped": escaped,
        "slowest_seconds": round(slowest, 3),
        "slower_than_20_s": int(slowest > SLOW_SECONDS),
        "more_than_1_gb": int(largest > SPARE_MEMORY),
        "extra_mb": round(largest / 2**20, 1),
    }


def peak_memory() -> int:
    """Peak of what this process and its worker hold resident, bytes; 0 where the system does not say."""
    total = 0
    for process in (os.getpid(), *children()):
        try:
            text = Path(f"/proc/{process}/status").read_text("ascii")
            total += 1024 * int(text.split("VmHWM:")[1].split()[0])
        except (OSError, IndexError):
            continue
    return total


def children() -> list[int]:
    """Processes that this one has started."""
    try:
        return [int(n) for n in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()]
    except OSError:
        return []


# ------------------------------------------------------------------------------------------------------------ kills


def kill(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill folder runs at random moments, resume them, and compare with a run that nobody disturbed."""
    rng = np.random.default_rng(seed)
    source, whole = folder / "in", folder / "whole"
    source.mkdir(parents=True)
    images = np.asarray(load_samples().images, np.float32).reshape(-1, 128, 128)
    for number in range(6):
        np.save(source / f"{number}.npy", images[number % len(images)] + number)
    program = [sys.executable, "-m", "iasolve", "denoise", str(source)]
    options = ["--sigma", "5", "--recipe", "fast"]
    begun = time.perf_counter()
    subprocess.run([*program, str(whole), *options], check=True, capture_output=True)
    length = time.perf_counter() - begun
    expected = {path.name: path.read_bytes() for path in whole.glob("*.npy")}
    tally: Counter[str] = Counter()
    for number in range(count):
        out = folder / f"out{number}"
        process = subprocess.Popen([*program, str(out), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(0, length)))
        process.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
        process.wait()
        tally["partial"] += any(expected[p.name] != p.read_bytes() for p in out.glob("[0-9].npy"))
        tally["unsealed"] += any(not p.with_name(p.stem).exists() for p in out.glob("*.json"))
        done = subprocess.run([*program, str(out), *options, "--resume"], capture_output=True)
        found = {path.name: path.read_bytes() for path in out.glob("*.npy")}
        tally["not resumed"] += done.returncode != 0 or found != expected
        tally["leftovers"] += any(path.name.startswith(".") for path in out.iterdir())
    return {"count": count, **{key: tally[key] for key in ("partial", "unsealed", "not resumed", "leftovers")}}


# ---------------------------------------------------------------------------------------------------- hostile files


def reaction(path: Path, read: Callable[[Path], object]) -> dict[str, Any]:
    """What reading a hostile file came to."""
    begun, start = time.perf_counter(), peak_memory()
    try:
        read(path)
        text, refused = "read", False
    except FileError as error:
        text, refused = error.found, True
    except Exception as error:  # what must not happen
        text, refused = f"{type(error).__name__}: {error}"[:200], False
    return {
        "refused": refused,
        "what": text.replace("|", "/"),
        "seconds": round(time.perf_counter() - begun, 2),
        "extra_mb": round(max(0, peak_memory() - start) / 2**20, 1),
    }


# ----------------------------------------------------------------------------------------------------------- the cost


def cost_of_worker(count: int, folder: Path) -> dict[str, float]:
    """A folder run of good files with reading apart and with reading here: wall-clock and processor seconds, ratios."""
    from PIL import Image

    folder.mkdir()
    image = np.asarray(load_samples().images, np.float32).reshape(-1, 128, 128)[0]
    pixels = (255 * image / image.max()).astype(np.uint8)
    for number in range(count):
        Image.fromarray(np.roll(pixels, number, axis=1)).save(folder / f"{number:04}.png")
    assert formats.read_apart is not None, "the name that is replaced below"
    here = "from iasolve.files import formats; formats.read_apart = lambda function, path, *rest: function(path, *rest)"
    best: dict[str, np.ndarray] = {}
    for turn in range(2):
        for way, before in (("apart", ""), ("here", here)):
            code = f"{before}\nfrom iasolve.cli import main\nmain()"
            out = folder / f"{way}{turn}"
            command = [sys.executable, "-c", code, "denoise", str(folder), str(out), "--recipe", "fast", "--sigma", "5"]
            begun, used = time.perf_counter(), os.times()
            subprocess.run(command, check=True, capture_output=True)
            now = os.times()
            processor = now.children_user + now.children_system - used.children_user - used.children_system
            seconds = np.array([time.perf_counter() - begun, processor])
            best[way] = np.minimum(best.get(way, seconds), seconds)
    ratios = best["apart"] / best["here"]
    return {
        "files": count,
        "apart_seconds": round(float(best["apart"][0]), 2),
        "here_seconds": round(float(best["here"][0]), 2),
        "ratio": round(float(ratios[0]), 3),
        "processor_ratio": round(float(ratios[1]), 3),
    }


# -------------------------------------------------------------------------------------------------------------- table


def _of_mutations(results: Mapping[str, Any]) -> list[str]:
    names = {
        "count": "files",
        "read": "read",
        "refused": "refused",
        "crashes_held": "crashes held",
        "endless_held": "endless, held",
        "escaped": "escaped",
        "slowest_seconds": "slowest, s",
        "extra_mb": "memory more, MB",
    }
    rows = [[kind, *(found[key] for key in names)] for kind, found in results.items()]
    return [
        "## Mutated files\n",
        "Bytes flipped, cut, zeroed, doubled and shuffled. *Held*: the library crashed or did not end, and the file "
        "was refused. *Escaped*: an exception other than the package's own.\n",
        table(["format", *names.values()], rows),
    ]


def markdown(results: dict[str, Any]) -> str:
    """The tables, and where they come from."""
    parts = [
        "# Robustness\n",
        f"Commit {results['commit']}; seed {results['seed']}; {results['machine']}.\n",
    ]
    if "mutations" in results:
        parts += _of_mutations(results["mutations"])
    if "kills" in results:
        kills = results["kills"]
        parts.append(
            "## Kills\n\n"
            f"{kills['count']} folder runs killed (SIGTERM, SIGKILL) and resumed: {kills['partial']} partial files, "
            f"{kills['unsealed']} reports without their result, {kills['not resumed']} that --resume did not complete "
            f"to the same bytes, {kills['leftovers']} with hidden files left.\n"
        )
    if "crashes" in results:
        crashes = results["crashes"]
        parts.append(
            "## Crashes\n\n"
            f"{crashes['count']} crashes injected after every replacement, removal and flush of an overwriting commit: "
            f"{crashes['mixed']} mixed, {crashes['partial']} partial.\n"
        )
    if "hostile" in results:
        rows = [
            [kind, "yes" if found["refused"] else "NO", found["what"], found["seconds"], found["extra_mb"]]
            for kind, found in results["hostile"].items()
        ]
        parts += ["## Hostile files\n", table(["file", "refused", "said", "s", "memory more, MB"], rows)]
    if "worker" in results:
        worker = results["worker"]
        parts.append(
            f"## The worker's cost\n\n{worker['files']} PNG files of 128 x 128, recipe fast: "
            f"{worker['apart_seconds']} s with reading apart, {worker['here_seconds']} s without, ratio "
            f"{worker['ratio']}; of processor time {worker['processor_ratio']}.\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    typer.run(main)
