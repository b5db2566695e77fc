"""How much memory a piece of work needs at its highest, from Linux's own counters."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from pointwise.engine.cpu.memory import release


def peak_growth(work: Callable[[], Any]) -> float | None:
    """MB (10⁶ bytes) by which resident memory rises at most above where it was before ``work``.

    None where the system cannot tell (anything but Linux).
    """
    gc.collect()
    _give_back()
    before = _reset_peak()
    result = work()
    highest = _resident("VmHWM")
    del result  # alive until here: the result is part of what the work needs
    return None if before is None or highest is None else max(0.0, highest - before)


def resident_peak(prepare: Callable[[], Callable[[], Any]]) -> float | None:
    """MB of the whole process, Python and libraries included, at the highest while it works.

    A fresh process calls ``prepare`` (a function of a module), then what that returns; only the
    second counts. None where the system cannot tell.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_highest, prepare).result()


def _highest(prepare: Callable[[], Callable[[], Any]]) -> float | None:
    work = prepare()
    gc.collect()
    _give_back()
    before = _reset_peak()
    work()
    return None if before is None else _resident("VmHWM")


def _give_back() -> None:
    """Freed memory goes back to the system; otherwise the next work reuses it, unseen."""
    release()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # no glibc
        return


def _reset_peak() -> float | None:
    """Sets the process's peak back to what is resident now, and returns that in MB."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return None
    return _resident("VmRSS")


def _resident(counter: str) -> float | None:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(counter + ":"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return None
