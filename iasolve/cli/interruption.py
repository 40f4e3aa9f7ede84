"""Ctrl-C, and the SIGTERM that schedulers send: one meaning for both, and held back while a result is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["termination_as_interrupt", "uninterrupted"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


_RAISING = (signal.default_int_handler, _interrupt)


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as SIGINT does, where nobody else has a use for it."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold both back until the body is done, so that a result and its report are written both or neither."""
    held = False

    def hold(*_: object) -> None:
        nonlocal held
        held = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # what is ignored, or another's, stays so
    before = {number: handler for number, handler in before.items() if handler in _RAISING}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            raise KeyboardInterrupt
