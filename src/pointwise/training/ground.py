"""The ground under a scan, and the height of its points above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.frame import Frame

MOST_CELLS = 1024  # along an axis, where the side of a cell is given
FURTHEST = 128  # cells that a gap is filled from its edge


class Ground:
    """The ground under each part of a scan; strays stand above that of the part nearest to them.

    With a ``frame``, which is that of a survey, ``points`` are a part of it, whose ground is as it
    is there, but for a cell and a half at the edge.
    """

    def __init__(
        self, points: np.ndarray, *, frame: Frame | None = None, **options: Any
    ) -> None:  # [N, 3] float64
        extent = find_extent(points)
        parts = extent.parts if frame is None else [extent.kept]
        self.parts = [_Grid(part, frame=frame, **options) for part in parts]

    @classmethod
    def of(cls, grids: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Ground:
        """The ground whose ``grids`` are these."""
        made = cls.__new__(cls)
        made.parts = [_Grid.of(*grid) for grid in grids]
        return made

    @property
    def grids(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each part where its grid begins ``[2]``, its cells' sides ``[2]``, and the grid."""
        return [(part.low, part.side, part.grid) for part in self.parts]

    def height(self, points: np.ndarray) -> np.ndarray:
        """The height float32 ``[N]`` of points ``[N, 3]`` above the ground, in their unit."""
        if len(self.parts) == 1:
            return self.parts[0].height(points)
        nearest = np.argmin([part.distance(points) for part in self.parts], axis=0)
        height = np.empty(len(points), dtype=np.float32)
        for i, part in enumerate(self.parts):
            height[nearest == i] = part.height(points[nearest == i])
        return height


class _Grid:
    """A coarse grid of low percentiles of z, interpolated between the cells' centres.

    A percentile, not the minimum: scanners see ghosts below the floor. A cell holds thousands of
    points, so that it is wider than the furniture or the house that stands in it.
    """

    def __init__(
        self,
        points: np.ndarray,  # [N, 3] float64
        *,
        frame: Frame | None = None,
        side: float = 0.0,
        per_cell: int = 4096,
        percentile: float = 2.0,
        most_cells: int = 64,  # along an axis
    ) -> None:
        points = points[:: max(1, len(points) // 1_000_000)]
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        if frame is not None:
            low, high = np.array(frame.low[:2]), np.array(frame.high[:2])
        extent = high - low
        if side:  # in a wrong unit it would make more cells than memory holds
            side = max(side, float(np.ptp(points[:, :2], axis=0).max()) / MOST_CELLS)
        side = side or side_of(points, per_cell, most_cells)
        # Cells that divide the extent evenly: a sliver at the edge may hold a roof and no ground.
        whole = np.floor(extent / (side or 1.0)).clip(1)  # along x and y
        self.side = np.where(extent > 0, extent / whole, 1.0)
        # Of a frame only what is here: a survey has millions of cells.
        first = np.floor((points[:, :2].min(axis=0) - low) / self.side).clip(0, whole - 1)
        last = np.floor((points[:, :2].max(axis=0) - low) / self.side).clip(0, whole - 1)
        self.low = low + first * self.side
        self.shape = (last - first).astype(np.int64) + 1

        cell = ((points[:, :2] - low) / self.side).clip(0, whole - 1).astype(np.int64)
        cell -= first.astype(np.int64)
        key = cell[:, 0] * self.shape[1] + cell[:, 1]
        order = np.lexsort((points[:, 2], key))
        occupied, first, count = np.unique(key[order], return_index=True, return_counts=True)
        lowest = order[first + (count * percentile / 100).astype(np.int64)]
        grid = np.full(int(self.shape.prod()), np.nan)
        grid[occupied] = points[lowest, 2]
        self.grid = _filled(grid.reshape(self.shape))

    @classmethod
    def of(cls, low: np.ndarray, side: np.ndarray, grid: np.ndarray) -> _Grid:
        made = cls.__new__(cls)
        made.low, made.side, made.grid = low, side, grid
        made.shape = np.array(grid.shape)
        return made

    def distance(self, points: np.ndarray) -> np.ndarray:
        """How far points ``[N, 3]`` are from the grid's rectangle: ``[N]``, along x or y."""
        high = self.low + self.side * self.shape
        outside = np.maximum(self.low - points[:, :2], points[:, :2] - high)
        return outside.max(axis=1).clip(0)

    def height(self, points: np.ndarray) -> np.ndarray:
        (x0, x1, fx), (y0, y1, fy) = (self._between(points[:, axis], axis) for axis in (0, 1))
        grid, row = self.grid.reshape(-1), self.shape[1]
        x0, x1 = x0 * row, x1 * row
        west = grid.take(x0 + y0) * (1 - fy) + grid.take(x0 + y1) * fy
        east = grid.take(x1 + y0) * (1 - fy) + grid.take(x1 + y1) * fy
        height = points[:, 2] - west * (1 - fx) - east * fx
        largest = np.finfo(np.float32).max
        return height.clip(-largest, largest).astype(np.float32)

    def _between(self, values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cells whose centres a coordinate lies between, and its share of the way."""
        last = self.shape[axis] - 1
        place = ((values - self.low[axis]) / self.side[axis] - 0.5).clip(0, last)
        cell = place.astype(np.int64)
        return cell, np.minimum(cell + 1, last), place - cell


def side_of(points: np.ndarray, per_cell: int = 4096, most_cells: int = 64) -> float:
    """The side of a square column that holds ``per_cell`` of the points ``[N, 3]``."""
    extent = np.ptp(points[:, :2], axis=0)
    area = max(float(extent.prod()), 1e-12)
    return max(float(np.sqrt(area * per_cell / len(points))), float(extent.max()) / most_cells)


def _filled(grid: np.ndarray) -> np.ndarray:
    """The grid with its empty (NaN) cells grown from the neighbours that are known.

    A point looks one cell beyond its own, so what lies further within a gap matters to strays only.
    """
    for _ in range(FURTHEST):
        if not np.isnan(grid).any():
            return grid
        padded = np.pad(grid, 1, constant_values=np.nan)
        sides = np.stack([padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
        known = np.isfinite(sides)
        mean = np.where(known, sides, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        grid = np.where(np.isnan(grid) & known.any(axis=0), mean, grid)
    return np.where(np.isnan(grid), np.nanmedian(grid), grid)
