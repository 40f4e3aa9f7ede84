"""Ctrl-C, and the SIGTERM that schedulers send: one meaning for both, and held back while a result is written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["interrupted_by", "termination_as_interrupt", "uninterrupted"]

_asked = False  # whether a signal came, as what it raises can be lost in a library's C code


def _interrupt(*_: object) -> None:
    global _asked
    _asked = True
    raise KeyboardInterrupt


_RAISING = (signal.default_int_handler, _interrupt)


def interrupted_by(error: BaseException) -> bool:
    """Whether an error is an interruption, or may be what a library made of one.

    NumPy, for one, raises a TypeError where a signal comes while it reads an array from a file.

    Parameters
    ----------
    error : BaseException
    """
    return isinstance(error, KeyboardInterrupt) or _asked


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as SIGINT does, where nobody else has a use for either."""
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked = False
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: handler for number, handler in usual.items() if signal.getsignal(number) is handler}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
