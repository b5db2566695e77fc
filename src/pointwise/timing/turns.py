"""Runs that take turns, so that a disturbed machine is disturbed for all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from pointwise.timing.load import BUSY, Watch
from pointwise.timing.times import Times

Run = Callable[[], object]
BURST = 5  # runs of one turn: the same data again, so that it is in the cache for everyone
FEWEST = 6  # samples of what takes long: with fewer, no ratio has an interval


def in_turns(
    runs: Mapping[str, Run],
    samples: int = 50,
    seconds: float = 2.0,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Times]:
    """Times each of ``runs`` about ``samples`` times, all taking turns.

    A turn is a few runs back to back, after one that is not counted; each round begins with the
    next one. What would take longer than ``seconds`` altogether is run less often, but six times.
    """
    if samples < 1:
        raise ValueError(f"timing: samples must be 1 or more, got {samples}")
    names = list(runs)
    bursts = {name: _bursts(runs[name], samples, seconds) for name in names}
    rounds = max((len(sizes) for sizes in bursts.values()), default=0)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            if number < len(bursts[name]):
                taken[name] += _timed(runs[name], bursts[name][number])
        if progress is not None:
            progress(number + 1, rounds)
    return {name: Times(tuple(each), tuple(bursts[name])) for name, each in taken.items()}


def _bursts(run: Run, samples: int, seconds: float) -> list[int]:
    """How many runs there are in each turn; runs it, too, so that all has been compiled."""
    run()
    (once,) = _timed(run, 1, warm=False)
    wanted = min(samples, max(FEWEST, math.ceil(1e3 * seconds / max(once, 1e-6))))
    burst = min(BURST, max(1, wanted // FEWEST))  # rounds are what intervals are made of
    return [min(burst, wanted - first) for first in range(0, wanted, burst)]


def _timed(run: Run, count: int, warm: bool = True) -> list[float]:
    found = []
    gc.collect(0)
    enabled = gc.isenabled()
    gc.disable()
    try:
        if warm:
            run()
        for _ in range(count):
            _wait()
            start = time.perf_counter()
            result = run()
            _wait()
            found.append(1e3 * (time.perf_counter() - start))
            del result  # freeing it is not part of the work
    finally:
        if enabled:
            gc.enable()
    return found


def _wait() -> None:
    """A GPU computes while Python goes on."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


# --- a single call, as the guide times it ---------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a call takes here: ``0.31 ms (0.30 to 0.35)``, the median, the least and 95 %."""

    times: Times
    busy: str  # why no verdict can be given; empty where one can

    @property
    def milliseconds(self) -> float:
        return self.times.median

    def __str__(self) -> str:
        said = [_short(each) for each in (self.times.median, self.times.min, self.times.p95)]
        return f"{said[0]} ms ({said[1]} to {said[2]}{f'; {BUSY}' if self.busy else ''})"


def measured(call: Run, samples: int = 20, seconds: float = 1.0) -> Measured:
    """Calls again and again, after a first call that may compile.

    >>> took = measured(lambda: torch.relu(torch.ones(1000)), samples=12)
    >>> took.times.turns  # two runs in each of six rounds
    (2, 2, 2, 2, 2, 2)
    """
    call()
    with Watch() as watch:
        times = in_turns({"": call}, samples, seconds)[""]
    return Measured(times, watch.busy(times))


def _short(milliseconds: float) -> str:
    digits = 0 if milliseconds >= 99.95 else 1 if milliseconds >= 9.995 else 3
    return f"{milliseconds:,.{digits}f}"
