"""How many times as long, or as fast: a ratio of paired times, and the interval it lies in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointwise.timing.times import Times

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """A ratio, and between what it lies with a confidence of 95 %.

    ``low`` and ``high`` are 0 and infinity where there were too few rounds to say.
    """

    value: float
    low: float
    high: float

    @property
    def is_above(self) -> bool:
        """Whether it is above 1, beyond what chance would do."""
        return self.low > 1

    @property
    def is_below(self) -> bool:
        return self.high < 1

    @property
    def is_decided(self) -> bool:
        return self.is_above or self.is_below

    def inverse(self) -> Ratio:
        """Of one to the other, where this is of the other to the one."""
        high = math.inf if self.low == 0 else 1 / self.low
        return Ratio(1 / self.value, 1 / self.high, high)

    def __str__(self) -> str:
        value, low, high = map(factor, (self.value, self.low, self.high))
        if not math.isfinite(self.high) or low == value == high:
            return value
        return f"{value} ({low} to {high})"

    def record(self) -> dict[str, float | None]:
        """What JSON is to say of it; an interval that nobody knows is null."""
        known = math.isfinite(self.high)
        return {
            "ratio": round(self.value, 4),
            "low": round(self.low, 4) if known else None,
            "high": round(self.high, 4) if known else None,
        }


UNKNOWN = Ratio(math.nan, 0.0, math.inf)
"""Of what was never timed in the same round."""


def factor(number: float) -> str:
    """A factor as people read it: ``120``, ``12.0``, ``1.90``, ``0.53``."""
    digits = 0 if number >= 99.5 else 1 if number >= 1.95 else 2
    return f"{number:.{digits}f}"


def ratio(times: Times, other: Times) -> Ratio:
    """How many times as long as ``other`` something takes, by the rounds in which both ran.

    Each round gives a ratio, so that what slows down a round slows down both sides of it. The value
    is their median, the interval the sign test's: of n ratios, of which each is as likely to be
    above the median as below it, so many of the smallest and the largest are left out as together
    are beyond it in 5 % of all cases at most. Below six rounds nothing can be.

    >>> ratio(Times((2.0, 4.2, 6.0, 2.2, 4.0, 1.9)), Times((1.0, 2.0, 3.0, 1.0, 2.0, 1.0)))
    Ratio(value=2.0, low=1.9, high=2.2)
    """
    pairs = zip(times.by_round(), other.by_round(), strict=False)
    ratios = sorted(one / two for one, two in pairs if two > 0)
    return _interval(ratios) if ratios else UNKNOWN


def _interval(ratios: Sequence[float]) -> Ratio:
    count, value = len(ratios), float(np.median(ratios))
    out = -1  # so many on each side
    beyond, term = 0.0, 0.5**count
    while beyond + 2 * term <= 1 - CONFIDENCE:
        beyond += 2 * term
        out += 1
        term *= (count - out) / (out + 1)
    if out < 0:
        return Ratio(value, 0.0, math.inf)
    return Ratio(value, ratios[out], ratios[count - 1 - out])
