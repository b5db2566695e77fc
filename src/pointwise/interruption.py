"""SIGTERM and SIGHUP as Ctrl-C: batch queues, containers and lost connections send them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

_last = signal.SIGINT


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """The handler: a KeyboardInterrupt, once; what is saved then is not interrupted again."""
    note(number)
    for each in SIGNALS:
        if signal.getsignal(each) is interrupt:
            signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def note(number: int) -> None:
    """Keeps what has ended the work, for ``exit_code`` and ``word``."""
    global _last
    _last = signal.Signals(number)


def exit_code() -> int:
    """What a shell reports of a program that was ended so: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + _last


def word() -> str:
    return "interrupted" if _last == signal.SIGINT else f"ended by {_last.name}"


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise KeyboardInterrupt, where nobody else has a use for them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    note(signal.SIGINT)
    free = [each for each in SIGNALS if signal.getsignal(each) is signal.SIG_DFL]
    for each in free:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each in free:
            signal.signal(each, signal.SIG_DFL)
