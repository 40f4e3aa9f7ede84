"""What damaged files, kills, crashes and hostile files do to iasolve: counts, with commit.

    python benchmarks/robustness.py                       # 2,000 mutations a format, 20 kills: about an hour
    python benchmarks/robustness.py --mutations 50 --kills 2 --files 0
    python benchmarks/robustness.py --part mutations      # that part alone, of all

Writes ``robustness.md`` and ``robustness.json`` into ``benchmarks/results``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
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
from kills import FAULTS, count_kills
from mutations import FORMATS, mutated, save_valid
from worker_cost import cost_of_worker

import iasolve
from common import RESULTS, commit, table, write
from iasolve import files
from iasolve.files import FileError

SLOW_SECONDS = 20.0
SPARE_MEMORY = 2**30


def main(
    mutations: Annotated[int, typer.Option(help="Mutated files of each format.")] = 2000,
    kills: Annotated[int, typer.Option(help="Runs killed by each signal: of a folder, and of a volume.")] = 20,
    count: Annotated[
        int, typer.Option("--files", help="Good files for the cost of the worker; 0: not measured.")
    ] = 300,
    seed: Annotated[int, typer.Option(help="Seed of mutations and moments.")] = 0,
    only: Annotated[list[str] | None, typer.Option("--format", help="Mutate files of these formats alone.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Measure these parts alone: mutations, kills, ...")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Measure all, print and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured: dict[str, Callable[[], Any]] = {
            "mutations": lambda: {kind: mutate(kind, mutations, seed, folder) for kind in only or FORMATS},
            "kills": lambda: count_kills(kills, seed, folder / "kills"),
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
    slowest, busiest, start, largest = 0.0, 0.0, peak_memory(), 0
    for _ in range(count):
        damaged.write_bytes(mutated(whole, rng))
        begun, worked = time.perf_counter(), processor_time()
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
        slowest, busiest = max(slowest, seconds), max(busiest, processor_time() - worked)
        largest = max(largest, peak_memory() - start)
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
        "busiest_seconds": round(busiest, 3),
        "slower_than_20_s": int(busiest > SLOW_SECONDS),
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


def processor_time() -> float:
    """Seconds of this process and its worker, and of workers that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for process in children():
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children() -> list[int]:
    """Processes that this one has started."""
    try:
        return [int(n) for n in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()]
    except OSError:
        return []


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
        "busiest_seconds": "of processor time, s",
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
        heads = ("runs killed", "after their first trace", *FAULTS)
        rows = [
            [kind, found["count"], found["reached"], *(found[key] for key in FAULTS)]
            for kind, found in results["kills"].items()
        ]
        parts += [
            "## Kills\n",
            "Runs killed at random moments of their work and begun again with the same command (of a folder: "
            "`--resume`). *Partial*: a file with other bytes than in a run that nobody disturbed. *Unsealed*: a report "
            "without its result. *Not resumed*: the next run failed or ended with other bytes. *Leftovers*: hidden "
            "files after it.\n",
            table(["run, signal", *heads], rows),
        ]
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
        keys = ("files", "here_ms", "apart_ms", "start_ms", "solving_ms", "ratio")
        heads = ("kind", "files", "read here", "read apart", "start, once", "solve (fast)", "folder run, apart / here")
        rows = [[kind, *(found[key] for key in keys)] for kind, found in results["worker"].items()]
        parts += [
            "## What the worker costs\n",
            "Milliseconds of processor time a file of 128 x 128 pixels.\n",
            table(heads, rows),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    typer.run(main)
