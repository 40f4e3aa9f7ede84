"""What a result was made from, by hash: the input, the files that options name, and the result's own files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from iasolve.cli.outputs import Outputs
from iasolve.cli.reporter import plain
from iasolve.files import companions, parse_json, read_text, sha256_of

__all__ = ["differences", "hash_of_card", "hashes_of_files", "hashes_of_outputs", "input_hash", "reason_to_redo"]


def input_hash(path: Path) -> str:
    """SHA-256 of an input; of a pair of files, of both hashes in one.

    Raises
    ------
    OSError
    """
    hashes = [sha256_of(file) for file in (path, *companions(path)) if file.is_file()]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def hashes_of_files(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of the files that options name, by option.

    Raises
    ------
    OSError
    """
    return {option: input_hash(path) for option, path in files.items()}


def hash_of_card(card: Mapping[str, Any]) -> str:
    """SHA-256 of what a prior's card says: its weights have a hash of their own."""
    return hashlib.sha256(json.dumps(plain(card), sort_keys=True).encode()).hexdigest()


def hashes_of_outputs(outputs: Outputs) -> dict[str, str]:
    """SHA-256 of a result's files but the report itself, by name.

    Raises
    ------
    OSError
    """
    return {role: sha256_of(path) for role, path in outputs.roles.items()}


def reason_to_redo(source: Path, outputs: Outputs, identity: Mapping[str, Any]) -> str | None:
    """Why an earlier result is not the one that this run would give, or None if it is.

    Parameters
    ----------
    source : Path
        The input.
    outputs : Outputs
        Where its result stands.
    identity : mapping
        What a result depends on besides its input.

    Returns
    -------
    str or None
        An empty text where there is no complete result.
    """
    if not all(path.is_file() for path in outputs.all):
        return ""
    try:
        report = parse_json(read_text(outputs.sidecar))
        now = {"input": {"sha256": input_hash(source)}, "sha256": hashes_of_outputs(outputs)}
    except (OSError, ValueError):
        return ""
    if not isinstance(report, dict):
        return ""
    made_from = report.get("input")
    if not isinstance(made_from, dict) or "sha256" not in made_from:
        return "its report does not say what it was made from"
    if made_from["sha256"] != now["input"]["sha256"]:
        return f"{source.name} has changed"
    if changed := differences(report, plain(identity, 7)):
        return ", ".join(changed)
    damaged = _damaged(report.get("sha256"), now["sha256"])
    return f"{', '.join(damaged)} is not as it was written" if damaged else None


def _damaged(then: object, now: Mapping[str, str]) -> Iterable[str]:
    recorded = then if isinstance(then, dict) else {}
    return [role for role, value in now.items() if recorded.get(role) != value]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of ``now`` differs from ``then``, with both values; of tables, which entries."""
    out = []
    for key, new in now.items():
        old = then.get(key)
        if key == "files":  # hashes, and one more or less is a difference too
            named = {**(old if isinstance(old, Mapping) else {}), **new}
            earlier = old if isinstance(old, Mapping) else {}
            out += [f"the file of {name} has changed" for name in named if earlier.get(name) != new.get(name)]
        elif isinstance(new, Mapping) and isinstance(old, Mapping):
            out += differences(old, new)
        elif old != new:
            told = all(len(str(value)) < 80 and "sha256" not in key for value in (old, new))
            out.append(f"{key} {old} then, {new} now" if told else f"{key} has changed")
    return out
