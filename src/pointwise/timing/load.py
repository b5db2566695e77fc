"""What else a machine did while something was timed, and whether it was too much for a verdict.

Four things tell. The processors' own counters, where the system has them (Linux): what of their
time others used, and what the host of a virtual machine took. A known loop on as many threads as
PyTorch uses, before and after: the share of the time in which each of them was given a processor,
which is all of it on an idle machine, also where two threads share a core. And the times
themselves, of which the middle one is far above the least where somebody comes between.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from pointwise.timing.times import Times

BUSY = "this machine is busy"
_STAT = Path("/proc/stat")
_PROBE = 0.1  # seconds of the known loop, each time
_BLOCK = bytes(1 << 21)  # some milliseconds of it, in which it does not hold Python's lock

# What an idle system does for itself: a fifth of a processor, and more where there are many.
_IDLE, _IDLE_EACH = 0.2, 0.02
# The counters count in steps of a hundredth of a second: so much may be chance, on one processor.
_TICKS = 0.03
_STOLEN = 0.05  # of the processors: a virtual machine's host has others to serve
_GRANTED = 0.8  # of the time of the known loop
# The middle run over the fastest. Short calls vary by half on machines that do nothing else, and
# threads that wait for one another while a third runs, by ten times.
_SPREAD = 2.0


@dataclass(frozen=True)
class Load:
    """What was seen in ``seconds``: processors, on average, that others used or the host took.

    ``others`` and ``stolen`` are None where the system does not tell. ``granted`` is the share of
    its time that the known loop ran, on the thread that was given least.
    """

    seconds: float
    processors: int
    threads: int
    others: float | None
    stolen: float | None
    granted: float

    def why_busy(self) -> str:
        """What speaks against trusting times; empty where nothing does."""
        idle = _IDLE + _IDLE_EACH * self.processors
        # Of processors that nobody here needs, others may have half: they share memory and cores.
        free = max(0, self.processors - self.threads) / 2
        if self.others is not None and self.others > idle + free:
            return f"other programs use {self.others:.1f} of its {_processors(self.processors)}"
        if self.stolen is not None and self.stolen > _STOLEN * self.processors:
            return (
                f"the host of this virtual machine takes {100 * self.stolen / self.processors:.0f}"
                " % of its processors' time"
            )
        if self.granted < _GRANTED:
            return (
                f"a loop on {self.threads} thread{'s' * (self.threads > 1)} got a processor"
                f" {100 * self.granted:.0f} % of the time"
            )
        return ""


class Watch:
    """Watches the machine while something is timed: ``with Watch() as watch: …``."""

    load: Load

    def __enter__(self) -> Watch:
        self._threads = min(torch.get_num_threads(), processors())
        self._used, self._own, self._start = _counters(), _own(), time.perf_counter()
        self._granted = granted(self._threads, _PROBE)
        return self

    def __exit__(self, *_: object) -> None:
        share = (self._granted + granted(self._threads, _PROBE)) / 2
        seconds = time.perf_counter() - self._start
        now, own = _counters(), _own() - self._own
        others = stolen = None
        if now is not None and self._used is not None and seconds > 0:
            used, taken = (after - before for after, before in zip(now, self._used, strict=True))
            chance = _TICKS * processors() ** 0.5
            others, stolen = max(0.0, used - own - chance) / seconds, taken / seconds
        self.load = Load(seconds, processors(), self._threads, others, stolen, share)

    def busy(self, *times: Times) -> str:
        """Why no verdict can be given on what was timed; empty where one can."""
        return self.load.why_busy() or why_scattered(times)


def why_scattered(times: tuple[Times, ...]) -> str:
    """What speaks against trusting times that were taken together; empty where nothing does."""
    spreads = [
        each.median / each.min for each in times if each.min > 0 and len(each.by_round()) > 2
    ]
    if not spreads or (spread := statistics.median(spreads)) < _SPREAD:
        return ""
    return f"half of all runs take {spread:.1f} times as long as the fastest, or longer"


def verdict_of(why: str) -> str:
    """The sentence that stands where a verdict would."""
    return (
        f"{BUSY[0].upper()}{BUSY[1:]}: {why}. Times taken now decide nothing; measure again when it"
        " is idle."
    )


def processors() -> int:
    """How many of them this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def granted(threads: int, seconds: float) -> float:
    """The share of ``seconds`` in which each of so many threads that compute was given a processor.

    That of the thread that was given least: where all work on one thing, the others wait for it.
    """
    shares = [0.0] * threads

    def compute(number: int) -> None:
        start, before = time.perf_counter(), time.thread_time()
        while (spent := time.perf_counter() - start) < seconds:
            hashlib.sha256(_BLOCK)
        shares[number] = (time.thread_time() - before) / spent

    team = [threading.Thread(target=compute, args=(number,)) for number in range(threads)]
    for each in team:
        each.start()
    for each in team:
        each.join()
    return min(1.0, *shares)


def _processors(count: int) -> str:
    return f"{count} processors" if count > 1 else "only processor"


def _own() -> float:
    """Seconds of all processors that this process has used, with children that have ended."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _counters() -> tuple[float, float] | None:
    """Seconds that the processors of this process were in use, and were taken by the host."""
    mine = _numbers()
    try:
        lines = _STAT.read_text(encoding="ascii").splitlines()
        ticks = os.sysconf("SC_CLK_TCK")
        used = stolen = 0
        for line in lines:
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in mine:
                user, nice, system, _, _, irq, softirq, taken = map(int, fields[:8])
                used += user + nice + system + irq + softirq
                stolen += taken
    except (OSError, ValueError, AttributeError):
        return None
    return used / ticks, stolen / ticks


def _numbers() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
