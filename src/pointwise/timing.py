"""How long things take: taken in turns, so that a disturbed machine is disturbed for all alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

Run = Callable[[], object]
BURST = 5  # runs of one turn: the same data again, so that it is in the cache for everyone
FEWEST = 5  # samples of what takes long


@dataclass(frozen=True)
class Times:
    """The milliseconds of single runs, in the order in which they ran."""

    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return self.percentile(50)

    @property
    def mean(self) -> float:
        return float(np.mean(self.milliseconds))

    @property
    def std(self) -> float:
        """The sample's standard deviation; 0 of a single run."""
        return float(np.std(self.milliseconds, ddof=1)) if len(self.milliseconds) > 1 else 0.0

    @property
    def min(self) -> float:
        return min(self.milliseconds)

    @property
    def max(self) -> float:
        return max(self.milliseconds)

    def percentile(self, share: float) -> float:
        """What ``share`` per cent of the runs do not exceed; between two runs, in proportion."""
        return float(np.percentile(self.milliseconds, share))

    def record(self) -> dict[str, float]:
        """What JSON is to say of them."""
        found = {
            "mean": self.mean,
            "std": self.std,
            "min": self.min,
            "max": self.max,
            "median": self.median,
            "p95": self.percentile(95),
            "p99": self.percentile(99),
        }
        return {name: round(value, 6) for name, value in found.items()} | {
            "runs": len(self.milliseconds)
        }


def in_turns(
    runs: Mapping[str, Run],
    samples: int = 50,
    seconds: float = 2.0,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Times]:
    """Times each of ``runs`` about ``samples`` times, all taking turns.

    A turn is a few runs back to back, after one that is not counted; each round begins with the
    next one. What would take longer than ``seconds`` altogether is run less often, but five times.
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
    return {name: Times(tuple(each)) for name, each in taken.items()}


def _bursts(run: Run, samples: int, seconds: float) -> list[int]:
    """How many runs there are in each turn; runs it, too, so that all has been compiled."""
    run()
    (once,) = _timed(run, 1, warm=False)
    wanted = min(samples, max(FEWEST, math.ceil(1e3 * seconds / max(once, 1e-6))))
    burst = BURST if wanted > FEWEST else 1  # a long run finds nothing of the last one in a cache
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
