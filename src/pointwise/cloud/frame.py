"""The box around a cloud, and around clouds that lie side by side: what grids are laid out from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pointwise.cloud.extent import find_extent


@dataclass(frozen=True)
class Frame:
    """The lowest and the highest x, y and z, strays left out.

    Tiles of one survey share the frame around all of them: then the grids of voxels, of the ground
    and of blocks lie in each tile as they would lie in the merged scan.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @classmethod
    def of(cls, points: np.ndarray) -> Frame:  # [N, 3], N > 0
        kept = find_extent(points).kept
        return cls(_three(kept.min(axis=0)), _three(kept.max(axis=0)))

    @classmethod
    def around(cls, frames: Iterable[Frame]) -> Frame:
        lows, highs = zip(*((frame.low, frame.high) for frame in frames), strict=True)
        return cls(_three(np.min(lows, axis=0)), _three(np.max(highs, axis=0)))

    def grown(self, by: float) -> Frame:
        """``by`` wider on each side of x and y."""
        (x, y, z), (right, top, up) = self.low, self.high
        return Frame((x - by, y - by, z), (right + by, top + by, up))

    def times(self, factor: float) -> Frame:
        """The same in another unit."""
        return Frame(*(_three(factor * np.array(corner)) for corner in (self.low, self.high)))

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which points ``[N, 3]`` lie in it, seen from above: bool ``[N]``."""
        (left, bottom), (right, top) = self.low[:2], self.high[:2]
        x, y = points[:, 0], points[:, 1]
        return (x >= left) & (x <= right) & (y >= bottom) & (y <= top)

    def shared(self, other: Frame) -> float:
        """The share of the smaller one's area that both cover, seen from above."""
        low, high = np.maximum(self.low, other.low)[:2], np.minimum(self.high, other.high)[:2]
        if (low > high).any():
            return 0.0
        own, others = (np.subtract(box.high, box.low)[:2] for box in (self, other))
        thinnest = 1e-6 * max(own.max(), others.max()) or 1.0  # of a wall, which has no area
        both, own, others = (np.maximum(sides, thinnest) for sides in (high - low, own, others))
        return float(both.prod() / min(own.prod(), others.prod()))


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
