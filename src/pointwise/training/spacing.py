"""How dense scans are, and what follows from it: the edge of a kernel cell, the side of a block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import Scan


def default_cell_size(scans: Sequence[Scan], *, occupancy: float) -> float:
    """The edge of a cube that holds ``occupancy`` points on average, over cubes that hold any.

    On a surface, with 5, that is about twice the spacing of the points. Cubes are counted, not
    points, so that the dense surroundings of a scanner do not decide for the rest. In the scans'
    unit, rounded to two digits; the median over some of the scans, of each its largest part.
    """
    chosen = [scan for scan in scans if len(scan) > 1]
    chosen = chosen[:: max(1, len(chosen) // 8)]
    sizes = [_edge(_crop(find_extent(scan.points).parts[0]), occupancy) for scan in chosen]
    size = float(np.median(sizes)) if sizes else 0.0
    if size <= 0:
        raise ValueError(
            "train: the clouds have no extent to take a cell size from; give --cell-size"
        )
    return float(f"{size:.2g}")


def default_block(scans: Sequence[Scan], *, points: int, most: int) -> float:
    """The side of a square column that holds about ``points`` points; all of a scan if it is small.

    In the scans' unit, rounded up to two digits.
    """
    found = (find_extent(scan.points) for scan in scans if len(scan))  # one at a time in memory
    if max(len(scan) for scan in scans) <= most:
        side = max(
            float(np.ptp(part[:, :2], axis=0).max()) for each in found for part in each.parts
        )
    else:
        side = float(np.median([np.sqrt(points / _density(each.parts[0])) for each in found]))
    if side <= 0:
        raise ValueError("train: the clouds have no horizontal extent; give --block")
    unit = 10.0 ** (np.floor(np.log10(side)) - 1)
    return float(f"{(np.floor(side / unit) + 1) * unit:.2g}")


def _density(points: np.ndarray) -> float:
    """Points per unit of occupied ground."""
    low, extent = points[:, :2].min(axis=0), float(np.ptp(points[:, :2], axis=0).max())
    if extent == 0:
        return np.inf
    side = extent / min(64, max(1, np.sqrt(len(points) / 16)))  # empty cells must mean empty ground
    cell = ((points[:, :2] - low) / side).astype(np.int64)
    occupied = len(np.unique(cell[:, 0] * 100 + cell[:, 1]))
    return len(points) / (occupied * side**2)


def _crop(points: np.ndarray, most: int = 50_000) -> np.ndarray:
    """The points nearest to the middle one on the ground: fewer, but as dense as they were."""
    if len(points) <= most:
        return points
    middle = np.median(points[:, :2], axis=0)
    distance = np.abs(points[:, :2] - middle).max(axis=1)
    return points[np.argpartition(distance, most)[:most]]


def _edge(points: np.ndarray, occupancy: float) -> float:
    points = points - points.min(axis=0)
    points = np.unique(points, axis=0)  # duplicates say nothing of the spacing
    low, high = 0.0, float(points.max())
    for _ in range(16):
        middle = (low + high) / 2
        if middle == 0:
            return 0.0
        cell = np.minimum(points / middle, 2**20).astype(np.int64)
        cubes = len(np.unique((cell[:, 0] << 42) + (cell[:, 1] << 21) + cell[:, 2]))
        low, high = (low, middle) if len(points) / cubes >= occupancy else (middle, high)
    return high
