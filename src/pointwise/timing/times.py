"""The times of single runs, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Times:
    """The milliseconds of single runs, in the order in which they ran.

    ``turns`` says how many of them there were in each round; without, each is a round of its own.
    """

    milliseconds: tuple[float, ...]
    turns: tuple[int, ...] = ()

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

    @property
    def p95(self) -> float:
        return self.percentile(95)

    def percentile(self, share: float) -> float:
        """What ``share`` per cent of the runs do not exceed; between two runs, in proportion."""
        return float(np.percentile(self.milliseconds, share))

    def by_round(self) -> list[float]:
        """The median of each round."""
        found, first = [], 0
        for count in self.turns or [1] * len(self.milliseconds):
            found.append(float(np.median(self.milliseconds[first : first + count])))
            first += count
        return found

    def record(self) -> dict[str, float]:
        """What JSON is to say of them."""
        found = {
            "mean": self.mean,
            "std": self.std,
            "min": self.min,
            "max": self.max,
            "median": self.median,
            "p95": self.p95,
            "p99": self.percentile(99),
        }
        return {name: round(value, 6) for name, value in found.items()} | {
            "runs": len(self.milliseconds)
        }


def sum_of(parts: Sequence[Times]) -> Times:
    """The times of things that were timed together in each run, as one thing."""
    columns = zip(*(part.milliseconds for part in parts), strict=True)
    return Times(tuple(sum(column) for column in columns), parts[0].turns)
