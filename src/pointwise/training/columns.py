"""Scenes cut into square columns: any block found at once, and every point in one block's core."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pointwise.cloud.frame import Frame


class Columns:
    """The points of a scan sorted into small square columns, so that a rectangle is read in rows.

    Costs one sort; a rectangle then costs what it holds, not what the scan holds. ``away [N]`` are
    points that no rectangle holds, such as strays (default: none). Blocks are laid out from the
    points' extent, or from that of the ``frame`` which they are a part of.
    """

    def __init__(
        self,
        points: np.ndarray,
        side: float,
        away: np.ndarray | None = None,
        frame: Frame | None = None,
    ) -> None:
        self.xy = points[:, :2]  # [N, 2] float64, a view
        self.away = np.empty(0, dtype=np.int64) if away is None else np.flatnonzero(away)
        inside = slice(None) if away is None or not away.any() else np.flatnonzero(~away)
        xy = self.xy[inside]
        self.low, self.high = xy.min(axis=0), xy.max(axis=0)
        if frame is not None:
            self.low, self.high = np.array(frame.low[:2]), np.array(frame.high[:2])
        extent = float((self.high - self.low).max())
        self.side = max(side, extent / 2**30) or 1.0  # keys stay within int64
        self.shape = self._cell(self.high) + 1
        cell = self._cell(xy)
        key = cell[:, 1] * self.shape[0] + cell[:, 0]
        order = np.argsort(key, kind="stable")
        self.keys = key[order]
        self.order: np.ndarray | None = order if isinstance(inside, slice) else inside[order]

    @property
    def sorting(self) -> np.ndarray:
        """The points' indices column by column, and then those that are away: ``[N]``."""
        return np.concatenate([self.rows(0, len(self.keys)), self.away])

    @classmethod
    def of_sorted(
        cls, points: np.ndarray, side: float, keys: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> Columns:
        """Of points that lie in the order of ``sorting`` already, so that nothing is computed."""
        made = cls.__new__(cls)
        made.xy, made.away = points[:, :2], np.arange(len(keys), len(points))
        made.low, made.high, made.side = low, high, side
        made.shape = made._cell(high) + 1
        made.keys, made.order = keys, None
        return made

    def rows(self, first: int, last: int) -> np.ndarray:
        """The indices of some points, by their places in the columns' order."""
        return np.arange(first, last) if self.order is None else self.order[first:last]

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
        index = np.concatenate([self.rows(a, b) for a, b in zip(first, last, strict=True)])
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
    is too dense for that, the block is divided. Every point is in exactly one core; those that lie
    away from the rest come last, with what is near them alone.
    """
    yield from _tiles(columns, side, margin, most)
    yield from _away(columns, side, most)


def _tiles(
    columns: Columns, side: float, margin: float, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    above = np.nextafter(columns.high, np.inf)  # rectangles are half-open
    if (above - columns.low <= side).all():
        yield from _divided(columns, columns.low, above, 0.0, most)
        return
    count = np.ceil((above - columns.low) / (side - 2 * margin)).astype(np.int64).clip(1)
    width = (above - columns.low) / count

    def edges(axis: int, place: np.ndarray) -> np.ndarray:
        """Where tiles begin along x (0) or y (1); the last of them end at ``above``."""
        begin = place * width[axis] + columns.low[axis]
        return np.where(place == count[axis], above[axis], begin)

    order = columns.rows(0, len(columns.keys))
    tile = np.zeros(len(order), dtype=np.int64)
    for axis in (1, 0):
        along = columns.xy[order, axis]
        place = ((along - columns.low[axis]) / width[axis]).astype(np.int64)
        place = place.clip(0, count[axis] - 1)
        place -= along < edges(axis, place)  # the quotient is rounded, but edges decide
        place += along >= edges(axis, place + 1)
        tile = tile * count[axis] + place
    for number in np.unique(tile):
        y, x = divmod(int(number), int(count[0]))
        ends = [edges(axis, np.array([at, at + 1])) for axis, at in ((0, x), (1, y))]
        low, high = np.array(ends).T
        yield from _divided(columns, low, high, margin, most)


def _away(columns: Columns, side: float, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The points away from the rest, square by square."""
    if not len(columns.away):
        return
    place = np.floor((columns.xy[columns.away] - columns.low) / side).clip(-(2**62), 2**62)
    _, square = np.unique(place[:, 0] + 1j * place[:, 1], return_inverse=True)
    order = np.argsort(square.reshape(-1), kind="stable")
    for group in np.split(columns.away[order], np.flatnonzero(np.diff(square[order])) + 1):
        for part in range(-(-len(group) // most)):
            index = group[part * most : (part + 1) * most]
            yield index, np.ones(len(index), dtype=bool)


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
