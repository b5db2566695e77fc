"""Which of the files that are labelled together lie side by side, as the tiles of one survey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pointwise.cloud.files import read_scan
from pointwise.cloud.frame import Frame
from pointwise.cloud.units import factor

MOST_SHARED = 0.2  # of a tile's area; tiles may overlap by a seam, not by half


@dataclass(frozen=True)
class Place:
    """Where a file's points are (None where it has none), in its unit, and how many there are."""

    file: Path
    frame: Frame | None
    points: int
    unit: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """What a tile can see beyond its own points; ``frame`` is that around its survey."""

    frame: Frame | None = None
    neighbours: tuple[Path, ...] = ()


ALONE = Surroundings()


def find_place(file: Path, columns: str | None = None) -> Place:
    """Reads a file to see where its points are; raises what ``read_scan`` raises."""
    scan = read_scan(file, columns=columns)
    return Place(file, Frame.of(scan.points) if len(scan) else None, len(scan), scan.unit)


def surroundings(
    places: Sequence[Place], reach: float, unit: str | None = None
) -> list[Surroundings]:
    """For each file the survey that it is a tile of, and the others within ``reach`` of it.

    ``reach`` and the frames that are found are in ``unit``.

    Clouds that cover the same place (rooms in coordinates of their own, one street scanned twice)
    are no tiles: what covers more than ``MOST_SHARED`` of another, or is covered so, stands alone.
    """
    places = [_in_unit(place, unit) for place in places]
    near: list[set[int]] = [set() for _ in places]
    same: set[int] = set()
    for i, j in _candidates(places, reach):
        one, other = places[i].frame, places[j].frame
        assert one is not None
        assert other is not None
        if one.grown(reach).shared(other):
            near[i].add(j)
            near[j].add(i)
        if one.shared(other) > MOST_SHARED:
            same |= {i, j}
    tiles = {i for i, others in enumerate(near) if others} - same
    found = [ALONE] * len(places)
    for survey in _connected(tiles, near):
        frame = Frame.around(f for i in survey if (f := places[i].frame) is not None)
        for i in survey:
            files = tuple(places[j].file for j in sorted(near[i]) if j in tiles)
            found[i] = Surroundings(frame, files) if files else found[i]
    return found


def _in_unit(place: Place, unit: str | None) -> Place:
    if place.frame is None:
        return place
    return replace(place, frame=place.frame.times(factor(place.unit, unit)))


def _candidates(places: Sequence[Place], reach: float) -> Iterator[tuple[int, int]]:
    """Pairs that may be near each other: of ten thousand tiles not each is held against each."""
    west = {i: place.frame.low[0] for i, place in enumerate(places) if place.frame is not None}
    order = sorted(west, key=lambda i: west[i])
    for place, i in enumerate(order):
        frame = places[i].frame
        assert frame is not None
        for j in islice(order, place + 1, None):
            if west[j] > frame.high[0] + reach:
                break
            yield i, j


def _connected(tiles: set[int], near: Sequence[set[int]]) -> list[list[int]]:
    """The tiles that neighbours lead to from one another, each group in the files' order."""
    groups, left = [], set(tiles)
    while left:
        group: set[int] = set()
        ahead = [min(left)]
        while ahead:
            i = ahead.pop()
            if i in left:
                left.remove(i)
                group.add(i)
                ahead += near[i] & left
        groups.append(sorted(group))
    return groups
