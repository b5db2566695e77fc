"""Scenes cut into square columns: any block found at once, and every point in one block's core."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Columns:
    """The points of a scan sorted into small square columns, so that a rectangle is read in rows.

    Costs one sort; a rectangle then costs what it holds, not what the scan holds.
    """

    def __init__(self, points: np.ndarray, side: float) -> None:
        self.xy = points[:, :2]  # [N, 2] float64, a view
        self.low, self.high = self.xy.min(axis=0), self.xy.max(axis=0)
        extent = float((self.high - self.low).max())
        self.side = max(side, extent / 2**20) or 1.0  # keys stay within int64
        self.shape = self._cell(self.high) + 1
        cell = self._cell(self.xy)
        key = cell[:, 1] * self.shape[0] + cell[:, 0]
        self.order = np.argsort(key, kind="stable")
        self.keys = key[self.order]

    def _cell(self, xy: np.ndarray) -> np.ndarray:
        # Subtraction, division and floor are all monotone, so a point inside a rectangle is in a
        # cell between those of its corners: no point is lost to rounding.
        return np.floor((xy - self.low) / self.side).astype(np.int64)

    def rectangle(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The indices of the points with ``low <= (x, y) < high``, column by column."""
        inner = np.maximum(low, self.low), np.minimum(high, self.high)
        if (inner[0] > inner[1]).any():
            return np.empty(0, dtype=np.int64)
        (x0, y0), (x1, y1) = self._cell(inner[0]), self._cell(inner[1])
        rows = np.arange(y0, y1 + 1) * self.shape[0]
        first = np.searchsorted(self.keys, rows + x0)
        last = np.searchsorted(self.keys, rows + x1, side="right")
        index = np.concatenate([self.order[a:b] for a, b in zip(first, last, strict=True)])
        return index[within(self.xy[index], low, high)]


def within(xy: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which points ``[N, 2]`` have ``low <= (x, y) < high``."""
    x, y = xy[:, 0], xy[:, 1]
    return (x >= low[0]) & (x < high[0]) & (y >= low[1]) & (y < high[1])


def blocks(
    columns: Columns, side: float, margin: float, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts a scan into blocks that overlap by margins: yields ``(index [n], core [n] bool)``.

    A block is ``side`` wide, margins included, and holds at most ``most`` points; where the scan
    is too dense for that, the block is divided. Every point is in exactly one core.
    """
    above = np.nextafter(columns.high, np.inf)  # rectangles are half-open
    if (above - columns.low <= side).all():
        yield from _divided(columns, columns.low, above, 0.0, most)
        return
    count = np.ceil((above - columns.low) / (side - 2 * margin)).astype(np.int64).clip(1)
    edges = [np.linspace(columns.low[a], above[a], count[a] + 1) for a in (0, 1)]
    for axis in (0, 1):  # linspace may round its ends
        edges[axis][0], edges[axis][-1] = columns.low[axis], above[axis]
    place = [np.searchsorted(edges[a], columns.xy[:, a], side="right") - 1 for a in (0, 1)]
    for tile in np.unique(place[1] * count[0] + place[0]):
        y, x = divmod(int(tile), int(count[0]))
        low = np.array([edges[0][x], edges[1][y]])
        high = np.array([edges[0][x + 1], edges[1][y + 1]])
        yield from _divided(columns, low, high, margin, most)


def _divided(
    columns: Columns, low: np.ndarray, high: np.ndarray, margin: float, most: int, depth: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    index = columns.rectangle(low - margin, high + margin)
    core = within(columns.xy[index], low, high)
    if not core.any():
        return
    if len(index) <= most:
        yield index, core
        return
    middle = (low + high) / 2
    if depth == 10 or (middle <= low).any() or (middle >= high).any():
        # A pole or a wall seen from above: no smaller square helps, so its points are interleaved.
        index = index[core]
        parts = -(-len(index) // most)
        for part in range(parts):
            yield index[part::parts], np.ones(len(index[part::parts]), dtype=bool)
        return
    xs, ys = zip(low, middle, high, strict=True)
    for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corners = np.array([xs[i], ys[j]]), np.array([xs[i + 1], ys[j + 1]])
        yield from _divided(columns, *corners, margin / 2, most, depth + 1)
