"""Where labels would help a run most: regions it is unsure of, each unsure of something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.label import VOTES, label_probabilities
from pointwise.training.run import Run

SIDE_CELLS = 16  # cells of the finest convolution along a region's side: 1.6 m in rooms
FEWEST = 0.1  # of the median region's points; less is the rim of a scan


@dataclass(frozen=True)
class Region:
    """A square column of a scan, and how unsure the run is of what stands there.

    ``low`` and ``side`` are in the scan's own frame and unit. ``doubts [K, K]`` is symmetric: at
    ``[a, b]`` the mean entropy (0 to 1) of the points that are most likely a or b, shared by all of
    the region's points. ``shares [K]`` are the shares of its points whose likeliest class is each.
    """

    scan: int  # the place of its scan among those looked at
    square: int  # its number, as ``squares`` has it
    points: int  # without a label
    low: tuple[float, float]
    side: float
    doubts: np.ndarray
    shares: np.ndarray

    @property
    def uncertainty(self) -> float:
        """The mean entropy of its points, 0 to 1."""
        return float(np.triu(self.doubts).sum())

    @property
    def between(self) -> tuple[int, int]:
        """The two classes, by their places, that it holds most doubt between."""
        first, second = np.unravel_index(np.argmax(np.triu(self.doubts)), self.doubts.shape)
        return int(first), int(second)


def regions(
    run: Run,
    scans: Iterable[Scan],
    *,
    side: float | None = None,
    votes: int = VOTES,
    progress: Callable[[int], object] | None = None,
) -> list[Region]:
    """Cuts scans into square columns and asks the run how sure it is of each.

    Points that have a label already, and strays, belong to none. ``progress`` is called with the
    number of points done.
    """
    side = default_side(run) if side is None else side
    found: list[Region] = []
    for number, scan in enumerate(scans):
        found += _regions_of(run, scan, number, side, votes)
        if progress is not None:
            progress(len(scan))
    if not found:
        return []
    enough = FEWEST * np.median([region.points for region in found])
    return [region for region in found if region.points >= enough]


def default_side(run: Run) -> float:
    """``SIDE_CELLS`` of the run's kernel cells, in the scans' unit."""
    return SIDE_CELLS * float(run.arguments["cell_size"])


def squares(scan: Scan, side: float) -> tuple[np.ndarray, np.ndarray]:
    """The number of each point's square ``[N]`` (-1 for strays), and each square's low corner."""
    extent = find_extent(scan.points)
    low = extent.kept[:, :2].min(axis=0)
    place = np.floor((scan.points[~extent.stray, :2] - low) / side).astype(np.int64)
    places, inside = np.unique(place, axis=0, return_inverse=True)
    number = np.full(len(scan), -1, dtype=np.int64)
    number[~extent.stray] = inside.reshape(-1)
    return number, low + side * places


def _regions_of(run: Run, scan: Scan, number: int, side: float, votes: int) -> list[Region]:
    if not len(scan):
        return []
    square, corners = squares(scan, side)
    if scan.labels is not None:
        square = np.where(scan.labels == UNLABELLED, square, -1)
    count = len(run.recipe.classes)
    doubts = np.zeros((len(corners), count * count))
    shares = np.zeros((len(corners), count))
    points = np.bincount(square[square >= 0], minlength=len(corners))
    for index, probabilities in label_probabilities(run, scan, votes):
        known = square[index] >= 0
        at, probabilities = square[index][known], probabilities[known]
        second, first = np.argsort(probabilities, axis=1)[:, -2:].T
        pair = np.minimum(first, second) * count + np.maximum(first, second)
        np.add.at(doubts, (at, pair), entropy(probabilities))
        np.add.at(shares, (at, first), 1.0)
    found = []
    for region in np.flatnonzero(points):
        upper = doubts[region].reshape(count, count) / points[region]
        found.append(
            Region(
                scan=number,
                square=int(region),
                points=int(points[region]),
                low=(float(corners[region, 0]), float(corners[region, 1])),
                side=side,
                doubts=upper + np.triu(upper, 1).T,
                shares=shares[region] / points[region],
            )
        )
    return found


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy of each row ``[n, K]``, as a share of the largest there can be: ``[n]``."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    return -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])


def choose(found: Sequence[Region], count: int) -> list[int]:
    """The places of the ``count`` regions to label, the most useful first.

    What a set of regions is worth is the sum, over all pairs of classes, of the square root of the
    doubt between the two that it holds: what was never asked is worth more than more of the same,
    and with a sum of such roots the greedy choice is within 1 - 1/e of the best (Wei, Iyer, Bilmes,
    ICML 2015, "Submodularity in data subset selection and active learning").
    """
    doubts = np.array([np.triu(region.doubts).reshape(-1) for region in found])  # [R, K · K]
    held = np.zeros(doubts.shape[1] if len(found) else 0)
    left = np.ones(len(found), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, len(found)):
        gain = (np.sqrt(held + doubts) - np.sqrt(held)).sum(axis=1)
        best = int(np.argmax(np.where(left, gain, -1.0)))
        chosen.append(best)
        left[best] = False
        held = held + doubts[best]
    return chosen
