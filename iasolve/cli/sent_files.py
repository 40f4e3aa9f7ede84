"""Files that options name, sent to workers that do not have them; imported where Dask is installed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from iasolve.cli.errors import UsageError
from iasolve.cluster import MOST_SENT, Cluster
from iasolve.files import companions

__all__ = ["SentFiles", "send", "with_neighbours"]


class SentFiles(WorkerPlugin):
    """A folder of these files in the worker's own.

    Attributes
    ----------
    name : str
        By which a worker knows it.
    folder : str
        On a worker, once it is set up.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.name = f"iasolve-{secrets.token_hex(8)}"  # of this run alone, which takes it away at its end
        self.files = files
        self.folder = ""

    def setup(self, worker: Any) -> None:
        """Write them."""
        folder = Path(worker.local_directory) / self.name
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        self.folder = str(folder)

    def teardown(self, worker: Any) -> None:
        """Remove them."""
        os.chdir(worker.local_directory)  # the worker may be in their folder
        shutil.rmtree(self.folder, ignore_errors=True)


def send(cluster: Cluster, folder: Path, files: Iterable[Path]) -> str:
    """Send those of some files that lie in a folder, unless all workers see them under the same path.

    Parameters
    ----------
    cluster : Cluster
    folder : Path
        The current one, from which paths start. What lies elsewhere is not sent.
    files : iterable of Path

    Returns
    -------
    str
        By which workers find them, see :class:`SentFiles`; empty where nothing was sent.

    Raises
    ------
    UsageError
        When they are too large.
    """
    places = {os.path.relpath(path, folder): path for path in files if _is_within(path, folder)}
    if not places or not any(cluster.ask(_lacks, str(folder), list(places))):
        return ""
    size = sum(path.stat().st_size for path in places.values())
    if size > MOST_SENT:
        raise UsageError(
            f"workers do not have the files that options name, such as {min(places)}: {size / 1e6:.0f} MB in all. "
            f"Expected at most {MOST_SENT / 1e6:.0f} MB, which are sent. Copy them to {folder} on all machines"
        )
    plugin = SentFiles({place: path.read_bytes() for place, path in places.items()})
    cluster.equip(plugin)
    return plugin.name


def _is_within(path: Path, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(folder)


def _lacks(folder: str, names: Sequence[str]) -> bool:
    """On a worker."""
    return not all(os.path.isfile(os.path.join(folder, name)) for name in names)


def with_neighbours(files: Iterable[Path], prior: str) -> list[Path]:
    """Files with those that belong to them; and those of a prior, where it is named by a path."""
    found = [one for path in files for one in (path, *companions(path))]
    if prior.endswith(_WEIGHTS):
        stem = prior.removesuffix(_WEIGHTS)
        found += [Path(stem + end) for end in (_WEIGHTS, ".json", f".reader{_WEIGHTS}", ".reader.json")]
    return [path for path in found if path.is_file()]


_WEIGHTS = ".safetensors"
