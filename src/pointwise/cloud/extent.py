"""Where a cloud is: its parts, and the few points that lie far away from all of them.

A scanner's file may hold a point at the origin, an echo from a mirror or a bird. One such point
decides the bounding box alone, so nothing is estimated from a bounding box, but from what is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pointwise.cloud.scan import Scan

PART = 0.01  # the share of the points that makes a distant group a part of the cloud
_SIDE = 8  # cells along an axis that hold nine tenths of a cloud spread evenly
_SAMPLE = 20_000
_FURTHEST = 2**30  # cells from the middle; what is beyond shares the last one


@dataclass(frozen=True)
class Extent:
    """The part that each point belongs to, int64 ``[N]``; -1 for a stray, 0 is the largest."""

    points: np.ndarray  # [N, 3]
    part: np.ndarray

    @cached_property
    def stray(self) -> np.ndarray:
        """Which points lie far away from all parts: bool ``[N]``."""
        return self.part < 0

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """The points ``[n, 3]`` of each part: the given array itself where it is but one."""
        if not self.part.any():
            return [self.points]
        return [self.points[self.part == i] for i in range(self.part.max() + 1)]

    @cached_property
    def kept(self) -> np.ndarray:
        """All points ``[n, 3]`` that are no strays."""
        return self.points[~self.stray] if self.stray.any() else self.points


def find_extent(points: np.ndarray) -> Extent:
    """Finds the parts and the strays of finite points ``[N, 3]``; a cloud may be of any unit.

    Seen from above, groups of points are apart where nothing is between them over more than about
    twice what nine tenths of the points cover. A group that holds less than ``PART`` of the points,
    or one place only, is of strays. So is what is as far above or below the others: more than
    twice the height that nine tenths of the points have, and a quarter of what they cover. Fewer
    than ten places are one part.
    """
    part = np.zeros(len(points), dtype=np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = _void(points[:, :2])
        if _reaches(points[:, :2], apart):
            part = _ranked(points, _groups(points[:, :2], apart))
        kept = np.flatnonzero(part >= 0)
        z = points[kept, 2:]
        apart = max(_void(z), apart / _SIDE)
        if _reaches(z, apart):
            part[kept[_ranked(z, _groups(z, apart)) < 0]] = -1
    return Extent(points, part)


def set_aside(scan: Scan) -> str:
    """What to tell of a scan's strays and parts, in one line; nothing where there is none."""
    said = far_apart(find_extent(scan.points))
    return f"{scan.source or scan.name or 'a scan'}: {said}" if said else ""


def far_apart(extent: Extent) -> str:
    """How many strays there are and where, and how many parts; nothing where all is together."""
    said = []
    if strays := int(extent.stray.sum()):
        at = ", ".join(f"{x:.10g}" for x in extent.points[int(extent.stray.argmax())])
        which = f"at ({at})" if strays == 1 else f"the first at ({at})"
        said.append(
            f"{strays:,} of {len(extent.points):,} points far from the others, {which}, left out"
            " of what is measured"
        )
    if (parts := len(extent.parts)) > 1:
        said.append(f"points in {parts} places far apart, each measured by itself")
    return "; ".join(said)


def _void(places: np.ndarray) -> float:
    """How much emptiness sets groups of places ``[N, D]`` apart; ∞ where there are too few."""
    axes = places.shape[1]
    sample = np.unique(places[:: max(1, len(places) // _SAMPLE)], axis=0)
    if len(sample) < 10:  # nine of which are nine tenths
        return np.inf
    side = int(min(_SIDE, max(2, (len(sample) / 4) ** (1 / axes))))
    local = sample - np.median(sample, axis=0)
    most = int(np.frexp(np.abs(local).max())[1])
    low, high = max(most - 1100, -1000), most + 1  # exponents of a cell's edge
    while high - low > 1:  # grids of powers of two are nested, so the count only falls
        middle = (low + high) // 2
        _, held = np.unique(_cells(local, float(np.ldexp(1.0, middle))), return_counts=True)
        if np.sort(held)[::-1][: side**axes].sum() >= 0.9 * len(sample):
            high = middle
        else:
            low = middle
    return 2.0 * side * float(np.ldexp(1.0, high))


def _cells(local: np.ndarray, edge: float) -> np.ndarray:
    """The cell ``[N]`` of each place, x and y as a complex number: as far as float64 reaches."""
    cell = np.floor(local / edge)
    return cell[:, 0] if cell.shape[1] == 1 else cell[:, 0] + 1j * cell[:, 1]


def _reaches(places: np.ndarray, apart: float) -> bool:
    return len(places) > 0 and bool((np.ptp(places, axis=0) > 2 * apart).any())


def _keys(local: np.ndarray, edge: float) -> np.ndarray:
    """One number for the cell ``[N]`` that each place ``[N, 1 or 2]`` about the middle is in."""
    cell = np.floor(local / edge).clip(-_FURTHEST, _FURTHEST).astype(np.int64) + _FURTHEST
    return cell[:, 0] if cell.shape[1] == 1 else cell[:, 0] << 32 | cell[:, 1]


def _groups(places: np.ndarray, apart: float) -> np.ndarray:
    """The group of each place ``[N]``: cells ``apart`` wide that touch each other are of one."""
    middle = np.median(places[:: max(1, len(places) // _SAMPLE)], axis=0)
    keys, cell = np.unique(_keys(places - middle, apart), return_inverse=True)
    steps = [1] if places.shape[1] == 1 else [1, (1 << 32) - 1, 1 << 32, (1 << 32) + 1]
    group = np.arange(len(keys))
    neighbours = []
    for step in steps:
        found = np.searchsorted(keys, keys + step).clip(max=len(keys) - 1)
        touching = np.flatnonzero(keys[found] == keys + step)
        neighbours.append((touching, found[touching]))
    a, b = (np.concatenate(side) for side in zip(*neighbours, strict=True))
    while (group[a] != group[b]).any():  # the lowest number spreads, and jumps ahead
        lowest = np.minimum(group[a], group[b])
        np.minimum.at(group, a, lowest)
        np.minimum.at(group, b, lowest)
        group = group[group]
    return group[cell.reshape(-1)]


def _ranked(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Groups numbered by size from the largest on; -1 for those that are of strays."""
    _, of, count = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(-count, kind="stable")
    rank = np.full(len(count), -1)
    for place, number in enumerate(order):
        large = count[number] >= PART * len(points) and count[number] > 1
        if place and not (large and np.ptp(points[of == number], axis=0).any()):
            continue
        rank[number] = rank.max() + 1
    return rank[of.reshape(-1)]
