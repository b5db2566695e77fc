"""Where labels would help a run most: regions in which it doubts what it has few labels of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pointwise.cloud.extent import find_extent
from pointwise.cloud.scan import UNLABELLED, Scan
from pointwise.training.classes import IGNORED
from pointwise.training.label import VOTES, label_probabilities
from pointwise.training.run import Run

SIDE_CELLS = 16  # cells of the finest convolution along a region's side: 1.6 m in rooms
FEWEST = 0.1  # of the median region's size; less is the rim of a scan


@dataclass(frozen=True)
class Region:
    """A cube of a scan, and how unsure the run is of what stands there.

    ``low`` and ``side`` are in the scan's own frame and unit. ``size`` counts what has no label as
    the network reads it, one point for each cube of half a cell, and so do the others. ``doubts
    [K, K]`` is symmetric: at ``[a, b]`` the mean entropy (0 to 1) of the points that are most
    likely a or b, shared by all of the region's points. ``expected [K]`` is the sum of each class's
    probability times the entropy.
    """

    scan: int  # the place of its scan among those looked at
    cube: int  # its number, as ``cubes`` has it
    points: int  # without a label
    size: float
    low: tuple[float, float, float]
    side: float
    doubts: np.ndarray
    expected: np.ndarray

    @property
    def high(self) -> tuple[float, float, float]:
        x, y, z = self.low
        return x + self.side, y + self.side, z + self.side

    @property
    def uncertainty(self) -> float:
        """The mean entropy of its points, 0 to 1."""
        return float(np.triu(self.doubts).sum())

    @property
    def between(self) -> tuple[int, int]:
        """The two classes, by their places, that it holds most doubt between."""
        first, second = np.unravel_index(np.argmax(np.triu(self.doubts)), self.doubts.shape)
        return int(first), int(second)


@dataclass(frozen=True)
class Regions:
    """What was looked at, and how many points of each class, thinned as the network reads them,
    have a label there already ``[K]``."""

    found: list[Region]
    known: np.ndarray


def regions(
    run: Run,
    scans: Iterable[Scan],
    *,
    side: float | None = None,
    votes: int = VOTES,
    progress: Callable[[int], object] | None = None,
) -> Regions:
    """Cuts scans into cubes and asks the run how sure it is of each.

    Points that have a label already, and strays, belong to none. ``progress`` is called with the
    number of points done.
    """
    side = default_side(run) if side is None else side
    found: list[Region] = []
    known = np.zeros(len(run.recipe.classes))
    for number, scan in enumerate(scans):
        found += _regions_of(run, scan, number, side, votes, known)
        if progress is not None:
            progress(len(scan))
    if found:
        enough = FEWEST * np.median([region.size for region in found])
        found = [region for region in found if region.size >= enough]
    return Regions(found, known)


def default_side(run: Run) -> float:
    """``SIDE_CELLS`` of the run's kernel cells, in the scans' unit."""
    return SIDE_CELLS * float(run.arguments["cell_size"])


def cubes(scan: Scan, side: float) -> tuple[np.ndarray, np.ndarray]:
    """The number of each point's cube ``[N]`` (-1 for strays), and each cube's low corner."""
    extent = find_extent(scan.points)
    low = extent.kept.min(axis=0)
    place = np.floor((scan.points[~extent.stray] - low) / side).astype(np.int64)
    places, inside = np.unique(place, axis=0, return_inverse=True)
    number = np.full(len(scan), -1, dtype=np.int64)
    number[~extent.stray] = inside.reshape(-1)
    return number, low + side * places


def _regions_of(
    run: Run, scan: Scan, number: int, side: float, votes: int, known: np.ndarray
) -> list[Region]:
    """The regions of one scan; adds to ``known`` what has a label."""
    if not len(scan):
        return []
    cube, corners = cubes(scan, side)
    truth = np.full(len(scan), IGNORED)
    if scan.labels is not None:
        truth = run.recipe.targets(scan)
        cube = np.where(scan.labels == UNLABELLED, cube, -1)
    count = len(run.recipe.classes)
    doubts = np.zeros((len(corners), count * count))
    expected = np.zeros((len(corners), count))
    sizes = np.zeros(len(corners))
    points = np.bincount(cube[cube >= 0], minlength=len(corners))
    for index, probabilities, share in label_probabilities(run, scan, votes):
        labelled = truth[index] != IGNORED
        np.add.at(known, truth[index][labelled], share[labelled])
        open_ = cube[index] >= 0
        at, probabilities, share = cube[index][open_], probabilities[open_], share[open_]
        second, first = np.argsort(probabilities, axis=1)[:, -2:].T
        pair = np.minimum(first, second) * count + np.maximum(first, second)
        doubt = share * entropy(probabilities)
        np.add.at(doubts, (at, pair), doubt)
        np.add.at(expected, at, probabilities * doubt[:, None])
        np.add.at(sizes, at, share)
    found = []
    for region in np.flatnonzero(points):
        upper = doubts[region].reshape(count, count) / sizes[region]
        x, y, z = corners[region].tolist()
        found.append(
            Region(
                scan=number,
                cube=int(region),
                points=int(points[region]),
                size=float(sizes[region]),
                low=(x, y, z),
                side=side,
                doubts=upper + np.triu(upper, 1).T,
                expected=expected[region],
            )
        )
    return found


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy of each row ``[n, K]``, as a share of the largest there can be: ``[n]``."""
    logs = np.log(np.maximum(probabilities, 1e-12))
    return -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])


def choose(looked: Regions, count: int | None = None) -> list[int]:
    """The places of the ``count`` regions to label (or of all), the most useful first.

    What labels are worth is the sum, over the classes, of the square root of how many of them are
    doubtful: more of the same is worth less, so that rare classes count. The region is next that
    adds most to it for its size, by what the run expects there (Wei, Iyer, Bilmes, ICML 2015,
    "Submodularity in data subset selection and active learning", on such sums of roots). What is
    labelled already counts as if it were as doubtful, in the mean, as what is not.
    """
    found = looked.found
    if not found:
        return []
    expected = np.array([region.expected for region in found])  # [R, K]
    sizes = np.array([region.size for region in found])
    held = looked.known * expected.sum() / sizes.sum()
    left = np.ones(len(found), dtype=bool)
    chosen: list[int] = []
    for _ in range(len(found))[:count]:
        gain = (np.sqrt(held + expected) - np.sqrt(held)).sum(axis=1) / sizes
        best = int(np.argmax(np.where(left, gain, -1.0)))
        chosen.append(best)
        left[best] = False
        held = held + expected[best]
    return chosen
