"""Processes of their own for tests, forked from one that has imported torch: a fresh interpreter takes seconds each."""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from iasolve.cli import main

_METHODS = multiprocessing.get_all_start_methods()
_FORKS = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
_IMPORTED = ["iasolve.cli.answer", "iasolve.cli.workflow", "iasolve.cli.inspection", "iasolve.training", "scipy.stats"]
_IMPORTED += ["torch._dynamo"]  # the first optimizer imports it, which takes longer than torch


def preload(*modules):
    """Let processes begin with these imported, too; what counts is said before the first of them starts."""
    if "forkserver" in _METHODS:
        _FORKS.set_forkserver_preload([*_IMPORTED, *modules])


class Ended(NamedTuple):
    """How a process ended; the code is negative where a signal ended it."""

    code: int
    out: str
    err: str


class Apart:
    """``function(*arguments)``, of a module, in a process of its own; what it prints is kept."""

    def __init__(self, function, *arguments, cwd=None, environment=None):
        self._folder = TemporaryDirectory()
        self._printed = [Path(self._folder.name) / name for name in ("out", "err")]
        preload()
        given = (os.environ | (environment or {}), Path(cwd or Path.cwd()), self._printed, function, arguments)
        self.process = _FORKS.Process(target=_run, args=given)
        self.process.start()

    @property
    def running(self):
        return self.process.exitcode is None

    def send(self, number):
        os.kill(self.process.pid, number)

    def ended(self, seconds=300):
        """Wait for the end."""
        self.process.join(seconds)
        assert not self.running, "still at work"
        with self._folder:
            return Ended(self.process.exitcode, *(path.read_text() for path in self._printed))


def program_apart(*arguments, cwd=None):
    """The program with these arguments, begun in a process of its own."""
    return Apart(main, [str(a) for a in arguments], cwd=cwd)


def pair(function, *arguments):
    """Both of two processes that train together, as ``torchrun`` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    both = [Apart(function, *arguments, environment=meeting | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    return [one.ended() for one in both]


def _run(environment, cwd, printed, function, arguments):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    for stream, path in zip((sys.stdout, sys.stderr), printed, strict=True):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    function(*arguments)
